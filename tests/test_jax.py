"""The same functions on JAX's arrays: eager, compiled, differentiated, mapped, scanned."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, NUMBERS, problems, relative_error, seeds
from tests.toys import Scale

jax = pytest.importorskip("jax", reason="needs the extra 'jax'")
jnp = pytest.importorskip("jax.numpy")
importlib.import_module("purenn.jax")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def to_jax(tree):
    return nn.tree_map(jnp.asarray, tree)


def to_numpy(tree):
    return nn.tree_map(np.asarray, tree)


def close(ours, theirs, dtype):
    assert relative_error(to_numpy(ours), theirs) < (1e-5 if dtype == np.float32 else 1e-12)


def small():
    params = nn.init(0, (4, 5, 3), (nn.relu, nn.softmax), "float64")
    x = np.random.default_rng(0).standard_normal((6, 4))
    return params, x, np.arange(6) % 3


@settings(deadline=None, max_examples=10)
@given(problems(max_width=8))
def test_numpy_eager_compiled_and_differentiated_agree(problem):
    params, x, y = problem
    dtype = x.dtype
    expected_loss, expected = nn.loss_and_grads(params, x, y)
    there = to_jax((params, x, y))
    if dtype == np.float64 and y.dtype.kind == "f":
        assert there[2].dtype == np.float64
    for value, gradient in (
        nn.loss_and_grads(*there),
        jax.jit(nn.loss_and_grads)(*there),
        jax.value_and_grad(nn.loss)(*there),
        (jax.jit(nn.loss)(*there), nn.grads(*there)),
    ):
        assert type(gradient) is nn.Params
        close((value,), (expected_loss,), dtype)
        close(gradient, expected, dtype)
    for apply in (nn.forward, jax.jit(nn.forward)):
        close((apply(*there[:2]),), (nn.forward(params, x),), dtype)


@settings(deadline=None, max_examples=10)
@given(problems(max_width=8, dtype=st.just(np.float64)), seeds)
def test_predictions_and_pullbacks_agree(problem, seed):
    params, x, y = problem
    there = to_jax((params, x, y))
    dy = np.random.default_rng(seed).standard_normal((len(x), params.fan_out))

    def gradients(params, x, dy):
        gradient, dx = nn.vjp(params, x)[1](dy)
        return gradient, dx()

    close(jax.jit(gradients)(*there[:2], dy), gradients(params, x, dy), np.float64)
    by_jax = jax.vjp(nn.forward, *there[:2])[1](dy)
    close(by_jax, gradients(params, x, dy), np.float64)
    if params.layers[-1].activation != nn.identity:
        assume(np.unique(nn.forward(params, x)).size == x.shape[0] * params.fan_out)
        assert np.array_equal(jax.jit(nn.predict)(*there[:2]), nn.predict(params, x))
        assert jax.jit(nn.accuracy)(*there) == nn.accuracy(params, x, y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_of_activations_are_those_of_jax_at_kinks_too(activation):
    z = jnp.asarray([[-3.0, -1e-9, 0.0, 0.0, 2.0, 20.0, -700.0, 700.0]])
    dy = jnp.asarray(np.random.default_rng(0).standard_normal(z.shape))
    y, pullback = jax.vjp(activation.function, z)
    np.testing.assert_allclose(activation.pullback(z, y, dy), pullback(dy)[0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(activation(np.asarray(z)), y, rtol=1e-12, atol=1e-15)
    assert np.isnan(activation(jnp.asarray([np.nan, 1.0]))[0])


STEPS = {
    "sgd": lambda p, g, s, lr, _: (nn.sgd_step(p, g, lr), s),
    "momentum": lambda p, g, s, lr, _: nn.momentum_step(p, g, s, lr, nesterov=True),
    "adam": lambda p, g, s, lr, _: nn.adam_step(p, nn.clip_by_global_norm(g, lr), s, lr, weight_decay=0.1),
    "cosine": lambda p, g, s, lr, k: (nn.sgd_step(p, g, nn.warmup_cosine(k, lr, 9, 3)), s),
    "exponential": lambda p, g, s, lr, k: (nn.sgd_step(p, g, nn.exponential_decay(k, lr, 2, 0.5)), s),
    "piecewise": lambda p, g, s, lr, k: (nn.sgd_step(p, g, nn.piecewise_constant(k, [0.1, lr, 0.3], [2, 4])), s),
    "ravel": lambda p, g, s, lr, _: (nn.ravel(p)[1](nn.ravel(p)[0] - lr * nn.ravel(g)[0]), s),
    "vectors": lambda p, g, s, lr, _: (p - lr * g / nn.global_norm(g) * nn.vdot(g, g), s),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_compile_once_and_agree(name):
    params, x, y = small()
    step = STEPS[name]
    compiled = jax.jit(lambda p, s, x, y, lr, k: step(p, nn.grads(p, x, y), s, lr, k))
    state = nn.adam_init(params) if name == "adam" else nn.zeros_like(params)
    there, state_there = to_jax((params, state))
    for k in range(6):
        lr = 0.1 + 0.01 * k
        params, state = step(params, nn.grads(params, x, y), state, lr, k)
        there, state_there = compiled(there, state_there, x, y, lr, k)
    close(there, params, np.float64)
    close(state_there, state, np.float64)
    assert compiled._cache_size() == 1


def test_an_ensemble_trains_at_once():
    _, x, y = small()
    members = [nn.init(seed, (4, 5, 3), (nn.tanh, nn.softmax), "float64") for seed in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    trained = jax.vmap(lambda p: nn.sgd_step(p, nn.grads(p, x, y), 0.5))(together)
    for number, member in enumerate(members):
        alone = nn.sgd_step(member, nn.grads(member, x, y), 0.5)
        close(jax.tree.map(lambda leaf, k=number: leaf[k], trained), alone, np.float64)


def test_gradients_of_every_example():
    params, x, y = small()
    each = jax.vmap(nn.grads, (None, 0, 0))(to_jax(params), jnp.asarray(x)[:, None], jnp.asarray(y)[:, None])
    for k in range(len(x)):
        close(jax.tree.map(lambda leaf, k=k: leaf[k], each), nn.grads(params, x[k : k + 1], y[k : k + 1]), np.float64)


def test_an_epoch_is_a_scan():
    params, x, y = small()

    def step(carry, batch):
        params, velocity = nn.momentum_step(carry[0], nn.grads(carry[0], *batch), carry[1], 0.1)
        return (params, velocity), nn.loss(params, *batch)

    carry = to_jax((params, nn.zeros_like(params)))
    (scanned, _), losses = jax.lax.scan(step, carry, (x.reshape(3, 2, 4), y.reshape(3, 2)))
    velocity, expected = nn.zeros_like(params), []
    for k in range(0, 6, 2):
        params, velocity = nn.momentum_step(params, nn.grads(params, x[k : k + 2], y[k : k + 2]), velocity, 0.1)
        expected.append(nn.loss(params, x[k : k + 2], y[k : k + 2]))
    close(scanned, params, np.float64)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_hessian_and_checkpoint():
    params, x, y = small()
    params = nn.Params((params.layers[0], Scale(np.linspace(0.5, 1, 5), 2), params.layers[1]))
    vector, unravel = nn.ravel(to_jax(params))
    hessian = jax.hessian(lambda v: nn.loss(unravel(v), x, y))(vector)
    direction = np.random.default_rng(1).standard_normal(vector.shape)
    ahead, behind = (nn.ravel(nn.grads(unravel(vector + s * 1e-6 * direction), x, y))[0] for s in (1, -1))
    np.testing.assert_allclose(hessian @ direction, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8)
    close(jax.grad(jax.checkpoint(nn.loss))(to_jax(params), x, y), nn.grads(params, x, y), np.float64)
    close(jax.jit(nn.grads)(to_jax(params), x, y), nn.grads(params, x, y), np.float64)


def test_a_rate_with_axes_or_an_imaginary_part_is_refused():
    params, x, y = small()
    with pytest.raises(TypeError, match=r"lr must be a number, not f64\[2\]"):
        nn.sgd_step(to_jax(params), nn.grads(to_jax(params), x, y), jnp.ones(2))
    with pytest.raises(TypeError, match=r"is c128\[\], but must hold real numbers"):
        nn.sgd_step(params, params, jnp.asarray(1j))


def test_records_are_pytrees_with_key_paths():
    params = small()[0]
    network = nn.Params((Scale(np.ones(4), 3), *params.layers))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(network)[0]]
    assert paths[:3] == [".layers[0].factors", ".layers[1].weights", ".layers[1].biases"]
    leaves, structure = jax.tree.flatten(network)
    assert all(a is b for a, b in zip(leaves, nn.tree_leaves(network), strict=True))
    assert jax.tree.unflatten(structure, leaves) == network
    assert hash(structure) == hash(jax.tree.structure(nn.Params((Scale(np.zeros(4), 3), *params.layers))))
    assert structure != jax.tree.structure(nn.Params((Scale(np.ones(4), 2), *params.layers)))
    assert jax.tree.leaves(nn.relu) == []


def test_unflattening_neither_validates_nor_converts():
    structure = jax.tree.structure(nn.adam_init(small()[0]))
    marks = [object() for _ in range(structure.num_leaves)]
    assert all(a is b for a, b in zip(jax.tree.leaves(jax.tree.unflatten(structure, marks)), marks, strict=True))
    assert jax.tree.map(lambda _: None, small()[0]).layers[0].weights is None


def test_dropout_under_jit_has_the_masks_of_numpy():
    params, x, y = small()
    thinned = nn.Params((params.layers[0], nn.Dropout(0.5), params.layers[1]))
    expected = nn.grads(nn.seeded(thinned, 3), x, y)
    close(jax.jit(lambda p: nn.grads(nn.seeded(p, 3), x, y))(to_jax(thinned)), expected, np.float64)


@nn.record
class Noise:
    """Your own random layer."""

    seed: nn.Seed | None = None


@nn.vjp.register
def noise_vjp(layer: Noise, x):
    return x + jax.random.normal(layer.seed.key, x.shape), lambda dy: (Noise(), lambda: dy)


def thinned():
    params, x, y = small()
    first, last = params.layers
    inner = nn.Params((nn.Dropout(0.5), Noise(), nn.Dropout(0.5)))
    return to_jax(nn.Params((nn.Dropout(0.25), first, inner, last))), x, y


def masks(key, layers=3, units=64):
    """The masks of several equal layers for one key."""
    same = nn.seeded(nn.Params((nn.Params((nn.Dropout(0.5),)), *[nn.Dropout(0.5)] * (layers - 1))), key)
    return jnp.stack([nn.forward(layer, jnp.ones((1, units))) for layer in same.layers])


def test_a_key_is_an_argument_of_the_compiled_step():
    params, x, y = thinned()
    step = jax.jit(lambda p, x, y, key: nn.sgd_step(p, nn.grads(nn.seeded(p, key), x, y), 0.5))
    keys = jax.random.split(jax.random.key(0), 100)
    after = [step(params, x, y, key) for key in keys]
    assert step._cache_size() == 1
    assert len({np.asarray(nn.ravel(p)[0]).tobytes() for p in after}) == 100
    again = step(params, x, y, keys[7])
    assert jax.tree.structure(again) == jax.tree.structure(params) and again == after[7]
    by_jax = jax.jit(jax.grad(lambda p, key: nn.loss(nn.seeded(p, key), x, y)))(params, keys[7])
    close(by_jax, to_numpy(nn.grads(nn.seeded(params, keys[7]), x, y)), np.float64)
    kept = jax.jit(lambda p, key: jax.grad(jax.checkpoint(nn.loss))(nn.seeded(p, key), x, y))(params, keys[7])
    close(nn.tree_leaves(kept), nn.tree_leaves(to_numpy(by_jax)), np.float64)


def test_steps_layers_and_members_have_masks_of_their_own():
    keys = jax.random.split(jax.random.key(1), 4)
    _, of_steps = jax.lax.scan(lambda carry, key: (carry, masks(key)), 0, keys)
    of_members = jax.vmap(masks)(keys)
    assert np.array_equal(of_steps, of_members) and np.array_equal(of_steps[2], jax.jit(masks)(keys[2]))
    assert len({mask.tobytes() for mask in np.asarray(of_steps).reshape(12, 64)}) == 12
    assert 0.4 < np.mean(np.asarray(of_steps) == 0) < 0.6 and set(np.unique(of_steps)) == {0, 2}


def test_keys_of_both_kinds_are_seeds_and_a_record_keeps_its_key():
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    layer = nn.seeded(nn.Dropout(0.5), new)
    assert layer == layer != nn.seeded(nn.Dropout(0.5), new) and nn.seeded(layer, 4).seed == 4
    assert layer.seed.key is new
    assert np.array_equal(masks(old), masks(new)) and not np.array_equal(masks(new), masks(jax.random.key(4)))
    assert nn.forward(nn.seeded(nn.Dropout(0.5), old), np.ones((2, 3), np.float32)).dtype == np.float32
    with pytest.raises((TypeError, ValueError), match="invalid PRNG key data"):
        masks(jnp.ones(2))
    with pytest.raises(ValueError, match=r"purenn.seeded takes a key: jax.random.fold_in\(jax.random.key\(0\), step\)"):
        jax.jit(lambda step: masks((0, step)))(3)
    assert jax.jit(lambda step: masks(jax.random.fold_in(jax.random.key(0), step)))(3).shape == (3, 1, 64)


def test_weights_keep_the_shape_of_a_smaller_last_batch():
    params, x, y = small()
    compiled = jax.jit(
        lambda *batch: nn.loss_and_grads(*batch)
    )  # a function of its own, whose compilations are counted
    for n in (6, 4, 1):
        padded = np.concatenate([x[:n], np.zeros((6 - n, 4))]), np.concatenate([y[:n], np.full(6 - n, -1)])
        value, gradient = compiled(to_jax(params), *padded, np.arange(6) < n)
        close((value,), (nn.loss(params, x[:n], y[:n]),), np.float64)
        close(gradient, nn.grads(params, x[:n], y[:n]), np.float64)
        assert jax.jit(nn.accuracy)(to_jax(params), *padded, np.arange(6) < n) == nn.accuracy(params, x[:n], y[:n])
    assert compiled._cache_size() == 1


def test_weights_of_other_libraries_are_looked_at_only_where_that_is_possible():
    params, x, y = small()
    there, zeros = to_jax(params), np.zeros(6)
    value, gradient = jax.jit(nn.loss_and_grads)(there, x, y, zeros)
    assert np.isnan(value) and np.isnan(nn.ravel(gradient)[0]).all()
    assert np.isnan(jax.jit(nn.accuracy)(there, x, y, zeros))
    assert np.isnan(nn.accuracy(there, x, jnp.eye(3).at[0].set(jnp.nan)[jnp.asarray(y)]))
    many = to_jax(nn.init(0, (3, 300), [nn.softmax]))
    for dtype in (np.uint8, np.int8, np.int16):
        small_labels = np.asarray([0, 1, np.iinfo(dtype).max if dtype != np.int16 else 299], dtype)
        exact = nn.loss(many, np.ones((3, 3), np.float32), small_labels.astype(int))
        assert (
            nn.loss(many, jnp.ones((3, 3)), small_labels)
            == nn.loss(many, jnp.ones((3, 3)), jnp.asarray(small_labels))
            == exact
        )
    assert np.isnan(nn.loss(params, np.asarray(x), jnp.asarray(y).at[2].set(7)))
    for label in (-1, 3):
        wrong = jnp.asarray(y).at[2].set(label)
        for results in (jax.jit(nn.loss_and_grads)(there, x, wrong), nn.accuracy(there, x, wrong)):
            assert all(jnp.isnan(leaf).any() for leaf in nn.tree_leaves(results))
        weights = np.where(np.arange(6) == 2, 0, 1)
        assert nn.loss(there, x, wrong, weights) == nn.loss(there, x, y, weights)
    spoilt = jnp.asarray(x).at[1].set(jnp.nan)
    for predict in (nn.predict, jax.jit(nn.predict)):
        labels = predict(there, spoilt)
        assert labels[1] == -1 and (jnp.delete(labels, 1) == jnp.delete(predict(there, x), 1)).all()
        sigmoid = to_jax(nn.init(0, (4, 2), [nn.sigmoid]))
        assert predict(sigmoid, spoilt)[1].tolist() == [-1, -1] and predict(sigmoid, spoilt)[0].tolist() != [-1, -1]
        identity = to_jax(nn.init(0, (4, 2), [nn.identity]))
        assert jnp.isnan(predict(identity, spoilt)).all(axis=1).tolist() == [k == 1 for k in range(len(x))]
    assert np.isnan(nn.loss(there, x, y, jnp.asarray([1, 1, -1, 1, 1, 1])))
    weights = np.asarray([0, 1, 2, 0.5, 0, 1])
    y = np.where(weights == 0, -1, y)
    for ours in ((there, x, y, weights), to_jax((params, x, y, weights)), (there, x, y, jnp.asarray(weights))):
        close((nn.loss(*ours),), (nn.loss(params, x, y, weights),), np.float64)
    close((jax.jit(lambda w: nn.loss(there, x, y, w))(weights),), (nn.loss(params, x, y, weights),), np.float64)
    with pytest.raises(ValueError, match="labels from -1 to 2"):
        nn.loss(there, x, y, weights + 1)
    slopes = jax.grad(nn.loss, argnums=3)(*to_jax((params, x, y % 3, weights + 1)))
    expected = nn.numerical_grads(lambda w: nn.loss(params, x, y % 3, w), weights + 1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-9)


def test_rates_by_part_are_arguments_of_the_compiled_step():
    params, x, y = small()
    rates = nn.tree_map_with_path(lambda path, p: 0.1 if path.endswith("weights") else 0.0, params)
    compiled = jax.jit(lambda *step, **options: nn.adam_step(*step, **options))
    for scale in (1.0, 0.5):
        lr = nn.tree_map(lambda c, s=scale: s * c, rates)
        arguments = (params, nn.grads(params, x, y), nn.adam_init(params), lr)
        close(
            compiled(*to_jax(arguments[:3]), lr, weight_decay=rates),
            nn.adam_step(*arguments, weight_decay=rates),
            np.float64,
        )
    assert compiled._cache_size() == 1


def test_to_jax_and_back():
    params = small()[0]
    assert to_numpy(to_jax(params)) == params
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(to_numpy(to_jax(params))))


def test_without_jax_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "purenn.jax")
    with pytest.raises(ImportError, match=r"pip install 'purenn\[jax\]'"):
        importlib.import_module("purenn.jax")


def test_importing_purenn_does_not_import_jax():
    code = "import sys, purenn; sys.exit(any(name.partition('.')[0] == 'jax' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def flat(tree):
    """The parts of nested tuples."""
    return [part for child in tree for part in flat(child)] if type(tree) is tuple else [tree]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_number_of_jax_changes_a_dtype(name, dtype):
    params = nn.tree_map(lambda p: jnp.asarray(p, dtype), small()[0].layers[0])
    results = [NUMBERS[name](params, c) for c in (jnp.float64(0.5), jnp.float32(0.5), np.float64(0.5), 0.5)]
    for tree in (*results, jax.jit(NUMBERS[name])(params, jnp.float64(0.5))):
        averages = [part for part in flat(tree) if type(part) is nn.AdamState]
        averages += [tree[1]] if name == "momentum" else []  # the velocity
        others = [part for part in flat(tree) if not any(part is average for average in averages)]
        assert {leaf.dtype for leaf in nn.tree_leaves(others)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in nn.tree_leaves(averages) if leaf.ndim} <= {jnp.dtype("float32")}
        assert bool(averages) == (name in ("lr", "eps", "weight_decay", "momentum"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_learn_under_jax(dtype):
    _, x, y = small()
    layers = nn.init(0, (4, 5, 3), (nn.tanh, nn.softmax)).layers
    params = nn.Params(nn.tree_map(lambda p: jnp.asarray(p, dtype), layers))
    step = jax.jit(lambda p: nn.sgd_step(p, nn.grads(p, x, y), 0.5))
    before = nn.loss(params, x, y)
    for _ in range(30):
        params = step(params)
    assert nn.loss(params, x, y).dtype == params.layers[0].weights.dtype == jnp.dtype(dtype)
    assert nn.loss(params, x, y) < before / 2


def test_without_64_bits_there_are_no_warnings_and_differences_say_why():
    params, x, y = small()
    sigmoid = nn.init(0, (4, 3), [nn.sigmoid])
    with jax.enable_x64(False):
        there, x = to_jax((nn.tree_map(np.float32, params), np.float32(x)))
        _, state = nn.adam_step(there, nn.grads(there, x, y), nn.adam_init(there), 0.1)
        assert state.steps.dtype == jnp.int32
        assert nn.predict(to_jax(sigmoid), x).shape == (6, 3)
        with pytest.raises(
            ValueError, match=r"differences need float64; jax.config.update\(\"jax_enable_x64\", True\)"
        ):
            nn.numerical_grads(lambda p: nn.loss(p, x, y), there)
    there = to_jax(params)
    by_differences = nn.numerical_grads(lambda p: nn.loss(p, x, y), there)
    close(by_differences, nn.grads(params, np.asarray(x, float), y), np.float32)


def test_dicts_are_trees_like_those_of_jax():
    params = to_jax(small()[0])
    tree = {"z": params, "a": {"y": jnp.ones(2), "b": None}}
    assert [id(leaf) for leaf in nn.tree_leaves(tree)] == [id(leaf) for leaf in jax.tree.leaves(tree)]
    stepped = jax.jit(nn.sgd_step)(tree, tree, 0.5)
    assert nn.tree_map(lambda a, b: bool((a == b / 2).all()), stepped, tree)["a"]["y"]


def test_optax_takes_records_as_they_are():
    optax = pytest.importorskip("optax")
    params, x, y = small()
    optimizer = optax.adamw(0.05)
    there, ours, adam = to_jax(params), params, nn.adam_init(params)
    state = optimizer.init(there)
    for _ in range(20):
        updates, state = optimizer.update(nn.grads(there, x, y), state, there)
        there = optax.apply_updates(there, updates)
        ours, adam = nn.adam_step(ours, nn.grads(ours, x, y), adam, 0.05, weight_decay=1e-4)
    assert type(there) is nn.Params
    assert nn.loss(there, x, y) < nn.loss(params, x, y) / 2
    assert relative_error(to_numpy(there), ours) < 1e-6


def test_an_ensemble_with_dropout_trains_at_once():
    params, x, y = thinned()
    keys = jax.random.split(jax.random.key(2), 3)
    together = jax.vmap(lambda key: nn.sgd_step(params, nn.grads(nn.seeded(params, key), x, y), 0.5))(keys)
    for number, key in enumerate(keys):
        alone = nn.sgd_step(params, nn.grads(nn.seeded(params, key), x, y), 0.5)
        close(jax.tree.map(lambda leaf, k=number: leaf[k], together), to_numpy(alone), np.float64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_pullback_takes_the_floats_of_numpy(dtype):
    params = nn.tree_map(lambda p: jnp.asarray(p, dtype), nn.init(0, (4, 5, 3), (nn.tanh, nn.identity)))
    for network in (params, nn.Params((params,)), nn.Params((nn.Params((nn.Dropout(0.5), params)),))):
        for rule in (nn.vjp, nn.logits_vjp):
            y, pullback = rule(network, np.ones((2, 4), np.float32))
            gradient, dx = pullback(np.ones((2, 3)))
            assert {leaf.dtype for leaf in nn.tree_leaves(gradient)} == {y.dtype} and dx().shape == (2, 4)
