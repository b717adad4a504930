"""How do records become JAX pytrees? Importing this module makes all of them such, those yet to be defined as well.

The functions of purenn then run as they are under ``jax.jit``, ``jax.grad``, ``jax.vmap`` and ``jax.lax.scan``.
``tree_map(jax.numpy.asarray, params)`` moves a network to JAX, ``tree_map(numpy.asarray, params)`` back.

>>> import jax, numpy as np, purenn as nn, purenn.jax
>>> params = nn.tree_map(jax.numpy.asarray, nn.init(0, sizes=(4, 3), activations=[nn.softmax]))
>>> jax.jit(nn.grads)(params, jax.numpy.ones((2, 4)), jax.numpy.asarray([0, 2]))
Params(layers=(
    Dense(weights=f32[4,3], biases=f32[3], activation=softmax),
))
"""

from collections.abc import Iterable
from typing import Any

from purenn.records import for_every_record
from purenn.trees import restored

try:
    import jax
except ImportError as error:
    raise ImportError("purenn.jax needs JAX; pip install 'purenn[jax]' installs both") from error


def _register(cls: Any) -> None:
    """Make a record class a pytree: its arrays are leaves, its static fields are part of the structure."""
    children, statics = cls.__children__, cls.__statics__

    def flatten(record: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(record, name) for name in children], tuple(getattr(record, name) for name in statics)

    def flatten_with_keys(record: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, aux = flatten(record)
        return list(zip(map(jax.tree_util.GetAttrKey, children), values, strict=True)), aux

    def unflatten(aux: tuple[Any, ...], values: Iterable[Any]) -> Any:
        return restored(cls, dict(zip((*statics, *children), (*aux, *values), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


for_every_record(_register)
