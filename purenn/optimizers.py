"""How do gradients become better parameters?

A step takes parameters, their gradient, and what it remembers of the steps before, and returns them anew.
"""

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from purenn.arrays import (
    Array,
    as_floats,
    brief,
    check_real,
    check_scalar,
    describe,
    inspectable,
    is_array,
    locked,
    namespace,
    scalar_like,
)
from purenn.records import Vector, record
from purenn.trees import combined, replaced, some_leaves, tree_leaves, tree_map, unit_and_norm, zeros_like

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
        new = scalar_like(-lr, g) * g + p
        if new.dtype != p.dtype:
            raise TypeError(f"parameters must be floats, but one is {describe(p)}")
        return new

    return combined(step, params, grads)


def momentum_step(
    params: T, grads: T, velocity: T, lr: float, momentum: float = 0.9, nesterov: bool = False
) -> tuple[T, T]:
    """Take one step of gradient descent with momentum.

    ``velocity' = momentum * velocity + grads``, ``params' = params - lr * velocity'`` (Polyak 1964); with Nesterov's
    ``params' = params - lr * (grads + momentum * velocity')`` (Sutskever, Martens, Dahl & Hinton 2013).

    Parameters
    ----------
    params, grads, lr
        As for ``sgd_step``.
    velocity : Params
        What the step before returned; ``zeros_like(params)`` at the start.
    momentum : float
        At least 0 and below 1.
    nesterov : bool

    Returns
    -------
    params, velocity : Params

    Raises
    ------
    ValueError, TypeError
        As ``sgd_step`` does; ValueError also if ``momentum`` is out of its range.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.momentum_step(np.asarray([1.0]), np.asarray([2.0]), velocity=np.asarray([1.0]), lr=0.1, momentum=0.5)
    (array([0.75]), array([2.5]))
    """
    momentum = _number("momentum", momentum, below=1)

    def follow(v: Array, g: Array) -> Array:
        return momentum * v + g

    velocity = combined(follow, velocity, grads)
    return sgd_step(params, combined(follow, velocity, grads) if nesterov else velocity, lr), velocity


@record
class AdamState(Vector):
    """What ``adam_step`` remembers.

    Attributes
    ----------
    steps : array, ()
        How many steps were taken.
    means, squares : Params
        The exponential averages of the gradient and of its square, like the parameters.
    """

    steps: Array
    means: Any
    squares: Any

    def __attrs_post_init__(self) -> None:
        whole = namespace(self.steps).isdtype(self.steps.dtype, "integral")
        if self.steps.ndim or not whole or (inspectable(self.steps) and self.steps < 0):
            raise ValueError(f"steps is {describe(self.steps)}, but must be one integer, and not negative")
        for leaf in tree_leaves((self.means, self.squares)):
            namespace(leaf)  # raises TypeError


def adam_init(params: Any) -> AdamState:
    """Return the state that ``adam_step`` starts with: no steps, averages of zero.

    ``params`` may be any tree of arrays, but without lists, as a state does not change.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.adam_init(np.ones(3))
    AdamState(steps=i64[], means=f64[3], squares=f64[3])
    """
    steps = namespace(some_leaves(params)[0]).asarray(0)
    return AdamState(steps, zeros_like(params), zeros_like(params))


