"""Mistakes that people make: the message names what to do, and doing it works."""

import pydoc
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import purenn as nn
from purenn import records

PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))
SIGMOID, ONE = nn.init(0, (4, 2), [nn.sigmoid]), nn.init(0, (4, 1), [nn.sigmoid])
X, Y = np.ones((5, 4), np.float32), np.arange(5) % 2
STATE = nn.adam_init(PARAMS)


SPARSE = SimpleNamespace(toarray=lambda: X)  # as a sparse matrix of SciPy
TENSOR = SimpleNamespace(detach=lambda: SimpleNamespace(numpy=lambda: X))  # as a tensor of PyTorch


@nn.record
class Scale(nn.Vector):
    factors: nn.Array


@nn.vjp.register
def scale_vjp(layer: Scale, x):
    def pullback(dy):
        return Scale(x * dy), lambda: dy * layer.factors  # the sum over the batch is missing

    return x * layer.factors, pullback


@nn.record
class Swapped:
    pass


@nn.vjp.register
def swapped_vjp(layer: Swapped, x):
    return lambda dy: (layer, lambda: dy), x


WIDE = nn.Params((PARAMS.layers[0], Scale(np.ones(2, np.float32))))
FORGETFUL = nn.Params((Scale(np.ones(4, np.float32)), *PARAMS.layers))
NAMES = np.asarray(["cat", "dog", "cat", "dog", "cat"])

