"""The numerical rooms run, with the same results, on arrays that know nothing but the array API standard."""

import ast
import re
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given

import purenn as nn
from purenn.arrays import namespace
from tests.strategies import problems


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
