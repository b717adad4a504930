"""Arrays: which are taken, which are copied, which are refused."""

import numpy as np
import pytest

import purenn as nn
from purenn.arrays import max_over_last, read_only
from tests.toys import Holder

X, Y = np.random.default_rng(0).standard_normal((4, 3)), np.asarray([0, 1, 1, 0])
NETWORK = nn.init(0, (3, 2), [nn.softmax], dtype=np.float64)


def test_arrays_that_look_locked_but_are_not_are_copied():
    memory = bytearray(16)
    view = np.frombuffer(memory)
    view.flags.writeable = False
    assert read_only(view) is not view
    assert isinstance(read_only(np.float32(1)), np.ndarray)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_with_other_arithmetic_are_refused_wherever_arrays_are_taken():
    arrays = (
        (np.asmatrix(X), "np.asarray"),
        (np.rec.array(X), "np.asarray"),
        (np.ma.masked_less(X, 0), r"\.filled\(...\)"),
    )
    for array, way_out in arrays:
        calls = [
            lambda x: nn.forward(NETWORK, x), lambda x: nn.vjp(NETWORK, x), lambda x: nn.grads(NETWORK, x, Y),
            lambda x: nn.forward(nn.Dropout(0.5), x), lambda x: nn.vjp(nn.Dropout(0.5), X)[1](x), lambda x: nn.tanh(x),
            lambda x: nn.sgd_step(x, x, 0.1), lambda x: nn.sgd_step(X, x, 0.1), lambda x: nn.global_norm((x,)),
            lambda x: nn.batches(0, x, Y), lambda x: nn.vdot(X, x), lambda x: nn.ravel(x), lambda x: nn.adam_init(x),
            lambda x: nn.tree_map(lambda leaf: leaf, x), lambda x: nn.zeros_like(x), lambda x: Holder(x),
            lambda x: Holder(((x,),)), lambda x: nn.Dense(x, np.zeros(3), nn.relu),
            lambda x: nn.loss(nn.init(0, (3, 3), [nn.identity], np.float64), X, x),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(TypeError, match=f"which computes differently; .*{way_out}"):
                call(array)
    with pytest.raises(TypeError, match=r"MaskedArray.*\.filled\(...\)"):
        nn.accuracy(NETWORK, X, np.ma.masked_equal([-1, 0, 1, 0], -1))


def test_memory_maps_are_arrays(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    for mode in ("r", "r+", "c"):
        x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in "xy")
        assert nn.grads(NETWORK, x, y) == nn.grads(NETWORK, X, Y)
        assert nn.forward(nn.Dropout(0.5), x).tolist() == X.tolist()
        batch = next(nn.batches(0, x, y, 4))
        assert type(batch[0]) is type(batch[1]) is np.ndarray
        assert type(nn.Dense(x[:, :2], np.zeros(2), nn.relu).weights) is np.ndarray
        assert type(nn.sgd_step(x, X, 0.1)) is np.ndarray


@pytest.mark.parametrize("shape", [*((5, k) for k in (1, 2, 10, 32, 33)), (0, 3), (7,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_value_of_each_row_is_numpys(shape, dtype):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    values.flat[1:2] = np.nan
    values.flat[-1:] = np.inf
    for array in (values, np.asfortranarray(values), values[::-1]):
        expected = array.max(axis=-1, keepdims=True)
        found = max_over_last(array)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected, strict=True)
