"""Handwritten digits: IDX files, the bundled digits, the download."""

import gzip
import importlib
import math
import os
import sys
import zlib
from typing import Any, BinaryIO

import numpy as np

from purenn.arguments import brief, describe
from purenn.arrays import Array, lock_in_place
from purenn.records import record

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
"""Where MNIST is downloaded from, in this order."""

FILES = {  # in the order of a Dataset's fields, with the SHA-256 of what the mirrors serve
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""The four files of MNIST, and the SHA-256 of each."""


@record
class Dataset:
    """Images and labels, for training and for testing.

    Attributes
    ----------
    train_images, test_images : array, (n, rows * columns)
        float32; 0 is paper, 1 is ink.
    train_labels, test_labels : array, (n,)
        int64; which digit it is.
    image_shape : tuple of int
        ``(rows, columns)``.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.mnist.digits().image_shape
    (8, 8)
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    image_shape: tuple[int, int]

    def __attrs_post_init__(self) -> None:
        sides = self.image_shape
        if not (isinstance(sides, tuple) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)):
            raise ValueError(f"image_shape is {brief(sides)}, but must be (rows, columns)")
        for images, labels in ((self.train_images, self.train_labels), (self.test_images, self.test_labels)):
            if labels.ndim != 1 or images.shape != (*labels.shape, math.prod(self.image_shape)):
                given = f"images are {describe(images)} and labels {describe(labels)}"
                raise ValueError(f"{given}, but must be (n, {math.prod(sides)}) and (n,) for images of {sides} pixels")


def digits() -> Dataset:
    """Return the bundled digits: 1,797 images of 8x8 pixels, the last fifth for testing.

    Source: Alpaydin & Kaynak 1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49 (CC BY 4.0).

    >>> import purenn as nn
    >>> nn.mnist.digits().train_images.shape
    (1438, 64)
    """
    return load(os.path.join(os.path.dirname(__file__), "data"))


def load(directory: str | os.PathLike[str] | None = None) -> Dataset:
    """Read a data set in the format of MNIST, four IDX files with or without ``.gz``, and return it as a ``Dataset``.

    Parameters
    ----------
    directory : path, optional
        Where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte`` are. Without it: MNIST (LeCun, Cortes & Burges; 60,000 and 10,000 digits of 28x28
        pixels) from the user's cache directory, downloaded once. That needs ``pip install "purenn[examples]"``.

    Raises
    ------
    FileNotFoundError
        If the directory does not hold the four files.
    ValueError
        If a file is damaged, or images and labels do not match.
    ConnectionError
        If no mirror gives the files.
    ImportError
        If a download needs a missing package.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.mnist.load("no such directory")
    Traceback (most recent call last):
    FileNotFoundError: no such directory has neither train-images-idx3-ubyte.gz nor train-images-idx3-ubyte
    """
    paths = _downloaded() if directory is None else [_existing(directory, name) for name in FILES]
    train, test = _read_pair(*paths[:2]), _read_pair(*paths[2:])
    if train[2] != test[2]:
        raise ValueError(f"{paths[0]} has images of {train[2]} pixels, {paths[2]} of {test[2]}")
    return Dataset(*train[:2], *test)


def _read_pair(image_path: str, label_path: str) -> tuple[Array, Array, Any]:
    """Return the images of one file, a row for each, the labels of another, and the shape of an image."""
    images, labels = read_idx(image_path), read_idx(label_path)
    for path, array, rank, what in ((image_path, images, 3, "images"), (label_path, labels, 1, "labels")):
        if array.ndim != rank or array.dtype != np.uint8:
            raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}, not {what}: uint8 with {rank} axes")
    if len(images) != len(labels):
        raise ValueError(f"{image_path} has {len(images):,} images, {label_path} has {len(labels):,} labels")
    if 0 in images.shape:
        raise ValueError(f"{image_path} holds no images: their shape is {images.shape}")
    pixels = np.divide(images.reshape(len(images), -1), np.float32(255), dtype=np.float32)
    return lock_in_place(pixels), lock_in_place(labels.astype(np.int64)), images.shape[1:]


def _existing(directory: str | os.PathLike[str], name: str) -> str:
    for path in (os.path.join(directory, name), os.path.join(directory, name.removesuffix(".gz"))):
        if os.path.exists(path):
            return path
    raise FileNotFoundError(f"{os.fspath(directory)} has neither {name} nor {name.removesuffix('.gz')}")


def _downloaded() -> list[str]:
    """Return the paths of MNIST's files in the user's cache, after downloading those that are missing."""
    try:
        pooch, _ = map(importlib.import_module, ("pooch", "tqdm"))
    except ImportError as error:
        raise ImportError('downloading MNIST needs pooch and tqdm: pip install "purenn[examples]"') from error
    return [_fetched(pooch, name) for name in FILES]


def _fetched(pooch: Any, name: str) -> str:
    # 10 seconds to connect, and between packets
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=10)
    failures = []
    for url in MIRRORS:
        try:
            return str(pooch.retrieve(url + name, FILES[name], name, pooch.os_cache("purenn"), downloader=downloader))
        except (OSError, ValueError) as error:  # no connection, an HTTP status, a wrong hash
            failures.append(f"{url}: {error}")
    ways = "name a directory that has MNIST (nn.mnist.load(DIR), --data DIR), or use nn.mnist.digits() (--data digits)"
    raise ConnectionError("\n  ".join([f"cannot download {name} from any mirror; {ways}. Tried:", *failures]))


# IDX: two zero bytes, the element type, the rank, the size of every axis, the elements; all numbers big-endian

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE_LIMIT = 1032  # a deflated byte expands to at most this many (zlib's technical notes)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read an IDX file of any element type and rank, compressed by gzip or not.

    Returns a read-only array of uint8, int8, int16, int32, float32 or float64, in native byte order. Raises ValueError
    if the file is not an IDX file, or damaged: a wrong header, a body that is shorter or longer than the header says, a
    corrupt gzip stream; OSError if the file cannot be opened.

    >>> import pathlib, purenn as nn, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "labels"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     nn.mnist.read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    with open(path, "rb") as file:
        is_gzip, size = file.peek(2)[:2] == b"\x1f\x8b", os.fstat(file.fileno()).st_size
        try:
            return _parsed(gzip.GzipFile(fileobj=file), size * _DEFLATE_LIMIT) if is_gzip else _parsed(file, size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path} is not an intact IDX file: {error}") from error


def _parsed(stream: BinaryIO | gzip.GzipFile, limit: int) -> Array:
    """Read an array from a stream that cannot give more bytes than a limit."""
    if len(magic := stream.read(4)) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(f"it starts with {magic!r}, not with two zero bytes, an element type, and a rank")
    dtype, rank = np.dtype(_TYPES[magic[2]]), magic[3]
    if len(header := stream.read(4 * rank)) < 4 * rank:
        raise ValueError(f"its header ends before the sizes of its {rank} axes")
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    if (expected := math.prod(shape) * dtype.itemsize) > limit:
        raise ValueError(f"its header promises {expected:,} bytes of elements, more than such a file can hold")
    body = bytearray()
    while len(body) <= expected and (chunk := stream.read(1 << 20)):
        body += chunk
    if len(body) != expected:
        there = f"{len(body):,}" if len(body) < expected else "more"
        raise ValueError(f"its header promises {expected:,} bytes of elements, but there are {there}")
    return lock_in_place(np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("=")))
