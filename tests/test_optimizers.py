"""Steps, their states, and clipping: formulas, laws, and independent oracles."""

import importlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import networks, seeds

STEPS = 100


def walk(step, state, seed=0, dtype=np.float64):
    """Take many steps down a bowl with noise, and return the parameters after each."""
    random = np.random.default_rng(seed)
    params = nn.init(seed, (4, 3, 2), (nn.tanh, nn.softmax), dtype)
    state, path = state(params), []
    for number in range(STEPS):
        gradient = nn.tree_map(lambda p: p + 0.1 * random.standard_normal(p.shape).astype(dtype), params)
        params, state = step(params, gradient, state, number)
        path.append((gradient, params))
    return path


def momentum(**options):
    return lambda params, gradient, velocity, _: nn.momentum_step(params, gradient, velocity, lr=0.1, **options)


def adam(params, gradient, state, _):
    return nn.adam_step(params, gradient, state, lr=0.1, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.02)


PATHS = {
    "momentum": (momentum(), nn.zeros_like),
    "nesterov": (momentum(momentum=0.7, nesterov=True), nn.zeros_like),
    "adam": (adam, nn.adam_init),
}


@pytest.mark.parametrize("name", PATHS)
def test_steps_agree_with_optax(name):
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    jnp = pytest.importorskip("jax.numpy")
    importlib.import_module("purenn.jax")
    with jax.enable_x64(True):
        optimizer = {
            "momentum": optax.sgd(0.1, momentum=0.9),
            "nesterov": optax.sgd(0.1, momentum=0.7, nesterov=True),
            "adam": optax.adamw(0.1, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.02),
        }[name]
        there = nn.tree_map(jnp.asarray, nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax), "float64"))
        state = optimizer.init(there)
        for gradient, params in walk(*PATHS[name]):
            updates, state = optimizer.update(nn.tree_map(jnp.asarray, gradient), state, there)
            there = optax.apply_updates(there, updates)
            nn.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), params, there)


def test_adam_is_its_formula():
    (g1, p1), (g2, p2), *_ = walk(*PATHS["adam"])
    start = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax), "float64")
    for p0, a, q1, b, q2 in zip(*map(nn.tree_leaves, (start, g1, p1, g2, p2)), strict=True):
        np.testing.assert_allclose(q1, p0 - 0.1 * (a / (np.abs(a) + 1e-6) + 0.02 * p0), rtol=1e-12)
        m, v = (0.8 * 0.2 * a + 0.2 * b) / (1 - 0.8**2), (0.99 * 0.01 * a**2 + 0.01 * b**2) / (1 - 0.99**2)
        np.testing.assert_allclose(q2, q1 - 0.1 * (m / (np.sqrt(v) + 1e-6) + 0.02 * q1), rtol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_steps_of_float32_stay_close_and_float32(name):
    single, double = (walk(*PATHS[name], dtype=dtype)[-1][1] for dtype in (np.float32, np.float64))
    for ours, exact in zip(nn.tree_leaves(single), nn.tree_leaves(double), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, atol=1e-3)


def test_with_no_memory_they_are_simpler_steps():
    params = nn.init(0, (4, 3), [nn.softmax])
    gradient = 2 * params
    plain = nn.sgd_step(params, gradient, 0.1)
    for nesterov in (False, True):
        assert nn.momentum_step(params, gradient, params, 0.1, momentum=0, nesterov=nesterov) == (plain, gradient)
    signs, _ = nn.adam_step(params, gradient, nn.adam_init(params), 0.1, beta1=0, beta2=0, eps=1e-12)
    for ours, p in zip(nn.tree_leaves(signs), nn.tree_leaves(params), strict=True):
        np.testing.assert_allclose(ours, p - 0.1 * np.sign(p), rtol=1e-5)


@given(networks(), seeds, st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction_and_bounds_the_norm(params, seed, max_norm):
    random = np.random.default_rng(seed)
    gradient = nn.tree_map(lambda p: (10 * random.standard_normal(p.shape)).astype(p.dtype), params)
    norm, clipped = nn.global_norm(gradient), nn.clip_by_global_norm(gradient, max_norm)
    expected = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in nn.tree_leaves(gradient)]).astype(float))
    assert norm == pytest.approx(expected, rel=1e-5)
    assert nn.global_norm(clipped) <= max_norm * (1 + 1e-5)
    if norm <= max_norm:
        assert clipped == gradient
    else:
        assert nn.vdot(clipped, gradient) == pytest.approx(max_norm * norm, rel=1e-4)


