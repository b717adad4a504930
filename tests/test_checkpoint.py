"""Checkpoints: what comes back, what a failure leaves, and what a stranger's file can do (nothing)."""

import base64
import errno
import hashlib
import io
import itertools
import math
import os
import pickle
import pickletools
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import purenn as nn
from purenn import checkpoint
from tests.strategies import networks, seeds
from tests.test_fuzz import little_memory

PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))


@nn.record
class Mine:
    values: nn.Array
    more: tuple[nn.Layer, ...] = ()
    name: str = "mine"
    strides: tuple[int, ...] = (1, 2)


@nn.record
class Empty:
    pass


@nn.record
class Stubborn:
    values: nn.Array

    def __reduce__(self):
        return Stubborn, (self.values,)


@nn.record
class Other:
    first: nn.Tree
    second: nn.Tree


def sign(body):
    """Return a file with this body, as ``save`` would end it."""
    return body + checkpoint._MAGIC + hashlib.sha256(body).digest()


def body_of(tree):
    stream = io.BytesIO()
    checkpoint._Pickler(stream, protocol=5).dump(tree)
    return stream.getvalue()


def load(data, directory, **options):
    """Load a file of these bytes; fail if that takes more memory than is promised."""
    path = directory / "file"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        return nn.load(path, **options)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(data) + 10_000_000


# What comes back


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), seeds)
def test_everything_comes_back_equal_and_read_only(tmp_path, params, seed):
    _, state = nn.adam_step(params, params, nn.adam_init(params), 0.1)
    mine = Mine([1, 2], (nn.Dropout(0.2), nn.Dropout(0.1, (seed, 3)), params))
    tree = (params, state, mine, None, True, False, 3, -(2**70), 1e300, "text", (), (1, (2.5,)), np.asarray(seed % 100))
    nn.save(tmp_path / "file", tree)
    back = nn.load(tmp_path / "file", records=(Mine,))
    assert back[:-1] == tree[:-1]
    assert back[-1] == tree[-1]
    assert back[4] is True and back[5] is False
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(back) if isinstance(leaf, np.ndarray))
    assert back[0].layers[0].activation is params.layers[0].activation
    plain = pickle.loads((tmp_path / "file").read_bytes())
    assert plain[:-1] == tree[:-1]
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(plain) if isinstance(leaf, np.ndarray))


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "i8", "f2", "f4", ">f8", "c8", "c16"])
def test_arrays_of_all_numbers(tmp_path, dtype):
    for shape in ((2, 3), (0, 4), (), (1,) * 64):
        array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        nn.save(tmp_path / "file", Mine(array.T))
        back = nn.load(tmp_path / "file", records=(Mine,)).values
        assert np.array_equal(back, array.T)
        assert back.dtype == np.dtype(dtype).newbyteorder("=")


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2030, 2050).map(lambda bits: -(2**bits)), st.sampled_from([2**62, 1j, b""]),
    st.floats(allow_nan=False), st.text(st.characters(), max_size=300), st.sampled_from([nn.relu, nn.Dropout(0.5, 2**70), PARAMS, Empty()]),
    hnp.arrays(st.sampled_from(["?", "i1", "i4", "f2", "f8", "c8", "S1", "M8[s]"]), hnp.array_shapes(min_dims=0, max_dims=9, min_side=0, max_side=2)),
)  # fmt: skip
trees = st.recursive(
    values, lambda inner: st.lists(inner, max_size=5).map(tuple) | st.builds(Other, inner, inner), max_leaves=20
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees)
@example(np.zeros((0, 1, 1, 2**62), np.int8))
@example(np.asfortranarray(np.zeros((2, 2, 2, 2))))
@example(nn.leaky_relu)
def test_what_is_saved_can_be_loaded(tmp_path, tree):
    path = tmp_path / "file"
    nn.save(path, PARAMS)
    try:
        nn.save(path, tree)
    except (TypeError, ValueError):
        assert nn.load(path) == PARAMS
    else:
        assert Other(nn.load(path, records=(Empty, Other)), ()) == Other(tree, ())
        with open(path, "rb") as file:
            reader = checkpoint._Reader(file, checkpoint._checked_size(file)[0], (Empty, Other))
            reader.read()
        assert checkpoint._most_parts(reader.size) - reader.parts_left <= checkpoint._parts(tree)


def test_products_are_the_same_bits_as_before(tmp_path):
    weights = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    for layout in (weights.T, weights):
        layer = nn.Dense(layout, np.zeros(layout.shape[1], np.float32), nn.identity)
        nn.save(tmp_path / "file", layer)
        back, plain = nn.load(tmp_path / "file"), pickle.loads((tmp_path / "file").read_bytes())
        assert back.weights.flags.c_contiguous == plain.weights.flags.c_contiguous == layer.weights.flags.c_contiguous
        x = np.ones((1, layout.shape[0]), np.float32) / 3
        assert nn.forward(back, x).tobytes() == nn.forward(plain, x).tobytes() == nn.forward(layer, x).tobytes()


def test_ints_have_at_most_255_bytes(tmp_path):
    nn.save(tmp_path / "file", 2**2039 - 1)
    assert nn.load(tmp_path / "file") == 2**2039 - 1
    with pytest.raises(ValueError, match="an int of more than 255 bytes"):
        nn.save(tmp_path / "file", 2**2039)


def nested(depth, tree):
    return nested(depth - 1, (tree,)) if depth else tree


