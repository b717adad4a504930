"""Which non-linearities, and their derivatives?

Each is a function of the pre-activations ``z`` and, beside it, its pullback: the gradient at ``z``, from ``z`` itself,
the value ``y`` there, and the gradient ``dy`` at ``y``.
"""

from collections.abc import Callable
from typing import Any

from purenn.arrays import Array, namespace
from purenn.records import Vector, record


@record
class Activation(Vector):
    """A non-linearity and its derivative. Calling it applies it to an array.

    Attributes
    ----------
    name : str
        What ``repr`` shows.
    function : callable
        ``function(z) -> y``, arrays of the same shape.
    pullback : callable
        ``pullback(z, y, dy) -> dz``: for an elementwise function ``dy * f'(z)``; in general the transposed Jacobian of
        every row times ``dy``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> square = nn.Activation("square", lambda z: z * z, lambda z, y, dy: 2 * z * dy)
    >>> square(np.asarray([1.0, 2.0]))
    array([1., 4.])
    """

    name: str
    function: Callable[[Array], Array]
    pullback: Callable[[Array, Array, Array], Array]

    def __call__(self, z: Array) -> Array:
        """Return ``function(z)``."""
        return self.function(z)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        return self.name if globals().get(self.name) is self else super().__reduce__()


def _tanh(z: Array) -> Array:
    return namespace(z).tanh(z)


def _tanh_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * (1 - y * y)


def _relu(z: Array) -> Array:
    return namespace(z).maximum(z, 0)


def _relu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * namespace(z).astype(z > 0, dy.dtype)  # half of what xp.where takes


def _sigmoid(z: Array) -> Array:
    xp = namespace(z)
    return xp.exp(xp.minimum(z, 0)) / (1 + xp.exp(-xp.abs(z)))


def _sigmoid_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * y * (1 - y)


def _identity(z: Array) -> Array:
    return z


def _identity_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy


def _softmax(z: Array) -> Array:
    xp = namespace(z)
    exponentials = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return exponentials / xp.sum(exponentials, axis=-1, keepdims=True)


def _softmax_pullback(z: Array, y: Array, dy: Array) -> Array:
    return y * (dy - namespace(z).sum(dy * y, axis=-1, keepdims=True))


tanh = Activation("tanh", _tanh, _tanh_pullback)
"""Hyperbolic tangent, ``tanh(z)``, with values in (-1, 1). Derivative: ``1 - tanh(z)^2``."""

relu = Activation("relu", _relu, _relu_pullback)
"""Rectified linear unit, ``max(z, 0)`` (Nair & Hinton 2010). Derivative: 1 where ``z > 0``, else 0 (also at 0)."""

sigmoid = Activation("sigmoid", _sigmoid, _sigmoid_pullback)
"""Logistic function, ``1 / (1 + exp(-z))``, with values in (0, 1); computed as
``exp(min(z, 0)) / (1 + exp(-|z|))``, which neither overflows nor loses small values. Derivative:
``sigmoid(z) (1 - sigmoid(z))``."""

identity = Activation("identity", _identity, _identity_pullback)
"""The identity, ``z``. Derivative: 1."""

softmax = Activation("softmax", _softmax, _softmax_pullback)
"""Softmax over the last axis, ``exp(z_i) / sum_j exp(z_j)``: positive values that sum to one; the largest ``z`` is
subtracted first, which changes nothing but keeps ``exp`` from overflowing. Jacobian: ``y_i (delta_ij - y_j)`` (Bishop
2006, equation 4.106)."""
