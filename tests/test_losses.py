"""Losses, predictions and accuracy: formulas, weights, and what is not finite."""

import itertools
import re
import reprlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, networks, problems, relative_error, seeds, targets
from tests.toys import PARAMS, SIGMOID, X, Y, f32


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
    np.testing.assert_allclose(nn.forward(params, x_and_more[order]), nn.forward(params, x_and_more)[order], 1e-4, 1e-6)
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


@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_extreme_logits_stay_finite(output, hidden):
    random = np.random.default_rng(0)
    scale = np.float32(1e4)
    params = nn.init(0, (4, 3), [output])
    params = nn.Params((nn.Dense(1e4 * np.eye(4, dtype=np.float32), f32(4), hidden), scale * params.layers[0]))
    x = random.standard_normal((6, 4)).astype(np.float32)
    y = np.eye(3)[random.integers(0, 3, 6)]
    for sign in (1, -1):
        value, gradient = nn.loss_and_grads(params, sign * x, y)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in nn.tree_leaves(gradient))


def test_a_class_that_is_masked_out_does_not_spoil_the_loss():
    layer = nn.Dense(f32(4, 3), np.asarray([0, 0, -np.inf], np.float32), nn.softmax)
    value, gradient = nn.loss_and_grads(layer, X, Y)
    assert value == pytest.approx(np.log(2))
    assert gradient.biases[2] == 0


@given(problems(outputs=(nn.softmax, nn.sigmoid, nn.identity)), st.data())
def test_a_prediction_is_never_made_of_nan(problem, data):
    params, x, y = problem
    rows = data.draw(st.sets(st.integers(0, len(x) - 1)))
    spoilt = np.asarray([np.full_like(row, np.nan) if k in rows else row for k, row in enumerate(x)])
    if params.layers[-1].activation == nn.identity:
        assert (np.isnan(nn.predict(params, spoilt)).any(axis=1) == [k in rows for k in range(len(x))]).all()
        return
    assert np.isnan(nn.accuracy(params, spoilt, y)) == bool(rows)
    if not rows:
        assert (nn.predict(params, x) >= 0).all()
        return
    with pytest.raises(
        ValueError,
        match=rf"output is NaN in {len(rows)} of {len(x)} rows; np.isfinite\(x\).all\(axis=1\) finds .*nn.insp",
    ):
        nn.predict(params, spoilt)
    assert {*np.flatnonzero(~np.isfinite(spoilt).all(axis=1))} == rows
    kept = np.isfinite(spoilt).all(axis=1)
    assert np.array_equal(nn.predict(params, spoilt[kept]), nn.predict(params, x[kept]))
    broken = nn.tree_map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(ValueError, match=f"NaN in {len(x)} of {len(x)} rows"):
        nn.predict(broken, x)
    assert "first values that are not finite: the parameters of layers.0" in repr(nn.inspect(broken, x))


FAR = [np.nan, np.inf, -np.inf, 1e39, -1e300]  # the last two are finite in float64


@given(problems(outputs=(nn.softmax, nn.sigmoid, nn.identity)), st.sampled_from(FAR), st.data())
def test_targets_are_finite_in_the_dtype_in_which_they_are_used(problem, value, data):
    params, x, y = problem
    y = np.eye(params.fan_out)[y] if y.ndim == 1 else y * 1.0
    rows = sorted(data.draw(st.sets(st.integers(0, len(x) - 1), min_size=1)))
    y[rows, 0] = value
    dtype = x.dtype.name
    for function in (nn.loss, nn.grads, nn.loss_and_grads):
        if dtype == "float32" or not np.isfinite(value):
            expected = f"y has {len(rows)} values that are NaN or infinite in {dtype}, in the rows "
            with pytest.raises(ValueError, match=re.escape(expected + reprlib.repr(rows))):
                function(params, x, y)
        elif params.layers[-1].activation == nn.identity:
            with np.errstate(over="ignore"):
                function(params, x, y)  # the target is used in float64
        weights = ~np.isin(np.arange(len(x)), rows) * 1.0
        if len(rows) < len(x):
            function(params, x, y, weights)
        weights[rows[0]] = 2  # heavier than the others, and the only one that counts of those that are wrong
        if dtype == "float32" or not np.isfinite(value):
            with pytest.raises(ValueError, match=rf"y has 1 values that .* in {dtype}, in the rows \[{rows[0]}\]"):
                function(params, x, y, weights)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int16, int, np.uint64, np.float16, np.longdouble, ">f8"])
def test_finite_targets_of_every_dtype_are_accepted(dtype):
    params = nn.init(0, (4, 2), [nn.identity])
    ends = [np.iinfo(dtype).min, np.iinfo(dtype).max] if np.dtype(dtype).kind in "iu" else [False, 60_000]
    y = np.tile(np.asarray(ends, dtype), (5, 1))
    with np.errstate(over="ignore"):
        assert nn.loss(params, X, y) > 0
    for far in [np.inf, np.longdouble("1e400")] if dtype is np.longdouble else [np.inf] * (np.dtype(dtype).kind == "f"):
        y[0, 0] = far
        with pytest.raises(ValueError, match="y has 1 values that are NaN or infinite in float32, in the rows \\[0\\]"):
            nn.loss(params, X, y)


