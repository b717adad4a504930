"""How do I work on all arrays of a record at once?

A tree is a record, a tuple or list of trees, None (an empty tree), or a leaf: anything else, usually an array. Which
fields of a record are part of the tree its annotations say (see ``purenn.records``); the others are static.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from purenn.arrays import describe, frozen

T = TypeVar("T")


def replaced(record: T, **changes: Any) -> T:
    """Return a record with some fields replaced, taken as they are: nothing is validated, converted, or copied."""
    new = object.__new__(type(record))
    for name in record.__fields__:  # type: ignore[attr-defined]
        _set(new, name, changes[name] if name in changes else getattr(record, name))
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
