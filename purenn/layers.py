"""Layers, networks, and the chain rule.

A layer is a record and one rule, registered with ``vjp.register``: apply the layer to a batch, and return how
gradients are pulled back through it (its vector-Jacobian product). Two are given here: ``Dense`` and the network
``Params``.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from purenn.activations import Activation
from purenn.arguments import brief, check_floats, check_real, describe, type_name
from purenn.arrays import Array, astype, is_float, is_numpy, lock_in_place, namespace, read_only, sum_over
from purenn.records import Stepped, floats_like, is_record, record
from purenn.trees import Layer, flatten, has_arrays, like

R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


# Every call of a rule defines its pullback anew, and evaluates the annotations; an alias is cheap.
GradientAndDx: TypeAlias = tuple[Any, Callable[[], Array]]


class Pullback(Protocol):
    """What ``vjp`` returns beside the output."""

    def __call__(self, dy: Array, /) -> GradientAndDx:
        """Return the gradient with respect to the layer, and a function that computes the one with respect to ``x``."""


class Door(Protocol[R_co]):
    """A function of a layer and its input, which applies the rule of the layer's class and checks what it returns."""

    def __call__(self, layer: Layer, x: Array) -> R_co:
        """Apply the rule of the layer's class."""

    def register(self, rule: F) -> F:
        """Add the rule of the class that its first argument is annotated with."""

    def dispatch(self, cls: type) -> Callable[..., Any]:
        """Return the rule of a class."""


def _door(default: Callable[[Any, Any], Any], function: Callable[[Layer, Array], R_co]) -> Door[R_co]:
    """Let users register rules for a function; ``default`` is the rule of classes that have none."""
    rules = functools.singledispatch(default)
    # The registry knows the class itself; dispatch also looks for its bases, and takes several times as long.
    vars(function).update(register=rules.register, dispatch=lambda cls: rules.registry.get(cls) or rules.dispatch(cls))
    return cast("Door[R_co]", function)


@record
class Dense(Stepped):
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
        if self.weights.ndim != 2 or self.weights.shape[1:] != self.biases.shape or 0 in self.weights.shape:
            given = f"weights are {describe(self.weights)} and biases {describe(self.biases)}"
            raise ValueError(f"{given}, but must have the shapes (fan_in, fan_out) and (fan_out,), and no size 0")
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
class Params(Stepped):
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
        for number, layer in enumerate(self.layers):
            if not is_record(layer):
                raise TypeError(f"layers.{number} is {brief(layer)}, but must be a record such as purenn.Dense")
            taken = getattr(layer, "fan_in", None)
            if given is not None and taken is not None and given != taken:
                raise ValueError(f"layers.{number} takes {taken} features, but layers.{number - 1} gives {given}")
            given = getattr(layer, "fan_out", None)
        _check_dtypes(self)

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


def _check_dtypes(layer: Layer) -> None:
    """Raise TypeError unless parameters are floats of one dtype: float32 or float64, any in other libraries."""
    parameters = flatten(layer)[0]
    for p in parameters:
        check_real(p, "leaf", "bool")
        is_known = p.dtype in ("float32", "float64") if is_numpy(p) else is_float(p)
        if not is_known or p.dtype != parameters[0].dtype:
            rule = "parameters must be all float32 or all float64; .astype(np.float32) converts one"
            raise TypeError(f"{type(layer).__name__} has the arrays {', '.join(map(describe, parameters))}, but {rule}")


# One door for all rules: it checks what a rule returns, so that a rule is only its formula


def _no_rule(layer: Any, x: Any) -> Any:
    raise TypeError(f"vjp has no rule for {type_name(layer)}; purenn.vjp.register adds one for a record class")


