"""Save trees of records to disk, and load them safely.

A checkpoint is a safetensors file (https://github.com/huggingface/safetensors): the length of a header in eight bytes,
the header in JSON, and the bytes of the arrays. The header gives the dtype, shape and place of each array under its
path in the tree, ``layers.0.weights``. Its ``__metadata__`` holds the structure of the tree, as JSON in a string, and
the SHA-256 of the file, computed with zeros in place of its own digits.

Nothing in a file can run: JSON makes only JSON values, bytes make only arrays of the dtypes listed here, and names are
looked up in a dictionary of the records admitted.

In the structure, None, bools, ints, finite floats, strings and lists are as in JSON. Everything else is an object
with one key: ``{"tuple": [...]}``, ``{"dict": {...}}``, ``{"float": "nan"}``, ``{"array": "C"}`` (or ``"F"``, the order
in memory), ``{"activation": "purenn.tanh"}``, and for a record its class and its fields,
``{"record": ["purenn.Dense", {...}]}``.
"""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from purenn import activations
from purenn.arguments import as_key, as_tuple, brief
from purenn.arrays import is_numpy, lock_in_place, namespace
from purenn.records import build_checked, check_fields, is_record, record_classes
from purenn.trees import Tree, fields_of

_ZEROS = b"0" * 64
_CONTENT = "records, tuples, lists, dicts, strings, real numbers, and arrays of numbers"
_DTYPES = {"BOOL": "|b1", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "F16": "<f2", "F32": "<f4"}
_DTYPES |= {"I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F64": "<f8"}
_NAMES = {code: name for name, code in _DTYPES.items()}


class CheckpointError(ValueError):
    """Raised by ``load`` if a file is not a checkpoint, is damaged, or holds an invalid record."""


def save(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write a tree of records to a safetensors file, completely or not at all.

    The file is written beside the old file, synced, and then put in its place. The permissions of the old file stay
    (on file systems where they can be set), and so does a symbolic link: the file that it points to is replaced.

    Parameters
    ----------
    path : path of a file
        A str, a ``pathlib.Path``, or bytes.
    tree : tree
        Records, NumPy arrays of bools, integers and floats, ints, floats, strings, bools, None; tuples, lists and dicts
        of these. Arrays must not change meanwhile. A NumPy scalar comes back as a 0-d array.

    Raises
    ------
    TypeError, ValueError
        If ``load`` would refuse the file: another type, a record that its own validation refuses, a dict key that is
        not a string, is empty, contains a dot or begins with two underscores, nesting deeper than 100, or more than
        fits into a header (about 7,000 arrays, 20,000 pairs of numbers, or 1 MB of text; more with large arrays).
    OSError
        If the file cannot be written, or is not a regular file. The old file is then unchanged. But if its directory
        cannot be synced, the new file is already in its place.

    Examples
    --------
    >>> import tempfile, pathlib, purenn as nn
    >>> params = nn.init(0, sizes=(4, 3), activations=[nn.softmax])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     nn.save(pathlib.Path(directory) / "params", params)
    ...     nn.load(pathlib.Path(directory) / "params") == params
    True
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path is {type(path).__name__}, but must be the path of a file: nn.save(path, tree)")
    header, arrays = _encoded(tree)
    with _replaced(os.fsdecode(path)) as file:
        checksum = hashlib.sha256(header)
        file.write(header)
        for array in arrays:
            little: Any = np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8)
            checksum.update(little)
            file.write(little)
        file.seek(header.index(_ZEROS))
        file.write(checksum.hexdigest().encode())


def load(path: str | os.PathLike[str], records: Iterable[Any] | Mapping[str, Any] = ()) -> Tree:
    """Read a file that ``save`` wrote. Nothing in the file can run, so it may come from someone you do not trust.

    The tree is equal to the one that was saved; its arrays are read-only, in the byte order of this machine. Loading
    takes time proportional to the file's size, and at most twice that size plus 30 MB of memory. Records validate
    themselves. A field that the class has and the file lacks takes its default.

    Parameters
    ----------
    path : path of a file
    records : iterable, or dict
        Your own record classes and activations that the file may hold. A dict gives them by the names in the file:
        ``{"OldName": New}`` reads files from before a class was renamed.

    Raises
    ------
    CheckpointError
        If the file is not a checkpoint, was damaged, or holds a record that is not admitted, is not valid, or has a
        field that its class lacks. It is a ValueError, and names the file.
    TypeError
        If ``records`` is not an iterable of record classes and activations, or two share a name.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, purenn as nn
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     nn.save(file.name, (nn.Dropout(0.5), 7))
    ...     nn.load(file.name)
    (Dropout(rate=0.5, seed=None), 7)
    """
    admitted = _admitted(records if isinstance(records, Mapping) else as_tuple("records", records))
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for someone to write
        raise CheckpointError(f"{os.fsdecode(path)} is not a regular file, and so not a checkpoint")
    with open(path, "rb") as file:
        try:
            return _read(file, admitted)
        except (MemoryError, OSError):  # not the fault of the file
            raise
        except Exception as error:  # whatever the validation of a record raises, too
            raise CheckpointError(f"{os.fsdecode(path)} cannot be loaded: {error}") from error


