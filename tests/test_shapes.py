"""What goes in decides what comes out: shapes, dtypes, order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import networks, problems, seeds


@given(networks(), st.integers(0, 8))
def test_forward(params, n):
    p = nn.forward(params, np.zeros((n, params.fan_in), np.float32))
    assert p.shape == (n, params.fan_out)
    assert p.dtype == params.layers[0].weights.dtype
    labels = nn.predict(params, np.zeros((n, params.fan_in), np.float32))
    assert labels.shape == ((n,) if params.layers[-1].activation == nn.softmax else p.shape)


@given(problems())
def test_gradients_are_like_parameters(problem):
    params, x, y = problem
    value, gradient = nn.loss_and_grads(params, x, y)
    assert value.shape == () and value.dtype == x.dtype
    for other in (
        gradient,
        nn.sgd_step(params, gradient, np.float64(0.1)),
        nn.vjp(params, x)[1](nn.forward(params, x))[0],
    ):
        nn.tree_map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), params, other)


@given(networks(outputs=(nn.softmax,)), st.integers(1, 8))
def test_softmax_rows_sum_to_one(params, n):
    x = 100 * np.random.default_rng(0).standard_normal((n, params.fan_in))
    np.testing.assert_allclose(nn.forward(params, x).sum(axis=1), 1, rtol=1e-5)


@given(problems(outputs=(nn.softmax, nn.sigmoid)))
def test_accuracy_is_the_share_of_right_predictions(problem):
    params, x, _ = problem
    predictions = nn.predict(params, x)
    assert nn.accuracy(params, x, predictions) == 1
    if params.fan_out > 1 and params.layers[-1].activation == nn.softmax:
        wrong = np.where(np.arange(len(x)) < 1, (predictions + 1) % params.fan_out, predictions)
        np.testing.assert_allclose(nn.accuracy(params, x, wrong), 1 - 1 / len(x), rtol=1e-6)


def test_predictions():
    layer = nn.Dense(np.eye(2), np.zeros(2), nn.sigmoid)
    x = np.asarray([[3.0, -3.0], [-1.0, 0.5]])
    assert nn.predict(layer, x).tolist() == [[1, 0], [0, 1]]
    assert nn.accuracy(layer, x, np.asarray([[1, 0], [1, 1]])) == 0.75
    values = nn.Dense(np.eye(2), np.zeros(2), nn.identity)
    assert nn.predict(values, x).tolist() == x.tolist()
    soft = np.asarray([[0.6, 0.4], [0.9, 0.1]])
    assert nn.accuracy(nn.Dense(np.eye(2), np.zeros(2), nn.softmax), x, soft) == 0.5


def test_networks_nest():
    flat = nn.init(0, (5, 4, 3, 2), (nn.tanh, nn.relu, nn.softmax))
    nested = nn.Params((nn.Params(flat.layers[:2]), nn.Params(flat.layers[2:])))
    x, y = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32), np.arange(6) % 2
    assert (nested.fan_in, nested.fan_out) == (5, 2)
    assert np.array_equal(nn.forward(nested, x), nn.forward(flat, x))
    assert nn.tree_leaves(nn.grads(nested, x, y))[0].tolist() == nn.grads(flat, x, y).layers[0].weights.tolist()
    assert nn.grads(nested, x, y).layers[1].layers[0] == nn.grads(flat, x, y).layers[2]
    assert repr(nested).count("\n    ") == 7


def test_the_fold_learns():
    data = nn.mnist.digits()
    params = nn.init(0, (64, 32, 10), (nn.tanh, nn.softmax))
    before = nn.loss(params, data.train_images, data.train_labels)
    for epoch in range(5):
        for xb, yb in nn.batches((0, epoch), data.train_images, data.train_labels, batch_size=32):
            params = nn.sgd_step(params, nn.grads(params, xb, yb), lr=0.3)
    assert before > 2.2 > 0.3 > nn.loss(params, data.train_images, data.train_labels)
    assert nn.accuracy(params, data.test_images, data.test_labels) > 0.85


@given(problems(outputs=(nn.softmax, nn.sigmoid)))
def test_loss_and_accuracy_are_the_same_kind_of_thing(problem):
    for value in (nn.loss(*problem), nn.loss_and_grads(*problem)[0], nn.accuracy(*problem)):
        assert type(value) is np.ndarray and value.shape == () and not value.flags.writeable
        assert value.dtype == problem[0].layers[0].weights.dtype
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
