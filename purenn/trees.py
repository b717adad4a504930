"""How do I work on all arrays of a record at once?

A tree is a record, a tuple or list of trees, None (an empty tree), or a leaf: anything else, usually an array. Which
fields of a record are part of the tree its annotations say (see ``purenn.records``); the others are static.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

from purenn.arrays import Array, check_alike, check_real, describe, frozen, locked, namespace

T = TypeVar("T")


def replaced(record: T, **changes: Any) -> T:
    """Return a record with some fields replaced, taken as they are: nothing is validated, converted, or copied."""
    fields = {name: getattr(record, name) for name in record.__fields__}  # type: ignore[attr-defined]
    return restored(type(record), fields | changes)


def restored(cls: type[T], fields: dict[str, Any]) -> T:
    """Return a record of given fields, taken as they are: nothing is validated, converted, or copied."""
    new = object.__new__(cls)
    for name, value in fields.items():
        _set(new, name, value)
    return new


_set = object.__setattr__  # records are frozen, also for themselves


def tree_map(f: Callable[..., Any], tree: T, *rest: Any) -> T:
    """Apply a function to every leaf of a tree, or to the leaves of several trees that stand at the same place.

    Parameters
    ----------
    f : callable
        Takes one leaf of each tree.
    tree, *rest : tree
        Trees of the same structure: the same records with the same static fields, tuples of the same length.

    Returns
    -------
    tree
        A tree of the same structure with the results. NumPy arrays among them are read-only (copied, if ``f`` returned
        one that can still be written to); nothing is validated, so a leaf may become anything.

    Raises
    ------
    ValueError
        If the trees differ in structure.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.tree_map(lambda a, b: a + b, (np.ones(2), np.ones(3)), (np.zeros(2), np.ones(3)))
    (array([1., 1.]), array([2., 2., 2.]))
    """
    if hasattr(tree, "__children__"):
        for other in rest:
            _check_same_record(tree, other)
        changes = {}
        for name in tree.__children__:
            changes[name] = tree_map(f, getattr(tree, name), *[getattr(other, name) for other in rest])
        return replaced(tree, **changes) if changes else tree
    if isinstance(tree, (tuple, list)):
        for other in rest:
            if type(other) is not type(tree) or len(other) != len(tree):
                raise _differ(tree, other)
        mapped: T = sequence_like(tree, [tree_map(f, *nodes) for nodes in zip(tree, *rest, strict=True)])
        return mapped
    for other in rest:
        if (other is None) is not (tree is None) or isinstance(other, (tuple, list)) or hasattr(other, "__children__"):
            raise _differ(tree, other)
    return tree if tree is None else frozen(f(tree, *rest))


def combined(f: Callable[[Array, Array], Array], a: T, b: T) -> T:
    """Apply a function to the arrays of two trees of the same structure, shapes and dtypes, and lock what it gives."""

    def apply(a: Array, b: Array) -> Array:
        check_alike(a, b)
        return locked(f(a, b))

    return tree_map(apply, a, b)


def sequence_like(sequence: Any, items: list[Any]) -> Any:
    """Return a tuple, named tuple or list of the type of another, with other items."""
    return type(sequence)(*items) if hasattr(sequence, "_fields") else type(sequence)(items)


def tree_leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree as a list, in the order of the fields.

    Examples
    --------
    >>> import purenn as nn
    >>> params = nn.init(0, sizes=(784, 128, 10), activations=(nn.tanh, nn.softmax))
    >>> [leaf.shape for leaf in nn.tree_leaves(params)]
    [(784, 128), (128,), (128, 10), (10,)]
    """
    leaves: list[Any] = []
    tree_map(leaves.append, tree)
    return leaves


def zeros_like(tree: T) -> T:
    """Return a tree of the same structure whose arrays are all zeros.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.zeros_like((np.ones(2), np.ones(1)))
    (array([0., 0.]), array([0.]))
    """
    return tree_map(lambda leaf: locked(namespace(leaf).zeros_like(leaf)), tree)


def vdot(a: Any, b: Any) -> Array:
    """Return the inner product of two trees, ``sum_i a_i b_i`` over all their numbers.

    ValueError if they differ in structure, a shape or a dtype, or have no arrays.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> print(nn.vdot((np.asarray([1.0, 2.0]), np.asarray([3.0])), (np.ones(2), np.ones(1))))
    6.0
    """
    products = combined(lambda a, b: namespace(a).sum(a * b), a, b)
    return functools.reduce(operator.add, some_leaves(products))


