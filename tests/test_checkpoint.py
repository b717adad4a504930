"""Checkpoints: what comes back, what a failure leaves, and what a stranger's file can do (nothing)."""

import errno
import hashlib
import itertools
import json
import math
import os
import re
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import purenn as nn
from purenn import checkpoint
from tests.strategies import FUZZ, little_memory, networks, seeds

PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))
swish = nn.Activation("swish", lambda z: z, lambda z, y, dy: dy)


@nn.record
class Mine(nn.Vector):
    values: nn.Array
    more: tuple[nn.Layer, ...] = ()
    name: str = "mine"
    strides: tuple[int, ...] = (1, 2)


@nn.record
class Dense:
    """Has the name of one of purenn's own."""

    inner: nn.Tree
    activation: nn.Activation = swish


@nn.record
class Newer(nn.Vector):
    """``Mine``, some versions later."""

    values: nn.Array
    more: tuple[nn.Layer, ...]
    name: str
    strides: tuple[int, ...]
    weights: nn.Array = attrs.field(default=(1, 2), converter=lambda value: [0, *value])
    total: int = attrs.field()
    names: tuple[str, ...] = attrs.Factory(tuple)
    doubled: int = attrs.field(
        default=2, converter=attrs.Converter(lambda two, self: two * self.total, takes_self=True)
    )

    @total.default
    def _total(self):
        return sum(self.strides)


RECORDS = (Mine, Dense, swish)


def saved(tree, directory):
    nn.save(directory / "file", tree)
    return (directory / "file").read_bytes()


def opened(file):
    """Return the header of a file, its structure, and the bytes of its arrays."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    return header, json.loads(header["__metadata__"]["tree"]), file[end:]


def signed(header, data=b""):
    """Return the file of a header (a dict, or its text) and bytes, with the digest that fits."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text = re.sub(rb'("sha256": ?")[0-9a-f]{64}', rb"\g<1>" + b"0" * 64, text, count=1)
    file = len(text).to_bytes(8, "little") + text + data
    return file.replace(b"0" * 64, hashlib.sha256(file).hexdigest().encode(), 1)


def with_tree(tree, tensors=(), data=b""):
    """Return a file with a structure, given as text, the descriptions of arrays, and their bytes."""
    metadata = {"format": "purenn 2", "sha256": "0" * 64, "tree": tree}
    return signed({"__metadata__": metadata, **dict(tensors)}, data)


def load(file, directory, **options):
    """Load a file of these bytes; fail if that takes more memory than is promised, or an error names no file."""
    path = directory / "loaded"
    path.write_bytes(file)
    tracemalloc.start()
    try:
        return nn.load(path, **options)
    except nn.CheckpointError as error:
        assert str(error).startswith(f"{path} ")  # noqa: PT017
        raise
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(file) + 30_000_000


# What comes back


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), seeds)
def test_everything_comes_back_equal_and_read_only(tmp_path, params, seed):
    _, state = nn.adam_step(params, params, nn.adam_init(params), 0.1)
    mine = Mine([1, 2], (nn.Dropout(0.2), nn.Dropout(0.1, (seed, 3)), params))
    numbers, texts = (None, True, False, 3, -(2**70), 1e300, -math.inf), ("text\ud800\0",)
    values = (*numbers, *texts, (), (1, (2.5,)), [], {"b": [1], "a": {}})
    tree = (params, state, mine, Dense((mine, np.asarray(seed))), {"loss": params.layers[0].biases}, *values)
    nn.save(tmp_path / "file", tree)
    back = nn.load(tmp_path / "file", records=RECORDS)
    assert Dense(back[:4]) == Dense(tree[:4])
    assert back[5:] == values
    assert [type(value) for value in back] == [type(value) for value in tree]
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(back) if isinstance(leaf, np.ndarray))
    assert back[0].layers[0].activation is params.layers[0].activation