@pytest.mark.parametrize("dtype", [bool, int, np.int8, np.uint8, float])
def test_whole_targets_are_zeros_and_ones(dtype):
    """For softmax, with one 1; no rounding error is allowed."""
    softmax, x = nn.init(0, (4, 2), [nn.softmax]), X[:1]
    for pair in itertools.product((-1, 0, 1, 2), repeat=2):
        y = np.asarray([pair]).astype(dtype)
        for params, right in ((SIGMOID, ((y == 0) | (y == 1)).all()), (softmax, sorted(y.tolist()[0]) == [0, 1])):
            if right:
                assert nn.loss(params, x, y) > 0
                continue
            with pytest.raises(ValueError, match=r"y has (a row that is not a distribution|values from)"):
                nn.loss(params, x, y)


def test_the_accuracy_of_a_network_that_diverged_is_nan():
    for params, y in ((PARAMS, Y), (SIGMOID, np.ones((5, 2)))):
        assert np.isnan(nn.accuracy(params, np.nan * X, y))


@pytest.mark.parametrize("hidden", [nn.tanh, nn.relu, nn.sigmoid, nn.softmax, nn.identity])
@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
def test_nan_in_nan_out(hidden, output):
    params = nn.init(0, (4, 3, 2), (hidden, output))
    x = np.where(np.arange(4) == 1, np.nan, X)
    y = np.tile([1.0, 0.0], (5, 1))
    assert np.isnan(nn.forward(params, x)).all() and np.isnan(nn.loss(params, x, y))
    assert all(np.isnan(leaf).all() for leaf in nn.tree_leaves(nn.grads(params, x, y).layers[1]))
    assert np.isnan(nn.grads(params, x, y).layers[0].weights).any()


def test_predictions():
    layer = nn.Dense(np.eye(2), np.zeros(2), nn.sigmoid)
    x = np.asarray([[3.0, -3.0], [-1.0, 0.5]])
    assert nn.predict(layer, x).tolist() == [[1, 0], [0, 1]]
    assert nn.accuracy(layer, x, np.asarray([[1, 0], [1, 1]])) == 0.75
    values = nn.Dense(np.eye(2), np.zeros(2), nn.identity)
    assert nn.predict(values, x).tolist() == x.tolist()
    soft = np.asarray([[0.6, 0.4], [0.9, 0.1]])
    assert nn.accuracy(nn.Dense(np.eye(2), np.zeros(2), nn.softmax), x, soft) == 0.5


@given(problems(outputs=(nn.softmax, nn.sigmoid)))
def test_loss_and_accuracy_are_the_same_kind_of_thing(problem):
    params = problem[0]
    for value in (nn.loss(*problem), nn.accuracy(*problem), nn.global_norm(params), nn.vdot(params, params)):
        assert type(value) is np.ndarray and value.shape == () and not value.flags.writeable
        assert value.dtype == params.layers[0].weights.dtype
        assert f"{value:.3f}" == f"{float(value):.3f}"


@given(st.integers(1, 50), seeds, st.sampled_from([np.float16, np.float32, np.float64]))
def test_a_distribution_in_any_float_is_accepted(k, seed, dtype):
    random = np.random.default_rng(seed)
    params = nn.init(seed, (3, k), [nn.softmax])
    y = nn.softmax((5 * random.standard_normal((8, k))).astype(dtype))
    x = random.standard_normal((8, 3))
    assert np.isfinite(nn.loss(params, x, y))
    assert 0 <= nn.accuracy(params, x, y) <= 1
    if k > 1:
        with pytest.raises(ValueError, match="not a distribution"):
            nn.loss(params, x, y * dtype(1.05))
        assert np.isfinite(nn.loss(params, x, (y * dtype(1.05)) / (y * dtype(1.05)).sum(axis=1, keepdims=True)))


@given(st.integers(2, 50), seeds, st.sampled_from([np.float32, np.float64]))
def test_rounding_at_the_ends_of_the_range_is_accepted(k, seed, dtype):
    random = np.random.default_rng(seed)
    shares = nn.softmax((5 * random.standard_normal((8, k))).astype(dtype))
    shares[:, -1] = 1 - shares[:, :-1].sum(axis=1)  # may be just below 0
    assert np.isfinite(nn.loss(nn.init(seed, (3, k), [nn.softmax]), np.ones((8, 3)), shares))
    weights = random.random(k).astype(dtype)
    mean = ((weights / weights.sum())[:, None] * np.ones((k, 8), dtype)).sum(axis=0)  # may be just above 1
    assert np.isfinite(nn.loss(nn.init(seed, (3, 1), [nn.sigmoid]), np.ones((8, 3)), mean[:, None]))


def test_one_half_is_not_above_one_half():
    layer = nn.Dense(np.zeros((1, 2)), np.asarray([0.0, 0.1]), nn.sigmoid)
    assert nn.predict(layer, np.ones((1, 1))).tolist() == [[0, 1]]
