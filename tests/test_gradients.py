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


@pytest.mark.long
@given(problems(dtype=float64, max_width=8))
def test_grads_are_the_difference_quotients(problem):
    params, x, y = problem
    assume(not on_kink(params, x))
    assert relative_error(nn.grads(params, x, y), nn.numerical_grads(lambda p: nn.loss(p, x, y), params)) < 1e-6


@pytest.mark.long
@given(networks(dtype=float64, outputs=ACTIVATIONS, max_width=8), st.integers(1, 4), seeds)
def test_pullbacks_are_the_difference_quotients(params, n, seed):
    random = np.random.default_rng(seed)
    x, dy = random.standard_normal((n, params.fan_in)), random.standard_normal((n, params.fan_out))
    assume(not on_kink(params, x))
    gradient, dx = nn.vjp(params, x)[1](dy)
    expected = nn.numerical_grads(lambda tree: np.vdot(dy, nn.forward(*tree)), (params, x))
    assert relative_error((gradient, dx()), expected) < 1e-6


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
