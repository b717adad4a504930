"""Losses, their gradients, and predictions.

The activation at the output chooses the loss: softmax cross-entropy, sigmoid binary cross-entropy, identity half the
squared error. For each of them (canonical links; Bishop 2006, section 4.3.6) the gradient at the logits, the output
before its activation, is ``(prediction - target) / n``, and every backward pass starts there; with weights ``w``, row
``i`` is ``w_i (prediction_i - target_i) / sum_j w_j``. Losses are computed from the logits, never from the logarithm of
a probability.
"""

import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

from purenn import layers
from purenn.activations import Activation, identity, sigmoid, softmax, softplus
from purenn.arguments import as_floats, as_integers, check_real, describe, type_name
from purenn.arrays import Array, astype, has_kind, int_dtype, is_numpy, lock_in_place, max_over_last, namespace, wide
from purenn.layers import Dense, GradientAndDx, Pullback, affine, chained, checked, dense_vjp, forward, placed, vjp
from purenn.records import floats_like
from purenn.trees import Layer, T, like


def logits(params: Layer, x: Array) -> Array:
    """Return the logits of a network, ``(n, fan_out)``: its output before the last activation.

    With the input ``h`` of the last layer, ``z = h @ weights + biases``; read-only, of the dtype of the parameters.

    Parameters
    ----------
    params : Params
        A network whose last layer is ``Dense``, with any activation; or a ``Dense`` alone.
    x : array, (n, fan_in)
        One example per row; ``n`` may be 0.

    Raises
    ------
    ValueError
        If a shape is wrong.
    TypeError
        If ``x`` is not an array of floats, or the network does not end in ``Dense``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense([[1.0, 2.0]], [0.0, 1.0], nn.softmax)
    >>> nn.logits(layer, np.asarray([[3.0]]))
    array([[3., 7.]])
    """
    if vjp.dispatch(type(params)) is layers.network_vjp:
        *below, _ = params.layers
        h = forward(like(params, layers=tuple(below)), x) if below else x
        return placed(params, len(below), logits, params.layers[-1], h)
    return lock_in_place(affine(output_layer(params), x)[1])


def logits_vjp(params: Layer, x: Array) -> tuple[Array, Pullback]:
    """Return the logits of a network, and the pullback from the logits to the parameters.

    Every loss starts here: with a loss ``l(z)``, the gradient of the parameters is ``pullback(dl/dz)[0]``. Parameters
    and errors are those of ``logits``; ``x`` is not copied, so it must not change before the pullback is called.

    Returns
    -------
    z : array, (n, fan_out)
        The logits.
    pullback : callable
        ``pullback(dz) -> (gradient, dx)``: a record like ``params``, and a function without arguments that returns the
        gradient with respect to ``x``. It raises ValueError if ``dz`` does not have the shape of ``z``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense([[1.0]], [0.0], nn.identity)
    >>> z, pullback = nn.logits_vjp(layer, np.asarray([[2.0], [4.0]]))
    >>> gradient, dx = pullback(np.sign(z - 3.0) / len(z))  # of the mean absolute error
    >>> gradient.weights
    array([[1.]])
    """
    if vjp.dispatch(type(params)) is not layers.network_vjp:
        return checked(layers.affine_vjp, output_layer(params), x)
    last = len(params.layers) - 1
    h, chained_pullback = chained(params, x, last)
    z, last_pullback = placed(params, last, logits_vjp, params.layers[last], h)

    def network_pullback(dz: Array) -> GradientAndDx:
        gradient, dh = placed(params, last, last_pullback, dz)
        gradients, dx = chained_pullback(dh)
        return like(params, layers=(*gradients, gradient)), dx

    return z, network_pullback


def output_layer(params: Any) -> Dense:
    """Return the layer that a network ends with, which must be dense."""
    rule = vjp.dispatch(type(params))  # a subclass may have a rule of its own
    if rule is layers.network_vjp:
        return output_layer(params.layers[-1])
    if rule is not dense_vjp:
        expected = "logits are the output of purenn.Dense before its activation, so the last layer must be one"
        raise TypeError(f"the network ends in {type_name(params)}, but {expected}")
    return params  # type: ignore[no-any-return]