@pytest.mark.parametrize("leaf", [3, (), nn.relu, PARAMS, Empty(), nn.init(0, (1, 1), [nn.softmax])])
def test_the_deepest_tree_that_is_saved_can_be_loaded(tmp_path, leaf):
    for depth in range(90, 100):
        try:
            nn.save(tmp_path / "file", nested(depth, leaf))
        except ValueError as error:
            assert "nested more than 100 deep" in str(error)  # noqa: PT017
            break
        assert nn.load(tmp_path / "file", records=(Empty,)) == nested(depth, leaf)
    assert depth > (98 if leaf == 3 else 92)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        nn.save(tmp_path / "file", nested(100, leaf))
    with pytest.raises(nn.CheckpointError, match="nested more than 100 deep"):
        load(sign(body_of(nested(100, leaf))), tmp_path, records=(Empty,))


def test_records_are_levels_of_nesting_too(tmp_path):
    tree = 3
    for _ in range(99):
        tree = Other(tree, ())
    nn.save(tmp_path / "file", tree)
    assert nn.load(tmp_path / "file", records=(Other,)) == tree
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        nn.save(tmp_path / "file", Other(tree, ()))


def test_the_largest_tree_that_is_saved_can_be_loaded(tmp_path):
    layers = tuple(nn.init(k, (1, 1), [nn.relu]).layers[0] for k in range(900))
    nn.save(tmp_path / "file", nn.Params(layers))
    assert nn.load(tmp_path / "file") == nn.Params(layers)
    nn.save(tmp_path / "file", tuple(range(49_000)))
    assert nn.load(tmp_path / "file") == tuple(range(49_000))
    items = ("textext", 1.5, 2**50, None)  # the first is taken from the memo
    low, high = 50_000, 52_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            nn.save(tmp_path / "file", tuple(itertools.islice(itertools.cycle(items), middle)))
            low = middle
        except ValueError:
            high = middle
    largest, larger = (tuple(itertools.islice(itertools.cycle(items), count)) for count in (low, high))
    assert 2 + low == checkpoint._most_parts(len(body_of(largest)))
    with pytest.raises(nn.CheckpointError, match="more values than a checkpoint of its size"):
        load(sign(body_of(larger)), tmp_path)
    nn.save(tmp_path / "file", largest)
    assert nn.load(tmp_path / "file") == largest
    for tree in (tuple(range(51_000)), "x" * 420_000, (PARAMS,) * 1000):
        with pytest.raises(ValueError, match="values outside of arrays; put numbers into arrays"):
            nn.save(tmp_path / "file", tree)
    assert os.listdir(tmp_path) == ["file"]
    assert nn.load(tmp_path / "file") == largest


def test_many_layers_with_large_arrays(tmp_path):
    layer = nn.Dense(np.eye(100, dtype=np.float32), np.zeros(100, np.float32), nn.relu)
    layers = [nn.tree_map(lambda leaf, k=k: leaf + np.float32(k), layer) for k in range(1500)]
    nn.save(tmp_path / "file", nn.Params(tuple(layers)))
    assert nn.load(tmp_path / "file") == nn.Params(tuple(layers))


def test_what_is_shared_is_saved_once(tmp_path):
    layer = nn.init(0, (100, 100), [nn.tanh]).layers[0]
    nn.save(tmp_path / "file", nn.Params((layer, layer)))
    assert (tmp_path / "file").stat().st_size < 41_500
    assert nn.load(tmp_path / "file") == nn.Params((layer, layer))


def test_sizes():
    params = nn.init(0, (784, 128, 64, 10), (nn.tanh, nn.relu, nn.softmax))
    arrays = sum(leaf.nbytes for leaf in nn.tree_leaves(params))
    assert len(body_of(params)) < arrays + 2000
    for protocol in range(2, 6):
        assert pickle.loads(pickle.dumps(params, protocol)) == params
    assert len(pickle.dumps(params)) < arrays + 2000


def test_out_of_band_buffers_are_not_copied():
    buffers = []
    data = pickle.dumps(PARAMS, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 4
    back = pickle.loads(data, buffers=buffers)
    assert back == PARAMS
    assert np.shares_memory(back.layers[0].weights, PARAMS.layers[0].weights)
    assert not back.layers[0].weights.flags.writeable


# What a failure leaves


@pytest.mark.parametrize(
    "tree",
    [object(), [1, 2], {"a": 1}, {1, 2}, b"bytes", lambda x: x, np.float32, np.asarray([None]), np.asarray(["a"]),
     (1, [2]), nn.Dense(np.eye(2), np.zeros(2), nn.Activation("own", np.sin, np.cos)), np.float32(1), 1j, Empty,
     nn.tree_map(lambda leaf: leaf.astype(np.float16), PARAMS), nn.tree_map(lambda leaf: leaf[0], PARAMS)],
)  # fmt: skip
def test_what_could_not_be_loaded_is_not_saved(tmp_path, tree):
    nn.save(tmp_path / "file", PARAMS)
    with pytest.raises((TypeError, ValueError), match=r"checkpoint|parameters must be|must have the shapes"):
        nn.save(tmp_path / "file", tree)
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


STEPS = ["dump", "fsync", "replace", "write"]
FAILURES = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", FAILURES)
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, step, error):
    nn.save(tmp_path / "file", PARAMS)

    def fail(*_, **__):
        raise error

    owner = {"dump": checkpoint._Pickler, "write": checkpoint._Sink}.get(step, os)
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(type(error)):
        nn.save(tmp_path / "file", 2 * PARAMS)
    monkeypatch.undo()
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


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


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkdir(tmp_path / "directory")
    for name in ("pipe", "directory"):
        with pytest.raises(OSError, match=f"{name} is no regular file"):
            nn.save(tmp_path / name, PARAMS)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["directory", "pipe"]


