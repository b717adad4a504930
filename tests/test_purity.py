"""Nothing is changed, read or kept: the same inputs give the same bits, in any number of threads."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given

import purenn as nn
from tests.strategies import networks, problems


def everything(params, x, y):
    """The results of all functions that take a network, as a list of bytes."""
    value, gradient = nn.loss_and_grads(params, x, y)
    output, pullback = nn.vjp(params, x)
    results = [
        nn.forward(params, x), nn.loss(params, x, y), value, nn.predict(params, x), nn.grads(params, x, y), gradient,
        nn.sgd_step(params, gradient, 0.1), output, pullback(output), pullback(output), nn.init(3, (2, 2), [nn.relu]),
        list(nn.batches((1, 2), x, y, 2)), params + 2 * params - params / 3, -params, nn.zeros_like(params),
        nn.momentum_step(params, gradient, params, 0.1, nesterov=True), nn.ravel(params)[0],
        nn.adam_step(params, gradient, nn.adam_init(params), 0.1), nn.clip_by_global_norm(gradient, 0.1),
        nn.global_norm(params), nn.vdot(params, gradient), nn.forward(nn.Dropout(0.5, 3), x),
    ]  # fmt: skip
    return [leaf.tobytes() for leaf in nn.tree_leaves(results)]


@given(problems())
def test_the_same_bits_and_nothing_changed(problem):
    before = pickle.dumps(problem)
    state, errors = np.random.get_state()[1].tobytes(), np.geterr()
    assert everything(*problem) == everything(*problem)
    assert pickle.dumps(problem) == before
    assert np.random.get_state()[1].tobytes() == state
    assert np.geterr() == errors


def test_sixteen_threads_give_what_one_gives():
    params = nn.init(0, (20, 30, 10), (nn.tanh, nn.softmax))
    x, y = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32), np.arange(50) % 10
    expected = everything(params, x, y)
    with ThreadPoolExecutor(16) as pool:
        assert all(result == expected for result in pool.map(lambda _: everything(params, x, y), range(160)))


@given(networks())
def test_arrays_of_records_are_read_only(params):
    x = np.ones((2, params.fan_in), np.float32)
    gradient, _ = nn.vjp(params, x)[1](nn.forward(params, x))
    moved = nn.tree_map(lambda leaf: leaf.astype(np.float64), params)
    for tree in (
        params,
        gradient,
        moved,
        2 * params,
        nn.sgd_step(params, gradient, 1),
        nn.zeros_like(params),
        nn.momentum_step(params, gradient, gradient, 1, nesterov=True),
        nn.adam_step(params, gradient, nn.adam_init(params), 1, weight_decay=1),
        nn.clip_by_global_norm(gradient, 1),
        nn.forward(nn.Dropout(0.5, 3), x),
        pickle.loads(pickle.dumps(params)),
    ):
        for leaf in nn.tree_leaves(tree):
            with pytest.raises(ValueError, match="read-only"):
                leaf[...] = 0
    with pytest.raises(AttributeError):
        params.layers = ()


def test_what_a_function_returns_is_read_only():
    layer = nn.Dense(np.eye(2), np.zeros(2), nn.softmax)
    x = np.ones((2, 2))
    y, pullback = nn.vjp(layer, x)
    batch = next(nn.batches(0, x, np.asarray([0, 1]), 1))
    for array in (nn.forward(layer, x), nn.predict(layer, x), y, pullback(y)[1], *batch):
        assert not array.flags.writeable


def test_the_output_of_a_layer_of_ones_own_is_a_value_too():
    @nn.record
    class Nothing:
        pass

    @nn.forward.register
    def _(layer: Nothing, x):
        return x

    @nn.vjp.register
    def _(layer: Nothing, x):
        return x, lambda dy: (layer, dy)

    x = np.ones((1, 2))
    y, (z, pullback) = nn.forward(nn.Params((Nothing(),)), x), nn.vjp(nn.Params((Nothing(),)), x)
    dx = pullback(x)[1]
    x[:] = 7
    assert y.tolist() == z.tolist() == dx.tolist() == [[1, 1]]


def test_a_record_does_not_see_later_writes_of_its_maker():
    weights, biases = np.zeros((2, 2)), np.zeros((4, 2))
    locked_view = biases[0]
    locked_view.flags.writeable = False
    layer = nn.Dense(weights, locked_view, nn.relu)
    weights[:], biases[:] = 1, 1
    assert not layer.weights.any() and not layer.biases.any()
    assert weights.flags.writeable


def test_an_array_that_nobody_can_write_to_is_not_copied():
    weights = np.zeros((2, 2))
    weights.flags.writeable = False
    assert nn.Dense(weights, np.zeros(2), nn.relu).weights is weights
    view = np.frombuffer(bytes(16))
    assert nn.Dense(np.eye(2), view, nn.relu).biases is view


def test_a_pullback_does_not_see_later_writes_to_its_input():
    layer, x = nn.Dense(np.eye(2), np.zeros(2), nn.identity), np.ones((1, 2))
    _, pullback = nn.vjp(layer, x)
    before = pullback(np.ones((1, 2)))[0]
    x[:] = 7
    assert pullback(np.ones((1, 2)))[0] == before


def test_tree_map_leaves_what_its_function_returned_writable():
    buffer = np.zeros(2)
    mapped = nn.tree_map(lambda _: buffer, (np.ones(2),))
    buffer[:] = 1
    assert mapped[0].tolist() == [0, 0]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@given(params=networks())
def test_copies_are_equal_and_immutable(params, protocol):
    for other in (pickle.loads(pickle.dumps(params, protocol)), copy.copy(params), copy.deepcopy(params)):
        assert other == params
        assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(other))