LABELS = r"y is .*np\.unique\(y, return_inverse=True\)\[1\]"
TUPLE = r"tuple \(params, state = nn\.adam_step\(\.\.\.\) unpacks what the step returns\)"
ADVICE = {  # a call, what was wrong about its argument, the message, and what the message advises to make of the argument
    "labels as list": (lambda y: nn.loss(PARAMS, X, y), Y.tolist(), r"y is of type list, .*np.asarray\(y\)", np.asarray),
    "labels as names": (lambda y: nn.grads(PARAMS, X, y), NAMES, LABELS, lambda y: np.unique(y, return_inverse=True)[1]),
    "labels as objects": (lambda y: nn.grads(PARAMS, X, y), NAMES.astype(object), LABELS, lambda y: np.unique(y, return_inverse=True)[1]),
    "labels as floats": (lambda y: nn.loss(PARAMS, X, y), Y * 1.0, r"y is f64\[5\], .* y.astype\(int\)", lambda y: y.astype(int)),
    "labels in a column": (lambda y: nn.loss(PARAMS, X, y), Y[:, None], r"labels, \(n,\)", lambda y: y[:, 0]),
    "labels without softmax": (lambda params: nn.loss(params, X, Y), nn.init(0, (4, 2), [nn.identity]), r"labels, \(n,\), need a softmax network", lambda params: nn.init(0, (4, 2), [nn.softmax])),
    "one sigmoid output": (lambda y: nn.loss(ONE, X, y), Y, r"y\[:, None\] is a column", lambda y: y[:, None]),
    "x as list": (lambda x: nn.forward(PARAMS, x), X.tolist(), r"x is of type list, .*np.asarray\(x\)", np.asarray),
    "x sparse": (lambda x: nn.forward(PARAMS, x), SPARSE, r"x.toarray\(\) makes one", lambda x: x.toarray()),
    "x as tensor": (lambda x: nn.forward(PARAMS, x), TENSOR, r"x.detach\(\).numpy\(\) makes one", lambda x: x.detach().numpy()),
    "pixels": (lambda x: nn.forward(PARAMS, x), np.full((5, 4), 255, np.uint8), r"x\.astype\(np\.float32\); pixels also / 255", lambda x: x.astype(np.float32) / 255),
    "images": (lambda x: nn.forward(PARAMS, x), X.reshape(5, 2, 2), r"x.reshape\(len\(x\), -1\) flattens", lambda x: x.reshape(len(x), -1)),
    "one example": (lambda x: nn.forward(PARAMS, x), X[0], r"x\[None, :\] is a batch of one", lambda x: x[None, :]),
    "masked x": (lambda x: nn.forward(PARAMS, x), np.ma.masked_array(X), r"x.filled\(...\)", lambda x: x.filled(0)),
    "integers as dy": (lambda dy: nn.vjp(PARAMS, X)[1](dy), np.ones((5, 2), int), r"^dy is i64\[5,2\], but must hold floats: dy.astype\(np.float32\)$", lambda dy: dy.astype(np.float32)),
    "params and state": (lambda p: nn.loss(p, X, Y), (PARAMS, STATE), TUPLE, lambda p: p[0]),
    "params and state, forward": (lambda p: nn.forward(p, X), (PARAMS, STATE), TUPLE, lambda p: p[0]),
    "one activation": (lambda a: nn.init(0, (4, 2), a), nn.softmax, r"activations is softmax, but must be a list or tuple: \[softmax\]", lambda a: [a]),
    "one size": (lambda sizes: nn.init(0, sizes, [nn.softmax]), 4, "sizes is 4, but must be a list or tuple", lambda sizes: [sizes, 2]),
    "size": (lambda size: nn.init(0, (size, 2), [nn.softmax]), 4.0, "a size is 4.0, but must be an int", int),
    "batch size": (lambda n: nn.batches(0, X, Y, n), 32.0, "batch_size is 32.0, but must be an int", int),
    "labels as list, batches": (lambda y: nn.batches(0, X, y), Y.tolist(), r"y is of type int, .* np.asarray\(y\) makes one", np.asarray),
    "weights as list, batches": (lambda w: nn.batches(0, X, (Y, w)), [1] * 5, r"y.1 is of type int, .* np.asarray\(y.1\) makes one", np.asarray),
    "total steps": (lambda n: nn.warmup_cosine(0, 0.1, n), 10.0, "total_steps is 10.0, but must be an int", int),
    "patience": (lambda n: nn.converged([1.0], n), 2.0, "patience is 2.0, but must be an int", int),
    "big-endian": (lambda w: nn.Dense(w, w[0], nn.relu), np.ones((4, 2), ">f4"), r">f4\[4,2\].*\.astype\(np.float32\) converts one", lambda w: w.astype(np.float32)),
    "another state": (lambda s: nn.adam_step(PARAMS, PARAMS, s, 0.1), nn.adam_init(SIGMOID), "state.means differs from params at layers: tuple of 1 instead of tuple of 2", lambda s: STATE),
    "one record for load": (lambda r: nn.load(__file__, r), Scale, r"records is <class '.*Scale'>, but must be a list or tuple", None),
    "a swapped rule": (lambda p: nn.forward(p, X), nn.Params((Swapped(),)), r"the rule of Swapped \(swapped_vjp\) returned .* a pair \(y, pullback\)", None),
    "no sum over the batch": (lambda p: nn.sgd_step(p, nn.grads(p, X, Y), 0.1), FORGETFUL, r"grads differs from params at layers.0.factors: f32\[5,4\] instead of f32\[4\]; purenn.check_vjp checks the rule of a layer", None),
    "another width": (lambda p: nn.forward(p, X), WIDE, "in layer 2, Scale", None),
    "another width, backwards": (lambda p: nn.vjp(p, X), nn.Params((WIDE,)), "in layer 2, Scale\nin layer 1, Params", None),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_the_advice_works(name):
    call, wrong, message, mended = ADVICE[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call(wrong)
    if mended:
        call(mended(wrong))


def test_the_check_of_a_rule_finds_the_forgotten_sum():
    with pytest.raises(ValueError, match=r"at gradient\.factors: f32\[5,4\] instead of f32\[4\]"):
        nn.check_vjp(FORGETFUL.layers[0], X)


def test_bfloat16_of_numpy_is_named_and_converts():
    bfloat16 = pytest.importorskip("ml_dtypes", reason="comes with JAX").bfloat16
    x = X.astype(bfloat16)
    with pytest.raises(TypeError, match=r"x is bf16\[5,4\], but must hold floats: x.astype\(np.float32\)"):
        nn.forward(PARAMS, x)
    nn.forward(PARAMS, x.astype(np.float32))


def test_jax_says_which_import_is_missing(monkeypatch):
    jax = pytest.importorskip("jax", reason="needs the extra 'jax'")
    monkeypatch.setattr(records, "_registers", [])
    monkeypatch.delitem(sys.modules, "purenn.jax", raising=False)
    record = nn.record(type("Local", (), {"__annotations__": {"values": nn.Array}}))([1.0])
    with pytest.raises(ImportError, match=r"run `import purenn\.jax` to use records with JAX"):
        jax.jit(lambda record: record.values)(record)
    monkeypatch.setitem(sys.modules, "purenn.jax", nn)
    assert not hasattr(record, "__jax_array__")


@pytest.mark.parametrize("name", ["Array", "Layer", "Seed", "Tree"])
def test_help_says_what_the_annotations_are(name):
    assert f"The annotation of a{'n' * (name == 'Array')} " in pydoc.render_doc(getattr(nn, name))
