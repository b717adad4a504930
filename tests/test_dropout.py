"""Dropout: randomness that the caller passes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import seeds


def network(rate=0.5, dtype=np.float64):
    first, second, last = nn.init(0, (6, 8, 8, 3), (nn.tanh, nn.silu, nn.softmax), dtype).layers
    return nn.Params((nn.Dropout(rate / 2), first, nn.Params((nn.Dropout(rate), second)), nn.Dropout(rate), last))


@given(seeds, st.floats(0, 0.9), st.sampled_from([np.float32, np.float64]))
def test_every_input_is_dropped_or_scaled(seed, rate, dtype):
    x = np.ones((50, 40), dtype)
    y = nn.forward(nn.Dropout(rate, seed), x)
    assert y.dtype == dtype
    kept = y != 0
    assert np.all(np.abs(y[kept] - 1 / (1 - rate)) < 1e-5)
    assert abs(kept.mean() - (1 - rate)) <= 6 * np.sqrt(rate * (1 - rate) / x.size)


def test_gradients_have_the_type_of_the_network_without_seeds():
    params = network()
    x, y = np.ones((2, 6)), np.asarray([0, 1])
    gradient = nn.grads(nn.seeded(params, (0, 1)), x, y)
    after = nn.sgd_step(params, gradient, 0.1)
    assert [layer.seed for layer in after.layers if isinstance(layer, nn.Dropout)] == [None, None]
    assert nn.grads(params, x, y) + gradient == gradient + nn.grads(params, x, y)
    message = r"grads differs from params at layers.0: Dropout\(0.25, None\) instead of Dropout\(0.25, \(0, 1, 0, 0\)\)"
    with pytest.raises(ValueError, match=message):
        nn.sgd_step(nn.seeded(params, (0, 1)), gradient, 0.1)


def test_without_seed_it_does_nothing():
    params, x = network(), np.random.default_rng(0).standard_normal((4, 6))
    dense = nn.Params((params.layers[1], params.layers[2].layers[1], params.layers[4]))
    assert np.array_equal(nn.forward(params, x), nn.forward(dense, x))
    assert np.array_equal(nn.vjp(params, x)[1](np.ones((4, 3)))[1](), nn.vjp(dense, x)[1](np.ones((4, 3)))[1]())


def test_every_part_and_every_step_has_its_own_masks():
    x = np.ones((1, 64))
    same = nn.Params((nn.Dropout(0.5), nn.Params((nn.Dropout(0.5),)), nn.Dropout(0.5)))
    masks = set()
    for seed in (0, 1, (0, 0), (0, 1)):
        first, nested, third = nn.seeded(same, seed).layers
        masks |= {nn.forward(layer, x).tobytes() for layer in (first, nested, third)}
    assert len(masks) == 12
    assert np.array_equal(nn.forward(nn.seeded(same, 5), x), nn.forward(nn.seeded(same, 5), x))


def test_seeded_reaches_any_record_with_a_seed():
    @nn.record
    class Noise:
        level: float
        seed: int | tuple[int, ...] | None = None

    @nn.record
    class Both:
        parts: tuple[nn.Layer, ...]
        extra: nn.Layer = None

    both = nn.seeded(Both((Noise(0.1), nn.Dropout(0.3)), Noise(0.2)), 9)
    assert both == Both((Noise(0.1, (9, 0, 0)), nn.Dropout(0.3, (9, 0, 1))), Noise(0.2, (9, 1)))
    dense = nn.init(0, (2, 2), [nn.tanh])
    assert nn.seeded(dense, 1) == dense


def test_the_network_stays_what_it_was():
    params = nn.seeded(network(), 1)
    assert params.layers[1].activation is nn.tanh
    x = np.ones((3, 6), np.float32)
    thinned = nn.Dropout(np.float64(0.5), 1)
    y, pullback = nn.vjp(thinned, x)
    assert y.dtype == np.float32
    assert pullback(np.ones((3, 6)))[1]().dtype == np.float32
    assert type(thinned.rate) is float


def test_it_refuses_integers_and_bad_seeds():
    for layer in (nn.Dropout(0.5), nn.Dropout(0.5, 1)):
        for rule in (nn.forward, nn.vjp):
            with pytest.raises(TypeError, match="is i64\\[2,2\\], but must hold floats"):
                rule(layer, np.ones((2, 2), int))
    with pytest.raises(ValueError, match="seed is -1"):
        nn.seeded(nn.Dropout(0.5), -1)
