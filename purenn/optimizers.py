"""How do gradients become better parameters?"""

import math
import operator
from collections.abc import Iterable
from typing import TypeVar

from purenn.arrays import Array, check_alike, check_scalar, locked, scalar_like
from purenn.trees import tree_map

T = TypeVar("T")


def sgd_step(params: T, grads: T, lr: float) -> T:
    """Take one step of gradient descent: ``params - lr * grads``.

    Parameters
    ----------
    params : Params
        Or any other tree of arrays.
    grads : Params
        The gradient, of the same structure.
    lr : float
        The learning rate; a finite number, or an array without axes.

    Returns
    -------
    Params
        The new parameters, of the same dtype whatever that of ``lr`` is.

    Raises
    ------
    ValueError
        If ``lr`` is not finite, or ``params`` and ``grads`` differ in structure, a shape, or a dtype.
    TypeError
        If ``lr`` is no number.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.sgd_step(np.asarray([1.0, 2.0]), np.asarray([10.0, 0.0]), lr=0.1)
    array([0., 2.])
    """
    lr = check_scalar("lr", lr)

    def step(p: Array, g: Array) -> Array:
        check_alike(p, g)
        return locked(scalar_like(-lr, g) * g + p)

    return tree_map(step, params, grads)


def converged(losses: Iterable[float], patience: int = 5) -> bool:
    """Tell whether the last ``patience`` losses brought no improvement on the best before them.

    This is early stopping with patience (Goodfellow, Bengio & Courville 2016, algorithm 7.1), for losses on validation
    data. A loss that is NaN is no improvement.

    Parameters
    ----------
    losses : iterable of float
        The losses so far, the oldest first.
    patience : int
        At least 1.

    Returns
    -------
    bool
        Never True for ``patience`` losses or fewer.

    Raises
    ------
    ValueError
        If ``patience`` is not positive.
    TypeError
        If ``patience`` is not an int.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.converged([3.0, 1.0, 2.0, 1.5], patience=2), nn.converged([3.0, 1.0, 2.0, 0.5], patience=2)
    (True, False)
    """
    patience = operator.index(patience)
    if patience < 1:
        raise ValueError(f"patience is {patience}, but must be at least 1")
    values = [math.inf if math.isnan(loss) else float(loss) for loss in losses]
    return len(values) > patience and min(values[-patience:]) >= min(values[:-patience])
