"""Neural networks as pure functions over immutable records.

- **Data**
  - `batches`: minibatches, in an order that the seed determines
  - `purenn.mnist`: handwritten digits; `purenn.mnist.digits` returns the bundled ones, `purenn.mnist.load` reads MNIST
- **Networks**
  - `init`: a network with random weights; `purenn.initializers` offers other distributions
  - `Params`, `Dense`, `Dropout`: a network, and its layers
  - `tanh`, `relu`, `leaky_relu`, `elu`, `gelu`, `silu`, `sigmoid`, `softplus`, `identity`, `softmax`: the activations
  - `forward`, `logits`: the output of a network or a layer; the output before the last activation
  - `predict`: the class of each example, or the predicted values
- **Learning**
  - `loss`: how wrong the predictions are
  - `accuracy`: the share of correct predictions
  - `grads`, `loss_and_grads`: the gradient of the loss, by backpropagation
  - `seeded`: a network whose dropout draws its masks from a seed
  - `sgd_step`, `momentum_step`, `adam_step`: one step of an optimizer
  - `adam_init`, `AdamState`: what Adam remembers between steps
  - `clip_by_global_norm`: a gradient, shortened if its norm is too large
  - `exponential_decay`, `piecewise_constant`, `warmup_cosine`: the learning rate of each step
  - `converged`: whether the validation loss has stopped falling
- **Files**: `save`, `load`, `CheckpointError` (any tree of records and arrays, as a safetensors file)
- **Looking inside**
  - `inspect`, `html`: a table of what happens in each layer; a picture of any tree
  - `numerical_grads`, `check_vjp`: a gradient by finite differences; a check of a layer's rule with them
- **Parts of your own**
  - `record`, `Vector`: makes a class immutable; a base class for records that can be added and scaled
  - `Array`, `Tree`, `Layer`, `Seed`: annotations for the fields of a record
  - `Activation`: a function and its derivative
  - `vjp`: the output of a layer, and its pullback; `vjp.register` adds a rule for your own layer
  - `logits_vjp`: the same for a whole network up to its logits, where your own loss begins
- **All arrays of a record at once**
  - `tree_map`, `tree_map_with_path`, `tree_leaves`: apply a function to each array; list the arrays
  - `zeros_like`, `global_norm`, `vdot`: zeros, the norm, and the inner product
  - `ravel`: one long vector, and a function that turns it back into the record

After `import purenn.jax`, the functions for networks, learning and trees also take JAX arrays, and run under JAX.
"""

from purenn import initializers, mnist
from purenn.activations import Activation, elu, gelu, identity, leaky_relu, relu, sigmoid, silu, softmax, softplus, tanh
from purenn.arrays import Array, Seed
from purenn.batching import batches
from purenn.checking import check_vjp, numerical_grads
from purenn.checkpoint import CheckpointError, load, save
from purenn.dropout import Dropout, seeded
from purenn.initializers import init
from purenn.inspection import inspect
from purenn.layers import Dense, Params, forward, vjp
from purenn.losses import accuracy, grads, logits, logits_vjp, loss, loss_and_grads, predict
from purenn.optimizers import AdamState, adam_init, adam_step, clip_by_global_norm, momentum_step, sgd_step
from purenn.pictures import html
from purenn.records import Vector, record
from purenn.schedules import converged, exponential_decay, piecewise_constant, warmup_cosine
from purenn.trees import Layer, Tree, global_norm, ravel, tree_leaves, tree_map, tree_map_with_path, vdot, zeros_like

__all__ = [  # noqa: RUF022 - in the order of the map
    "batches", "mnist", "init", "initializers", "Params", "Dense", "Dropout", "tanh", "relu", "leaky_relu", "elu",
    "gelu", "silu", "sigmoid", "softplus", "identity", "softmax", "forward", "logits", "predict", "loss", "accuracy",
    "grads", "loss_and_grads", "seeded", "sgd_step", "momentum_step", "adam_step", "adam_init", "AdamState",
    "clip_by_global_norm", "exponential_decay", "piecewise_constant", "warmup_cosine", "converged", "save", "load",
    "CheckpointError", "inspect", "html", "numerical_grads", "check_vjp", "record", "Vector", "Array", "Tree", "Layer",
    "Seed", "Activation", "vjp", "logits_vjp", "tree_map", "tree_map_with_path", "tree_leaves", "zeros_like",
    "global_norm", "vdot", "ravel"
]  # fmt: skip
