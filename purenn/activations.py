"""Which non-linearities, and their derivatives?

Each is a function of the pre-activations ``z`` and, beside it, its pullback: the gradient at ``z``, from ``z`` itself,
the value ``y`` there, and the gradient ``dy`` at ``y``.
"""

import math
from collections.abc import Callable
from typing import Any

from purenn.arrays import Array, check_floats, inspectable, namespace
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
        """Return ``function(z)``; TypeError if ``z`` is no array of floats."""
        check_floats(z)
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
    xp = namespace(z)  # jax.grad takes the derivative of maximum at a tie to be 1/2; np.where is 8 times as slow
    return xp.maximum(z, 0) if inspectable(z) else xp.where(z <= 0, xp.zeros_like(z), z)


def _relu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * namespace(z).astype(z > 0, dy.dtype)  # half of what xp.where takes


def _sigmoid(z: Array) -> Array:
    xp = namespace(z)
    minus = xp.minimum(z, -z)  # -|z|, but with the derivative 0 at 0, also for jax.grad
    return xp.exp(xp.minimum(z, 0)) / (1 + xp.exp(minus))


def _sigmoid_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * y * (1 - y)


def _leaky_relu(z: Array) -> Array:
    return namespace(z).where(z > 0, z, 0.01 * z)


def _leaky_relu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return namespace(z).where(z > 0, dy, 0.01 * dy)


def _elu(z: Array) -> Array:
    xp = namespace(z)
    return xp.where(z > 0, z, xp.expm1(xp.where(z > 0, xp.zeros_like(z), z)))


def _elu_pullback(z: Array, y: Array, dy: Array) -> Array:
    xp = namespace(z)
    return dy * xp.exp(xp.minimum(z, 0))


def _softplus(z: Array) -> Array:
    xp = namespace(z)
    return xp.maximum(z, 0) + xp.log1p(xp.exp(xp.minimum(z, -z)))


def _softplus_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * _sigmoid(z)


def _gelu(z: Array) -> Array:
    return z * _gelu_gate(z)[0]


def _gelu_pullback(z: Array, y: Array, dy: Array) -> Array:
    gate, slope = _gelu_gate(z)
    return dy * (gate + gate * (1 - gate) * slope * z)


def _gelu_gate(z: Array) -> tuple[Array, Array]:
    """Return sigmoid(v) and dv/dz for v = 2 u; where |z| > 30, the first is 0 or 1 in any float."""
    z, scale = namespace(z).clip(z, -30, 30), math.sqrt(8 / math.pi)
    return _sigmoid(scale * (z + 0.044715 * z * z * z)), scale * (1 + 3 * 0.044715 * z * z)


def _silu(z: Array) -> Array:
    return z * _sigmoid(z)


def _silu_pullback(z: Array, y: Array, dy: Array) -> Array:
    sigmoid = _sigmoid(z)
    return dy * sigmoid * (1 + z * (1 - sigmoid))


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

leaky_relu = Activation("leaky_relu", _leaky_relu, _leaky_relu_pullback)
"""Leaky rectifier, ``max(z, 0.01 z)`` (Maas, Hannun & Ng 2013). Derivative: 1 where ``z > 0``, else 0.01."""

elu = Activation("elu", _elu, _elu_pullback)
"""Exponential linear unit, ``z`` where ``z > 0``, else ``exp(z) - 1`` (Clevert, Unterthiner & Hochreiter 2016).
Derivative: ``exp(min(z, 0))``."""

softplus = Activation("softplus", _softplus, _softplus_pullback)
"""Smooth rectifier, ``log(1 + exp(z))`` (Glorot, Bordes & Bengio 2011), computed as
``max(z, 0) + log(1 + exp(-|z|))``. Derivative: ``sigmoid(z)``."""

gelu = Activation("gelu", _gelu, _gelu_pullback)
"""Gaussian error linear unit in its tanh form, ``z (1 + tanh(u)) / 2`` with ``u = sqrt(2 / pi) (z + 0.044715 z^3)``
(Hendrycks & Gimpel 2016), computed as ``z g`` with ``g = sigmoid(2 u)``, which keeps the digits of small values.
Derivative: ``g (1 + z (1 - g) 2 u')`` with ``u' = sqrt(2 / pi) (1 + 0.134145 z^2)``."""

silu = Activation("silu", _silu, _silu_pullback)
"""Sigmoid linear unit or swish, ``z sigmoid(z)`` (Elfwing, Uchibe & Doya 2018). Derivative:
``sigmoid(z) (1 + z (1 - sigmoid(z)))``."""

identity = Activation("identity", _identity, _identity_pullback)
"""The identity, ``z``. Derivative: 1."""

softmax = Activation("softmax", _softmax, _softmax_pullback)
"""Softmax over the last axis, ``exp(z_i) / sum_j exp(z_j)``: positive values that sum to one; the largest ``z`` is
subtracted first, which changes nothing but keeps ``exp`` from overflowing. Jacobian: ``y_i (delta_ij - y_j)`` (Bishop
2006, equation 4.106)."""
