"""The non-linearities, each with its derivative beside it.

A function takes pre-activations ``z`` and returns values ``y``. Its pullback takes ``z``, ``y`` and the gradient ``dy``
at ``y``, and returns the gradient at ``z``.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

from purenn.arguments import check_floats
from purenn.arrays import Array, astype, is_numpy, max_over_last, namespace, sum_over
from purenn.records import pickled, record


@record
class Activation:
    """A non-linearity and its derivative. Calling it applies it to an array.

    Attributes
    ----------
    name : str
        What ``repr`` shows.
    function : callable
        ``function(z) -> y``, arrays of the same shape. Its docstring is what ``help`` shows.
    pullback : callable
        ``pullback(z, y, dy) -> dz``: for an elementwise function ``dy * f'(z)``; in general the transposed Jacobian of
        each row times ``dy``.

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
        """Return ``function(z)``; TypeError if ``z`` is not an array of floats."""
        check_floats(z)
        return self.function(z)

    def __get__(self, instance: object, owner: type) -> "Activation":
        return self  # as functions have; so help and pdoc take an activation for a function

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        return self.name if globals().get(self.name) is self else pickled(self)


def _with_pullback(pullback: Callable[..., Array]) -> Callable[[Callable[[Array], Array]], Activation]:
    """Make a function an activation of the same name."""
    return lambda function: Activation(function.__name__, function, pullback)


def _tanh_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * (1 - y * y)


@_with_pullback(_tanh_pullback)
def tanh(z: Array) -> Array:
    """Hyperbolic tangent, ``tanh(z)``, with values in (-1, 1).

    Derivative: ``1 - tanh(z)^2`` (Bishop 2006, equations 5.59 and 5.60).
    """
    return namespace(z).tanh(z)


def _relu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * astype(z > 0, dy.dtype)  # half the time of xp.where


@_with_pullback(_relu_pullback)
def relu(z: Array) -> Array:
    """Rectified linear unit, ``max(z, 0)``.

    Derivative: 1 where ``z > 0``, else 0, also at 0 (Nair & Hinton 2010).
    """
    xp = namespace(z)  # jax.grad takes the derivative of maximum at a tie to be 1/2; where takes NumPy 8 times as long
    return xp.maximum(z, 0) if is_numpy(z) else xp.where(z <= 0, xp.zeros_like(z), z)


def _sigmoid_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * y * (1 - y)


@_with_pullback(_sigmoid_pullback)
def sigmoid(z: Array) -> Array:
    """Logistic function, ``1 / (1 + exp(-z))``, with values in (0, 1).

    It is computed as ``exp(min(z, 0)) / (1 + exp(-|z|))``, which neither overflows nor loses small values.

    Derivative: ``sigmoid(z) (1 - sigmoid(z))`` (Bishop 2006, equation 4.88).
    """
    xp = namespace(z)  # min(z, -z) is -|z|, but with the derivative 0 at 0, also for jax.grad
    return xp.exp(xp.minimum(z, 0)) / (1 + xp.exp(xp.minimum(z, -z)))


def _leaky_relu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return namespace(z).where(z > 0, dy, 0.01 * dy)


@_with_pullback(_leaky_relu_pullback)
def leaky_relu(z: Array) -> Array:
    """Leaky rectifier, ``max(z, 0.01 z)``.

    Derivative: 1 where ``z > 0``, else 0.01 (Maas, Hannun & Ng 2013).
    """
    return namespace(z).where(z > 0, z, 0.01 * z)


def _elu_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * namespace(z).exp(namespace(z).minimum(z, 0))


@_with_pullback(_elu_pullback)
def elu(z: Array) -> Array:
    """Exponential linear unit, ``z`` where ``z > 0``, else ``exp(z) - 1``.

    Derivative: ``exp(min(z, 0))`` (Clevert, Unterthiner & Hochreiter 2016).
    """
    xp = namespace(z)
    return xp.where(z > 0, z, xp.expm1(xp.where(z > 0, xp.zeros_like(z), z)))


