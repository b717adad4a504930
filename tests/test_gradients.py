"""The law that matters most: gradients agree with finite differences."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
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


# Without a tolerance: where float64 is exact, so is backpropagation


@st.composite
def exact_problems(draw):
    """A network, perhaps nested and with Dropout, a batch and weights: small integers, so that float64 is exact."""
    sizes, random = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5)), np.random.default_rng(draw(seeds))
    layers = [
        nn.Dense(*(random.integers(-3, 4, shape).astype(float) for shape in ((k, m), (m,))), nn.relu)
        for k, m in itertools.pairwise(sizes)
    ]
    layers[-1] = nn.Dense(layers[-1].weights, layers[-1].biases, nn.identity)
    layers = [part for layer in layers for part in (*[nn.Dropout(0.5)] * draw(st.integers(0, 1)), layer)]
    cut = draw(st.integers(0, len(layers) - 1))
    network = nn.Params((*layers[:cut], nn.Params((nn.Params(tuple(layers[cut:])),))))
    weights = [2 ** draw(st.integers(0, 6))]
    while len(weights) < 16 and draw(st.booleans()):  # powers of two whose sum is one, too
        k = int(random.integers(len(weights)))
        weights[k : k + 1] = [weights[k] / 2] * 2
    if draw(st.booleans()):
        weights = [1.0] * 2 ** draw(st.integers(0, 3))
    x, y = (random.integers(-3, 4, (len(weights), size)).astype(float) for size in (sizes[0], sizes[-1]))
    return network, x, y, np.asarray(weights), draw(seeds)


def elementary(layer):
    """Yield the layers of nested networks in order."""
    for part in layer.layers if type(layer) is nn.Params else (layer,):
        yield from [part] if part is layer else elementary(part)


def by_paths(layers, x, y, shares):
    """Return the loss and the gradients of dense layers as fractions: a weight's gradient is a sum over all paths.

    A path leads from the weight through one unit of each layer above to an output. It contributes the input of the
    weight times all slopes and weights on the path times the error of the output.
    """
    h, inputs, weights, slopes = x.astype(int), [], [], []
    for layer in layers:
        if type(layer) is nn.Dropout:
            mask = nn.forward(layer, np.ones(h.shape)).astype(int)  # 0 or 2
            h, slopes[-1:] = h * mask, [slope * mask for slope in slopes[-1:]]
        else:
            z = h @ layer.weights.astype(int) + layer.biases.astype(int)
            slopes.append((z > 0) * 1 if layer.activation == nn.relu else 1 + 0 * z)
            inputs.append(h)
            weights.append(layer.weights.astype(int))
            h = z * slopes[-1]

    def effect(k, unit):
        """Return what one more at a unit's pre-activation would do to the loss of each example."""
        ends = 0
        for path in itertools.product(*(range(w.shape[1]) for w in weights[k + 1 :])):
            units, along = (unit, *path), slopes[k][:, unit]
            for m, (a, b) in enumerate(itertools.pairwise(units), start=k + 1):
                along = along * weights[m][a, b] * slopes[m][:, b]
            ends = ends + along * (h - y.astype(int))[:, units[-1]]
        return ends

    def mean(values):
        return sum(share * int(value) for share, value in zip(shares, values, strict=True))

    gradients = []
    for k, w in enumerate(weights):
        effects = [effect(k, unit) for unit in range(w.shape[1])]
        gradients.append([[mean(inputs[k][:, a] * e) for e in effects] for a in range(w.shape[0])])
        gradients.append([mean(e) for e in effects])
    return mean(((h - y.astype(int)) ** 2).sum(axis=1)) / 2, gradients


@settings(max_examples=max(100, settings().max_examples // 5))
@given(exact_problems(), st.integers(0, 3))
def test_backpropagation_is_exactly_the_sum_over_all_paths(problem, k):
    network, x, y, weights, seed = problem
    shares = [Fraction(w) / Fraction(weights.sum()) for w in weights.tolist()]
    loss, expected = by_paths(list(elementary(nn.seeded(network, seed))), x, y, shares)
    given_weights = {} if (weights == 1).all() else {"sample_weight": weights}
    value, gradient = nn.loss_and_grads(nn.seeded(network, seed), x, y, **given_weights)
    assert Fraction(float(value)) == loss
    assert gradient == nn.grads(nn.seeded(network, seed), x, y, **given_weights)
    after = nn.sgd_step(network, gradient, 2.0**-k)
    columns = zip(*map(nn.tree_leaves, (network, gradient, after)), expected, strict=True)
    for p, ours, moved, theirs in columns:
        fractions = np.asarray(theirs, object)
        assert (exact(ours) == fractions).all()
        assert (exact(moved) == exact(p) - fractions / 2**k).all()


def exact(array):
    return np.asarray([Fraction(value) for value in array.ravel().tolist()], object).reshape(array.shape)
