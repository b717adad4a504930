"""What goes in decides what comes out: shapes, dtypes, order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import networks, problems


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
