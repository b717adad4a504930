"""Layers, networks, and what their rules must keep."""

import functools
import re

import array_api_strict as strict
import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests import toys
from tests.strategies import networks, seeds
from tests.toys import Flip, Ruled, Scale

X, Y = np.random.default_rng(0).standard_normal((4, 3)), np.asarray([0, 1, 1, 0])


def small(*layers):
    return nn.Params((*layers, nn.init(0, (3, 2), [nn.softmax], dtype=np.float64)))


def test_a_layer_needs_no_rule_but_vjp():
    scale = Scale(np.asarray([1.0, 2.0, 3.0]))
    assert nn.forward(scale, X).tolist() == (scale.factors * X).tolist()
    for layers in (
        (scale,),
        (*nn.init(1, (3, 3), [nn.tanh], np.float64).layers, scale),
        (Flip(), nn.Params((scale, Flip()))),
    ):
        nn.check_vjp(small(*layers), X)


@pytest.fixture
def products(monkeypatch):
    """The shapes of all matrix products that arrays of array_api_strict compute."""
    shapes, cls = [], type(strict.asarray(0.0))
    original = cls.__matmul__

    def counted(a, b):
        shapes.append((a.shape, b.shape))
        return original(a, b)

    monkeypatch.setattr(cls, "__matmul__", counted)
    return shapes


@pytest.mark.parametrize("below", [(), (nn.Dropout(0.5, 3),), (Flip(), nn.Params((Flip(), nn.Dropout(0.5, 1))))])
def test_grads_compute_nothing_below_the_lowest_layer_with_arrays(below, products):
    dense = nn.init(1, (3, 5, 7, 2), (nn.tanh, nn.relu, nn.softmax), np.float64).layers
    network = nn.tree_map(strict.asarray, nn.Params((*below, dense[0], nn.Dropout(0.1, 2), *dense[1:])))
    x = strict.asarray(X)
    nn.grads(network, x, Y)
    upper = [((4, 2), (2, 7)), ((5, 4), (4, 7)), ((4, 7), (7, 5)), ((3, 4), (4, 5))]
    assert products == [((4, 3), (3, 5)), ((4, 5), (5, 7)), ((4, 7), (7, 2)), ((7, 4), (4, 2)), *upper]
    for rule in (nn.vjp, nn.logits_vjp):
        y, pullback = rule(network, x)
        products.clear()
        _, dx = pullback(y)
        assert products == [((7, 4), (4, 2)), *upper]
        assert dx().shape == x.shape
        assert products == [((7, 4), (4, 2)), *upper, ((4, 5), (5, 3))]


@given(networks(), st.integers(1, 5), seeds, st.booleans())
def test_layers_without_arrays_pass_gradients_on(params, n, seed, dropout):
    random = np.random.default_rng(seed)
    below = (nn.Dropout(0.4, seed), Flip()) if dropout else (Flip(), nn.Params((Flip(), Flip())))
    x = random.standard_normal((n, params.fan_in)).astype(params.layers[0].weights.dtype)
    network = nn.Params((*below, *params.layers, Flip()))
    nn.check_vjp(network, x)
    y, pullback = nn.vjp(network, x)
    dy = random.standard_normal(y.shape)
    gradient, dx = pullback(dy)
    assert [type(layer) for layer in gradient.layers] == [*map(type, below), *map(type, params.layers), Flip]
    inner, last = nn.vjp(nn.Params(below), x), nn.Params(params.layers)
    expected, below_dx = nn.vjp(last, inner[0])[1](-dy)
    assert gradient.layers[2:-1] == expected.layers
    assert dx().tolist() == dx().tolist() == inner[1](below_dx())[1]().tolist()


def kept(layer, x, y=None, gradient=None, dx=None):
    return (x if y is None else y), lambda dy: (gradient or layer, dx or (lambda: dy))