def _softplus_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy * sigmoid.function(z)


@_with_pullback(_softplus_pullback)
def softplus(z: Array) -> Array:
    """Smooth rectifier, ``log(1 + exp(z))``, computed as ``max(z, 0) + log(1 + exp(-|z|))``.

    Derivative: ``sigmoid(z)`` (Glorot, Bordes & Bengio 2011).
    """
    xp = namespace(z)
    return xp.maximum(z, 0) + xp.log1p(xp.exp(xp.minimum(z, -z)))


def _gelu_gate(z: Array) -> tuple[Array, Array]:
    """Return sigmoid(v) and dv/dz for v = 2 u; where |z| > 30, the first is 0 or 1 in any float."""
    z, scale = namespace(z).clip(z, -30, 30), math.sqrt(8 / math.pi)
    return sigmoid.function(scale * (z + 0.044715 * z * z * z)), scale * (1 + 3 * 0.044715 * z * z)


def _gelu_pullback(z: Array, y: Array, dy: Array) -> Array:
    gate, slope = _gelu_gate(z)
    return dy * (gate + gate * (1 - gate) * slope * z)


@_with_pullback(_gelu_pullback)
def gelu(z: Array) -> Array:
    """Gaussian error linear unit in its tanh form, ``z (1 + tanh(u)) / 2`` with ``u = sqrt(2/pi) (z + 0.044715 z^3)``.

    It is computed as ``z g`` with ``g = sigmoid(2 u)``, which keeps the digits of small values.

    Derivative: ``g (1 + z (1 - g) 2 u')`` with ``u' = sqrt(2/pi) (1 + 0.134145 z^2)`` (Hendrycks & Gimpel 2016).
    """
    return z * _gelu_gate(z)[0]


def _silu_pullback(z: Array, y: Array, dy: Array) -> Array:
    gate = sigmoid.function(z)
    return dy * gate * (1 + z * (1 - gate))


@_with_pullback(_silu_pullback)
def silu(z: Array) -> Array:
    """Sigmoid linear unit or swish, ``z sigmoid(z)``.

    Derivative: ``sigmoid(z) (1 + z (1 - sigmoid(z)))`` (Elfwing, Uchibe & Doya 2018).
    """
    return z * sigmoid.function(z)


def _identity_pullback(z: Array, y: Array, dy: Array) -> Array:
    return dy


@_with_pullback(_identity_pullback)
def identity(z: Array) -> Array:
    """The identity, ``z``, for outputs that are any real numbers (Bishop 2006, section 5.2).

    Derivative: 1.
    """
    return z


def _softmax_pullback(z: Array, y: Array, dy: Array) -> Array:
    return y * (dy - sum_over(dy * y, axis=-1, keepdims=True))


@_with_pullback(_softmax_pullback)
def softmax(z: Array) -> Array:
    """Softmax over the last axis, ``exp(z_i) / sum_j exp(z_j)``: positive values that sum to one.

    The largest ``z`` is subtracted first, so that ``exp`` cannot overflow; the result is the same.

    Jacobian: ``y_i (delta_ij - y_j)`` (Bishop 2006, equation 4.106).
    """
    exponentials = namespace(z).exp(z - max_over_last(z))
    return exponentials / sum_over(exponentials, axis=-1, keepdims=True)


# What `help` and pdoc show of an activation: the docstring and the signature of its function


class _OfFunction:
    """An attribute that has one value for the class, and for each activation one that depends on its function."""

    def __init__(self, of_class: Any, of_function: Callable[[Any], Any]) -> None:
        self.of_class, self.of_function = of_class, of_function

    def __get__(self, activation: Activation | None, cls: type) -> Any:
        return self.of_class if activation is None else self.of_function(activation.function)


Activation.__doc__ = _OfFunction(Activation.__doc__, inspect.getdoc)  # type: ignore[assignment]
Activation.__signature__ = _OfFunction(None, inspect.signature)  # type: ignore[attr-defined]