def loss(params: Layer, x: Array, y: Array, sample_weight: Array | None = None) -> Array:
    """Return the loss of a network on a batch, summed over the outputs and averaged over the examples.

    The loss is a read-only 0-d array of the dtype of the parameters, in nats for the two cross-entropies. The
    activation of the last layer decides which loss it is. With logits ``z`` and targets ``t`` (for a label, 1 at its
    class, else 0):

    - softmax, cross-entropy: ``-sum_k t_k log softmax(z)_k = log(sum_k exp(z_k)) - sum_k t_k z_k``
    - sigmoid, binary cross-entropy: ``sum_k (log(1 + exp(z_k)) - t_k z_k)``
    - identity, half the squared error: ``sum_k (z_k - t_k)^2 / 2``

    (Bishop 2006, equations 5.24, 5.23 and 5.11.) With weights ``w``, the average is ``sum_i w_i l_i / sum_i w_i``.

    Parameters
    ----------
    params : Params
        A network whose last layer is dense, with softmax, sigmoid, or identity; or such a layer alone.
    x : array, (n, fan_in)
        One example per row; ``n`` at least 1.
    y : array
        For softmax: integer labels ``(n,)``, or a distribution over the classes in each row ``(n, fan_out)``. For
        sigmoid: values from 0 to 1 ``(n, fan_out)``. For identity: values ``(n, fan_out)``.
    sample_weight : array, (n,), or None
        How much each example counts: finite numbers of at least 0, not all 0. Only their ratios matter. An example of
        weight 0 may have any label or target, such as -1 or NaN, but if its ``x`` is not finite, the gradient is NaN.
        It has no effect on the loss unless a layer mixes examples (batch normalization).

    Raises
    ------
    ValueError
        If the batch is empty, or a shape or a value of ``y`` or ``sample_weight`` is wrong (only the values of NumPy
        arrays are checked, those of ``y`` only with NumPy weights; if all weights of another library are 0, one is
        negative, or a label is not a class, the loss is NaN).
    TypeError
        If ``x``, ``y`` or ``sample_weight`` is not an array or has the wrong dtype, or the network does not end in
        ``Dense`` with one of the three activations.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((2, 4)), np.zeros(4), nn.softmax)
    >>> print(nn.loss(layer, np.ones((1, 2)), np.asarray([3])))  # log(4)
    1.3862943611198906
    """
    return targeted(output_of(params), logits(params, x), y, sample_weight).loss()


def grads(params: T, x: Array, y: Array, sample_weight: Array | None = None) -> T:
    """Return the gradient of the loss with respect to the parameters, by backpropagation: a record like ``params``.

    The gradient at the logits is ``(prediction - target) / n``; with weights ``w``, row ``i`` is
    ``w_i (prediction_i - target_i) / sum_j w_j``. ``logits_vjp`` pulls it back through the layers.

    Parameters
    ----------
    params : Params
        A network whose last layer is dense, with softmax, sigmoid, or identity; or such a layer alone.
    x : array, (n, fan_in)
        One example per row, floats; ``n`` at least 1.
    y : array
        Integer labels ``(n,)``, or targets ``(n, fan_out)``; see ``loss``.
    sample_weight : array, (n,), or None
        How much each example counts; see ``loss``.

    Raises
    ------
    ValueError
        If the batch is empty, or a shape or a value of ``y`` or ``sample_weight`` is wrong.
    TypeError
        If ``x``, ``y`` or ``sample_weight`` is not an array or has the wrong dtype, labels are not ``(n,)``, or the
        network does not end in ``Dense`` with one of the three activations.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax)
    >>> nn.grads(layer, np.asarray([[3.0]]), np.asarray([0])).weights
    array([[-1.5,  1.5]])
    """
    output, (z, pullback) = output_of(params), logits_vjp(params, x)
    return pullback(targeted(output, z, y, sample_weight).gradient())[0]  # type: ignore[no-any-return]