RULE, PULLBACK = "the rule of Ruled (ruled_vjp) returned ", "the pullback of Ruled (ruled_vjp) returned "
CONTRACT = {
    "the output alone": (
        lambda layer, x: x, RULE + "f64[4,3], but must return a pair (y, pullback): an array and a function"
    ),
    "an output of two rows alone": (lambda layer, x: x[:2], RULE + "f64[2,3], but must return a pair (y, pullback)"),
    "three values": (lambda layer, x: (x, x, x), RULE + "(array("),
    "a list": (lambda layer, x: [*kept(layer, x)], RULE + "[array("),
    "a gradient in a list": (lambda layer, x: (x, lambda dy: [layer, abs]), PULLBACK + "[Ruled("),
    "nothing": (lambda layer, x: None, RULE + "None, but must return a pair (y, pullback)"),
    "the pair turned around": (lambda layer, x: kept(layer, x)[::-1], RULE + "(<function"),
    "a pullback that cannot be called": (lambda layer, x: (x, x), RULE + "(array("),
    "an output that is no array": (
        lambda layer, x: ("text", abs), RULE + "'text', but must return an array with one row"
    ),
    "fewer examples": (
        lambda layer, x: kept(layer, x, y=x[1:]),
        RULE + "f64[3,3], but must return an array with one row per example of x, f64[4,3]",
    ),
    "one number": (
        lambda layer, x: kept(layer, x, y=np.asarray(1.0)), RULE + "f64[], but must return an array with one row"
    ),
    "a gradient of another class": (lambda layer, x: kept(layer, x, gradient=Flip()), PULLBACK + "(Flip(), <function"),
    "the gradient alone": (lambda layer, x: (x, lambda dy: layer), PULLBACK + "Ruled("),
    "an array for dx": (lambda layer, x: (x, lambda dy: (layer, dy)), PULLBACK + "(Ruled("),
}  # fmt: skip


@pytest.mark.parametrize("place", ["bottom", "middle", "top"])
@pytest.mark.parametrize("case", CONTRACT)
def test_a_rule_that_breaks_the_contract_is_named(case, place):
    rule, message = CONTRACT[case]
    dense = nn.init(0, (3, 3), [nn.softmax], np.float64).layers
    layers = {"bottom": (Ruled(rule), *dense), "middle": (*dense, Ruled(rule), *dense), "top": (*dense, Ruled(rule))}
    network = nn.Params(layers[place])

    def backward():
        y, pullback = nn.vjp(network, X)
        return pullback(np.ones_like(y))[1]()

    inspected = [] if place == "top" else [lambda: nn.inspect(network, X, Y)]  # of the top, no loss is known
    for call in (*inspected, lambda: nn.check_vjp(network, X), lambda: nn.check_vjp(Ruled(rule), X), backward):
        with pytest.raises(TypeError, match=re.escape(message)) as raised:
            call()
    if message.startswith(PULLBACK):
        where = f"layers.{next(k for k, layer in enumerate(network.layers) if type(layer) is Ruled)}"
        assert str(raised.value).endswith(f"a pair (gradient, dx): a Ruled and a function (in {where}, Ruled)")
    else:
        with pytest.raises(TypeError, match=re.escape(message)):
            nn.forward(network, X)
        if "pair" in message:
            with pytest.raises(TypeError, match=re.escape(message)):
                nn.forward(Ruled(rule), X)


def test_a_forward_rule_must_keep_the_examples_too():
    @nn.record
    class First:
        pass

    @nn.forward.register
    def first_forward(layer: First, x):
        return x[:1]

    for network in (small(First()), nn.Params((Flip(), First()))):
        with pytest.raises(TypeError, match=r"rule of First \(first_forward\) returned f64\[1,3\], but must return"):
            nn.forward(network, X)


def test_a_layer_that_keeps_the_contract_may_take_anything():
    add = Ruled(lambda layer, x: (x[0] + x[1], lambda dy: (layer, lambda: (dy, dy))))
    network = nn.Params((add, *small().layers))
    assert nn.grads(network, (X, X), Y).layers[1] == nn.grads(small(), 2 * X, Y).layers[0]
    y, pullback = nn.vjp(network, (X, X))
    assert pullback(y)[1]()[0].tolist() == pullback(y)[1]()[1].tolist()


@nn.record
class Doubled(nn.Dense):
    """A dense layer with its own rule."""


@nn.vjp.register
def doubled_vjp(layer: Doubled, x):
    y, dense_pullback = nn.vjp(nn.Dense(2 * layer.weights, layer.biases, layer.activation), x)

    def pullback(dy):
        gradient, dx = dense_pullback(dy)
        return Doubled(2 * gradient.weights, gradient.biases, layer.activation), dx

    return y, pullback


@nn.record
class Named(nn.Dense):
    """A dense layer with the rule of Dense."""

    name: str = "named"


@nn.record
class Scaled(nn.Dense):
    """A dense layer that lacks the rule it needs."""

    scale: nn.Array


@nn.record
class Net(nn.Params):
    """A network with the rule of Params."""