def test_a_class_that_pickles_in_its_own_way_is_saved_like_all_others(tmp_path):
    nn.save(tmp_path / "file", Stubborn([1.0]))
    assert nn.load(tmp_path / "file", records=(Stubborn,)) == Stubborn([1.0])


def test_a_class_that_has_no_name_to_find_it_by(tmp_path):
    nn.save(tmp_path / "file", PARAMS)
    local = nn.record(type("Local", (), {"__annotations__": {"values": nn.Array}}))
    with pytest.raises(TypeError, match="a record class must be found by its name"):
        nn.save(tmp_path / "file", local([1.0]))
    assert nn.load(tmp_path / "file") == PARAMS


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


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(nn.CheckpointError, match="pipe is no regular file"):
        nn.load(tmp_path / "pipe")


def test_pickle_alone_reads_what_was_saved(tmp_path):
    nn.save(tmp_path / "file", PARAMS)
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')))"
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{PARAMS}\n"


def test_a_directory_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        nn.save(tmp_path / "nowhere" / "file", PARAMS)
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "file")


# What a stranger's file can do


SMALL = sign(body_of(nn.init(0, (2, 2), [nn.softmax])))


def test_every_truncation_and_every_changed_byte_is_found(tmp_path):
    data = SMALL
    for cut in range(len(data)):
        with pytest.raises(nn.CheckpointError, match="is no checkpoint that can be loaded"):
            load(data[:cut], tmp_path)
    for place in range(len(data)):
        with pytest.raises(nn.CheckpointError):
            load(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :], tmp_path)


BODY = body_of((PARAMS, nn.adam_init(PARAMS), Mine([1.0], (nn.Dropout(0.5, (1, 2)),)), 1, 2.5, None, (True, "text")))


@st.composite
def mutations(draw):
    """The body of a file with some bytes changed, taken out, or put in from elsewhere."""
    body = bytearray(BODY)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(body) - 1))
        what = draw(st.integers(0, 3))
        if what == 0:
            body[place] = draw(st.integers(0, 255))
        elif what == 1:
            del body[place : place + draw(st.integers(1, 20))]
        elif what == 2:
            start = draw(st.integers(0, len(BODY) - 1))
            body[place:place] = BODY[start : start + draw(st.integers(1, 40))]
        else:
            body[place : place + 4] = struct.pack("<I", draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1])))
    return bytes(body)


FUZZ = max(2_000, settings().max_examples)


@settings(max_examples=FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mutations())
def test_fuzz_signed_nonsense_is_refused_or_valid(tmp_path, body):
    (tmp_path / "file").write_bytes(sign(body))
    try:
        with little_memory():
            tree = nn.load(tmp_path / "file", records=(Mine,))
    except nn.CheckpointError:
        return
    nn.save(tmp_path / "again", tree)


class Evil:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def reduced(function, *arguments):
    return pickle.dumps(Evil(function, arguments), protocol=5)


def raw(*parts):
    return b"".join(parts)


