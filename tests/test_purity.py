"""Nothing is changed, read or kept: the same inputs give the same bits, in any number of threads."""

import copy
import os
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import purenn as nn
from tests.strategies import networks, problems
from tests.toys import Ruled

ANNOTATIONS = {"Array", "Layer", "Seed", "Tree"}
SMALL = nn.init(1, (2, 2), [nn.softmax])
INITIALIZERS = [name for name in vars(nn.initializers) if name.endswith(("normal", "uniform", "orthogonal"))]


def called(gradients):
    gradient, dx = gradients
    return gradient, dx(), dx()


def everything(params, x, y):
    """Everything that the public functions give for a network and a batch, by their names, as bytes and text."""
    value, gradient = nn.loss_and_grads(params, x, y)
    output, pullback = nn.vjp(params, x)
    z = 3 * x
    is_classifier = params.layers[-1].activation != nn.identity
    with tempfile.TemporaryDirectory() as directory:
        nn.save(f"{directory}/file", (params, gradient))
        saved = Path(f"{directory}/file").read_bytes(), nn.load(f"{directory}/file")
    results = {
        "accuracy": nn.accuracy(params, x, y) if is_classifier else None,
        "adam_init": nn.adam_init(params),
        "adam_step": nn.adam_step(params, gradient, nn.adam_init(params), 0.1),
        "batches": [*nn.batches((1, 2), x, y, 2), *nn.batches(None, {"x": x}, (y, y), min(2, len(x)), drop_last=True)],
        "check_vjp": nn.check_vjp(nn.tanh, x),
        "clip_by_global_norm": nn.clip_by_global_norm(gradient, 0.1),
        "converged": nn.converged([3.0, 2.0, 2.5, 2.0], 2),
        "exponential_decay": nn.exponential_decay(3, 0.1, 10, 0.5),
        "forward": [nn.forward(params, x), nn.forward(nn.Dropout(0.5, 3), x)],
        "global_norm": nn.global_norm(params),
        "grads": nn.grads(params, x, y),
        "html": [nn.html((params, x)), params._repr_html_()],
        "inspect": nn.inspect(params, x, y),
        "init": [nn.init(3, (2, 2), [nn.relu], initializer=f) for f in (None, nn.initializers.orthogonal)],
        "initializers": [getattr(nn.initializers, name)(3, 2, 4) for name in INITIALIZERS],
        "load": saved[1],
        "logits": nn.logits(params, x),
        "logits_vjp": [nn.logits_vjp(params, x)[0], called(nn.logits_vjp(params, x)[1](output))],
        "loss": nn.loss(params, x, y),
        "loss_and_grads": [value, gradient, nn.loss_and_grads(params, x, y, x[:, 0] ** 2 + 1)],
        "momentum_step": nn.momentum_step(params, gradient, params, 0.1, nesterov=True),
        "numerical_grads": nn.numerical_grads(lambda p: nn.vdot(p, p), SMALL),
        "piecewise_constant": nn.piecewise_constant(3, [0.1, 0.2], [2]),
        "predict": nn.predict(params, x),
        "ravel": nn.ravel(params)[1](2 * nn.ravel(params)[0]),
        "save": saved[0],
        "seeded": nn.forward(nn.seeded(nn.Params((nn.Dropout(0.5), *params.layers)), 3), x),
        "sgd_step": nn.sgd_step(params, gradient, 0.1),
        "tree_leaves": nn.tree_leaves(params),
        "tree_map": nn.tree_map(lambda a, b: a - b, params, gradient),
        "tree_map_with_path": nn.tree_map_with_path(lambda path, a: len(path) * a, params),
        "vdot": nn.vdot(params, gradient),
        "vjp": [output, called(pullback(output)), called(pullback(output))],
        "warmup_cosine": nn.warmup_cosine(3, 0.1, 10, 2),
        "zeros_like": nn.zeros_like(params),
        "mnist": nn.mnist.digits(),
        "arithmetic": [params + 2 * params - params / 3, -params],
    } | {f.name: [f(z), f.pullback(z, f(z), x)] for f in vars(nn).values() if isinstance(f, nn.Activation)}
    return {
        name: [(repr(leaf), getattr(leaf, "tobytes", bytes)()) for leaf in nn.tree_leaves(result)]
        for name, result in results.items()
    }


def test_nothing_public_is_left_out():
    names = {name for name in nn.__all__ if not isinstance(getattr(nn, name), type)} - ANNOTATIONS - {"record"}
    batch = np.ones((1, 2), np.float32), np.asarray([1])
    assert set(everything(SMALL, *batch)) == names | {"arithmetic"}


@pytest.mark.long
@settings(max_examples=50)
@given(problems())
def test_the_same_bits_and_nothing_changed(problem):
    before = pickle.dumps(problem)
    state, errors = np.random.get_state()[1].tobytes(), np.geterr()
    environment, directory = dict(os.environ), os.getcwd()
    assert everything(*problem) == everything(*problem)
    assert pickle.dumps(problem) == before
    assert np.random.get_state()[1].tobytes() == state
    assert np.geterr() == errors
    assert (dict(os.environ), os.getcwd()) == (environment, directory)


ROUNDS = 48


@pytest.mark.long
def test_sixteen_threads_give_what_one_gives():
    params = nn.init(0, (20, 30, 10), (nn.tanh, nn.softmax))
    x, y = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32), np.arange(50) % 10
    expected = everything(params, x, y)
    with ThreadPoolExecutor(16) as pool:
        assert all(result == expected for result in pool.map(lambda _: everything(params, x, y), range(ROUNDS)))


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
    for array in (
        nn.forward(layer, x),
        nn.predict(layer, x),
        y,
        pullback(y)[1](),
        nn.loss(layer, x, y),
        nn.accuracy(layer, x, y),
        nn.global_norm(y),
        nn.vdot(y, y),
        nn.logits(layer, x),
        *batch,
    ):
        assert not array.flags.writeable


def test_the_output_of_your_own_layer_is_a_value_too():
    x, network = np.ones((1, 2)), nn.Params((Ruled(lambda layer, x: (x, lambda dy: (layer, lambda: dy))),))
    y, (z, pullback) = nn.forward(network, x), nn.vjp(network, x)
    dx = pullback(x)[1]()
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
