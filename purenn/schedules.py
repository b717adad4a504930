"""Schedules: the learning rate as a function of the step; and when to stop."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from purenn.arguments import as_floats, as_int, check_number, check_real
from purenn.arrays import Array, is_array, lock_in_place, namespace


def warmup_cosine(
    step: Array | int, peak_lr: float, total_steps: int, warmup_steps: int = 0, final_lr: float = 0.0
) -> float | Array:
    """Return a learning rate that rises linearly and then falls along a cosine.

    In step ``s``, ``peak_lr s / warmup_steps`` during the warm-up (Goyal et al. 2017, section 2.2); after it, with
    ``t = (s - warmup_steps) / (total_steps - warmup_steps)``, ``final_lr + (peak_lr - final_lr) (1 + cos(pi t)) / 2``
    (Loshchilov & Hutter 2017, equation 5); and ``final_lr`` from ``total_steps`` on.

    Parameters
    ----------
    step : int or array of int
        Counted from 0; a negative step counts as 0. For an array, an array of rates is returned.
    peak_lr, final_lr : float
    total_steps, warmup_steps : int
        ``0 <= warmup_steps < total_steps``.

    Raises
    ------
    ValueError
        If the numbers of steps do not fit, or a rate is not finite.
    TypeError
        If a rate is not a number, or a number of steps is not an int.

    Examples
    --------
    >>> import purenn as nn
    >>> [nn.warmup_cosine(step, peak_lr=1.0, total_steps=6, warmup_steps=2) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    total_steps, warmup_steps = as_int("total_steps", total_steps), as_int("warmup_steps", warmup_steps)
    peak_lr, final_lr = check_number("peak_lr", peak_lr), check_number("final_lr", final_lr)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps is {warmup_steps} and total_steps {total_steps}; need 0 <= warmup < total")
    s = _as_steps(step)
    xp = namespace(s)
    progress = xp.clip((s - warmup_steps) / (total_steps - warmup_steps), 0, 1)
    falling = final_lr + (peak_lr - final_lr) * (1 + xp.cos(math.pi * progress)) / 2
    return _like(step, xp.where(s < warmup_steps, s * (peak_lr / max(warmup_steps, 1)), falling))


def exponential_decay(step: Array | int, initial_lr: float, decay_steps: int, decay_rate: float) -> float | Array:
    """Return a learning rate that shrinks by the same factor in every step: ``initial_lr decay_rate^(step /
    decay_steps)``.

    Steps and rates are those of ``warmup_cosine``. Raises ValueError if ``decay_steps`` or ``decay_rate`` is not
    positive.

    >>> import purenn as nn
    >>> nn.exponential_decay(20, initial_lr=0.8, decay_steps=10, decay_rate=0.5)
    0.2
    """
    decay_steps, decay_rate = as_int("decay_steps", decay_steps, least=1), check_number("decay_rate", decay_rate)
    initial_lr = check_number("initial_lr", initial_lr)
    if not decay_rate > 0:
        raise ValueError(f"decay_rate is {decay_rate}, but must be positive")
    return _like(step, initial_lr * decay_rate ** (_as_steps(step) / decay_steps))


def piecewise_constant(step: Array | int, values: Sequence[float], boundaries: Sequence[int]) -> float | Array:
    """Return a learning rate that changes at given steps: ``values[k]`` after ``k`` of the boundaries.

    From a boundary on, the next value holds. Steps and rates are those of ``warmup_cosine``. Raises ValueError if the
    boundaries do not increase, or ``values`` is not one longer.

    >>> import purenn as nn
    >>> [nn.piecewise_constant(step, values=[0.1, 0.01, 0.001], boundaries=[10, 20]) for step in (9, 10, 25)]
    [0.1, 0.01, 0.001]
    """
    boundaries = [as_int("a boundary", boundary) for boundary in boundaries]
    values = [check_number("a value", value) for value in values]
    if len(values) != len(boundaries) + 1 or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries are {boundaries}, values {values}; boundaries must increase, with one more value")
    s = rate = _as_steps(step)  # a step that is NaN is not at least 0, and stays
    for start, value in zip([0, *boundaries], values, strict=True):
        rate = namespace(s).where(s >= start, value, rate)
    return _like(step, rate)


def _as_steps(step: Array | int) -> Array:
    s = as_floats(step, "step")
    return namespace(s).maximum(s, 0)


def _like(step: Any, value: Array) -> Any:
    return lock_in_place(value) if is_array(step) else float(value)


def converged(losses: Iterable[float], patience: int = 5) -> bool:
    """Tell whether none of the last ``patience`` losses is lower than the lowest loss before them.

    This is early stopping with patience (Goodfellow, Bengio & Courville 2016, algorithm 7.1), for losses on validation
    data, the oldest first. A loss that is NaN counts as infinite. With at most ``patience`` losses, it is False.

    Raises ValueError if ``patience`` is not positive; TypeError if it is not an int, or a loss is not a real number.

    >>> import purenn as nn
    >>> nn.converged([3.0, 1.0, 2.0, 1.5], patience=2), nn.converged([3.0, 1.0, 2.0, 0.5], patience=2)
    (True, False)
    """
    patience = as_int("patience", patience, least=1)
    losses = list(losses)
    for loss in filter(is_array, losses):
        check_real(loss, "loss")  # float would drop an imaginary part
    values = [math.inf if math.isnan(loss) else float(loss) for loss in losses]
    return len(values) > patience and min(values[-patience:]) >= min(values[:-patience])