def loss_and_grads(params: T, x: Array, y: Array, sample_weight: Array | None = None) -> tuple[Array, T]:
    """Return ``(loss, grads)`` from one forward and one backward pass.

    Parameters and errors are those of ``loss``.

    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.zeros((1, 1)), np.zeros(1), nn.identity)
    >>> value, gradient = nn.loss_and_grads(layer, np.asarray([[1.0]]), np.asarray([[2.0]]))
    >>> print(value, gradient.weights)
    2.0 [[-2.]]
    """
    output, (z, pullback) = output_of(params), logits_vjp(params, x)
    batch = targeted(output, z, y, sample_weight)
    return batch.loss(), pullback(batch.gradient())[0]


def predict(params: Layer, x: Array) -> Array:
    """Return the prediction for each example.

    For softmax: the label of the most probable class, ``(n,)``. For sigmoid: 1 where the probability is above one half,
    else 0, ``(n, fan_out)``. For identity: the values, ``(n, fan_out)``. Parameters and errors are those of ``loss``;
    ``n`` may be 0. A label cannot be NaN: if the output of softmax or sigmoid is NaN in any row, ValueError is raised;
    with arrays of other libraries, whose values may not be computed yet, such a label is -1.

    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.eye(3), np.zeros(3), nn.softmax)
    >>> nn.predict(layer, np.asarray([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]))
    array([1, 0])
    """
    output, y = output_of(params), forward(params, x)
    xp, labels = namespace(y), output.decide(y)
    if output.activation == identity:
        return labels
    rows = xp.any(xp.isnan(y), axis=1)
    if is_numpy(y) and rows.any():
        hint = "np.isfinite(x).all(axis=1) finds finite rows of x; nn.inspect(params, x) shows where NaN begins"
        raise ValueError(f"the output is NaN in {rows.sum()} of {len(y)} rows; {hint}")
    return lock_in_place(labels if is_numpy(y) else xp.where(rows if labels.ndim == 1 else xp.isnan(y), -1, labels))


def accuracy(params: Layer, x: Array, y: Array, sample_weight: Array | None = None) -> Array:
    """Return the fraction of correct predictions; for sigmoid, the fraction of correct outputs.

    It is a 0-d array of the dtype of the parameters. With ``sample_weight``, each example counts by its weight. The
    target class of a distribution is its most probable one; for sigmoid, a target above one half counts as 1. If any
    prediction is NaN, even one of weight 0, the result is NaN; so it is if a target in an array of another library is
    NaN. Parameters and errors are those of ``loss``, but the network must end in softmax or sigmoid.

    >>> import numpy as np, purenn as nn
    >>> layer = nn.Dense(np.eye(2), np.zeros(2), nn.softmax)
    >>> print(nn.accuracy(layer, np.asarray([[1.0, 0.0], [0.0, 1.0]]), np.asarray([0, 0])))
    0.5
    """
    output = output_of(params)
    if output.activation == identity:
        raise TypeError("accuracy counts correct classes, but a network that ends in identity predicts values")
    _, predictions, targets, weights, total_weight = targeted(output, forward(params, x), y, sample_weight)
    xp, hits = namespace(predictions), output.decide(predictions) == output.decide(targets)
    hits = _weighted(xp.reshape(xp.astype(hits, targets.dtype), (predictions.shape[0], -1)), weights)
    is_known = ~xp.any(xp.isnan(predictions) | xp.isnan(targets))
    return floats_like(xp.where(is_known, xp.sum(hits) / (total_weight * hits.shape[1]), xp.nan), predictions)


# What the activation at the output means, and the targets of a batch


class Output(NamedTuple):
    """What a network that ends in an activation predicts, and what its loss is."""

    activation: Activation
    targets: Callable[[Array, Array], Array]  # (y, z) -> what the predictions should be, checked, floats
    losses: Callable[[Array, Array], Array]  # (z, targets) -> (n, fan_out), the summands of the loss
    decide: Callable[[Array], Array]  # predictions -> what ``predict`` returns


class Targeted(NamedTuple):
    """The logits of a batch with its targets: what the loss and its gradient are computed from, in float32 at least.

    So counts and sums over examples have room where the parameters are float16, and small errors do not underflow.
    """

    output: Output
    z: Array
    targets: Array
    weights: Array | None  # of the examples, in a column
    total_weight: Any  # without weights, the number of examples

    def loss(self) -> Array:
        """Return the mean loss."""
        losses = _weighted(self.output.losses(wide(self.z), self.targets), self.weights)
        return floats_like(namespace(losses).sum(losses) / self.total_weight, self.z)

    def gradient(self) -> Array:
        """Return the gradient of the mean loss at the logits, ``(prediction - target) / n``."""
        errors = self.output.activation.function(wide(self.z)) - self.targets
        return (errors if self.weights is None else _weighted(errors, self.weights)) / self.total_weight