@functools.partial(_door, _no_rule)
def vjp(layer: Layer, x: Array) -> tuple[Array, Pullback]:
    """Apply a layer or a network to a batch; return the output and its pullback (vector-Jacobian product).

    If ``dy`` is the gradient of a scalar with respect to ``y``, the pullback returns the gradients with respect to
    ``layer`` and ``x``. ``Dense``: with the gradient at the pre-activations, ``dz`` (for elementwise activations,
    ``dy * activation'(z)``), those with respect to weights, biases and ``x`` are ``x.T @ dz``, ``sum(dz)`` over the
    batch, and ``dz @ weights.T``. ``Params``: the chain rule, the last layer first (Rumelhart, Hinton & Williams 1986).

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
        Both may be called more than once. If ``y`` is float16, ``Dense`` and ``Dropout`` take a ``dy`` of float32,
        and return ``dx()`` in float32: an example's share of the mean over a batch may be less than float16 holds.

    Raises
    ------
    ValueError
        If the rank or the number of features is wrong; from the pullback, if ``dy`` does not have the shape of ``y``.
    TypeError
        If ``x`` is not an array of floats, no rule is registered for the layer, or a rule returns something other than
        described here; from the pullback, if ``dy`` is not an array of floats.

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
    return checked(vjp.dispatch(type(layer)), layer, x)


def checked(rule: Callable[..., Any], layer: Any, x: Any) -> tuple[Any, Pullback]:
    """Apply a rule, and check its result. Each call of the pullback checks ``dy``, and the gradient and ``dx``."""
    result = rule(layer, x)
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        raise _rule_error(rule, layer, "rule", result, "a pair (y, pullback): an array and a function")
    y, pullback = result
    if not (hasattr(y, "shape") and y.shape[:1] == getattr(x, "shape", y.shape)[:1]):  # x may be a tree
        raise _rule_error(rule, layer, "rule", y, f"an array with one row per example of x, {brief(x)}")

    def checked_pullback(dy: Array) -> GradientAndDx:
        if not (type(dy) is type(y) and dy.shape == y.shape and dy.dtype == y.dtype):
            dy = _checked_dy(rule, layer, dy, y)
        pair = pullback(dy)
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], type(layer)) and callable(pair[1])):
            expected = f"a pair (gradient, dx): a {type(layer).__name__} and a function"
            raise _rule_error(rule, layer, "pullback", pair, expected)
        return pair

    return y, checked_pullback


def _output_of_vjp(layer: Any, x: Any) -> Any:
    return vjp(layer, x)[0]


@functools.partial(_door, _output_of_vjp)
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
    rule = forward.dispatch(type(layer))
    if rule is _output_of_vjp:
        rule = _HALVES.get(vjp.dispatch(type(layer)), rule)
    y = rule(layer, x)
    if not (hasattr(y, "shape") and y.shape[:1] == getattr(x, "shape", y.shape)[:1]):
        raise _rule_error(rule, layer, "rule", y, f"an array with one row per example of x, {brief(x)}")
    return y


def _checked_dy(rule: Any, layer: Layer, dy: Array, y: Array) -> Array:
    """Check that a gradient has the shape of its output, and return it in the dtype of the output.

    But the rules given here take float32 at logits of 16 bits, since the errors of many examples may cancel, and at any
    output of float16, since an example's share of the mean over a batch may be less than float16 holds.
    """
    if not is_float(y):
        return dy  # there is no gradient at integers
    namespace(dy, "dy")
    if dy.shape != y.shape:
        raise ValueError(f"dy is {describe(dy)}, but must have the shape of the output, {describe(y)}")
    if dy.dtype != y.dtype:
        check_floats(dy, "dy")
        info, pullback = namespace(y).finfo(y.dtype), getattr(getattr(layer, "activation", None), "pullback", rule)
        is_wide = info.bits == 16 and (rule is affine_vjp or float(info.max) < 1e5)
        is_ours = all(getattr(f, "__module__", "").startswith("purenn.") for f in (rule, pullback))
        dy = astype(dy, "float32" if is_wide and is_ours else y.dtype)
    return dy


def _rule_error(rule: Any, layer: Layer, what: str, result: Any, expected: str) -> TypeError:
    """Return the error that names a layer, its rule, the rule's result, and what it must return."""
    names = f"{type(layer).__name__} ({getattr(rule, '__name__', 'unnamed')})"
    return TypeError(f"the {what} of {names} returned {brief(result)}, but must return {expected}")


# Dense: an affine map, then an activation


def _dense_forward(layer: Dense, x: Array) -> Array:
    return lock_in_place(layer.activation.function(affine(layer, x)[1]))


@vjp.register
def dense_vjp(layer: Dense, x: Array) -> tuple[Array, Pullback]:
    """Apply a dense layer."""
    z, affine_pullback = affine_vjp(layer, x)
    y = lock_in_place(layer.activation.function(z))
    return y, lambda dy: affine_pullback(layer.activation.pullback(z, y, dy))


def affine_vjp(layer: Dense, x: Array) -> tuple[Array, Pullback]:
    """Apply a dense layer without its activation: the output is the pre-activations."""
    x, z = affine(layer, x)

    def affine_pullback(dz: Array) -> GradientAndDx:
        weights, biases = floats_like(x.T @ dz, layer.weights), floats_like(sum_over(dz, axis=0), layer.biases)
        return like(layer, weights=weights, biases=biases), lambda: lock_in_place(dz @ layer.weights.T)

    return lock_in_place(z), affine_pullback


