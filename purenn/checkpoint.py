"""Checkpoints: records on the disk, and safely back.

A checkpoint is an ordinary pickle, which ``pickle.load`` reads, and then a checksum. ``load`` does not use ``pickle``:
it reads the few instructions that ``save`` writes, refuses all others, and makes nothing but arrays and records.
"""

import contextlib
import functools
import hashlib
import math
import os
import pickle
import re
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import attrs
import numpy as np

from purenn import activations
from purenn.arrays import brief, lock_in_place
from purenn.records import build_checked, is_record, pickled, record_classes, unpickle_record
from purenn.trees import fields_of

_MAGIC = b"purenn 1"
_FOOTER = len(_MAGIC) + hashlib.sha256().digest_size
_DEEPEST = 100  # levels of tuples and records


def _most_parts(size: int) -> int:
    """Return how many values may go into a checkpoint of so many bytes: a reader needs about 150 bytes for each."""
    return 50_000 + size // 256


class CheckpointError(ValueError):
    """What ``load`` raises for a file that is no checkpoint, was damaged, or holds what it may not."""


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of records to a file: all of it or, whatever happens, nothing.

    It is written to a new file beside the old one, synced, and then put in its place, which readers see at once. The
    old one's permissions stay, and so does a symbolic link: what it points to is replaced. Arrays must not change
    meanwhile; those of records cannot.

    Parameters
    ----------
    path : path of a file
    tree : record, array, number, string, None, or a tuple of these

    Raises
    ------
    TypeError, ValueError
        If there is something else in the tree, a record that its own validation refuses, nesting deeper than 100, or
        too many values (50,000, and one more for every 256 bytes; a layer counts about 50). The old file is as it was.
    OSError
        If the file cannot be written, or is there and no regular one; it is as it was. Only if its directory cannot
        be synced, the new one is in its place already.

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
    parts = _parts(tree)
    target = Path(os.path.realpath(path))
    old_mode = os.stat(target).st_mode if target.exists() else None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        raise OSError(f"{target} is no regular file, and a checkpoint does not replace it")
    new = target.with_name(f".purenn-{os.urandom(8).hex()}")
    directory = os.open(target.parent, os.O_DIRECTORY) if hasattr(os, "O_DIRECTORY") else None
    try:
        mode = 0o666 if old_mode is None else 0o600
        with open(new, "xb", opener=functools.partial(os.open, mode=mode)) as file:
            if old_mode is not None:
                os.chmod(new, stat.S_IMODE(old_mode))
            sink = _Sink(file)
            try:
                _Pickler(sink, protocol=5).dump(tree)
            except (pickle.PicklingError, AttributeError) as error:
                raise TypeError(f"a record class must be found by its name, but: {error}") from error
            if parts > _most_parts(file.tell()):
                raise ValueError(f"the tree has {parts:,} values outside of arrays; put numbers into arrays")
            file.write(_MAGIC + sink.checksum.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
        if directory is not None:
            os.fsync(directory)  # then the name is on the disk, too
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    finally:
        if directory is not None:
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
        Read-only, and equal to what was saved, with all arrays in the byte order of this machine.

    Raises
    ------
    CheckpointError
        A ValueError: if the file is none that ``save`` wrote, or not as it was written, or holds another record.
    TypeError
        If something given in ``records`` is no record class.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile, purenn as nn
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     nn.save(file.name, (nn.Dropout(0.5), 7))
    ...     nn.load(file.name)
    (Dropout(rate=0.5, seed=None), 7)
    """
    records = tuple(records)
    for cls in records:
        if not isinstance(cls, type) or cls not in record_classes:
            raise TypeError(f"records holds {brief(cls)}, which is no record class")
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for someone to write
        raise CheckpointError(f"{os.fspath(path)} is no regular file, and so no checkpoint")
    with open(path, "rb") as file:
        try:
            size, digest = _checked_size(file)
            reader = _Reader(file, size, records)
            tree = reader.read()
            if reader.checksum.digest() != digest:
                raise CheckpointError("it changed while it was read")
            return tree
        except CheckpointError as error:
            message = f"{os.fspath(path)} is no checkpoint that can be loaded: {error}"
            raise CheckpointError(message) from error.__cause__


def _checked_size(file: BinaryIO) -> tuple[int, bytes]:
    """Return how many bytes of a file come before its checksum, which must be right, and that."""
    size = left = os.fstat(file.fileno()).st_size - _FOOTER
    file.seek(max(size, 0))
    footer, checksum = file.read(_FOOTER), hashlib.sha256()
    if size < 0 or footer[: len(_MAGIC)] != _MAGIC:
        raise CheckpointError("it does not end as purenn.save ends a file, or is cut short")
    file.seek(0)
    while chunk := file.read(min(left, 1 << 16)):
        checksum.update(chunk)
        left -= len(chunk)
    if checksum.digest() != footer[len(_MAGIC) :]:
        raise CheckpointError("its checksum does not fit; it was changed or damaged")
    file.seek(0)
    return size, checksum.digest()


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
            transposed = value.flags.f_contiguous and not value.flags.c_contiguous
            little: Any = value.T if transposed else value
            little = little.astype(value.dtype.newbyteorder("<"), order="C", copy=False).view()
            little.flags.writeable = False
            arguments = little.dtype.str, value.shape, pickle.PickleBuffer(little)  # written without a copy
            return array, (*arguments, "F") if transposed else arguments
        if is_record(value) and not isinstance(value, activations.Activation):
            return pickled(value)  # also for a class with a __reduce__ of its own
        return NotImplemented


def _check(tree: Any, depth: int = 1) -> None:
    """Raise TypeError or ValueError if there is something that ``load`` would refuse."""
    if depth > _DEEPEST:
        raise ValueError(f"the tree is nested more than {_DEEPEST} deep")
    if isinstance(tree, activations.Activation):
        if not isinstance(tree.__reduce__(), str):
            raise TypeError(f"the activation {tree} is a function of your own, which a checkpoint does not hold")
    elif is_record(tree):
        fields = fields_of(tree)
        for value in fields.values():
            _check(value, depth + 1)
        build_checked(type(tree), fields)
    elif type(tree) is tuple:
        for item in tree:
            _check(item, depth + 1)
    elif type(tree) is np.ndarray:
        if not _DTYPE.fullmatch(tree.dtype.newbyteorder("<").str):
            raise TypeError(f"an array of {tree.dtype} is not for checkpoints, but only one of numbers")
    elif type(tree) is int:
        if _bytes_of(tree) > 255:
            raise ValueError("an int of more than 255 bytes is not for checkpoints")
    elif tree is not None and type(tree) not in (bool, float, str):
        raise TypeError(
            f"a checkpoint holds records, NumPy's arrays, tuples, strings and Python's numbers, but not {brief(tree)}"
        )


def _parts(value: Any) -> int:
    """Return how many values ``_Reader`` makes on its way to this one, at most."""
    if type(value) is tuple:
        return 2 + sum(map(_parts, value))
    if type(value) is np.ndarray:
        return 13 + value.ndim
    if type(value) is str:
        return 1 + len(value.encode(errors="surrogatepass")) // 8
    if type(value) is int:
        return 1 + _bytes_of(value) // 8
    if isinstance(value, activations.Activation):
        return 6
    if is_record(value):
        named = _parts(type(value).__module__) + _parts(type(value).__qualname__)
        return 11 + named + sum(_parts(name) + _parts(field) for name, field in fields_of(value).items())
    return 1


def _bytes_of(number: int) -> int:
    return number.bit_length() // 8 + 1


_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248]|c8|c16)")


def array(dtype: str, shape: tuple[int, ...], data: bytes, order: Literal["C", "F"] = "C") -> np.ndarray:
    """Return the read-only array of a dtype and shape whose memory is given, in the order of C or of Fortran: products
    of matrices round differently.
    """
    native = np.dtype(dtype).newbyteorder("=")
    result: np.ndarray = lock_in_place(
        np.frombuffer(data, dtype).reshape(shape, order=order).astype(native, copy=False)
    )
    return result


# Reading


def _outline(value: Any) -> str:
    """Return what a value is for a message; a stranger's may be large, so nothing looks through it."""
    if type(value) is tuple and len(value) < 4:
        return f"({', '.join(map(_outline, value))})"
    return brief(value) if value is None or type(value) in (int, str, type) else type(value).__name__


class _Fields(dict[str, Any]):
    depth: float = 0  # of the deepest


class _Reader:
    """Runs the instructions of a pickle, those that ``save`` writes and no others.

    On the stack lie values, and how deeply each is nested: infinitely, if it is nothing that may be in a tree, but a
    class, the fields of a record, the bytes of an array, or something with such a part. What they may cost is bounded:
    every value counts, and one that is taken from the memo as often as it would if it were made again.
    """

    def __init__(self, file: BinaryIO, size: int, records: Iterable[type]) -> None:
        self.file, self.size, self.left, self.parts_left = file, size, size, _most_parts(size)
        self.checksum = hashlib.sha256()
        self.stack: list[tuple[Any, float]] = []
        self.marks: list[list[tuple[Any, float]]] = []
        self.memo: list[tuple[Any, float]] = []
        own = [cls for cls in record_classes if cls.__module__.startswith("purenn.") and cls != activations.Activation]
        self.names: dict[tuple[str, str], Any] = {(cls.__module__, cls.__qualname__): cls for cls in (*own, *records)}
        self.names |= {(f.__module__, f.__qualname__): f for f in (unpickle_record, array)}
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
            ((value, depth),) = self.stack
            if depth == math.inf:
                raise CheckpointError(f"it holds {_outline(value)}, which is no record, array, tuple, string or number")
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # whatever the validation of a record raises, too
            raise CheckpointError(f"{error} (at byte {self.size - self.left})") from error
        if self.left or self.marks:
            raise CheckpointError("it goes on after its end")
        return value

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        data = self.file.read(count) if count <= self.left else b""
        if len(data) < count:
            raise CheckpointError("it is cut short")
        self.left -= count
        self.checksum.update(data)
        return data

    def number(self, form: str) -> Any:
        """Return the next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def spend(self, parts: int) -> None:
        """Count values that are made."""
        self.parts_left -= parts
        if self.parts_left < 0:
            raise CheckpointError("it would make more values than a checkpoint of its size does")

    def push(self, value: Any, depth: float = 1) -> None:
        """Put a value on the stack."""
        self.spend(1)
        if _DEEPEST < depth < math.inf:
            raise CheckpointError(f"it is nested more than {_DEEPEST} deep")
        self.stack.append((value, depth))

    def text(self, size: int) -> None:
        """Put a string on the stack."""
        self.spend(size // 8)
        self.push(self.take(size).decode(errors="surrogatepass"))

    def long(self, size: int) -> None:
        """Put a large int on the stack."""
        self.spend(size // 8)
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def pop(self, kind: type) -> Any:
        """Take a value of a kind from the stack."""
        value, _ = self.stack.pop()
        if type(value) is not kind:
            raise CheckpointError(f"it has {type(value).__name__} where it should have {kind.__name__}")
        return value

    def remember(self) -> None:
        """Keep the last value for later."""
        if self.memo and self.memo[-1] is self.stack[-1]:
            raise CheckpointError("it keeps a value twice")
        self.memo.append(self.stack[-1])

    def recall(self, number: int) -> None:
        """Put a value that was kept on the stack."""
        value, depth = self.memo[number]
        if depth == math.inf and not callable(value):
            raise CheckpointError("it takes bytes, or the fields of a record, from the memo")
        self.spend(_parts(value) - 1)
        self.push(value, depth)

    def mark(self) -> None:
        """Begin a list of values."""
        self.spend(1)
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
        self.push(tuple(value for value, _ in items), 1 + max((depth for _, depth in items), default=0))

    def set_items(self, items: list[Any]) -> None:
        """Make the fields of a record, from an empty dictionary."""
        if self.pop(_Fields):
            raise CheckpointError("it has fields of a record in two places")
        fields, pairs = _Fields(), iter(items)
        for (name, _), (value, depth) in zip(pairs, pairs, strict=True):
            if type(name) is not str or name in fields:
                raise CheckpointError("it has names of fields that are no names, or one twice")
            fields[name], fields.depth = value, max(fields.depth, depth)
        self.push(fields, math.inf)

    def name(self) -> None:
        """Look a name up among those that are allowed."""
        name, module = self.pop(str), self.pop(str)
        if (module, name) not in self.names:
            raise CheckpointError(f"it needs {brief(f'{module}.{name}')}, which is not among the records to load")
        value = self.names[module, name]
        self.push(value, 1 if isinstance(value, activations.Activation) else math.inf)

    def call(self) -> None:
        """Make an array or a record."""
        arguments, (function, _) = self.pop(tuple), self.stack.pop()
        if function is array:
            dtype, shape, data, *order = arguments
            sides_fit = (
                type(shape) is tuple and len(shape) <= 64 and all(type(side) is int and side >= 0 for side in shape)
            )
            if not _DTYPE.fullmatch(dtype) or not sides_fit or order not in ([], ["F"]):
                raise CheckpointError(f"it has an array of {_outline(dtype)} and {_outline(shape)}")
            if type(data) is not bytes or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
                raise CheckpointError(f"it has an array of the shape {_outline(shape)}, but not its bytes")
            if dtype.endswith("b1") and np.frombuffer(data, np.uint8).max(initial=0) > 1:
                raise CheckpointError("it has booleans that are neither false nor true")
            self.push(array(*arguments))
        elif function is unpickle_record:
            cls, fields = arguments
            if type(fields) is not _Fields or not isinstance(cls, type) or fields.depth == math.inf:
                raise CheckpointError(f"it makes a record of {_outline(arguments)}")
            if set(fields) != {field.name for field in attrs.fields(cls)}:
                raise CheckpointError(f"it has {_outline(cls)} with the fields {brief(list(fields))}")
            self.push(build_checked(cls, fields), 1 + fields.depth)
        else:
            raise CheckpointError(f"it calls {_outline(function)}")


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
    pickle.LONG1: lambda r: r.long(r.number("<B")),
    pickle.BINFLOAT: lambda r: r.push(r.number(">d")),
    pickle.SHORT_BINUNICODE: lambda r: r.text(r.number("<B")),
    pickle.BINUNICODE: lambda r: r.text(r.number("<I")),
    pickle.SHORT_BINBYTES: lambda r: r.push(r.take(r.number("<B")), math.inf),
    pickle.BINBYTES: lambda r: r.push(r.take(r.number("<I")), math.inf),
    pickle.BINBYTES8: lambda r: r.push(r.take(r.number("<Q")), math.inf),
    pickle.EMPTY_TUPLE: lambda r: r.push(()),
    pickle.TUPLE1: lambda r: r.make_tuple(r.last(1)),
    pickle.TUPLE2: lambda r: r.make_tuple(r.last(2)),
    pickle.TUPLE3: lambda r: r.make_tuple(r.last(3)),
    pickle.TUPLE: lambda r: r.make_tuple(r.since_mark()),
    pickle.EMPTY_DICT: lambda r: r.push(_Fields(), math.inf),
    pickle.SETITEM: lambda r: r.set_items(r.last(2)),
    pickle.SETITEMS: lambda r: r.set_items(r.since_mark()),
    pickle.MEMOIZE: lambda r: r.remember(),
    pickle.BINGET: lambda r: r.recall(r.number("<B")),
    pickle.LONG_BINGET: lambda r: r.recall(r.number("<I")),
    pickle.STACK_GLOBAL: lambda r: r.name(),
    pickle.REDUCE: lambda r: r.call(),
}
