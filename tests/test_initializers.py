"""Where first parameters come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, seeds


def test_init_of_both_dtypes_is_the_same_network():
    single, double = (nn.init(3, (5, 4), [nn.tanh], dtype) for dtype in ("float32", "float64"))
    assert single == nn.tree_map(lambda p: p.astype(np.float32), double)
    assert nn.init((3, 1), (5, 4), [nn.tanh]) != single


VARIANCES = {"glorot": lambda i, o: 2 / (i + o), "he": lambda i, o: 2 / i, "lecun": lambda i, o: 1 / i}
NAMES = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal")
RECTIFIERS = (nn.relu, nn.leaky_relu, nn.elu, nn.gelu, nn.silu)


@pytest.mark.parametrize("given_by", [*NAMES, *ACTIVATIONS], ids=str)
@given(seeds, st.integers(100, 300), st.integers(100, 300))
def test_weights_have_the_variance_and_the_shape_of_their_source(given_by, seed, fan_in, fan_out):
    def draw(seed, *sizes):
        if given_by in NAMES:
            return getattr(nn.initializers, name)(seed, *sizes)
        return nn.init(seed, sizes, [given_by], "float64").layers[0].weights

    name = given_by if given_by in NAMES else "he_normal" if given_by in RECTIFIERS else "glorot_uniform"
    weights, std = draw(seed, fan_in, fan_out), np.sqrt(VARIANCES[name.partition("_")[0]](fan_in, fan_out))
    assert weights.shape == (fan_in, fan_out) and not weights.flags.writeable
    assert abs(weights.mean()) < 6 * std / np.sqrt(weights.size)
    assert weights.std() == pytest.approx(std, rel=6 / np.sqrt(weights.size))
    assert (np.abs(weights).max() <= np.sqrt(3) * std) == name.endswith("uniform")
    assert not np.array_equal(weights, draw((seed, 1), fan_in, fan_out))


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
