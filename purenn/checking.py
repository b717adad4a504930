"""Checks of derivatives by differences: the gradient of any function, and the rule of any layer."""

import math
from collections.abc import Callable
from typing import Any, cast

from purenn import trees
from purenn.activations import Activation
from purenn.arguments import check_floats, check_real, describe, generator
from purenn.arrays import Array, astype, is_float, namespace
from purenn.dropout import seeded
from purenn.layers import forward, vjp
from purenn.trees import T, Tree, aligned, builder, flatten, leaf_paths, namespace_of, ravel, tree_map

STEP = math.ulp(1) ** (1 / 3)  # balances rounding and truncation in a central difference


def numerical_grads(f: Callable[[T], Any], tree: T) -> T:
    """Return the gradient of a function by central differences: slow, and independent of every derivative in purenn.

    Each entry is ``(f(p + h) - f(p - h)) / 2h`` with ``h = cbrt(eps) max(1, |p|)`` (Press et al. 2007, section 5.7),
    computed in float64. That takes two calls of ``f`` for each number in the tree. The error is about 1e-9 of the
    largest entry, except where a relu changes sides between ``p - h`` and ``p + h``. The result has the structure and
    the dtypes of ``tree``.

    Parameters
    ----------
    f : callable
        Takes a tree like ``tree``, but of float64, and returns a number, or a 0-d array.
    tree : tree
        At least one array, all of floats.

    Raises
    ------
    ValueError
        If the tree has no arrays, ``f`` does not return one number, or the array library has no float64, as JAX unless
        ``jax.config.update("jax_enable_x64", True)`` was called.
    TypeError
        If an array does not hold floats.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer, x, y = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax), np.asarray([[3.0]]), np.asarray([0])
    >>> gradient = nn.numerical_grads(lambda p: nn.loss(p, x, y), layer)
    >>> np.round(gradient.weights, 6)
    array([[-1.5,  1.5]])
    """
    xp = namespace_of(leaves := aligned(tree=tree)[0])
    for leaf in leaves:
        check_floats(leaf)
    vector, unravel = ravel(_cast(tree, float64_of(xp)))

    def value(vector: Array) -> Array:
        number = xp.asarray(f(unravel(vector)))
        check_real(number, "what f returned")
        if number.shape != ():
            raise ValueError(f"f returned {describe(number)}, but must return a number")
        return xp.astype(number, xp.float64)

    sizes, entries = STEP * xp.maximum(xp.abs(vector), 1), xp.arange(vector.shape[0])
    steps = (xp.where(entries == entry, sizes, 0) for entry in range(vector.shape[0]))
    quotients = [(value(vector + step) - value(vector - step)) / (2 * xp.sum(step)) for step in steps]
    return tree_map(lambda p, g: xp.astype(g, p.dtype), tree, unravel(xp.stack(quotients)))


def _cast(tree: T, dtype: Any) -> T:
    """Return a tree whose arrays of floats have another dtype."""
    return tree_map(lambda leaf: astype(leaf, dtype) if is_float(leaf) else leaf, tree)


def float64_of(xp: Any) -> Any:
    """Return the dtype float64 of an array library; ValueError if it has none."""
    if "float64" not in xp.__array_namespace_info__().dtypes(kind="real floating"):
        raise ValueError('differences need float64; jax.config.update("jax_enable_x64", True) switches it on')
    return xp.float64


