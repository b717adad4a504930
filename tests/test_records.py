"""Records: immutable, comparable, picklable vectors, which are also trees."""

import copy
import pickle
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import purenn as nn
from purenn import records
from purenn.trees import kinds
from tests.strategies import networks, relative_error
from tests.toys import Child, Everything, Holder, Pair, swish

EXAMPLE = Everything([1, 2], np.ones(1), ([1.0], np.ones((1, 2))), (nn.Dense(np.eye(2), np.zeros(2), swish),))


def test_repr():
    assert repr(Everything(1.0)).startswith("Everything(leaf=1.0, optional=None, tree=(), layers=(), name='x'")
    assert "tree=<class 'numpy.ndarray'>" in repr(Everything(1.0, tree=np.ndarray))
    assert repr(EXAMPLE) == (
        "Everything(leaf=i64[2], optional=f64[1], tree=((1.0,), f64[1,2]), "
        "layers=(Dense(weights=f64[2,2], biases=f64[2], activation=swish),), name='x', sizes=(1, 2), _private=3)"
    )


@pytest.mark.parametrize(
    "record",
    [EXAMPLE, Child([1.0]), nn.relu, swish, nn.mnist.digits(), nn.adam_init(np.ones(2)), nn.init(0, (3, 2), [nn.relu])],
    ids=lambda r: type(r).__name__,
)
def test_every_record_pickles_and_copies(record):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(record, protocol))
        assert again == record and not any(leaf.flags.writeable for leaf in nn.tree_leaves(again) if np.ndim(leaf))
    assert copy.copy(record) is record and copy.deepcopy([record])[0] is record
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.name = "other"
    with pytest.raises(AttributeError):
        record.unknown = 1
    assert not hasattr(record, "__dict__")


def test_unpickling_validates():
    _, (cls, fields) = nn.Dense(np.eye(2), np.zeros(2), nn.relu).__reduce__()
    restore = nn.Dense(np.eye(2), np.zeros(2), nn.relu).__reduce__()[0]
    with pytest.raises(ValueError, match="must have the shapes"):
        restore(cls, fields | {"biases": np.zeros(3)})


