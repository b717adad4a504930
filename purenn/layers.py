"""Layers, networks, and the chain rule.

A layer is a record and one rule, registered with ``vjp.register``: apply the layer to a batch, and return how
gradients are pulled back through it (its vector-Jacobian product). Two are given here: ``Dense`` and the network
``Params``.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from purenn.activations import Activation
from purenn.arrays import Array, brief, check_dtypes, describe, floats_in, lock_in_place, namespace, read_only, total
from purenn.records import Vector, is_record, record
from purenn.trees import Layer, flatten, with_children

R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


# Inner functions evaluate their annotations at every call; a name is cheap.
_Gradients: TypeAlias = tuple[Any, Callable[[], Array]]


class Pullback(Protocol):
    """What ``vjp`` returns beside the output."""

    def __call__(self, dy: Array, /) -> _Gradients:
        """Return the gradient with respect to the layer, and a function that returns that with respect to ``x``."""


class Rules(Protocol[R_co]):
    """A function of a layer and its input, with a rule for each class of layers."""

    def __call__(self, layer: Layer, x: Array) -> R_co:
        """Apply the rule of the layer's class."""

    def register(self, rule: F) -> F:
        """Add the rule of the class that its first argument is annotated with."""

    def dispatch(self, cls: type) -> Callable[..., Any]:
        """Return the rule of a class."""


def singledispatch(function: Callable[[Layer, Array], R_co]) -> Rules[R_co]:
    """Make a function open to rules; the type keeps its parameters, which that of functools loses."""
    return cast("Rules[R_co]", functools.singledispatch(function))


@record
class Dense(Vector):
    """A fully connected layer: ``y = activation(x @ weights + biases)``.

    Attributes
    ----------
    weights : array, (fan_in, fan_out)
        float32 or float64; other libraries' arrays may have any float type.
    biases : array, (fan_out,)
        Of the same dtype.
    activation : Activation
        Applied to the pre-activations.

    Raises
    ------
    TypeError
        If the arrays are not both float32 or both float64, or the activation is not an Activation.
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
            rule = "must have the shapes (fan_in, fan_out) and (fan_out,), and no size 0"
            raise ValueError(f"weights are {describe(weights)} and biases {describe(biases)}, but {rule}")
        check_dtypes(type(self).__name__, flatten(self)[0])

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
        At least one. If adjacent layers define ``fan_out`` and ``fan_in``, they must agree.

    Raises
    ------
    TypeError
        If a layer is not a record, or the parameters are not all float32 or all float64.
    ValueError
        If ``layers`` is empty, or the ``fan_out`` of a layer is not the ``fan_in`` of the next layer.

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
        given = None
        for number, layer in enumerate(self.layers, start=1):
            if not is_record(layer):
                raise TypeError(f"layer {number} is {brief(layer)}, but must be a record such as purenn.Dense")
            taken = getattr(layer, "fan_in", None)
            if given is not None and taken is not None and given != taken:
                raise ValueError(f"layer {number} takes {taken} features, but layer {number - 1} gives {given}")
            given = getattr(layer, "fan_out", None)
        check_dtypes(type(self).__name__, flatten(self)[0])

    @property
    def fan_in(self) -> int | None:
        """The number of inputs; None if the first layer does not define ``fan_in``."""
        return getattr(self.layers[0], "fan_in", None)

    @property
    def fan_out(self) -> int | None:
        """The number of outputs; None if the last layer does not define ``fan_out``."""
        return getattr(self.layers[-1], "fan_out", None)

    def __repr__(self) -> str:
        lines = ",\n".join(map(repr, self.layers)).replace("\n", "\n    ")
        return f"Params(layers=(\n    {lines},\n))"


@singledispatch
def vjp(layer: Layer, x: Array) -> tuple[Array, Pullback]:
    """Apply a layer or a network to a batch; return the output and its pullback (vector-Jacobian product).

    If ``dy`` is the gradient of a scalar with respect to ``y``, the pullback returns the gradients with respect to
    ``layer`` and ``x``. ``Dense``: with ``dz = dy * activation'(z)``, the gradients with respect to weights, biases and
    ``x`` are ``x.T @ dz``, ``sum(dz)`` over the batch, and ``dz @ weights.T``. ``Params``: the chain rule, the last
    layer first (Rumelhart, Hinton & Williams 1986).

    Parameters
    ----------
    layer : Params, Dense, or any record registered with ``vjp.register``
    x : array, (n, fan_in)
        Floats. ``x`` is not copied, so it must not change before the pullback is called.

    Returns
    -------
    y : array, (n, fan_out)
        The value of ``forward(layer, x)``.
    pullback : callable
        ``pullback(dy) -> (gradient, dx)``: a record like ``layer``, and a function without arguments. ``dx()`` returns
        an array like ``x``; it costs as much as the layer's forward pass, so it is computed only when it is called.
        Both may be called more than once.

    Raises
    ------
    ValueError
        If the rank or the number of features is wrong; from the pullback, if ``dy`` does not have the shape of ``y``.
    TypeError
        If ``x`` is not an array of floats, or no rule is registered for the layer.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense([[1.0], [2.0]], [0.0], nn.identity)
    >>> y, pullback = nn.vjp(layer, np.asarray([[3.0, 4.0]]))
    >>> gradient, dx = pullback(np.ones_like(y))
    >>> gradient.weights, dx()
    (array([[3.],
           [4.]]), array([[1., 2.]]))
    """
    raise TypeError(f"vjp has no rule for {type_name(layer)}; purenn.vjp.register adds one for a record class")


def type_name(layer: Any) -> str:
    """Return the name of a layer's class; for a tuple, add how to unpack the result of a step."""
    hint = " (params, state = nn.adam_step(...) unpacks what the step returns)" if isinstance(layer, tuple) else ""
    return type(layer).__name__ + hint


