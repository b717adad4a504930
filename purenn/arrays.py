"""What is an array here? Namespaces, read-only arrays, seeds.

An array is anything that speaks the Python array API standard (https://data-apis.org/array-api), as the arrays of NumPy
and JAX do. NumPy's are the only ones that can be written to and locked, so the functions that lock treat those alone;
arrays of other libraries pass through as they are.
"""

import math
import numbers
import operator
import pickle
import reprlib
from typing import Annotated, Any, TypeAlias

import numpy as np

Array: TypeAlias = Annotated[Any, "array"]
"""The annotation that makes a field of a record an array."""

Seed: TypeAlias = int | tuple[int, ...]


def is_array(value: object) -> bool:
    """Whether a value speaks the array API standard."""
    return hasattr(value, "__array_namespace__")


def namespace(array: Array) -> Any:
    """Return the module with the functions for an array: ``numpy`` for NumPy, ``jax.numpy`` for JAX."""
    if type(array) is np.ndarray:  # 1 us less than asking it, ten times a step
        return np
    if not is_array(array):
        raise TypeError(
            f"expected an array, got {type(array).__name__}: {brief(array)}; "
            "np.asarray(..., dtype=np.float32) makes one"
        )
    return array.__array_namespace__()


def locked(array: Array) -> Array:
    """Make an array that nobody else holds read-only, in place, and return it."""
    if isinstance(array, np.ndarray):
        array.setflags(write=False)
    return array


def frozen(array: Array) -> Array:
    """Return an array that nobody can write to: the same one if it is such already, else a locked copy.

    An array that its owner has locked is taken at its word; NumPy cannot tell whether other views of it can be written.
    """
    if type(array) is np.ndarray and not _writable(array):
        return array
    return locked(np.array(array)) if isinstance(array, (np.ndarray, np.generic)) else array


def _writable(array: np.ndarray) -> bool:
    """Whether anyone can write to the memory of an array: through it, or through what it is a view of."""
    owner: Any = array
    while isinstance(owner, (np.ndarray, memoryview, pickle.PickleBuffer)):
        if isinstance(owner, np.ndarray) and owner.flags.writeable:
            return True
        owner = owner.base if isinstance(owner, np.ndarray) else memoryview(owner).obj
    return not (owner is None or isinstance(owner, bytes))


def inspectable(array: Array) -> bool:
    """Whether the values of an array can be looked at here and now; those of other libraries may be elsewhere, or yet
    to be computed.
    """
    return isinstance(array, np.ndarray)


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


class _Brief(reprlib.Repr):
    """Shows little of a large value, and does not look through it."""

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, type):
            return repr(x)
        if is_array(x):
            return describe(x)
        return repr(x) if x is None or isinstance(x, (bool, float, complex)) else type(x).__name__


_brief = _Brief()
_brief.maxlevel, _brief.maxstring, _brief.maxtuple, _brief.maxlist = 2, 60, 4, 4


def brief(value: object) -> str:
    """Return what a value is in a few characters, for messages: it may be large, and a stranger's.

    >>> import numpy as np
    >>> brief((1, ("a", ()), np.zeros(3), b"abc", 5))
    "(1, ('a', ()), f64[3], bytes, ...)"
    """
    return _brief.repr(value)


def check_alike(a: Array, b: Array) -> None:
    """Raise ValueError unless two arrays have the same shape and dtype."""
    if not (is_array(a) and is_array(b) and a.shape == b.shape and a.dtype == b.dtype):
        raise ValueError(f"{describe(a)} and {describe(b)} do not combine; they must be arrays of one shape and dtype")


def check_floats(x: Array) -> None:
    """Raise TypeError unless something is an array of floats."""
    if not namespace(x).isdtype(x.dtype, "real floating"):
        raise TypeError(
            f"expected floats, got {describe(x)}; x.astype(np.float32) converts it, and x.astype(np.float32) / 255 "
            "scales pixels of 0 to 255 to the [0, 1] that networks learn from"
        )


def check_real(array: Array) -> None:
    """Raise TypeError unless something is an array of real numbers."""
    if not namespace(array).isdtype(array.dtype, ("integral", "real floating")):
        raise TypeError(f"expected real numbers, got {describe(array)}")


def check_scalar(name: str, value: Any) -> Any:
    """Return a number as a Python float, an array without axes as it is; raise for anything else.

    A Python float takes the dtype of the array that it multiplies, which ``np.float64`` does not.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        value = value.item()
    if isinstance(value, numbers.Real):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, but must be a finite number")
        return value
    if not is_array(value) or isinstance(value, (np.ndarray, np.generic)) or value.ndim != 0:
        raise TypeError(f"{name} must be a number, not {brief(value)}")
    return value


def scalar_like(value: Any, array: Array) -> Any:
    """Return what ``check_scalar`` gave in a form that multiplies an array without changing its dtype."""
    if isinstance(value, float) or not namespace(array).isdtype(array.dtype, "real floating"):
        return value
    return namespace(array).asarray(value, dtype=array.dtype)


def as_floats(value: Any) -> Array:
    """Return an integer, or an array of integers, as an array of the floats that its library takes by default."""
    array = value if is_array(value) else np.asarray(operator.index(value))
    check_real(array)
    xp = namespace(array)
    return xp.astype(array, xp.asarray(0.0).dtype)


def generator(seed: Seed) -> "np.random.Generator":  # quoted, since importing numpy.random takes 13 ms
    """Return a generator of random numbers that depends on the seed alone: an int >= 0, or a tuple of such ints.

    Different seeds of ints below 2**32 give different streams. The tuple's length is part of what is seeded, because
    NumPy pads a short seed with zeros, which would make ``1`` and ``(1, 0)`` the same.
    """
    entropy = as_tuple(seed)
    return np.random.default_rng((*entropy, len(entropy)))


def as_tuple(seed: Seed) -> tuple[int, ...]:
    """Return a seed as a tuple of ints; ValueError if it is none."""
    try:
        entropy = tuple(map(operator.index, seed if isinstance(seed, tuple) else (seed,)))
    except TypeError:
        entropy = ()
    if not entropy or min(entropy) < 0:
        raise ValueError(f"seed is {brief(seed)}, but must be an int >= 0, or a tuple of such ints")
    return entropy
