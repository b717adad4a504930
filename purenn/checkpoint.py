"""How do records reach the disk and come back safely?

A checkpoint is an ordinary pickle, which ``pickle.load`` reads, and then a checksum. ``load`` does not use ``pickle``:
it reads the few instructions that ``save`` writes, refuses all others, and makes nothing but arrays and records.
"""

import contextlib
import hashlib
import math
import os
import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from purenn import activations
from purenn.arrays import locked
from purenn.records import every_record, unpickled

_MAGIC = b"purenn 1"
_FOOTER = len(_MAGIC) + hashlib.sha256().digest_size


class CheckpointError(ValueError):
    """What ``load`` raises for a file that is no checkpoint, was damaged, or holds what it may not."""


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of records to a file: all of it or, whatever happens, nothing.

    It is written to a new file beside the old one, synced, and then put in its place, which readers see at once. A
    symbolic link stays, and what it points to is replaced.

    Parameters
    ----------
    path : path of a file
    tree : record, array, number, string, None, or a tuple of these

    Raises
    ------
    TypeError
        If there is something else in the tree; the old file is as it was.
    OSError
        If the file cannot be written; the old one is as it was.

    Examples
    --------
    >>> import tempfile, pathlib, purenn as nn
    >>> params = nn.init(0, sizes=(4, 3), activations=[nn.softmax])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     nn.save(pathlib.Path(directory) / "params", params)
    ...     nn.load(pathlib.Path(directory) / "params") == params
    True
    """
    _check(tree)
    target = Path(os.path.realpath(path))
    new = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
    try:
        with open(new, "xb") as file:
            sink = _Sink(file)
            _Pickler(sink, protocol=5).dump(tree)
            file.write(_MAGIC + sink.checksum.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):  # the name is on the disk when its directory is
        directory = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def load(path: str | os.PathLike[str], records: Iterable[type] = ()) -> Any:
    """Read what ``save`` wrote. The file may come from a stranger.

    It can make arrays, tuples, numbers, strings, None, purenn's own records and activations, and the records that
    are given; it imports nothing, calls nothing else, takes time in proportion to the file's size, and less memory than
    twice that and 10 MB. All records validate themselves.

    Parameters
    ----------
    path : path of a file
    records : iterable of record classes
        Your own that the file may hold.

    Returns
    -------
    tree
        Read-only, and equal to what was saved.

    Raises
    ------
    CheckpointError
        A ValueError: if the file is none that ``save`` wrote, or not as it was written, or holds another record.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        data = memoryview(file.read())
    body, footer = data[:-_FOOTER], data[-_FOOTER:]
    try:
        if bytes(footer[: len(_MAGIC)]) != _MAGIC:
            raise CheckpointError("it does not end as purenn.save ends a file, or is cut short")
        if hashlib.sha256(body).digest() != footer[len(_MAGIC) :]:
            raise CheckpointError("its checksum does not fit; it was changed or damaged")
        return _Reader(body, records).read()
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint that can be loaded: {error}") from error.__cause__


# Writing


class _Sink:
    """A file that knows the checksum of what was written to it."""

    def __init__(self, file: Any) -> None:
        self.file, self.checksum = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.checksum.update(data)
        return int(self.file.write(data))


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray:
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            return array, (little.dtype.str, value.shape, little.tobytes())
        return NotImplemented


def _check(tree: Any) -> None:
    """Raise TypeError if there is something that ``load`` would refuse."""
    if isinstance(tree, activations.Activation):
        if not isinstance(tree.__reduce__(), str):
            raise TypeError(f"the activation {tree} is a function of your own, which a checkpoint does not hold")
    elif hasattr(tree, "__fields__"):
        for name in tree.__fields__:
            _check(getattr(tree, name))
    elif type(tree) is tuple:
        for item in tree:
            _check(item)
    elif type(tree) is np.ndarray:
        if not _DTYPE.fullmatch(tree.dtype.newbyteorder("<").str):
            raise TypeError(f"an array of {tree.dtype} is not for checkpoints, but only one of numbers")
    elif tree is not None and type(tree) not in (bool, int, float, str):
        raise TypeError(f"a checkpoint holds records, arrays, tuples and numbers, but not {tree!r:.60}")