@singledispatch
def forward(layer: Layer, x: Array) -> Array:
    """Apply a layer or a network to a batch, and return its output, ``(n, fan_out)``.

    ``Dense``: ``activation(x @ weights + biases)``. ``Params``: one layer after the other. For a network that ends in
    softmax, the output is the probability of each class. The output is read-only, of the dtype of the parameters. Your
    own layer needs no rule here: by default, ``forward`` returns ``y`` from ``vjp``.

    Parameters
    ----------
    layer : Params, Dense, or any record registered with ``vjp.register``
    x : array, (n, fan_in)
        One example per row, of a float type; converted to that of the parameters. ``n`` may be 0.

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
    y, _ = checked_pair(layer, "rule", vjp(layer, x))
    return checked_output(vjp, layer, x, y)


@vjp.register
def dense_vjp(layer: Dense, x: Array, activation: Activation | None = None) -> tuple[Array, Pullback]:
    """Apply a dense layer. A given activation replaces the layer's own; with ``identity``, the output is the logits."""
    f = layer.activation if activation is None else activation
    x = _checked_input(layer, x)
    z = lock_in_place(x @ layer.weights + layer.biases)
    y = lock_in_place(f.function(z))

    def dense_pullback(dy: Array) -> _Gradients:
        dz = f.pullback(z, y, checked_gradient(dy, y))
        gradient = with_children(layer, lock_in_place(x.T @ dz), lock_in_place(total(dz, axis=0)))

        def dx() -> Array:
            return lock_in_place(dz @ layer.weights.T)

        return gradient, dx

    return y, dense_pullback


def _checked_input(layer: Dense, x: Array) -> Array:
    """Check that a batch fits a layer, and return it in the dtype of the layer."""
    namespace(x, "x")
    if x.ndim != 2:
        way_out = "x[None, :] is a batch of one" if x.ndim == 1 else "x.reshape(len(x), -1) flattens each example"
        raise ValueError(f"x has the shape {x.shape}, but must be a batch, (n, features); {way_out}")
    if x.shape[1] != layer.weights.shape[0]:
        raise ValueError(f"x has {x.shape[1]} features, but the layer takes {layer.fan_in}")
    return x if x.dtype == layer.weights.dtype else floats_in(layer.weights.dtype, x, "x")


def checked_gradient(dy: Array, y: Array) -> Array:
    """Check that a gradient has the shape of its output, and return it in the dtype of the output."""
    namespace(dy, "dy")
    if dy.shape != y.shape:
        raise ValueError(f"dy is {describe(dy)}, but must have the shape of the output, {describe(y)}")
    return dy if dy.dtype == y.dtype else floats_in(y.dtype, dy, "dy")


