"""What an array is here: namespaces, read-only arrays, checked numbers, seeds.

An array is a ``numpy.ndarray``, or an array of another library that implements the Python array API standard
(https://data-apis.org/array-api), as JAX does. Only NumPy's arrays can be written to and locked, so the functions that
lock leave other libraries' arrays unchanged.
"""

import functools
import math
import numbers
import operator
import pickle
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    Array: TypeAlias = Any
    Seed: TypeAlias = int | tuple[int, ...]
else:  # what signatures show

    class Array(Protocol):
        """The annotation of an array of any library; in a record, it makes the field an array field."""

    class Seed(Protocol):
        """The annotation of a seed: an int of at least 0, or a tuple of such ints, like ``(seed, epoch)``."""


def is_array(value: object) -> bool:
    """Whether a value implements the array API standard."""
    return hasattr(value, "__array_namespace__") and not isinstance(value, type)


def inspectable(array: Array) -> bool:
    """Whether an array is NumPy's, so that its values can be read now; JAX's may not be computed yet."""
    return isinstance(array, (np.ndarray, np.generic))


def namespace(array: Array, name: str = "array") -> Any:
    """Return the module with the functions for an array: ``numpy`` for NumPy, ``jax.numpy`` for JAX.

    Raises TypeError, with the given name, for anything that is not an array, and for subclasses of NumPy's arrays: they
    may change what ``*`` or ``==`` means. A memory map is an array.
    """
    if type(array) is np.ndarray:  # 1 us less than asking the array
        return np
    if not is_array(array):
        way_out = f"{name}.toarray()" if hasattr(array, "toarray") else f"np.asarray({name})"
        way_out = f"{name}.detach().numpy()" if hasattr(array, "detach") else way_out
        raise TypeError(f"{name} is {brief(array)} ({type(array).__name__}), but must be an array; {way_out} makes one")
    if isinstance(array, np.ndarray) and type(array) is not np.memmap:
        way_out = f"{name}.filled(...)" if np.ma.isMaskedArray(array) else f"np.asarray({name})"
        raise TypeError(
            f"{name} is a {type(array).__name__}, which computes differently; {way_out} makes a plain array"
        )
    return array.__array_namespace__()


def check_arrays(values: Iterable[Any]) -> None:
    """Raise TypeError unless all values are arrays."""
    for value in {type(value): value for value in values}.values():
        namespace(value, "leaf")


@functools.cache
def _is_kind(xp: Any, dtype: Any, kind: str | tuple[str, ...]) -> bool:
    unknown = xp is np and dtype.isbuiltin == 2  # to NumPy, as the bfloat16 of ml_dtypes is
    return not unknown and bool(xp.isdtype(dtype, kind))  # 0.9 us in NumPy, as long as a small matrix product


def has_kind(array: Array, *kinds: str) -> bool:
    """Whether the dtype of an array is of one of the array API's kinds, such as ``"real floating"``."""
    return _is_kind(namespace(array), array.dtype, kinds)


def lock_in_place(array: Array) -> Array:
    """Make a new array, which nobody else holds, read-only, and return it. A NumPy scalar becomes a 0-d array."""
    if type(array) is np.ndarray:
        array.setflags(False)  # type: ignore[call-arg]  # write=False by position takes a third of the time
    return lock_in_place(np.asarray(array)) if isinstance(array, np.generic) else array


def floats_like(new: Array, old: Array) -> Array:
    """Cast a new array to the dtype of an old one, which must be floats if they differ, and lock it."""
    if new.dtype != old.dtype:
        check_floats(old)
        new = astype(new, old.dtype)
    return lock_in_place(new)


def cast_like(new: Array, old: Array) -> Array:
    """Do what ``floats_like`` does for floats; lock other arrays as they are."""
    return floats_like(new, old) if has_kind(old, "real floating") else lock_in_place(new)


# Three functions of the array API, in the form that is twice as fast in NumPy


def astype(array: Array, dtype: Any) -> Array:
    """Return a copy of an array in another dtype."""
    return array.astype(dtype) if type(array) is np.ndarray else namespace(array).astype(array, dtype)


def total(array: Array, axis: int, keepdims: bool = False) -> Array:
    """Return the sum along an axis."""
    add_up: Any = np.add.reduce if type(array) is np.ndarray else namespace(array).sum
    return add_up(array, axis=axis, keepdims=keepdims)