def test_equality_is_by_value_dtype_and_shape():
    def layer(weights, biases=(0.0,)):
        return nn.Dense(weights, biases, nn.relu)

    assert layer([[1.0]]) == layer([[1.0]])
    assert layer([[1.0]]) != layer([[2.0]])
    assert layer([[np.nan]]) == layer([[np.nan]])
    assert layer([[1.0], [1.0]]) != layer([[1.0]])
    assert layer([[1.0]]) != layer(np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    assert layer([[1.0]]) != nn.Dense([[1.0]], [0.0], nn.tanh)
    assert layer([[1.0]]) != "layer"
    assert Everything(1.0, None) != Everything(1.0, 2.0)
    for a, b in (((1, 2), (1,)), (np.ones(2), 1.0), ((1,), 1), (np.ones(2), np.ones(3)), (1.0, np.nan), (1.0, 2.0)):
        assert Everything(1.0, tree=a) != Everything(1.0, tree=b)
        assert Everything(1.0, tree=b) != Everything(1.0, tree=a)
        assert Everything(1.0, tree=(a,)) != Everything(1.0, tree=(b,))
        assert Everything(1.0, tree=(b,)) != Everything(1.0, tree=(a,))
        if not isinstance(a, tuple):
            assert Everything(a) != Everything(b)
            assert Everything(b) != Everything(a)
    with pytest.raises(TypeError, match="unhashable"):
        hash(layer([[1.0]]))


def test_tree_of_every_kind_of_field():
    leaves = nn.tree_leaves(EXAMPLE)
    assert [np.shape(leaf) for leaf in leaves] == [(2,), (1,), (), (1, 2), (2, 2), (2,)]
    doubled = nn.tree_map(lambda leaf: 2 * leaf, EXAMPLE)
    assert doubled.layers[0].weights.tolist() == [[2, 0], [0, 2]]
    assert (doubled.name, doubled.sizes) == ("x", (1, 2))
    assert nn.tree_leaves((None, [1, 2])) == [1, 2]
    assert nn.tree_map(lambda leaf: None, EXAMPLE).leaf is None, "a leaf may become anything"
    assert Child([1.0]).more.tolist() == [0, 1]


def test_static_fields_are_compared_by_value():
    a, b = (Everything(1.0, sizes=tuple(range(start, 1003))) for start in (1000, 1000))
    assert a.sizes is not b.sizes
    assert (a + b).leaf == 2
    with pytest.raises(ValueError, match="differ"):
        a + Everything(1.0, sizes=(1,))


def test_vectors_leave_static_fields_and_dtypes_alone():
    @nn.record
    class Mixed(nn.Vector):
        small: nn.Array
        large: nn.Array
        scalar: nn.Array
        sizes: tuple[int, ...]

    a = Mixed(np.ones(2, np.float32), np.ones(2), np.float32(1), (3,))
    for result in (np.float64(3) * a, a * np.asarray(3.0), 3 * a, a + a + a, a / np.float64(1 / 3), a - -2 * a):
        assert [leaf.dtype for leaf in nn.tree_leaves(result)] == [np.float32, np.float64, np.float32]
        assert [leaf.tolist() for leaf in nn.tree_leaves(result)] == [[3, 3], [3, 3], 3]
        assert result.sizes == (3,)


@given(networks(dtype=st.just(np.float64)), st.floats(-10, 10), st.floats(-10, 10))
def test_vector_space_axioms(a, c, d):
    random = np.random.default_rng(0)
    b, e = (nn.tree_map(lambda leaf: random.standard_normal(leaf.shape), a) for _ in range(2))
    zero = 0 * a
    assert a + b == b + a
    assert a + zero == a and 1 * a == a and -a == -1 * a and a - a == zero
    for left, right in (
        ((a + b) + e, a + (b + e)),
        (c * (a + b), c * a + c * b),
        ((c + d) * a, c * a + d * a),
        (c * (d * a), (c * d) * a),
        (a * c, c * a),
        (a / 2, 0.5 * a),
        (a - b, a + -b),
    ):
        assert relative_error(left, right) < 1e-12


def test_named_tuples_stay_named_tuples():
    pairs = Holder(Pair(np.ones(2), [np.zeros(1)]), static=Pair(1, np.float64(0.1)))
    assert pairs.parts.right[0].tolist() == [0]
    assert (2 * pairs).parts.left.tolist() == [2, 2]
    again = pickle.loads(pickle.dumps(pairs))
    assert again == pairs
    assert type(again.parts) is type(again.static) is Pair and type(again.static.right) is np.float64
    assert nn.tree_map(lambda leaf: leaf + 1, Pair(1, [2])) == Pair(2, [3])


def test_a_record_may_define_its_own_arithmetic():
    @nn.record
    class Angle:
        degrees: nn.Array

        def __add__(self, other):
            return Angle((self.degrees + other.degrees) % 360)

    @nn.record
    class Heading(Angle):
        name: str = ""

    assert (Angle(350.0) + Angle(20.0)).degrees == 10
    assert (Heading(350.0) + Heading(20.0)).degrees == 10


@pytest.mark.parametrize("annotation", [Any, Any | None, tuple[Any, ...], tuple[nn.Array, Any]])
def test_any_says_nothing(annotation):
    with pytest.raises(TypeError, match="field of Vague is annotated Any; use purenn"):
        nn.record(type("Vague", (), {"__annotations__": {"field": annotation}}))


def kinds_of_fields(**annotations):
    """The names of the fields that hold arrays."""
    cls = nn.record(type("Example", (), {"__annotations__": annotations}))
    return set(kinds[cls].fields)


def test_annotations_say_which_fields_hold_arrays():
    @nn.record
    class Static:
        size: int

    arrays = {
        "a": nn.Array, "b": np.ndarray, "c": NDArray[np.float32], "d": nn.Tree, "e": nn.Layer, "f": nn.Params,
        "g": tuple[nn.Array, ...], "h": tuple[tuple[nn.Dense, int], ...], "i": list[nn.Array], "j": nn.AdamState,
    }  # fmt: skip
    statics = {
        "k": int,
        "l": tuple[int, ...],
        "m": Callable[[nn.Array], nn.Array],
        "n": nn.Activation,
        "o": Static,
        "p": tuple[()],
    }
    optional = {name * 2: annotation | None for name, annotation in (arrays | statics).items()}
    assert kinds_of_fields(**arrays, **statics) == set(arrays)
    assert kinds_of_fields(**optional) == {name * 2 for name in arrays}


def test_an_alias_says_what_its_value_says():
    alias = getattr(typing, "TypeAliasType", lambda name, value: types.SimpleNamespace(__value__=value))  # Python 3.12
    arrays = {"a": alias("A", nn.Array), "b": alias("B", alias("A", nn.Array | None)), "c": alias("C", list[nn.Array])}
    assert kinds_of_fields(**arrays, d=alias("D", int | None)) == set(arrays)
    optional = nn.record(type("Example", (), {"__annotations__": {"field": alias("M", nn.Array | None)}}))
    assert optional(None).field is None and optional([1.0]).field.tolist() == [1.0]


def test_optional_arrays_may_be_none_and_others_may_not():
    for annotation in (nn.Array, np.ndarray, NDArray[np.float32]):
        plain, optional = (
            nn.record(type("Example", (), {"__annotations__": {"field": kind}}))
            for kind in (annotation, annotation | None)
        )
        assert optional(None).field is None
        assert optional([1.0]).field.tolist() == plain([1.0]).field.tolist() == [1.0]
        with pytest.raises(TypeError, match="field of Example must be an array of numbers, not None"):
            plain(None)


@given(networks(), st.integers(1, 5))
def test_sum_is_repeated_addition(params, count):
    assert relative_error(sum([params] * count), count * params) < 1e-5
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + params


def test_what_is_not_a_vector_has_no_arithmetic():
    data = nn.mnist.digits()
    for operation in (lambda: nn.tanh + nn.tanh, lambda: 2 * data, lambda: data - data, lambda: -nn.Dropout(0.5)):
        with pytest.raises(TypeError, match=r"unsupported operand|bad operand"):
            operation()


def test_integers_in_a_vector_become_what_numpy_makes_of_them():
    state = nn.adam_init(np.ones(2, np.float32))
    assert (state + state).steps.dtype == np.int64
    assert [leaf.dtype for leaf in nn.tree_leaves(0.5 * state)] == [np.float64, np.float32, np.float32]


SCRIPT = """
import numpy as np
import purenn as nn

@nn.record
class Mine(nn.Vector):
    values: nn.Array

params = nn.init(0, (2, 1), [nn.identity])
better: nn.Params = 2 * params - params / 3 + -params * 0.5
mine: Mine = 2 * Mine([1.0]) - Mine([2.0]) / 3
total: nn.Params = sum([params, params], start=params)
stepped: nn.Params = nn.sgd_step(params, better, lr=0.1)
seed: nn.Seed = (0, 1)
params + "text"
"""


def test_type_checkers_know_the_arithmetic(tmp_path):
    pytest.importorskip("mypy", reason="needs the extra 'dev'")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(tmp_path / "script.py"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, cwd=Path(nn.__file__).parents[1]).stdout
    assert output.count("error:") == 1, output
    assert "script.py:15: error: Unsupported operand types" in output


def test_a_class_that_inherits_from_a_record_must_be_a_record_too():
    class BareDense(nn.Dense):
        pass

    class BarePairs(Holder):
        pass

    pairs = BarePairs(np.ones(2))
    for call in (
        lambda: BareDense(np.eye(2), np.zeros(2), nn.relu),
        lambda: nn.tree_leaves(pairs),
        lambda: nn.sgd_step((pairs,), (pairs,), 0.1),
    ):
        with pytest.raises(TypeError, match=r"Bare\w+ inherits from a record; decorate it with purenn.record, too"):
            call()
    proper = nn.record(type("Proper", (nn.Dense,), {"__annotations__": {}}))(np.eye(2), np.zeros(2), nn.relu)
    assert type(nn.sgd_step(proper, proper, 0.1)) is type(proper)


def test_jax_says_which_import_is_missing(monkeypatch):
    jax = pytest.importorskip("jax", reason="needs the extra 'jax'")
    monkeypatch.setattr(records, "_registers", [])
    monkeypatch.delitem(sys.modules, "purenn.jax", raising=False)
    record = nn.record(type("Local", (), {"__annotations__": {"values": nn.Array}}))([1.0])
    with pytest.raises(ImportError, match=r"run `import purenn\.jax` to use records with JAX"):
        jax.jit(lambda record: record.values)(record)
    monkeypatch.setitem(sys.modules, "purenn.jax", nn)
    assert not hasattr(record, "__jax_array__")


def test_a_field_that_is_a_record_is_part_of_the_tree():
    @nn.record
    class Holder:
        layer: nn.Dense
        activation: nn.Activation

    holder = Holder(nn.Dense(np.eye(2), np.zeros(2), nn.relu), nn.relu)
    assert [leaf.shape for leaf in nn.tree_leaves(holder)] == [(2, 2), (2,)]
