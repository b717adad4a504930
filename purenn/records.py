"""Records: immutable, comparable, picklable values, and the vectors among them."""

import operator
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Self, cast, dataclass_transform

import attrs
import numpy as np

from purenn.arguments import brief, check_floats, check_number, describe, type_name
from purenn.arrays import Array, astype, has_kind, is_array, lock_in_place, namespace, read_only, wide
from purenn.trees import Layer, T, Tree, aligned, fields_of, kinds, record_kind, tree_map


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a record: a frozen, slotted, picklable attrs class with read-only arrays.

    The annotation of a field says which kind of field it is:

    - **array** (``nn.Array``, ``np.ndarray``, ``NDArray[...]``): converted to a read-only array (copied if the caller
      could still write to it), compared by dtype, shape and value (NaN equals NaN), and shown as ``f32[784,128]``.
    - **tree** (``nn.Tree``, ``nn.Layer``, a record that holds arrays, or tuples of these): lists become tuples.
    - **static** (anything else): a hashable value that is not an array, such as an activation or a stride.

    ``| None`` may be added to each. Functions such as ``tree_map`` and ``sgd_step`` see arrays and trees, and leave
    static fields alone. Inherit ``nn.Vector`` where ``a + b`` and ``2 * a`` mean something. A record validates itself
    in ``__attrs_post_init__``, which runs when the record is made, unpickled, or loaded.

    Raises TypeError if an annotation cannot be resolved, or is ``Any``. The new class raises TypeError if an array
    field is given something else, a tree field a dict, or a static field a mutable value.

    >>> import purenn as nn
    >>> @nn.record
    ... class Scale(nn.Vector):
    ...     factors: nn.Array
    ...     name: str = "scale"
    >>> Scale([1.0, 2.0]) + 3 * Scale([1.0, 1.0])
    Scale(factors=f64[2], name='scale')
    """
    for name, method in _METHODS.items():
        if not any(name in vars(base) for base in cls.__mro__[:-1]):
            setattr(cls, name, method)
    new = attrs.define(cls, frozen=True, slots=True, field_transformer=_configure)
    fields = attrs.fields(new)  # type: ignore[arg-type]
    trees, statics = (tuple(f.name for f in fields if f.metadata["is_tree"] is tree) for tree in (True, False))
    kinds[new] = record_kind(new, trees, statics)
    record_classes.add(new)
    for register in _registers:
        register(new)
    return new


record_classes: set[type] = set()
_registers: list[Callable[[type], None]] = []


def for_every_record(register: Callable[[type], None]) -> None:
    """Call a function with every record class: those that exist now, and each one defined later."""
    for cls in record_classes:
        register(cls)
    _registers.append(register)


def is_record(value: object) -> bool:
    """Whether a value is a record."""
    return type(value) in record_classes


# What a field is


def _configure(cls: type, fields: list["attrs.Attribute[Any]"]) -> list["attrs.Attribute[Any]"]:
    """Set every field's converter, validator, comparison and repr from its annotation (attrs' field_transformer)."""
    try:
        annotations = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(f"{cls.__name__} has an annotation that cannot be resolved: {error}") from error
    return [field if field.inherited else _configured(cls, field, annotations[field.name]) for field in fields]  # type: ignore[attr-defined]


def _configured(cls: type, field: "attrs.Attribute[Any]", annotation: Any) -> "attrs.Attribute[Any]":
    kind = _kind_of_field(annotation)
    if kind == "any":
        raise TypeError(f"{field.name} of {cls.__name__} is annotated Any; use purenn.Array, purenn.Tree, or the type")
    check: Any = {"array": _check_array, "tree": _check_tree, "static": _check_static}[kind]
    if type(None) in typing.get_args(getattr(annotation, "__value__", annotation)):
        check = attrs.validators.optional(check)
    hooks: dict[str, Any] = {"metadata": {**field.metadata, "is_tree": kind != "static"}}
    if kind != "static":
        converters: Any = filter(None, (field.converter, _as_array if kind == "array" else _as_tree))
        hooks |= {"converter": attrs.converters.pipe(*converters), "eq_key": _ByValue, "repr": _show}
    return field.evolve(validator=attrs.validators.and_(*filter(None, (check, field.validator))), **hooks)


def _kind_of_field(annotation: Any) -> str:
    """Return what an annotation says about a field: "array", "tree", "static", or "any"."""
    if hasattr(annotation, "__value__"):  # a type alias (PEP 695), such as NDArray in NumPy 2.5
        return _kind_of_field(annotation.__value__)
    origin = typing.get_origin(annotation) or annotation
    if annotation == Array or origin is np.ndarray:
        return "array"
    if annotation in (Tree, Layer) or (origin in record_classes and kinds[origin].fields):  # type: ignore[union-attr]
        return "tree"
    if origin not in (typing.Union, types.UnionType, tuple, list):
        return "any" if annotation is Any else "static"
    parts = {_kind_of_field(part) for part in typing.get_args(annotation) if part not in (type(None), ...)}
    if len(parts) == 1 and (origin not in (tuple, list) or parts != {"array"}):
        return parts.pop()
    return "any" if "any" in parts else "tree" if parts else "static"


def _as_array(value: Array) -> Any:
    return read_only(value if value is None or is_array(value) else np.asarray(value))


def _as_tree(value: Tree) -> Any:
    if isinstance(value, (tuple, list)):
        kind: Any = kinds[type(value) if isinstance(value, tuple) else tuple]
        return kind.build((), [*map(_as_tree, value)])
    return read_only(value)


def _check_array(owner: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_array(value) or (isinstance(value, np.ndarray) and value.dtype.kind not in "biufc"):
        raise TypeError(f"{field.name} of {type(owner).__name__} must be an array of numbers, not {brief(value)}")


def _check_tree(owner: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_tree(owner, field, item)
    elif not is_array(value) and not is_record(value):
        _check_static(owner, field, value)


def _check_static(owner: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    try:
        hash(value)
    except TypeError as error:
        what = f"{field.name} of {type(owner).__name__} holds {brief(value)}, which is mutable"
        advice = "annotate an array as purenn.Array, replace a list or dict by a tuple, and a 0-d array by its .item()"
        raise TypeError(f"{what}; {advice}") from error


def _equal(a: Any, b: Any) -> bool:
    if is_array(a) and is_array(b):
        return bool(a.shape == b.shape and a.dtype == b.dtype and namespace(a).all((a == b) | ((a != a) & (b != b))))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    same = a == b
    return not getattr(same, "ndim", 0) and bool(same)  # an array with axes equals nothing but an array


_ByValue = attrs.cmp_using(eq=_equal, class_name="record with arrays")


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
    return str(value) if isinstance(value, np.ndarray) and value.ndim == 0 else describe(value)


def pickled(value: Any) -> str | tuple[Any, ...]:
    """Return the pickled form of a record: the function, class and fields that rebuild it."""
    return unpickle_record, (type(value), fields_of(value))


def _itself(value: T, memo: object = None) -> T:
    return value


def _no_jax(value: Any) -> Any:
    error = AttributeError if "purenn.jax" in sys.modules else ImportError
    raise error("run `import purenn.jax` to use records with JAX")


_METHODS = {"__reduce__": pickled, "__copy__": _itself, "__deepcopy__": _itself, "__jax_array__": property(_no_jax)}


def floats_like(new: Array, old: Array) -> Array:
    """Cast a new array to the dtype of an old one, which must be floats if they differ, and lock it."""
    if new.dtype != old.dtype:
        check_floats(old)
        new = astype(new, old.dtype)
    return lock_in_place(new)


def cast_like(new: Array, old: Array) -> Array:
    """Do what ``floats_like`` does for floats; lock other arrays as they are."""
    return floats_like(new, old) if has_kind(old, "real floating") else lock_in_place(new)


class Vector:
    """A record that is a vector: ``a + b``, ``a - b``, ``-a``, ``c * a``, ``a * c`` and ``a / c``, array by array.

    ``a`` and ``b`` are records with the same structure, shapes and dtypes, and ``c`` is a number. No operation changes
    the dtype of floats. ``sum(records)`` works, too.

    >>> import purenn as nn
    >>> @nn.record
    ... class Point(nn.Vector):
    ...     place: nn.Array
    >>> sum([Point([1.0, 2.0]), Point([3.0, 4.0])]).place / 2
    array([2., 3.])
    """

    __slots__ = ()
    __array_ufunc__ = None  # leaves `np.float64(2) * record` to the record

    def __add__(self, other: Self) -> Self:
        return self._mapped(operator.add, right=other) if is_record(other) else self._refused(other)

    def __radd__(self, other: int) -> Self:
        return self if isinstance(other, int) and other == 0 else self._refused(other)  # sum() begins with 0

    def __sub__(self, other: Self) -> Self:
        return self._mapped(operator.sub, right=other) if is_record(other) else self._refused(other)

    def _refused(self, other: object) -> Any:
        """Return NotImplemented, so that Python raises TypeError; for a tuple, raise it with a hint."""
        if isinstance(other, tuple):
            raise TypeError(f"unsupported operand: {type_name(other)}")
        return NotImplemented

    __rsub__ = _refused

    def __neg__(self) -> Self:
        return self._mapped(operator.neg)

    def __mul__(self, factor: Any) -> Self:
        c = check_number("the factor", factor)
        return self._mapped(lambda array: c * wide(array))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Self:
        c = check_number("the divisor", divisor)
        return self._mapped(lambda array: wide(array) / c)

    def _mapped(self, operation: Callable[..., Array], **others: Any) -> Self:
        *columns, rebuilt = aligned(left=self, **others)
        return cast("Self", rebuilt([cast_like(operation(*each), each[0]) for each in zip(*columns, strict=True)]))


class Stepped(Vector):
    """A vector that keeps what the step that made it has joined (see ``purenn.optimizers``)."""

    __slots__ = ("__vectors__",)


def check_fields(cls: Any, fields: dict[str, Any]) -> None:
    """Raise TypeError if a field is unknown, or a field without a default is missing."""
    defaults = {field.name: field.default for field in cls.__attrs_attrs__}
    if unknown := sorted(fields.keys() - defaults.keys()):
        raise TypeError(f"the file has {', '.join(unknown)}, but {cls.__name__} does not")
    if missing := [name for name, default in defaults.items() if default is attrs.NOTHING and name not in fields]:
        raise TypeError(f"{cls.__name__} needs the field {', '.join(missing)}, which the file lacks")


def build_checked(cls: type[T], fields: dict[str, Any]) -> T:
    """Return a record with given fields, validated, but neither converted nor copied, and defaults for the others."""
    check_fields(cls, fields)
    new = object.__new__(cls)
    for field in attrs.fields(cls):  # type: ignore[arg-type]
        value = fields[field.name] if field.name in fields else _default(field, new)
        object.__setattr__(new, field.name, value)  # plain assignment is forbidden
    attrs.validate(new)  # type: ignore[arg-type]
    if hasattr(new, "__attrs_post_init__"):
        new.__attrs_post_init__()
    return new


def _default(field: Any, new: Any) -> Any:
    value: Any = field.default
    convert: Any = field.converter or (lambda value: value)
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory(*[new] * value.takes_self)
    arguments = (value, new, field) if isinstance(convert, attrs.Converter) else (value,)
    return convert.__call__(*arguments)  # a call of a Converter itself does not reach its function


def unpickle_record(cls: type[T], fields: dict[str, Any]) -> T:
    """Return the record that was pickled with given fields. Its arrays are new, so they are locked, not copied."""
    trees: Any = kinds[cls].fields  # type: ignore[union-attr]
    locked = {name: tree_map(lock_in_place, fields[name]) for name in trees if name in fields}
    return build_checked(cls, fields | locked)