def test_norms_of_extreme_numbers():
    for huge in (np.float32(3e38), np.float64(1e308)):
        tree = (np.full(4, huge), np.zeros((0, 2), huge.dtype))
        assert nn.global_norm((tree[0] / 4, tree[1])) == pytest.approx(huge / 2)
        assert nn.global_norm(nn.clip_by_global_norm((tree[0] / 4, tree[1]), 1.0)) == pytest.approx(1)
    assert nn.global_norm(np.zeros(3)) == nn.global_norm((np.zeros((0, 3)),)) == 0
    assert nn.global_norm(np.full(4, 1e-200)) == pytest.approx(2e-200, abs=0)
    tiny = np.full(4, 1e-45, np.float32)
    assert np.array_equal(nn.clip_by_global_norm(tiny, 1.0), tiny)
    assert nn.global_norm(nn.clip_by_global_norm(np.full(4, 1.7e308), 1.0)) == pytest.approx(1)
    assert nn.clip_by_global_norm((np.zeros(3),), 0.0)[0].tolist() == [0, 0, 0]
    assert nn.global_norm(np.asarray([1.0, np.inf])) == np.inf
    assert np.isnan(nn.global_norm(np.asarray([1.0, np.nan])))
    assert np.isnan(nn.clip_by_global_norm(np.asarray([1.0, np.nan]), 1.0)).all()


def momentum_of(*arguments):
    return nn.momentum_step(*arguments, nesterov=True)


@given(networks(), seeds)
@pytest.mark.parametrize("step", [nn.sgd_step, momentum_of, nn.adam_step])
def test_a_tree_of_rates_is_a_rate_for_each_array(step, params, seed):
    random = np.random.default_rng(seed)
    gradient = nn.tree_map(lambda p: random.standard_normal(p.shape).astype(p.dtype), params)
    state = {nn.sgd_step: (), momentum_of: (0 * params,), nn.adam_step: (nn.adam_init(params),)}[step]
    rates = nn.tree_map(lambda p: float(random.random()), params)
    decays = nn.tree_map(lambda p: float(p.ndim == 2), params)
    extra = {"weight_decay": decays} if step is nn.adam_step else {}
    after = step(params, gradient, *state, rates, **extra)
    after = after[0] if state else after
    for place, (lr, decay) in enumerate(zip(nn.tree_leaves(rates), nn.tree_leaves(decays), strict=True)):
        extra = {"weight_decay": decay} if step is nn.adam_step else {}
        alone = step(params, gradient, *state, lr, **extra)
        assert np.array_equal(nn.tree_leaves(after)[place], nn.tree_leaves(alone)[place])
    same = step(params, gradient, *state, nn.tree_map(lambda p: 0.1, params))
    assert same == step(params, gradient, *state, 0.1)
    frozen = step(params, gradient, *state, nn.tree_map(lambda p: np.asarray(0), params))
    assert (frozen[0] if state else frozen) == params


def test_the_state_of_adam_counts_in_64_bits_everywhere(monkeypatch):
    params = nn.init(0, (3, 2), [nn.softmax])
    monkeypatch.setattr(np, "asarray", lambda value, dtype=np.int32, original=np.asarray: original(value, dtype))
    state = nn.adam_init(params)  # where the integers of the platform have 32 bits
    monkeypatch.undo()
    assert state.steps.dtype == nn.adam_step(params, params, state, 0.1)[1].steps.dtype == np.int64
    assert state == nn.adam_init(params) == nn.AdamState(np.int32(0), 0 * params, 0 * params)
    _, state = nn.adam_step(np.ones(2), np.ones(2), nn.adam_init(np.ones(2)), 0.1)
    assert repr(state).startswith("AdamState(steps=1, ")


