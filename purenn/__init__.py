"""Neural networks as pure functions over immutable records."""

from purenn import mnist
from purenn.activations import Activation, identity, relu, sigmoid, softmax, tanh
from purenn.arrays import Array
from purenn.batching import batches
from purenn.initializers import init
from purenn.layers import Dense, Layer, Params, forward, parameter_vjp, vjp
from purenn.losses import accuracy, grads, loss, loss_and_grads, numerical_grads, predict
from purenn.optimizers import converged, sgd_step
from purenn.records import record
from purenn.trees import tree_leaves, tree_map

__all__ = [
    "Activation",
    "Array",
    "Dense",
    "Layer",
    "Params",
    "accuracy",
    "batches",
    "converged",
    "forward",
    "grads",
    "identity",
    "init",
    "loss",
    "loss_and_grads",
    "mnist",
    "numerical_grads",
    "parameter_vjp",
    "predict",
    "record",
    "relu",
    "sgd_step",
    "sigmoid",
    "softmax",
    "tanh",
    "tree_leaves",
    "tree_map",
    "vjp",
]