def largest(array: Array, axis: int) -> Array:
    """Return the largest value along an axis, which keeps the length 1."""
    find: Any = np.maximum.reduce if type(array) is np.ndarray else namespace(array).max
    return find(array, axis=axis, keepdims=True)


def read_only(value: Any) -> Any:
    """Return a read-only array: the same one if nobody can write to it, else a locked copy.

    An array that its owner has locked counts as read-only; NumPy cannot tell whether other views of it can be written.
    Arrays of other libraries, and what is not an array, are returned as they are.
    """
    if not isinstance(value, (np.ndarray, np.generic)) or (type(value) is np.ndarray and not _writable(value)):
        return value
    namespace(value)  # raises TypeError for subclasses
    return lock_in_place(np.array(value))


def _writable(array: np.ndarray) -> bool:
    """Whether anyone can write to the memory of an array: through it, or through what it is a view of."""
    owner: Any = array
    while isinstance(owner, (np.ndarray, memoryview, pickle.PickleBuffer)):
        if isinstance(owner, np.ndarray) and owner.flags.writeable:
            return True
        owner = owner.base if isinstance(owner, np.ndarray) else memoryview(owner).obj
    return not (owner is None or isinstance(owner, bytes))


def describe(array: Any) -> str:
    """Return an array's dtype and shape, ``f32[784,128]``; anything else as ``repr`` shows it.

    >>> import numpy as np
    >>> describe(np.zeros((784, 128), np.float32))
    'f32[784,128]'
    """
    if not is_array(array):
        return repr(array)
    name = str(array.dtype).rpartition(".")[2]
    for long, short in (("float", "f"), ("uint", "u"), ("int", "i"), ("complex", "c")):
        name = name.replace(long, short)
    return f"{name}[{','.join(map(str, array.shape))}]"


def brief(value: object) -> str:
    """Return what a value is in a few characters, for messages."""
    return describe(value) if is_array(value) else reprlib.repr(value)


def check_floats(array: Array, name: str = "array") -> None:
    """Raise TypeError unless an array holds floats."""
    if not has_kind(array, "real floating"):
        way_out = f"{name}.astype(np.float32)" + "; pixels also / 255, other numbers normalized" * (name == "x")
        raise TypeError(f"{name} is {describe(array)}, but must hold floats: {way_out}")


def floats_in(dtype: Any, array: Array, name: str) -> Array:
    """Return an array of floats in a dtype; TypeError for anything else."""
    check_floats(array, name)
    return astype(array, dtype)


def check_dtypes(owner: str, arrays: list[Array]) -> None:
    """Raise TypeError unless arrays are floats of one dtype: float32 or float64, any in other libraries."""
    for array in arrays:
        xp = namespace(array)
        floats = array.dtype in (xp.float32, xp.float64) if xp is np else has_kind(array, "real floating")
        if not floats or array.dtype != arrays[0].dtype:
            rule = "parameters must be all float32 or all float64; .astype(np.float32) converts one"
            raise TypeError(f"{owner} has the arrays {', '.join(map(describe, arrays))}, but {rule}")


def check_real(array: Array, name: str) -> None:
    """Raise TypeError unless an array holds real numbers."""
    if not has_kind(array, "integral", "real floating"):
        raise TypeError(f"{name} is {describe(array)}, but must hold real numbers")


def check_number(name: str, value: Any, least: float = -math.inf, below: float = math.inf) -> Any:
    """Return a number as a Python float, or a 0-d array of another library as it is; otherwise raise.

    A Python float takes the dtype of the array that it multiplies, which ``np.float64`` does not.
    """
    if type(value) is float and -math.inf < value and least <= value < below:  # almost always
        return value
    if type(value) is np.ndarray and value.ndim == 0 and value.dtype.kind in "biuf":
        value = value.item()
    if not isinstance(value, numbers.Real):
        if not is_array(value) or inspectable(value) or value.ndim != 0:
            raise TypeError(f"{name} must be a number, not {brief(value)}")
        check_real(value, name)
        return value
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be a finite number")
    if not least <= value < below:
        limit = f" and below {below}" if below < math.inf else ""
        raise ValueError(f"{name} is {value}, but must be at least {least}{limit}")
    return value