def adam_step(
    params: T,
    grads: T,
    state: AdamState,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[T, AdamState]:
    """Take one step of Adam with decoupled weight decay (AdamW).

    In step ``t = 1, 2, ...``, with gradient ``g``::

        m' = beta1 m + (1 - beta1) g
        v' = beta2 v + (1 - beta2) g^2
        params' = params - lr (m' / (1 - beta1^t) / (sqrt(v' / (1 - beta2^t)) + eps) + weight_decay params)

    (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.)

    Parameters
    ----------
    params, grads, lr
        As for ``sgd_step``.
    state : AdamState
        What the step before returned; ``adam_init(params)`` at the start.
    beta1, beta2 : float
        How much of the averages is kept; at least 0 and below 1, and no arrays.
    eps : float
        Keeps the divisor from zero; at least 0.
    weight_decay : float
        The share of the parameters that a step takes away, in units of ``lr``; at least 0.

    Returns
    -------
    params : Params
    state : AdamState

    Raises
    ------
    ValueError, TypeError
        As ``sgd_step`` does; and if another number is out of its range.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> params = np.asarray([1.0, 2.0])
    >>> params, state = nn.adam_step(params, np.asarray([1e-3, -1e3]), nn.adam_init(params), lr=0.1)
    >>> np.round(params, 3), state.steps
    (array([0.9, 2.1]), array(1))
    """
    if not isinstance(state, AdamState):
        raise TypeError(f"state is {brief(state)}, but must be what adam_init or the step before returned")
    beta1, beta2 = _number("beta1", beta1, below=1), _number("beta2", beta2, below=1)
    eps, weight_decay = _number("eps", eps), _number("weight_decay", weight_decay)
    steps = locked(namespace(state.steps).asarray(state.steps + 1))

    def correction(beta: float, like: Array) -> Array:
        """Return 1 - beta^t; near beta = 1, expm1 keeps digits that the power would lose."""
        xp = namespace(like)
        return -xp.expm1(xp.asarray(steps, dtype=like.dtype) * (math.log(beta) if beta else -math.inf))

    def direction(p: Array, m: Array, v: Array) -> Array:
        xp = namespace(v)
        root = xp.sqrt(correction(beta2, v))  # on numbers rather than arrays, corrections cost nothing
        step = m / (xp.sqrt(v) + eps * root) * (root / correction(beta1, v))
        return locked(step if isinstance(weight_decay, float) and weight_decay == 0 else step + weight_decay * p)

    means = combined(lambda m, g: beta1 * m + (1 - beta1) * g, state.means, grads)
    squares = combined(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.squares, grads)
    params = sgd_step(params, tree_map(direction, params, means, squares), lr)
    return params, replaced(state, steps=steps, means=means, squares=squares)


def clip_by_global_norm(grads: T, max_norm: float) -> T:
    """Shorten a gradient to at most a given norm: ``grads * min(1, max_norm / global_norm(grads))``.

    This keeps a step over the edge of a cliff from going astray (Pascanu, Mikolov & Bengio 2013, algorithm 1).

    ``grads`` may be any tree of arrays. ValueError if ``max_norm`` is negative or not finite, or there are no arrays;
    TypeError if it is no number.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.clip_by_global_norm((np.asarray([3.0]), np.asarray([4.0])), max_norm=1.0)
    (array([0.6]), array([0.8]))
    """
    max_norm = _number("max_norm", max_norm)
    unit, norm = unit_and_norm(grads)
    xp = namespace(norm)
    limit = max_norm / xp.where(norm == 0, xp.ones_like(norm), norm)
    factor = xp.minimum(unit, limit) / unit  # min(1, max_norm / (unit norm)), but this cannot overflow
    return tree_map(lambda g: locked(scalar_like(factor, g) * g), grads)


def _number(name: str, value: float, below: float = math.inf) -> float:
    value = check_scalar(name, value)
    if isinstance(value, float) and not 0 <= value < below:
        raise ValueError(f"{name} is {value}, but must be at least 0" + f" and below {below}" * (below < math.inf))
    return value


# Schedules: the learning rate as a function of the step


def warmup_cosine(
    step: Array | int, total_steps: int, peak_lr: float, warmup_steps: int = 0, final_lr: float = 0.0
) -> Any:
    """Return a learning rate that rises along a line and falls along a cosine.

    In step ``s``, ``peak_lr s / warmup_steps`` during the warm-up (Goyal et al. 2017, section 2.2); after it, with
    ``t = (s - warmup_steps) / (total_steps - warmup_steps)``, ``final_lr + (peak_lr - final_lr) (1 + cos(pi t)) / 2``
    (Loshchilov & Hutter 2017, equation 5); and ``final_lr`` from ``total_steps`` on.

    Parameters
    ----------
    step : int or array of int
        Counted from 0.
    total_steps, warmup_steps : int
        ``0 <= warmup_steps < total_steps``.
    peak_lr, final_lr : float

    Returns
    -------
    float
        An array, if ``step`` is one.

    Raises
    ------
    ValueError
        If the numbers of steps do not fit, or a rate is not finite.
    TypeError
        If something given is no number, or a number of steps no int.

    Examples
    --------
    >>> import purenn as nn
    >>> [nn.warmup_cosine(step, total_steps=6, peak_lr=1.0, warmup_steps=2) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    total_steps, warmup_steps = operator.index(total_steps), operator.index(warmup_steps)
    peak_lr, final_lr = check_scalar("peak_lr", peak_lr), check_scalar("final_lr", final_lr)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps is {warmup_steps} and total_steps {total_steps}, but 0 <= warm-up < total")
    s = as_floats(step)
    xp = namespace(s)
    progress = xp.clip((s - warmup_steps) / (total_steps - warmup_steps), 0, 1)
    falling = final_lr + (peak_lr - final_lr) * (1 + xp.cos(math.pi * progress)) / 2
    return _like(step, xp.where(s < warmup_steps, s * (peak_lr / max(warmup_steps, 1)), falling))


def exponential_decay(step: Array | int, initial_lr: float, decay_steps: int, decay_rate: float) -> Any:
    """Return a learning rate that shrinks by the same factor in every step.

    In step ``s`` it is ``initial_lr decay_rate^(s / decay_steps)``.

    ``step``, what is returned, and errors are as for ``warmup_cosine``. ValueError also if ``decay_steps`` or
    ``decay_rate`` is not positive.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.exponential_decay(20, initial_lr=0.8, decay_steps=10, decay_rate=0.5)
    0.2
    """
    decay_steps, decay_rate = operator.index(decay_steps), check_scalar("decay_rate", decay_rate)
    initial_lr = check_scalar("initial_lr", initial_lr)
    if decay_steps < 1 or not decay_rate > 0:
        raise ValueError(f"decay_steps is {decay_steps} and decay_rate {decay_rate}, but both must be positive")
    return _like(step, initial_lr * decay_rate ** (as_floats(step) / decay_steps))


def piecewise_constant(step: Array | int, boundaries: Sequence[int], values: Sequence[float]) -> Any:
    """Return a learning rate that changes at given steps: ``values[k]`` after ``k`` of the boundaries.

    ``step``, what is returned, and errors are as for ``warmup_cosine``; from a boundary on, the next value holds.
    ValueError also if the boundaries do not increase, or the values are not one more.

    Examples
    --------
    >>> import purenn as nn
    >>> [nn.piecewise_constant(step, boundaries=[10, 20], values=[0.1, 0.01, 0.001]) for step in (9, 10, 25)]
    [0.1, 0.01, 0.001]
    """
    boundaries, values = list(map(operator.index, boundaries)), [check_scalar("a value", value) for value in values]
    if len(values) != len(boundaries) + 1 or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(
            f"boundaries are {boundaries} and values {values}, but boundaries must increase, with one more value"
        )
    s = as_floats(step)
    xp = namespace(s)
    value = xp.full_like(s, values[0])
    for boundary, following in zip(boundaries, values[1:], strict=True):
        value = xp.where(s < boundary, value, following)
    return _like(step, value)


def _like(step: Any, value: Array) -> Any:
    return locked(value) if is_array(step) else float(value)


# When to stop


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
        If ``patience`` is not an int, or a loss no real number.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.converged([3.0, 1.0, 2.0, 1.5], patience=2), nn.converged([3.0, 1.0, 2.0, 0.5], patience=2)
    (True, False)
    """
    patience = operator.index(patience)
    if patience < 1:
        raise ValueError(f"patience is {patience}, but must be at least 1")
    values = []
    for loss in losses:
        if is_array(loss):
            check_real(loss)  # float would drop an imaginary part
        values.append(math.inf if math.isnan(loss) else float(loss))
    return len(values) > patience and min(values[-patience:]) >= min(values[:-patience])
