"""Checkpoints: what comes back, what a failure leaves, and what a stranger's file can do (nothing)."""

import base64
import hashlib
import io
import itertools
import os
import pickle
import pickletools
import resource
import signal
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import purenn as nn
from purenn import checkpoint
from tests.strategies import networks, seeds

PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))


@nn.record
class Mine:
    values: nn.Array
    more: tuple[nn.Layer, ...] = ()
    name: str = "mine"
    strides: tuple[int, ...] = (1, 2)


def sign(body):
    """Return a file with this body, as ``save`` would end it."""
    return body + checkpoint._MAGIC + hashlib.sha256(body).digest()


def body_of(tree):
    stream = io.BytesIO()
    checkpoint._Pickler(stream, protocol=5).dump(tree)
    return stream.getvalue()


def load(data, directory, **options):
    path = directory / "file"
    path.write_bytes(data)
    return nn.load(path, **options)


# What comes back


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), seeds)
def test_everything_comes_back_equal_and_read_only(tmp_path, params, seed):
    _, state = nn.adam_step(params, params, nn.adam_init(params), 0.1)
    mine = Mine([1, 2], (nn.Dropout(0.2), nn.Dropout(0.1, (seed, 3)), params))
    tree = (params, state, mine, None, True, 3, -(2**70), 1e300, "text", (), (1, (2.5,)), np.asarray(seed % 100))
    nn.save(tmp_path / "file", tree)
    back = nn.load(tmp_path / "file", records=(Mine,))
    assert back[:-1] == tree[:-1]
    assert back[-1] == tree[-1]
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(back) if isinstance(leaf, np.ndarray))
    assert back[0].layers[0].activation is params.layers[0].activation
    plain = pickle.loads((tmp_path / "file").read_bytes())
    assert plain[:-1] == tree[:-1]
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(plain) if isinstance(leaf, np.ndarray))


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "i8", "f2", "f4", ">f8", "c8", "c16"])
def test_arrays_of_all_numbers(tmp_path, dtype):
    for array in (np.arange(6).reshape(2, 3).astype(dtype), np.zeros((0, 4), dtype), np.asarray(1, dtype)):
        nn.save(tmp_path / "file", Mine(array.T))
        back = nn.load(tmp_path / "file", records=(Mine,)).values
        assert np.array_equal(back, array.T)
        assert back.dtype == np.dtype(dtype).newbyteorder("=")


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
     (1, [2]), nn.Dense(np.eye(2), np.zeros(2), nn.Activation("own", np.sin, np.cos)), np.float32(1), 1j],
)  # fmt: skip
def test_what_could_not_be_loaded_is_not_saved(tmp_path, tree):
    nn.save(tmp_path / "file", PARAMS)
    with pytest.raises(TypeError, match=r"checkpoint"):
        nn.save(tmp_path / "file", tree)
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["dump", "fsync", "replace", "write"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
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


def test_a_file_that_may_not_grow(tmp_path):
    nn.save(tmp_path / "file", PARAMS)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            nn.save(tmp_path / "file", nn.init(0, (100, 100), [nn.softmax]))
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert nn.load(tmp_path / "file") == PARAMS
    assert os.listdir(tmp_path) == ["file"]


def test_killed_at_any_moment_the_file_is_the_old_or_the_new(tmp_path):
    old, new = nn.init(0, (60, 60), [nn.softmax]), nn.init(1, (60, 60), [nn.softmax])
    nn.save(tmp_path / "file", old)

    def start():
        child = os.fork()
        if child == 0:
            nn.save(tmp_path / "file", new)
            os._exit(0)
        return child

    random, patience = np.random.default_rng(0), 1e-3
    seen = {0: 0, 1: 0}
    for _ in range(500):
        child = start()
        time.sleep(random.uniform(0, 2 * patience))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = nn.load(tmp_path / "file")
        assert found in (old, new)
        seen[int(found == new)] += 1
        patience *= 0.9 if found == new else 1 / 0.9  # so that kills come about as often before the end as after it
        nn.save(tmp_path / "file", old)
    assert min(seen.values()) > 10, seen


def test_two_writers_at_once(tmp_path):
    trees = [nn.init(k, (30, 30), [nn.softmax]) for k in range(2)]
    children = []
    for tree in trees:
        children.append(os.fork())
        if children[-1] == 0:
            for _ in range(200):
                nn.save(tmp_path / "file", tree)
            os._exit(0)
    while not (tmp_path / "file").exists():
        time.sleep(0.001)
    for _ in range(200):
        assert nn.load(tmp_path / "file") in trees
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
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


def test_a_directory_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        nn.save(tmp_path / "nowhere" / "file", PARAMS)
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "file")