def affine(layer: Dense, x: Array) -> tuple[Array, Array]:
    """Return a batch in the dtype of a layer, and ``x @ weights + biases``; raise if it does not fit the layer."""
    weights = layer.weights
    if not (type(x) is type(weights) and x.dtype == weights.dtype and x.shape[1:] == weights.shape[:1]):
        x = _checked_batch(layer, x)
    return x, x @ weights + layer.biases


def _checked_batch(layer: Dense, x: Array) -> Array:
    """Return a batch in the dtype of a layer; raise if it does not fit."""
    check_floats(x, "x", "; pixels also / 255, other numbers normalized")
    if x.ndim != 2:
        way_out = "x.reshape(-1, 1) is a column" if layer.fan_in == 1 else "x.reshape(1, -1) is a batch of one"
        way_out = "x.reshape(len(x), -1) flattens each example" if x.ndim > 1 else way_out
        raise ValueError(f"x has the shape {x.shape}, but must be a batch, (n, features); {way_out}")
    if x.shape[1] != layer.fan_in:
        raise ValueError(f"x has {x.shape[1]} features, but the layer takes {layer.fan_in}")
    return astype(x, layer.weights.dtype)


# Params: the chain rule


def _network_forward(network: Params, x: Array) -> Array:
    for number, layer in enumerate(network.layers):
        try:  # as `placed` does: a network that only predicts makes few calls
            x = forward(layer, x)
        except Exception as error:
            add_place(error, f"layers.{number}", layer)
            raise
    return read_only(x)


@vjp.register
def network_vjp(network: Params, x: Array) -> tuple[Array, Pullback]:
    """Apply the layers of a network, one after the other."""
    y, pullback = chained(network, x, len(network.layers))

    def network_pullback(dy: Array) -> GradientAndDx:
        gradients, dx = pullback(lambda: dy)
        return like(network, layers=gradients), dx

    return read_only(y), network_pullback


def chained(network: Params, x: Array, count: int) -> tuple[Array, Callable[..., Any]]:
    """Apply the first layers of a network, ``count`` of them; return the output, and a pullback by the chain rule.

    The pullback takes the function that gives ``dy``; it returns the gradients of the layers, and ``dx``.
    """
    steps = []
    for number in range(count):
        x, pullback = placed(network, number, vjp, network.layers[number], x)
        steps.append((x, pullback))
    first = 0  # the first layer with arrays: those below need no gradient at their output, unless dx is called
    while first < count and not has_arrays(network.layers[first]):
        first += 1

    def chained_pullback(dx: Any) -> GradientAndDx:
        gradients = []
        for number in range(count - 1, first - 1, -1):
            dy = placed(network, number + 1, dx)
            del dx  # frees what only dx holds
            gradient, dx = placed(network, number, steps[number][1], dy)
            gradients.append(gradient)
        for number in range(first - 1, -1, -1):
            y, pullback = steps[number]
            zeros = namespace(y).broadcast_to(namespace(y).zeros((), dtype=y.dtype), y.shape)  # take no memory
            gradients.append(placed(network, number, pullback, zeros)[0])

        def below() -> Array:
            dy = placed(network, first, dx)
            for number in range(first - 1, -1, -1):
                dy = placed(network, number, placed(network, number, steps[number][1], dy)[1])
            return read_only(dy)

        return tuple(reversed(gradients)), below

    return x, chained_pullback


def placed(network: Params, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a layer of a network; an error says which layer it was."""
    try:
        return function(*arguments)
    except Exception as error:
        add_place(error, f"layers.{number}", network.layers[number])
        raise


def add_place(error: Exception, path: str, layer: Layer) -> None:
    """Add the path and the class of a layer to the message of an error, or as a note if its class makes the message."""
    cls, place = type(error), f"{path}, {type(layer).__name__})"
    if [*map(type, error.args)] != [str] or str(error) != error.args[0] or cls.__setattr__ != Exception.__setattr__:
        error.add_note(f"(in {place}")
        return
    message, is_inside, inner = error.args[0].rpartition(" (in layers.")
    if is_inside:  # a network in the network, or in a field of the layer
        is_network = vjp.dispatch(type(layer)) is network_vjp
        place = f"{path}.layers.{inner}" if is_network else f"{place[:-1]}: layers.{inner}"
    error.args = (f"{message if is_inside else error.args[0]} (in {place}",)


_HALVES: dict[Any, Any] = {dense_vjp: _dense_forward, network_vjp: _network_forward}  # rules without their pullbacks
