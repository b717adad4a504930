"""float16 and bfloat16, under JAX: means and steps are those of float64, within the precision of the short dtype."""

import numpy as np
import pytest

import purenn as nn
from tests.strategies import OUTPUTS, relative_error, targets

jax = pytest.importorskip("jax", reason="JAX is an extra")
import jax.numpy as jnp  # noqa: E402

import purenn.jax  # noqa: E402

DTYPES = ("float16", "bfloat16")
COUNTS = (1, 7, 1000, 30_000, 70_000, 100_000)


def close(short, exact, dtype, room=0.0):
    """Whether all numbers of a tree are float64 ones, rounded; ``room`` is what may be lost before the rounding."""
    info, room = jnp.finfo(dtype), nn.tree_map(lambda _: room, exact) if isinstance(room, float) else room
    for ours, theirs, lost in zip(*map(nn.tree_leaves, (short, exact, room)), strict=True):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs)
        allowed = float(info.eps) * 0.501 * abs(theirs) + float(info.smallest_subnormal) + lost
        assert (abs(ours - theirs) <= allowed).all(), (abs(ours - theirs) / allowed).max()


def shortened(tree, dtype):
    return nn.tree_map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def exactly(tree):
    return nn.tree_map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("n", "soft", "weighted"), [(1, False, False), (70_000, True, False), (100_000, False, True)])
def test_means_over_examples(dtype, output, n, soft, weighted):
    """Of small integers, which any float holds exactly up to the logits."""
    random = np.random.default_rng(n)
    params = nn.init(0, (3, 3, 2), (nn.relu, output), dtype="float64")
    params = nn.tree_map(lambda p: random.integers(-2, 3, p.shape).astype(float), params)
    x, y = random.integers(-1, 2, (n, 3)).astype(float), targets(random, params, n, soft)
    weights = random.integers(0, 3, n) if weighted else None
    there, batch = shortened(params, dtype), (jnp.asarray(x, dtype), y, weights)
    value, gradient = nn.loss_and_grads(there, *batch)
    assert value.dtype == gradient.layers[0].weights.dtype == jnp.dtype(dtype)
    expected_value, expected = nn.loss_and_grads(params, x, y, weights)
    for ours in (value, nn.loss(there, *batch)):
        close(ours, expected_value, dtype, room=1e-6)
    # sums over float16 are computed in float32; in bfloat16, each layer rounds every summand
    room = (1e-5 if dtype == "float16" else float(jnp.finfo(dtype).eps)) * summands(params, x, y, weights)
    for ours in (gradient, jax.jit(nn.grads)(there, *batch)):
        close(ours, expected, dtype, room)
    if output != nn.identity:
        close(nn.accuracy(there, *batch), nn.accuracy(params, x, y, weights), dtype, room=1e-6)