def text(string):
    encoded = string.encode(errors="surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


CANARY = os.path.join(tempfile.gettempdir(), f"purenn-canary-{os.getpid()}")
TOUCH = f"import pathlib; pathlib.Path({CANARY!r}).touch()"


def by_name(module, name, *arguments):
    """Call anything by name, protocol 4."""
    return raw(text(module), text(name), pickle.STACK_GLOBAL, *arguments)


ARGUMENT = raw(text(TOUCH), pickle.TUPLE1)
DENSE = by_name("purenn.layers", "Dense")
RECORD = by_name("purenn.records", "unpickle_record")


def record(name, *fields):
    """Make a record of a class of purenn's layers from instructions for the names and values of its fields."""
    return raw(
        RECORD,
        by_name("purenn.dropout" if name == "Dropout" else "purenn.layers", name),
        pickle.EMPTY_DICT,
        pickle.MARK,
        *fields,
        pickle.SETITEMS,
        pickle.TUPLE2,
        pickle.REDUCE,
    )


def f32(*shape):
    sides = raw(*[pickle.BININT1 + bytes([side]) for side in shape], (pickle.TUPLE1, pickle.TUPLE2)[len(shape) - 1])
    return raw(
        by_name("purenn.checkpoint", "array"),
        text("<f4"),
        sides,
        pickle.SHORT_BINBYTES,
        b"\x04",
        bytes(4),
        pickle.TUPLE3,
        pickle.REDUCE,
    )


OWN_ACTIVATION = raw(
    RECORD, by_name("purenn.activations", "Activation"), pickle.EMPTY_DICT, pickle.MARK, text("name"), text("tanh"),
    text("function"), RECORD, text("pullback"), RECORD, pickle.SETITEMS, pickle.TUPLE2, pickle.REDUCE,
)  # fmt: skip
DROPOUT = raw(record("Dropout", text("rate"), pickle.BINFLOAT, bytes(8), text("seed"), pickle.NONE), pickle.MEMOIZE)


def recall(number):
    return pickle.BINGET + bytes([number])


def params(layers):
    """Make a network of the one layer, or the two, that these instructions give."""
    return record("Params", text("layers"), layers, pickle.TUPLE1 if len(layers) == 2 else pickle.TUPLE2)


NESTED = recall(0)
for _ in range(60):  # a network is one level, the tuple of its layers another
    NESTED = record("Params", text("layers"), NESTED, pickle.TUPLE1)

ATTACKS = {
    "os.system": reduced(os.system, f"touch {CANARY}"),
    "exec": reduced(exec, TOUCH),
    "eval": reduced(eval, f"open({CANARY!r}, 'w')"),
    "open": reduced(open, CANARY, "w"),
    "getattr": raw(by_name("builtins", "getattr"), DENSE, text("__init__"), pickle.TUPLE2, pickle.REDUCE, b"."),
    "import": reduced(__import__, "antigravity"),
    "GLOBAL, protocol 0": raw(b"cos\nsystem\n(S'touch ", CANARY.encode(), b"'\ntR."),
    "INST": raw(pickle.MARK, text(f"touch {CANARY}"), b"ios\nsystem\n."),
    "OBJ": raw(pickle.MARK, DENSE, text(TOUCH), pickle.OBJ, b"."),
    "NEWOBJ": raw(DENSE, pickle.EMPTY_TUPLE, pickle.NEWOBJ, b"."),
    "NEWOBJ_EX": raw(DENSE, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.NEWOBJ_EX, b"."),
    "BUILD sets attributes": raw(DENSE, pickle.EMPTY_DICT, text("fan_in"), pickle.NONE, pickle.SETITEM, pickle.BUILD, b"."),
    "BUILD on a function": raw(by_name("purenn.records", "unpickle_record"), pickle.EMPTY_DICT, pickle.BUILD, b"."),
    "a name that is none": raw(pickle.NONE, pickle.NONE, pickle.STACK_GLOBAL, b"."),
    "dotted name": raw(by_name("purenn.records", "np.save"), ARGUMENT, pickle.REDUCE, b"."),
    "dotted attribute": raw(by_name("purenn.layers", "Dense.__init__.__globals__"), b"."),
    "subclasses": raw(by_name("purenn.layers", "Dense.__subclasses__"), pickle.EMPTY_TUPLE, pickle.REDUCE, b"."),
    "a module of the package": raw(by_name("purenn.checkpoint", "os"), b"."),
    "another function of the package": raw(by_name("purenn.mnist", "read_idx"), ARGUMENT, pickle.REDUCE, b"."),
    "pickle within": raw(by_name("pickle", "loads"), ARGUMENT, pickle.REDUCE, b"."),
    "extension registry": raw(pickle.EXT1, b"\x01", b"."),
    "extension registry, 2": raw(pickle.EXT2, b"\x01\x00", b"."),
    "extension registry, 4": raw(pickle.EXT4, b"\x01\x00\x00\x00", b"."),
    "persistent id": raw(b"Pid\n."),
    "persistent id, binary": raw(text("id"), pickle.BINPERSID, b"."),
    "a class called": raw(DENSE, ARGUMENT, pickle.REDUCE, b"."),
    "an activation called": raw(by_name("purenn.activations", "tanh"), ARGUMENT, pickle.REDUCE, b"."),
    "an activation as record": raw(by_name("purenn.records", "unpickle_record"), by_name("purenn.activations", "tanh"), pickle.EMPTY_DICT, pickle.TUPLE2, pickle.REDUCE, b"."),
    "an activation of one's own": raw(OWN_ACTIVATION, b"."),
    "an activation of one's own in a layer": raw(record("Dense", text("weights"), f32(1, 1), text("biases"), f32(1), text("activation"), OWN_ACTIVATION), b"."),
    "any class as record": raw(by_name("purenn.records", "unpickle_record"), by_name("builtins", "type"), pickle.EMPTY_DICT, pickle.TUPLE2, pickle.REDUCE, b"."),
    "object array": raw(by_name("purenn.checkpoint", "array"), text("|O"), pickle.BININT1, b"\x01", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x08", b"A" * 8, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array of records": raw(by_name("purenn.checkpoint", "array"), text("f4,O"), pickle.BININT1, b"\x01", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x0c", b"A" * 12, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array larger than its bytes": raw(by_name("purenn.checkpoint", "array"), text("<f4"), pickle.BININT, b"\xff\xff\xff\x7f", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array smaller than its bytes": raw(by_name("purenn.checkpoint", "array"), text("<f4"), pickle.EMPTY_TUPLE, pickle.SHORT_BINBYTES, b"\x08", b"A" * 8, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array of a shape that is none": raw(by_name("purenn.checkpoint", "array"), text("<f4"), pickle.SHORT_BINBYTES, b"\x01\x01", pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array of an order that is none": raw(by_name("purenn.checkpoint", "array"), pickle.MARK, text("<f4"), pickle.EMPTY_TUPLE, pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, text("K"), pickle.TUPLE, pickle.REDUCE, b"."),
    "array of negative shape": raw(by_name("purenn.checkpoint", "array"), text("<f4"), pickle.BININT, b"\xff\xff\xff\xff", pickle.BININT, b"\xff\xff\xff\xff", pickle.TUPLE2, pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, pickle.TUPLE3, pickle.REDUCE, b"."),
    "NumPy's own reconstruction": pickle.dumps(np.zeros(3), protocol=4),
    "a plain pickle of parameters": pickle.dumps(PARAMS, protocol=5),
    "out-of-band buffer": raw(pickle.NEXT_BUFFER, b"."),
    "a string of claimed length": raw(pickle.BINUNICODE8, struct.pack("<Q", 2**62), b"."),
    "bytes of claimed length": raw(pickle.BINBYTES8, struct.pack("<Q", 2**62), b"."),
    "a frame of claimed length": raw(pickle.PROTO, b"\x05", pickle.FRAME, struct.pack("<Q", 2**62)),
    "a memo of claimed size": raw(pickle.NONE, pickle.LONG_BINPUT, struct.pack("<I", 2**31), b"."),
    "tuples that double": raw(pickle.NONE, *[pickle.DUP + pickle.TUPLE2] * 60, b"."),
    "tuples that double, by memo": raw(pickle.NONE, pickle.MEMOIZE, *[pickle.BINGET + bytes([k]) + pickle.TUPLE2 + pickle.MEMOIZE for k in range(60)], b"."),
    "tuples nested deeply": raw(pickle.NONE, pickle.TUPLE1 * 200_000, b"."),
    "records nested deeply": raw(DROPOUT, NESTED, b"."),
    "a set": pickle.dumps({1, 2}, protocol=5),
    "a list": pickle.dumps([1, 2], protocol=5),
    "a complex number": pickle.dumps(1j, protocol=5),
    "a dictionary": raw(pickle.EMPTY_DICT, b"."),
    "fields that are shared": raw(pickle.EMPTY_DICT, pickle.MEMOIZE, pickle.BINGET, b"\x00", pickle.TUPLE2, b"."),
    "bytes that are used again": raw(pickle.SHORT_BINBYTES, b"\x01a", pickle.MEMOIZE, recall(0), pickle.TUPLE2, b"."),
    "fields that are used again": raw(
        RECORD, by_name("purenn.dropout", "Dropout"), pickle.EMPTY_DICT, pickle.MARK, text("rate"), pickle.BINFLOAT, bytes(8), text("seed"), pickle.NONE,
        pickle.SETITEMS, pickle.TUPLE2, pickle.MEMOIZE, pickle.REDUCE, RECORD, recall(0), pickle.REDUCE, pickle.TUPLE2, b".",
    ),
    "fields with numbers for names": raw(pickle.EMPTY_DICT, pickle.NONE, pickle.NONE, pickle.SETITEM, b"."),
    "fields in two places": raw(pickle.EMPTY_DICT, text("a"), pickle.NONE, pickle.SETITEM, text("b"), pickle.NONE, pickle.SETITEM, b"."),
    "fields given twice": raw(pickle.EMPTY_DICT, pickle.MARK, *[text("a"), pickle.NONE] * 2, pickle.SETITEMS, b"."),
    "a field without value": raw(pickle.EMPTY_DICT, pickle.MARK, text("a"), pickle.SETITEMS, b"."),
    "records that double": raw(DROPOUT, *[raw(params(recall(k) * 2), pickle.MEMOIZE) for k in range(22)], b"."),
    "a large record in many": raw(
        DROPOUT, *[raw(params(recall(k) * 2), pickle.MEMOIZE) for k in range(8)],
        pickle.MARK, *[params(recall(8)) for _ in range(2_000)], pickle.TUPLE, b".",
    ),
    "a large record, nested": raw(
        DROPOUT, *[raw(params(recall(k) * 2), pickle.MEMOIZE) for k in range(8)], *[raw(params(recall(k)), pickle.MEMOIZE) for k in range(8, 60)], b".",
    ),
    "a shape of many large numbers": raw(
        by_name("purenn.checkpoint", "array"), text("<f4"), pickle.MARK, (pickle.BININT + b"\xff\xff\xff\x7f") * 5_000, pickle.TUPLE,
        pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, pickle.TUPLE3, pickle.REDUCE, b".",
    ),
    "a class as value": raw(DENSE, b"."),
    "a record class without fields as value": raw(by_name("tests.test_checkpoint", "Empty"), b"."),
    "a function as value": raw(RECORD, b"."),
    "bytes as value": raw(pickle.SHORT_BINBYTES, b"\x01a."),
    "nothing": b".",
    "an empty file": b"",
    "two values": raw(pickle.NONE, pickle.NONE, b"."),
    "escapes for a terminal": raw(by_name("os", "x\x1b[2J\nno error\ud800"), b"."),
    "an image of many pixels": raw(
        RECORD, by_name("purenn.mnist", "Dataset"), pickle.EMPTY_DICT, pickle.MARK,
        *[raw(text(f"{part}_images"), f32(1, 1), text(f"{part}_labels"), f32(1)) for part in ("train", "test")],
        text("image_shape"), text("a"), pickle.BININT, b"\xff\xff\xff\x7f", pickle.TUPLE2, pickle.SETITEMS, pickle.TUPLE2, pickle.REDUCE, b".",
    ),
    "booleans of other bytes": raw(by_name("purenn.checkpoint", "array"), text("|b1"), pickle.BININT1, b"\x01", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x01\x02", pickle.TUPLE3, pickle.REDUCE, b"."),
    "names of fields that collide": raw(
        pickle.EMPTY_DICT, pickle.MARK, *[raw(pickle.LONG1, b"\x10", (k * (2**61 - 1)).to_bytes(16, "little"), pickle.NONE) for k in range(1, 5_000)], pickle.SETITEMS, b".",
    ),
    "names of fields that collide, in no fields": raw(
        RECORD, DENSE, pickle.MARK, *[raw(pickle.LONG1, b"\x10", (k * (2**61 - 1)).to_bytes(16, "little")) for k in range(1, 5_000)],
        pickle.TUPLE, pickle.TUPLE2, pickle.REDUCE, b".",
    ),
    "a value kept twice": raw(pickle.NONE, pickle.MEMOIZE, text("a"), pickle.MEMOIZE, pickle.MEMOIZE, pickle.TUPLE2, b"."),
    "an open mark": raw(pickle.MARK, pickle.NONE, b"."),
    "more after the end": raw(pickle.NONE, b".", b"cos\nsystem\n."),
    "text that is none": raw(pickle.SHORT_BINUNICODE, b"\x02\xff\xfe", b"."),
    "memo that is empty": raw(pickle.BINGET, b"\x00", b"."),
}  # fmt: skip


NO_NAMES, NO_VALUE = (
    "names of fields that are no names, or one twice",
    "which is no record, array, tuple, string or number",
)
CAUSES = {
    "os.system": r"it needs '\w+.system', which is not among the records to load \(at byte \d\d\)",
    "GLOBAL, protocol 0": r"it has the instruction b'c' \(at byte 1\)",
    "dotted name": r"it needs 'purenn.records.np.save', which is not among the records to load",
    "a name that is none": r"it has NoneType where it should have str \(at byte 3\)",
    "a class called": "it calls <class 'purenn.layers.Dense'>",
    "an activation as record": r"it makes a record of \(Activation, _Fields\)",
    "object array": r"it has an array of '\|O'",
    "array larger than its bytes": r"it has an array of the shape \(2147483647\), but not its bytes",
    "array smaller than its bytes": r"it has an array of the shape \(\), but not its bytes",
    "array of negative shape": r"it has an array of '<f4' and \(-1, -1\)",
    "booleans of other bytes": "it has booleans that are neither false nor true",
    "bytes of claimed length": r"it is cut short \(at byte 9\)",
    "tuples that double, by memo": "it would make more values than a checkpoint of its size does",
    "records nested deeply": "it is nested more than 100 deep",
    "tuples nested deeply": r"it is nested more than 100 deep \(at byte 101\)",
    "fields that are shared": r"it takes bytes, or the fields of a record, from the memo \(at byte 4\)",
    "bytes that are used again": r"it takes bytes, or the fields of a record, from the memo \(at byte 6\)",
    "array of a shape that is none": r"it has an array of '<f4' and bytes",
    "array of an order that is none": r"it has an array of '<f4' and \(\)",
    "fields with numbers for names": NO_NAMES,
    "fields given twice": NO_NAMES,
    "fields in two places": "it has fields of a record in two places",
    "a field without value": "argument 2 is shorter than argument 1",
    "a value kept twice": r"it keeps a value twice \(at byte 10\)",
    "an empty file": r"it is cut short \(at byte 0\)",
    "a dictionary": NO_VALUE,
    "a class as value": NO_VALUE,
    "bytes as value": NO_VALUE,
    "an open mark": "it goes on after its end",
    "more after the end": "it goes on after its end",
}


@pytest.mark.parametrize("attack", ["os.system", "exec", "GLOBAL, protocol 0", "INST"])
def test_attacks_work_against_pickle(attack):
    pickle.loads(ATTACKS[attack])
    assert Path(CANARY).exists()
    Path(CANARY).unlink()


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_nothing_runs(tmp_path, attack):
    assert set(CAUSES) <= set(ATTACKS)
    modules, canary = set(sys.modules), Path(CANARY)
    assert not canary.exists()
    data, calls = sign(ATTACKS[attack]), itertools.count()

    def count(*_):
        if next(calls) > 100 * (10_000 + len(data)):
            pytest.fail("work out of proportion to the size of the file")

    sys.setprofile(count)
    try:
        with pytest.raises(nn.CheckpointError, match=f"can be loaded: .*{CAUSES.get(attack, '')}"):
            load(data, tmp_path, records=(Empty,))
    finally:
        sys.setprofile(None)
    assert not canary.exists()
    assert set(sys.modules) == modules


EMOJI = "\N{GRINNING FACE}".encode()  # one such character makes Python take four bytes for each of the others
MANY = 300_000
LARGE = raw(pickle.BINBYTES, struct.pack("<I", 4_000_000), bytes(4_000_000))
HUNGRY = {
    "values": pickle.NONE * MANY,
    "values kept": (pickle.NONE + pickle.MEMOIZE) * MANY,
    "one value, kept often": pickle.NONE + pickle.MEMOIZE * MANY,
    "marks": pickle.MARK * MANY,
    "dictionaries": pickle.EMPTY_DICT * MANY,
    "fields": raw(text("a"), pickle.MEMOIZE, (pickle.EMPTY_DICT + recall(0) + pickle.NONE + pickle.SETITEM) * MANY),
    "fields of many names": raw(
        pickle.EMPTY_DICT, pickle.MARK,
        *[raw(pickle.SHORT_BINUNICODE, b"\x07", EMOJI, bytes([33 + k % 90, 33 + k // 90 % 90, 33 + k // 8100]), pickle.MEMOIZE) for k in range(50_000)],
        pickle.SETITEMS,
    ),
    "a string for an array": raw(
        RECORD, by_name("purenn.optimizers", "AdamState"), pickle.EMPTY_DICT, pickle.MARK, text("squares"), text("a"), text("means"), text("\x01" * 390_000 + "\N{GRINNING FACE}"),
        text("steps"), by_name("purenn.checkpoint", "array"), text("<i8"), pickle.EMPTY_TUPLE, pickle.SHORT_BINBYTES, b"\x08", bytes(8), pickle.TUPLE3, pickle.REDUCE,
        pickle.SETITEMS, pickle.TUPLE2, pickle.REDUCE,
    ),
    "tuples": (pickle.NONE + pickle.TUPLE1 + pickle.MEMOIZE) * MANY,
    "large ints": (pickle.LONG1 + b"\xff" + b"\x7f" * 255) * 50_000,
    "floats": (pickle.BINFLOAT + bytes(range(8))) * MANY,
    "short strings": (pickle.SHORT_BINUNICODE + b"\x04" + EMOJI) * MANY,
    "strings": (pickle.SHORT_BINUNICODE + b"\xff" + EMOJI + b"a" * 251) * 50_000,
    "a long string": raw(pickle.BINUNICODE, struct.pack("<I", 8_000_004), EMOJI, b"a" * 8_000_000),
    "a string, taken often": raw(text("a" * 100_000), pickle.MEMOIZE, pickle.MARK, recall(0) * MANY, pickle.TUPLE),
    "small arrays": raw(
        by_name("purenn.checkpoint", "array"), pickle.MEMOIZE, text("|b1"), pickle.MEMOIZE,
        (recall(0) + recall(1) + pickle.EMPTY_TUPLE + pickle.SHORT_BINBYTES + b"\x01\x01" + pickle.TUPLE3 + pickle.REDUCE + pickle.MEMOIZE) * 50_000,
    ),
    "bytes": (pickle.SHORT_BINBYTES + b"\x01a") * MANY,
    "bytes as value": LARGE,
    "bytes in a layer": record("Params", text("layers"), LARGE, pickle.TUPLE1),
    "bytes as weights": record("Dense", text("weights"), LARGE, text("biases"), f32(1), text("activation"), pickle.NONE),
    "bytes as shape": raw(by_name("purenn.checkpoint", "array"), text("<f4"), LARGE, pickle.SHORT_BINBYTES, b"\x04", bytes(4), pickle.TUPLE3, pickle.REDUCE),
    "bytes as fields": raw(RECORD, DENSE, LARGE, pickle.TUPLE2, pickle.REDUCE),
    "bytes called, many times": raw(LARGE, pickle.MEMOIZE, pickle.MARK, recall(0) * 20_000, pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.REDUCE),
    "a layer of many arrays": raw(f32(1, 1), pickle.MEMOIZE, record("Params", text("layers"), pickle.MARK, recall(0) * 3_000, pickle.TUPLE, pickle.TUPLE1)),
    "a layer of many strings": raw(text("a" * 2_000), pickle.MEMOIZE, record("Params", text("layers"), pickle.MARK, recall(0) * 150, pickle.TUPLE, pickle.TUPLE1)),
}  # fmt: skip


@pytest.mark.parametrize("body", HUNGRY)
def test_files_that_want_much_memory_are_refused_with_little(tmp_path, body):
    causes = "more values than a checkpoint of its size|keeps a value twice|holds bytes|holds _Fields|takes bytes|expected an array|it calls|makes a record|must be a record|bytes-like|array of"
    with pytest.raises(nn.CheckpointError, match=causes):
        load(sign(HUNGRY[body] + b"."), tmp_path)


PIECES = [
    *(pickle.NONE, pickle.NEWTRUE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.MARK),
    *(pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS, pickle.REDUCE, pickle.MEMOIZE, pickle.STOP, text("weights"), text("<f4"), pickle.BINBYTES + struct.pack("<I", 20_000) + bytes(20_000)),
    *map(recall, range(6)),
    *(RECORD, DENSE, DROPOUT, OWN_ACTIVATION, f32(1, 1), f32(1), params(f32(1)), by_name("purenn.checkpoint", "array")),
    *(by_name("purenn.layers", "Params"), by_name("purenn.optimizers", "AdamState"), by_name("purenn.activations", "relu")),
    record("Params", text("layers"), pickle.TUPLE1),
    raw(pickle.LONG1, b"\xff", b"\x7f" * 255), raw(pickle.BININT, b"\xff\xff\xff\x7f"), raw(pickle.BINFLOAT, bytes(8)),
]  # fmt: skip


@settings(max_examples=FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30), st.integers(1, 100))
def test_fuzz_instructions_in_any_order_are_refused_or_valid(tmp_path, pieces, repeated):
    try:
        tree = load(sign(raw(DROPOUT, *pieces, *pieces[-3:] * repeated, b".")), tmp_path, records=(Empty, Other))
    except nn.CheckpointError:
        return
    nn.save(tmp_path / "again", tree)


@pytest.mark.parametrize("change", range(1, 9))
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, change):
    check = checkpoint._checked_size
    nn.save(tmp_path / "file", np.ones(1000))

    def check_and_change(file):
        result = check(file)
        data = bytearray((tmp_path / "file").read_bytes())
        data[5_000] ^= change
        (tmp_path / "file").write_bytes(data)
        return result

    monkeypatch.setattr(checkpoint, "_checked_size", check_and_change)
    with pytest.raises(nn.CheckpointError, match="it changed while it was read"):
        nn.load(tmp_path / "file")


def test_too_little_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(checkpoint, "build_checked", fail)
    with pytest.raises(MemoryError):
        load(sign(BODY), tmp_path, records=[Mine])


def test_what_is_no_record_class_is_not_admitted(tmp_path):
    with pytest.raises(TypeError, match="records holds <class 'dict'>, which is no record class"):
        load(sign(BODY), tmp_path, records=[Mine, dict])
    with pytest.raises(TypeError, match="records holds Params\\(layers"):
        load(sign(BODY), tmp_path, records=[PARAMS])


def test_a_record_that_was_not_allowed(tmp_path):
    data = sign(body_of(Mine([1.0])))
    with pytest.raises(nn.CheckpointError, match=r"needs '.*test_checkpoint.Mine', which is not among the records"):
        load(data, tmp_path)
    assert load(data, tmp_path, records=[Mine]) == Mine([1.0])


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        (PARAMS, {"layers": ()}, "must be a tuple of at least one layer"),
        (PARAMS.layers[0], {"biases": np.zeros(7, np.float32)}, r"biases f32\[7\]"),
        (PARAMS.layers[0], {"weights": "text"}, "weights of Dense must be an array of numbers"),
        (PARAMS.layers[0], {"activation": 3}, "must be an Activation"),
        (nn.Dropout(0.5), {"rate": 2.0}, "rate is 2.0"),
        (nn.Dropout(0.5), {"rate": None}, "rate must be a number, not None"),
        (nn.Dropout(0.5), {"seed": "x"}, "seed is 'x'"),
        (PARAMS, {"extra": 1}, r"has <class 'purenn.layers.Params'> with the fields \['layers', 'extra'\]"),
    ],
)
def test_records_validate_themselves(tmp_path, record, changes, message):
    class Fake:
        def __reduce__(self):
            function, (cls, fields) = record.__reduce__()
            return function, (cls, fields | changes)

    with pytest.raises(nn.CheckpointError, match=message):
        load(sign(body_of(Fake())), tmp_path)


def test_a_class_in_any_field_is_refused(tmp_path):
    other = by_name(Other.__module__, "Other")
    for first, second in ((DENSE, pickle.NONE), (pickle.NONE, DENSE)):
        fields = raw(pickle.EMPTY_DICT, pickle.MARK, text("first"), first, text("second"), second, pickle.SETITEMS)
        with pytest.raises(nn.CheckpointError, match="it makes a record of"):
            load(sign(raw(RECORD, other, fields, pickle.TUPLE2, pickle.REDUCE, b".")), tmp_path, records=(Other,))


def test_a_record_without_all_its_fields(tmp_path):
    body = raw(RECORD, DENSE, pickle.EMPTY_DICT, text("biases"), f32(1), pickle.SETITEM, pickle.TUPLE2, pickle.REDUCE)
    with pytest.raises(nn.CheckpointError, match=r"Dense'> with the fields \['biases'\]"):
        load(sign(body + b"."), tmp_path)


GOLDEN = (
    "gAWVOwEAAAAAAACMDnB1cmVubi5yZWNvcmRzlIwPdW5waWNrbGVfcmVjb3JklJOUjA5wdXJlbm4uZHJvcG91dJSMB0Ryb3BvdXSUk5R9"
    "lCiMBHJhdGWURz/gAAAAAAAAjARzZWVklEsBSwKGlHWGlFKUaAKMDXB1cmVubi5sYXllcnOUjAZQYXJhbXOUk5R9lIwGbGF5ZXJzlGgC"
    "aAyMBURlbnNllJOUfZQojAd3ZWlnaHRzlIwRcHVyZW5uLmNoZWNrcG9pbnSUjAVhcnJheZSTlIwDPGY0lEsBSwGGlEMEAACAP5SHlFKU"
    "jAZiaWFzZXOUaBeMAzxmNJRLAYWUQwQAAAAAlIeUUpSMCmFjdGl2YXRpb26UjBJwdXJlbm4uYWN0aXZhdGlvbnOUjARyZWx1lJOUdYaU"
    "UpSFlHOGlFKUSwOHlC5wdXJlbm4gMb9LvgS1rTcYGkLFURMPUlZDinm9r0nkFBDT9ooACJMy"
)


def test_a_file_of_the_first_version_opens(tmp_path):
    layer = nn.Dense(np.eye(1, dtype=np.float32), np.zeros(1, np.float32), nn.relu)
    assert load(base64.b64decode(GOLDEN), tmp_path) == (nn.Dropout(0.5, (1, 2)), nn.Params((layer,)), 3)


def test_memory_stays_below_twice_the_file(tmp_path):
    params = nn.init(0, (2000, 3000, 10), (nn.tanh, nn.softmax))
    nn.save(tmp_path / "file", params)
    size = (tmp_path / "file").stat().st_size
    tracemalloc.start()
    assert nn.load(tmp_path / "file").fan_in == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size + 10 * 2**20


def test_save_writes_only_what_load_reads():
    used = {opcode.code.encode("latin-1") for opcode, _, _ in pickletools.genops(BODY)}
    assert used - {pickle.STOP} <= set(checkpoint._INSTRUCTIONS)
