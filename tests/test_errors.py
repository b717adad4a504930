"""Bad input gets an error that says what was given and what was expected."""

import numpy as np
import pytest

import purenn as nn
from tests.strategies import ACTIVATIONS

PARAMS = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax))
LAYER = PARAMS.layers[0]
X, Y = np.ones((5, 4), np.float32), np.asarray([0, 1, 0, 1, 0])
SIGMOID = nn.init(0, (4, 2), [nn.sigmoid])


def f32(*shape):
    return np.zeros(shape, np.float32)


CASES = {
    "features": (lambda: nn.forward(PARAMS, f32(5, 3)), ValueError, "x has 3 features, but the layer takes 4"),
    "features, vjp": (lambda: nn.vjp(PARAMS, f32(5, 3)), ValueError, "x has 3 features, but the layer takes 4"),
    "features, grads": (lambda: nn.grads(PARAMS, f32(5, 3), Y), ValueError, "x has 3 features, but the layer"),
    "features, too many": (lambda: nn.forward(PARAMS, f32(5, 6)), ValueError, "x has 6 features, but the layer takes 4"),
    "features, layer": (lambda: nn.forward(LAYER, f32(5, 3)), ValueError, "x has 3 features, but the layer takes 4"),
    "booleans": (lambda: nn.grads(PARAMS, np.ones((5, 4), bool), Y), TypeError, r"x is bool\[5,4\]"),
    "complex": (lambda: nn.forward(PARAMS, np.ones((5, 4), complex)), TypeError, r"x is c128\[5,4\], but must hold floats"),
    "not a layer": (lambda: nn.forward(3, X), TypeError, "vjp has no rule for int; purenn.vjp.register adds"),
    "not a layer, vjp": (lambda: nn.vjp("x", X), TypeError, "vjp has no rule for str"),
    "dy": (lambda: nn.vjp(LAYER, X)[1](f32(5, 1)), ValueError, r"dy is f32\[5,1\], but must have the shape of the output, f32\[5,3\]"),
    "dy, more": (lambda: nn.vjp(LAYER, X)[1](f32(6, 3)), ValueError, r"dy is f32\[6,3\], but must have the shape of the output, f32\[5,3\]"),
    "dy list": (lambda: nn.vjp(LAYER, X)[1]([[1.0] * 3] * 5), TypeError, "is of type list, but must be an array"),
    "label too large": (lambda: nn.loss(PARAMS, X, Y + 1), ValueError, "labels from 1 to 2, but must be from 0 to 1"),
    "label negative": (lambda: nn.grads(PARAMS, X, Y - 1), ValueError, "labels from -1 to 0, but must be from 0 to 1"),
    "labels short": (lambda: nn.grads(PARAMS, X, Y[:4]), ValueError, r"y has the shape \(4,\), but x has 5 rows"),
    "labels long": (lambda: nn.grads(PARAMS, X[:4], Y), ValueError, r"y has the shape \(5,\), but x has 4 rows"),
    "labels of three axes": (lambda: nn.loss(PARAMS, X, np.ones((5, 2, 1))), TypeError, r"y is f64\[5,2,1\], but must be integer labels"),
    "distribution, wider": (lambda: nn.loss(PARAMS, X, np.ones((5, 3)) / 3), ValueError, r"y has the shape \(5, 3\), but the output"),
    "no distribution": (lambda: nn.loss(PARAMS, X, np.ones((5, 2))), ValueError, "y has a row that is not a distribution"),
    "negative share": (lambda: nn.loss(PARAMS, X, np.tile([2.0, -1.0], (5, 1))), ValueError, "not a distribution"),
    "distribution complex": (lambda: nn.loss(PARAMS, X, np.ones((5, 2), complex)), TypeError, "must be real numbers"),
    "sigmoid labels": (lambda: nn.loss(SIGMOID, X, Y), ValueError, r"y has the shape \(5,\), but the output .* \(5, 2\)"),
    "sigmoid range": (lambda: nn.loss(SIGMOID, X, 2 * np.ones((5, 2))), ValueError, "values from 2.0 to 2.0, but must be"),
    "sigmoid range, negative": (lambda: nn.loss(SIGMOID, X, -0.5 * np.ones((5, 2))), ValueError, "values from -0.5 to -0.5, but must be"),
    "sigmoid scalar": (lambda: nn.loss(SIGMOID, X, np.asarray(1)), ValueError, r"y has the shape \(\), but x has 5 rows"),
    "no weights": (lambda: nn.loss(PARAMS, X, Y, 0 * Y), ValueError, "sample_weight is from 0.0 to 0.0, but must be finite"),
    "negative weight": (lambda: nn.grads(PARAMS, X, Y, Y - 0.5), ValueError, "sample_weight is from -0.5 to 0.5, but must be"),
    "NaN weight": (lambda: nn.loss_and_grads(PARAMS, X, Y, Y * np.nan), ValueError, "sample_weight is from nan to nan"),
    "infinite weight": (lambda: nn.accuracy(PARAMS, X, Y, Y + np.inf), ValueError, "sample_weight is from inf to inf"),
    "weights, too few": (lambda: nn.loss(PARAMS, X, Y, Y[:4]), ValueError, r"sample_weight has the shape \(4,\), but must have \(5,\)"),
    "weights in a column": (lambda: nn.grads(PARAMS, X, Y, Y[:, None]), ValueError, r"sample_weight has the shape \(5, 1\), but must have \(5,\): one per example"),
    "complex weights": (lambda: nn.loss(PARAMS, X, Y, Y * 1j), TypeError, r"sample_weight is c128\[5\], but must hold real numbers"),
    "weights as list": (lambda: nn.loss(PARAMS, X, Y, [1] * 5), TypeError, r"sample_weight is of type list, .* np.asarray\(sample_weight\) makes one"),
    "weights, labels as list": (lambda: nn.loss(PARAMS, X, Y.tolist(), Y + 1), TypeError, r"y is of type list, .* np.asarray\(y\) makes one"),
    "weights, empty batch": (lambda: nn.loss(PARAMS, X[:0], Y[:0], Y[:0]), ValueError, "the batch is empty"),
    "weights, labels too few": (lambda: nn.loss(PARAMS, X, Y[:3], Y), ValueError, r"y has the shape \(3,\), but x has 5 rows"),
    "empty batch, loss": (lambda: nn.loss(PARAMS, X[:0], Y[:0]), ValueError, "the batch is empty"),
    "empty batch, grads": (lambda: nn.grads(PARAMS, X[:0], Y[:0]), ValueError, "the batch is empty"),
    "output": (lambda: nn.loss(LAYER, X, Y), TypeError, "the network ends in tanh, which determines no loss; the last layer"),
    "output, grads": (lambda: nn.grads(nn.Params((LAYER,)), X, Y), TypeError, "the network ends in tanh"),
    "output, predict": (lambda: nn.predict(nn.mnist.digits(), X), TypeError, "the network ends in Dataset, but logits are the output of purenn.Dense"),
    "accuracy": (lambda: nn.accuracy(nn.init(0, (4, 2), [nn.identity]), X, X[:, :2]), TypeError, "identity predicts values"),
    "layers": (lambda: nn.Params((LAYER, LAYER)), ValueError, "layer 2 takes 4 features, but layer 1 gives 3"),
    "layers, the other way": (lambda: nn.Params((LAYER, nn.init(0, (2, 4), [nn.relu]).layers[0])), ValueError, "layer 2 takes 2 features, but layer 1 gives 3"),
    "no layers": (lambda: nn.Params(()), ValueError, "must be a tuple of at least one layer"),
    "layers, one": (lambda: nn.Params(LAYER), ValueError, "must be a tuple of at least one layer"),
    "layer of ints": (lambda: nn.Params((LAYER, 3)), TypeError, "layer 2 is 3, but must be a record such as"),
    "dtypes in layer": (lambda: nn.Dense(f32(2, 2), np.zeros(2), nn.relu), TypeError, r"Dense has the arrays f32\[2,2\], f64\[2\], but parameters"),
    "dtypes in network": (lambda: nn.Params((LAYER, nn.Dense(np.zeros((3, 2)), np.zeros(2), nn.relu))), TypeError, "must be all float32 or all float64"),
    "integer weights": (lambda: nn.Dense([[1]], [0], nn.relu), TypeError, r"i64\[1,1\]"),
    "half weights": (lambda: nn.Dense(f32(1, 1).astype(np.float16), f32(1).astype(np.float16), nn.relu), TypeError, "f16"),
    "weights rank": (lambda: nn.Dense(f32(2), f32(2), nn.relu), ValueError, r"must have the shapes \(fan_in, fan_out\)"),
    "biases, more": (lambda: nn.Dense(f32(2, 3), f32(4), nn.relu), ValueError, r"weights are f32\[2,3\] and biases f32\[4\]"),
    "biases shape": (lambda: nn.Dense(f32(2, 3), f32(2), nn.relu), ValueError, r"weights are f32\[2,3\] and biases f32\[2\]"),
    "size 0": (lambda: nn.Dense(f32(2, 0), f32(0), nn.relu), ValueError, "and no size 0"),
    "data set": (lambda: nn.mnist.Dataset(f32(2, 6), Y[:2], f32(1, 6), Y[:1], (2, 2)), ValueError, r"images are f32\[2,6\] .* \(n, 4\)"),
    "data set, labels": (lambda: nn.mnist.Dataset(f32(2, 4), Y[:2], f32(1, 4), Y[:3], (2, 2)), ValueError, r"labels i64\[3\]"),
    "activation": (lambda: nn.Dense(f32(2, 2), f32(2), "relu"), TypeError, "activation is 'relu', but must be an Activation"),
    "init, activation": (lambda: nn.init(0, (2, 2), ["relu"]), TypeError, "activation is 'relu', but must be an Activation"),
    "init, too few": (lambda: nn.init(0, (2, 2, 2), [nn.relu]), ValueError, "3 sizes and 1 activations were given"),
    "init, too many": (lambda: nn.init(0, (2, 2), [nn.relu, nn.relu]), ValueError, "2 sizes and 2 activations were given"),
    "init, no layer": (lambda: nn.init(0, (2,), []), ValueError, "1 sizes and 0 activations were given"),
    "init, size 0": (lambda: nn.init(0, (2, 0), [nn.relu]), ValueError, "a size is 0, but must be at least 1"),
    "init, no initializer": (lambda: nn.init(0, (2, 2), [nn.relu], initializer="he"), TypeError, "initializer is 'he', but must be a function"),
    "init, initializers": (lambda: nn.init(0, (2, 2), [nn.relu], initializer=[]), TypeError, r"initializer is \[\], but must be a function, or one function for each layer"),
    "init, two initializers": (lambda: nn.init(0, (2, 2), [nn.relu], initializer=[None] * 2), TypeError, r"initializer is \[None, None\]"),
    "init, weights": (lambda: nn.init(0, (2, 3), [nn.relu], initializer=lambda *_: np.ones((3, 2))), ValueError, r"the initializer returned f64\[3,2\], but must return numbers, \(2, 3\)"),
    "init, text": (lambda: nn.init(0, (2, 3), [nn.relu], initializer=lambda *_: "he"), ValueError, r"the initializer returned <U2\[\], but must return numbers, \(2, 3\)"),
    "initializer, size 0": (lambda: nn.initializers.he_normal(0, 0, 3), ValueError, "fan_in is 0, but must be at least 1"),
    "initializer, no int": (lambda: nn.initializers.orthogonal(0, 3, 2.5), TypeError, "fan_out is 2.5, but must be an int"),
    "init, dtype": (lambda: nn.init(0, (2, 2), [nn.relu], dtype=int), TypeError, "dtype is int64, but must be float32 or"),
    "init, no dtype": (lambda: nn.init(0, (2, 2), [nn.relu], dtype=None), TypeError, "but must be float32 or float64"),
    "seed negative": (lambda: nn.init(-1, (2, 2), [nn.relu]), ValueError, "seed is -1, but must be an int >= 0, or a tuple"),
    "seed float": (lambda: nn.batches(0.5, X, Y), ValueError, "seed is 0.5, but must be"),
    "seed empty": (lambda: nn.batches((), X, Y), ValueError, r"seed is \(\), but must be"),
    "seed JAX": (lambda: nn.seeded(PARAMS, np.ones(2)), ValueError, r"seed is f64\[2\], but must be .*; after `import purenn.jax`, purenn.seeded takes a key"),
    "seed None": (lambda: nn.init(None, (4, 2), [nn.tanh]), ValueError, "seed is None, but must be"),
    "batch size": (lambda: nn.batches(0, X, Y, 0), ValueError, "batch_size is 0, but must be at least 1"),
    "batches, lengths": (lambda: nn.batches(0, X, Y[:4]), ValueError, r"x is f32\[5,4\], y is i64\[4\]; all arrays must have the same number of rows"),
    "batches, more targets": (lambda: nn.batches(0, X[:4], Y), ValueError, r"x is f32\[4,4\], y is i64\[5\]; all arrays must have"),
    "batches, trees": (lambda: nn.batches(0, {"a": X, "b": X[:4]}, (Y,)), ValueError, r"x.a is f32\[5,4\], x.b is f32\[4,4\], y.0 is i64\[5\]; all arrays must"),
    "batches, nothing": (lambda: nn.batches(0, (), None), ValueError, "x and y hold no arrays; all arrays must have the same number of rows"),
    "batches, scalar": (lambda: nn.batches(0, X, np.asarray(1)), ValueError, "must have the same number of rows"),
    "batches, scalars": (lambda: nn.batches(0, np.asarray(1), np.asarray(1)), ValueError, "x is i64\\[\\], y is i64\\[\\]; all arrays must have"),
    "batches, scalar x": (lambda: nn.batches(0, np.asarray(1), Y), ValueError, "must have the same number of rows"),
    "lr NaN": (lambda: nn.sgd_step(PARAMS, PARAMS, float("nan")), ValueError, "lr is nan, but must be a finite number"),
    "lr inf": (lambda: nn.sgd_step(PARAMS, PARAMS, np.float32("inf")), ValueError, "lr is inf"),
    "lr text": (lambda: nn.sgd_step(PARAMS, PARAMS, "0.1"), TypeError, "lr must be a number, not '0.1'"),
    "lr None": (lambda: nn.sgd_step(PARAMS, PARAMS, None), TypeError, "lr must be a number, not None"),
    "lr of another tree": (lambda: nn.sgd_step(PARAMS, PARAMS, (0.1, 0.2)), ValueError, "lr differs from params: tuple of 2 instead of Params"),
    "lr of arrays": (lambda: nn.sgd_step(PARAMS, PARAMS, PARAMS), TypeError, r"lr.layers.0.weights must be a number, not f32\[4,3\]"),
    "lr NaN in a tree": (lambda: nn.sgd_step((X, X), (X, X), (0.1, np.nan)), ValueError, "lr.1 is nan, but must be a finite number"),
    "decay negative in a tree": (lambda: nn.adam_step((X,), (X,), nn.adam_init((X,)), 0.1, weight_decay=(-1,)), ValueError, "weight_decay.0 is -1.0, but must be at least 0"),
    "lr array": (lambda: nn.sgd_step(PARAMS, PARAMS, np.ones(2)), TypeError, r"lr must be a number, not f64\[2\]"),
    "step, other network": (lambda: nn.sgd_step(PARAMS, LAYER, 0.1), ValueError, r"grads differs from params: Dense\(tanh,\) instead of Params\(\)"),
    "step, other shape": (lambda: nn.sgd_step(PARAMS, nn.init(0, (4, 1, 2), (nn.tanh, nn.softmax)), 1), ValueError, r"grads differs from params at layers.0.weights: f32\[4,1\] instead of f32\[4,3\]"),
    "momentum": (lambda: nn.momentum_step(PARAMS, PARAMS, PARAMS, 0.1, momentum=1), ValueError, "momentum is 1.0, but must be at least 0 and below 1"),
    "momentum, above": (lambda: nn.momentum_step(PARAMS, PARAMS, PARAMS, 0.1, momentum=1.5), ValueError, "momentum is 1.5, but must be at least 0 and below 1"),
    "velocity": (lambda: nn.momentum_step(PARAMS, PARAMS, LAYER, 0.1), ValueError, r"velocity differs from params: Dense\(tanh,\) instead of Params\(\)"),
    "velocity, dtype": (lambda: nn.momentum_step(X, X, X.astype(float), 0.1), ValueError, r"velocity differs from params: f64\[5,4\] instead of f32\[5,4\]"),
    "beta 1": (lambda: nn.adam_step(X, X, nn.adam_init(X), 0.1, beta1=1.0), ValueError, "beta1 is 1.0, but must be"),
    "beta": (lambda: nn.adam_step(X, X, nn.adam_init(X), 0.1, beta2=1.0), ValueError, "beta2 is 1.0, but must be"),
    "weight decay": (lambda: nn.adam_step(X, X, nn.adam_init(X), 0.1, weight_decay="1"), TypeError, "weight_decay must be a number"),
    "Adam's state": (lambda: nn.adam_step(PARAMS, PARAMS, PARAMS, 0.1), TypeError, "but must come from adam_init or the previous step"),
    "Adam's gradient": (lambda: nn.adam_step(X, X[:1], nn.adam_init(X), 0.1), ValueError, r"grads differs from params: f32\[1,4\] instead of f32\[5,4\]"),
    "eps": (lambda: nn.adam_step(X, X, nn.adam_init(X), 0.1, eps=-1), ValueError, "eps is -1.0, but must be at least 0$"),
    "decay negative": (lambda: nn.adam_step(X, X, nn.adam_init(X), 0.1, weight_decay=-1), ValueError, "weight_decay is -1.0"),
    "Adam's steps": (lambda: nn.AdamState(np.zeros(2, int), X, X), ValueError, r"steps is i64\[2\], but must be one integer"),
    "Adam's steps, float": (lambda: nn.AdamState(1.5, X, X), ValueError, r"steps is f64\[\], but must be one integer"),
    "integers, step": (lambda: nn.sgd_step(Y, Y, 0.1), TypeError, r"is i64\[5\], but must hold floats"),
    "dropout, rate": (lambda: nn.Dropout("0.5"), TypeError, "rate must be a number, not '0.5'"),
    "dropout, seed": (lambda: nn.Dropout(0.5, "x"), ValueError, "seed is 'x', but must be"),
    "dropout, list": (lambda: nn.forward(nn.Dropout(0.5), [[1.0]]), TypeError, "is of type list, but must be an array"),
    "dropout, dy": (lambda: nn.vjp(nn.Dropout(0.5, 1), X)[1](X[:1]), ValueError, r"dy is f32\[1,4\], but must have the shape of the output"),
    "dropout, dy, no seed": (lambda: nn.vjp(nn.Dropout(0.5), X)[1](X[:1]), ValueError, r"dy is f32\[1,4\], but must have the shape of the output"),
    "dropout between": (lambda: nn.forward(nn.Params((LAYER, nn.Dropout(0.5), LAYER)), X), ValueError, "x has 3 features, but the layer takes 4"),
    "neighbours": (lambda: nn.Params((LAYER, LAYER)), ValueError, "layer 2 takes 4 features, but layer 1 gives 3"),
    "differences, two numbers": (lambda: nn.numerical_grads(lambda p: p, np.ones(2)), ValueError, r"f returned f64\[2\], but must return a number"),
    "differences, None": (lambda: nn.numerical_grads(lambda p: None, np.ones(2)), TypeError, r"is object\[\], but must hold real numbers"),
    "differences, nothing": (lambda: nn.numerical_grads(lambda p: 0.0, ()), ValueError, "there are no arrays of numbers in the tree"),
    "logits": (lambda: nn.logits(nn.Params((LAYER, nn.Dropout(0.5))), X), TypeError, "the network ends in Dropout, but logits"),
    "logits_vjp": (lambda: nn.logits_vjp(nn.tanh, X), TypeError, "the network ends in Activation, but logits"),
    "NaN targets": (lambda: nn.accuracy(SIGMOID, X, np.full((5, 2), np.nan)), ValueError, "y has 10 values that are NaN"),
    "NaN values": (lambda: nn.grads(nn.init(0, (4, 1), [nn.identity]), X, np.where(X[:, :1] > 0, np.nan, 0)), ValueError, "y has 5 values that are NaN"),
    "NaN distribution": (lambda: nn.loss(PARAMS, X, np.tile([np.nan, 1], (5, 1))), ValueError, "y has 5 values that are NaN"),
    "a mistake in a distribution": (lambda: nn.loss(PARAMS, X, np.full((5, 2), 0.51)), ValueError, r"y / y.sum\(axis=1, keepdims=True\) makes"),
    "dict keys": (lambda: nn.tree_leaves({1: X}), TypeError, "a dict in a tree has the key 1, but keys must be strings"),
    "Adam, list": (lambda: nn.adam_init([X]), TypeError, "use a record or a tuple instead"),
    "Adam, dict": (lambda: nn.adam_init((X, {"a": X})), TypeError, "use a record or a tuple instead"),
    "dropout first": (lambda: nn.forward(nn.Params((nn.Dropout(0.5), LAYER)), f32(5, 3)), ValueError, "but the layer takes 4"),
    "seeded": (lambda: nn.seeded(PARAMS, [1, 2]), ValueError, r"seed is \[1, 2\], but must be"),
    "norm, numbers": (lambda: nn.clip_by_global_norm((X, 0), 1), TypeError, "is of type int, but must be an array"),
    "ravel, numbers": (lambda: nn.ravel((X, 1.0)), TypeError, "is of type float, but must be an array"),
    "activation, complex": (lambda: nn.sigmoid(1j * X), TypeError, r"array is c64\[5,4\], but must hold floats"),
    "activation, objects": (lambda: nn.gelu(np.asarray([np.nan], object)), TypeError, r"is object\[1\], but must hold floats"),
    "activation, bytes": (lambda: nn.sigmoid(np.asarray([5], np.uint8)), TypeError, r"is u8\[1\], but must hold floats"),
    "Adam's steps, negative": (lambda: nn.AdamState(np.asarray(-1), X, X), ValueError, r"steps is i64\[\], but must be one integer"),
    "Adam's steps, complex": (lambda: nn.AdamState(np.asarray(1j), X, X), ValueError, r"steps is c128\[\], but must be one integer"),
    "Adam's means": (lambda: nn.AdamState(np.asarray(1), "text", X), TypeError, "is of type str, but must be an array"),
    "Adam's squares": (lambda: nn.AdamState(np.asarray(1), X, 3), TypeError, "is of type int, but must be an array"),
    "norm, complex": (lambda: nn.global_norm((X, 1j * X)), TypeError, r"leaf is c64\[5,4\], but must hold real numbers"),
    "norm, objects": (lambda: nn.clip_by_global_norm(np.asarray([np.nan], object), 1), TypeError, r"is object\[1\], but must hold real numbers"),
    "max norm": (lambda: nn.clip_by_global_norm(X, -1), ValueError, "max_norm is -1.0, but must be at least 0"),
    "max norm NaN": (lambda: nn.clip_by_global_norm(X, float("nan")), ValueError, "max_norm is nan"),
    "no arrays, norm": (lambda: nn.global_norm(()), ValueError, "there are no arrays of numbers in the tree"),
    "no arrays, Adam": (lambda: nn.adam_init(None), ValueError, "there are no arrays of numbers in the tree"),
    "vdot": (lambda: nn.vdot(PARAMS, LAYER), ValueError, r"b differs from a: Dense\(tanh,\) instead of Params\(\)"),
    "vdot, shapes": (lambda: nn.vdot(X, X[:2]), ValueError, r"b differs from a: f32\[2,4\] instead of f32\[5,4\]"),
    "vdot, other shapes": (lambda: nn.vdot(X[:2], X), ValueError, r"b differs from a: f32\[5,4\] instead of f32\[2,4\]"),
    "image shape": (lambda: nn.mnist.Dataset(f32(1, 4), Y[:1], f32(1, 4), Y[:1], (4, 1.0)), ValueError, r"image_shape is \(4, 1.0\), but must be \(rows, columns\)"),
    "image shape, flat": (lambda: nn.mnist.Dataset(f32(1, 4), Y[:1], f32(1, 4), Y[:1], (4,)), ValueError, r"image_shape is \(4,\), but must"),
    "data set, labels with two axes": (lambda: nn.mnist.Dataset(f32(2, 3, 4), np.zeros((2, 3), int), f32(1, 4), Y[:1], (2, 2)), ValueError, r"labels i64\[2,3\]"),
    "weights with one axis": (lambda: nn.Dense(f32(3), np.ones((), np.float32), nn.relu), ValueError, r"f32\[3\]"),
    "weights with three axes": (lambda: nn.Dense(f32(2, 3, 4), f32(3, 4), nn.relu), ValueError, r"f32\[2,3,4\]"),
    "data set, one label": (lambda: nn.mnist.Dataset(f32(4), np.asarray(1), f32(1, 4), Y[:1], (2, 2)), ValueError, r"labels i64\[\]"),
    "image shape, of color": (lambda: nn.mnist.Dataset(f32(1, 4), Y[:1], f32(1, 4), Y[:1], (2, 2, 1)), ValueError, r"image_shape is \(2, 2, 1\), but must"),
    "image shape, empty": (lambda: nn.mnist.Dataset(f32(1, 0), Y[:1], f32(1, 0), Y[:1], (0, 1)), ValueError, r"image_shape is \(0, 1\), but must"),
    "image shape, a number": (lambda: nn.mnist.Dataset(f32(1, 4), Y[:1], f32(1, 4), Y[:1], 4), ValueError, "image_shape is 4, but must"),
    "ravel, dtypes": (lambda: nn.ravel((X, Y)), ValueError, r"must be of one dtype, but are f32\[5,4\], i64\[5\]"),
    "unravel": (lambda: nn.ravel(X)[1](np.ones(19)), ValueError, r"the vector is f64\[19\], but must have the shape \(20,\)"),
    "unravel, more": (lambda: nn.ravel(X)[1](np.ones(21)), ValueError, r"the vector is f64\[21\], but must have the shape \(20,\)"),
    "trees, more": (lambda: nn.tree_map(max, (1, 2), (1, 2, 3)), ValueError, r"rest\[0\] differs from tree: tuple of 3 instead of tuple of 2"),
    "trees, fewer": (lambda: nn.tree_map(max, (1, 2), (1,)), ValueError, r"rest\[0\] differs from tree: tuple of 1 instead of tuple of 2"),
    "unravel list": (lambda: nn.ravel(X)[1]([1.0] * 20), TypeError, "is of type list, but must be an array"),
    "warm-up": (lambda: nn.warmup_cosine(0, 0.1, 10, 10), ValueError, "warmup_steps is 10 and total_steps 10"),
    "warm-up, negative": (lambda: nn.warmup_cosine(0, 0.1, 10, -1), ValueError, "warmup_steps is -1 and total_steps 10"),
    "warm-up, longer": (lambda: nn.warmup_cosine(0, 0.1, 10, 11), ValueError, "warmup_steps is 11 and total_steps 10"),
    "schedule, float step": (lambda: nn.warmup_cosine(0.5, 0.1, 10), TypeError, "step is 0.5, but must be an int"),
    "decay steps": (lambda: nn.exponential_decay(0, 0.1, 0, 0.5), ValueError, "decay_steps is 0, but must be at least 1"),
    "differences": (lambda: nn.numerical_grads(lambda p: 0.0, np.ones(2, complex)), TypeError, r"is c128\[2\], but must hold floats"),
    "schedule, complex step": (lambda: nn.warmup_cosine(np.asarray(1j), 0.1, 10), TypeError, r"step is c128\[\], but must hold real numbers"),
    "decay rate 0": (lambda: nn.exponential_decay(0, 0.1, 1, 0), ValueError, "decay_rate is 0.0, but must be positive"),
    "decay rate": (lambda: nn.exponential_decay(0, 0.1, 1, -0.5), ValueError, "decay_rate is -0.5, but must be positive"),
    "decay steps, an array": (lambda: nn.exponential_decay(0, 0.1, np.asarray([np.nan], object), 0.5), TypeError, "integer"),
    "decay rate, an array": (lambda: nn.exponential_decay(0, 0.1, 1, np.asarray([1j * np.nan])), TypeError, r"decay_rate must be a number, not c128\[1\]"),
    "decay rate, infinite": (lambda: nn.exponential_decay(0, 0.1, 1, np.inf), ValueError, "decay_rate is inf, but must be a finite number"),
    "decay from NaN": (lambda: nn.exponential_decay(0, np.nan, 1, 0.5), ValueError, "initial_lr is nan, but"),
    "warm-up to text": (lambda: nn.warmup_cosine(0, "0.1", 10), TypeError, "peak_lr must be a number, not '0.1'"),
    "final rate": (lambda: nn.warmup_cosine(0, 0.1, 10, final_lr=None), TypeError, "final_lr must be a number, not None"),
    "boundaries, floats": (lambda: nn.piecewise_constant(0, [1, 2], [2.5]), TypeError, "a boundary is 2.5, but must be an int"),
    "values, NaN": (lambda: nn.piecewise_constant(0, [1, np.nan], [2]), ValueError, "a value is nan, but must be a finite number"),
    "boundaries": (lambda: nn.piecewise_constant(0, [1, 2, 3], [2, 2]), ValueError, "boundaries must increase"),
    "boundaries, falling": (lambda: nn.piecewise_constant(0, [1, 2, 3], [3, 2]), ValueError, "boundaries must increase"),
    "values, more": (lambda: nn.piecewise_constant(0, [1, 2, 3], [2]), ValueError, "with one more value"),
    "values": (lambda: nn.piecewise_constant(0, [1], [2]), ValueError, "with one more value"),
    "converged, complex": (lambda: nn.converged(np.asarray([1j], np.complex64)), TypeError, r"is c64\[\], but must hold real numbers"),
    "dropout, complex": (lambda: nn.Dropout(np.complex64(0.5)), TypeError, r"rate must be a number, not c64\[\]"),
    "patience": (lambda: nn.converged([1.0], 0), ValueError, "patience is 0, but must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    call, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call()


def test_an_empty_batch_has_an_empty_output():
    assert nn.forward(PARAMS, X[:0]).shape == (0, 2)
    assert nn.predict(PARAMS, X[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble, ">f4"])
def test_other_floats_are_converted(dtype):
    assert np.array_equal(nn.forward(PARAMS, X.astype(dtype)), nn.forward(PARAMS, X))
    assert nn.grads(PARAMS, X.astype(dtype), Y) == nn.grads(PARAMS, X, Y)


@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_extreme_logits_stay_finite(output, hidden):
    random = np.random.default_rng(0)
    scale = np.float32(1e4)
    params = nn.init(0, (4, 3), [output])
    params = nn.Params((nn.Dense(1e4 * np.eye(4, dtype=np.float32), f32(4), hidden), scale * params.layers[0]))
    x = random.standard_normal((6, 4)).astype(np.float32)
    y = np.eye(3)[random.integers(0, 3, 6)]
    for sign in (1, -1):
        value, gradient = nn.loss_and_grads(params, sign * x, y)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in nn.tree_leaves(gradient))


def test_a_class_that_is_masked_out_does_not_spoil_the_loss():
    layer = nn.Dense(f32(4, 3), np.asarray([0, 0, -np.inf], np.float32), nn.softmax)
    value, gradient = nn.loss_and_grads(layer, X, Y)
    assert value == pytest.approx(np.log(2))
    assert gradient.biases[2] == 0


def test_the_accuracy_of_a_network_that_diverged_is_nan():
    for params, y in ((PARAMS, Y), (SIGMOID, np.ones((5, 2)))):
        assert np.isnan(nn.accuracy(params, np.nan * X, y))


@pytest.mark.parametrize("hidden", [nn.tanh, nn.relu, nn.sigmoid, nn.softmax, nn.identity])
@pytest.mark.parametrize("output", [nn.softmax, nn.sigmoid, nn.identity])
def test_nan_in_nan_out(hidden, output):
    params = nn.init(0, (4, 3, 2), (hidden, output))
    x = np.where(np.arange(4) == 1, np.nan, X)
    y = np.tile([1.0, 0.0], (5, 1))
    assert np.isnan(nn.forward(params, x)).all() and np.isnan(nn.loss(params, x, y))
    assert all(np.isnan(leaf).all() for leaf in nn.tree_leaves(nn.grads(params, x, y).layers[1]))
    assert np.isnan(nn.grads(params, x, y).layers[0].weights).any()
