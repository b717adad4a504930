"""IDX files, intact and not; the bundled digits; the download."""

import gzip
import hashlib
import http.server
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import purenn as nn

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
FULL = Path(__file__).parents[2] / "shared" / "mnist"


def idx(array):
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


arrays = st.sampled_from(list(CODES)).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
)


@given(array=arrays, compress=st.booleans())
def test_read_idx_is_the_inverse_of_writing(tmp_path_factory, array, compress):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    result = nn.mnist.read_idx(path)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert not result.flags.writeable
    np.testing.assert_array_equal(result, array)


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
HUGE = bytes([0, 0, 0x0E, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
DAMAGED = {
    "empty": (b"", "it starts with b''"),
    "magic": (b"\x01" + GOOD[1:], "not with two zero bytes"),
    "type": (GOOD[:2] + b"\x0a" + GOOD[3:], "not with two zero bytes, an element type"),
    "text": (b"<html>404 Not Found</html>", "it starts with b'<htm'"),
    "two bytes": (GOOD[:2], r"it starts with b'\\x00\\x00', not with"),
    "three bytes": (GOOD[:3], "not with two zero bytes"),
    "short header": (GOOD[:9], "its header ends before the sizes of its 2 axes"),
    "header short of a byte": (GOOD[:11], "its header ends before the sizes of its 2 axes"),
    "truncated": (GOOD[:-1], "promises 12 bytes of elements, .*(there are 11|more than such a file can hold)"),
    "oversized": (GOOD + b"\0", "promises 12 bytes of elements, but there are more"),
    "oversized after a chunk": (
        idx(np.zeros(2**20, np.uint8)) + b"\0",
        "1,048,576 bytes of elements, but there are more",
    ),
    "huge": (HUGE + bytes(100), "promises [0-9,]* bytes of elements, more than such a file can hold"),
    "rank 255": (bytes([0, 0, 8, 255]) + bytes(4 * 255), "intact IDX"),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, case, compress):
    content, message = DAMAGED[case]
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(ValueError, match=message) as info:
        nn.mnist.read_idx(path)
    assert str(path) in str(info.value)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(GOOD, mtime=0)[:-12],  # ends in the stream
        gzip.compress(GOOD, mtime=0)[:-3],  # ends in the trailer
        gzip.compress(GOOD, mtime=0)[:12] + b"\xff\xff\xff" + gzip.compress(GOOD, mtime=0)[15:],
        gzip.compress(GOOD, mtime=0)[:-8] + bytes(8),  # wrong checksum
        gzip.compress(GOOD, mtime=0) + b"garbage",
        b"\x1f\x8b",
    ],
)
def test_a_damaged_gzip_stream_is_named(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is a damaged gzip file"):
        nn.mnist.read_idx(path)


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 20_000_000) + bytes(10)) + bytes(50_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="promises 20,000,000 bytes of elements, but there are 10"):
            nn.mnist.read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_digits():
    data = nn.mnist.digits()
    assert data.train_images.shape == (1438, 64)
    assert data.test_images.shape == (359, 64)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        assert labels.dtype == np.int64
        assert set(labels.tolist()) == set(range(10))
    assert (data.train_images[0].reshape(8, 8)[0] * 16).round().tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert data.train_labels[:5].tolist() == [0, 1, 2, 3, 4]


def write(directory, name, array):
    (directory / name).write_bytes(idx(array))


