"""Layers, networks, and what their rules must keep."""

import functools
import re
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, networks, relative_error, seeds

X, Y = np.random.default_rng(0).standard_normal((4, 3)), np.asarray([0, 1, 1, 0])


@nn.record
class Scale:
    """A layer of the caller, with one rule."""

    factors: nn.Array


@nn.vjp.register
def scale_vjp(layer: Scale, x):
    def pullback(dy):
        return Scale((x * dy).sum(axis=0)), lambda: layer.factors * dy

    return layer.factors * x, pullback


@nn.record
class Flip:
    """A layer without arrays."""


@nn.vjp.register
def flip_vjp(layer: Flip, x):
    return -x, lambda dy: (layer, lambda: -dy)


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
        network = small(*layers)
        expected = nn.numerical_grads(lambda p: nn.loss(p, X, Y), network)
        assert relative_error(nn.grads(network, X, Y), expected) < 1e-7


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
    y, pullback = nn.vjp(nn.Params((*below, *params.layers, Flip())), x)
    dy = random.standard_normal(y.shape)
    gradient, dx = pullback(dy)
    assert [type(layer) for layer in gradient.layers] == [*map(type, below), *map(type, params.layers), Flip]
    inner, last = nn.vjp(nn.Params(below), x), nn.Params(params.layers)
    _, upper = nn.vjp(last, inner[0])
    expected, below_dx = upper(-dy)
    assert gradient.layers[2:-1] == expected.layers
    assert dx().tolist() == dx().tolist() == inner[1](below_dx())[1]().tolist()


@nn.record
class Broken:
    """A layer whose rule does what the test says."""

    rule: Callable[..., Any]


@nn.vjp.register
def broken_vjp(layer: Broken, x):
    return layer.rule(layer, x)


def kept(layer, x, y=None, gradient=None, dx=None):
    return (x if y is None else y), lambda dy: (gradient or layer, dx or (lambda: dy))


RULE, PULLBACK = "the rule of Broken (broken_vjp) returned ", "the pullback of Broken (broken_vjp) returned "
CONTRACT = {
    "the output alone": (lambda layer, x: x, RULE + "f64[4,3], but must return a pair (y, pullback): an array and a function"),
    "an output of two rows alone": (lambda layer, x: x[:2], RULE + "f64[2,3], but must return a pair (y, pullback)"),
    "three values": (lambda layer, x: (x, x, x), RULE + "(array("),
    "nothing": (lambda layer, x: None, RULE + "None, but must return a pair (y, pullback)"),
    "the pair turned around": (lambda layer, x: kept(layer, x)[::-1], RULE + "(<function"),
    "a pullback that cannot be called": (lambda layer, x: (x, x), RULE + "(array("),
    "an output that is no array": (lambda layer, x: ("text", abs), RULE + "'text', but must return an array with one row"),
    "fewer examples": (lambda layer, x: kept(layer, x, y=x[1:]), RULE + "f64[3,3], but must return an array with one row per example of x, f64[4,3]"),
    "one number": (lambda layer, x: kept(layer, x, y=np.asarray(1.0)), RULE + "f64[], but must return an array with one row"),
    "a gradient of another class": (lambda layer, x: kept(layer, x, gradient=Flip()), PULLBACK + "(Flip(), <function"),
    "the gradient alone": (lambda layer, x: (x, lambda dy: layer), PULLBACK + "Broken("),
    "an array for dx": (lambda layer, x: (x, lambda dy: (layer, dy)), PULLBACK + "(Broken("),
}  # fmt: skip


@pytest.mark.parametrize("place", ["bottom", "middle", "top"])
@pytest.mark.parametrize("case", CONTRACT)
def test_a_rule_that_breaks_the_contract_is_named(case, place):
    rule, message = CONTRACT[case]
    dense = nn.init(0, (3, 3), [nn.tanh], np.float64).layers
    layers = {"bottom": (Broken(rule), *dense), "middle": (*dense, Broken(rule), *dense), "top": (*dense, Broken(rule))}
    network = nn.Params(layers[place])

    def backward():
        y, pullback = nn.vjp(network, X)
        return pullback(np.ones_like(y))[1]()

    with pytest.raises(TypeError, match=re.escape(message)) as raised:
        backward()
    if message.startswith(PULLBACK):
        assert str(raised.value).endswith("a pair (gradient, dx): a Broken and a function")
    else:
        with pytest.raises(TypeError, match=re.escape(message)):
            nn.forward(network, X)
        if "pair" in message:
            with pytest.raises(TypeError, match=re.escape(message)):
                nn.forward(Broken(rule), X)


def test_a_forward_rule_must_keep_the_examples_too():
    @nn.record
    class First:
        pass

    @nn.forward.register
    def first_forward(layer: First, x):
        return x[:1]

    with pytest.raises(
        TypeError, match=re.escape("the rule of First (first_forward) returned f64[1,3], but must return")
    ):
        nn.forward(small(First()), X)
    with pytest.raises(
        TypeError, match=re.escape("the rule of First (first_forward) returned f64[1,3], but must return")
    ):
        nn.forward(nn.Params((Flip(), First())), X)