def test_nan_and_numpy_scalars(tmp_path):
    loss = nn.loss(PARAMS, np.ones((1, 4)), np.asarray([0]))
    nn.save(tmp_path / "file", (math.nan, np.float32(1.5), np.int8(3), loss, np.str_("text")))
    nan, single, short, loss, text = nn.load(tmp_path / "file")
    assert type(text) is str and text == "text"
    assert math.isnan(nan) and single.dtype == np.float32 and single == 1.5 and loss.shape == ()
    assert short.dtype == np.int8 and short.shape == () and not short.flags.writeable


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "i8", "u8", "f2", "f4", ">f8"])
def test_arrays_of_all_numbers(tmp_path, dtype):
    for shape in ((2, 3), (0, 4), (), (1,) * 64):
        array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        nn.save(tmp_path / "file", Mine(array.T))
        back = nn.load(tmp_path / "file", records=(Mine,)).values
        assert np.array_equal(back, array.T)
        assert back.dtype == np.dtype(dtype).newbyteorder("=")
        assert not back.flags.writeable


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**4299, 2**62, 1j, b"", float, {1}]),
    st.floats(allow_nan=False), st.text(st.characters(), max_size=300),
    st.sampled_from([nn.relu, nn.Dropout(0.5, 2**70), PARAMS, swish]),
    hnp.arrays(
        st.sampled_from(["?", "i1", "<i4", ">f2", "f8", "c8", "S1", "M8[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=9, min_side=0, max_side=2),
    ),
)  # fmt: skip
records = st.builds(Mine, hnp.arrays("f4", 2)) | st.builds(
    Dense, st.sampled_from([PARAMS, None, (1, (2.0,)), np.ones(2), swish])
)
trees = st.recursive(
    values | records,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def safetensors(path):
    """Return the arrays of a file as the safetensors package reads them."""
    return pytest.importorskip("safetensors.numpy").load_file(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees)
@example(np.zeros((0, 1, 1, 2**62), np.int8))
@example(np.asfortranarray(np.arange(16.0).reshape(2, 2, 2, 2)))
@example({"a": (Mine([1.0], (nn.Params((PARAMS, nn.Dropout(0.5))),)), [np.arange(6).reshape(2, 3).T])})
def test_what_is_saved_can_be_loaded_also_by_safetensors(tmp_path, tree):
    path = tmp_path / "file"
    nn.save(path, PARAMS)
    try:
        nn.save(path, tree)
    except (TypeError, ValueError):
        assert nn.load(path) == PARAMS
        return
    back = nn.load(path, records=RECORDS)
    assert saved(back, tmp_path) == saved(tree, tmp_path)
    leaves = {}
    nn.tree_map_with_path(leaves.__setitem__, tree)
    arrays = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    there = safetensors(path)
    assert there.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(there[name], array) and there[name].dtype == array.dtype.newbyteorder("=")


def test_names_are_paths_in_the_order_of_the_tree_without_gaps(tmp_path):
    file = saved((PARAMS, nn.adam_init(PARAMS), 7), tmp_path)
    header, structure, data = opened(file)
    assert (len(file) - len(data)) % 8 == 0  # aligned, for whoever maps the file into memory
    metadata = header.pop("__metadata__")
    assert list(metadata) == ["format", "sha256", "tree"] and metadata["format"] == "purenn 2"
    assert structure["tuple"][0]["record"][0] == "purenn.Params" and structure["tuple"][2] == 7
    assert [*header][::4] == ["0.layers.0.weights", "1.steps", "1.means.layers.1.biases", "1.squares.layers.1.biases"]
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert [start for start, _ in offsets] == [0, *[end for _, end in offsets[:-1]]] and offsets[-1][1] == len(data)
    assert list(opened(saved(PARAMS, tmp_path))[0])[1:] == [
        "layers.0.weights", "layers.0.biases", "layers.1.weights", "layers.1.biases"
    ]  # fmt: skip
    assert list(opened(saved(np.ones(3), tmp_path))[0])[1:] == [""]


def test_equal_trees_give_equal_files_whatever_is_shared(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    shared = ({"b": array, "a": 1}, [array], array.T)
    apart = ({"b": array.copy(), "a": 1}, [array.copy()], array.copy().T)
    assert saved(shared, tmp_path) == saved(apart, tmp_path) != saved((*shared[:2], array.T.copy()), tmp_path)


def test_products_are_the_same_bits_as_before(tmp_path):
    weights = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    for layout in (weights.T, weights):
        layer = nn.Dense(layout, np.zeros(layout.shape[1], np.float32), nn.identity)
        nn.save(tmp_path / "file", layer)
        back = nn.load(tmp_path / "file")
        assert back.weights.flags.c_contiguous == layer.weights.flags.c_contiguous
        x = np.ones((1, layout.shape[0]), np.float32) / 3
        assert nn.forward(back, x).tobytes() == nn.forward(layer, x).tobytes()


def nested(depth, tree):
    for level in range(depth):
        tree = (tree,) if level % 2 else Dense(tree)
    return tree


def test_the_deepest_tree_that_is_saved_can_be_loaded(tmp_path):
    for deepest in (nested(100, 3), nested(99, ()), nested(98, PARAMS.layers)):
        nn.save(tmp_path / "file", deepest)
        assert nn.load(tmp_path / "file", records=RECORDS) == deepest
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            nn.save(tmp_path / "file", (deepest,))


def test_the_largest_tree_that_is_saved_can_be_loaded(tmp_path):
    low, high = 50_000, 150_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            nn.save(tmp_path / "file", tuple(range(middle)))
            low = middle
        except ValueError as error:
            assert "the header is too long" in str(error)  # noqa: PT017
            high = middle
    assert 90_000 < low < 110_000
    nn.save(tmp_path / "file", tuple(range(low)))
    assert load((tmp_path / "file").read_bytes(), tmp_path) == tuple(range(low))
    for tree in ("x" * 2_000_000, [1] * 1_000_001):
        with pytest.raises(ValueError, match=r"the header is too long|more than 1,000,000 values"):
            nn.save(tmp_path / "file", tree)
    layer = nn.Dense(np.eye(100, dtype=np.float32), np.zeros(100, np.float32), nn.relu)
    nn.save(tmp_path / "file", nn.Params((layer,) * 2_500))
    assert nn.load(tmp_path / "file") == nn.Params((layer,) * 2_500)


def test_trees_that_hold_themselves_are_refused(tmp_path):
    circle, doubled = [], []
    circle.append(circle)
    for _ in range(60):
        doubled = [doubled, doubled]
    for tree in (circle, doubled):
        with pytest.raises(ValueError, match=r"nested more than 100 deep|more than 1,000,000 values"):
            nn.save(tmp_path / "file", tree)


# Your own records and activations


def test_your_own_records_and_activations_are_admitted_by_name(tmp_path):
    tree = (Dense(Mine([1.0])), PARAMS.layers[0])
    file = saved(tree, tmp_path)
    assert load(file, tmp_path, records=RECORDS) == load(file, tmp_path, records=iter(RECORDS)) == tree
    for place, records in {"0": (), "0.activation": (Mine, Dense), "0.inner": (Dense, swish)}.items():
        with pytest.raises(
            nn.CheckpointError, match=rf"loaded: {place} is {{.*, which load does not know \(see records="
        ):
            load(file, tmp_path, records=records)


def test_two_of_one_name_are_refused(tmp_path):
    other = nn.record(type("Mine", (), {"__annotations__": {"values": nn.Array}}))
    with pytest.raises(TypeError, match="two record classes or activations are called Mine; rename one"):
        nn.save(tmp_path / "file", (Mine([1.0]), other([1.0])))
    with pytest.raises(TypeError, match=r"are called purenn\.tanh"):
        nn.save(tmp_path / "file", nn.Activation("purenn.tanh", abs, abs))
    nn.save(tmp_path / "file", (Mine([1.0]), nn.Activation("tanh", abs, abs)))
    with pytest.raises(TypeError, match="are called Mine"):
        nn.load(tmp_path / "file", records=[Mine, other])
    with pytest.raises(TypeError, match=r"are called purenn\.Dense"):
        nn.load(tmp_path / "file", records={"purenn.Dense": Mine})


@pytest.mark.parametrize("wrong", [dict, PARAMS, "Mine"])
def test_what_is_not_a_record_class_is_not_admitted(tmp_path, wrong):
    with pytest.raises(TypeError, match=r"(?s)records holds .*, which is neither a record class nor an activation"):
        nn.load(tmp_path / "file", records=[Mine, wrong])


def renamed(cls):
    """What a pickle of ``Mine`` holds for a class that has its place now."""
    function, (_, fields) = Mine([1.0]).__reduce__()
    return function(cls, fields)


def test_files_outlive_the_code(tmp_path):
    file = saved(Mine([1.0]), tmp_path)
    for new in (load(file, tmp_path, records={"Mine": Newer}), renamed(Newer)):
        assert new == Newer([1.0], (), "mine", (1, 2))
        assert (new.weights.tolist(), new.total, new.names, new.doubled) == ([0, 1, 2], 3, (), 6)
        assert not new.weights.flags.writeable
    file = saved(Newer([1.0], (), "mine", (1, 2)), tmp_path)
    with pytest.raises(nn.CheckpointError, match="the file has doubled, names, total, weights, but Mine does not"):
        load(file, tmp_path, records={"Newer": Mine})
    with pytest.raises(nn.CheckpointError, match="the file has more, name, strides, values, but Dense does not"):
        load(saved(Mine([1.0]), tmp_path), tmp_path, records={"Mine": Dense})
    with pytest.raises(TypeError, match="the file has more, name, strides, values, but Dense does not"):
        renamed(Dense)


# What is refused, and what then helps


class Series:
    """What converts itself to an array, as a Series of pandas or a tensor of PyTorch does."""

    def __array__(self, dtype=None, copy=None):
        return np.ones(3)


def stacked():
    return nn.tree_map(lambda leaf: np.stack([leaf, 2 * leaf]), PARAMS)


CONVERT = r", but a checkpoint holds records, tuples, .*; \.astype, \.real or \.tolist\(\) may convert it$"
KEYS = r"the key .*; keys must be non-empty strings without '\.' or leading '__'"
UNFIT = {  # what it is: the tree, the reason, and what the reason advises
    "complex array": (
        np.ones(2) * 1j, f"the tree is c128.2.{CONVERT}", lambda z: (z.real, z.imag)
    ),
    "complex number": (1j, CONVERT, lambda z: (z.real, z.imag)),
    "ensemble": (
        stacked(), r"layers.0: weights are .* \(if vmap stacked an ensemble here, save its members as a tuple\)",
        lambda tree: tuple(nn.tree_map(lambda leaf, k=k: leaf[k], tree) for k in range(2)),
    ),
    "set": ((1, {"a": {2}}), r"1.a is \{2\}, but a checkpoint holds records, tuples", lambda tree: (1, {"a": [2]})),
    "key with a dot": ({"a.b": 1}, KEYS, lambda tree: {"a_b": 1}),
    **{f"key {key!r}": ({key: 1}, KEYS, None) for key in ("", "__a", 1, "\ud800")},
    "masked": (np.ma.masked_array([1.0]), "filled", lambda array: array.filled(0)),
    **{
        str(tree): (tree, "but a checkpoint holds records", None)
        for tree in (b"a", np.add, nn.Dropout, np.asarray([None]), np.asarray(["a"]))
    },
    "strings in an array": (
        (1, {"a": np.asarray(["a", "b"])}), r"in the tree, item 1\.a is <U1\[2\], but .*; \.tolist\(\) may convert it$",
        lambda tree: (1, {"a": tree[1]["a"].tolist()}),
    ),
    "objects in an array": (np.asarray([None, "a"]), r"; \.tolist\(\) may convert it$", lambda array: array.tolist()),
    "bfloat16": (np.zeros(2, "V2"), CONVERT, None),
    "a table": (np.zeros(2, "i4,f8"), CONVERT, lambda array: array.tolist()),
    "bytes": (np.asarray([b"a"]), CONVERT, lambda array: array.astype(str).tolist()),
    "dates": (np.asarray(["2020-01-01"], "M8"), CONVERT, lambda array: array.astype(str).tolist()),
    "long floats": (np.ones(2, np.longdouble), CONVERT, lambda array: array.astype(float)),
    "bools": (np.asarray([0, 2], np.uint8).view(bool), "the tree has bools that are neither 0 nor 1", lambda b: b != 0),
    "pandas": (Series(), r"nn.tree_map\(np.asarray, tree\)", lambda tree: nn.tree_map(np.asarray, tree)),
    "seed": (
        nn.Dropout(0.5, np.int64(3)), r"replace .* a 0-d array by its \.item\(\)",
        lambda layer: nn.Dropout(0.5, layer.seed.item()),
    ),
    "float16": (nn.tree_map(lambda leaf: leaf.astype(np.float16), PARAMS), "parameters must be all float32", None),
    "int": (10**4300, "4300 digits", None),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, name):
    tree, message, helps = UNFIT[name]
    nn.save(tmp_path / "file", PARAMS)
    with pytest.raises((TypeError, ValueError), match=message):
        nn.save(tmp_path / "file", tree)
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]
    if helps:
        nn.save(tmp_path / "file", helps(tree))
        nn.load(tmp_path / "file")


def test_arrays_of_jax_are_refused_with_the_way_out(tmp_path):
    jnp = pytest.importorskip("jax.numpy", reason="needs the extra 'jax'")
    tree = nn.tree_map(jnp.asarray, PARAMS)
    with pytest.raises(TypeError, match=r"layers.0.weights is f32\[4,3\], .* nn.tree_map\(np.asarray, tree\) converts"):
        nn.save(tmp_path / "file", tree)
    nn.save(tmp_path / "file", nn.tree_map(np.asarray, tree))
    assert nn.load(tmp_path / "file") == PARAMS


# What a failure leaves


STEPS = ["_encoded", "sha256", "fsync", "replace"]
FAILURES = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", FAILURES)
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, step, error):
    nn.save(tmp_path / "file", PARAMS)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr({"sha256": checkpoint.hashlib, "_encoded": checkpoint}.get(step, os), step, fail)
    with pytest.raises(type(error)):
        nn.save(tmp_path / "file", 2 * PARAMS)
    monkeypatch.undo()
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


LACKING = {"EINVAL": ["fsync"], "ENOTSUP": ["fsync", "chmod"], "EACCES": ["open"], "EPERM": ["chmod"]}


@pytest.mark.parametrize(("name", "function"), [(name, f) for name, functions in LACKING.items() for f in functions])
def test_a_file_system_that_lacks_an_extra(tmp_path, monkeypatch, name, function):
    """Of directories, which cannot be opened or synced, or of modes, which cannot be set; the file itself is synced."""
    calls, synced = {f: getattr(os, f) for f in ("open", "fsync", "chmod")}, []

    def lacks(first, *rest, **options):
        mode = calls["fsync"] is calls[function] and os.fstat(first).st_mode
        if function == "chmod" or (function == "open" and os.path.isdir(first)) or (mode and stat.S_ISDIR(mode)):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        synced.append(mode)
        return calls[function](first, *rest, **options)

    monkeypatch.setattr(os, function, lacks)
    for number in (1, 2, 3):
        nn.save(tmp_path / "file", number * PARAMS)
        assert nn.load(tmp_path / "file") == number * PARAMS and os.listdir(tmp_path) == ["file"]
    assert len(synced) == 3 * (function != "chmod") or function == "open"


def test_paths_are_texts_bytes_or_objects(tmp_path):
    for path in (str(tmp_path / "a"), os.fsencode(tmp_path / "b"), tmp_path / "c"):
        nn.save(path, PARAMS)
        assert nn.load(path) == PARAMS
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
    with pytest.raises(nn.CheckpointError, match=f"{tmp_path} is not a regular file"):
        nn.load(os.fsencode(tmp_path))


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EACCES", "EPERM", "EIO"])
def test_a_file_that_cannot_be_synced_is_not_saved(tmp_path, monkeypatch, name):
    nn.save(tmp_path / "file", PARAMS)

    def fail(descriptor):
        raise OSError(getattr(errno, name), "no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        nn.save(tmp_path / "file", 2 * PARAMS)
    assert nn.load(tmp_path / "file") == PARAMS and os.listdir(tmp_path) == ["file"]


def test_dicts_keep_the_order_of_their_keys(tmp_path):
    tree = {"width": np.ones(2), "length": {"b": 1, "a": np.zeros(3)}, "mass": 3}
    nn.save(tmp_path / "file", tree)
    loaded = nn.load(tmp_path / "file")
    assert list(loaded) == ["width", "length", "mass"] and list(loaded["length"]) == ["b", "a"]
    assert (loaded["length"]["a"] == 0).all() and loaded["width"].tolist() == [1, 1]


def test_a_directory_that_cannot_be_synced(tmp_path, monkeypatch):
    calls, fsync = itertools.count(), os.fsync

    def fail_the_second_time(descriptor):
        if next(calls):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    nn.save(tmp_path / "file", 2 * PARAMS)
    monkeypatch.setattr(os, "fsync", fail_the_second_time)
    with pytest.raises(OSError, match="Input/output error"):
        nn.save(tmp_path / "file", PARAMS)
    assert os.listdir(tmp_path) == ["file"]
    assert nn.load(tmp_path / "file") == PARAMS


def test_only_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkdir(tmp_path / "directory")
    for name in ("pipe", "directory"):
        with pytest.raises(OSError, match=f"{name} is not a regular file"):
            nn.save(tmp_path / name, PARAMS)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["directory", "pipe"]


def test_saving_makes_no_copies_of_the_arrays(tmp_path):
    params = nn.init(0, (1000, 2000, 10), (nn.tanh, nn.softmax))
    tracemalloc.start()
    nn.save(tmp_path / "file", params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_permissions_stay(tmp_path):
    nn.save(tmp_path / "file", PARAMS)
    (tmp_path / "any").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "any").stat().st_mode
    for mode in (0o600, 0o664):
        os.chmod(tmp_path / "file", mode)
        nn.save(tmp_path / "file", 2 * PARAMS)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def in_a_process(program, *arguments):
    """Run a program in an interpreter of its own, since JAX, once imported, makes forks unsafe; return its output."""
    program = f"PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))\n{program}"
    imports = "import os, resource, signal, sys, tempfile, time\nimport numpy as np, purenn as nn\n"
    command = [sys.executable, "-c", imports + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


READ_ONLY = """
if os.geteuid() == 0:
    os.seteuid(65534)  # nobody, since root may write everywhere
with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "file")
    nn.save(path, PARAMS)
    os.chmod(directory, 0o555)
    try:
        nn.save(path, 2 * PARAMS)
    except PermissionError:
        print(nn.load(path) == PARAMS, os.listdir(directory))
    os.chmod(directory, 0o755)
"""


def test_a_read_only_directory():
    assert in_a_process(READ_ONLY) == "True ['file']"


LIMITED = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    nn.save(sys.argv[1], nn.init(0, (100, 100), [nn.softmax]))
except OSError as error:
    print(error.errno)
"""


def test_a_file_that_may_not_grow(tmp_path):
    nn.save(tmp_path / "file", PARAMS)
    assert in_a_process(LIMITED, tmp_path / "file") == str(errno.EFBIG)
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


KILLS = 500
KILLED = """
path, kills = sys.argv[1], int(sys.argv[2])
old, new = nn.init(0, (60, 60), [nn.softmax]), nn.init(1, (60, 60), [nn.softmax])
nn.save(path, old)
random, patience, seen = np.random.default_rng(0), 1e-3, [0, 0]
for _ in range(kills):
    child = os.fork()
    if child == 0:
        nn.save(path, new)
        os._exit(0)
    time.sleep(random.uniform(0, 2 * patience))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = nn.load(path)
    assert found in (old, new)
    seen[found == new] += 1
    patience *= 0.9 if found == new else 1 / 0.9  # so that kills come about as often before the end as after it
    nn.save(path, old)
print(*seen)
"""


@pytest.mark.long
def test_killed_at_any_moment_the_file_is_the_old_or_the_new(tmp_path):
    seen = list(map(int, in_a_process(KILLED, tmp_path / "file", KILLS).split()))
    assert sum(seen) == KILLS
    assert min(seen) > 10, seen


SAVES = 200
TWO_WRITERS = """
trees, children = [nn.init(k, (30, 30), [nn.softmax]) for k in range(2)], []
nn.save(sys.argv[1], trees[0])
for tree in trees:
    children.append(os.fork())
    if children[-1] == 0:
        for _ in range(int(sys.argv[2])):
            nn.save(sys.argv[1], tree)
        os._exit(0)
for _ in range(200):
    assert nn.load(sys.argv[1]) in trees
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_two_writers_at_once(tmp_path):
    assert in_a_process(TWO_WRITERS, tmp_path / "file", SAVES) == "0 0"
    assert os.listdir(tmp_path) == ["file"]


def test_a_symbolic_link_stays(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    nn.save(tmp_path / "link", PARAMS)
    nn.save(tmp_path / "link", 2 * PARAMS)
    assert (tmp_path / "link").is_symlink()
    assert nn.load(tmp_path / "target") == 2 * PARAMS


def test_a_system_that_cannot_sync_directories(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    nn.save(tmp_path / "file", PARAMS)
    assert nn.load(tmp_path / "file") == PARAMS


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(nn.CheckpointError, match="pipe is not a regular file"):
        nn.load(tmp_path / "pipe")


def test_a_directory_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        nn.save(tmp_path / "nowhere" / "file", PARAMS)
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "file")


# What a stranger's file can do


SMALL = nn.Params((nn.Dense(np.eye(2, dtype=np.float32), np.ones(2, np.float32), nn.relu),))


def test_every_cut_and_every_changed_byte_is_found(tmp_path):
    file = saved(SMALL, tmp_path)
    for cut in range(len(file)):
        with pytest.raises(nn.CheckpointError):
            load(file[:cut], tmp_path)
    for place in range(len(file)):
        with pytest.raises(nn.CheckpointError):
            load(file[:place] + bytes([file[place] ^ 0x40]) + file[place + 1 :], tmp_path)


TREE = {
    "a": np.arange(3, dtype=np.float32), "b": np.asarray([True, False]), "c": Mine([1, 2], (nn.Dropout(0.5),)),
    "d": nn.Dense(np.eye(1), np.ones(1), nn.tanh), "e": nn.adam_init(np.ones(1)),
}  # fmt: skip
HEADER = {  # what is replaced in the header by what, and the reason that must be given
    "overlapping": ("[12,14]", "[11,13]", "the array 'b' is"),
    "a gap": ("[12,14]", "[13,15]", "the array 'b' is"),
    "beyond the end": ("[14,30]", "[14,3000]", "the array 'c.values' is"),
    "before the start": ("[0,12]", "[-12,0]", "the array 'a' is"),
    "offsets as text": ("[0,12]", '["0","12"]', "the array 'a' is"),
    "wrong size": ('"shape":[3]', '"shape":[4]', "the array 'a' is"),
    "negative shape": ('"shape":[3]', '"shape":[-3,-1]', "the array 'a' is"),
    "shape of floats": ('"shape":[3]', '"shape":[3.0]', "the array 'a' is"),
    "shape of bools": ('"shape":[3]', '"shape":[3,true]', "the array 'a' is"),
    "shape of text": ('"shape":[3]', '"shape":"3"', "cannot be loaded"),
    "no shape": ('"shape":[3],', "", "cannot be loaded"),
    "shape of many": ('"shape":[3]', f'"shape":[3{",1" * 64}]', "the array 'a' is"),
    "more in a description": ('"shape":[3]', '"shape":[3],"x":1', "the array 'a' is"),
    "unknown dtype": ('"F32"', '"F99"', "the array 'a' is {.*'F99', .*}, but must be {.*'U8',"),
    "offsets as floats": ("[0,12]", "[0,12.0]", "the array 'a' is"),
    "offsets as bools": ("[0,12]", "[false,12]", "the array 'a' is"),
    "names in Unicode": ('"a":', '"ä":', "ascii"),
    "a dtype that safetensors has": ('"I64"', '"BF16"', "the array 'c.values' is"),
    "dtype as list": ('"F32"', "[]", "cannot be loaded"),
    "a name twice": ('"b":', '"a":', "a name occurs twice"),
    "another name": ('"b":', '"x":', "the tree lacks {'x'}"),
    "one array more": (
        '"a":', '"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":', "do not have the same arrays"
    ),
    "no structure": ('"tree":', '"trees":', "JSON object must be"),
    "structure that is not JSON": ('"tree":"{', '"tree":"', "cannot be loaded"),
    "structure as number": ('"tree":"', '"tree":3,"x":"', "cannot be loaded"),
    "header that is not JSON": ('{"__meta', '"__meta', "cannot be loaded"),
    "header as list": ("HEADER", "[HEADER]", "cannot be loaded"),
    "other format": ('"purenn 2"', '"purenn 3"', "not a file that purenn.save wrote"),
    "no digest": ('"sha256"', '"sha255"', "not a file that purenn.save wrote"),
    "more after the end": ("HEADER", "HEADER", "the arrays do not end where the file ends"),
    "bools that are neither": ("HEADER", "HEADER", "b has bools that are neither 0 nor 1"),
}  # fmt: skip
STRUCTURE = {  # the same in the structure of the tree
    **{
        f"{new} for {old}": (
            f'"{old}"', f'"{new}"', f"(c|d).* is {{'(record|activation)': .*'{new}'.*which load does not know"
        )
        for old, new in (
            ("Mine", "Yours"), ("Mine", "purenn.Mine"), ("Mine", "os.system"), ("Mine", "purenn.tanh"),
            ("purenn.Dense", "Layer"),
            ("purenn.tanh", "purenn.Dense"), ("purenn.tanh", "purenn.eval"), ("purenn.Dropout", "purenn.Activation"),
        )
    },
    "name that is not text": ('"purenn.tanh"', "[1]", r"d.activation is {'activation': \[1\]}, which load"),
    "field missing": ('"rate":0.5,', "", "c.more.0: Dropout needs the field rate, which the file lacks"),
    "field more": ('"rate":0.5', '"rate":0.5,"rates":1', "c.more.0: the file has rates, but Dropout does not"),
    "field twice": ('"rate":0.5', '"rate":0.5,"rate":0.5', "a name occurs twice"),
    "value out of range": ('"rate":0.5', '"rate":2.0', "c.more.0: rate is 2.0"),
    "value of another type": ('"rate":0.5', '"rate":null', "c.more.0: rate must be a number, not None"),
    "list in a record": ('"name":"mine"', '"name":[]', "name of Mine holds"),
    "dict as tree": ('"more":{"tuple":', '"more":{"dict":{}},"x":{"tuple":', "c: the file has x, but Mine does not"),
    "text for an array": ('"values":{"array":"C"}', '"values":"C"', "do not have the same arrays"),
    "array for text": ('"name":"mine"', '"name":{"array":"C"}', "do not have the same arrays"),
    "another array": ('"a":', '"A":', "do not have the same arrays"),
    "one array twice": ('"b":{"array":"C"}', '"b":{"tuple":[{"array":"C"}]}', "do not have the same arrays"),
    "key with a dot": ('"a":', '"a.b":', "the key 'a.b'"),
    "key with underscores": ('"a":', '"__class__":', "the key '__class__'"),
    "two kinds at once": ('{"array":"C"}', '{"array":"C","tuple":[]}', "a is {'array': 'C', 'tuple': ..}, which load"),
    "unknown order": ('{"array":"C"}', '{"array":"K"}', "a is {'array': 'K'}, which load"),
    "unknown kind": ('{"array":"C"}', '{"set":[]}', "a is {'set': "),
    "empty object": ('{"array":"C"}', "{}", "a is {}, which load"),
    "unknown float": ('{"array":"C"}', '{"float":"1"}', "a is {'float': '1'}"),
    "tuple that is none": ('"strides":{"tuple":[1,2]}', '"strides":{"tuple":3}', "c.strides is {'tuple': 3}"),
    "nested deeply": ('"name":"mine"', f'"name":{"[" * 100}{"]" * 100}', "nested more than 100 deep"),
    "nested very deeply": ('"name":"mine"', f'"name":{"[" * 40_000}{"]" * 40_000}', "recursion|nested more than 100"),
    "an int of many digits": ('"name":"mine"', f'"name":{"7" * 4_301}', "4300 digits"),
    "no JSON": ('"name":"mine"', '"name":-', "cannot be loaded"),
}  # fmt: skip
with tempfile.TemporaryDirectory() as directory:
    FILE = saved(TREE, Path(directory))


@pytest.mark.parametrize(
    ("part", "name"), [("header", name) for name in HEADER] + [("tree", name) for name in STRUCTURE]
)
def test_what_save_does_not_write_is_refused(tmp_path, part, name):
    header, structure, data = opened(FILE)
    assert load(signed(header, data), tmp_path, records=[Mine]).keys() == TREE.keys()
    old, new, message = (HEADER if part == "header" else STRUCTURE)[name]
    compact = json.dumps(structure if part == "tree" else header, separators=(",", ":"))
    changed = new.replace("HEADER", compact) if old == "HEADER" else compact.replace(old, new, 1)
    assert (changed != compact) == (name not in ("more after the end", "bools that are neither"))
    if part == "tree":
        header["__metadata__"]["tree"] = changed
        changed = json.dumps(header)
    data += b"\0" * (name == "more after the end")
    data = data[:12] + b"\2" + data[13:] if name == "bools that are neither" else data
    with pytest.raises(nn.CheckpointError, match=message):
        load(signed(changed.encode(), data), tmp_path, records=[Mine])


EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
HUNGRY = {  # files that want much memory for few bytes
    "lists": with_tree("[" + "[]," * 330_000 + "0]"),
    "lists in lists": with_tree("[" + ("[" * 90 + "]" * 90 + ",") * 5_000 + "0]"),
    "some lists in lists": with_tree("[" + ("[" * 90 + "]" * 90 + ",") * 1_000 + "0]"),
    "objects": with_tree("[" + "{}," * 330_000 + "0]"),
    "names": with_tree("{" + ",".join(f'"{k:x}":0' for k in range(90_000)) + "}"),
    "some names": with_tree('{"dict":{' + ",".join(f'"{k:x}":0' for k in range(49_000)) + "}}"),
    "names in the header": with_tree("0", {f"{k:x}": 0 for k in range(90_000)}),
    "some names in the header": with_tree("0", {f"{k:x}": 0 for k in range(49_000)}),
    "text": with_tree('["\U0001f600' + "a" * 900_000 + '"]'),
    "a long header": with_tree('"' + "a" * 1_100_000 + '"'),
    "spaces": with_tree("0" + " " * 1_100_000),
    "small arrays": with_tree("0", {f"{k}": EMPTY for k in range(20_000)}),
    **{  # names are not copied for every value below them
        f"a long name, {name}": with_tree(f'{{"dict":{{"{"k" * 50_000}":{below}}}}}')
        for name, below in {
            "arrays": "[" + '{"array":"C"},' * 2_000 + "0]", "numbers": "[" + "0," * 90_000 + "0]",
            "depth": "[" * 95 + "]" * 95,
            "fields": '{"record":["purenn.Dropout",{"' + "k" * 500_000 + '":[' + '{"array":"C"},' * 3_000 + "0]}]}",
        }.items()
    },
    "a large array": with_tree('{"array":"C"}', {"": EMPTY | {"shape": [2**40], "data_offsets": [0, 2**40]}}),
    "a long claim": (2**62).to_bytes(8, "little") + b"{}",
    "a long claim in a long file": (4_000_000).to_bytes(8, "little") + b" " * 5_000_000,
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", HUNGRY)
def test_files_that_want_much_memory_are_refused_with_little(tmp_path, name):
    try:
        load(HUNGRY[name], tmp_path)
    except nn.CheckpointError:
        return
    assert name in ("some lists in lists", "some names", "text", "a long name, numbers", "a long name, depth")


def test_loading_makes_no_copies_of_the_arrays(tmp_path):
    for weights in (np.ones((2000, 3000), np.float32), np.ones((3000, 2000), np.float32).T):
        file = saved(weights, tmp_path)
        tracemalloc.start()
        assert np.array_equal(nn.load(tmp_path / "file"), weights)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * len(file)


@st.composite
def mutations(draw):
    """A file with some bytes of its header changed, taken out, or put in from elsewhere, and the digest that fits."""
    end = 8 + int.from_bytes(FILE[:8], "little")
    header = bytearray(FILE[8:end])
    for _ in range(draw(st.integers(1, 4))):
        place, what = draw(st.integers(0, len(header) - 1)), draw(st.integers(0, 3))
        if what == 0:
            header[place] = draw(st.sampled_from(b'[]{},:"\\0129-.eFUInt '))
        elif what == 1:
            del header[place : place + draw(st.integers(1, 20))]
        elif what == 2:
            start = draw(st.integers(0, len(header) - 1))
            header[place:place] = header[start : start + draw(st.integers(1, 40))]
        else:
            numbers = [*re.finditer(rb"\d+", header)]
            number = numbers[draw(st.integers(0, len(numbers) - 1))]
            header[slice(*number.span())] = str(draw(st.sampled_from([0, 1, 2**31, 2**63, 10**400]))).encode()
    return signed(bytes(header), FILE[end:] if draw(st.booleans()) else draw(st.binary(max_size=80)))


def check(tmp_path, file):
    """A file is refused, or gives a tree that can be saved; with little memory."""
    try:
        with little_memory():
            tree = load(file, tmp_path, records=RECORDS)
    except nn.CheckpointError:
        return
    nn.save(tmp_path / "again", tree)


@pytest.mark.long
@settings(max_examples=FUZZ, suppress_health_check=list(HealthCheck), deadline=None)
@given(mutations())
def test_fuzz_signed_nonsense_is_refused_or_valid(tmp_path, file):
    check(tmp_path, file)


FIELDS = ["weights", "biases", "activation", "layers", "rate", "seed", "steps", "means", "squares", "values", "inner"]
nodes = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(
        [{"array": "C"}, {"array": "F"}, {"activation": "nan"}, {"activation": "purenn.relu"}]
    ),
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(inner, max_size=4).map(lambda items: {"tuple": items})
    | st.dictionaries(st.sampled_from(["a", "b", "c.d", ""]), inner).map(lambda items: {"dict": items})
    | st.dictionaries(st.sampled_from(["array", "tuple", "record", "float", "dict", "activation"]), inner, max_size=2)
    | st.tuples(
        st.sampled_from(["purenn.Dense", "purenn.Params", "purenn.Dropout", "purenn.AdamState", "Mine", "Dense"]),
        st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    ).map(lambda pair: {"record": pair}),
    max_leaves=15,
)  # fmt: skip
tensors = st.dictionaries(
    st.sampled_from(["", "a", "0", "0.weights", "weights", "biases", "values", "inner", "layers.0.weights", "steps"]),
    st.tuples(st.sampled_from(["F32", "F64", "I64", "BOOL", "U8"]), st.lists(st.integers(0, 3), max_size=3)),
    max_size=3,
)


@pytest.mark.long
@settings(max_examples=FUZZ, suppress_health_check=list(HealthCheck), deadline=None)
@given(nodes, tensors)
def test_fuzz_structures_are_refused_or_valid(tmp_path, node, tensors):
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * int(re.sub(r"\D", "", dtype) or 8) // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    check(tmp_path, with_tree(json.dumps(node), entries, bytes(end)))


def test_other_errors_are_not_blamed_on_the_file(tmp_path, monkeypatch):
    nn.save(tmp_path / "file", PARAMS)
    for error in (MemoryError, OSError):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(checkpoint, "build_checked", fail)
        with pytest.raises(error):
            nn.load(tmp_path / "file")
