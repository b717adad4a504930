"""The checks of derivatives by differences."""

import re

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, dtypes, networks, seeds
from tests.toys import Embedding


@settings(max_examples=30)
@given(networks(hidden=ACTIVATIONS, outputs=ACTIVATIONS), st.integers(1, 6), seeds, dtypes)
def test_networks_of_the_package_pass(params, n, seed, dtype):
    x = np.random.default_rng(seed).standard_normal((n, params.fan_in)).astype(dtype)
    nn.check_vjp(params, x)
    assert np.array_equal(nn.vjp(params, x)[0], nn.forward(params, x))
    for layer in (
        params.layers[0],
        nn.Dropout(0.5),
        nn.Dropout(0.5, seed),
        nn.seeded(nn.Params((nn.Dropout(0.3), params)), seed),
    ):
        nn.check_vjp(layer, x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_activations_pass_on_inputs_of_any_shape(activation, shape):
    if shape or activation != nn.softmax:  # which needs an axis
        nn.check_vjp(activation, np.asarray(np.random.default_rng(0).standard_normal(shape)))


@nn.record
class Mix(nn.Vector):
    """y = (x @ matrix) * scale + shift, with a rule that has a fault."""

    matrix: nn.Array
    scale: nn.Array
    shift: nn.Array
    fault: str = ""


SIZES, RESULT = np.arange(4), "the result of the rule of Mix differs from the layer and x at "
FAULTS = {  # what the rule does to its output, gradients and dx; and part of what the error says
    "": (lambda y, m, a, b, dx: (y, m, a, b, dx), None),
    "factor": (lambda y, m, a, b, dx: (y, m, 1.0001 * a, b, dx), "the rule of Mix gives a wrong gradient.scale: "),
    "transposed": (lambda y, m, a, b, dx: (y, m.T, a, b, dx), "a wrong gradient.matrix: "),
    "sign": (lambda y, m, a, b, dx: (y, m, a, -b, dx), "a wrong gradient.shift: "),
    "zeros": (lambda y, m, a, b, dx: (y, m, a, 0 * b, dx), "a wrong gradient.shift: "),
    "NaN": (lambda y, m, a, b, dx: (y, m, a, b + np.nan, dx), "a wrong gradient.shift: it is not finite"),
    "infinite entry": (
        lambda y, m, a, b, dx: (y, m, np.where(SIZES == 1, np.float32("inf"), a), b, dx),
        "a wrong gradient.scale: it is not finite",
    ),
    "one entry": (
        lambda y, m, a, b, dx: (y, m + np.outer(b, SIZES == 2).astype(m.dtype), a, b, dx), "a wrong gradient.matrix: "
    ),
    "dx": (lambda y, m, a, b, dx: (y, m, a, b, dx + 0.001), "a wrong dx: "),
    "output": (
        lambda y, m, a, b, dx: (y + 1e-5, m, a, b, dx),
        "the rule of Mix gives a wrong y: it differs from forward(layer, x) by up to 1e-05",
    ),
    "infinite": (
        lambda y, m, a, b, dx: (y + np.inf, m, a, b, dx),
        "gives y = f64[3,4], but must give numbers, at least one, and all finite",
    ),
    "output's shape": (
        lambda y, m, a, b, dx: (y[:, :1], m, a, b, dx),
        "y of the rule of Mix differs from forward(layer, x) in float32: f32[3,1] instead of f32[3,4]",
    ),
    "shape": (lambda y, m, a, b, dx: (y, m, a, b[None], dx), RESULT + "gradient.shift: f32[1,4] instead of f32[4]"),
    "dtype": (lambda y, m, a, b, dx: (y, m.astype(float), a, b, dx), "gradient.matrix: f64[4,4] instead of f32[4,4]"),
    "shape of dx": (lambda y, m, a, b, dx: (y, m, a, b, dx[:2]), RESULT + "dx: f32[2,4] instead of f32[3,4]"),
    "dx a list": (lambda y, m, a, b, dx: (y, m, a, b, dx.tolist()), RESULT + "dx: list of 3 instead of a leaf"),
}  # fmt: skip


def values_of(layer, x):
    return x @ layer.matrix * layer.scale + layer.shift


@nn.forward.register
def mix_forward(layer: Mix, x):
    return values_of(layer, x)


@nn.vjp.register
def mix_vjp(layer: Mix, x):
    def faulty(dy):
        dz = dy * layer.scale
        gradients = x.T @ dz, (dy * (x @ layer.matrix)).sum(axis=0), dy.sum(axis=0)
        return FAULTS[layer.fault][0](values_of(layer, x), *gradients, dz @ layer.matrix.T)

    def pullback(dy):
        _, *gradients, dx = faulty(dy)
        return nn.tree_map(lambda p: p, Mix(*gradients, layer.fault)), lambda: dx

    return faulty(np.zeros_like(x))[0], pullback


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_named(fault):
    random = np.random.default_rng(0)
    layer = Mix(*(random.standard_normal(shape).astype(np.float32) for shape in ((4, 4), 4, 4)), fault)
    x, message = random.standard_normal((3, 4)).astype(np.float32), FAULTS[fault][1]
    if message is None:
        nn.check_vjp(layer, x)
        return
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        nn.check_vjp(layer, x)
    if fault == "factor":
        assert re.search(r"scale: -?\d.* along a random direction, but differences give -?\d", str(raised.value))
    if "gradient." in message and "gives" not in fault:
        with pytest.raises(ValueError, match=r"gradient\.layers\.0\."):
            nn.check_vjp(nn.Params((layer, nn.init(0, (4, 2), [nn.tanh]).layers[0])), x)


@given(seeds)
def test_a_factor_is_found_in_any_activation(seed):
    random = np.random.default_rng(seed)
    z = np.append(random.standard_normal(5), 1.0)  # one is positive, so that not all units of relu are dead
    for f in ACTIVATIONS:
        nn.check_vjp(f, z)
        slightly_wrong = nn.Activation(
            f"almost_{f}", f.function, lambda z, y, dy, f=f: (1 + 1e-4) * f.pullback(z, y, dy)
        )
        with pytest.raises(ValueError, match=f"the pullback of almost_{f} gives a wrong dx: "):
            nn.check_vjp(slightly_wrong, z)


@given(seeds)
def test_directions_that_cross_a_kink_are_drawn_anew(seed):
    z = np.random.default_rng(seed).standard_normal(6)
    assume(np.abs(z).min() > 1e-4)
    nn.check_vjp(nn.relu, np.append(z, 6e-6))  # one of three directions moves the last across 0


def test_a_point_on_a_kink_is_said_to_be_one():
    with pytest.raises(
        ValueError, match=r"a wrong dx, or x is too close to kinks; take fewer examples, or values of x that are apart"
    ):
        nn.check_vjp(nn.relu, np.zeros((2, 3)))
    nn.check_vjp(nn.relu, np.zeros((2, 3)) + 0.01 * np.random.default_rng(0).standard_normal((2, 3)))
    with pytest.raises(ValueError, match=r"gives y = f64\[0,3\], but must give numbers, at least one"):
        nn.check_vjp(nn.relu, np.zeros((0, 3)))


def test_integers_have_no_gradient():
    table, words = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.asarray([[0, 4], [4, 2]])
    nn.check_vjp(Embedding(table), words)
    with pytest.raises(ValueError, match=r"the rule of Embedding gives a wrong gradient.table"):
        nn.check_vjp(Embedding(table, 1.001), words)


@nn.record
class MaskedMean(nn.Vector):
    """The weighted mean of the values that a mask lets through."""

    weight: nn.Array
    factor: float = 1.0


@nn.vjp.register
def masked_mean_vjp(layer: MaskedMean, x):
    mask, values = x
    kept = np.where(~mask, values, 0)  # which needs booleans

    def pullback(dy):
        slope = layer.factor * np.where(~mask, dy[:, None] * layer.weight, 0) / mask.shape[1]
        return MaskedMean((dy * kept.mean(axis=1)).sum(), layer.factor), lambda: (mask, slope.astype(values.dtype))

    return layer.weight * kept.mean(axis=1), pullback


def test_the_floats_among_several_inputs_are_checked():
    random = np.random.default_rng(0)
    x = random.random((4, 5)) < 0.5, random.standard_normal((4, 5)).astype(np.float32)
    nn.check_vjp(MaskedMean(np.float32(2)), x)
    with pytest.raises(ValueError, match=r"the rule of MaskedMean gives a wrong dx\.1: "):
        nn.check_vjp(MaskedMean(np.float32(2), 1.001), x)


def test_what_cannot_be_checked_is_said():
    with pytest.raises(ValueError, match="there are no arrays of numbers in the layer and x"):
        nn.check_vjp(nn.Dropout(0.5), np.ones((2, 2), int))
    log = nn.Activation("log", np.log, lambda z, y, dy: dy / z)
    nn.check_vjp(log, np.asarray([1.0, 2.0, 1e-3]))


@given(seeds, st.sampled_from([0, 10, 1000]))
def test_the_size_of_x_does_not_matter(seed, offset):
    random = np.random.default_rng(seed)
    x = offset + random.standard_normal((8, 6))

    def normalized(z):
        return (z - z.mean(axis=0)) / z.std(axis=0)

    def pullback(z, y, dy, factor=1.0):
        return factor * (dy - dy.mean(axis=0) - y * (dy * y).mean(axis=0)) / z.std(axis=0)

    nn.check_vjp(nn.Activation("norm", normalized, pullback), x)
    with pytest.raises(ValueError, match="the pullback of norm gives a wrong dx: "):
        nn.check_vjp(nn.Activation("norm", normalized, lambda *args: pullback(*args, factor=1.0001)), x)


def test_it_draws_the_same_numbers_each_time_and_runs_on_other_arrays():
    params = nn.init(0, (4, 3, 2), (nn.relu, nn.softmax))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    nn.check_vjp(nn.tree_map(strict.asarray, params), strict.asarray(x))
    nn.check_vjp(nn.gelu, strict.asarray(x))
    messages = set()
    for _ in range(2):
        with pytest.raises(ValueError, match="gives a wrong") as error:
            nn.check_vjp(nn.Activation("half", nn.tanh.function, lambda z, y, dy: dy * (1 - y * y) / 2), x)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_numerical_gradients_of_large_parameters():
    layer, x, y = nn.Dense([[1e6]], [0.0], nn.identity), np.asarray([[1e-6]]), np.asarray([[0.0]])
    assert nn.numerical_grads(lambda p: nn.loss(p, x, y), layer).weights == pytest.approx(1e-6, rel=1e-6, abs=0)


def test_numerical_gradients_have_nine_digits():
    params = nn.init(0, (4, 5, 3), (nn.tanh, nn.softmax), "float64")
    x, y = np.random.default_rng(0).standard_normal((6, 4)), np.arange(6) % 3
    gradient = nn.grads(params, x, y)
    numerical = nn.numerical_grads(lambda p: nn.loss(p, x, y), params)
    assert nn.global_norm(numerical - gradient) < 1e-9 * nn.global_norm(gradient)


@pytest.mark.long
@given(networks(), seeds)
def test_numerical_gradients_take_any_function_of_any_tree(params, seed):
    direction = nn.tree_map(lambda p: np.random.default_rng(seed).standard_normal(p.shape), params)
    gradient = nn.numerical_grads(lambda p: nn.vdot(direction, p), params)
    nn.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gradient, direction)
    nn.tree_map(lambda g, p: np.testing.assert_equal(g.dtype, p.dtype), gradient, params)
    squares = nn.numerical_grads(lambda t: float(t["a"] @ t["a"]), {"a": np.asarray([1.0, 2.0], np.float32)})
    np.testing.assert_allclose(squares["a"], [2, 4], rtol=1e-6)
