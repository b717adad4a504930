"""What an array is here: its namespace, its dtype, and who may write to it.

An array is a ``numpy.ndarray``, or an array of another library that implements the Python array API standard
(https://data-apis.org/array-api), as JAX does. Only NumPy's arrays can be written to and locked, so the functions that
lock leave other libraries' arrays unchanged.
"""

import functools
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


def is_numpy(array: Array) -> bool:
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
        ways = {"toarray": f"{name}.toarray()", "detach": f"{name}.detach().numpy()", "__call__": f"{name}()"}
        way_out = next((ways[method] for method in ways if hasattr(array, method)), f"np.asarray({name})")
        raise TypeError(f"{name} is of type {type(array).__name__}, but must be an array; {way_out} makes one")
    if isinstance(array, np.ndarray) and type(array) is not np.memmap:
        plain = f"{name}.filled(...)" if np.ma.isMaskedArray(array) else f"np.asarray({name})"
        raise TypeError(f"{name} is a {type(array).__name__}, which computes differently; {plain} makes a plain array")
    return array.__array_namespace__()


@functools.cache
def _is_kind(xp: Any, dtype: Any, kind: str | tuple[str, ...]) -> bool:
    # NumPy's isdtype does not know the bfloat16 of ml_dtypes, nor NumPy's strings; it takes 0.9 us
    return not (xp is np and (dtype.isbuiltin == 2 or dtype.kind == "T")) and bool(xp.isdtype(dtype, kind))


def has_kind(array: Array, *kinds: str, name: str = "array") -> bool:
    """Whether the dtype of an array is of one of the array API's kinds, such as ``"real floating"``.

    Raises TypeError, with the given name, for anything that is not an array.
    """
    return _is_kind(namespace(array, name), array.dtype, kinds)


def lock_in_place(array: Array) -> Array:
    """Make a new array, which nobody else holds, read-only, and return it. A NumPy scalar becomes a 0-d array."""
    if type(array) is np.ndarray:
        array.setflags(False)  # type: ignore[call-arg]  # write=False by position takes a third of the time
        return array
    return lock_in_place(np.asarray(array)) if isinstance(array, np.generic) else array


# Three functions of the array API, in the form that is twice as fast in NumPy


def astype(array: Array, dtype: Any) -> Array:
    """Return a copy of an array in another dtype."""
    return array.astype(dtype) if type(array) is np.ndarray else namespace(array).astype(array, dtype)


def wide(array: Array) -> Array:
    """Return floats of 16 bits or fewer in float32, which has room for their sums and squares; others as they are."""
    is_narrow = getattr(array.dtype, "itemsize", 4) < 4 and array.dtype.kind in "fV"  # V: bfloat16
    return astype(array, namespace(array).float32) if is_narrow else array


def widened(*columns: list[Array]) -> tuple[list[Array], ...]:
    """Do what ``wide`` does in several lists of arrays, if an array of the first list needs it."""
    is_narrow = any(getattr(array.dtype, "itemsize", 4) < 4 for array in columns[0])
    return tuple([wide(array) for array in column] for column in columns) if is_narrow else columns


def sum_over(array: Array, axis: int, keepdims: bool = False) -> Array:
    """Return the sum along an axis."""
    add_up: Any = np.add.reduce if type(array) is np.ndarray else namespace(array).sum
    return add_up(array, axis=axis, keepdims=keepdims)


def max_over_last(array: Array) -> Array:
    """Return the largest value along the last axis, which keeps the length 1."""
    if type(array) is np.ndarray and array.ndim == 2 and array.shape[1] <= 32:  # columns take a tenth of short rows
        return np.maximum.reduce(array.T.copy(), axis=0)[:, None]
    return namespace(array).max(array, axis=-1, keepdims=True)


def read_only(value: Any) -> Any:
    """Return a read-only array: the same one if nobody can write to it, else a locked copy.

    An array that its owner has locked counts as read-only; NumPy cannot tell whether other views of it can be written.
    Arrays of other libraries, and what is not an array, are returned as they are.
    """
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if type(value) is np.ndarray and not value.flags.writeable:
        owner = value.base if isinstance(value.base, np.ndarray) else value  # of the memory, also for views of views
        if not owner.flags.writeable and (owner.base is None or isinstance(owner.base, bytes)):
            return value
    return lock_in_place(namespace(value).array(value))  # namespace raises TypeError for subclasses


def is_float(value: Any) -> bool:
    """Whether a value is an array of floats."""
    return is_array(value) and has_kind(value, "real floating")


def int_dtype(xp: Any) -> Any:
    """Return the dtype of counts and labels: int64; for other libraries their default, as JAX may lack 64 bits."""
    return np.dtype(np.int64) if xp is np else xp.asarray(0).dtype