_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248]|c8|c16)")


def array(dtype: str, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    """Return the read-only array of a dtype and shape whose memory is given."""
    native = np.dtype(dtype).newbyteorder("=")
    result: np.ndarray = locked(np.frombuffer(data, dtype).reshape(shape).astype(native, copy=False))
    return result


# Reading


class _Reader:
    """Runs the instructions of a pickle, those that ``save`` writes and no others.

    On the stack lie triples: a value, how many values it is made of, and how deeply they are nested. The last two bound
    the work that a value means, since instructions may take the same value many times.
    """

    def __init__(self, data: memoryview, records: Iterable[type]) -> None:
        self.data, self.position, self.limit = data, 0, len(data) + 10_000
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: list[Any] = []
        own = [cls for cls in every_record if cls.__module__.startswith("purenn.")]
        self.names: dict[tuple[str, str], Any] = {(cls.__module__, cls.__qualname__): cls for cls in (*own, *records)}
        self.names |= {(f.__module__, f.__qualname__): f for f in (unpickled, array)}
        for value in vars(activations).values():
            if isinstance(value, activations.Activation):
                self.names[activations.__name__, value.name] = value

    def read(self) -> Any:
        """Return the value that the instructions make."""
        try:
            while (opcode := self.take(1)) != pickle.STOP:
                if opcode not in _INSTRUCTIONS:
                    raise CheckpointError(f"it has the instruction {opcode!r}")
                _INSTRUCTIONS[opcode](self)
            ((value, _, _),) = self.stack
            _check(value)
        except Exception as error:  # whatever the validation of a record raises, too
            raise CheckpointError(f"{error} (at byte {self.position})") from error
        if self.position != len(self.data) or self.marks:
            raise CheckpointError("it goes on after its end")
        return value

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self.data) - self.position:
            raise CheckpointError("it is cut short")
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def number(self, form: str) -> Any:
        """Return the next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any, size: int = 1, depth: int = 1) -> None:
        """Put a value on the stack."""
        if size > self.limit or depth > 100:
            raise CheckpointError("it would make more values, or nest them deeper, than a checkpoint does")
        self.stack.append((value, size, depth))

    def pop(self, kind: type) -> tuple[Any, int, int]:
        """Take a value of a kind from the stack."""
        value, size, depth = self.stack.pop()
        if type(value) is not kind:
            raise CheckpointError(f"it has {type(value).__name__} where it should have {kind.__name__}")
        return value, size, depth

    def remember(self) -> None:
        """Keep the last value for later."""
        self.memo.append(self.stack[-1])

    def recall(self, number: int) -> None:
        """Put a value that was kept on the stack."""
        value, size, depth = self.memo[number]
        if type(value) is dict:
            raise CheckpointError("it has fields of a record in two places")
        self.push(value, size, depth)

    def mark(self) -> None:
        """Begin a list of values."""
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Return what was put on the stack since the mark, and the stack to what it was then."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def last(self, count: int) -> list[Any]:
        """Take some values from the stack, and return them in their order."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def make_tuple(self, items: list[Any]) -> None:
        """Make a tuple of values."""
        self.push(tuple(value for value, _, _ in items), 1 + sum(s for _, s, _ in items), 1 + _deepest(items))

    def set_items(self, items: list[Any]) -> None:
        """Set items of a dictionary."""
        there, size, depth = self.pop(dict)
        names, values = [value for value, _, _ in items[::2]], [value for value, _, _ in items[1::2]]
        if any(type(name) is not str for name in names) or there.keys() & names or len(set(names)) < len(names):
            raise CheckpointError("it has names of fields that are no names, or one twice")
        there.update(zip(names, values, strict=True))
        self.push(there, size + sum(s for _, s, _ in items), max(depth, 1 + _deepest(items)))

    def name(self) -> None:
        """Look a name up among those that are allowed."""
        (name, _, _), (module, _, _) = self.pop(str), self.pop(str)
        if (module, name) not in self.names:
            raise CheckpointError(f"it needs {module}.{name}, which is not among the records to load")
        self.push(self.names[module, name])

    def call(self) -> None:
        """Make an array or a record."""
        (arguments, size, depth), (function, _, _) = self.pop(tuple), self.stack.pop()
        if function is array:
            dtype, shape, data = arguments
            if not _DTYPE.fullmatch(dtype) or any(type(side) is not int or side < 0 for side in shape):
                raise CheckpointError(f"it has an array of {dtype!r:.20} and {shape!r:.60}")
            if type(data) is not bytes or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
                raise CheckpointError(f"it has an array of the shape {shape!r:.60}, but not its bytes")
            self.push(array(dtype, shape, data))
        elif function is unpickled:
            cls, fields = arguments
            if not isinstance(cls, type) or set(fields) != set(cls.__fields__):  # type: ignore[attr-defined]
                raise CheckpointError(f"it has {cls!r:.60} with the fields {list(fields)!r:.60}")
            self.push(unpickled(cls, fields), size, depth)
        else:
            raise CheckpointError(f"it calls {function!r:.60}")