def _weighted(values: Array, w: Array | None) -> Array:
    """Multiply each row by its weight; without weights, each row counts 1."""
    return values if w is None else namespace(values).where(w > 0, values, 0) * w  # infinity times 0 would be NaN


def targeted(output: Output, z: Array, y: Array, sample_weight: Array | None) -> Targeted:
    """Check the targets and the weights of a batch, and return them with its logits, or its predictions."""
    if (n := z.shape[0]) == 0:
        raise ValueError("the batch is empty; a loss needs at least one example")
    namespace(y, "y")  # raises TypeError
    if y.shape[:1] != (n,):
        raise ValueError(f"y has the shape {y.shape}, but x has {n} rows{f'; y.T has {n}' * (y.shape[1:] == (n,))}")
    y, weights = (y, None) if sample_weight is None else _with_valid_targets(y, sample_weight, wide(z))
    return Targeted(output, z, output.targets(y, z), weights, n if weights is None else namespace(z).sum(weights))


def _with_valid_targets(y: Array, sample_weight: Array, like: Array) -> tuple[Array, Array]:
    """Return the targets, with valid ones where the weight is 0; and the weights, in a column, over the largest."""
    namespace(sample_weight, "sample_weight")  # raises TypeError
    w = as_floats(sample_weight, "sample_weight")
    if w.shape != like.shape[:1]:
        raise ValueError(f"sample_weight has the shape {w.shape}, but must have {like.shape[:1]}: one per example")
    if is_numpy(w) and not (w.min() >= 0 and 0 < w.max() < namespace(w).inf):
        rule = "must be finite, >= 0, and not all 0; if all are 0, skip the batch: if sample_weight.any()"
        raise ValueError(f"sample_weight is from {w.min()} to {w.max()}, but {rule}")
    w = namespace(w).where(w >= 0, w, namespace(w).nan)
    w = w / namespace(w).max(w)
    xp = namespace(y) if is_numpy(w) else namespace(like)
    y, counts = xp.asarray(y), xp.asarray(w)
    # Examples of weight 0 get a valid target, class 0: the label 0, or 1 in the first column.
    valid = xp.astype(xp.reshape(xp.arange(y[:1].size) == y.ndim - 2, y[:1].shape), y.dtype)
    y = xp.where(xp.reshape(counts > 0, (-1, *[1] * (y.ndim - 1))), y, valid)
    return y, astype(namespace(like).asarray(w), like.dtype)[:, None]


def output_of(params: Any) -> Output:
    """Return what the activation at the output of a network means; TypeError if it determines no loss."""
    activation = output_layer(params).activation
    if output := _OUTPUTS.get(activation):
        return output
    rule = "the last layer must have softmax, sigmoid, or identity (forward works with any)"
    raise TypeError(f"the network ends in {activation}, which determines no loss; {rule}")


def _class_targets(y: Array, like: Array) -> Array:
    if has_kind(y, "integral") and y.ndim == 1:
        is_class, xp = y[:, None] == namespace(y).arange(like.shape[1]), namespace(like)
        if is_numpy(y) and namespace(y).count_nonzero(is_class) != y.shape[0]:
            given = f"y has labels from {y.min()} to {y.max()}, but must be from 0 to {like.shape[1] - 1}"
            hint = "; sample_weight=(y >= 0) leaves out labels below 0" * bool(y.min() < 0)
            raise ValueError(f"{given}; give the last layer an output for each class, or {_NUMBERED}{hint}")
        one_hot = xp.asarray(is_class, dtype=wide(like).dtype)
        return one_hot if is_numpy(y) else xp.where(xp.any(is_class, axis=1, keepdims=True), one_hot, xp.nan)
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] == 1 < like.shape[1]):
        raise ValueError(f"y has the shape {y.shape}, but must be labels, (n,): y[:, 0]; or distributions, (n, k)")
    if y.ndim != 2:
        labels = _way_to_labels(y)
        raise TypeError(f"y is {describe(y)}, but must be integer labels, (n,): {labels}; or distributions, (n, k)")
    targets = _value_targets(y, like)
    if is_numpy(y) and not ((y >= -_slack(y)).all() and (abs(y.sum(axis=1, dtype=float) - 1) <= _slack(y)).all()):
        rule = "its values must be from 0 to 1, and their sum 1; y / y.sum(axis=1, keepdims=True) makes the sums 1"
        raise ValueError(f"y has a row that is not a distribution: {rule}")
    return targets


