"""The order in which training sees examples."""

from collections.abc import Iterator

from purenn.arrays import Array, Seed, as_int, describe, generator, lock_in_place, namespace


def batches(seed: Seed, x: Array, y: Array, batch_size: int = 128) -> Iterator[tuple[Array, Array]]:
    """Iterate once over all examples in random order, in batches: one epoch.

    Returns an iterator of pairs ``(xb, yb)`` of read-only arrays, ``(batch_size, ...)``, copied when each is produced.

    Parameters
    ----------
    seed : int or tuple of int
        The same seed gives the same order; use ``(seed, epoch)`` for a new order in every epoch.
    x, y : arrays, (n, ...)
        Examples and their targets.
    batch_size : int
        At least 1. The last batch is smaller if ``n`` is not a multiple of it.

    Raises ValueError if ``x`` and ``y`` differ in length, ``batch_size`` is not positive, or the seed is not valid;
    TypeError if ``x`` or ``y`` is not an array, or ``batch_size`` not an int.

    >>> import numpy as np, purenn as nn
    >>> [yb for xb, yb in nn.batches((0, 1), np.zeros((5, 3)), np.arange(5), batch_size=2)]
    [array([0, 1]), array([3, 4]), array([2])]
    """
    namespace(x, "x"), namespace(y, "y")  # raise TypeError
    if x.ndim == 0 or y.ndim == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(f"x is {describe(x)} and y {describe(y)}, but must have equally many rows")
    batch_size = as_int("batch_size", batch_size, least=1)
    order = generator(seed).permutation(x.shape[0])
    parts = (order[start : start + batch_size] for start in range(0, x.shape[0], batch_size))
    return ((_rows(x, part), _rows(y, part)) for part in parts)


def _rows(array: Array, numbers: Array) -> Array:
    xp = namespace(array)
    return lock_in_place(xp.take(xp.asarray(array), xp.asarray(numbers), axis=0))  # asarray: for memory maps
