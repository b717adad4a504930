"""What makes a record immutable, comparable, picklable, and a vector?"""

import collections.abc
import operator
import typing
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast, dataclass_transform

import attrs
import numpy as np

from purenn.arrays import (
    Array,
    brief,
    check_scalar,
    describe,
    frozen,
    is_array,
    locked,
    namespace,
    scalar_like,
)
from purenn.trees import combined, restored, sequence_like, tree_map

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a record: a frozen, slotted attrs class whose arrays are read-only, and which is a vector.

    Annotations say what a field is. One annotated ``purenn.Array`` is an array: made read-only (copied if the caller
    could still write to it), compared by dtype, shape and value (NaN equals NaN), and shown as ``f32[784,128]``. One
    whose annotation mentions ``Array``, ``Any`` or a record that has arrays is a tree of arrays. Any other field is
    static: a hashable value, such as an activation or a stride, that arithmetic leaves alone.

    For records ``a`` and ``b`` of the same structure and a number ``c``, the operations ``a + b``, ``a - b``, ``-a``,
    ``c * a``, ``a * c`` and ``a / c`` work array by array and never change the dtype of floats. Every record pickles.

    A record validates itself in ``__attrs_post_init__``, which runs when it is made and when it is unpickled.

    Parameters
    ----------
    cls : type
        A class with annotated fields, as for ``attrs.define``.

    Returns
    -------
    type
        The record class.

    Raises
    ------
    TypeError
        If an annotation cannot be resolved. The new class raises it, if an array field is given something else, or a
        static field a value that could change.

    Examples
    --------
    >>> import purenn as nn
    >>> @nn.record
    ... class Scale:
    ...     factors: nn.Array
    ...     name: str = "scale"
    >>> Scale([1.0, 2.0]) + 3 * Scale([1.0, 1.0])
    Scale(factors=f64[2], name='scale')
    """
    for name in _METHODS:
        if not any(name in vars(base) for base in cls.__mro__[:-1]):
            setattr(cls, name, vars(Vector)[name])
    new = attrs.define(cls, frozen=True, slots=True, field_transformer=_configure)
    fields = attrs.fields(new)  # type: ignore[arg-type]
    new.__fields__ = tuple(field.name for field in fields)  # type: ignore[attr-defined]
    new.__children__ = tuple(field.name for field in fields if field.metadata["child"])  # type: ignore[attr-defined]
    new.__statics__ = tuple(field.name for field in fields if not field.metadata["child"])  # type: ignore[attr-defined]
    every_record.append(new)
    for register in _registers:
        register(new)
    return new


every_record: list[type] = []
_registers: list[Callable[[type], None]] = []


def for_every_record(register: Callable[[type], None]) -> None:
    """Call a function with every record class: with those that there are now, and with each that is defined later."""
    for cls in every_record:
        register(cls)
    _registers.append(register)


# What a field is


def _configure(cls: type, fields: list["attrs.Attribute[Any]"]) -> list["attrs.Attribute[Any]"]:
    """Set every field's converter, validator, comparison and repr from its annotation (attrs' field_transformer)."""
    try:
        annotations = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(f"{cls.__name__} has an annotation that cannot be resolved: {error}") from error
    return [
        field if field.inherited else _configured(field, annotations[field.name])  # type: ignore[attr-defined]
        for field in fields
    ]


def _configured(field: "attrs.Attribute[Any]", annotation: Any) -> "attrs.Attribute[Any]":
    child = _holds_arrays(annotation)
    hooks: dict[str, Any] = {"metadata": {**field.metadata, "child": child}}
    if not child:
        validators: list[Any] = [_check_static]
    elif annotation in (Array, Array | None):
        validators = [attrs.validators.optional(_check_array) if annotation == Array | None else _check_array]
        hooks |= {"converter": _as_array, "eq_key": _ByValue, "repr": _show}
    else:
        validators = [_check_tree]
        hooks |= {"converter": _as_tree, "eq_key": _ByValue, "repr": _show}
    if field.converter is not None and child:
        hooks["converter"] = attrs.converters.pipe(field.converter, hooks["converter"])
    if field.validator is not None:
        validators.append(field.validator)
    return field.evolve(validator=attrs.validators.and_(*validators), **hooks)


def _holds_arrays(annotation: Any) -> bool:
    if typing.get_origin(annotation) is collections.abc.Callable:
        return False
    return (
        annotation is Any
        or isinstance(annotation, TypeVar)
        or bool(getattr(annotation, "__children__", ()))
        or any(map(_holds_arrays, typing.get_args(annotation)))
    )


def _as_array(value: Any) -> Any:
    return value if value is None else frozen(value if is_array(value) else np.asarray(value))


def _as_tree(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return sequence_like(value if isinstance(value, tuple) else (), list(map(_as_tree, value)))
    return frozen(value)


def _check_array(record: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_array(value) or (isinstance(value, np.ndarray) and value.dtype.kind not in "biufc"):
        raise TypeError(f"{field.name} of {type(record).__name__} must be an array of numbers, not {brief(value)}")


def _check_tree(record: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_tree(record, field, item)
    elif not is_array(value) and not hasattr(value, "__children__"):
        _check_static(record, field, value)


def _check_static(record: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"{field.name} of {type(record).__name__} holds {brief(value)}, which could change; annotate an "
            "array as purenn.Array, and give a tuple instead of a list or dict"
        ) from error


def _equal(a: Any, b: Any) -> bool:
    if is_array(a) and is_array(b):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(namespace(a).all((a == b) | ((a != a) & (b != b))))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    same = a == b
    return not getattr(same, "ndim", 0) and bool(same)  # an array with axes equals nothing but an array


_ByValue = attrs.cmp_using(eq=_equal, class_name="record with arrays")


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
    return describe(value)


# What a record can do


class Vector:
    """The operations of a vector space, array by array; and what makes a record a value: pickling, copying.

    ``record`` gives these methods to every class. Those that inherit them have them known to type checkers, too.
    """

    __slots__ = ()
    __array_ufunc__ = None  # leaves `np.float64(2) * record` to the record

    def __add__(self, other: Self) -> Self:
        return cast("Self", _leafwise(operator.add, self, other))

    def __sub__(self, other: Self) -> Self:
        return cast("Self", _leafwise(operator.sub, self, other))

    def __neg__(self) -> Self:
        return tree_map(lambda leaf: locked(-leaf), self)

    def __mul__(self, factor: Any) -> Self:
        c = check_scalar("the factor", factor)
        return tree_map(lambda leaf: locked(scalar_like(c, leaf) * leaf), self)

    def __rmul__(self, factor: Any) -> Self:
        return Vector.__mul__(self, factor)

    def __truediv__(self, divisor: Any) -> Self:
        c = check_scalar("the divisor", divisor)
        return tree_map(lambda leaf: locked(leaf / scalar_like(c, leaf)), self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return unpickled, (type(self), {name: getattr(self, name) for name in self.__fields__})  # type: ignore[attr-defined]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


_METHODS = [name for name in vars(Vector) if name not in ("__module__", "__qualname__", "__doc__", "__slots__")]


def _leafwise(operation: Callable[[Array, Array], Array], a: T, b: Any) -> Any:
    if not hasattr(b, "__children__"):
        return NotImplemented

    return combined(operation, a, b)


def unpickled(cls: type[T], fields: dict[str, Any]) -> T:
    """Make a record from its unpickled fields. Their arrays are new, so they are locked rather than copied."""
    children = cls.__children__  # type: ignore[attr-defined]
    return validated(
        cls, {name: tree_map(locked, value) if name in children else value for name, value in fields.items()}
    )


def validated(cls: type[T], fields: dict[str, Any]) -> T:
    """Return a record of given fields, which are taken as they are but validated."""
    new = restored(cls, fields)
    attrs.validate(new)  # type: ignore[arg-type]
    if hasattr(new, "__attrs_post_init__"):
        new.__attrs_post_init__()
    return new