_NUMBERED = "names, y = np.unique(y, return_inverse=True), once, for all labels; then np.searchsorted(names, more)"


def _way_to_labels(y: Array) -> str:
    """Return what makes labels 0, 1, ... of an array, depending on its dtype."""
    if getattr(y.dtype, "names", None):
        return f"y[{y.dtype.names[-1]!r}] is one of its columns"
    missing = ["None", "nan", "<NA>", "NaT"]
    if is_numpy(y) and not {*missing}.isdisjoint(map(str, y.flat)):
        return f"known = ~np.isin(y.astype(str), {missing}), and x[known], y[known] leave out rows without a label"
    if has_kind(y, "real floating") and is_numpy(y) and not ((y == y.round()) & (abs(y) < 2**31)).all():
        return "labels are whole numbers; to predict values, end the network in identity"
    is_whole = getattr(y.dtype, "kind", "") == "O" and {int, bool} >= {*map(type, y.flat)}
    return "y.astype(int)" if is_whole or has_kind(y, "bool", "real floating") else _NUMBERED


def _slack(y: Array) -> float:
    """Return the rounding error allowed in probabilities and their sums, in the dtype of ``y``."""
    return max(1e-5, 10 * float(namespace(y).finfo(y.dtype).eps)) if has_kind(y, "real floating") else 0


def _binary_targets(y: Array, like: Array) -> Array:
    targets = _value_targets(y, like)
    if is_numpy(y) and not ((y >= -_slack(y)) & (y <= 1 + _slack(y))).all():
        raise ValueError(f"y has values from {y.min()} to {y.max()}, but must be from 0 to 1")
    return targets


def _value_targets(y: Array, like: Array) -> Array:
    check_real(y, "y", "bool")
    if y.shape != like.shape:
        way_out = "; y[:, None] is a column" if like.shape[1] == 1 else "; labels, (n,), need a softmax network"
        way_out *= y.ndim == 1
        raise ValueError(f"y has the shape {y.shape}, but the output of the network has {like.shape}{way_out}")
    if is_numpy(y) and (wrong := ~_is_finite(y, like)).any():
        rows = reprlib.repr(wrong.any(axis=1).nonzero()[0].tolist())
        given = f"y has {wrong.sum()} values that are NaN or infinite in {like.dtype}, in the rows {rows}"
        raise ValueError(f"{given}; leave these rows out or fill them in; normalize values that are too large")
    return astype(namespace(like).asarray(y), wide(like).dtype)


def _is_finite(y: Array, like: Array) -> Array:
    """Tell where NumPy's numbers are finite, also in the dtype of another array."""
    if is_numpy(like) and y.dtype == like.dtype:
        return namespace(y).isfinite(y)
    return abs(y.astype(namespace(y).result_type(y.dtype, float))) <= float(namespace(like).finfo(like.dtype).max)


def _cross_entropies(z: Array, targets: Array) -> Array:
    xp = namespace(z)
    shifted = z - max_over_last(z)
    surprise = xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True)) - shifted  # infinite for a logit of -inf
    return targets * xp.where(targets == 0, 0, surprise)


def _above_half(predictions: Array) -> Array:
    return astype(predictions > 0.5, int_dtype(namespace(predictions)))


_OUTPUTS = {
    softmax: Output(softmax, _class_targets, _cross_entropies, lambda p: as_integers(namespace(p).argmax(p, axis=-1))),
    sigmoid: Output(sigmoid, _binary_targets, lambda z, t: softplus.function(z) - t * z, _above_half),
    identity: Output(identity, _value_targets, lambda z, t: (z - t) ** 2 / 2, identity.function),
}
