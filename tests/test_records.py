"""Records: immutable, comparable, picklable vectors; and the trees that they are."""

import copy
import pickle
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import networks, relative_error


@nn.record
class Everything:
    """One field of every kind."""

    leaf: nn.Array
    optional: nn.Array | None = None
    tree: Any = ()
    layers: tuple[nn.Layer, ...] = ()
    name: str = "x"
    sizes: tuple[int, ...] = (1, 2)
    _private: int = 3


@nn.record
class Child(Everything):
    """Inherits its fields."""

    more: nn.Array = attrs.field(
        converter=lambda value: [0.0, *value], validator=attrs.validators.min_len(2), default=(1.0,)
    )
    even: int = attrs.field(validator=attrs.validators.in_((2, 4)), default=2)


def swish_function(z):
    return z * nn.sigmoid(z)


def swish_pullback(z, y, dy):
    return dy * (y + nn.sigmoid(z) * (1 - y))


swish = nn.Activation("swish", swish_function, swish_pullback)
EXAMPLE = Everything([1, 2], np.ones(1), ([1.0], np.ones((1, 2))), (nn.Dense(np.eye(2), np.zeros(2), swish),))


def test_repr():
    assert repr(Everything(1.0)).startswith("Everything(leaf=f64[], optional=None, tree=(), layers=(), name='x'")
    assert repr(EXAMPLE) == (
        "Everything(leaf=i64[2], optional=f64[1], tree=((1.0,), f64[1,2]), "
        "layers=(Dense(weights=f64[2,2], biases=f64[2], activation=swish),), name='x', sizes=(1, 2), _private=3)"
    )


@pytest.mark.parametrize(
    "record", [EXAMPLE, Child([1.0]), nn.relu, swish, nn.mnist.digits()], ids=lambda r: type(r).__name__
)
def test_every_record_pickles_and_copies(record):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(record, protocol)) == record
    assert copy.copy(record) is record and copy.deepcopy([record])[0] is record
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.name = "other"
    with pytest.raises(AttributeError):
        record.unknown = 1
    assert not hasattr(record, "__dict__")


def test_activations_pickle_by_name():
    for activation in (nn.tanh, nn.relu, nn.sigmoid, nn.identity, nn.softmax):
        assert pickle.loads(pickle.dumps(activation)) is activation
        assert copy.deepcopy(activation) is activation
    impostor = nn.Activation("relu", np.abs, lambda z, y, dy: dy * np.sign(z))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(impostor)


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


def test_a_field_that_is_a_record_is_part_of_the_tree():
    @nn.record
    class Holder:
        layer: nn.Dense
        activation: nn.Activation

    holder = Holder(nn.Dense(np.eye(2), np.zeros(2), nn.relu), nn.relu)
    assert [leaf.shape for leaf in nn.tree_leaves(holder)] == [(2, 2), (2,)]


def test_static_fields_are_compared_by_value():
    a, b = (Everything(1.0, sizes=tuple(range(start, 1003))) for start in (1000, 1000))
    assert a.sizes is not b.sizes
    assert (a + b).leaf == 2
    with pytest.raises(ValueError, match="differ"):
        a + Everything(1.0, sizes=(1,))