def as_int(name: str, value: Any, least: float = -math.inf) -> int:
    """Return a number as an int; TypeError if it is not an integer, ValueError if it is too small."""
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {brief(value)}, but must be an int")
    if (number := operator.index(value)) < least:
        raise ValueError(f"{name} is {number}, but must be at least {least}")
    return number


def as_tuple(name: str, values: Any) -> tuple[Any, ...]:
    """Return several values as a tuple; TypeError if ``values`` is not iterable."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} is {brief(values)}, but must be a list or tuple: [{brief(values)}]")
    return tuple(values)


def as_count(name: str, value: Any) -> Array:
    """Return one integer of at least 0 as an array of ``int_dtype``; ValueError for anything else."""
    count = value if is_array(value) else np.asarray(value)
    xp = namespace(count)
    if count.ndim or not has_kind(count, "integral") or (inspectable(count) and not count >= 0):
        raise ValueError(f"{name} is {describe(count)}, but must be one integer, and not negative")
    return xp.asarray(count, dtype=int_dtype(xp))


def as_floats(value: Any, name: str) -> Array:
    """Return an integer, or an array of numbers or booleans, as an array of its library's default float dtype."""
    array = value if is_array(value) else np.asarray(as_int(name, value))
    if not has_kind(array, "bool"):
        check_real(array, name)
    xp = namespace(array)
    return xp.astype(array, xp.asarray(0.0).dtype)


def is_float(value: Any) -> bool:
    """Whether a value is an array of floats."""
    return is_array(value) and has_kind(value, "real floating")


def magnitude(array: Array) -> float:
    """Return the largest magnitude of the finite values of an array, or 1 if that is 0."""
    xp = namespace(array)
    return float(xp.max(xp.where(xp.isfinite(array), xp.abs(array), 0))) or 1.0


def float64_of(xp: Any) -> Any:
    """Return the dtype float64 of an array library; ValueError if it has none."""
    if "float64" not in xp.__array_namespace_info__().dtypes(kind="real floating"):
        raise ValueError('differences need float64; jax.config.update("jax_enable_x64", True) switches it on')
    return xp.float64


def as_numpy(array: Array) -> "np.ndarray":
    """Return an array of any library as NumPy's."""
    return np.asarray(array)


def real_numbers(value: Any) -> "np.ndarray | None":
    """Return an array of real numbers as NumPy's, of floats; None for anything else, or if it is empty."""
    try:
        if not is_array(value) or 0 in value.shape or not has_kind(value, "bool", "integral", "real floating"):
            return None
        return value if is_float(value) and inspectable(value) else as_numpy(as_floats(value, "array"))
    except (TypeError, NotImplementedError):  # NumPy's subclasses, and what JAX traces
        return None


def int_dtype(xp: Any) -> Any:
    """Return the dtype of counts and labels: int64; for other libraries their default, as JAX may lack 64 bits."""
    return np.dtype(np.int64) if xp is np else xp.asarray(0).dtype


def generator(seed: Seed) -> "np.random.Generator":  # quoted, since importing numpy.random takes 13 ms
    """Return a generator of random numbers that depends on the seed alone: an int >= 0, or a tuple of such ints.

    Different seeds of ints below 2**32 give different streams. The tuple's length is part of what is seeded, because
    NumPy pads a short seed with zeros, which would make ``1`` and ``(1, 0)`` the same.
    """
    entropy = as_seed(seed)
    return np.random.default_rng((*entropy, len(entropy)))


def as_seed(seed: Seed) -> tuple[int, ...]:
    """Return a seed as a tuple of ints; ValueError if it is not a seed."""
    try:
        entropy = tuple(map(operator.index, seed if isinstance(seed, tuple) else (seed,)))
    except TypeError:
        entropy = ()
    if not entropy or min(entropy) < 0:
        hint = "; after `import purenn.jax`, purenn.seeded takes a key: jax.random.fold_in(jax.random.key(0), step)"
        hint *= any(map(is_array, seed if isinstance(seed, tuple) else (seed,)))
        raise ValueError(f"seed is {brief(seed)}, but must be an int >= 0, or a tuple of such ints{hint}")
    return entropy
