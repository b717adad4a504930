"""Dropout, the layer that is random in training, and the seeds that a training step gives to such layers.

It is registered like your own layers; no other rule depends on it.
"""

import functools
from typing import Any, cast

import attrs

from purenn.arguments import as_seed, check_floats, check_number, generator
from purenn.arrays import Array, Seed, astype, lock_in_place, namespace
from purenn.layers import Pullback, vjp
from purenn.records import is_record, record
from purenn.trees import T, fields_of, kinds


@record
class Dropout:
    """A layer that sets each input to zero with probability ``rate``, and scales the others up to keep the mean.

    ``y = x * mask / (1 - rate)``, where ``mask`` is 0 with probability ``rate``, else 1 (Srivastava et al. 2014,
    section 10); ``x`` may have any shape. The mask comes from the seed; without a seed, ``y = x``. Give every training
    step a new seed with ``seeded``; gradients have the structure of the network without seeds.

    Attributes
    ----------
    rate : float
        At least 0 and below 1.
    seed : int, tuple of int, or None
        Set by ``seeded``.

    Raises
    ------
    ValueError
        If the rate is out of its range, or the seed is not valid.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.forward(nn.Dropout(0.5), np.ones((1, 8)))
    array([[1., 1., 1., 1., 1., 1., 1., 1.]])
    >>> nn.forward(nn.seeded(nn.Dropout(0.5), 1), np.ones((1, 8)))
    array([[2., 0., 0., 2., 2., 2., 2., 0.]])
    """

    rate: float = attrs.field(converter=functools.partial(check_number, "rate"))
    seed: Seed | None = None

    def __attrs_post_init__(self) -> None:
        check_number("rate", self.rate, least=0, below=1)
        if self.seed is not None:
            seed_at(self.seed, ())


@vjp.register
def _dropout_vjp(layer: Dropout, x: Array) -> tuple[Array, Pullback]:
    check_floats(x, "x")
    scale = 1.0 if layer.seed is None else astype(uniform(layer.seed, x) >= layer.rate, x.dtype) / (1 - layer.rate)
    return lock_in_place(x * scale), lambda dy: (Dropout(layer.rate), lambda: lock_in_place(dy * scale))


@functools.singledispatch
def uniform(seed: Any, x: Array) -> Array:
    """Return float32 numbers in [0, 1) of the shape of ``x``, from the seed alone. ``purenn.jax`` adds JAX keys."""
    return namespace(x).asarray(generator(seed).random(x.shape, dtype="float32"))


@functools.singledispatch
def seed_at(seed: Any, path: tuple[int, ...]) -> Any:
    """Return the seed of the record at a place in a network; ValueError if the seed is not valid."""
    ints = as_seed(seed)
    return (*ints, *path) if path else seed


def seeded(layer: T, seed: Seed | Array) -> T:
    """Return a copy of a layer or network in which each record with a field ``seed`` has a seed.

    Each record gets a seed of its own: the given seed, followed by the place of the record in the network. A training
    step then reads ``sgd_step(params, grads(seeded(params, (0, step)), x, y), lr)``. The same seed gives the same
    masks; use a new seed for every step. The parameters themselves never have a seed, so ``forward(params, x)`` applies
    no dropout.

    Parameters
    ----------
    layer : Params, or any other layer
    seed : int, tuple of int, or JAX key
        Under ``jax.jit``, ints are constants of the compiled code, so every new seed compiles again. A key of
        ``jax.random`` is not, after ``import purenn.jax``: pass the key to the compiled function, and call ``seeded``
        inside it. ``jax.random.fold_in`` gives each record a key of its own, ``seed.key``, which draws the mask
        for an ``x`` of JAX.

    Raises
    ------
    ValueError
        If ``seed`` is not an int of at least 0, or a tuple of such ints; JAX raises TypeError for an array that is not
        a key.

    Examples
    --------
    >>> import purenn as nn
    >>> nn.seeded(nn.Params((nn.Dropout(0.2), nn.Dropout(0.5))), (0, 7))
    Params(layers=(
        Dropout(rate=0.2, seed=(0, 7, 0, 0)),
        Dropout(rate=0.5, seed=(0, 7, 0, 1)),
    ))
    """
    return cast("T", _seeded(layer, seed_at(seed, ()), ()))


def _seeded(layer: Any, seed: Any, path: tuple[int, ...]) -> Any:
    if (kind := kinds[type(layer)]) is None:
        return layer
    detail, children = kind.open(layer)
    new: Any = kind.build(detail, [_seeded(child, seed, (*path, k)) for k, child in enumerate(children)])
    return attrs.evolve(new, seed=seed_at(seed, path)) if is_record(new) and "seed" in fields_of(new) else new
