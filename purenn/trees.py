"""Functions on all arrays of a record at once: map, leaves, norms, one long vector.

A tree is a record, a tuple, list or dict of trees, None (an empty tree), or a leaf: anything else, usually an array.
The annotations of a record say which of its fields are part of the tree (see ``purenn.records``); the others are
static. The keys of dicts are strings. The leaves of a dict are in the sorted order of its keys, as in JAX, but a dict
that is built has its keys in the order of the dict that was taken apart.

Everything here is built on two functions: ``flatten`` takes a tree apart, ``builder`` says how to build one like it.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from purenn.arguments import check_real, describe, of_pullback
from purenn.arrays import Array, lock_in_place, namespace, read_only, wide

T = TypeVar("T")
if TYPE_CHECKING:
    Tree: TypeAlias = Any
    Layer: TypeAlias = Any
else:

    class Tree(Protocol):
        """The annotation of a tree: a record, or a tuple, list or dict of trees, None, or an array."""

    class Layer(Protocol):
        """The annotation of a layer: a record with a rule, such as ``Dense``, ``Params``, or your own (see ``vjp``)."""


class Kind(NamedTuple):
    """How nodes of one class are taken apart and put together. The detail is what a node has besides its children."""

    cls: type
    open: Callable[[Any], tuple[Any, Sequence[Any]]]  # node -> (detail, children)
    build: Callable[[Any, Iterable[Any]], Any]  # (detail, children) -> node
    fields: tuple[str, ...] | None = None  # the names of a record's children; the detail of other nodes has the names


class _Kinds(dict[type, Kind | None]):
    """The kind of every class of nodes; None for the classes of leaves."""

    def __missing__(self, cls: type) -> Kind | None:
        if any(getattr(self.get(base), "fields", None) is not None for base in cls.__mro__):
            raise TypeError(f"{cls.__name__} inherits from a record; decorate it with purenn.record, too")
        return self.setdefault(cls, _sequence_kind(cls, cls._make) if hasattr(cls, "_make") else None)  # or a leaf


def record_kind(cls: type, trees: tuple[str, ...], statics: tuple[str, ...]) -> Kind:
    """Return the kind of a record class whose tree fields and static fields have these names."""
    # Code is written for each class, as attrs writes ``__init__``: loops over the fields take twice as long.
    ours, theirs = ("".join(f"record.{name}, " for name in names) for names in (trees, statics))
    calls = "".join(f"set_{name}(record, new_{name}); " for name in (*trees, *statics))
    unpacked = f"[{ours}] = children; [{theirs}] = detail; ".replace("record.", "new_")
    scope: dict[str, Any] = {f"set_{name}": getattr(cls, name).__set__ for name in (*trees, *statics)}
    scope |= {"new": object.__new__, "cls": cls}
    exec(f"def open_record(record): return ({theirs}), ({ours})", scope)
    exec(f"def build(detail, children): {unpacked}record = new(cls); {calls}return record", scope)
    return Kind(cls, scope["open_record"], scope["build"], trees)


def like(record: T, **fields: Any) -> T:
    """Return a record like another, with these arrays and trees, taken as they are.

    Raises TypeError if an array or a tree is missing: a subclass that adds one needs a rule of its own.
    """
    kind: Any = kinds[type(record)]
    if tuple(fields) != kind.fields:  # a subclass has added a field, or redefined one, which moves it to the end
        if fields.keys() != {*kind.fields}:
            name, names = kind.cls.__name__, ", ".join(kind.fields)
            raise TypeError(f"the rule that {name} inherits does not fit its fields {names}; register its own for vjp")
        fields = {name: fields[name] for name in kind.fields}
    return cast("T", kind.build(kind.open(record)[0], fields.values()))


def fields_of(record: Any) -> dict[str, Any]:
    """Return the values of all fields of a record by their names."""
    return {field.name: getattr(record, field.name) for field in record.__attrs_attrs__}


def _sequence_kind(cls: type, make: Callable[[Iterable[Any]], Any]) -> Kind:
    return Kind(cls, lambda items: (range(len(items)), items), lambda _, items: make(items))


def _open_dict(node: dict[str, Any]) -> tuple[dict[str, None], list[Any]]:
    if wrong := [key for key in node if not isinstance(key, str)]:
        raise TypeError(f"a dict in a tree has the key {describe(wrong[0])}, but keys must be strings")
    return dict.fromkeys(node), [node[key] for key in sorted(node)]


kinds = _Kinds({cls: _sequence_kind(cls, cls) for cls in (tuple, list)})  # ``record`` adds every record class
kinds[type(None)] = Kind(type(None), lambda _: ((), ()), lambda *_: None)
kinds[dict] = Kind(dict, _open_dict, lambda keys, values: keys | dict(zip(sorted(keys), values, strict=True)))

LEAF: Any = "a leaf"  # what stands for one in the structure of a tree


def flatten(tree: Any) -> tuple[list[Any], list[Any]]:
    """Return the leaves of a tree, and its structure: a list of all nodes, parents first, with LEAF for each leaf.

    A node is its kind, its detail, and its number of children: ``(kind of Dense, (activation,), 2), LEAF, LEAF``. Trees
    that differ in nothing but their leaves have equal structures.
    """
    taken: tuple[list[Any], list[Any]] = [], []
    _flatten((tree,), *taken)
    return taken


def _flatten(nodes: Sequence[Any], leaves: list[Any], structure: list[Any]) -> None:
    for node in nodes:
        kind = kinds[type(node)]
        if kind is None:
            leaves.append(node)
            structure.append(LEAF)
        else:
            detail, children = kind.open(node)
            structure.append((kind, detail, len(children)))
            _flatten(children, leaves, structure)


def has_arrays(tree: Any) -> bool:
    """Whether a tree has at least one leaf, usually an array."""
    kind = kinds[type(tree)]
    return kind is None or any(map(has_arrays, kind.open(tree)[1]))


def builder(structure: list[Any]) -> Callable[[Sequence[Any]], Any]:
    """Return the function that builds a tree of a structure from its leaves, taken as they are.

    Nothing is validated, converted, or copied.
    """
    nodes: list[tuple[Any, ...]] = []  # of each: how it is built, its detail, and which of the values are its children
    ahead: list[Any] = []
    leaf = count = structure.count(LEAF)
    for node in reversed(structure):  # children first: a node takes its children from the end of the list
        if node is LEAF:
            ahead.append(leaf := leaf - 1)
        else:
            kind, detail, length = node
            places = ahead[: -length - 1 : -1]
            if length < 2:  # of several places, or a slice, itemgetter gives a sequence
                places = [slice(sum(places), sum(places) + length)]
            nodes.append((kind.build, detail, operator.itemgetter(*places)))
            ahead[len(ahead) - length :] = [count + len(nodes) - 1]

    def build_tree(leaves: Sequence[Any]) -> Any:
        values = [*leaves]
        for build, detail, children in nodes:
            values.append(build(detail, children(values)))
        return values[-1]

    return build_tree


def _paths(structure: list[Any]) -> list[str]:
    """Return the path of every node: the names that lead to it, joined by dots."""
    paths, ahead = list[str](), [""]
    for node in structure:
        paths.append(path := ahead.pop())
        if node is not LEAF:
            kind, detail, _ = node
            names = sorted(detail) if kind.fields is None else kind.fields
            ahead += [f"{path}.{name}" if path else str(name) for name in reversed(names)]
    return paths


def leaf_paths(structure: list[Any]) -> list[str]:
    """Return the path of every leaf."""
    return [path for path, node in zip(_paths(structure), structure, strict=True) if node is LEAF]


def alike(trees: dict[str, Any]) -> tuple[tuple[list[Any], ...], list[Any]]:
    """Return the leaves of several trees, and the structure that they share."""
    columns, (structure, *others) = zip(*map(flatten, trees.values()), strict=True)
    for name, other in zip([*trees][1:], others, strict=True):
        if other != structure:
            raise _difference(next(iter(trees)), name, _paths(structure), structure, other, of_pullback(trees[name]))
    return columns, structure


def _text(node: Any) -> str:
    if isinstance(node, str):  # LEAF, or the description of an array
        return node
    kind, detail, count = node
    what = sorted(detail) if isinstance(detail, dict) else detail
    return f"{kind.cls.__name__}{f' of {count}' if isinstance(detail, range) else what}"


def _difference(first: str, other: str, paths: list[str], ours: Any, theirs: Any, hint: str = "") -> ValueError:
    """Return the error that names the first place where two trees differ, and how."""
    path, a, b = next((path, a, b) for path, a, b in zip(paths, ours, theirs, strict=False) if a != b)
    return ValueError(f"{other} differs from {first}{path and f' at {path}'}: {_text(b)} instead of {_text(a)}{hint}")


def tree_map(f: Callable[..., Any], tree: T, *rest: Tree) -> T:
    """Apply a function to every leaf of a tree, or to the leaves in the same place of several trees.

    The results form a tree of the same structure. NumPy arrays among them are read-only (copied, if ``f`` returned
    one that can still be written to). Nothing is validated, so a leaf may become anything.

    Parameters
    ----------
    f : callable
        Takes one leaf of each tree.
    tree, *rest : tree
        Trees of the same structure: the same records with the same static fields, tuples and lists of the same length,
        dicts with the same keys in any order. (Dicts in the result have the order of those in ``tree``.)

    Raises
    ------
    ValueError
        If the trees differ in structure.
    TypeError
        If a dict has a key that is not a string, or ``f`` returns an array of a NumPy subclass.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.tree_map(lambda a, b: a + b, (np.ones(2), {"k": np.ones(3)}), (np.zeros(2), {"k": np.ones(3)}))
    (array([1., 1.]), {'k': array([2., 2., 2.])})
    """
    columns, structure = alike({"tree": tree} | {f"rest[{k}]": other for k, other in enumerate(rest)})
    return cast("T", builder(structure)([read_only(f(*leaves)) for leaves in zip(*columns, strict=True)]))


def tree_map_with_path(f: Callable[[str, Any], Any], tree: T) -> T:
    """Apply a function to the path and the value of every leaf of a tree, as ``tree_map`` does to the value alone.

    A path is the names that lead to the leaf, joined by dots: fields of records, indices, keys of dicts. The path of a
    tree that is itself a leaf is empty.

    >>> import purenn as nn
    >>> params = nn.init(0, sizes=(784, 128, 10), activations=(nn.tanh, nn.softmax))
    >>> weights_only = nn.tree_map_with_path(lambda path, p: p if path.endswith("weights") else 0 * p, params)
    >>> nn.tree_leaves(nn.tree_map_with_path(lambda path, p: path, params))
    ['layers.0.weights', 'layers.0.biases', 'layers.1.weights', 'layers.1.biases']
    """
    structure = flatten(tree)[1]
    return cast("T", tree_map(f, builder(structure)(leaf_paths(structure)), tree))


def tree_leaves(tree: Tree) -> list[Any]:
    """Return the leaves of a tree as a list, in the order of the fields.

    >>> import purenn as nn
    >>> params = nn.init(0, sizes=(784, 128, 10), activations=(nn.tanh, nn.softmax))
    >>> [leaf.shape for leaf in nn.tree_leaves(params)]
    [(784, 128), (128,), (128, 10), (10,)]
    """
    return flatten(tree)[0]


def aligned(hints: dict[str, str] = {}, averages: Sequence[str] = (), /, **trees: Any) -> tuple[Any, ...]:  # noqa: B006
    """Return one list of arrays per tree, then a function that builds such a tree from a list of arrays.

    Raises ValueError unless the trees have the same structure, with arrays of the same shape and dtype in each place;
    TypeError if a leaf is not an array. ``hints`` maps the name of a tree to advice for the error about its arrays.
    The trees named in ``averages`` may be float32 where the first has 16 bits.
    """
    columns, structure = alike(trees)
    for leaf in {type(leaf): leaf for leaf in itertools.chain(*columns)}.values():
        if callable(leaf):
            raise TypeError("a leaf is a function; if it came from a pullback, pullback(dy)[0] is the gradient")
        namespace(leaf, "leaf")  # raises TypeError
    (first, arrays), *others = zip(trees, columns, strict=True)
    types = [(array.shape, array.dtype) for array in arrays]
    for name, theirs in others:
        given = [(array.shape, array.dtype) for array in theirs]
        if given != types and not (name in averages and given == [(a.shape, wide(a).dtype) for a in arrays]):
            texts = map(describe, arrays), map(describe, theirs)
            raise _difference(first, name, leaf_paths(structure), *texts, hints.get(name, ""))
    return *columns, lambda leaves: builder(structure)(leaves)


def namespace_of(arrays: list[Array], name: str = "the tree") -> Any:
    """Return the namespace of the arrays of a tree; ValueError if there are none."""
    if not arrays:
        raise ValueError(f"there are no arrays of numbers in {name}")
    return namespace(arrays[0])


def zeros_like(tree: T) -> T:
    """Return a tree of the same structure whose arrays are all zeros.

    >>> import numpy as np, purenn as nn
    >>> nn.zeros_like((np.ones(2), np.ones(1)))
    (array([0., 0.]), array([0.]))
    """
    return tree_map(lambda leaf: lock_in_place(namespace(leaf).zeros_like(leaf)), tree)


def vdot(a: Tree, b: Tree) -> Array:
    """Return the inner product of two trees, ``sum_i a_i b_i`` over all their numbers, as a 0-d array.

    Numbers of 16 bits are summed in float32, and the result is float32.

    Raises ValueError if the trees differ in structure, a shape or a dtype, or have no arrays.

    >>> import numpy as np, purenn as nn
    >>> print(nn.vdot((np.asarray([1.0, 2.0]), np.asarray([3.0])), (np.ones(2), np.ones(1))))
    6.0
    """
    ours, theirs, _ = aligned(a=a, b=b)
    xp = namespace_of(ours)
    products = [xp.sum(wide(p) * wide(q)) for p, q in zip(ours, theirs, strict=True)]
    return lock_in_place(functools.reduce(operator.add, products))


def global_norm(tree: Tree) -> Array:
    """Return the Euclidean norm of all numbers of a tree, ``sqrt(sum_i t_i^2)``, as a 0-d array.

    It is computed as ``m sqrt(sum_i (t_i / m)^2)``, with the largest absolute value ``m``, so that no square overflows;
    numbers of 16 bits are computed in float32.

    Raises ValueError if the tree has no arrays, TypeError if an array is complex or does not hold numbers.

    >>> import numpy as np, purenn as nn
    >>> print(nn.global_norm((np.asarray([5e200]), np.asarray([[12e200]]))))
    1.3e+201
    """
    return lock_in_place(operator.mul(*unit_and_norm(aligned(tree=tree)[0])))


def unit_and_norm(arrays: list[Array]) -> tuple[Array, Array]:
    """Return ``(unit, norm)``: the true norm is ``unit * norm``; unit is the largest magnitude.

    It is 1 if that value is 0 or not finite.
    """
    xp = namespace_of(arrays)
    for array in arrays:
        check_real(array, "leaf")
    arrays = [wide(array) for array in arrays]
    sizes = [xp.max(xp.abs(array)) for array in arrays if 0 not in array.shape]
    magnitude = functools.reduce(xp.maximum, sizes, xp.zeros((), dtype=arrays[0].dtype))
    unit = xp.where((magnitude > 0) & xp.isfinite(magnitude), magnitude, xp.ones_like(magnitude))
    return unit, xp.sqrt(functools.reduce(operator.add, [xp.sum((array / unit) ** 2) for array in arrays]))


def ravel(tree: T) -> tuple[Array, Callable[[Array], T]]:
    """Lay all arrays of a tree end to end in one vector; return it, and the function that makes a tree of a vector.

    ``vector`` has the ``k`` numbers of the tree in the order of ``tree_leaves``. ``unravel(vector)`` returns a tree
    like the given one, of its dtype. So an optimizer that works on vectors, such as those of ``scipy.optimize``, can
    train a network.

    Raises ValueError if the tree has no arrays, or arrays of several dtypes; ``unravel`` if it is not given ``k``
    numbers.

    >>> import numpy as np, purenn as nn
    >>> vector, unravel = nn.ravel((np.asarray([[1.0, 2.0]]), np.asarray(3.0)))
    >>> vector, unravel(10 * vector)
    (array([1., 2., 3.]), (array([[10., 20.]]), array(30.)))
    """
    arrays, rebuilt = aligned(tree=tree)
    xp = namespace_of(arrays)
    if any(array.dtype != arrays[0].dtype for array in arrays):
        raise ValueError(f"the arrays must be of one dtype, but are {', '.join(map(describe, arrays))}")
    ends = list(itertools.accumulate(math.prod(array.shape) for array in arrays))

    def unravel(vector: Array) -> T:
        xp = namespace(vector)
        if vector.shape != (ends[-1],):
            raise ValueError(f"the vector is {describe(vector)}, but must have the shape ({ends[-1]},)")
        pieces = [xp.asarray(vector)[start:end] for start, end in itertools.pairwise([0, *ends])]
        pairs = zip(pieces, arrays, strict=True)
        return cast("T", rebuilt([lock_in_place(xp.astype(xp.reshape(piece, a.shape), a.dtype)) for piece, a in pairs]))

    return lock_in_place(xp.concat([xp.reshape(array, (-1,)) for array in arrays])), unravel
