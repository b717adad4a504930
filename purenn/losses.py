"""How wrong is a network?

The activation at the output chooses the loss: softmax cross-entropy, sigmoid binary cross-entropy, identity half the
squared error. For each of them (canonical links; Bishop 2006, section 4.3.6) the gradient at the output's
pre-activations (logits) is ``(prediction - target) / n``, which starts every backward pass. Losses are computed from
the logits, never from the logarithm of a probability.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from purenn.activations import Activation, identity, sigmoid, softmax, softplus
from purenn.arrays import Array, describe, inspectable, locked, namespace
from purenn.layers import forward, output_activation, parameter_vjp, with_output_activation
from purenn.trees import ravel, tree_map

L = TypeVar("L")


def loss(params: Any, x: Array, y: Array) -> Array:
    """Return the loss of a network on a batch, summed over the outputs and averaged over the examples.

    With logits ``z`` and targets ``t``, by the activation at the output:

    - softmax, cross-entropy: ``-sum_k t_k log softmax(z)_k = log(sum_k exp(z_k)) - sum_k t_k z_k``
    - sigmoid, binary cross-entropy: ``sum_k log(1 + exp(z_k)) - t_k z_k``
    - identity, half the squared error: ``sum_k (z_k - t_k)^2 / 2``

    (Bishop 2006, equations 4.108, 4.90 and 3.12.)

    Parameters
    ----------
    params : Params
        A network whose last layer is dense, with softmax, sigmoid, or identity.
    x : array, (n, fan_in)
        One example a row; ``n`` at least 1.
    y : array
        For softmax: integer labels ``(n,)``, or a distribution over the classes in every row ``(n, fan_out)``. For
        sigmoid: values from 0 to 1 ``(n, fan_out)``. For identity: values ``(n, fan_out)``.

    Returns
    -------
    array, ()
        In nats, for the two cross-entropies; of the dtype of the parameters.

    Raises
    ------
    ValueError
        If the batch is empty, or a shape or a value of ``x`` or ``y`` is wrong.
    TypeError
        If ``x`` or ``y`` is no array or of the wrong type, or the network's output determines no loss.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((2, 4)), np.zeros(4), nn.softmax)
    >>> print(nn.loss(layer, np.ones((1, 2)), np.asarray([3])))  # log(4)
    1.3862943611198906
    """
    output = _output(params)
    logits = forward(with_output_activation(params, identity), x)
    return _mean_loss(output, logits, output.targets(y, logits))


def grads(params: L, x: Array, y: Array) -> L:
    """Return the gradient of the loss with respect to the parameters, by backpropagation.

    The gradient at the logits is ``(prediction - target) / n``; ``parameter_vjp`` pulls it back through the layers.

    Parameters
    ----------
    params, x, y
        As for ``loss``.

    Returns
    -------
    Params
        A record like ``params``, each array the gradient with respect to the one in its place.

    Raises
    ------
    ValueError, TypeError
        As ``loss`` does.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax)
    >>> nn.grads(layer, np.asarray([[3.0]]), np.asarray([0])).weights
    array([[-1.5,  1.5]])
    """
    gradient, _, _, _ = _backpropagated(params, x, y)
    return gradient


def loss_and_grads(params: L, x: Array, y: Array) -> tuple[Array, L]:
    """Return ``loss(params, x, y)`` and ``grads(params, x, y)`` for the price of the second alone.

    All is as for these two.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((1, 1)), np.zeros(1), nn.identity)
    >>> value, gradient = nn.loss_and_grads(layer, np.asarray([[1.0]]), np.asarray([[2.0]]))
    >>> print(value, gradient.weights)
    2.0 [[-2.]]
    """
    gradient, output, logits, targets = _backpropagated(params, x, y)
    return _mean_loss(output, logits, targets), gradient


def _backpropagated(params: L, x: Array, y: Array) -> tuple[L, "_Output", Array, Array]:
    output = _output(params)
    logits, pullback = parameter_vjp(with_output_activation(params, identity), x)
    targets = output.targets(y, logits)
    gradient = pullback((output.activation.function(logits) - targets) / logits.shape[0])
    return with_output_activation(gradient, output.activation), output, logits, targets


def _mean_loss(output: "_Output", logits: Array, targets: Array) -> Array:
    xp = namespace(logits)
    return xp.sum(output.losses(logits, targets)) / logits.shape[0]


def numerical_grads(params: L, x: Array, y: Array) -> L:
    """Return the gradient of the loss by central differences: slow, and independent of every derivative given here.

    Each entry is ``(loss(p + h) - loss(p - h)) / 2h`` with ``h = cbrt(eps) max(1, |p|)`` (Press et al. 2007, section
    5.7), computed in float64. That takes two evaluations of the loss for every number in ``params``. The error is about
    1e-9 of the largest entry, except where a relu changes sides between ``p - h`` and ``p + h``.

    It takes, returns and raises what ``grads`` does.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax)
    >>> np.round(nn.numerical_grads(layer, np.asarray([[3.0]]), np.asarray([0])).weights, 6)
    array([[-1.5,  1.5]])
    """
    _output(params)  # before anything is cast, an error says what else was given
    vector, unravel = ravel(tree_map(lambda p: namespace(p).astype(p, namespace(p).float64), params))
    xp = namespace(vector)
    steps = sys.float_info.epsilon ** (1 / 3) * xp.maximum(xp.abs(vector), 1)
    quotients = []
    for entry in range(vector.shape[0]):
        step = xp.where(xp.arange(vector.shape[0]) == entry, steps, 0)
        rise = loss(unravel(vector + step), x, y) - loss(unravel(vector - step), x, y)
        quotients.append(rise / (2 * xp.sum(step)))
    return tree_map(lambda p, g: namespace(p).astype(g, p.dtype), params, unravel(xp.stack(quotients)))


def predict(params: Any, x: Array) -> Array:
    """Return what a network says about every example.

    Parameters
    ----------
    params : Params
        As for ``loss``.
    x : array, (n, fan_in)
        One example a row; ``n`` may be 0.

    Returns
    -------
    array
        For softmax the label of the most probable class, ``(n,)``; for sigmoid 1 where the probability is above one
        half, else 0, ``(n, fan_out)``; for identity the values, ``(n, fan_out)``.

    Raises
    ------
    ValueError, TypeError
        As ``loss`` does.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.eye(3), np.zeros(3), nn.softmax)
    >>> nn.predict(layer, np.asarray([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]))
    array([1, 0])
    """
    return locked(_output(params).decide(forward(params, x)))


def accuracy(params: Any, x: Array, y: Array) -> Array:
    """Return the share of predictions that are right, for sigmoid over all outputs.

    A soft target counts as the class that it makes most probable.

    Parameters
    ----------
    params, x, y
        As for ``loss``, but the network must end in softmax or sigmoid.

    Returns
    -------
    array, ()
        From 0 to 1, of the dtype of the parameters; NaN if a prediction is.

    Raises
    ------
    ValueError, TypeError
        As ``loss`` does.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.eye(2), np.zeros(2), nn.softmax)
    >>> print(nn.accuracy(layer, np.asarray([[1.0, 0.0], [0.0, 1.0]]), np.asarray([0, 0])))
    0.5
    """
    output = _output(params)
    if output.activation == identity:
        raise TypeError("accuracy is the share of right classes, but a network that ends in identity gives values")
    predictions = forward(params, x)
    targets = output.targets(y, predictions)
    xp = namespace(predictions)
    share = xp.mean(xp.astype(output.decide(predictions) == output.decide(targets), predictions.dtype))
    return xp.where(xp.any(xp.isnan(predictions)), xp.nan, share)


# What the activation at the output means


class _Output(NamedTuple):
    activation: Activation
    targets: Callable[[Array, Array], Array]  # (y, logits) -> what the predictions should be, after checks
    losses: Callable[[Array, Array], Array]  # (logits, targets) -> (n, fan_out), the summands of the loss
    decide: Callable[[Array], Array]  # predictions -> what a person wants to know


def _output(network: Any) -> _Output:
    activation = output_activation(network)
    if activation not in _OUTPUTS:
        raise TypeError(
            f"{type(network).__name__} ends in {activation or 'no dense layer'}, which determines no loss; "
            "the last layer must be purenn.Dense with softmax, sigmoid, or identity (forward works with any)"
        )
    return _OUTPUTS[activation]


def _class_targets(y: Array, logits: Array) -> Array:
    xp = namespace(logits)
    if namespace(y).isdtype(y.dtype, "integral") and y.ndim == 1:
        _check_length(y, logits)
        if inspectable(y) and not 0 <= y.min() <= y.max() < logits.shape[1]:
            raise ValueError(f"y has labels from {y.min()} to {y.max()}, but must be from 0 to {logits.shape[1] - 1}")
        return xp.astype(xp.asarray(y)[:, None] == xp.arange(logits.shape[1]), logits.dtype)
    if y.ndim != 2:
        raise TypeError(f"y is {describe(y)}, but must be integer labels (n,) or a distribution in every row, (n, k)")
    targets = _value_targets(y, logits)
    if inspectable(y) and ((y < 0).any() or (abs(y.sum(axis=1) - 1) > 1e-5).any()):
        raise ValueError("y has a row that is no distribution: its values must be from 0 to 1, and their sum 1")
    return targets


def _binary_targets(y: Array, logits: Array) -> Array:
    targets = _value_targets(y, logits)
    if inspectable(y) and ((y < 0) | (y > 1)).any():
        raise ValueError(f"y has values from {y.min()} to {y.max()}, but must be from 0 to 1")
    return targets


def _value_targets(y: Array, logits: Array) -> Array:
    if not namespace(y).isdtype(y.dtype, ("real floating", "integral", "bool")):
        raise TypeError(f"y is {describe(y)}, but must be real numbers")
    _check_length(y, logits)
    if y.shape != logits.shape:
        raise ValueError(f"y has the shape {y.shape}, but the output of the network has {logits.shape}")
    xp = namespace(logits)
    return xp.astype(xp.asarray(y), logits.dtype)


def _check_length(y: Array, logits: Array) -> None:
    if logits.shape[0] == 0:
        raise ValueError("the batch is empty; the mean of no losses is not defined")
    if y.ndim == 0 or y.shape[0] != logits.shape[0]:
        raise ValueError(f"y has the shape {y.shape}, but x has {logits.shape[0]} rows")


def _cross_entropies(logits: Array, targets: Array) -> Array:
    xp = namespace(logits)
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    surprise = xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True)) - shifted  # infinite for a logit of -inf
    return targets * xp.where(targets == 0, 0, surprise)


def _binary_cross_entropies(logits: Array, targets: Array) -> Array:
    return softplus(logits) - targets * logits


def _half_squared_errors(values: Array, targets: Array) -> Array:
    return (values - targets) ** 2 / 2


def _most_probable(predictions: Array) -> Array:
    return namespace(predictions).argmax(predictions, axis=-1)


def _above_half(predictions: Array) -> Array:
    xp = namespace(predictions)
    return xp.astype(predictions > 0.5, xp.int64)


def _unchanged(predictions: Array) -> Array:
    return predictions


_OUTPUTS: dict[Activation | None, _Output] = {
    output.activation: output
    for output in (
        _Output(softmax, _class_targets, _cross_entropies, _most_probable),
        _Output(sigmoid, _binary_targets, _binary_cross_entropies, _above_half),
        _Output(identity, _value_targets, _half_squared_errors, _unchanged),
    )
}