# What a stranger's file can do


def test_every_truncation_and_every_changed_byte_is_found(tmp_path):
    data = sign(body_of(nn.init(0, (2, 2), [nn.softmax])))
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
    try:
        tree = load(sign(body), tmp_path, records=(Mine,))
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
    return pickle.BINUNICODE + struct.pack("<I", len(string)) + string.encode()


CANARY = "/tmp/purenn-canary"
TOUCH = f"import pathlib; pathlib.Path({CANARY!r}).touch()"


def by_name(module, name, *arguments):
    """Call anything by name, protocol 4."""
    return raw(text(module), text(name), pickle.STACK_GLOBAL, *arguments)


ARGUMENT = raw(text(TOUCH), pickle.TUPLE1)
DENSE = by_name("purenn.layers", "Dense")
RECORD = by_name("purenn.records", "unpickled")
ATTACKS = {
    "os.system": reduced(os.system, f"touch {CANARY}"),
    "exec": reduced(exec, TOUCH),
    "eval": reduced(eval, f"open({CANARY!r}, 'w')"),
    "open": reduced(open, CANARY, "w"),
    "getattr": raw(by_name("builtins", "getattr"), DENSE, text("__init__"), pickle.TUPLE2, pickle.REDUCE, b"."),
    "import": reduced(__import__, "antigravity"),
    "GLOBAL, protocol 0": raw(b"cos\nsystem\n(S'touch ", CANARY.encode(), b"'\ntR."),
    "INST": raw(b"(S'touch ", CANARY.encode(), b"'\nios\nsystem\n."),
    "OBJ": raw(pickle.MARK, by_name("builtins", "exec"), text(TOUCH), pickle.OBJ, b"."),
    "NEWOBJ": raw(by_name("pathlib", "Path"), text(CANARY), pickle.TUPLE1, pickle.NEWOBJ, b"."),
    "NEWOBJ_EX": raw(by_name("pathlib", "Path"), pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.NEWOBJ_EX, b"."),
    "BUILD sets attributes": raw(DENSE, pickle.EMPTY_DICT, text("fan_in"), pickle.NONE, pickle.SETITEM, pickle.BUILD, b"."),
    "BUILD on a function": raw(by_name("purenn.records", "unpickled"), pickle.EMPTY_DICT, pickle.BUILD, b"."),
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
    "an activation as record": raw(by_name("purenn.records", "unpickled"), by_name("purenn.activations", "tanh"), pickle.EMPTY_DICT, pickle.TUPLE2, pickle.REDUCE, b"."),
    "an activation of one's own": raw(by_name("purenn.records", "unpickled"), by_name("purenn.activations", "Activation"), pickle.EMPTY_DICT, text("name"), text("x"), pickle.SETITEM, text("function"), by_name("os", "system"), pickle.SETITEM, text("pullback"), by_name("os", "system"), pickle.SETITEM, pickle.TUPLE2, pickle.REDUCE, b"."),
    "any class as record": raw(by_name("purenn.records", "unpickled"), by_name("builtins", "type"), pickle.EMPTY_DICT, pickle.TUPLE2, pickle.REDUCE, b"."),
    "object array": raw(by_name("purenn.checkpoint", "array"), text("|O"), pickle.BININT1, b"\x01", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x08", b"A" * 8, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array of records": raw(by_name("purenn.checkpoint", "array"), text("f4,O"), pickle.BININT1, b"\x01", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x0c", b"A" * 12, pickle.TUPLE3, pickle.REDUCE, b"."),
    "array larger than its bytes": raw(by_name("purenn.checkpoint", "array"), text("<f4"), pickle.BININT, b"\xff\xff\xff\x7f", pickle.TUPLE1, pickle.SHORT_BINBYTES, b"\x04", b"A" * 4, pickle.TUPLE3, pickle.REDUCE, b"."),
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
    "a set": pickle.dumps({1, 2}, protocol=5),
    "a list": pickle.dumps([1, 2], protocol=5),
    "a complex number": pickle.dumps(1j, protocol=5),
    "a dictionary": raw(pickle.EMPTY_DICT, b"."),
    "fields that are shared": raw(pickle.EMPTY_DICT, pickle.MEMOIZE, pickle.BINGET, b"\x00", pickle.TUPLE2, b"."),
    "fields with numbers for names": raw(pickle.EMPTY_DICT, pickle.NONE, pickle.NONE, pickle.SETITEM, b"."),
    "fields given twice": raw(pickle.EMPTY_DICT, *[text("a"), pickle.NONE, pickle.SETITEM] * 2, b"."),
    "a field without value": raw(pickle.EMPTY_DICT, pickle.MARK, text("a"), pickle.SETITEMS, b"."),
    "records that double": raw(
        RECORD, by_name("purenn.layers", "Dropout"), pickle.EMPTY_DICT, text("rate"), pickle.BINFLOAT, bytes(8), pickle.SETITEM,
        text("seed"), pickle.NONE, pickle.SETITEM, pickle.TUPLE2, pickle.REDUCE, pickle.MEMOIZE,
        *[raw(RECORD, by_name("purenn.layers", "Params"), pickle.EMPTY_DICT, text("layers"), pickle.BINGET + bytes([k]),
              pickle.BINGET + bytes([k]), pickle.TUPLE2, pickle.SETITEM, pickle.TUPLE2, pickle.REDUCE, pickle.MEMOIZE) for k in range(22)],
        b".",
    ),
    "nothing": b".",
    "an empty file": b"",
    "two values": raw(pickle.NONE, pickle.NONE, b"."),
    "an open mark": raw(pickle.MARK, pickle.NONE, b"."),
    "more after the end": raw(pickle.NONE, b".", b"cos\nsystem\n."),
    "text that is none": raw(pickle.SHORT_BINUNICODE, b"\x02\xff\xfe", b"."),
    "memo that is empty": raw(pickle.BINGET, b"\x00", b"."),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_nothing_runs(tmp_path, attack):
    modules, canary = set(sys.modules), Path(CANARY)
    assert not canary.exists()
    data, calls = sign(ATTACKS[attack]), itertools.count()

    def count(*_):
        if next(calls) > 100 * (10_000 + len(data)):
            pytest.fail("work out of proportion to the size of the file")

    sys.setprofile(count)
    try:
        with pytest.raises(nn.CheckpointError, match="is no checkpoint that can be loaded"):
            load(data, tmp_path)
    finally:
        sys.setprofile(None)
    assert not canary.exists()
    assert set(sys.modules) == modules


def test_a_record_that_was_not_allowed(tmp_path):
    data = sign(body_of(Mine([1.0])))
    with pytest.raises(nn.CheckpointError, match=r"needs .*test_checkpoint.Mine, which is not among the records"):
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
        (nn.Dropout(0.5), {"rate": None}, "not supported"),
        (nn.Dropout(0.5), {"seed": "x"}, "seed is 'x'"),
        (PARAMS, {"extra": 1}, "with the fields"),
    ],
)
def test_records_validate_themselves(tmp_path, record, changes, message):
    class Fake:
        def __reduce__(self):
            function, (cls, fields) = record.__reduce__()
            return function, (cls, fields | changes)

    with pytest.raises(nn.CheckpointError, match=message):
        load(sign(body_of(Fake())), tmp_path)


GOLDEN = (
    "gAWVJgEAAAAAAACMDnB1cmVubi5yZWNvcmRzlIwJdW5waWNrbGVklJOUjA1wdXJlbm4ubGF5ZXJzlIwHRHJvcG91dJSTlH2UKIwE"
    "cmF0ZZRHP+AAAAAAAACMBHNlZWSUSwFLAoaUdYaUUpRoAmgDjAZQYXJhbXOUk5R9lIwGbGF5ZXJzlGgCaAOMBURlbnNllJOUfZQo"
    "jAd3ZWlnaHRzlIwRcHVyZW5uLmNoZWNrcG9pbnSUjAVhcnJheZSTlIwDPGY0lEsBSwGGlEMEAACAP5SHlFKUjAZiaWFzZXOUaBaM"
    "AzxmNJRLAYWUQwQAAAAAlIeUUpSMCmFjdGl2YXRpb26UjBJwdXJlbm4uYWN0aXZhdGlvbnOUjARyZWx1lJOUdYaUUpSFlHOGlFKU"
    "SwOHlC5wdXJlbm4gMUm4zcHo2anZkEMtBCmHyFNoZBNczsagTqUXmnHQIfPU"
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
