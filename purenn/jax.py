"""Records as JAX pytrees, and JAX keys as seeds.

Importing this module makes every record class a pytree, also those defined later, and lets ``seeded`` take keys.
``forward``, the losses, gradients and steps then run as they are under ``jax.jit``, ``jax.grad``, ``jax.vmap`` and
``jax.lax.scan``. ``tree_map(jax.numpy.asarray, params)`` moves a network to JAX, ``tree_map(numpy.asarray, params)``
back.

>>> import jax, numpy as np, purenn as nn, purenn.jax
>>> params = nn.tree_map(jax.numpy.asarray, nn.init(0, sizes=(4, 3), activations=[nn.softmax]))
>>> jax.jit(nn.grads)(params, jax.numpy.ones((2, 4)), jax.numpy.asarray([0, 2]))
Params(layers=(
    Dense(weights=f32[4,3], biases=f32[3], activation=softmax),
))
"""

import functools
from typing import Any

import attrs

from purenn.dropout import seed_at, uniform
from purenn.records import for_every_record
from purenn.trees import kinds

try:
    import jax
except ImportError as error:
    raise ImportError("purenn.jax needs JAX; pip install 'purenn[jax]' installs both") from error


def _register(cls: Any) -> None:
    """Make a record class a pytree: its arrays are leaves, its static fields are part of the structure."""
    kind: Any = kinds[cls]
    keys = list(map(jax.tree_util.GetAttrKey, kind.fields))

    def flatten_with_keys(record: Any) -> tuple[list[tuple[Any, Any]], Any]:
        statics, trees = kind.open(record)
        return list(zip(keys, trees, strict=True)), statics

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, kind.build, lambda record: kind.open(record)[::-1])


for_every_record(_register)


@attrs.frozen(eq=False)
class Key:
    """A JAX key as the seed of a record: hashable, as static fields must be, and equal only to itself."""

    key: Any


@seed_at.register(jax.Array | jax.core.Tracer | Key)
def _seed_at(seed: Any, path: tuple[int, ...]) -> Key:
    return Key(functools.reduce(jax.random.fold_in, path, getattr(seed, "key", seed)))


uniform.register(Key, lambda seed, x: jax.random.uniform(seed.key, x.shape))
