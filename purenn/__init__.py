"""Neural networks as pure functions over immutable records."""

from purenn import mnist
from purenn.activations import (
    Activation,
    elu,
    gelu,
    identity,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from purenn.arrays import Array
from purenn.batching import batches
from purenn.checkpoint import CheckpointError, load, save
from purenn.initializers import init
from purenn.layers import Dense, Dropout, Layer, Params, forward, parameter_vjp, seeded, vjp
from purenn.losses import accuracy, grads, loss, loss_and_grads, numerical_grads, predict
from purenn.optimizers import (
    AdamState,
    adam_init,
    adam_step,
    clip_by_global_norm,
    converged,
    exponential_decay,
    momentum_step,
    piecewise_constant,
    sgd_step,
    warmup_cosine,
)
from purenn.records import record
from purenn.trees import global_norm, ravel, tree_leaves, tree_map, vdot, zeros_like

__all__ = [
    "Activation",
    "AdamState",
    "Array",
    "CheckpointError",
    "Dense",
    "Dropout",
    "Layer",
    "Params",
    "accuracy",
    "adam_init",
    "adam_step",
    "batches",
    "clip_by_global_norm",
    "converged",
    "elu",
    "exponential_decay",
    "forward",
    "gelu",
    "global_norm",
    "grads",
    "identity",
    "init",
    "leaky_relu",
    "load",
    "loss",
    "loss_and_grads",
    "mnist",
    "momentum_step",
    "numerical_grads",
    "parameter_vjp",
    "piecewise_constant",
    "predict",
    "ravel",
    "record",
    "relu",
    "save",
    "seeded",
    "sgd_step",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
    "tree_leaves",
    "tree_map",
    "vdot",
    "vjp",
    "warmup_cosine",
    "zeros_like",
]