def test_vectors_leave_static_fields_and_dtypes_alone():
    @nn.record
    class Mixed:
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


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda a: a + 1, TypeError, "unsupported operand"),
        (lambda a: a - None, TypeError, "unsupported operand"),
        (lambda a: a * a, TypeError, "the factor must be a number, not Dense"),
        (lambda a: np.ones(2) * a, TypeError, r"the factor must be a number, not f64\[2\]"),
        (lambda a: a * "2", TypeError, "the factor must be a number, not '2'"),
        (lambda a: a / float("nan"), ValueError, "the divisor is nan, but must be a finite number"),
        (lambda a: a + nn.Params((a,)), ValueError, "trees differ: Dense in the first, Params in another"),
        (lambda a: a + nn.Dense(a.weights, a.biases, nn.tanh), ValueError, "activation of Dense is relu in the first and tanh"),
        (lambda a: nn.Params((a,)) + nn.Params((a, a)), ValueError, "a tuple of 1 in the first, a tuple of 2"),
        (lambda a: a * (1 + 2j), TypeError, r"the factor must be a number, not \(1\+2j\)"),
        (lambda a: np.complex128(1 + 2j) * a, TypeError, "the factor must be a number, not c128"),
        (lambda a: a * np.asarray("ab"), TypeError, "the factor must be a number"),
        (lambda a: 10**400 * a, ValueError, "the factor is inf, but must be a finite number"),
        (lambda a: nn.sgd_step((a,), a, 1), ValueError, "a tuple of 1 in the first, Dense in another"),
        (lambda a: nn.sgd_step(a.biases, (a.biases,), 1), ValueError, r"f64\[2\] in the first, a tuple of 1 in another"),
        (lambda a: nn.sgd_step(a.biases, None, 1), ValueError, r"f64\[2\] in the first, None in another"),
        (lambda a: nn.sgd_step(None, a.biases, 1), ValueError, r"None in the first, f64\[2\] in another"),
        (lambda a: nn.tree_map(lambda p: 1, a) + a, ValueError, r"1 and f64\[2,2\] do not combine"),
        (lambda a: nn.tree_map(max, (a,), 1), ValueError, "a tuple of 1 in the first, 1 in another"),
        (lambda a: a + nn.tree_map(lambda p: p.astype(np.float32), a), ValueError, r"f64\[2,2\] and f32\[2,2\] do not combine"),
        (lambda a: a + nn.tree_map(lambda p: p[:1], a), ValueError, r"f64\[2,2\] and f64\[1,2\] do not combine"),
    ],
)  # fmt: skip
def test_arithmetic_that_makes_no_sense(operation, error, message):
    with pytest.raises(error, match=message):
        operation(nn.Dense(np.eye(2), np.zeros(2), nn.relu))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Everything("text"), TypeError, "leaf of Everything must be an array of numbers"),
        (lambda: Everything(object()), TypeError, "leaf of Everything must be an array of numbers"),
        (lambda: Everything([[1], [1, 2]]), ValueError, "inhomogeneous"),
        (lambda: Everything(1, sizes=[1, 2]), TypeError, r"sizes of Everything holds \[1, 2\], which could change"),
        (lambda: Everything(1, name=np.ones(2)), TypeError, r"name of Everything holds f64\[2\], which could change; annotate"),
        (lambda: Everything(None), TypeError, "leaf of Everything must be an array of numbers, not None"),
        (lambda: Everything(1, tree=({"a": 1},)), TypeError, "tree of Everything holds {'a': 1}, which could change"),
        (lambda: Child(1, even=3), ValueError, "'even' must be in"),
        (lambda: Child(1, more=()), ValueError, "Length of 'more' must be >= 2"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Pair(NamedTuple):
    first: Any
    second: Any


@nn.record
class Pairs:
    tree: Any
    static: tuple[int, ...]
    rate: float = 0.0


def test_named_tuples_stay_named_tuples():
    pairs = Pairs(Pair(np.ones(2), [np.zeros(1)]), Pair(1, 2), np.float64(0.1))
    assert pairs.tree.second[0].tolist() == [0]
    assert (2 * pairs).tree.first.tolist() == [2, 2]
    again = pickle.loads(pickle.dumps(pairs))
    assert again == pairs
    assert type(again.tree) is type(again.static) is Pair
    assert type(again.rate) is np.float64
    assert nn.tree_map(lambda leaf: leaf + 1, Pair(1, [2])) == Pair(2, [3])


def test_subclasses_of_arrays_become_arrays():
    class Subclass(np.ndarray):
        pass

    weights = np.eye(2).view(Subclass)
    assert type(nn.Dense(weights, np.zeros(2), nn.relu).weights) is np.ndarray
    weights.flags.writeable = False
    assert type(nn.Dense(weights, np.zeros(2), nn.relu).weights) is np.ndarray


def test_an_annotation_that_names_nothing():
    with pytest.raises(TypeError, match="Broken has an annotation that cannot be resolved: name 'Nothing'"):

        @nn.record
        class Broken:
            field: "Nothing"  # noqa: F821


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