def test_adam_keeps_its_digits_where_beta_is_near_1():
    p, g = np.asarray([1.0]), np.asarray([0.5])
    for beta in (1 - 1e-12, 0.999, 0.5, 0.0):
        after, _ = nn.adam_step(p, g, nn.adam_init(p), 0.1, beta1=beta, beta2=beta, eps=0.0)
        np.testing.assert_allclose(after, p - 0.1, rtol=1e-3 if beta > 0.9999 else 1e-12)


def test_the_fold_learns():
    data = nn.mnist.digits()
    params = nn.init(0, (64, 32, 10), (nn.tanh, nn.softmax))
    before = nn.loss(params, data.train_images, data.train_labels)
    for epoch in range(5):
        for xb, yb in nn.batches((0, epoch), data.train_images, data.train_labels, batch_size=32):
            params = nn.sgd_step(params, nn.grads(params, xb, yb), lr=0.3)
    assert before > 2.2 > 0.3 > nn.loss(params, data.train_images, data.train_labels)
    assert nn.accuracy(params, data.test_images, data.test_labels) > 0.85


@given(seeds)
def test_a_step_is_its_formula(seed):
    random = np.random.default_rng(seed)
    p, g = random.standard_normal((2, 3, 4))
    np.testing.assert_allclose(nn.sgd_step((p,), (g,), lr=0.3)[0], p - 0.3 * g, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(nn.sgd_step(p, g, lr=np.asarray(0.3)), p - 0.3 * g, rtol=1e-12, atol=1e-15)


def test_states_are_values():
    params = nn.init(0, (3, 2), [nn.softmax])
    _, state = nn.adam_step(params, params, nn.adam_init(params), 0.1)
    assert pickle.loads(pickle.dumps(state)) == state != nn.adam_init(params)
    assert state.steps == 1
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(state))
    assert "steps=1, means=Params(layers=(" in repr(state)


# Small arrays are joined: nothing of it may be seen


@nn.record
class Parts(nn.Vector):
    first: nn.Array
    others: nn.Tree
    name: str = "parts"


SIZES = [(), (0,), (3, 0), (1,), (7,), (5, 4), (2, 3, 4), (60, 50), (100, 90)]


@st.composite
def mixed_trees(draw):
    """Trees of records, tuples and arrays of many shapes, sometimes of two dtypes, sometimes in columns."""
    random, both = np.random.default_rng(draw(seeds)), draw(st.booleans())
    dtypes = draw(st.permutations([np.float32, np.float64]))[: 1 + both]

    def array(shape, in_columns):
        values = random.standard_normal(shape).astype(dtypes[random.integers(len(dtypes))])
        return np.asfortranarray(values) if in_columns else values

    arrays = st.builds(array, st.sampled_from(SIZES), st.booleans())

    def nodes(children):
        several = st.lists(children, min_size=1, max_size=4).map(tuple)
        return several | st.builds(Parts, arrays, several) | several.map(lambda trees: (*trees, None))

    return draw(st.recursive(arrays, nodes, max_leaves=20))


def noise(tree, random):
    return nn.tree_map(
        lambda p: (random.standard_normal(p.shape) * 10.0 ** random.integers(-3, 3)).astype(p.dtype), tree
    )


WALKS = {  # the state at first; (params, gradient, state) -> (params, state)
    "sgd": (lambda tree: None, lambda p, g, s: (nn.sgd_step(p, g, 0.1), None)),
    "momentum": (nn.zeros_like, lambda p, g, s: nn.momentum_step(p, g, s, 0.1)),
    "nesterov": (nn.zeros_like, lambda p, g, s: nn.momentum_step(p, g, s, 0.1, 0.7, nesterov=True)),
    "adam": (nn.adam_init, lambda p, g, s: nn.adam_step(p, g, s, 0.1)),
    "adamw": (nn.adam_init, lambda p, g, s: nn.adam_step(p, g, s, 0.1, 0.8, 0.99, 1e-6, weight_decay=0.1)),
}


