"""The order in which training sees examples."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from purenn.arguments import as_int, describe, generator
from purenn.arrays import Array, Seed, lock_in_place, namespace
from purenn.trees import builder, flatten, leaf_paths

X = TypeVar("X")
Y = TypeVar("Y")


def batches(seed: Seed | None, x: X, y: Y, batch_size: int = 128, drop_last: bool = False) -> Iterator[tuple[X, Y]]:
    """Iterate once over all examples in batches, in random order: one epoch.

    Returns an iterator of pairs ``(xb, yb)`` of read-only arrays, ``(batch_size, ...)``. Each batch is copied when the
    iterator reaches it, so ``x`` and ``y`` must not change before.

    Parameters
    ----------
    seed : int, tuple of int, or None
        The same seed gives the same order; use ``(seed, epoch)`` for a new order in every epoch. None keeps the order
        of the examples.
    x, y : arrays, (n, ...)
        Examples and their targets. Each may be a tree of such arrays, such as ``(labels, sample_weight)``, or None;
        then a batch is a tree of the same structure.
    batch_size : int
        At least 1. The last batch is smaller if ``n`` is not a multiple of it.
    drop_last : bool
        Whether to leave out the last batch if it is smaller; it must not be the only one.

    Raises
    ------
    ValueError
        If the arrays differ in length, one is 0-d, there are none, ``batch_size`` is not positive, ``drop_last`` leaves
        no batch, or the seed is not valid.
    TypeError
        If ``x`` or ``y`` holds something other than arrays, or ``batch_size`` is not an int.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> [yb for xb, yb in nn.batches((0, 1), np.zeros((5, 3)), np.arange(5), batch_size=2)]
    [array([0, 1]), array([3, 4]), array([2])]
    >>> [yb for xb, yb in nn.batches(None, np.zeros((5, 3)), np.arange(5), batch_size=2, drop_last=True)]
    [array([0, 1]), array([2, 3])]
    """
    draw = np.arange if seed is None else generator(seed).permutation  # which raises ValueError if it is not a seed
    arrays, structure = flatten((x, y))
    named = dict(zip(leaf_paths(flatten({"x": x, "y": y})[1]), arrays, strict=True))
    for name, array in named.items():
        outer = name[0] if isinstance({"x": x, "y": y}[name[0]], list) else name.rpartition(".")[0]
        namespace(array, outer or name)  # raises TypeError
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or () in lengths:
        given = ", ".join(f"{name} is {describe(array)}" for name, array in named.items())
        raise ValueError(f"{given or 'x and y hold no arrays'}; all arrays must have the same number of rows")
    batch_size = as_int("batch_size", batch_size, least=1)
    ((n,),) = lengths
    if drop_last and n < batch_size:
        raise ValueError(f"x has {n} rows, fewer than one batch of {batch_size}; use drop_last=False")
    order = draw(n)
    parts = (order[k : k + batch_size] for k in range(0, n - n % batch_size if drop_last else n, batch_size))
    return map(builder(structure), ([_rows(array, part) for array in arrays] for part in parts))


def _rows(array: Array, numbers: Array) -> Array:
    xp = namespace(array)
    return lock_in_place(xp.take(xp.asarray(array), xp.asarray(numbers), axis=0))  # asarray: for memory maps
