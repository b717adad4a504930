"""Neural networks as pure functions over immutable records."""

from purenn import initializers, mnist
from purenn.activations import Activation, elu, gelu, identity, leaky_relu, relu, sigmoid, silu, softmax, softplus, tanh
from purenn.arrays import Array, Seed
from purenn.batching import batches
from purenn.checkpoint import CheckpointError, load, save
from purenn.dropout import Dropout, seeded
from purenn.initializers import init
from purenn.inspection import check_vjp, html, inspect, numerical_grads
from purenn.layers import Dense, Layer, Params, forward, vjp
from purenn.losses import accuracy, grads, logits, logits_vjp, loss, loss_and_grads, predict
from purenn.optimizers import AdamState, adam_init, adam_step, clip_by_global_norm, momentum_step, sgd_step
from purenn.records import Vector, record
from purenn.schedules import converged, exponential_decay, piecewise_constant, warmup_cosine
from purenn.trees import Tree, global_norm, ravel, tree_leaves, tree_map, tree_map_with_path, vdot, zeros_like

__all__ = [
    "Activation", "AdamState", "Array", "CheckpointError", "Dense", "Dropout", "Layer", "Params", "Seed", "Tree",
    "Vector", "accuracy", "adam_init", "adam_step", "batches", "check_vjp", "clip_by_global_norm", "converged", "elu",
    "exponential_decay", "forward", "gelu", "global_norm", "grads", "html", "identity", "init", "initializers",
    "inspect", "leaky_relu", "load", "logits", "logits_vjp", "loss", "loss_and_grads", "mnist", "momentum_step",
    "numerical_grads", "piecewise_constant", "predict", "ravel", "record", "relu", "save", "seeded", "sgd_step",
    "sigmoid", "silu", "softmax", "softplus", "tanh", "tree_leaves", "tree_map", "tree_map_with_path", "vdot", "vjp",
    "warmup_cosine", "zeros_like"
]  # fmt: skip