def summands(params, x, y, weights):
    """The gradient, but with the magnitude of each summand."""
    dz = abs(nn.inspect(params, x, y).rows[-1].output_gradient)
    dz = dz if weights is None else dz * (len(x) * weights / weights.sum())[:, None]
    linear = [nn.Dense(abs(layer.weights), abs(layer.biases), nn.identity) for layer in params.layers]
    sums = nn.logits_vjp(nn.Params(tuple(linear)), abs(x))[1](dz)[0]
    return nn.ravel(params)[1](nn.ravel(sums)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", COUNTS)
def test_norms_and_inner_products(dtype, n):
    random = np.random.default_rng(n)
    for size in (1e-4, 1.0, 1e4):
        tree = shortened((size * random.random(n), size * random.random((2, 3))), dtype)
        for where in (tree, nn.tree_map(np.asarray, tree)) if dtype == "float16" else (tree,):
            exact = exactly(where)
            assert nn.global_norm(where) == pytest.approx(nn.global_norm(exact), rel=1e-5)
            assert nn.vdot(where, where) == pytest.approx(nn.vdot(exact, exact), rel=1e-5)
            close(nn.clip_by_global_norm(where, size), nn.clip_by_global_norm(exact, size), dtype)


def test_the_errors_of_many_examples_may_cancel():
    params = nn.Dense(np.zeros((1, 2)), np.log([0.7, 0.3]), nn.softmax)
    x, y = np.ones((100_000, 1)), (np.arange(100_000) % 10 >= 7).astype(int)
    for dtype in DTYPES:
        there = shortened(params, dtype)
        exact = nn.grads(exactly(there), x, y)  # from the rounded biases, far smaller than any example's error
        assert 1e-5 < abs(exact.biases[0]) < 1e-3
        close(nn.grads(there, jnp.asarray(x, dtype), y), exact, dtype, room=1e-6)


@nn.record
class ByJax(nn.Vector):
    """A layer whose rule is made by ``jax.vjp``, which takes a gradient of the dtype of the output only."""

    factors: nn.Array


@nn.vjp.register
def by_jax_vjp(layer: ByJax, x):
    y, pullback = jax.vjp(lambda layer, x: x * layer.factors, layer, x)
    return y, lambda dy: (pullback(dy)[0], lambda: pullback(dy)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_of_users_get_gradients_of_the_dtype_of_their_output(dtype):
    first, last = nn.init(0, (3, 4, 2), (nn.tanh, nn.softmax)).layers
    tanh = nn.Activation("tanh by jax", jnp.tanh, lambda z, y, dy: jax.vjp(jnp.tanh, z)[1](dy)[0])
    theirs = nn.Params((ByJax(np.ones(3, np.float32)), nn.Dense(first.weights, first.biases, tanh)))
    network = nn.seeded(shortened(nn.Params((theirs, nn.Dropout(0.5), last)), dtype), 1)
    ours = nn.seeded(shortened(nn.Params((nn.Params((nn.Dropout(0.0), first)), nn.Dropout(0.5), last)), dtype), 1)
    x, y = jnp.asarray(np.random.default_rng(0).random((5, 3)), dtype), np.asarray([0, 1, 1, 0, 1])
    for rule in (nn.grads, jax.jit(nn.grads)):
        gradient, expected = rule(network, x, y), nn.grads(ours, x, y)
        assert {leaf.dtype for leaf in nn.tree_leaves(gradient)} == {jnp.dtype(dtype)}
        pairs = (gradient.layers[0].layers[1], expected.layers[0].layers[1]), (gradient.layers[2], expected.layers[2])
        for a, b in pairs:
            assert relative_error(a, b) < 2 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_with_momentum_are_scanned_from_zeros_of_float32(dtype):
    params = shortened(np.ones(3), dtype)
    start = nn.tree_map(lambda p: p.astype("float32"), nn.zeros_like(params))

    def step(carry, _):
        return nn.momentum_step(carry[0], carry[0], carry[1], 0.01, momentum=0.99), None

    (scanned, velocity), _ = jax.lax.scan(step, (params, start), length=5)
    looped, v = params, nn.zeros_like(params)
    for _ in range(5):
        looped, v = nn.momentum_step(looped, looped, v, 0.01, momentum=0.99)
    assert (scanned == looped).all() and velocity.dtype == v.dtype == "float32"


def test_a_target_that_overflows_the_parameters_is_refused():
    params = shortened(nn.Dense(np.zeros((1, 1)), np.zeros(1), nn.identity), "float16")
    x = jnp.ones((3, 1), "float16")
    nn.loss(params, x, np.asarray([[65504.0], [0], [-65504]]))
    for value in (7e4, 10**6, -1e30, np.float32(1e5)):
        with pytest.raises(ValueError, match=r"y has 1 values that are NaN or infinite in float16, in the rows \[1\]"):
            nn.grads(params, x, np.asarray([[1.0], [value], [2]]))


def test_small_errors_of_many_examples_do_not_underflow():
    """A network that is nearly right: each example's share of the gradient is far below what float16 holds."""
    n = 100_000
    params = nn.Params((nn.Dense(np.eye(2), np.zeros(2), nn.tanh), nn.Dense(np.eye(2), [8.0, 0.0], nn.softmax)))
    x, y = np.ones((n, 2)), np.zeros(n, int)
    gradient, exact = nn.grads(shortened(params, "float16"), jnp.asarray(x, "float16"), y), nn.grads(params, x, y)
    assert 1e-4 < exact.layers[0].weights[0, 0] * -1 < 1e-3
    close(gradient, exact, "float16", room=2e-6)  # tanh is rounded, too


# 100 steps of each optimizer, with gradients from 1e-7 to 1e3 and beside them some of 0


def run(step, state, dtype, gradients, params):
    for gradient in gradients:
        params, state = step(params, gradient, state)
    return params, state


STEPS = {
    "sgd": (lambda p, g, _: (nn.sgd_step(p, g, 1e-3), None), lambda _: None),
    "momentum": (lambda p, g, v: nn.momentum_step(p, g, v, 1e-3), nn.zeros_like),
    "nesterov": (lambda p, g, v: nn.momentum_step(p, g, v, 1e-3, nesterov=True), nn.zeros_like),
    "adam": (lambda p, g, s: nn.adam_step(p, g, s, 1e-3), nn.adam_init),
    "adamw": (lambda p, g, s: nn.adam_step(p, g, s, 1e-3, weight_decay=0.1), nn.adam_init),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STEPS)
def test_100_steps(name, dtype):
    """They end where those of float64 do, but for one rounding of the parameters in each step."""
    step, start = STEPS[name]
    random, eps = np.random.default_rng(1), 0.501 * float(jnp.finfo(dtype).eps)
    params = shortened((random.standard_normal(40), random.standard_normal((3, 4)), np.zeros(40)), dtype)
    exact, room = exactly(params), nn.zeros_like(exactly(params))
    state, exact_state = start(params), start(exact)
    for _ in range(100):
        sizes = 10.0 ** random.uniform(-7, 3, 40) * random.integers(0, 2, 40)
        gradient = shortened((sizes, random.standard_normal((3, 4)), -sizes), dtype)
        params, state = step(params, gradient, state)
        exact, exact_state = step(exact, exactly(gradient), exact_state)
        close(params, exact, dtype, room)
        room = nn.tree_map(lambda r, p: r + eps * abs(p) + 1e-7, room, exact)
    assert all(leaf.dtype == "float32" for leaf in nn.tree_leaves(state) if leaf.ndim)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_decay_is_rounded_once(dtype):
    params = shortened(np.random.default_rng(0).standard_normal(1000), dtype)
    gradient = shortened(1e-3 * np.random.default_rng(1).standard_normal(1000), dtype)
    after, state = nn.adam_step(params, gradient, nn.adam_init(params), 1e-3, weight_decay=0.4)
    exact = exactly(params)
    close(after, nn.adam_step(exact, exactly(gradient), nn.adam_init(exact), 1e-3, weight_decay=0.4)[0], dtype)
    assert nn.adam_init(params).means.dtype == nn.adam_init(params).squares.dtype == state.means.dtype == "float32"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_of_records_is_divided_by_any_count(dtype):
    record = shortened(nn.Dense(np.full((2, 2), 6e4), np.ones(2), nn.tanh), dtype)
    close((1e-5 * record, record / 100_000), (1e-5 * exactly(record), exactly(record) / 100_000), dtype)
    assert (record / 100_000).weights[0, 0] > 0.5 and (1e-5 * record).weights[0, 0] > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_short_state_of_adam_is_taken_and_grows_to_float32(dtype):
    params = shortened(np.ones(3), dtype)
    old = nn.AdamState(jnp.asarray(0), params * 0, params * 0)
    after, state = nn.adam_step(params, params, old, 0.1)
    expected, same = nn.adam_step(params, params, nn.adam_init(params), 0.1)
    assert (after == expected).all() and state == same and state.means.dtype == "float32"
    with pytest.raises(ValueError, match="grads differs from params: f32"):
        nn.adam_step(params, params.astype("float32"), old, 0.1)
