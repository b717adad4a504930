"""The numerical rooms run, with the same results, on arrays that know nothing but the array API standard."""

import ast
import math
import re
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given

import purenn as nn
from purenn.arrays import namespace, read_only
from tests.strategies import ACTIVATIONS, problems


def to_strict(tree):
    return nn.tree_map(strict.asarray, tree)


def to_numpy(tree):
    return nn.tree_map(np.asarray, tree)


@given(problems())
def test_everything_runs_on_strict_arrays(problem):
    params, x, y = problem
    y = y if y.ndim == 1 else y.astype(x.dtype)
    there = to_strict(params), strict.asarray(x), strict.asarray(y)
    value, gradient = nn.loss_and_grads(*there)
    assert namespace(value) is strict
    assert all(namespace(leaf) is strict for leaf in nn.tree_leaves(gradient))
    expected_value, expected = nn.loss_and_grads(params, x, y)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if x.dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(float(value), expected_value, **tolerance)

    def compare(result, expected):
        nn.tree_map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), to_numpy(result), expected)

    compare(gradient, expected)
    compare(nn.grads(*there), expected)
    compare(nn.grads(*there[:2], y), expected)
    compare(nn.loss(*there), expected_value)
    compare(nn.forward(*there[:2]), nn.forward(params, x))
    compare(nn.predict(*there[:2]), nn.predict(params, x))
    compare(
        nn.vjp(*there[:2])[1](there[1] @ strict.zeros((x.shape[1], params.fan_out), dtype=there[1].dtype))[1](), 0 * x
    )
    compare(nn.sgd_step(there[0], gradient, strict.asarray(0.1)), nn.sgd_step(params, expected, 0.1))
    compare(2 * there[0] - gradient / 3, 2 * params - expected / 3)
    if params.layers[-1].activation != nn.identity:
        compare(nn.accuracy(*there), nn.accuracy(params, x, y))
    assert to_strict(params) == there[0]


def test_batches_and_differences_of_strict_arrays():
    params = nn.init(0, (3, 2), [nn.softmax], dtype=np.float64)
    x, y = np.random.default_rng(0).standard_normal((6, 3)), np.arange(6) % 2
    for (xa, ya), (xb, yb) in zip(
        nn.batches(1, strict.asarray(x), strict.asarray(y), 4), nn.batches(1, x, y, 4), strict=True
    ):
        assert namespace(xa) is namespace(ya) is strict
        assert np.array_equal(np.asarray(xa), xb)
        assert np.array_equal(np.asarray(ya), yb)
    numbers = nn.numerical_grads(lambda p: nn.loss(p, strict.asarray(x), strict.asarray(y)), to_strict(params))
    nn.tree_map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), to_numpy(numbers), nn.grads(params, x, y))


def test_numerical_grads_of_float32_are_computed_in_float64():
    params = nn.init(0, (3, 2), [nn.sigmoid])
    x, y = np.random.default_rng(0).standard_normal((6, 3)), np.eye(2)[np.arange(6) % 2]
    numbers = nn.numerical_grads(lambda p: nn.loss(p, x, y), params)
    exact = nn.grads(nn.tree_map(lambda p: p.astype(np.float64), params), x, y)
    assert numbers.layers[0].weights.dtype == np.float32
    np.testing.assert_allclose(numbers.layers[0].weights, exact.layers[0].weights, rtol=1e-6, atol=1e-8)


def test_arrays_that_look_locked_but_are_not_are_copied():
    memory = bytearray(16)
    view = np.frombuffer(memory)
    view.flags.writeable = False
    assert read_only(view) is not view
    assert isinstance(read_only(np.float32(1)), np.ndarray)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_take_arrays_of_any_rank(activation):
    z = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_allclose(activation(z)[1, 2], activation(z[1, 2]), rtol=1e-14)
    np.testing.assert_allclose(np.asarray(activation(strict.asarray(z))), activation(z), rtol=1e-14)