# Params: the chain rule


@forward.register
def _network_forward(network: Params, x: Array) -> Array:
    return read_only(chained_forward(network, x, last=forward))


def chained_forward(network: Params, x: Array, last: Callable[[Layer, Array], Array]) -> Array:
    """Apply the layers of a network, with ``last`` in place of ``forward`` for the last of them."""
    *below, top = network.layers
    for layer in below:
        x = checked_output(forward, layer, x, _applied(network, layer, forward, x))
    return checked_output(forward, top, x, _applied(network, top, last, x))


@vjp.register
def network_vjp(network: Params, x: Array) -> tuple[Array, Pullback]:
    """Apply the chain rule to the layers of a network."""
    return chained_vjp(network, x, last=vjp)


def chained_vjp(network: Params, x: Array, last: Callable[..., Any]) -> tuple[Array, Pullback]:
    """Apply the layers of a network, with ``last`` in place of ``vjp`` for the last of them.

    The layers below the first one with arrays have no parameters, so no ``dy`` changes their gradients. Pullbacks get
    any array of the right shape there, and gradients pass through these layers only if ``dx`` is called.
    """
    passed = []
    rules: list[Any] = [vjp] * (len(network.layers) - 1) + [last]
    for layer, rule in zip(network.layers, rules, strict=True):
        y, pullback = checked_pair(layer, "rule", _applied(network, layer, rule, x))
        x = checked_output(vjp, layer, x, y)
        passed.append((layer, x, pullback))
    lowest = 0
    while lowest < len(passed) and not flatten(network.layers[lowest])[0]:
        lowest += 1

    def network_pullback(dy: Array) -> _Gradients:
        def dx() -> Array:
            return dy

        gradients = []
        for layer, _, pullback in reversed(passed[lowest:]):
            dy = dx()
            del dx  # frees the arrays of the layer above
            gradient, dx = checked_pair(layer, "pullback", pullback(dy), type(layer))
            gradients.append(gradient)
        for layer, y, pullback in reversed(passed[:lowest]):
            gradients.append(checked_pair(layer, "pullback", pullback(y), type(layer))[0])

        def network_dx() -> Array:
            below = dx()
            for layer, _, pullback in reversed(passed[:lowest]):
                below = checked_pair(layer, "pullback", pullback(below), type(layer))[1]()
            return read_only(below)

        return with_children(network, tuple(reversed(gradients))), network_dx

    return read_only(x), network_pullback


def _applied(network: Params, layer: Layer, rule: Callable[[Layer, Array], Any], x: Array) -> Any:
    """Apply one layer of a network; an error notes which one it was."""
    try:
        return rule(layer, x)
    except (TypeError, ValueError) as error:
        error.add_note(f"in layer {[*map(id, network.layers)].index(id(layer)) + 1}, {type(layer).__name__}")
        raise


# Checks on every rule


def checked_pair(layer: Layer, what: str, result: Any, cls: Any = object) -> tuple[Any, Any]:
    """Unpack the pair that a rule or a pullback returned; raise unless it is a ``cls`` instance and a function."""
    is_pair = isinstance(result, tuple) and len(result) == 2
    if not (is_pair and isinstance(result[0], cls) and callable(result[1])):
        pair = "(y, pullback): an array" if cls is object else f"(gradient, dx): a {cls.__name__}"
        raise _broken(vjp, layer, what, result, f"a pair {pair} and a function")
    return result[0], result[1]


def checked_output(rules: Any, layer: Layer, x: Array, y: Array) -> Array:
    """Return the output of a rule; raise unless it is an array with one row per example."""
    shape = getattr(y, "shape", None)
    if shape is None or shape[:1] != getattr(x, "shape", shape)[:1]:  # your own layer may take things other than arrays
        raise _broken(rules, layer, "rule", y, f"an array with one row per example of x, {brief(x)}")
    return y


def _broken(rules: Any, layer: Layer, what: str, result: Any, expected: str) -> TypeError:
    """Return the error that names a layer, its rule, the rule's result, and what it must return."""
    name, rule = type(layer).__name__, getattr(rules.dispatch(type(layer)), "__name__", "unnamed")
    return TypeError(f"the {what} of {name} ({rule}) returned {brief(result)}, but must return {expected}")