def test_classes_that_inherit_keep_their_class_and_their_rule():
    (dense,) = nn.init(0, (3, 3), [nn.softmax], np.float64).layers
    named = Named(dense.weights, dense.biases, dense.activation)
    network = Net((named, Flip(), nn.Params((named,))))
    gradient = nn.grads(network, X, Y)
    assert nn.sgd_step(network, gradient, 0.1) == network - 0.1 * gradient
    nn.check_vjp(network, X)
    with pytest.raises(TypeError, match="rule that Scaled inherits does not fit its fields weights, biases, scale;"):
        nn.grads(Scaled(*nn.tree_leaves(dense), dense.activation, 1.0), X, Y)
    doubled = Doubled(dense.weights, dense.biases, dense.activation)
    for network in (nn.Params((doubled, Flip(), dense)), nn.Params((nn.Params((doubled,)), dense))):
        nn.check_vjp(doubled, X)
        assert nn.forward(network, X).tolist() == nn.vjp(network, X)[0].tolist()
        assert nn.loss(network, X, Y) == nn.loss_and_grads(network, X, Y)[0]
    for call in (nn.loss, nn.grads):
        with pytest.raises(TypeError, match=r"the network ends in Doubled, but logits are the output of purenn.Dense"):
            call(nn.Params((doubled,)), X, Y)


def test_a_broken_rule_needs_no_name_to_be_reported():
    @nn.record
    class Partial:
        pass

    nn.vjp.register(Partial, functools.partial(lambda layer, x: x))
    with pytest.raises(TypeError, match=r"the rule of Partial \(unnamed\) returned f64\[4,3\], but must return a pair"):
        nn.forward(Partial(), X)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble, ">f4"])
def test_other_floats_are_converted(dtype):
    assert np.array_equal(nn.forward(toys.PARAMS, toys.X.astype(dtype)), nn.forward(toys.PARAMS, toys.X))
    assert nn.grads(toys.PARAMS, toys.X.astype(dtype), toys.Y) == nn.grads(toys.PARAMS, toys.X, toys.Y)


@given(networks(), st.integers(0, 8))
def test_forward(params, n):
    p = nn.forward(params, np.zeros((n, params.fan_in), np.float32))
    assert p.shape == (n, params.fan_out)
    assert p.dtype == params.layers[0].weights.dtype
    labels = nn.predict(params, np.zeros((n, params.fan_in), np.float32))
    assert labels.shape == ((n,) if params.layers[-1].activation == nn.softmax else p.shape)


def test_networks_nest():
    flat = nn.init(0, (5, 4, 3, 2), (nn.tanh, nn.relu, nn.softmax))
    nested = nn.Params((nn.Params(flat.layers[:2]), nn.Params(flat.layers[2:])))
    x, y = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32), np.arange(6) % 2
    assert (nested.fan_in, nested.fan_out) == (5, 2)
    assert np.array_equal(nn.forward(nested, x), nn.forward(flat, x))
    assert nn.tree_leaves(nn.grads(nested, x, y))[0].tolist() == nn.grads(flat, x, y).layers[0].weights.tolist()
    assert nn.grads(nested, x, y).layers[1].layers[0] == nn.grads(flat, x, y).layers[2]
    assert repr(nested).count("\n    ") == 7


def test_a_layer_that_gives_integers_takes_any_dy():
    rounded = Ruled(lambda layer, x: (np.rint(x).astype(int), lambda dy: (layer, lambda: dy)))
    assert nn.vjp(rounded, X)[1](None)[1]() is None
    assert nn.vjp(rounded, X)[1](X[:1])[1]().tolist() == X[:1].tolist()


def test_layers_below_the_first_with_arrays_get_zeros_that_take_no_memory():
    given = []

    def rule(layer, x):
        def pullback(dy):
            given.append(dy)
            return layer, lambda: dy

        return x, pullback

    below = nn.Params((Ruled(rule), Flip()))
    nn.grads(small(Ruled(rule), below), X, Y)
    assert [(dy.shape, dy.strides, dy.any()) for dy in given] == [(X.shape, (0, 0), False)] * 2


@nn.record
class Redefined(nn.Dense):
    weights: nn.Array = attrs.field(validator=lambda *_: None)  # attrs moves the field to the end


def test_a_subclass_may_redefine_a_field():
    layer = Redefined(biases=np.zeros(2), activation=nn.softmax, weights=np.ones((3, 2)))
    x, y = np.eye(3), np.asarray([0, 1, 0])
    gradient = nn.grads(layer, x, y)
    assert isinstance(gradient, Redefined)
    plain = nn.grads(nn.Dense(layer.weights, layer.biases, nn.softmax), x, y)
    assert np.array_equal(gradient.weights, plain.weights)
    assert np.array_equal(gradient.biases, plain.biases)
    assert np.array_equal(nn.sgd_step(layer, gradient, 0.1).weights, nn.sgd_step(layer.weights, plain.weights, 0.1))
