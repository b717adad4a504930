"""Records, layers and a small network, as several tests need them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np

import purenn as nn

PARAMS, X, Y = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax)), np.ones((5, 4), np.float32), np.arange(5) % 2
DENSE, SIGMOID = nn.Dense(np.eye(2), np.zeros(2), nn.relu), nn.init(0, (4, 2), [nn.sigmoid])


def f32(*shape):
    return np.zeros(shape, np.float32)


class Pair(NamedTuple):
    left: object
    right: object


@nn.record
class Everything(nn.Vector):
    """One field of every kind."""

    leaf: nn.Array
    optional: nn.Array | None = None
    tree: nn.Tree = ()
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


@nn.record
class Holder(nn.Vector):
    parts: nn.Tree
    name: str = "x"
    static: tuple[int, ...] = ()


@nn.record
class Scale(nn.Vector):
    """A layer with one rule: ``factors * x^power``."""

    factors: nn.Array
    power: int = 1


@nn.vjp.register
def scale_vjp(layer: Scale, x):
    def pullback(dy):
        def dx():
            return dy * layer.factors * layer.power * x ** (layer.power - 1)

        return Scale((dy * x**layer.power).sum(axis=0), layer.power), dx

    return x**layer.power * layer.factors, pullback


@nn.record
class Flip:
    """A layer without arrays."""


@nn.vjp.register
def flip_vjp(layer: Flip, x):
    return -x, lambda dy: (layer, lambda: -dy)


@nn.record
class Ruled:
    """A layer whose rule does what the test says."""

    rule: Callable[..., Any]


@nn.vjp.register
def ruled_vjp(layer: Ruled, x):
    return layer.rule(layer, x)


@nn.record
class Embedding(nn.Vector):
    """A layer that takes integers; its gradient is wrong by a factor unless the slope is 1."""

    table: nn.Array
    slope: float = 1.0


@nn.vjp.register
def embedding_vjp(layer: Embedding, x):
    def pullback(dy):
        one_hot = (x[..., None] == np.arange(len(layer.table))).astype(dy.dtype)
        table = np.tensordot(one_hot, dy, axes=(tuple(range(x.ndim)), tuple(range(x.ndim))))
        return Embedding(layer.slope * table, layer.slope), lambda: 1 / 0

    return layer.table[x], pullback


def swish_function(z):
    return z * nn.sigmoid(z)


def swish_pullback(z, y, dy):
    return dy * (y + nn.sigmoid(z) * (1 - y))


swish = nn.Activation("swish", swish_function, swish_pullback)
