"""Initial parameters of a network."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from purenn.activations import Activation, elu, gelu, leaky_relu, relu, silu
from purenn.arrays import Array, Seed, as_int, as_tuple, generator, lock_in_place
from purenn.layers import Dense, Params


def init(seed: Seed, sizes: Iterable[int], activations: Iterable[Activation], dtype: Any = np.float32) -> Params:
    """Return a network of dense layers with random weights, and biases of zero.

    Weights of a layer with relu or one of its relatives (leaky_relu, elu, gelu, silu) are normal with mean 0 and
    variance ``2 / fan_in`` (He et al. 2015, equation 10); those of any other layer are uniform in ``(-a, a)`` with
    ``a = sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio 2010, equation 16).

    Parameters
    ----------
    seed : int or tuple of int
        The same seed gives the same parameters; in float32, they are the float64 ones, rounded.
    sizes : iterable of int
        The number of inputs, then the number of outputs of each layer; all at least 1.
    activations : iterable of Activation
        One per layer.
    dtype : dtype
        float32 or float64.

    Raises ValueError if the numbers of sizes and activations do not match, a size is not positive, or the seed is
    not valid; TypeError if a size is not an int, an activation is not an Activation, or the dtype is neither of the
    two.

    >>> import purenn as nn
    >>> nn.init(0, sizes=(64, 10), activations=[nn.softmax], dtype="float64")
    Params(layers=(
        Dense(weights=f64[64,10], biases=f64[10], activation=softmax),
    ))
    """
    sizes = tuple(as_int("a size", size, least=1) for size in as_tuple("sizes", sizes))
    activations = as_tuple("activations", activations)
    dtype = np.dtype(object if dtype is None else dtype)
    if len(sizes) < 2 or len(activations) != len(sizes) - 1:
        rule = "a network of k layers takes k + 1 sizes (the number of inputs first) and k activations"
        raise ValueError(f"{len(sizes)} sizes and {len(activations)} activations were given; {rule}")
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype is {dtype}, but must be float32 or float64")
    random = generator(seed)
    layers = []
    for fan_in, fan_out, activation in zip(sizes, sizes[1:], activations, strict=False):
        weights = _weights(random, fan_in, fan_out, activation).astype(dtype)
        layers.append(Dense(lock_in_place(weights), lock_in_place(np.zeros(fan_out, dtype)), activation))
    return Params(tuple(layers))


def _weights(random: "np.random.Generator", fan_in: int, fan_out: int, activation: Activation) -> Array:
    if activation in (relu, leaky_relu, elu, gelu, silu):
        return random.normal(0, math.sqrt(2 / fan_in), (fan_in, fan_out))
    limit = math.sqrt(6 / (fan_in + fan_out))
    return random.uniform(-limit, limit, (fan_in, fan_out))