@pytest.fixture
def small(tmp_path):
    """A directory with a data set of two training and one test image, of 2x3 pixels."""
    write(tmp_path, "train-images-idx3-ubyte", np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    write(tmp_path, "train-labels-idx1-ubyte", np.asarray([7, 9], np.uint8))
    write(tmp_path, "t10k-images-idx3-ubyte", np.full((1, 2, 3), 255, np.uint8))
    write(tmp_path, "t10k-labels-idx1-ubyte", np.asarray([3], np.uint8))
    return tmp_path


def test_load(small):
    for directory in (small, str(small)):
        data = nn.mnist.load(directory)
        np.testing.assert_allclose(data.train_images, np.arange(12).reshape(2, 6) / 255, rtol=1e-6)
        assert data.test_images.tolist() == [[1] * 6]
        assert data.train_labels.tolist() == [7, 9]
        assert data.image_shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "train-labels-idx1-ubyte", np.zeros(3, np.uint8),
            "train-images-.* has 2 images, .*train-labels-.* has 3 labels",
        ),
        ("t10k-labels-idx1-ubyte", np.zeros(0, np.uint8), "t10k-images-.* has 1 images, .*t10k-labels-.* has 0 labels"),
        ("train-images-idx3-ubyte", np.zeros((2, 0, 3), np.uint8), "train-images-.* holds no images: their shape is"),
        ("t10k-labels-idx1-ubyte", np.zeros((1, 1), np.uint8), "t10k-labels-.* holds uint8 of shape .*, not labels"),
        (
            "train-images-idx3-ubyte", np.zeros((2, 6), np.uint8),
            "train-images-.* holds uint8 .*, not images: uint8 with 3",
        ),
        ("train-images-idx3-ubyte", np.zeros((2, 2, 3), np.int16), "train-images-.* holds int16"),
        ("train-images-idx3-ubyte", np.zeros((2, 2, 3), np.int8), "train-images-.* holds int8"),
        (
            "t10k-images-idx3-ubyte", np.zeros((1, 3, 2), np.uint8),
            r"train-images\S* has images of \(2, 3\) pixels, \S*t10k-images\S* of \(3, 2\)$",
        ),
        (
            "train-images-idx3-ubyte", np.zeros((2, 3, 2), np.uint8),
            r"train-images\S* has images of \(3, 2\) pixels, \S*t10k-images\S* of \(2, 3\)$",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_match(small, name, array, message):
    write(small, name, array)
    with pytest.raises(ValueError, match=message):
        nn.mnist.load(small)


def test_images_of_one_row(small):
    write(small, "train-images-idx3-ubyte", np.zeros((2, 1, 6), np.uint8))
    write(small, "t10k-images-idx3-ubyte", np.zeros((1, 1, 6), np.uint8))
    assert nn.mnist.load(small).image_shape == (1, 6)


def test_missing_files(small):
    (small / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither t10k-labels-idx1-ubyte\.gz nor t10k-labels-idx1-ubyte"):
        nn.mnist.load(small)


def test_mnist_itself():
    if not FULL.exists():
        pytest.skip(f"no MNIST in {FULL}")
    data = nn.mnist.load(FULL)
    assert data.train_images.shape == (60000, 784)
    assert data.test_images.shape == (10000, 784)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.image_shape == (28, 28)


def test_a_download_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "purenn\[examples\]"'):
        nn.mnist.load()


@pytest.fixture
def mirrors(small, tmp_path, monkeypatch):
    """Two mirrors on this machine, of which the first has nothing; and an empty cache."""
    pooch = pytest.importorskip("pooch", reason="needs the extra 'examples'")
    pytest.importorskip("tqdm", reason="needs the extra 'examples'")
    served = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=small)

        def log_request(self, code, size=0):
            served.append(int(code))

        def log_error(self, *args):
            pass

    for path in list(small.iterdir()):
        (small / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(nn.mnist, "MIRRORS", (f"{address}nothing/", address))
    sums = {name: hashlib.sha256((small / name).read_bytes()).hexdigest() for name in nn.mnist.FILES}
    monkeypatch.setattr(nn.mnist, "FILES", sums)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_falls_back_to_the_second_mirror_and_happens_once(mirrors):
    data = nn.mnist.load()
    assert data.train_labels.tolist() == [7, 9]
    assert mirrors == 4 * [404, 200]
    del mirrors[:]
    assert nn.mnist.load() == data
    assert mirrors == []


def test_a_download_with_the_wrong_content_is_refused(mirrors, small):
    (small / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ConnectionError, match=r"cannot download train-images.*--data DIR.*--data digits") as info:
        nn.mnist.load()
    assert all(mirror in str(info.value) for mirror in nn.mnist.MIRRORS)
    assert "hash" in str(info.value).lower()


def test_a_cache_that_cannot_be_written(mirrors, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(ConnectionError, match="cannot download"):
        nn.mnist.load()
