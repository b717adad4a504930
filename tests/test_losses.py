"""Weights of examples: laws that hold for layers that treat examples independently."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import problems, relative_error, seeds, targets


def results(params, x, y, sample_weight=None):
    """Everything that takes weights: the loss, the gradient, both at once, the accuracy."""
    both = nn.loss_and_grads(params, x, y, sample_weight)
    assert both == (nn.loss(params, x, y, sample_weight), nn.grads(params, x, y, sample_weight))
    is_classifier = params.layers[-1].activation != nn.identity
    return (*both, nn.accuracy(params, x, y, sample_weight) if is_classifier else None)


def assert_close(ours, theirs, dtype):
    assert relative_error(ours, theirs) < (1e-4 if dtype == np.float32 else 1e-12)


@given(problems(), st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]))
def test_weights_of_one_change_nothing(problem, dtype):
    assert results(*problem, np.ones(len(problem[1]), dtype)) == results(*problem)


@given(problems(), seeds)
def test_whole_weights_are_repetitions(problem, seed):
    params, x, y = problem
    times = np.random.default_rng(seed).integers(0, 4, len(x))
    times[0] += 1
    repeated = results(params, np.repeat(x, times, axis=0), np.repeat(y, times, axis=0))
    assert_close(results(params, x, y, times), repeated, x.dtype)


@given(problems(), seeds)
def test_weight_0_leaves_an_example_out_whatever_its_target(problem, seed):
    params, x, y = problem
    random = np.random.default_rng(seed)
    weights = random.random(len(x))
    weights[0] += 0.1
    x_and_more = np.concatenate([x, random.standard_normal((3, params.fan_in)).astype(x.dtype)])
    y_and_more = np.concatenate([y, np.full((3, *y.shape[1:]), np.nan if y.dtype.kind == "f" else -1, y.dtype)])
    order = random.permutation(len(x) + 3)
    longer = (a[order] for a in (x_and_more, y_and_more, np.append(weights, [0, 0, 0])))
    assert_close(results(params, *longer), results(params, x, y, weights), x.dtype)


def test_weight_0_leaves_out_a_loss_that_is_infinite():
    params, x = nn.init(0, (4, 2), [nn.identity]), np.ones((3, 4), np.float32)
    huge = np.asarray([[0.0, 0.0], [0.0, 1.0], [3e38, 3e38]], np.float32)
    with np.errstate(over="ignore"):
        assert results(params, x, huge, np.asarray([1, 1, 0])) == results(params, x[:2], huge[:2])


@given(problems(), seeds, st.floats(1e-300, 1e300))
def test_only_the_ratios_of_weights_matter(problem, seed, scale):
    weights = np.random.default_rng(seed).uniform(0.1, 1, len(problem[1]))
    assert_close(results(*problem, scale * weights), results(*problem, weights), problem[1].dtype)
    assert results(*problem, 2.0**-200 * weights) == results(*problem, weights)


@given(problems(dtype=st.just(np.float64)), seeds)
def test_the_loss_is_the_weighted_mean_of_the_losses_of_the_examples(problem, seed):
    params, x, y = problem
    w = np.random.default_rng(seed).random(len(x)) + 0.1
    each = [nn.loss_and_grads(params, x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    value, gradient = nn.loss_and_grads(params, x, y, w)
    assert value == pytest.approx(sum(c * v for c, (v, _) in zip(w, each, strict=True)) / w.sum(), rel=1e-12)
    mean = sum(float(c / w.sum()) * g for c, (_, g) in zip(w, each, strict=True))
    assert relative_error(gradient, mean) < 1e-12


@given(problems(outputs=(nn.softmax, nn.sigmoid)), seeds)
def test_the_accuracy_is_the_weighted_share_of_correct_outputs(problem, seed):
    params, x, y = problem
    w = np.random.default_rng(seed).random(len(x)) + 0.1
    wanted = y > 0.5 if params.layers[-1].activation == nn.sigmoid else y if y.ndim == 1 else y.argmax(axis=1)
    right = (nn.predict(params, x) == wanted).reshape(len(x), -1).mean(axis=1)
    assert nn.accuracy(params, x, y) == pytest.approx(right.mean(), rel=1e-5)
    assert nn.accuracy(params, x, y, w) == pytest.approx((w @ right) / w.sum(), rel=1e-5)


@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
def test_a_target_that_counts_is_still_checked(output):
    params = nn.init(0, (4, 3), [output])
    random = np.random.default_rng(0)
    x, y = np.ones((5, 4), np.float32), targets(random, params, 5, soft=True)
    y[1:3] = np.nan
    for weights in ([1, 0, 1e-3, 1, 1], [1, 0, 9, 1, 1]):
        with pytest.raises(ValueError, match="NaN"):
            nn.loss(params, x, y, np.asarray(weights))
