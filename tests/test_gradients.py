"""The law that matters most: gradients agree with finite differences."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, networks, problems, relative_error, seeds

float64 = st.just(np.float64)


def on_kink(params, x):
    """Whether a relu is so close to its kink that a difference quotient would see both sides."""
    for layer in params.layers:
        z = x @ layer.weights + layer.biases
        if layer.activation == nn.relu and np.any(np.abs(z) < 1e-3):
            return True
        x = layer.activation(z)
    return False


@given(problems(dtype=float64, max_width=8))
def test_grads_are_the_difference_quotients(problem):
    params, x, y = problem
    assume(not on_kink(params, x))
    assert relative_error(nn.grads(params, x, y), nn.numerical_grads(lambda p: nn.loss(p, x, y), params)) < 1e-6


@given(networks(dtype=float64, outputs=ACTIVATIONS), st.integers(1, 8), seeds)
def test_vjp_agrees_with_differences_along_random_directions(params, n, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, params.fan_in))
    assume(not on_kink(params, x))
    y, pullback = nn.vjp(params, x)
    dy = random.standard_normal(y.shape)
    gradient, dx = pullback(dy)
    dx = dx()
    direction = nn.tree_map(lambda p: random.standard_normal(p.shape), params)
    along_x = random.standard_normal(x.shape)
    h = 1e-6
    assume(not on_kink(params + h * direction, x + h * along_x))
    ahead, behind = (nn.forward(params + s * direction, x + s * along_x) for s in (h, -h))
    expected = np.vdot(dy, ahead - behind) / (2 * h)
    products = [np.vdot(a, b) for a, b in zip(nn.tree_leaves(gradient), nn.tree_leaves(direction), strict=True)]
    scale = sum(map(abs, products)) + abs(np.vdot(dx, along_x)) + 1
    assert abs(sum(products) + np.vdot(dx, along_x) - expected) < 1e-6 * scale
    assert np.array_equal(y, nn.forward(params, x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seed=seeds)
def test_pullbacks_of_activations(activation, seed):
    random = np.random.default_rng(seed)
    z, dz, dy = random.standard_normal((3, 4, 5))
    assume(np.min(np.abs(z)) > 1e-4)
    expected = np.sum(dy * (activation(z + 1e-6 * dz) - activation(z - 1e-6 * dz))) / 2e-6
    assert np.sum(activation.pullback(z, activation(z), dy) * dz) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(problems())
def test_loss_and_grads_are_both(problem):
    value, gradient = nn.loss_and_grads(*problem)
    assert value == nn.loss(*problem)
    assert gradient == nn.grads(*problem)


@given(problems(), st.integers(1, 7))
def test_the_gradient_of_a_union_is_the_weighted_mean(problem, cut):
    params, x, y = problem
    assume(cut < len(x))
    parts = nn.grads(params, x[:cut], y[:cut]), nn.grads(params, x[cut:], y[cut:])
    mean = (cut * parts[0] + (len(x) - cut) * parts[1]) / len(x)
    tolerance = 1e-4 if x.dtype == np.float32 else 1e-12
    assert relative_error(mean, nn.grads(params, x, y)) < tolerance


@given(problems(), seeds)
def test_permuting_the_batch_changes_nothing_but_order(problem, seed):
    params, x, y = problem
    order = np.random.default_rng(seed).permutation(len(x))
    tolerance = 1e-4 if x.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(nn.forward(params, x)[order], nn.forward(params, x[order]), rtol=tolerance, atol=1e-6)
    assert relative_error(nn.grads(params, x, y), nn.grads(params, x[order], y[order])) < tolerance


@given(problems(dtype=float64))
def test_a_small_enough_step_against_the_gradient_never_raises_the_loss(problem):
    params, x, y = problem
    assume(not on_kink(params, x))
    value, gradient = nn.loss_and_grads(params, x, y)
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in nn.tree_leaves(gradient)))
    assume(norm > 1e-6)
    after = nn.loss(nn.sgd_step(params, gradient, lr=1e-6 / max(norm, 1)), x, y)
    assert after <= value + 1e-15 * max(1, abs(value))


@given(problems(outputs=(nn.softmax,)), st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_no_loss(problem, shift):
    params, x, y = problem
    *others, last = params.layers
    shifted = nn.Params((*others, nn.Dense(last.weights, last.biases + last.biases.dtype.type(shift), nn.softmax)))
    assert nn.loss(shifted, x, y) == pytest.approx(nn.loss(params, x, y), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
def test_losses_are_their_formulas(output):
    random = np.random.default_rng(0)
    params = nn.init(0, (3, 4), [output], dtype=np.float64)
    x, t = random.standard_normal((5, 3)), random.dirichlet(np.ones(4), 5)
    p = nn.forward(params, x)
    if output == nn.identity:
        expected = np.sum((p - t) ** 2) / 2
    else:
        expected = -np.sum(t * np.log(p)) - (output == nn.sigmoid) * np.sum((1 - t) * np.log(1 - p))
    assert nn.loss(params, x, t) == pytest.approx(expected / 5, rel=1e-12)