def check_vjp(layer: trees.Layer, x: Tree) -> None:
    """Check the rule of a layer, or the pullback of an activation, against differences; raise if anything is wrong.

    For a random ``dy``, let ``s = sum(dy * forward(layer, x))``. Along a random direction ``v``, the central difference
    of ``s`` must equal ``sum(g * v)``, for each gradient ``g`` that the rule returns. A direction that crosses a kink,
    where the derivative jumps, is drawn anew; three of at most 20 must agree. This takes at least fifteen forward
    passes per array, in float64. The error allowed is ``1e-6 |g| + 1e-9 sum(|dy * y|)``, so a factor of 1.0001 is
    found. It also checks structures, shapes and dtypes, in the original dtype. The seed is fixed, so the same call
    gives the same result.

    Parameters
    ----------
    layer : any record registered with ``vjp.register``, or an Activation
    x : array
        What the layer takes: an array of any shape, or a tree of arrays. Integers and booleans have no gradient. If
        ``x`` holds only those, ``dx``, which returns the gradient of ``x``, is not called.

    Raises
    ------
    TypeError
        If the rule or the pullback does not return a pair, the gradient is of another class than the layer, or ``dx``
        is not callable.
    ValueError
        If the output is empty, not finite, or not that of ``forward``; if a gradient is wrong, or does not match the
        layer or ``x`` in structure, shape or dtype; if too many directions cross a kink, as at ``x = 0`` for relu; or
        if the array library has no float64 (see ``numerical_grads``).

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.check_vjp(nn.init(0, sizes=(4, 3), activations=[nn.softmax]), np.ones((2, 4), np.float32))
    >>> nn.check_vjp(nn.Activation("square", lambda z: z * z, lambda z, y, dy: z * dy), np.ones((1, 2)))
    Traceback (most recent call last):
    ValueError: the pullback of square gives a wrong dx: ...
    """
    is_activation = isinstance(layer, Activation)
    name = f"the pullback of {layer}" if is_activation else f"the rule of {type(layer).__name__}"
    forwards, rule = (Activation.__call__, _activation_vjp) if is_activation else (forward, cast("Any", vjp))
    floats, takes = [*filter(is_float, flatten((layer, x))[0])], [*map(is_float, flatten(x)[0])]
    xp, random = namespace_of(floats, "the layer and x"), generator(0)
    for dtype in (floats[0].dtype, float64_of(xp)):
        layer, x = _cast((layer, x), dtype)
        y, pullback = rule(layer, x)
        aligned(**{f"forward(layer, x) in {dtype}": astype(forwards(layer, x), dtype), f"y of {name}": y})
        dy = astype(xp.asarray(random.standard_normal(y.shape)), dtype)
        gradient, dx = pullback(dy)
        slope = dx() if all(takes) else tree_map(lambda a, b: b if is_float(a) else a, x, dx()) if any(takes) else x
        expected, returned = {"gradient": seeded(layer, 0), "dx": x}, {"gradient": seeded(gradient, 0), "dx": slope}
        _, slopes, _ = aligned(**{"the layer and x": expected, f"the result of {name}": returned})
    if 0 in y.shape or not xp.all(xp.isfinite(y)):
        raise ValueError(f"{name} gives y = {describe(y)}, but must give numbers, at least one, and all finite")
    noise, error = 1e-9 * float(xp.sum(xp.abs(dy * y))), float(xp.max(xp.abs(y - forwards(layer, x))))
    if not error <= noise:
        raise ValueError(f"{name} gives a wrong y: it differs from forward(layer, x) by up to {error:.3g}")
    leaves, structure = flatten({"gradient": layer, "dx": x})

    def value(k: int, change: Array) -> float:
        there = builder(structure)([*leaves[:k], leaves[k] + change, *leaves[k + 1 :]])
        return float(xp.sum(dy * forwards(there["gradient"], there["dx"])))

    for k, (path, g) in enumerate(zip(leaf_paths(structure), slopes, strict=True)):
        if is_float(g) and 0 not in g.shape:
            _check_slope(value, k, leaves[k], g, random, noise, f"{name} gives a wrong {path}")


def _activation_vjp(f: Activation, z: Array) -> Any:
    y = f(z)
    return y, lambda dy: (f, lambda: f.pullback(z, y, dy))


def _check_slope(value: Any, k: int, at: Array, g: Array, random: Any, noise: float, what: str) -> None:
    """Raise ValueError unless ``g`` is the gradient of ``value(k, change)``, where the change is added to ``at``."""
    xp, norm = namespace(g), float(trees.global_norm(g))
    if not math.isfinite(norm):
        raise ValueError(f"{what}: it is not finite")
    tolerance, agreements = noise + 1e-6 * norm, 0
    for draw in range(20):  # with ever smaller steps, in case kinks or strong curvature are near
        h = STEP * max(0.5**draw * float(xp.max(xp.abs(at))), 0.5 ** min(draw, 2))
        v = xp.asarray(random.standard_normal(g.shape))
        a, b, c, d, e = (value(k, s * h * v) for s in (-1, -0.5, 0, 0.5, 1))
        expected, given = (e - a) / (2 * h), float(xp.sum(g * v))
        # The third difference shows strong curvature, the fourth a kink; both vanish for a smooth function and small h.
        smooth = max(abs(e - 2 * d + 2 * b - a), abs(e - 4 * d + 6 * c - 4 * b + a)) / h <= tolerance
        agrees = abs(given - expected) <= tolerance
        if smooth and not agrees:
            raise ValueError(f"{what}: {given:.6g} along a random direction, but differences give {expected:.6g}")
        if (agreements := agreements + agrees) == 3:
            return
    raise ValueError(f"{what}, or x is too close to kinks; take fewer examples, or values of x that are apart")
