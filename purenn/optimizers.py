"""Steps of gradient descent: they take parameters, a gradient and perhaps a state, and return new parameters and state.

A step takes each tree apart into its arrays, computes new arrays from its formula, and builds the trees again. Small
arrays are joined: the formula is computed once, for a vector, and the new arrays are cut out of the result. They share
its memory, so an array that outlives its tree keeps the whole vector in memory: at most 10,000 numbers. A larger array
is not joined.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import attrs

from purenn import trees
from purenn.arguments import as_floats, as_integers, check_number, describe
from purenn.arrays import Array, has_kind, is_numpy, lock_in_place, namespace, wide, widened
from purenn.records import Vector, floats_like, record
from purenn.trees import T, Tree, aligned, builder, flatten, like, namespace_of, tree_map, unit_and_norm, zeros_like


def sgd_step(params: T, grads: T, lr: float | T) -> T:
    """Return the parameters after one step of gradient descent: ``params - lr * grads``, of the dtype of ``params``.

    Parameters
    ----------
    params : Params
        Or any other tree of arrays of floats.
    grads : Params
        The gradient, of the same structure.
    lr : float, or Params of floats
        The learning rate: a finite number, or a 0-d array; or a tree like ``params`` with such a number in the place
        of each array. A rate of 0 freezes an array, if its gradient is finite.

    Raises
    ------
    ValueError
        If ``lr`` is not finite (only Python's and NumPy's numbers are checked), ``grads`` differs from ``params`` in
        structure, a shape or a dtype, or ``lr`` in structure.
    TypeError
        If ``lr`` is not a number, or the parameters are not floats.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.sgd_step(np.asarray([1.0, 2.0]), np.asarray([10.0, 0.0]), lr=0.1)
    array([0., 2.])
    >>> nn.sgd_step((np.ones(1), np.ones(1)), (np.ones(1), np.ones(1)), lr=(0.5, 0.0))
    (array([0.5]), array([1.]))
    """
    ps, ws, gs, rebuilt = _joined([lr], [], params=params, grads=grads)
    columns = zip(ps, ws, gs, _per_leaf("lr", lr, params, ps), strict=True)
    return cast("T", rebuilt([floats_like(-lr * g + w, p) for p, w, g, lr in columns]))


def momentum_step(
    params: T, grads: T, velocity: T, lr: float | T, momentum: float = 0.9, nesterov: bool = False
) -> tuple[T, T]:
    """Return the parameters and the velocity after one step of gradient descent with momentum.

    ``velocity' = momentum * velocity + grads``, ``params' = params - lr * velocity'`` (Polyak 1964). With ``nesterov``,
    ``params' = params - lr * (grads + momentum * velocity')``: the method of Sutskever, Martens, Dahl & Hinton 2013,
    where ``params`` is the point at which they take the gradient (Bengio, Boulanger-Lewandowski & Pascanu 2013).

    Parameters
    ----------
    params, grads, lr
        Those of ``sgd_step``.
    velocity : Params
        As returned by the previous step; start with ``zeros_like(params)``. For parameters of 16 bits, the returned
        velocity is float32, since rounding would stop its growth. For ``jax.lax.scan``, which allows no change of
        dtype, start with ``tree_map(lambda p: p.astype("float32"), zeros_like(params))``.
    momentum : float
        At least 0 and below 1.
    nesterov : bool

    Raises
    ------
    ValueError
        If ``momentum`` is out of its range.
    ValueError, TypeError
        Those of ``sgd_step``, also for ``velocity``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.momentum_step(np.asarray([1.0]), np.asarray([2.0]), velocity=np.asarray([1.0]), lr=0.1, momentum=0.5)
    (array([0.75]), array([2.5]))
    """
    momentum = check_number("momentum", momentum, least=0, below=1)
    ps, ws, gs, vs, rebuilt = _joined([lr], ["velocity"], params=params, grads=grads, velocity=velocity)
    vs = [floats_like(momentum * v + g, v) for v, g in zip(vs, gs, strict=True)]
    directions = [momentum * v + g for v, g in zip(vs, gs, strict=True)] if nesterov else vs
    columns = zip(directions, ws, ps, _per_leaf("lr", lr, params, ps), strict=True)
    ps = [floats_like(-c * d + w, p) for d, w, p, c in columns]
    return rebuilt(ps), rebuilt(vs)


@record
class AdamState(Vector):
    """The state of Adam between two steps. ValueError if it is not consistent, TypeError if a leaf is not an array.

    Attributes
    ----------
    steps : array, ()
        The number of steps taken: int64; in other libraries, their default integer type.
    means, squares : Params
        The exponential averages of the gradient and of its square, like the parameters, but in float32 where these have
        16 bits: the square of a gradient of 1e-4 is 0 in float16.
    """

    steps: Array = attrs.field(converter=as_integers)
    means: Tree
    squares: Tree

    def __attrs_post_init__(self) -> None:
        if self.steps.ndim or not has_kind(self.steps, "integral") or (is_numpy(self.steps) and not self.steps >= 0):
            raise ValueError(f"steps is {describe(self.steps)}, but must be one integer, and not negative")
        aligned(means=self.means, squares=self.squares)


def adam_init(params: Tree) -> AdamState:
    """Return the state that ``adam_step`` starts with: no steps, averages of zero.

    ``params`` is a network, or any other tree of arrays, built of records and tuples. The averages are float32 where
    the parameters have 16 bits. Raises TypeError if the tree holds a list or a dict (both mutable, but a state is not),
    or a leaf that is not an array; ValueError if the tree has no arrays.

    >>> import numpy as np, purenn as nn
    >>> nn.adam_init(np.ones(3))
    AdamState(steps=0, means=f64[3], squares=f64[3])
    """
    if any(node is not trees.LEAF and node[0].cls in (list, dict) for node in flatten(params)[1]):
        raise TypeError("params holds a list or a dict, but the state of Adam cannot; use a record or a tuple instead")
    xp, zeros = namespace_of(aligned(params=params)[0]), zeros_like(tree_map(wide, params))
    return AdamState(xp.asarray(0), zeros, zeros)


def adam_step(
    params: T,
    grads: T,
    state: AdamState,
    lr: float | T,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | T = 0.0,
) -> tuple[T, AdamState]:
    """Return the parameters and the state after one step of Adam with decoupled weight decay (AdamW).

    In step ``t = state.steps + 1``, with gradient ``g``, ``m = state.means`` and ``v = state.squares``:

        m' = beta1 m + (1 - beta1) g
        v' = beta2 v + (1 - beta2) g^2
        m_hat = m' / (1 - beta1^t)
        v_hat = v' / (1 - beta2^t)
        params' = params - lr (m_hat / (sqrt(v_hat) + eps) + weight_decay params)

    (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2, but ``lr`` scales the decay, too.)

    Parameters
    ----------
    params, grads, lr
        Those of ``sgd_step``.
    state : AdamState
        As returned by the previous step; start with ``adam_init(params)``.
    beta1, beta2 : float
        How much of each average is kept; at least 0 and below 1. Under ``jax.jit``, they must be Python numbers.
    eps : float
        Keeps the divisor away from zero; at least 0. If it is 0, a gradient of 0 gives NaN.
    weight_decay : float, or Params of floats
        A step subtracts ``lr * weight_decay * params``; at least 0. A number applies to biases, too; a tree like
        ``params``, made by ``tree_map_with_path``, has a number for each array.

    Raises
    ------
    ValueError
        If a number is out of its range, or the trees differ in structure, a shape, or a dtype.
    TypeError
        If a setting is not a number, the parameters are integers, or ``state`` is not an ``AdamState``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> params = np.asarray([1.0, 2.0])
    >>> params, state = nn.adam_step(params, np.asarray([1e-3, -1e3]), nn.adam_init(params), lr=0.1)
    >>> np.round(params, 3), state.steps
    (array([0.9, 2.1]), array(1))
    """
    if not isinstance(state, AdamState):
        raise TypeError(f"state is a {type(state).__name__}, but must come from adam_init or the previous step")
    eps = check_number("eps", eps, least=0)
    beta1, beta2 = [float(check_number(*pair, least=0, below=1)) for pair in (("beta1", beta1), ("beta2", beta2))]
    averages = {"state.means": state.means, "state.squares": state.squares}
    ps, ws, gs, ms, vs, rebuilt = _joined([lr, weight_decay], [*averages], params=params, grads=grads, **averages)
    lrs, decays = _per_leaf("lr", lr, params, ps), _per_leaf("weight_decay", weight_decay, params, ps, least=0)
    steps = lock_in_place(state.steps + 1)
    ms = [floats_like(beta1 * m + (1 - beta1) * g, m) for m, g in zip(ms, gs, strict=True)]
    vs = [floats_like(beta2 * v + (1 - beta2) * g * g, v) for v, g in zip(vs, gs, strict=True)]

    # The corrections of m_hat and v_hat are numbers: they go into the rate and eps instead of into two more arrays for
    # each parameter (Kingma & Ba 2015, end of section 2). Near beta = 1, expm1 keeps digits that the power would lose.
    xp, t = (math, int(steps)) if is_numpy(steps) else (namespace(steps), as_floats(steps, "step"))
    correction1, correction2 = [-xp.expm1(t * math.log(beta)) if beta else 1.0 for beta in (beta1, beta2)]
    alphas, eps_hat = [lr * xp.sqrt(correction2) / correction1 for lr in lrs], eps * xp.sqrt(correction2)
    if not (isinstance(weight_decay, (int, float)) and weight_decay == 0):
        ws = [(1 - lr * decay) * w for w, lr, decay in zip(ws, lrs, decays, strict=True)]
    columns = zip(ps, ws, ms, vs, alphas, strict=True)
    ps = [floats_like(m / (namespace(v).sqrt(v) + eps_hat) * -alpha + w, p) for p, w, m, v, alpha in columns]
    return rebuilt(ps), like(state, steps=steps, means=rebuilt(ms), squares=rebuilt(vs))


def clip_by_global_norm(grads: T, max_norm: float) -> T:
    """Shorten a gradient to at most a given norm: ``grads * min(1, max_norm / global_norm(grads))``.

    This limits the step where the gradient explodes (Pascanu, Mikolov & Bengio 2013, algorithm 1). ``grads`` is a
    ``Params`` or any other tree of arrays of floats, ``max_norm`` a finite number of at least 0, or a 0-d array.

    Raises ValueError if ``max_norm`` is negative or not finite, or the tree has no arrays; TypeError if ``max_norm`` is
    not a number, or an array does not hold floats.

    >>> import numpy as np, purenn as nn
    >>> nn.clip_by_global_norm((np.asarray([3.0]), np.asarray([4.0])), max_norm=1.0)
    (array([0.6]), array([0.8]))
    """
    max_norm = check_number("max_norm", max_norm, least=0)
    gs, *_, rebuilt = _joined([], [], grads=grads)
    unit, norm = unit_and_norm(gs)
    xp = namespace(norm)
    # min(1, max_norm / (unit norm)), but this cannot overflow
    factor = xp.minimum(unit, max_norm / xp.where(norm == 0, xp.ones_like(norm), norm)) / unit
    return cast("T", rebuilt([floats_like(factor * g, g) for g in gs]))


# Small arrays are joined: NumPy takes longer to start an operation than to compute it for a small array


# How many numbers a joined vector may hold, and of which dtype. Four times as many gain 10 % in deep networks only; but
# an array that is kept alone keeps its vector alive.
_LIMIT, _FLOATS = 10_000, ("float32", "float64")


class _Layout(NamedTuple):
    """How the arrays of a tree lie in vectors, and how a tree is built from such vectors."""

    structure: list[Any]
    types: list[Any]  # the shape and dtype of each array
    cuts: list[Any]  # for each vector: where each array is in it, and its shape, or None if it has this shape already
    build: Callable[[list[Array]], Any]

    def tree_of(self, vectors: list[Array]) -> Any:
        """Return the tree whose arrays are cut out of vectors; a record keeps these for the next step."""
        pairs = zip(vectors, self.cuts, strict=True)
        tree = self.build([v[at] if shape is None else v[at].reshape(shape) for v, cuts in pairs for at, shape in cuts])
        if hasattr(type(tree), "__vectors__"):
            object.__setattr__(tree, "__vectors__", (self, vectors))
        return tree


def _vectors(tree: Any, layout: _Layout | None = None) -> tuple[_Layout | None, list[Array] | None]:
    """Return the layout of a tree, and the vectors of the tree in it; those that a step has kept are not joined again.

    If a layout is given, return it, and the vectors of the tree in it. Either is None if there is none: arrays of other
    libraries and of several dtypes are not joined, and a tree may not fit the layout.
    """
    kept: Any = getattr(tree, "__vectors__", None)
    if type(kept) is tuple and kept[0] is (layout or kept[0]):
        return kept
    arrays, structure = flatten(tree)
    if len({*map(type, arrays)}) != 1 or not is_numpy(arrays[0]):
        return layout, None
    types = [(array.shape, array.dtype) for array in arrays]
    if not layout and len({dtype for _, dtype in types}) == 1 and arrays[0].dtype in _FLOATS:
        cuts, end = list[Any](), math.inf
        for array in arrays:
            start, end = end, end + array.size
            if end > _LIMIT:
                cuts.append([])
                start, end = 0, array.size
            cuts[-1].append((slice(start, end), None if array.ndim == 1 else array.shape))
        # an array alone stays as it is
        layout = _Layout(structure, types, [c if len(c) > 1 else [(..., None)] for c in cuts], builder(structure))
    if not layout or structure != layout.structure or types != layout.types:
        return layout, None
    rest, concat = iter(arrays), namespace(arrays[0], "leaf").concat
    joints = [[*itertools.islice(rest, len(cuts))] for cuts in layout.cuts]
    return layout, [concat(joint, axis=None) if len(joint) > 1 else joint[0] for joint in joints]


def _joined(rates: list[Any], averages: list[str], /, **given: Any) -> tuple[Any, ...]:
    """Do what ``aligned`` does, but join small arrays into vectors, so that a formula is computed once for many.

    The arrays of the first tree are returned twice: as they are, then like the others, in float32 if they have 16 bits.

    A vector has at most _LIMIT numbers; a larger array is not joined. The arrays stay as they are unless all are
    NumPy's (other libraries compile), and all float32 or all float64, and each rate is a number for all of them.
    """
    first, *others = given.values()
    layout, vectors = _vectors(first) if {*map(type, rates)} <= {float, int} else (None, None)
    columns = [vectors, *[_vectors(other, layout)[1] for other in others if layout]]
    if layout and None not in columns:
        return vectors, *columns, layout.tree_of
    *apart, rebuilt = aligned({"grads": "; purenn.check_vjp checks the rule of a layer"}, averages, **given)
    return apart[0], *widened(*apart), rebuilt


def _per_leaf(name: str, value: Any, params: Any, arrays: list[Array], least: float = -math.inf) -> list[Any]:
    """Return a list with one number for each of ``arrays``, the leaves of ``params``.

    ``value`` is one number for all, or a tree of numbers like ``params``. Raises ValueError if the tree differs from
    ``params`` in structure, or a number is below ``least`` or not finite; TypeError if a leaf is not a number.
    """
    if value is None or trees.kinds[type(value)] is None:
        return [check_number(name, value, least)] * len(arrays)
    (_, numbers), structure = trees.alike({"params": params, name: value})
    return [check_number(f"{name}.{p}", c, least) for p, c in zip(trees.leaf_paths(structure), numbers, strict=True)]