def _deepest(items: list[Any]) -> int:
    return max((depth for _, _, depth in items), default=0)


_INSTRUCTIONS: dict[bytes, Any] = {
    pickle.PROTO: lambda r: r.take(1),
    pickle.FRAME: lambda r: r.take(8),
    pickle.MARK: lambda r: r.mark(),
    pickle.NONE: lambda r: r.push(None),
    pickle.NEWTRUE: lambda r: r.push(True),
    pickle.NEWFALSE: lambda r: r.push(False),
    pickle.BININT: lambda r: r.push(r.number("<i")),
    pickle.BININT1: lambda r: r.push(r.number("<B")),
    pickle.BININT2: lambda r: r.push(r.number("<H")),
    pickle.LONG1: lambda r: r.push(int.from_bytes(r.take(r.number("<B")), "little", signed=True)),
    pickle.BINFLOAT: lambda r: r.push(r.number(">d")),
    pickle.SHORT_BINUNICODE: lambda r: r.push(r.take(r.number("<B")).decode()),
    pickle.BINUNICODE: lambda r: r.push(r.take(r.number("<I")).decode()),
    pickle.SHORT_BINBYTES: lambda r: r.push(r.take(r.number("<B"))),
    pickle.BINBYTES: lambda r: r.push(r.take(r.number("<I"))),
    pickle.BINBYTES8: lambda r: r.push(r.take(r.number("<Q"))),
    pickle.EMPTY_TUPLE: lambda r: r.push(()),
    pickle.TUPLE1: lambda r: r.make_tuple(r.last(1)),
    pickle.TUPLE2: lambda r: r.make_tuple(r.last(2)),
    pickle.TUPLE3: lambda r: r.make_tuple(r.last(3)),
    pickle.TUPLE: lambda r: r.make_tuple(r.since_mark()),
    pickle.EMPTY_DICT: lambda r: r.push({}),
    pickle.SETITEM: lambda r: r.set_items(r.last(2)),
    pickle.SETITEMS: lambda r: r.set_items(r.since_mark()),
    pickle.MEMOIZE: lambda r: r.remember(),
    pickle.BINGET: lambda r: r.recall(r.number("<B")),
    pickle.LONG_BINGET: lambda r: r.recall(r.number("<I")),
    pickle.STACK_GLOBAL: lambda r: r.name(),
    pickle.REDUCE: lambda r: r.call(),
}