def test_a_layer_that_keeps_the_contract_may_take_anything():
    @nn.record
    class Sum:
        """Takes two arrays."""

    @nn.vjp.register
    def sum_vjp(layer: Sum, x):
        return x[0] + x[1], lambda dy: (layer, lambda: (dy, dy))

    network = nn.Params((Sum(), *small().layers))
    assert nn.grads(network, (X, X), Y).layers[1] == nn.grads(small(), 2 * X, Y).layers[0]
    y, pullback = nn.vjp(network, (X, X))
    assert pullback(y)[1]()[0].tolist() == pullback(y)[1]()[1].tolist()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_with_other_arithmetic_are_refused_wherever_arrays_are_taken():
    network, labels = small(), Y
    for array, way_out in ((np.asmatrix(X), "np.asarray"), (np.ma.masked_less(X, 0), r"\.filled\(...\)")):
        calls = [
            lambda x: nn.forward(network, x), lambda x: nn.vjp(network, x), lambda x: nn.grads(network, x, labels),
            lambda x: nn.forward(nn.Dropout(0.5), x), lambda x: nn.vjp(network, X)[1](x[:, :2]), lambda x: nn.tanh(x),
            lambda x: nn.sgd_step(x, x, 0.1), lambda x: nn.sgd_step(X, x, 0.1), lambda x: nn.global_norm((x,)),
            lambda x: nn.batches(0, x, labels), lambda x: nn.vdot(X, x), lambda x: nn.ravel(x), lambda x: nn.adam_init(x),
            lambda x: nn.tree_map(lambda leaf: leaf, x), lambda x: nn.zeros_like(x),
            lambda x: nn.loss(nn.init(0, (3, 3), [nn.identity], np.float64), X, x),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(TypeError, match=f"which computes differently; .*{way_out}"):
                call(array)
    with pytest.raises(TypeError, match=r"MaskedArray.*\.filled\(...\)"):
        nn.accuracy(network, X, np.ma.masked_equal([-1, 0, 1, 0], -1))


def test_memory_maps_are_arrays(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    for mode in ("r", "r+", "c"):
        x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in "xy")
        assert nn.grads(small(), x, y) == nn.grads(small(), X, Y)
        assert nn.forward(nn.Dropout(0.5), x).tolist() == X.tolist()
        batch = next(nn.batches(0, x, y, 4))
        assert type(batch[0]) is type(batch[1]) is np.ndarray
        assert type(nn.Dense(x[:, :2], np.zeros(2), nn.relu).weights) is np.ndarray
        assert type(nn.sgd_step(x, X, 0.1)) is np.ndarray


@given(networks(), st.integers(0, 5), seeds)
def test_logits_are_the_output_before_its_activation(params, n, seed):
    x = np.random.default_rng(seed).standard_normal((n, params.fan_in))
    nested = nn.Params((*params.layers[:-1], nn.Params(params.layers[-1:])))
    for network in (params, nested):
        z = nn.logits(network, x)
        assert z.tolist() == nn.logits_vjp(network, x)[0].tolist()
        assert params.layers[-1].activation.function(z).tolist() == nn.forward(params, x).tolist()
        assert not z.flags.writeable and z.dtype == params.layers[0].weights.dtype


@given(networks(outputs=ACTIVATIONS), st.integers(1, 5), seeds)
def test_gradients_from_the_logits_are_those_of_the_same_network_with_identity(params, n, seed):
    random = np.random.default_rng(seed)
    *below, last = params.layers
    linear = nn.Params((*below, nn.Dense(last.weights, last.biases, nn.identity)))
    x = random.standard_normal((n, params.fan_in)).astype(last.weights.dtype)
    z, pullback = nn.logits_vjp(params, x)
    y, expected = nn.vjp(linear, x)
    dz = random.standard_normal(z.shape)
    gradient, dx = pullback(dz)
    other, other_dx = expected(dz)
    assert z.tolist() == y.tolist() and dx().tolist() == other_dx().tolist()
    assert nn.sgd_step(params, gradient, 0.1).layers[-1].activation is last.activation
    assert [a.tolist() for a in nn.tree_leaves(gradient)] == [b.tolist() for b in nn.tree_leaves(other)]


@nn.record
class Doubled(nn.Dense):
    """A dense layer with its own rule."""


@nn.vjp.register
def doubled_vjp(layer: Doubled, x):
    return nn.vjp(nn.Dense(2 * layer.weights, layer.biases, layer.activation), x)


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
    assert relative_error(gradient, nn.numerical_grads(lambda p: nn.loss(p, X, Y), network)) < 1e-7
    with pytest.raises(TypeError, match="rule that Scaled inherits does not fit its fields weights, biases, scale;"):
        nn.grads(Scaled(*nn.tree_leaves(dense), dense.activation, 1.0), X, Y)
    doubled = Doubled(dense.weights, dense.biases, dense.activation)
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


def test_masked_numbers_are_refused():
    for call in (lambda c: nn.sgd_step(X, X, c), lambda c: c * small(), lambda c: nn.Dropout(c)):
        with pytest.raises(TypeError, match="must be a number|which is mutable"):
            call(np.ma.masked)


def test_vectors_from_the_disk_are_unravelled_to_arrays(tmp_path):
    vector, unravel = nn.ravel((X, X[0]))
    np.save(tmp_path / "v.npy", vector)
    for leaf in unravel(np.load(tmp_path / "v.npy", mmap_mode="r+")):
        assert type(leaf) is np.ndarray and not leaf.flags.writeable