def test_activations_are_their_formulas():
    z = np.linspace(-700, 700, 99)
    np.testing.assert_allclose(nn.sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-13)
    np.testing.assert_allclose(nn.tanh(z / 100), 2 / (1 + np.exp(-2 * z / 100)) - 1, rtol=1e-12, atol=1e-15)
    assert nn.relu(np.asarray([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]
    np.testing.assert_allclose(nn.softmax(z / 100), np.exp(z / 100) / np.exp(z / 100).sum(), rtol=1e-12)
    np.testing.assert_allclose(nn.softplus(z), np.logaddexp(z, 0), rtol=1e-13)
    np.testing.assert_allclose(nn.silu(z), z / (1 + np.exp(-z)), rtol=1e-13)
    np.testing.assert_allclose(nn.elu(z), np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1), rtol=1e-13)
    assert nn.leaky_relu(np.asarray([-1.0, 0.0, 2.0])).tolist() == [-0.01, 0, 2]
    exact = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in z / 100]
    np.testing.assert_allclose(nn.gelu(z / 100), exact, atol=5e-4)
    tail = np.asarray([-6.0, -5.0, -3.0])  # from the tanh form with 50 digits
    np.testing.assert_allclose(nn.gelu(tail), [-8.43964670076e-11, -2.2917961966295e-07, -0.00363739208177], rtol=1e-11)
    np.testing.assert_allclose(nn.gelu(tail.astype(np.float32)), nn.gelu(tail), rtol=2e-5)
    huge = np.asarray([-3e38, 3e38], np.float32)
    assert nn.gelu(huge).tolist() == [0, huge[1]]
    assert nn.gelu.pullback(huge, nn.gelu(huge), np.ones_like(huge)).tolist() == [0, 1]
    assert repr(nn.softmax) == "softmax"


def test_steps_and_norms_of_strict_arrays():
    random = np.random.default_rng(0)
    params = nn.init(0, (3, 2), [nn.softmax], np.float64)
    gradient = nn.tree_map(lambda p: random.standard_normal(p.shape), params)
    there, slope = to_strict(params), to_strict(gradient)
    for step in (nn.momentum_step, nn.adam_step):
        start = nn.adam_init if step is nn.adam_step else nn.zeros_like
        after, state = step(there, slope, start(there), 0.1)
        expected, expected_state = step(params, gradient, start(params), 0.1)
        nn.tree_map(np.testing.assert_allclose, to_numpy(after), expected)
        nn.tree_map(np.testing.assert_allclose, to_numpy(state), expected_state)
    clipped = to_numpy(nn.clip_by_global_norm(slope, 1))
    nn.tree_map(np.testing.assert_allclose, clipped, nn.clip_by_global_norm(gradient, 1))
    assert float(nn.vdot(there, slope)) == pytest.approx(float(nn.vdot(params, gradient)))
    vector, unravel = nn.ravel(there)
    assert unravel(vector) == there
    mask = nn.forward(nn.Dropout(0.5, 3), strict.ones((4, 5)))
    assert np.array_equal(np.asarray(mask), nn.forward(nn.Dropout(0.5, 3), np.ones((4, 5))))
    for schedule in (
        lambda s: nn.warmup_cosine(s, 0.1, 9, 2), lambda s: nn.exponential_decay(s, 1, 2, 0.5),
        lambda s: nn.piecewise_constant(s, [1, 0], [2])
    ):  # fmt: skip
        np.testing.assert_allclose(np.asarray(schedule(strict.arange(5))), schedule(np.arange(5)))


@pytest.mark.parametrize(
    "room",
    ["activations", "checking", "dropout", "inspection", "layers", "losses", "optimizers", "schedules", "trees"],
)
def test_numerical_rooms_do_not_import_numpy(room):
    source = Path(nn.__file__).with_name(f"{room}.py").read_text()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports
    assert not any(re.search(r"\bnumpy\b", ast.unparse(node)) for node in imports)
