"""What is a layer, a network, and the chain rule?

A layer is any record for which two functions know a rule: ``forward`` computes its output, ``vjp`` its output and how
to pull a gradient back through it (its vector-Jacobian product). ``Dense`` and ``Params`` are the rules given here;
``forward.register`` and ``vjp.register`` take more.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, TypeAlias, TypeVar, cast

import attrs

from purenn.activations import Activation
from purenn.arrays import (
    Array,
    Seed,
    as_tuple,
    brief,
    check_floats,
    check_scalar,
    describe,
    frozen,
    generator,
    locked,
    namespace,
)
from purenn.records import Vector, record
from purenn.trees import replaced, sequence_like, tree_leaves

L = TypeVar("L")
Layer: TypeAlias = Any
"""The annotation for a field that holds a layer: a record of any kind."""

Pullback: TypeAlias = Callable[[Array], tuple[Any, Array]]


@record
class Dense(Vector):
    """A fully connected layer: ``y = activation(x @ weights + biases)``.

    Attributes
    ----------
    weights : array, (fan_in, fan_out)
        float32 or float64.
    biases : array, (fan_out,)
        Of the same dtype.
    activation : Activation
        Applied to the pre-activations.

    Raises
    ------
    TypeError
        If the arrays are not both float32 or both float64, or the activation is no Activation.
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.Dense(np.zeros((3, 2), np.float32), np.zeros(2, np.float32), nn.tanh)
    Dense(weights=f32[3,2], biases=f32[2], activation=tanh)
    """

    weights: Array
    biases: Array
    activation: Activation

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.activation, Activation):
            raise TypeError(f"activation is {brief(self.activation)}, but must be an Activation such as purenn.relu")
        weights, biases = self.weights, self.biases
        if weights.ndim != 2 or weights.shape[1:] != biases.shape or 0 in weights.shape:
            raise ValueError(
                f"weights are {describe(weights)} and biases {describe(biases)}, "
                "but must have the shapes (fan_in, fan_out) and (fan_out,), and no size 0"
            )
        _check_dtypes(self)

    @property
    def fan_in(self) -> int:
        """The number of inputs."""
        return int(self.weights.shape[0])

    @property
    def fan_out(self) -> int:
        """The number of outputs."""
        return int(self.weights.shape[1])


@record
class Params(Vector):
    """A network: layers applied one after the other. It is a layer itself, so networks nest.

    Attributes
    ----------
    layers : tuple of layers
        At least one. Where two neighbours have ``fan_out`` and ``fan_in``, these must agree.

    Raises
    ------
    TypeError
        If a layer is no record, or the parameters are not all float32 or all float64.
    ValueError
        If there is no layer, or neighbours do not fit.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.init(0, sizes=(784, 128, 10), activations=(nn.tanh, nn.softmax))
    Params(layers=(
        Dense(weights=f32[784,128], biases=f32[128], activation=tanh),
        Dense(weights=f32[128,10], biases=f32[10], activation=softmax),
    ))
    """

    layers: tuple[Layer, ...]

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not self.layers:
            raise ValueError(f"layers is {brief(self.layers)}, but must be a tuple of at least one layer")
        for number, layer in enumerate(self.layers, start=1):
            if not hasattr(layer, "__children__"):
                raise TypeError(f"layer {number} is {brief(layer)}, but must be a record such as purenn.Dense")
        given = None
        for number, layer in enumerate(self.layers, start=1):
            taken = getattr(layer, "fan_in", None)
            if given is not None and taken is not None and given != taken:
                raise ValueError(f"layer {number} takes {taken} features, but layer {number - 1} gives {given}")
            given = given if isinstance(layer, Dropout) else getattr(layer, "fan_out", None)
        _check_dtypes(self)

    @property
    def fan_in(self) -> int | None:
        """The number of inputs, if the first layer that is no Dropout says."""
        return next((getattr(layer, "fan_in", None) for layer in self.layers if not isinstance(layer, Dropout)), None)

    @property
    def fan_out(self) -> int | None:
        """The number of outputs, if the last layer says."""
        return getattr(self.layers[-1], "fan_out", None)

    def __repr__(self) -> str:
        lines = ",\n".join(map(repr, self.layers)).replace("\n", "\n    ")
        return f"Params(layers=(\n    {lines},\n))"


def _check_dtypes(layer: Layer) -> None:
    leaves = tree_leaves(layer)
    kinds = {brief(leaf).partition("[")[0] for leaf in leaves}
    if len(kinds) > 1 or kinds - {"f32", "f64"}:
        raise TypeError(
            f"{type(layer).__name__} has the arrays {', '.join(map(brief, leaves))}, "
            "but parameters must be all float32 or all float64; np.asarray(..., dtype=np.float32) converts one"
        )


# The two rules


@singledispatch
def forward(layer: Layer, x: Array) -> Array:
    """Apply a layer or a network to a batch.

    ``Dense``: ``activation(x @ weights + biases)``. ``Params``: one layer after the other.

    Parameters
    ----------
    layer : Params, Dense, or any record registered with ``forward.register``
    x : array, (n, fan_in)
        One example a row, of a float type; converted to that of the parameters. ``n`` may be 0.

    Returns
    -------
    array, (n, fan_out)
        Read-only, of the dtype of the parameters. For a network that ends in softmax: the probability of each class.

    Raises
    ------
    ValueError
        If the rank or the number of features is wrong.
    TypeError
        If ``x`` is not an array of floats, or no rule is registered for the layer.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> params = nn.init(0, sizes=(4, 3, 2), activations=(nn.tanh, nn.softmax))
    >>> nn.forward(params, np.zeros((1, 4), np.float32))
    array([[0.5, 0.5]], dtype=float32)
    """
    raise _no_rule("forward", layer)


@singledispatch
def vjp(layer: Layer, x: Array) -> tuple[Array, Pullback]:
    """Apply a layer or a network to a batch, and return how gradients are pulled back through it.

    With ``y = forward(layer, x)``, ``pullback(dy)`` multiplies ``dy`` by the transposed Jacobian of ``y``: if ``dy`` is
    the gradient of some scalar with respect to ``y``, it gives those with respect to the layer and to ``x``.
    ``Dense``: with ``dz = dy * activation'(z)``, these are ``x.T @ dz``, ``sum(dz)`` over the batch, and
    ``dz @ weights.T``. ``Params``: the chain rule, the last layer first (Rumelhart, Hinton & Williams 1986).

    Parameters
    ----------
    layer : Params, Dense, or any record registered with ``vjp.register``
    x : array, (n, fan_in)
        As for ``forward``.

    Returns
    -------
    y : array, (n, fan_out)
        What ``forward(layer, x)`` gives.
    pullback : callable
        ``pullback(dy) -> (gradient, dx)``: a record like ``layer``, and an array like ``x``. It may be called often.

    Raises
    ------
    ValueError, TypeError
        As for ``forward``; and by the pullback, if ``dy`` does not have the shape of ``y``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense([[1.0], [2.0]], [0.0], nn.identity)
    >>> y, pullback = nn.vjp(layer, np.asarray([[3.0, 4.0]]))
    >>> gradient, dx = pullback(np.ones_like(y))
    >>> gradient.weights, dx
    (array([[3.],
           [4.]]), array([[1., 2.]]))
    """
    raise _no_rule("vjp", layer)


@singledispatch
def parameter_vjp(layer: Layer, x: Array) -> tuple[Array, Callable[[Array], Any]]:
    """Do what ``vjp`` does, with a pullback that gives the gradient of the layer alone.

    What nobody asked for is not computed: the gradient with respect to a network's input costs as much as its first
    layer. ``grads`` uses it. A rule of its own is optional; without one, this calls ``vjp``.

    Parameters
    ----------
    layer, x
        As for ``vjp``. ``x`` must not change before the pullback is called; ``vjp`` copies one that could.

    Returns
    -------
    y : array, (n, fan_out)
        What ``forward(layer, x)`` gives.
    pullback : callable
        ``pullback(dy) -> gradient``: a record like ``layer``.

    Raises
    ------
    ValueError, TypeError
        As ``vjp`` does.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense([[1.0], [2.0]], [0.0], nn.identity)
    >>> y, pullback = nn.parameter_vjp(layer, np.asarray([[3.0, 4.0]]))
    >>> pullback(np.ones_like(y)).weights
    array([[3.],
           [4.]])
    """
    y, pullback = vjp(layer, x)
    return y, lambda dy: pullback(dy)[0]


def _no_rule(function: str, layer: object) -> TypeError:
    return TypeError(
        f"{function} has no rule for {type(layer).__name__}; purenn.{function}.register adds one for a record class"
    )


# Dense


@forward.register
def _(layer: Dense, x: Array) -> Array:
    x = _checked_input(layer, x)
    return locked(layer.activation.function(x @ layer.weights + layer.biases))


@vjp.register
def _(layer: Dense, x: Array) -> tuple[Array, Pullback]:
    y, backward = _dense_vjp(layer, frozen(x))

    def pullback(dy: Array) -> tuple[Dense, Array]:
        gradient, dz = backward(dy)
        return gradient, locked(dz @ layer.weights.T)

    return y, pullback


@parameter_vjp.register
def _(layer: Dense, x: Array) -> tuple[Array, Callable[[Array], Dense]]:
    y, backward = _dense_vjp(layer, x)
    return y, lambda dy: backward(dy)[0]


def _dense_vjp(layer: Dense, x: Array) -> tuple[Array, Callable[[Array], tuple[Dense, Array]]]:
    """Return the output, and the function that gives the gradients of the layer and of the pre-activations."""
    x, xp = _checked_input(layer, x), namespace(x)
    z = x @ layer.weights + layer.biases
    y = locked(layer.activation.function(z))

    def backward(dy: Array) -> tuple[Dense, Array]:
        dz = layer.activation.pullback(z, y, _checked_gradient(dy, y))
        rows = xp.ones(dz.shape[0], dtype=dz.dtype)  # a product with ones is their sum, for half of what xp.sum takes
        return replaced(layer, weights=locked(x.T @ dz), biases=locked(rows @ dz)), dz

    return y, backward


def _checked_input(layer: Dense, x: Array) -> Array:
    """Return a batch in the dtype of the layer, or raise the error that says what is wrong with it."""
    _check_features(layer, x, "the layer")
    return _as_floats(x, layer.weights.dtype)


def _checked_gradient(dy: Array, y: Array) -> Array:
    """Return a gradient in the dtype of the output that it belongs to, or raise the error that says what is wrong."""
    namespace(dy)
    if dy.shape != y.shape:
        raise ValueError(f"dy is {describe(dy)}, but the output that it is the gradient of is {describe(y)}")
    return _as_floats(dy, y.dtype)


def _check_features(layer: Layer, x: Array, name: str) -> None:
    namespace(x)
    if x.ndim != 2:
        raise ValueError(f"x has the shape {x.shape}, but must be a batch, (n, features); one example is x[None, :]")
    if x.shape[1] != layer.fan_in:
        raise ValueError(f"x has {x.shape[1]} features, but {name} takes {layer.fan_in}")


def _as_floats(x: Array, dtype: Any) -> Array:
    if x.dtype == dtype:
        return x
    check_floats(x)
    return namespace(x).astype(x, dtype)


# Params


@forward.register
def _(network: Params, x: Array) -> Array:
    _check_first(network, x)
    for layer in network.layers:
        x = forward(layer, x)
    return frozen(x)


@vjp.register
def _(network: Params, x: Array) -> tuple[Array, Pullback]:
    _check_first(network, x)
    y, pullback = _chained_vjp(network.layers, x)

    def backward(dy: Array) -> tuple[Params, Array]:
        gradients, dx = pullback(dy)
        return replaced(network, layers=gradients), frozen(dx)

    return frozen(y), backward


@parameter_vjp.register
def _(network: Params, x: Array) -> tuple[Array, Callable[[Array], Params]]:
    _check_first(network, x)
    x, first_pullback = parameter_vjp(network.layers[0], x)
    y, pullback = _chained_vjp(network.layers[1:], x)

    def backward(dy: Array) -> Params:
        gradients, dx = pullback(dy)
        return replaced(network, layers=(first_pullback(dx), *gradients))

    return y, backward


def _chained_vjp(layers: tuple[Layer, ...], x: Array) -> tuple[Array, Callable[[Array], tuple[tuple[Any, ...], Array]]]:
    pullbacks = []
    for layer in layers:
        x, pullback = vjp(layer, x)
        pullbacks.append(pullback)

    def backward(dy: Array) -> tuple[tuple[Any, ...], Array]:
        gradients = []
        for pullback in reversed(pullbacks):
            gradient, dy = pullback(dy)
            gradients.append(gradient)
        return tuple(reversed(gradients)), dy

    return x, backward


def _check_first(network: Params, x: Array) -> None:
    if network.fan_in is not None:
        _check_features(network, x, "the first layer")


# Dropout, the layer that is random in training


@record
class Dropout(Vector):
    """A layer that sets each of its inputs to zero with some probability, and scales the others up to make up for it.

    ``y = x * mask / (1 - rate)``, where ``mask`` is 0 with probability ``rate``, else 1 (Srivastava et al. 2014,
    section 10). The mask comes from the seed; without one, ``y = x``. Training gives a seed for every step by
    ``seeded``, and nothing else knows of it: gradients have the type of the network without seeds. NumPy draws the
    mask; under ``jax.jit`` that happens once, when the function is compiled.

    Attributes
    ----------
    rate : float
        At least 0 and below 1.
    seed : int, tuple of int, or None

    Raises
    ------
    ValueError
        If the rate is out of its range, or the seed is negative.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.forward(nn.Dropout(0.5), np.ones((1, 8)))
    array([[1., 1., 1., 1., 1., 1., 1., 1.]])
    >>> nn.forward(nn.seeded(nn.Dropout(0.5), 1), np.ones((1, 8)))
    array([[2., 0., 0., 2., 2., 2., 2., 0.]])
    """

    rate: float = attrs.field(converter=lambda rate: check_scalar("rate", rate))
    seed: Seed | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate is {self.rate}, but must be at least 0 and below 1")
        if self.seed is not None:
            as_tuple(self.seed)


def seeded(layer: L, seed: Seed) -> L:
    """Return the same layer or network with a seed in every random part: one that has a field ``seed``.

    Each part gets a seed of its own, the given one and its place in the network. A training step then reads
    ``sgd_step(params, grads(seeded(params, (0, step)), x, y), lr)``; the parameters themselves never have a seed, so
    that ``forward(params, x)`` is the network as it predicts.

    Parameters
    ----------
    layer : Params, or any other layer
    seed : int or tuple of int
        The same seed gives the same masks; a step that is to have its own needs its own.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.seeded(nn.Params((nn.Dropout(0.2), nn.Dropout(0.5))), (0, 7))
    Params(layers=(
        Dropout(rate=0.2, seed=(0, 7, 0, 0)),
        Dropout(rate=0.5, seed=(0, 7, 0, 1)),
    ))
    """
    path = as_tuple(seed)
    if isinstance(layer, tuple):
        return cast("L", sequence_like(layer, [seeded(part, (*path, k)) for k, part in enumerate(layer)]))
    changes: dict[str, Any] = {"seed": seed} if "seed" in getattr(layer, "__statics__", ()) else {}
    for number, name in enumerate(getattr(layer, "__children__", ())):
        changes[name] = seeded(getattr(layer, name), (*path, number))
    return replaced(layer, **changes) if changes else layer


@forward.register
def _(layer: Dropout, x: Array) -> Array:
    check_floats(x)
    return frozen(x) if layer.seed is None else locked(x * _mask(layer.seed, layer.rate, x))


@vjp.register
def _(layer: Dropout, x: Array) -> tuple[Array, Pullback]:
    check_floats(x)
    mask = None if layer.seed is None else _mask(layer.seed, layer.rate, x)
    y = frozen(x) if mask is None else locked(x * mask)

    def pullback(dy: Array) -> tuple[Dropout, Array]:
        dy = _checked_gradient(dy, y)
        return replaced(layer, seed=None), frozen(dy) if mask is None else locked(dy * mask)

    return y, pullback


def _mask(seed: Seed, rate: float, x: Array) -> Array:
    kept = generator(seed).random(x.shape, dtype="float32") >= rate
    return namespace(x).asarray(kept, dtype=x.dtype) / (1 - rate)


# The output: losses start from its pre-activations


def output_activation(network: Layer) -> Activation | None:
    """Return the activation that a network ends with; None if its last layer is not ``Dense``."""
    while isinstance(network, Params):
        network = network.layers[-1]
    return network.activation if isinstance(network, Dense) else None


def with_output_activation(network: L, activation: Activation) -> L:
    """Return the same network with another activation at its end; with ``identity``, it computes pre-activations."""
    if isinstance(network, Params):
        *others, last = network.layers
        return replaced(network, layers=(*others, with_output_activation(last, activation)))
    return replaced(network, activation=activation)
