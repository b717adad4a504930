"""Hostile input: only the documented errors, whatever is given."""

import contextlib
import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import purenn as nn
from tests.strategies import FUZZ, little_memory

fuzz = settings(max_examples=FUZZ, suppress_health_check=list(HealthCheck), deadline=None)
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2, *range(12)])
PARAMS = nn.init(0, (3, 4, 2), (nn.tanh, nn.softmax))


@st.composite
def mutations(draw, data):
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        if draw(st.booleans()) and data:
            data[place] = draw(st.integers(0, 255))
        elif draw(st.booleans()):
            del data[place : place + draw(st.integers(1, 8))]
        else:
            data[place:place] = draw(st.binary(max_size=8))
    return bytes(data)


def read(function, path):
    """Read files; the only error allowed is a ValueError that names one."""
    try:
        with little_memory():
            return function(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.long
@fuzz
@given(mutations(IDX), st.booleans())
def test_fuzz_idx(tmp_path, data, compressed):
    (tmp_path / "file").write_bytes(gzip.compress(data) if compressed else data)
    array = read(nn.mnist.read_idx, tmp_path / "file")
    assert array is None or not array.flags.writeable


@pytest.mark.long
@fuzz
@given(mutations(gzip.compress(IDX, mtime=0)))
def test_fuzz_gzip(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    read(nn.mnist.read_idx, tmp_path / "file")


LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3])


@pytest.mark.long
@fuzz
@given(st.sampled_from(sorted(nn.mnist.FILES)), st.data())
def test_fuzz_mnist(tmp_path, which, draw):
    for name in nn.mnist.FILES:
        data = LABELS if "labels" in name else IDX
        (tmp_path / name).write_bytes(draw.draw(mutations(data)) if name == which else data)
    data = read(nn.mnist.load, tmp_path)
    assert data is None or data.train_images.shape == (2, 6)


numbers = st.one_of(st.integers(-3, 5), st.floats(-10, 10), st.just(float("nan")), st.just(np.float64(0.5)))
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=st.integers(0, 1),
)
layers = st.sampled_from(
    [PARAMS, PARAMS.layers[0], nn.Dropout(0.5), nn.Dropout(0.5, 1), nn.init(1, (3, 2), [nn.relu]), nn.tanh]
)
things = st.one_of(
    numbers, arrays, layers, st.none(), st.text(max_size=2), st.lists(numbers, max_size=3), st.tuples(arrays, numbers),
    st.tuples(numbers, numbers), st.just(nn.relu), st.just((nn.relu, nn.softmax)), st.just((3, 2)), st.just({"a": 1}),
    st.just(np.add), st.just(np.negative), st.just(nn.adam_init(PARAMS)),
    st.sampled_from([["a", "b"], [None], [float("nan")], [0, 1]]).map(lambda items: np.asarray(items, object)),
    st.sampled_from([["a", "b"], [0, 1]]).map(np.asarray),
    st.builds(np.ones, st.just((2, 3)), st.just(np.float32)),
)  # fmt: skip
CALLS = {
    name: getattr(nn, name)
    for name in nn.__all__
    if callable(getattr(nn, name))
    and name not in ("Array", "CheckpointError", "Layer", "Seed", "Tree", "load", "record", "save")
} | {"Dataset": nn.mnist.Dataset}


@pytest.mark.long
@fuzz
@given(st.sampled_from(sorted(CALLS)), st.lists(things, min_size=1, max_size=4), layers)
def test_fuzz_public_functions(name, arguments, layer):
    for first in ([], [layer]):
        with contextlib.suppress(ValueError, TypeError), little_memory():
            result = CALLS[name](*first, *arguments)
            if name in ("vjp", "logits_vjp"):
                result[1](arguments[-1])[1]()
            elif name == "batches":
                list(result)