def exactly(array):
    return type(array), array.dtype, array.shape, array.flags.writeable, array.tobytes()


@pytest.mark.parametrize("name", WALKS)
@given(tree=mixed_trees(), seed=seeds)
def test_a_step_of_a_tree_is_the_step_of_each_array_to_the_bit(name, tree, seed):
    start, step = WALKS[name]
    random = np.random.default_rng(seed)
    gradients = [noise(tree, random) for _ in range(4)]
    params, state = tree, start(tree)
    for gradient in gradients:
        params, state = step(params, gradient, state)
    alone = [(leaf, start(leaf)) for leaf in nn.tree_leaves(tree)]
    for gradient in gradients:
        slopes = nn.tree_leaves(gradient)
        alone = [step(p, g, s) for (p, s), g in zip(alone, slopes, strict=True)]
    assert [*map(exactly, nn.tree_leaves(params))] == [exactly(p) for p, _ in alone]
    ours = nn.tree_leaves(state)
    theirs = [leaf for column in zip(*[nn.tree_leaves(s) for _, s in alone], strict=True) for leaf in column]
    count = len(ours) - isinstance(state, nn.AdamState)  # all but the number of steps
    assert [*map(exactly, ours[-count:])] == [*map(exactly, theirs[-count:])]


def walked(steps=3):
    """Parameters and a state of Adam after some steps, and a gradient."""
    params = nn.init(0, (30, 32, 32, 32, 2), (nn.tanh, nn.relu, nn.relu, nn.softmax))
    gradient, state = noise(params, np.random.default_rng(0)), nn.adam_init(params)
    for _ in range(steps):
        params, state = nn.adam_step(params, gradient, state, 0.01)
    return params, gradient, state


def apart(tree):
    return nn.tree_map(np.array, tree)


def test_a_step_takes_trees_from_anywhere():
    params, gradient, state = walked()
    expected = nn.adam_step(apart(params), gradient, apart(state), 0.01)
    assert nn.adam_step(params, gradient, state, 0.01) == expected
    assert nn.adam_step(apart(params), params, state, 0.01) == nn.adam_step(params, apart(params), apart(state), 0.01)
    assert nn.adam_step(*pickle.loads(pickle.dumps((params, gradient, state))), 0.01) == expected
    one, two, three, *rest = params.layers
    swapped = nn.Params((one, three, two, *rest))  # of the same shapes as before, but no longer in a row
    assert nn.adam_step(swapped, swapped, state, 0.01) == nn.adam_step(apart(swapped), apart(swapped), state, 0.01)
    assert nn.sgd_step(params, swapped, 0.01) == nn.sgd_step(apart(params), apart(swapped), 0.01) != expected[0]
    part = nn.sgd_step((params, params), (gradient, swapped), 0.01)  # a record within a tuple
    assert part[1] == nn.sgd_step(params, swapped, 0.01)
    other = nn.init(0, (30, 32, 2), (nn.tanh, nn.softmax))
    with pytest.raises(ValueError, match="grads differs from params at layers: tuple of 2 instead of tuple of 4"):
        nn.adam_step(params, nn.sgd_step(other, other, 0.1), state, 0.01)
    with pytest.raises(ValueError, match=r"differs from params at layers\.0\.weights: f32\[30,32\] instead of f64"):
        nn.sgd_step(nn.tree_map(lambda p: p.astype(float), params), params, 0.01)


@nn.record
class Plain:
    weights: nn.Array


@nn.record
class Mixed(Plain, nn.Vector):  # Vector takes no room of its own
    biases: nn.Array


