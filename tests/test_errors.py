"""Bad input gets an error that says what was given and what to do, and doing it works."""

import io
import re
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
from numpy.lib.recfunctions import structured_to_unstructured

import purenn as nn
from tests.toys import DENSE, PARAMS, SIGMOID, Child, Embedding, Everything, Holder, Ruled, Scale, X, Y, f32

LAYER, ONE, NARROW = PARAMS.layers[0], nn.init(0, (4, 1), [nn.sigmoid]), nn.init(0, (1, 2), [nn.softmax])
WIDE = nn.Params((LAYER, Scale(np.ones(2, np.float32))))


class NA:
    """As pandas.NA: no comparison with it is true or false."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    def __repr__(self):
        return "<NA>"


NAMES = np.asarray(["cat", "dog", "cat", "dog", "cat"])
SPARSE = SimpleNamespace(toarray=lambda: X)  # as a sparse matrix of SciPy
TENSOR = SimpleNamespace(detach=lambda: SimpleNamespace(numpy=lambda: X))  # as a tensor of PyTorch


def numbered(names):
    return np.unique(names, return_inverse=True)[1]


# Part of a message, where ... is any text and $ the end, and a call that raises it, or several calls; or a function,
# a wrong argument for it, and the change to this argument that the message advises.
TYPE_ERRORS = {
    "of type list, but must be an array": lambda: nn.vjp(LAYER, X)[1]([[1.0] * 3] * 5),
    "y is c128[5,2], but must hold real numbers: y.real leaves out": (
        lambda y: nn.loss(PARAMS, X, y), np.full((5, 2), 0.5 + 0j), lambda y: y.real
    ),
    "sample_weight is c128[5], but must hold real numbers: sample_weight.real leaves out": (
        lambda w: nn.loss(PARAMS, X, Y, w), (Y + 1) * 1j + 1, lambda w: w.real
    ),
    "sample_weight is of type list, ... np.asarray(sample_weight) makes one": (
        lambda w: nn.loss(PARAMS, X, Y, w), [1] * 5, np.asarray
    ),
    "the network ends in tanh, which determines no loss; the last layer": lambda: nn.loss(LAYER, X, Y),
    "identity predicts values": lambda: nn.accuracy(nn.init(0, (4, 2), [nn.identity]), X, X[:, :2]),
    "layers.1 is 3, but must be a record such as": lambda: nn.Params((LAYER, 3)),
    "Dense has the arrays f32[2,2], f64[2], but parameters": lambda: nn.Dense(f32(2, 2), np.zeros(2), nn.relu),
    "must be all float32 or all float64": lambda: nn.Params((LAYER, nn.Dense(np.zeros((3, 2)), np.zeros(2), nn.relu))),
    "leaf is of type object, but must be an array": lambda: nn.Params((Holder(object()),)),
    "leaf is c128[2,2], but must hold real numbers: leaf.real leaves out": (
        lambda w: nn.Dense(w, w[0], nn.relu), np.ones((2, 2), complex), lambda w: w.real
    ),
    "i64[1,1]": lambda: nn.Dense([[1]], [0], nn.relu),
    "activation is 'relu', but must be an Activation": lambda: nn.Dense(f32(2, 2), f32(2), "relu"),
    "initializer is 'he', but must be a function": lambda: nn.init(0, (2, 2), [nn.relu], initializer="he"),
    "initializer is [None, None]": lambda: nn.init(0, (2, 2), [nn.relu], initializer=[None] * 2),
    "dtype is int64, but must be float32 or": lambda: nn.init(0, (2, 2), [nn.relu], dtype=int),
    "but must be float32 or float64": lambda: nn.init(0, (2, 2), [nn.relu], dtype=None),
    "lr.layers.0.weights must be a number, not f32[4,3]": lambda: nn.sgd_step(PARAMS, PARAMS, PARAMS),
    "but must come from adam_init or the previous step": lambda: nn.adam_step(PARAMS, PARAMS, PARAMS, 0.1),
    "is i64[5], but must hold floats": lambda: nn.sgd_step(Y, Y, 0.1),
    "is object[], but must hold real numbers": lambda: nn.numerical_grads(lambda p: None, np.ones(2)),
    "the network ends in Dropout, but logits": lambda: nn.logits(nn.Params((LAYER, nn.Dropout(0.5))), X),
    "a dict in a tree has the key 1, but keys must be strings": lambda: nn.tree_leaves({1: X}),
    "of type int, but must be an array": lambda: nn.clip_by_global_norm((X, 0), 1),
    "of type float, but must be an array": lambda: nn.ravel((X, 1.0)),
    "is u8[1], but must hold floats": lambda: nn.sigmoid(np.asarray([5], np.uint8)),
    "of type str, but must be an array": lambda: nn.AdamState(np.asarray(1), "text", X),
    "leaf is c64[5,4], but must hold real numbers": lambda: nn.global_norm((X, 1j * X)),
    "step is 0.5, but must be an int": lambda: nn.warmup_cosine(0.5, 0.1, 10),
    "is c128[2], but must hold floats": lambda: nn.numerical_grads(lambda p: 0.0, np.ones(2, complex)),
    "step is c128[], but must hold real numbers": lambda: nn.warmup_cosine(np.asarray(1j), 0.1, 10),
    "is c64[], but must hold real numbers": lambda: nn.converged(np.asarray([1j], np.complex64)),
    "vjp has no rule for int; purenn.vjp.register adds one": [
        lambda: nn.forward(3, X), lambda: nn.inspect(3), lambda: nn.inspect(3, X), lambda: nn.check_vjp(3, X)
    ],
    "use a record or a tuple instead": [lambda: nn.adam_init([X]), lambda: nn.adam_init((X, {"a": X}))],
    "fan_out is 2.5, but must be an int": lambda: nn.initializers.orthogonal(0, 3, 2.5),
    "a boundary is 2.5, but must be an int": lambda: nn.piecewise_constant(0, [1, 2], [2.5]),
    "_method, but must be an array; y() makes one": (
        lambda y: nn.loss(PARAMS, X, y), Y.copy, lambda y: y()
    ),
    "y is of type list, ... np.asarray(y)": (lambda y: nn.loss(PARAMS, X, y), Y.tolist(), np.asarray),
    "y is <U3[5], ... names, y = np.unique(y, return_inverse=True), once": (
        lambda y: nn.grads(PARAMS, X, y), NAMES, numbered
    ),
    "y is object[5], ... once, for all labels; then np.searchsorted(names, more)": (
        lambda y: nn.grads(PARAMS, X, y), NAMES.astype(object), lambda y: np.searchsorted(np.unique(NAMES), y)
    ),
    "y is f64[5], ... y.astype(int)": (lambda y: nn.loss(PARAMS, X, y), Y * 1.0, lambda y: y.astype(int)),
    "y is bool[5], ... y.astype(int)": (lambda y: nn.loss(PARAMS, X, y), Y > 0, lambda y: y.astype(int)),
    "y is f64[5], ... labels are whole numbers; to predict values, end the network in identity": [
        lambda v=v: nn.loss(PARAMS, X, np.where(Y > 0, v, Y)) for v in (0.5, np.inf, 1e18)
    ],
    "y is object[5], ... known = ~np.isin(y.astype(str), ['None', 'nan', '<NA>', 'NaT']), and x[known], y[known]": [
        lambda v=v: nn.loss(PARAMS, X, np.asarray(["a", v, v, v, "b"], object)) for v in (None, np.nan, NA())
    ],
    "y is object[4], ... names, y = np.unique(y": [
        lambda v=v: nn.loss(PARAMS, X[:4], np.asarray([0, 1, v, v], object)) for v in (np.int64(2), 1.0)
    ],
    "y is object[5], ... y.astype(int)": (
        lambda y: nn.loss(PARAMS, X, y), np.asarray([1, 0, True, 1, 0], object), lambda y: y.astype(int)
    ),
    "y is [('width', '<f8'), ('kind', '<i8')][5], ... y['kind'] is one of its columns": (
        lambda y: nn.loss(PARAMS, X, y), np.zeros(5, [("width", float), ("kind", int)]), lambda y: y["kind"]
    ),
    "y is <U1[5,1], but must hold real numbers: if the texts are numbers, y.astype(float)": (
        lambda y: nn.loss(ONE, X, y), np.full((5, 1), "1"), lambda y: y.astype(float)
    ),
    "path is Params, but must be the path of a file: nn.save(path, tree)": lambda: nn.save(PARAMS, "file"),
    "path is BytesIO, but must be the path of a file: nn.save(path, tree)": lambda: nn.save(io.BytesIO(), PARAMS),
    "x is of type float, but must be an array; np.asarray(x) makes one": (
        lambda x: nn.batches(0, x, Y), X.tolist(), np.asarray
    ),
    "must be a number, not a list of 5": [lambda: X.tolist() * DENSE, lambda: nn.Dropout([0.1] * 5)],
    "must be a number, not a list of 2": lambda: [[0.1], [0.2]] * DENSE,
    "returned None, but must return an array with one row per example of x, a list of 5":
        lambda: nn.vjp(Ruled(lambda layer, x: (None, abs)), [1.0] * 5),
    "unsupported operand: tuple (pullback(dy)[0] is the gradient)": [
        lambda f=f: f(PARAMS, nn.vjp(PARAMS, X)[1](np.ones((5, 2)))) for f in (
            lambda a, b: a + b, lambda a, b: a - b, lambda a, b: b + a, lambda a, b: b - a
        )
    ],
    "a leaf is a function; if it came from a pullback, pullback(dy)[0] is the gradient": (
        nn.global_norm, nn.vjp(PARAMS, X)[1](np.ones((5, 2))), lambda pair: pair[0]
    ),
    "unsupported operand: tuple (unpack it: params, state = nn.adam_step": (
        lambda p: PARAMS - p, nn.adam_step(PARAMS, PARAMS, nn.adam_init(PARAMS), 0.1), lambda p: p[0]
    ),
    "x is of type list, ... np.asarray(x)": (lambda x: nn.forward(PARAMS, x), X.tolist(), np.asarray),
    "x.toarray() makes one": (lambda x: nn.forward(PARAMS, x), SPARSE, lambda x: x.toarray()),
    "x.detach().numpy() makes one": (lambda x: nn.forward(PARAMS, x), TENSOR, lambda x: x.detach().numpy()),
    "x.astype(np.float32); pixels also / 255": (
        lambda x: nn.forward(PARAMS, x), np.full((5, 4), 255, np.uint8), lambda x: x.astype(np.float32) / 255
    ),
    "x.filled(...)": (lambda x: nn.forward(PARAMS, x), np.ma.masked_array(X), lambda x: x.filled(0)),
    "dy is i64[5,2], but must hold floats: dy.astype(np.float32)$": (
        lambda dy: nn.vjp(PARAMS, X)[1](dy), np.ones((5, 2), int), lambda dy: dy.astype(np.float32)
    ),
    "tuple (unpack it: params, state = nn.adam_step(...": (lambda p: nn.forward(p, X), (PARAMS, 0), lambda p: p[0]),
    "in tuple (unpack it: params, state = nn.adam_step(...)": (lambda p: nn.loss(p, X, Y), (PARAMS, 0), lambda p: p[0]),
    "activations is softmax, but must be a list or tuple: [softmax]": (
        lambda f: nn.init(0, (4, 2), f), nn.softmax, lambda f: [f]
    ),
    "sizes is 4, but must be a list or tuple": (lambda k: nn.init(0, k, [nn.softmax]), 4, lambda k: [k, 2]),
    "a size is 4.0, but must be an int": (lambda size: nn.init(0, (size, 2), [nn.softmax]), 4.0, int),
    "batch_size is 32.0, but must be an int": (lambda n: nn.batches(0, X, Y, n), 32.0, int),
    "y is of type int, ... np.asarray(y) makes one": (lambda y: nn.batches(0, X, y), Y.tolist(), np.asarray),
    "y.1 is of type int, ... np.asarray(y.1) makes": (lambda w: nn.batches(0, X, (Y, w)), [1] * 5, np.asarray),
    "total_steps is 10.0, but must be an int": (lambda n: nn.warmup_cosine(0, 0.1, n), 10.0, int),
    "patience is 2.0, but must be an int": (lambda n: nn.converged([1.0], n), 2.0, int),
    ">f4[4,2]... .astype(np.float32) converts one": (
        lambda w: nn.Dense(w, w[0], nn.relu), np.ones((4, 2), ">f4"), lambda w: w.astype(np.float32)
    ),
    "records is <class '...Scale'>, but must be a list or tuple": lambda: nn.load(__file__, Scale),
    "y was given without x; inspect(params, x, y) takes both": lambda: nn.inspect(PARAMS, y=Y),
    "the network ends in gelu, which determines no loss": lambda: nn.inspect(nn.init(0, (4, 2), [nn.gelu]), X, Y),
    "is i64[5,4], but must hold floats...in layers.0":
        lambda: nn.inspect(nn.Params((nn.Dropout(0.5), LAYER)), X.astype(int)),
    "the factor must be a number, not Dense": lambda: DENSE * DENSE,
    "Broken has an annotation that cannot be resolved: name 'Nothing'":
        lambda: nn.record(type("Broken", (), {"__annotations__": {"field": "Nothing"}})),
    "unsupported operand": [lambda: DENSE + 1, lambda: DENSE - None, lambda: 1 + DENSE],
    "leaf is of type int, but must be an array; np.asarray(leaf)": lambda: nn.tree_map(lambda p: 1, DENSE) + DENSE,
    "leaf of Everything must be an array of numbers, not <U4[]": lambda: Everything("text"),
    "leaf of Everything must be an array of numbers, not object[]": lambda: Everything(object()),
    "leaf of Everything must be an array of numbers, not None": lambda: Everything(None),
    "more of Child must be an array of numbers, not <U32[2]": lambda: Child(1, more="a"),
    "even of Child holds [3], which is mutable": lambda: Child(1, even=[3]),
    "the network ends in tanh, which determines no loss; the last": [
        lambda: nn.grads(LAYER, f32(5, 9), Y), lambda: nn.loss(nn.Params((LAYER,)), f32(5, 9), Y),
        lambda: nn.loss_and_grads(LAYER, f32(5, 9), Y),
    ],
    "sizes of Everything holds [1, 2], which is mutable": lambda: Everything(1, sizes=[1, 2]),
    "name of Everything holds f64[2], which is mutable; annotate": lambda: Everything(1, name=np.ones(2)),
    "tree of Everything holds {'a': 1}, which is mutable": lambda: Everything(1, tree=({"a": 1},)),
}  # fmt: skip
VALUE_ERRORS = {
    "x has 3 features, but the layer takes 4": lambda: nn.forward(PARAMS, f32(5, 3)),
    "x has 6 features, but the layer takes 4": lambda: nn.forward(PARAMS, f32(5, 6)),
    "but must have the shape of the output, f32[5,3]": [
        lambda k=k: nn.vjp(LAYER, X)[1](f32(*k)) for k in ((5, 1), (6, 3))
    ],
    "labels from 1 to 2, but must be from 0 to 1": lambda: nn.loss(PARAMS, X, Y + 1),
    "labels from -1 to 0, but must be from 0 to 1": lambda: nn.grads(PARAMS, X, Y - 1),
    "y has the shape (4,), but x has 5 rows": lambda: nn.grads(PARAMS, X, Y[:4]),
    "y has the shape (5,), but x has 4 rows": lambda: nn.grads(PARAMS, X[:4], Y),
    "y has the shape (5, 3), but the output": lambda: nn.loss(PARAMS, X, np.ones((5, 3)) / 3),
    "not a distribution": lambda: nn.loss(PARAMS, X, np.tile([2.0, -1.0], (5, 1))),
    "values from 2.0 to 2.0, but must be": lambda: nn.loss(SIGMOID, X, 2 * np.ones((5, 2))),
    "values from -0.5 to -0.5, but must be": lambda: nn.loss(SIGMOID, X, -0.5 * np.ones((5, 2))),
    "y has the shape (), but x has 5 rows": lambda: nn.loss(SIGMOID, X, np.asarray(1)),
    "sample_weight is from 0.0 to 0.0, but must be finite": lambda: nn.loss(PARAMS, X, Y, 0 * Y),
    "sample_weight is from -0.5 to 0.5, but must be": lambda: nn.grads(PARAMS, X, Y, Y - 0.5),
    "sample_weight is from nan to nan": lambda: nn.loss_and_grads(PARAMS, X, Y, Y * np.nan),
    "sample_weight is from inf to inf": lambda: nn.accuracy(PARAMS, X, Y, Y + np.inf),
    "sample_weight has the shape (5, 1), but must have (5,)": lambda: nn.grads(PARAMS, X, Y, Y[:, None]),
    "y has the shape (3,), but x has 5 rows": lambda: nn.loss(PARAMS, X, Y[:3], Y),
    "the batch is empty": lambda: nn.loss(PARAMS, X[:0], Y[:0]),
    "layers.1 takes 4 features, but layers.0 gives 3": lambda: nn.Params((LAYER, LAYER)),
    "layers.1 takes 2 features, but layers.0 gives 3": lambda: nn.Params((LAYER, DENSE)),
    "must be a tuple of at least one layer": [lambda: nn.Params(()), lambda: nn.Params(LAYER)],
    "weights are f32[2,3] and biases f32[2]": lambda: nn.Dense(f32(2, 3), f32(2), nn.relu),
    "and no size 0": lambda: nn.Dense(f32(2, 0), f32(0), nn.relu),
    "images are f32[2,6] ... (n, 4)": lambda: nn.mnist.Dataset(f32(2, 6), Y[:2], f32(1, 6), Y[:1], (2, 2)),
    "labels i64[3]": lambda: nn.mnist.Dataset(f32(2, 4), Y[:2], f32(1, 4), Y[:3], (2, 2)),
    "2 sizes and 2 activations were given": lambda: nn.init(0, (2, 2), [nn.relu, nn.relu]),
    "1 sizes and 0 activations were given": lambda: nn.init(0, (2,), []),
    "a size is 0, but must be at least 1": lambda: nn.init(0, (2, 0), [nn.relu]),
    "fan_in is 0, but must be at least 1": lambda: nn.initializers.he_normal(0, 0, 3),
    "batch_size is 0, but must be at least 1": lambda: nn.batches(0, X, Y, 0),
    "x is f32[5,4], y is i64[4]; all arrays must have the same number of rows": lambda: nn.batches(0, X, Y[:4]),
    "x.a is f32[5,4], x.b is f32[4,4], y.0 is i64[5]; all": lambda: nn.batches(0, {"a": X, "b": X[:4]}, (Y,)),
    "x and y hold no arrays; all arrays must have the same number of rows": lambda: nn.batches(0, (), None),
    "x is i64[], y is i64[]; all arrays must have": lambda: nn.batches(0, np.asarray(1), np.asarray(1)),
    "lr differs from params: tuple of 2 instead of Params": lambda: nn.sgd_step(PARAMS, PARAMS, (0.1, 0.2)),
    "lr.1 is nan, but must be a finite number": lambda: nn.sgd_step((X, X), (X, X), (0.1, np.nan)),
    "velocity differs from params: Dense(tanh,) instead": lambda: nn.momentum_step(PARAMS, PARAMS, LAYER, 0.1),
    "dy is f32[1,4], but must have the shape of the output": lambda: nn.vjp(nn.Dropout(0.5, 1), X)[1](X[:1]),
    "f returned f64[2], but must return a number": lambda: nn.numerical_grads(lambda p: p, np.ones(2)),
    "y has 10 values that are NaN": lambda: nn.accuracy(SIGMOID, X, np.full((5, 2), np.nan)),
    "b differs from a: Dense(tanh,) instead of Params()": lambda: nn.vdot(PARAMS, LAYER),
    "labels i64[2,3]": lambda: nn.mnist.Dataset(f32(2, 3, 4), np.zeros((2, 3), int), f32(1, 4), Y[:1], (2, 2)),
    "f32[3]": lambda: nn.Dense(f32(3), np.ones((), np.float32), nn.relu),
    "f32[2,3,4]": lambda: nn.Dense(f32(2, 3, 4), f32(3, 4), nn.relu),
    "labels i64[]": lambda: nn.mnist.Dataset(f32(4), np.asarray(1), f32(1, 4), Y[:1], (2, 2)),
    "must be of one dtype, but are f32[5,4], i64[5]": lambda: nn.ravel((X, Y)),
    "but must have the shape (20,)": [lambda n=n: nn.ravel(X)[1](np.ones(n)) for n in (19, 21)],
    "rest[0] differs from tree: tuple of 3 instead of tuple of 2": lambda: nn.tree_map(max, (1, 2), (1, 2, 3)),
    "warmup_steps is 10 and total_steps 10": lambda: nn.warmup_cosine(0, 0.1, 10, 10),
    "warmup_steps is -1 and total_steps 10": lambda: nn.warmup_cosine(0, 0.1, 10, -1),
    "decay_steps is 0, but must be at least 1": lambda: nn.exponential_decay(0, 0.1, 0, 0.5),
    "boundaries must increase": lambda: nn.piecewise_constant(0, [1, 2, 3], [2, 2]),
    "with one more value": [lambda n=n: nn.piecewise_constant(0, [1] * n, [2]) for n in (1, 3)],
    "patience is 0, but must be at least 1": lambda: nn.converged([1.0], 0),
    "weight_decay.0 is -1.0, but must be at least 0":
        lambda: nn.adam_step((X,), (X,), nn.adam_init((X,)), 0.1, weight_decay=(-1,)),
    "the initializer returned f64[3,2], but must return numbers, (2, 3)":
        lambda: nn.init(0, (2, 3), [nn.relu], initializer=lambda *_: np.ones((3, 2))),
    "the initializer returned <U2[], but must return numbers":
        lambda: nn.init(0, (2, 3), [nn.relu], initializer=lambda *_: "he"),
    "y / y.sum(axis=1, keepdims=True) makes": (
        lambda y: nn.loss(PARAMS, X, y), np.full((5, 2), 0.51), lambda y: y / y.sum(axis=1, keepdims=True)
    ),
    "there are no arrays of numbers in the tree": [
        lambda: nn.numerical_grads(lambda p: 0.0, ()), lambda: nn.global_norm(()), lambda: nn.adam_init(None)
    ],
    "grads differs from params: Dense(tanh,) instead of Params()": lambda: nn.sgd_step(PARAMS, LAYER, 0.1),
    "y has the shape (5, 1, 1), but must be labels, (n,): y[:, 0]; or distributions, (n, k)": (
        lambda y: nn.loss(PARAMS, X, y if y.ndim == 3 else y[:, 0]), Y[:, None, None], lambda y: y[:, 0]
    ),
    "y has the shape (5, 1), but must be labels, (n,): y[:, 0]": (
        lambda y: nn.loss(PARAMS, X, y), Y[:, None], lambda y: y[:, 0]
    ),
    "but x has 5 rows; y.T has 5": (lambda y: nn.loss(ONE, X, y), Y[None, :], lambda y: y.T),
    "the output of the network has (5, 2)$": (
        lambda params: nn.loss(params, X, np.zeros((5, 3))), SIGMOID, lambda _: nn.init(0, (4, 3), [nn.sigmoid])
    ),
    "but must be from 0 to 1; give the last layer an output for each class, or names, y = np.unique(y, return_inv": (
        lambda y: nn.loss(PARAMS, X, y), 3 * Y + 1, lambda y: np.searchsorted([1, 4], y)
    ),
    "sample_weight=(y >= 0) leaves out labels below 0": (
        lambda y, *w: nn.loss(PARAMS, X, *(y if isinstance(y, tuple) else (y,))), Y - 1, lambda y: (y, y >= 0)
    ),
    "not all 0; if all are 0, skip the batch: if sample_weight.any()": [
        lambda w=w: nn.loss(PARAMS, X, Y, w) for w in (np.zeros(5), np.zeros(5, bool), np.zeros(5, int))
    ],
    "x has 5 rows, fewer than one batch of 9; use drop_last=False": (
        lambda drop_last: next(nn.batches(0, X, Y, 9, drop_last)), True, lambda _: False
    ),
    "x.reshape(-1, 1) is a column": (lambda x: nn.forward(NARROW, x), X[:, 0], lambda x: x.reshape(-1, 1)),
    "x has the shape (), ... x.reshape(-1, 1) is a column": (
        lambda x: nn.forward(NARROW, x), np.asarray(1.0), lambda x: x.reshape(-1, 1)
    ),
    "grads differs from params: tuple of 2 instead of Params() (pullback(dy)[0] is the gradient)": (
        lambda g: nn.sgd_step(PARAMS, g, 0.1), nn.vjp(PARAMS, X)[1](np.ones((5, 2))), lambda g: g[0]
    ),
    "labels, (n,), need a softmax network": (
        lambda params: nn.loss(params, X, Y), SIGMOID, lambda params: nn.init(0, (4, 2), [nn.softmax])
    ),
    "y[:, None] is a column": (lambda y: nn.loss(ONE, X, y), Y, lambda y: y[:, None]),
    "x.reshape(len(x), -1) flattens": (
        lambda x: nn.forward(PARAMS, x), X.reshape(5, 2, 2), lambda x: x.reshape(len(x), -1)
    ),
    "x.reshape(1, -1) is a batch of one": (lambda x: nn.forward(PARAMS, x), X[0], lambda x: x.reshape(1, -1)),
    "state.means differs from params at layers: tuple of 1 instead of tuple of 2": (
        lambda state: nn.adam_step(PARAMS, PARAMS, state, 0.1), nn.adam_init(SIGMOID), lambda _: nn.adam_init(PARAMS)
    ),
    "grads differs from params at 0: f32[5,4] instead of f32[4]; purenn.check_vjp checks the rule of a layer":
        lambda: nn.sgd_step((X[0],), (X,), 0.1),
    "could not be broadcast together...(in layers.1, Scale)$": [
        lambda: nn.forward(WIDE, X), lambda: nn.vjp(WIDE, X), lambda: nn.inspect(WIDE, X)
    ],
    "could not be broadcast together...(in layers.0.layers.1, Scale)$": [
        lambda: nn.forward(nn.Params((WIDE,)), X), lambda: nn.vjp(nn.Params((WIDE,)), X),
        lambda: nn.inspect(nn.Params((WIDE,)), X),
    ],
    "right differs from left: Dense(tanh,) instead of Dense(relu,)":
        lambda: DENSE + nn.Dense(DENSE.weights, DENSE.biases, nn.tanh),
    "grads differs from params: tuple of 1 instead of a leaf": lambda: nn.sgd_step(X, (X,), 1),
    "grads differs from params: NoneType() instead of a leaf": lambda: nn.sgd_step(X, None, 1),
    "rest[0] differs from tree: a leaf instead of tuple of 1": lambda: nn.tree_map(max, (1,), 1),
    "right differs from left at weights: f32[2,2] instead of f64[2,2]":
        lambda: DENSE + nn.tree_map(np.float32, DENSE),
    "but must be one integer, and not negative": [
        lambda n=n: nn.AdamState(n, X, X) for n in (np.zeros(2, int), 1.5, np.asarray(-1), np.asarray(1j))
    ],
    "but must be (rows, columns)": [
        lambda k=k: nn.mnist.Dataset(f32(1, 0), Y[:1], f32(1, 0), Y[:1], k)
        for k in ((0, 1), (4, 1.0), (4,), (2, 2, 1), 4)
    ],
    "seed is 'x', but must be an int >= 0": lambda: nn.Dropout(0.5, "x"),
    "inhomogeneous": lambda: Everything([[1], [1, 2]]),
    "'even' must be in": lambda: Child(1, even=3),
    "Length of 'more' must be >= 2": lambda: Child(1, more=()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message"), [(TypeError, text) for text in TYPE_ERRORS] + [(ValueError, text) for text in VALUE_ERRORS]
)
def test_an_error_says_what_to_do(error, message):
    case = (TYPE_ERRORS if error is TypeError else VALUE_ERRORS)[message]
    call, *wrong, mended = case if isinstance(case, tuple) else (case, None)
    for function in call if isinstance(call, list) else [call]:
        pattern = re.escape(message).replace(r"\.\.\.", ".*").replace(r"\$", "$")
        with pytest.raises(error, match=f"(?s){pattern}"):
            function(*wrong)
    if mended:
        call(mended(*wrong))


# Arrays of every dtype that people have, and what makes floats of them; .astype(np.float32) only for the first

TABLE = np.asarray([(1.0, 2, 3.0, 4)] * 5, [("a", "f8"), ("b", "i4"), ("c", "f8"), ("d", "f4")])
WORDS = np.asarray([["x"], ["y"], ["z"], ["w"], ["x"]])
GAPS = np.where(np.arange(20).reshape(5, 4) % 3 == 0, None, 1.5)
DAYS = np.full((5, 4), np.datetime64("2020-01-01"))
TO_FLOAT32 = {
    "bools": X > 0, "int8": X.astype(np.int8), "pixels": X.astype(np.uint8), "integers": X.astype(int),
    "objects that are numbers": X.astype(object), "mixed numbers": np.asarray([[1, 2.5, True, np.float32(3)]], object),
}  # fmt: skip
TO_FLOATS = {
    "a table": (TABLE, "structured_to_unstructured(x)", structured_to_unstructured),
    "numbers as text": (X.astype(str), "x.astype(float)", lambda x: x.astype(float)),
    "numbers as bytes": (X.astype(bytes), "x.astype(float)", lambda x: x.astype(float)),
    "numbers as text in objects": (X.astype(str).astype(object), "values of type str", lambda x: x.astype(float)),
    "bytes in objects": (X.astype(bytes).astype(object), "values of type bytes", lambda x: x.astype(float)),
    "words": (
        WORDS, "kinds = np.unique(column), once, and (column[:, None] == kinds) * 1.0",
        lambda x: np.hstack([(column[:, None] == np.unique(column)) * 1.0 for column in x.T]),
    ),
    "words of NumPy in objects": (
        np.asarray([*map(np.str_, "xyzwx")], object)[:, None], "values of type str_",
        lambda x: (x == np.unique(x[:, 0])) * 1.0,
    ),
    "complex numbers in objects": (
        (X + 0j).astype(object), "values of type complex", lambda x: x.astype(complex).real
    ),
    "gaps": (GAPS, "values of type NoneType", lambda x: np.where(x == None, 0, x).astype(np.float32)),  # noqa: E711
    **{
        f"dates in {unit}": (
            DAYS.astype(f"M8[{unit}]"), "(x - np.datetime64('2000-01-01')) / np.timedelta64(1, 'D')",
            lambda x: (x - np.datetime64("2000-01-01")) / np.timedelta64(1, "D"),
        ) for unit in ("Y", "M", "D", "h", "s", "ns")
    },
    "times": (DAYS - DAYS[0, 0], "x / np.timedelta64(1, 's')", lambda x: x / np.timedelta64(1, "s")),
    "complex numbers": (X + 0j, "x.real", lambda x: x.real),
}  # fmt: skip
if hasattr(np.dtypes, "StringDType"):
    TO_FLOATS["new strings"] = (
        X.astype(str).astype(np.dtypes.StringDType()), "x.astype(float)", lambda x: x.astype(float)
    )  # fmt: skip


@pytest.mark.parametrize("name", TO_FLOAT32 | TO_FLOATS)
@pytest.mark.parametrize("network", [PARAMS, nn.Params((nn.Dropout(0.5), PARAMS))])
def test_advice_depends_on_the_dtype(name, network):
    x, advice, mended = TO_FLOATS.get(name) or (TO_FLOAT32[name], "x.astype(np.float32)", lambda x: x.astype("f4"))
    for call in (nn.forward, nn.vjp, nn.logits, nn.inspect, lambda params, x: nn.grads(params, x, Y)):
        with pytest.raises(TypeError, match=f"x is .*, but must hold floats: .*{re.escape(advice)}") as raised:
            call(network, x)
        assert ("x.astype(np.float32)" in str(raised.value)) == (name in TO_FLOAT32)
    assert nn.forward(network, mended(x)).shape == (len(x), 2)


# What a rule raises


@nn.vjp.register
def everything_vjp(layer: Everything, x):
    """The rule of a layer that holds layers, but is not a network."""
    return nn.vjp(nn.Params(layer.layers), x)


class Own(Exception):
    """An error whose message is not in its arguments."""

    def __str__(self):
        return "mine"


@attrs.frozen
class Frozen(Exception):
    text: str


ERRORS = {  # how to make an error, and whether its message is one string, which then ends in the place
    "ValueError": (lambda: ValueError("no"), True),
    "KeyError": (lambda: KeyError("no"), False),
    "MemoryError": (lambda: MemoryError("no"), True),
    "no message": (TypeError, False),
    "two arguments": (lambda: RuntimeError("a", 1), False),
    "of NumPy": (lambda: np.exceptions.AxisError(3, 2), False),
    "of a file": (lambda: FileNotFoundError(2, "no"), False),
    "of Unicode": (lambda: UnicodeDecodeError("ascii", b"no", 0, 1, "why"), False),
    "with its own message": (Own, False),
    "frozen": (lambda: Frozen("no"), False),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_a_rule_keeps_its_class_and_names_the_place(name):
    make, has_message = ERRORS[name]

    def rule(layer, x):
        raise make()

    network = nn.Params((LAYER, nn.Params((nn.Dropout(0.5), Ruled(rule)))))
    for call in (nn.forward, nn.vjp, nn.inspect):
        with pytest.raises(type(make())) as raised:
            call(network, X)
        error = raised.value
        if has_message:
            assert error.args == ("no (in layers.1.layers.1, Ruled)",)
        else:
            assert (str(error), error.args) == (str(make()), make().args)
            assert error.__notes__[0].endswith("layers.1, Ruled)")


def test_an_error_in_dx_of_the_first_layer_with_arrays_names_the_place():
    network = nn.Params((Embedding(np.eye(3)), nn.Dense(np.eye(3), np.zeros(3), nn.tanh)))
    y, pullback = nn.vjp(network, np.asarray([0, 1]))
    with pytest.raises(ZeroDivisionError, match=r"^division by zero \(in layers\.0, Embedding\)$"):
        pullback(y)[1]()


def test_a_network_in_a_field_of_a_layer_has_its_place():
    def rule(layer, x):
        raise ValueError("no")

    def through(layer, x):
        return nn.vjp(nn.Params((LAYER, Ruled(rule))), x)

    with pytest.raises(ValueError, match=r"^no \(in layers\.0\.layers\.0, Ruled: layers\.1, Ruled\)$"):
        nn.forward(nn.Params((nn.Params((Ruled(through),)),)), X)
    with pytest.raises(ValueError, match=r"^no \(in layers\.0, Everything: layers\.1, Ruled\)$"):
        nn.forward(nn.Params((Everything(np.float32(1), layers=(LAYER, Ruled(rule))),)), X)


@pytest.mark.parametrize("where", ["pullback", "dx"])
@pytest.mark.parametrize("number", range(4))
def test_an_error_on_the_way_back_names_the_place_in_its_message(where, number):
    def fail(*_):
        raise ValueError("no")

    def rule(layer, x):
        return x, fail if where == "pullback" else lambda dy: (layer, fail)

    layers = [LAYER, nn.Dense(f32(3, 3), f32(3), nn.tanh), nn.init(0, (3, 2), [nn.softmax]).layers[0]]
    layers.insert(number, Ruled(rule))
    network = nn.Params((layers[0], nn.Params(tuple(layers[1:]))))
    place = "layers.0" if number == 0 else f"layers.1.layers.{number - 1}"

    def back(rule):
        y, pullback = rule(network, X)
        return pullback(np.ones_like(y))[1]()

    calls = [lambda: back(nn.vjp)]
    calls += [lambda: back(nn.logits_vjp), lambda: nn.inspect(network, X, Y)] * (
        number < 3 and (where, number) != ("dx", 0)
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"^no \(in {re.escape(place)}, Ruled\)$"):
            call()


@pytest.mark.parametrize("missing", [None, np.nan, NA(), np.datetime64("NaT")])
def test_rows_without_a_label_are_left_out_as_the_error_says(missing):
    y = np.asarray(["b", missing, "a", missing, missing], object)
    with pytest.raises(
        TypeError, match=r"known = ~np.isin\(y.astype\(str\), \['None', 'nan', '<NA>', 'NaT'\]\), and x\[k"
    ):
        nn.loss(PARAMS, X, y)
    known = ~np.isin(y.astype(str), ["None", "nan", "<NA>", "NaT"])
    assert known.tolist() == [True, False, True, False, False]
    names, labels = np.unique(y[known], return_inverse=True)
    assert nn.loss(PARAMS, X[known], labels) > 0 and names.tolist() == ["a", "b"]
    with pytest.raises(TypeError, match=r"y is f64\[5\], .* known = ~np.isin\(y.astype\(str\)"):
        nn.loss(PARAMS, X, np.where(known, 1.0, np.nan))
    assert (~np.isin(np.where(known, 1.0, np.nan).astype(str), ["nan"]) == known).all()
