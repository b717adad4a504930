"""Initial parameters of a network.

An initializer is a function ``(seed, fan_in, fan_out) -> weights``. Those given here return a read-only float64 array,
``(fan_in, fan_out)``. The same seed gives the same weights. They raise ValueError if a size is not positive or the seed
is not valid, TypeError if a size is not an int.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from purenn.activations import Activation, elu, gelu, leaky_relu, relu, silu
from purenn.arguments import as_int, as_seed, as_tuple, brief, describe, generator
from purenn.arrays import Array, Seed, lock_in_place
from purenn.layers import Dense, Params


def init(
    seed: Seed, sizes: Iterable[int], activations: Iterable[Activation], dtype: Any = "float32", initializer: Any = None
) -> Params:
    """Return a network of dense layers with random weights, and biases of zero.

    By default, the weights of a layer with relu or a relative (leaky_relu, elu, gelu, silu) are distributed like those
    of ``he_normal``, the others like those of ``glorot_uniform``; all are drawn from one stream of random numbers.

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
    initializer : callable, list of callables, or None
        A function ``(seed, fan_in, fan_out) -> weights`` for all layers, such as ``nn.initializers.orthogonal``; or a
        list with a function, or None for the default, for each layer. Layer ``k`` = 0, 1, ... gets the seed
        ``(seed, k)``, or ``(*seed, k)`` if the seed is a tuple.

    Raises
    ------
    ValueError
        If the numbers of sizes and activations do not match, no layer is given, a size is not positive, the seed is not
        valid, or an initializer does not return numbers of the shape ``(fan_in, fan_out)``.
    TypeError
        If a size is not an int, an activation is not an Activation, ``initializer`` is none of these, or the dtype is
        neither of the two.

    Examples
    --------
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
        rule = "a network of k >= 1 layers takes k + 1 sizes (the number of inputs first) and k activations"
        raise ValueError(f"{len(sizes)} sizes and {len(activations)} activations were given; {rule}")
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype is {dtype}, but must be float32 or float64")
    chosen = initializer if isinstance(initializer, (tuple, list)) else [initializer] * len(activations)
    if len(chosen) != len(activations) or not all(f is None or callable(f) for f in chosen):
        raise TypeError(f"initializer is {brief(initializer)}, but must be a function, or one function for each layer")
    random, path = generator(seed), as_seed(seed)
    layers = []
    for k, (f, activation, shape) in enumerate(zip(chosen, activations, itertools.pairwise(sizes), strict=True)):
        weights = np.asarray(f((*path, k), *shape) if f else _by_activation(activation, random, *shape))
        if weights.shape != shape or weights.dtype.kind not in "biuf":
            raise ValueError(f"the initializer returned {describe(weights)}, but must return numbers, {shape}")
        layers.append(Dense(lock_in_place(weights.astype(dtype)), lock_in_place(np.zeros(shape[1], dtype)), activation))
    return Params(tuple(layers))


def _by_activation(activation: Activation, random: Any, fan_in: int, fan_out: int) -> Array:
    if activation in (relu, leaky_relu, elu, gelu, silu):
        return _draw(random, fan_in, fan_out, 2, fan_in)
    return _draw(random, fan_in, fan_out, 6, fan_in + fan_out, uniform=True)


def _draw(random: Any, fan_in: int, fan_out: int, gain: float, fan: int, uniform: bool = False) -> Array:
    """Return normal numbers of variance ``gain / fan``, or uniform ones in ``(-a, a)``, ``a = sqrt(gain / fan)``."""
    shape = as_int("fan_in", fan_in, least=1), as_int("fan_out", fan_out, least=1)
    a = math.sqrt(gain / fan)
    return lock_in_place(random.uniform(-a, a, shape) if uniform else random.normal(0, a, shape))


def glorot_uniform(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return weights uniform in ``(-a, a)``, ``a = sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio 2010, equation 16).

    Their variance, ``2 / (fan_in + fan_out)``, keeps the variance of both signals and gradients about the same from
    layer to layer, with tanh or no activation.

    >>> glorot_uniform(0, fan_in=64, fan_out=32).shape
    (64, 32)
    """
    return _draw(generator(seed), fan_in, fan_out, 6, fan_in + fan_out, uniform=True)


def glorot_normal(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return normal weights of variance ``2 / (fan_in + fan_out)`` (Glorot & Bengio 2010, equation 12).

    >>> glorot_normal(0, fan_in=64, fan_out=32).shape
    (64, 32)
    """
    return _draw(generator(seed), fan_in, fan_out, 2, fan_in + fan_out)


def he_uniform(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return weights uniform in ``(-a, a)``, ``a = sqrt(6 / fan_in)``: the variance is that of ``he_normal``.

    >>> he_uniform(0, fan_in=64, fan_out=32).shape
    (64, 32)
    """
    return _draw(generator(seed), fan_in, fan_out, 6, fan_in, uniform=True)


def he_normal(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return normal weights of variance ``2 / fan_in`` (He et al. 2015, equation 10).

    With relu, which halves the mean square of a signal, this keeps the variance of ``x @ weights`` about the same from
    layer to layer.

    >>> he_normal(0, fan_in=64, fan_out=32).shape
    (64, 32)
    """
    return _draw(generator(seed), fan_in, fan_out, 2, fan_in)


def lecun_normal(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return normal weights of variance ``1 / fan_in`` (LeCun, Bottou, Orr & Müller 1998, equation 16).

    >>> lecun_normal(0, fan_in=64, fan_out=32).shape
    (64, 32)
    """
    return _draw(generator(seed), fan_in, fan_out, 1, fan_in)


def orthogonal(seed: Seed, fan_in: int, fan_out: int) -> Array:
    """Return random weights with orthonormal columns; rows if ``fan_in < fan_out`` (Saxe, McClelland & Ganguli 2014).

    All such matrices are equally likely: it is Q of the QR decomposition of a normal matrix, with the signs that make
    the diagonal of R positive (Mezzadri 2007).

    >>> weights = orthogonal(0, fan_in=4, fan_out=2)
    >>> np.allclose(weights.T @ weights, np.eye(2))
    True
    """
    normal = _draw(generator(seed), fan_in, fan_out, 1, 1)
    q, r = np.linalg.qr(normal if fan_in >= fan_out else normal.T)
    columns = q * np.where(np.diagonal(r) < 0, -1, 1)
    return lock_in_place(columns if fan_in >= fan_out else columns.T)
