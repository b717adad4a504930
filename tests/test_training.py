"""Where parameters come from, in which order examples are seen, and gradients by differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import networks, seeds


@given(seeds, st.integers(0, 50), st.integers(1, 60))
def test_batches_are_a_permutation_of_the_examples(seed, n, batch_size):
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n)
    batches = list(nn.batches(seed, x, y, batch_size))
    assert [len(yb) for _, yb in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-n // batch_size)
    assert all(np.array_equal(xb, x[yb]) for xb, yb in batches)
    assert sorted(label for _, yb in batches for label in yb.tolist()) == list(range(n))


def test_seeds_are_all_different():
    x = np.arange(100)
    seeds = [0, 1, (0, 1), (1, 0), (0, 0), (1, 0, 0), 2**40, np.int64(7)]
    orders = {next(nn.batches(seed, x, x, 100))[1].tobytes() for seed in seeds}
    assert len(orders) == len(seeds)
    assert next(nn.batches(7, x, x, 100))[1].tobytes() in orders


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init_has_the_variance_of_its_source(dtype):
    params = nn.init(0, (300, 400, 500), (nn.relu, nn.tanh), dtype)
    he, glorot = (layer.weights for layer in params.layers)
    assert he.dtype == glorot.dtype == dtype
    assert he.std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)
    assert np.abs(he).max() > 3 * he.std(), "normal"
    limit = np.sqrt(6 / 900)
    assert 0.99 * limit < np.abs(glorot).max() <= limit, "uniform"
    assert glorot.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not params.layers[0].biases.any()


def test_init_of_both_dtypes_is_the_same_network():
    single, double = (nn.init(3, (5, 4), [nn.tanh], dtype) for dtype in ("float32", "float64"))
    assert single == nn.tree_map(lambda p: p.astype(np.float32), double)
    assert nn.init((3, 1), (5, 4), [nn.tanh]) != single


def test_one_half_is_not_above_one_half():
    layer = nn.Dense(np.zeros((1, 2)), np.asarray([0.0, 0.1]), nn.sigmoid)
    assert nn.predict(layer, np.ones((1, 1))).tolist() == [[0, 1]]


def test_first_weights_of_relu_have_the_mean_and_variance_of_he():
    weights = nn.init(0, (400, 300), [nn.relu]).layers[0].weights
    assert abs(weights.mean()) < 1e-3
    assert weights.var() == pytest.approx(2 / 400, rel=0.02)


def test_numerical_gradients_of_large_parameters():
    layer, x, y = nn.Dense([[1e6]], [0.0], nn.identity), np.asarray([[1e-6]]), np.asarray([[0.0]])
    assert nn.numerical_grads(lambda p: nn.loss(p, x, y), layer).weights == pytest.approx(1e-6, rel=1e-6, abs=0)


def test_numerical_gradients_have_nine_digits():
    params = nn.init(0, (4, 5, 3), (nn.tanh, nn.softmax), "float64")
    x, y = np.random.default_rng(0).standard_normal((6, 4)), np.arange(6) % 3
    gradient = nn.grads(params, x, y)
    numerical = nn.numerical_grads(lambda p: nn.loss(p, x, y), params)
    assert nn.global_norm(numerical - gradient) < 1e-9 * nn.global_norm(gradient)


@given(seeds, st.integers(1, 30), st.integers(1, 40), st.booleans())
def test_batches_of_trees_are_batches_of_their_arrays(seed, n, batch_size, drop_last):
    x, y, w = np.arange(2 * n).reshape(n, 2), np.arange(n), np.arange(n) / 2
    trees = list(nn.batches(seed, {"left": x, "right": [y]}, (y, w), batch_size, drop_last))
    pairs = list(nn.batches(seed, x, y, batch_size))
    assert len(trees) == (n // batch_size if drop_last else len(pairs))
    for (xs, (yt, wt)), (xb, yb) in zip(trees, pairs, strict=False):
        assert list(xs) == ["left", "right"] and type(xs["right"]) is list
        for ours, theirs in ((xs["left"], xb), (xs["right"][0], yb), (yt, yb), (wt, yb / 2)):
            assert np.array_equal(ours, theirs) and not ours.flags.writeable


@given(st.integers(0, 30), st.integers(1, 40))
def test_without_a_seed_batches_keep_the_order(n, batch_size):
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n)
    parts = [*nn.batches(None, x, y, batch_size)]
    assert np.concatenate([x[:0], *(xb for xb, _ in parts)]).tolist() == x.tolist()
    assert [yb.tolist() for _, yb in parts] == [y[k : k + batch_size].tolist() for k in range(0, n, batch_size)]
    assert [(xb.tolist(), yb) for xb, yb in nn.batches(None, x, None, batch_size)] == [
        (xb.tolist(), None) for xb, _ in parts
    ]


VARIANCES = {
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
}


@pytest.mark.parametrize("name", VARIANCES)
@given(seeds, st.integers(100, 300), st.integers(100, 300))
def test_initializers_have_the_variance_and_the_shape_of_their_source(name, seed, fan_in, fan_out):
    weights = getattr(nn.initializers, name)(seed, fan_in, fan_out)
    std = np.sqrt(VARIANCES[name](fan_in, fan_out))
    assert weights.shape == (fan_in, fan_out) and not weights.flags.writeable
    assert abs(weights.mean()) < 6 * std / np.sqrt(weights.size)
    assert weights.std() == pytest.approx(std, rel=6 / np.sqrt(weights.size))
    assert (np.abs(weights).max() <= np.sqrt(3) * std) == name.endswith("uniform")
    assert not np.array_equal(weights, getattr(nn.initializers, name)((seed, 1), fan_in, fan_out))


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_orthogonal_weights_are_orthogonal(seed, fan_in, fan_out):
    weights = nn.initializers.orthogonal(seed, fan_in, fan_out)
    product = weights.T @ weights if fan_in >= fan_out else weights @ weights.T
    np.testing.assert_allclose(product, np.eye(min(fan_in, fan_out)), atol=1e-12)
    assert not weights.flags.writeable


def test_orthogonal_weights_favour_no_direction():
    first = [nn.initializers.orthogonal(seed, 2, 2) for seed in range(2_000)]
    assert abs(np.mean(first, axis=0)).max() < 0.06
    assert abs(np.mean([np.linalg.det(weights) > 0 for weights in first]) - 0.5) < 0.06


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init_draws_each_layer_with_its_initializer_and_seed(dtype):
    sizes, activations, given = (5, 4, 3), (nn.tanh, nn.softmax), nn.initializers.orthogonal
    for seed, path in ((7, (7,)), ((7, 2), (7, 2))):
        same = nn.init(seed, sizes, activations, dtype, initializer=given)
        mixed = nn.init(seed, sizes, activations, dtype, initializer=[given, lambda *_: np.ones((4, 3), int)])
        default = nn.init(seed, sizes, activations, dtype, initializer=(None, given))
        for k, layer in enumerate(same.layers):
            assert np.array_equal(layer.weights, given((*path, k), *sizes[k : k + 2]).astype(dtype))
            assert not layer.biases.any()
        assert mixed.layers[0] == same.layers[0] and mixed.layers[1].weights.tolist() == [[1] * 3] * 4
        assert default.layers == (nn.init(seed, sizes, activations, dtype).layers[0], same.layers[1])
        assert {leaf.dtype for leaf in nn.tree_leaves((same, mixed, default))} == {np.dtype(dtype)}


def test_defaults():
    batch, _ = next(nn.batches(0, np.zeros((200, 1)), np.zeros(200)))
    assert batch.shape == (128, 1)


@given(seeds)
def test_a_step_is_its_formula(seed):
    random = np.random.default_rng(seed)
    p, g = random.standard_normal((2, 3, 4))
    np.testing.assert_allclose(nn.sgd_step((p,), (g,), lr=0.3)[0], p - 0.3 * g, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(nn.sgd_step(p, g, lr=np.asarray(0.3)), p - 0.3 * g, rtol=1e-12, atol=1e-15)


@given(networks(), seeds)
def test_numerical_gradients_take_any_function_of_any_tree(params, seed):
    direction = nn.tree_map(lambda p: np.random.default_rng(seed).standard_normal(p.shape), params)
    gradient = nn.numerical_grads(lambda p: nn.vdot(direction, p), params)
    nn.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gradient, direction)
    nn.tree_map(lambda g, p: np.testing.assert_equal(g.dtype, p.dtype), gradient, params)
    squares = nn.numerical_grads(lambda t: float(t["a"] @ t["a"]), {"a": np.asarray([1.0, 2.0], np.float32)})
    np.testing.assert_allclose(squares["a"], [2, 4], rtol=1e-6)