def _name_of(value: Any) -> str:
    return value.name if isinstance(value, activations.Activation) else getattr(value, "__name__", "?")


def _admitted(records: Iterable[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Return purenn's own record classes and activations, and those given, by their names in a file."""
    ours: list[Any] = [cls for cls in record_classes - {activations.Activation} if cls.__module__.startswith("purenn.")]
    ours += [value for value in vars(activations).values() if isinstance(value, activations.Activation)]
    admitted = {f"purenn.{_name_of(value)}": value for value in ours}
    for name, value in records.items() if isinstance(records, Mapping) else [(_name_of(v), v) for v in records]:
        if not isinstance(value, activations.Activation) and not (isinstance(value, type) and value in record_classes):
            raise TypeError(f"records holds {brief(value)}, which is neither a record class nor an activation")
        if admitted.setdefault(name, value) != value:
            raise TypeError(f"two record classes or activations are called {name}; rename one")
    return admitted


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of an old one when the block ends; if anything fails, the old one stays."""
    target = os.path.realpath(path)
    old_mode = os.stat(target).st_mode if os.path.exists(target) else None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        raise OSError(f"{target} is not a regular file, so save does not replace it")
    new = os.path.join(os.path.dirname(target), f".purenn-{os.urandom(8).hex()}")
    directory = _if_supported(os.open, os.path.dirname(target), getattr(os, "O_DIRECTORY", os.O_RDONLY))
    try:
        with open(new, "xb", opener=functools.partial(os.open, mode=0o666 if old_mode is None else 0o600)) as file:
            if old_mode is not None:
                _if_supported(os.chmod, new, stat.S_IMODE(old_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
        if directory is not None:
            _if_supported(os.fsync, directory)  # then the name is on the disk, too
    finally:
        with contextlib.suppress(OSError):
            os.unlink(new)  # unless it has taken the place
        if directory is not None:
            os.close(directory)


def _if_supported(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do what some file systems lack or forbid, such as CIFS and gcsfuse: sync a directory, or set a mode."""
    try:
        return function(*arguments)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM):
            raise


# From a tree to a header and arrays


def _encoded(tree: Any) -> tuple[bytes, list[np.ndarray]]:
    """Return the start of a file, with zeros for the checksum's digits, and the arrays that follow."""
    ours, given = {value: name for name, value in _admitted(()).items()}, dict[Any, str]()
    arrays, numbers = dict[str, np.ndarray](), iter(range(1_000_000))

    def encode(value: Any, path: tuple[str, ...]) -> Any:
        if next(numbers, None) is None:
            raise ValueError("the tree has more than 1,000,000 values")
        inner = functools.partial(_children, encode, path)
        if value is None or type(value) in (bool, int, float, str, np.str_):
            return {"float": str(value)} if type(value) is float and not math.isfinite(value) else value
        if type(value) in (list, tuple):
            items = [*inner(enumerate(value)).values()]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict:
            return {"dict": inner((as_key(key), child) for key, child in value.items())}
        if is_record(value):
            named = value if isinstance(value, activations.Activation) else type(value)
            name = ours.get(named) or given.setdefault(named, _name_of(named))
            return {"activation": name} if named is value else {"record": [name, inner(fields_of(value).items())]}
        if is_numpy(value) and value.dtype.str.replace(">", "<") in _NAMES:
            array = arrays[".".join(path)] = namespace(value).asarray(value)  # which refuses subclasses
            return {"array": "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"}
        foreign = hasattr(value, "__array__") and not is_numpy(value)
        held = "NumPy arrays; nn.tree_map(np.asarray, tree) converts others" if foreign else _CONTENT
        way_out = ".tolist()" if is_numpy(value) and value.dtype.kind in "OTU" else ".astype, .real or .tolist()"
        place = f"in the tree, item {'.'.join(path)}" if path else "the tree"
        raise TypeError(f"{place} is {brief(value)}, but a checkpoint holds {held}; {way_out} may convert it")

    structure, end = json.dumps(encode(tree, ()), separators=(",", ":")), 0
    entries: dict[str, Any] = {"__metadata__": {"format": "purenn 2", "sha256": _ZEROS.decode(), "tree": structure}}
    for path, a in arrays.items():
        start, end = end, end + a.nbytes
        entries[path] = {"dtype": _NAMES[a.dtype.str.replace(">", "<")], "shape": a.shape, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    _check_header(header, 8 + len(header) + end)
    try:
        _decoded(structure, _admitted([*given]), lambda path, order: arrays[path], build_checked)
    except ValueError as error:
        raise ValueError(f"{error} (if vmap stacked an ensemble here, save its members as a tuple)") from error
    return len(header).to_bytes(8, "little") + header, [*arrays.values()]


def _children(recurse: Callable[..., Any], path: tuple[str, ...], items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Encode or decode the children of a node, given with their names."""
    if len(path) > 99:
        raise ValueError("the tree is nested more than 100 deep")
    return {name: recurse(child, (*path, str(name))) for name, child in items}


def _check_header(header: bytes, size: int) -> None:
    """Raise ValueError if a header is too long, or has more values than fit into memory: up to 250 bytes for each."""
    if len(header) > 1_000_000 + size // 50 or sum(map(header.count, b",:[{")) > 100_000 + size // 10_000:
        raise ValueError("the header is too long; put numbers into fewer and larger arrays, and texts into other files")


# From a file to a tree


def _read(file: Any, admitted: dict[str, Any]) -> Any:
    """Return the tree of a file, or raise an error without the name of the file."""
    size, prefix = os.fstat(file.fileno()).st_size, file.read(8)
    length = int.from_bytes(prefix, "little")
    header = file.read(min(length, 1_000_001 + size // 50))
    if not (digits := re.match(rb'{"__metadata__": ?{"format": ?"purenn 2", ?"sha256": ?"([0-9a-f]{64})"', header)):
        raise ValueError("it is not a file that purenn.save wrote (format 2), or it is cut short")
    start = prefix + header[: digits.start(1)] + _ZEROS + header[digits.end(1) :]
    if hashlib.file_digest(file, lambda: hashlib.sha256(start)).hexdigest().encode() != digits[1]:
        raise ValueError("its checksum is wrong; it was changed or damaged")
    _check_header(header, size)
    entries = json.loads(header.decode("ascii"), object_pairs_hook=_unique)
    structure, places = entries.pop("__metadata__").get("tree"), _places(entries, 8 + length, size)
    left, found = set(places), list[Any]()
    _decoded(structure, admitted, lambda path, order: found.append(left.discard(path)), check_fields)  # type: ignore
    if left or len(found) != len(places):
        raise ValueError(f"the tree and the file do not have the same arrays; the tree lacks {brief(left)}")

    def take(path: str, order: Any) -> Any:
        dtype, shape, start = places[path]
        file.seek(start)
        array = np.empty(shape, np.dtype(dtype).newbyteorder("="), order)
        for k in range(0, array.size, 1 << 16):  # in parts: an array in Fortran order needs no copy
            array.squeeze().flat[k : k + (1 << 16)] = np.fromfile(file, dtype, min(1 << 16, array.size - k))
        return lock_in_place(array)

    return _decoded(structure, admitted, take, build_checked)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _places(entries: dict[str, Any], start: int, size: int) -> dict[str, tuple[str, list[int], int]]:
    """Return the dtype, shape and start of each array in a file; they must follow one another without gaps."""
    places, base = {}, start
    for name, entry in entries.items():
        dtype = _DTYPES.get(entry.get("dtype"), "|u1")
        shape = [n for n in entry.get("shape")[:64] if type(n) is int and 0 <= n < 2**63]
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        expected = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start - base, end - base]}
        if str(entry) != str(expected):
            raise ValueError(f"the array {brief(name)} is {brief(entry)}, but must be {brief(expected)}")
        places[name], start = (dtype, shape, start), end
    if start != size:
        raise ValueError("the arrays do not end where the file ends")
    return places


def _decoded(structure: str, admitted: dict[str, Any], take: Callable[..., Any], build: Callable[..., Any]) -> Any:
    """Return the tree of a structure: ``take`` gives its arrays, ``build`` makes its records."""

    def decode(node: Any, path: tuple[str, ...]) -> Any:
        inner = functools.partial(_children, decode, path)
        match node if not isinstance(node, dict) or len(node) == 1 else {}:
            case None | bool() | int() | float() | str():
                return node
            case list(items) | {"tuple": list(items)}:
                children = inner(enumerate(items)).values()
                return [*children] if items is node else tuple(children)
            case {"dict": dict(items)}:
                return inner((as_key(key), child) for key, child in items.items())
            case {"float": "inf" | "-inf" | "nan" as text}:
                return float(text)
            case {"array": "C" | "F" as order}:
                array = take(".".join(path), order)
                if array is not None and array.dtype == bool and array.view(np.uint8).max(initial=0) > 1:
                    raise ValueError(f"{'.'.join(path) or 'the tree'} has bools that are neither 0 nor 1")
                return array
            case {"activation": str(name)} if isinstance(admitted.get(name), activations.Activation):
                return admitted[name]
            case {"record": [str(name), dict(items)]} if isinstance(admitted.get(name), type):
                fields = inner(items.items())
                try:
                    return build(admitted[name], fields)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{'.'.join(path) or 'the tree'}: {error}") from error
        raise ValueError(f"{'.'.join(path) or 'the tree'} is {brief(node)}, which load does not know (see records=...)")

    return decode(json.loads(structure, object_pairs_hook=_unique), ())
