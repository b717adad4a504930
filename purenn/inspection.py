"""A check of gradients by central differences."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from purenn.arrays import Array, check_floats, check_real, describe
from purenn.trees import aligned, namespace_of, ravel, tree_map

T = TypeVar("T")


def numerical_grads(f: Callable[[T], Any], tree: T) -> T:
    """Return the gradient of a function by central differences: slow, and independent of every derivative in purenn.

    Each entry is ``(f(p + h) - f(p - h)) / 2h`` with ``h = cbrt(eps) max(1, |p|)`` (Press et al. 2007, section 5.7),
    computed in float64. That takes two calls of ``f`` for each number in the tree. The error is about 1e-9 of the
    largest entry, except where a relu changes sides between ``p - h`` and ``p + h``. The result has the structure and
    the dtypes of ``tree``.

    Parameters
    ----------
    f : callable
        Takes a tree like ``tree``, but of float64, and returns a number, or a 0-d array.
    tree : tree
        At least one array, all of floats.

    Raises ValueError if the tree has no arrays, ``f`` does not return one number, or the array library has no float64,
    as JAX unless ``jax.config.update("jax_enable_x64", True)`` was called; TypeError if an array does not hold floats.

    >>> import numpy as np, purenn as nn
    >>> layer, x, y = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax), np.asarray([[3.0]]), np.asarray([0])
    >>> gradient = nn.numerical_grads(lambda p: nn.loss(p, x, y), layer)
    >>> np.round(gradient.weights, 6)
    array([[-1.5,  1.5]])
    """
    arrays, _ = aligned(tree=tree)
    xp = namespace_of(arrays)
    for array in arrays:
        check_floats(array)
    if "float64" not in xp.__array_namespace_info__().dtypes(kind="real floating"):
        raise ValueError('differences need float64; jax.config.update("jax_enable_x64", True) switches it on')
    vector, unravel = ravel(tree_map(lambda p: xp.astype(p, xp.float64), tree))

    def value(vector: Array) -> Array:
        number = xp.asarray(f(unravel(vector)))
        check_real(number, "what f returned")
        if number.shape != ():
            raise ValueError(f"f returned {describe(number)}, but must return a number")
        return xp.astype(number, xp.float64)

    steps = sys.float_info.epsilon ** (1 / 3) * xp.maximum(xp.abs(vector), 1)
    quotients = []
    for entry in range(vector.shape[0]):
        step = xp.where(xp.arange(vector.shape[0]) == entry, steps, 0)
        quotients.append((value(vector + step) - value(vector - step)) / (2 * xp.sum(step)))
    return tree_map(lambda p, g: xp.astype(g, p.dtype), tree, unravel(xp.stack(quotients)))
