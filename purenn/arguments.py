"""What an argument may be: checks and conversions, whose errors say what was given, what was expected, what to do."""

import math
import numbers
import operator
import re
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from purenn.arrays import Array, Seed, astype, has_kind, int_dtype, is_array, is_numpy, namespace


def describe(array: Any) -> str:
    """Return an array's dtype and shape, ``f32[784,128]``; anything else as ``repr`` shows it.

    >>> import numpy as np
    >>> describe(np.zeros((784, 128), np.float32))
    'f32[784,128]'
    """
    if not is_array(array):
        return repr(array)
    name = re.sub("float|uint|int|complex", lambda word: word[0][0], str(array.dtype).rpartition(".")[2])
    return f"{name}[{','.join(map(str, array.shape))}]"


def brief(value: object) -> str:
    """Return what a value is in a few characters, for messages; not what is in a long or a nested list."""
    if isinstance(value, list) and (len(value) > 3 or any(isinstance(item, list) for item in value)):
        return f"a list of {len(value)}"
    return describe(value) if is_array(value) else reprlib.repr(value)


def type_name(value: Any) -> str:
    """Return the name of a value's class; for a tuple, add how to unpack the result of a pullback or a step."""
    hint = " (unpack it: params, state = nn.adam_step(...), or loss, gradient = nn.loss_and_grads(...))"
    hint *= isinstance(value, tuple)
    return type(value).__name__ + (of_pullback(value) or hint)


def of_pullback(value: Any) -> str:
    """Return how to take the gradient from what a pullback returned; an empty text for anything else."""
    is_pair = isinstance(value, tuple) and len(value) == 2 and callable(value[1])
    return " (pullback(dy)[0] is the gradient)" if is_pair else ""


def check_floats(array: Array, name: str = "array", hint: str = "") -> None:
    """Raise TypeError unless an array holds floats; the hint is for integers."""
    if not has_kind(array, "real floating", name=name):
        raise TypeError(f"{name} is {describe(array)}, but must hold floats: {way_to_numbers(array, name, hint)}")


def check_real(array: Array, name: str, *more: str) -> None:
    """Raise TypeError unless an array holds real numbers, or is of one of the kinds in ``more``."""
    if not has_kind(array, "integral", "real floating", *more, name=name):
        raise TypeError(f"{name} is {describe(array)}, but must hold real numbers: {way_to_numbers(array, name)}")


_WAYS = {"c": "{}.real leaves out the imaginary parts", "m": "{} / np.timedelta64(1, 's')"}
_WAYS["M"] = "({} - np.datetime64('2000-01-01')) / np.timedelta64(1, 'D')"
_WAYS["table"] = "from numpy.lib.recfunctions import structured_to_unstructured; structured_to_unstructured({})"
_COLUMNS = "for each column, kinds = np.unique(column), once, and (column[:, None] == kinds) * 1.0"
_WAYS |= dict.fromkeys("UST", f"if the texts are numbers, {{}}.astype(float); if they are words, {_COLUMNS}")


def way_to_numbers(array: Array, name: str, hint: str = "") -> str:
    """Return what makes real numbers of an array, depending on its dtype."""
    kind = "table" if getattr(array.dtype, "names", None) else getattr(array.dtype, "kind", "i")
    values = array.flat if kind == "O" else ()
    if unfit := sorted({type(v).__name__ for v in values if not isinstance(v, (numbers.Real, np.bool_))}):
        return f"its values of type {', '.join(unfit)} must become numbers (or NaN), or be left out"
    return _WAYS.get(kind, f"{{}}.astype(np.float32){hint}").format(name)


def check_number(name: str, value: Any, least: float = -math.inf, below: float = math.inf) -> Any:
    """Return a number as a Python float, or a 0-d array of another library as it is; otherwise raise.

    A Python float takes the dtype of the array that it multiplies, which ``np.float64`` does not.
    """
    if type(value) is float and -math.inf < value and least <= value < below:  # almost always
        return value
    if type(value) is np.ndarray and value.ndim == 0 and value.dtype.kind in "biuf":
        value = value.item()
    if not isinstance(value, numbers.Real):
        if not is_array(value) or is_numpy(value) or value.ndim != 0:
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


def as_key(key: Any) -> str:
    """Return a key of a dict in a checkpoint; TypeError if a path could not hold it."""
    if not isinstance(key, str) or not re.fullmatch("(?!__)[^.\ud800-\udfff]+", key):
        raise TypeError(f"a dict has the key {brief(key)}; keys must be non-empty strings without '.' or leading '__'")
    return key


def as_floats(value: Any, name: str) -> Array:
    """Return an integer, or an array of numbers or booleans, as an array of its library's default float dtype."""
    array = value if is_array(value) else np.asarray(as_int(name, value))
    check_real(array, name, "bool")
    return astype(array, namespace(array).asarray(0.0).dtype)


def as_integers(value: Any) -> Array:
    """Return integers as an array of ``int_dtype``; return anything else as an array."""
    array = value if is_array(value) else np.asarray(value)
    return astype(array, int_dtype(namespace(array))) if has_kind(array, "integral") else array


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