def test_a_record_that_is_no_network_steps_like_one():
    params = Mixed(np.ones(2), np.zeros(1))
    assert nn.sgd_step(params, params, 0.5) == 0.5 * params


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("role", ["grads", "velocity", "state.means"])
def test_a_tree_of_another_structure_is_refused(role, kept):
    layers = nn.init(0, (3, 2, 2), (nn.tanh, nn.softmax)).layers
    params, other = nn.Params(layers), nn.Params((nn.Dense(layers[0].weights, layers[0].biases, nn.relu), layers[1]))
    state = nn.adam_init(other)
    if kept:
        params, (other, state) = nn.sgd_step(params, params, 0.1), nn.adam_step(other, other, state, 0.1)
    step = {
        "grads": lambda: nn.sgd_step(params, other, 0.1),
        "velocity": lambda: nn.momentum_step(params, params, other, 0.1),
        "state.means": lambda: nn.adam_step(params, params, state, 0.1),
    }[role]
    with pytest.raises(ValueError, match=rf"{role} differs from params at layers\.0: Dense\(relu,\) instead of"):
        step()
    with pytest.raises(ValueError, match="grads differs from params: list of 2 instead of tuple of 2"):
        nn.sgd_step((np.ones(2), np.ones(1)), [np.ones(2), np.ones(1)], 0.1)


def test_only_the_gradient_is_joined_anew(monkeypatch):
    params, gradient, state = walked()
    joints, concat = [], np.concat
    monkeypatch.setattr(np, "concat", lambda arrays, axis: joints.append(len(arrays)) or concat(arrays, axis=axis))
    nn.adam_step(params, gradient, state, 0.01)
    assert joints == [8]


def test_arrays_of_two_libraries_step_apart():
    jnp = pytest.importorskip("jax.numpy")
    params = (np.ones(2, np.float32), jnp.ones(2), np.ones(1, np.float32))
    gradient = (jnp.ones(2), jnp.ones(2), np.ones(1, np.float32))
    stepped = nn.sgd_step(params, gradient, 0.5)
    assert [type(leaf) for leaf in stepped] == [type(jnp.ones(2))] * 2 + [np.ndarray]
    assert all(np.array_equal(leaf, 0.5 * np.ones(leaf.shape)) for leaf in stepped)


def test_an_array_alone_is_not_copied_into_another_order():
    params = (np.asfortranarray(np.ones((200, 100))),)
    assert nn.sgd_step(params, params, 0.5)[0].flags.f_contiguous


def test_arrays_after_a_step_are_stored_one_by_one(tmp_path):
    for tree in walked():
        leaves, copies = nn.tree_leaves(tree), nn.tree_leaves(apart(tree))
        assert [len(pickle.dumps(leaf)) for leaf in leaves] == [len(pickle.dumps(copy)) for copy in copies]
        assert len(pickle.dumps(tree)) == len(pickle.dumps(apart(tree)))
        nn.save(tmp_path / "tree", tree)
        nn.save(tmp_path / "copy", apart(tree))
        assert (tmp_path / "tree").read_bytes() == (tmp_path / "copy").read_bytes()
        assert nn.load(tmp_path / "tree") == tree


def test_an_array_keeps_only_a_small_vector_alive():
    params = nn.init(0, (784, *[64] * 20, 10), [nn.tanh] * 20 + [nn.softmax], dtype="float64")
    for leaf in nn.tree_leaves(nn.sgd_step(params, params, 0.1)):
        owner = leaf if leaf.base is None else leaf.base
        assert owner.nbytes <= max(leaf.nbytes, 80_000)
        assert not owner.flags.writeable


def test_a_step_of_16_bits_is_rounded_once():
    random = np.random.default_rng(0)
    p, g = random.standard_normal((2, 2, 500)).astype(np.float16)
    stepped = nn.sgd_step((p[0], p[1]), (g[0], g[1]), 0.1)
    expected = (np.float32(-0.1) * g.astype(np.float32) + p.astype(np.float32)).astype(np.float16)
    assert np.array_equal(stepped, expected)
    assert {array.dtype for array in stepped} == {np.dtype(np.float16)}


def test_a_class_is_not_a_tree():
    params = nn.init(0, (3, 2), [nn.softmax])
    with pytest.raises(ValueError, match="grads differs from params: a leaf instead of Params"):
        nn.sgd_step(params, nn.Params, 0.1)
    with pytest.raises(TypeError, match="a leaf is a function"):
        nn.sgd_step(nn.Params, nn.Params, 0.1)