def global_norm(tree: Any) -> Array:
    """Return the Euclidean norm of all numbers of a tree, ``sqrt(sum_i t_i^2)``.

    It is computed as ``m sqrt(sum_i (t_i / m)^2)``, with the largest absolute value ``m``, so that no square overflows.

    ValueError if the tree has no arrays, TypeError if one of them is complex or of no numbers.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> print(nn.global_norm((np.asarray([5e200]), np.asarray([[12e200]]))))
    1.3e+201
    """
    unit, norm = unit_and_norm(tree)
    return unit * norm


def unit_and_norm(tree: Any) -> tuple[Array, Array]:
    """Return the largest absolute value of a tree, or 1 if that is no unit, and the norm in this unit."""
    leaves = some_leaves(tree)
    for leaf in leaves:
        check_real(leaf)
    xp = namespace(leaves[0])
    sizes = [xp.max(xp.abs(leaf)) for leaf in leaves if 0 not in leaf.shape]
    largest = functools.reduce(xp.maximum, sizes, xp.zeros((), dtype=leaves[0].dtype))
    unit = xp.where((largest > 0) & xp.isfinite(largest), largest, xp.ones_like(largest))
    return unit, xp.sqrt(functools.reduce(operator.add, [xp.sum((leaf / unit) ** 2) for leaf in leaves]))


def ravel(tree: T) -> tuple[Array, Callable[[Array], T]]:
    """Lay all arrays of a tree end to end in one vector, and return it with the function that undoes this.

    It lets an optimizer that knows of vectors alone, such as those of ``scipy.optimize``, train a network.

    Parameters
    ----------
    tree : tree
        With arrays of one dtype, at least one.

    Returns
    -------
    vector : array, (k,)
        In the order of ``tree_leaves``.
    unravel : callable
        ``unravel(vector) -> tree`` like the given one, of its dtype; ValueError for anything but ``k`` numbers.

    Raises
    ------
    ValueError
        If the tree has no arrays, or of several dtypes.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> vector, unravel = nn.ravel((np.asarray([[1.0, 2.0]]), np.asarray(3.0)))
    >>> vector, unravel(10 * vector)
    (array([1., 2., 3.]), (array([[10., 20.]]), array(30.)))
    """
    leaves = some_leaves(tree)
    xp = namespace(leaves[0])
    if any(leaf.dtype != leaves[0].dtype for leaf in leaves):
        raise ValueError(f"the arrays must be of one dtype, but are {', '.join(map(describe, leaves))}")
    sizes = [math.prod(leaf.shape) for leaf in leaves]

    def unravel(vector: Array) -> T:
        xp = namespace(vector)
        if vector.shape != (sum(sizes),):
            raise ValueError(f"the vector is {describe(vector)}, but must have the shape ({sum(sizes)},)")
        starts = iter(itertools.accumulate(sizes, initial=0))

        def piece(leaf: Array) -> Array:
            start = next(starts)
            values = vector[start : start + math.prod(leaf.shape)]
            return locked(xp.astype(xp.reshape(values, leaf.shape), leaf.dtype))

        return tree_map(piece, tree)

    return locked(xp.concat([xp.reshape(leaf, (-1,)) for leaf in leaves])), unravel


def some_leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree, which must all be arrays; ValueError if there are none."""
    leaves = tree_leaves(tree)
    if not leaves:
        raise ValueError(f"{_outline(tree)} has no arrays")
    for leaf in leaves:
        namespace(leaf)  # raises TypeError
    return leaves


def _check_same_record(a: Any, b: Any) -> None:
    if type(a) is not type(b):
        raise _differ(a, b)
    for name in a.__statics__:
        ours, theirs = getattr(a, name), getattr(b, name)
        if ours is not theirs and ours != theirs:
            raise ValueError(
                f"trees differ: {name} of {_outline(a)} is {ours!r} in the first and {theirs!r} in another"
            )


def _differ(a: Any, b: Any) -> ValueError:
    return ValueError(f"trees differ: {_outline(a)} in the first, {_outline(b)} in another")


def _outline(tree: Any) -> str:
    if hasattr(tree, "__children__"):
        return type(tree).__name__
    if isinstance(tree, (tuple, list)):
        return f"a {type(tree).__name__} of {len(tree)}"
    return describe(tree)
