"""Functions on all arrays of a tree at once."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from purenn.trees import builder, flatten
from tests.strategies import NUMBERS, SETTINGS, dtypes, networks, seeds
from tests.toys import Holder, Pair


@given(networks())
def test_ravel_and_back(params):
    vector, unravel = nn.ravel(params)
    leaves = nn.tree_leaves(params)
    assert vector.shape == (sum(leaf.size for leaf in leaves),)
    assert np.array_equal(vector, np.concatenate([leaf.ravel() for leaf in leaves]))
    assert unravel(vector) == params == unravel(vector.astype(np.float64))
    assert unravel(2 * vector) == 2 * params
    assert not vector.flags.writeable
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(unravel(np.array(vector))))


def test_ravel_keeps_the_structure():
    tree = Pair((np.float32([[1, 2]]), None), [np.float32(3), np.zeros((0, 3), np.float32)])
    vector, unravel = nn.ravel(tree)
    back = unravel(vector)
    assert vector.tolist() == [1, 2, 3]
    assert type(back) is Pair
    assert back.left[0].tolist() == [[1, 2]]
    assert back.left[1] is None
    assert back.right[1].shape == (0, 3)


@given(networks(), seeds)
def test_vdot_is_bilinear_and_gives_the_norm(params, seed):
    random = np.random.default_rng(seed)
    a, b = (nn.tree_map(lambda p: random.standard_normal(p.shape), params) for _ in range(2))
    assert nn.vdot(a, a) == pytest.approx(nn.global_norm(a) ** 2)
    assert nn.vdot(2 * a + b, b) == pytest.approx(2 * nn.vdot(a, b) + nn.vdot(b, b), rel=1e-9, abs=1e-9)
    assert nn.vdot(nn.zeros_like(a), b) == 0
    assert nn.vdot(a, b) == pytest.approx(np.vdot(nn.ravel(a)[0], nn.ravel(b)[0]), rel=1e-9, abs=1e-9)


arrays = st.builds(
    lambda shape, seed: np.random.default_rng(seed).standard_normal(shape), st.tuples(st.integers(0, 3)), seeds
)
trees = st.recursive(
    st.none() | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.lists(arrays, max_size=2).map(lambda parts: Holder(tuple(parts)))
    ),
    max_leaves=8,
)


@given(trees)
def test_a_tree_is_built_as_it_was_taken_apart(tree):
    leaves, structure = flatten(tree)
    again = builder(structure)(leaves)
    assert all(a is b for a, b in zip(nn.tree_leaves(again), leaves, strict=True))
    assert flatten(again)[1] == structure
    assert type(again) is type(tree)
    doubled = nn.tree_map(lambda a, b: a + b, tree, again)
    assert [leaf.tolist() for leaf in nn.tree_leaves(doubled)] == [(2 * leaf).tolist() for leaf in leaves]


def follow(tree, path):
    """The leaf that a path leads to."""
    for name in path.split(".") if path else []:
        if isinstance(tree, (tuple, list)):
            tree = tree[int(name)]
        else:
            tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree


@given(trees)
def test_paths_lead_to_their_leaves(tree):
    if re.search(r"\.", str(flatten(tree)[1])) is None:  # a key with a dot has an ambiguous path
        nn.tree_map_with_path(lambda path, leaf: follow(tree, path) is leaf or pytest.fail(path), tree)
    shown = nn.tree_map_with_path(lambda path, leaf: path, tree)
    assert len(nn.tree_leaves(shown)) == len(nn.tree_leaves(tree))


def test_paths_are_names_joined_by_dots():
    params = nn.init(0, (2, 2), [nn.relu])
    tree = {"b": (params, None), "a": [Holder((np.ones(1),))]}
    assert nn.tree_leaves(nn.tree_map_with_path(lambda path, leaf: path, tree)) == [
        "a.0.parts.0", "b.0.layers.0.weights", "b.0.layers.0.biases"
    ]  # fmt: skip
    assert nn.tree_map_with_path(lambda path, leaf: path, np.ones(2)) == ""
    written = nn.tree_map_with_path(lambda path, leaf: np.zeros(3), params)
    assert not any(leaf.flags.writeable for leaf in nn.tree_leaves(written))


@given(networks(), seeds)
def test_dicts_are_trees_like_all_others(params, seed):
    random = np.random.default_rng(seed)
    gradient = nn.tree_map(lambda p: random.standard_normal(p.shape).astype(p.dtype), params)

    def as_dict(tree):
        return {"z": tree, "a": [tree.layers[0].weights]}

    tree, slope = as_dict(params), as_dict(gradient)
    after, velocity = nn.momentum_step(tree, slope, slope, 0.1)
    assert (after["z"], velocity["z"]) == nn.momentum_step(params, gradient, gradient, 0.1)
    assert list(after) == list(velocity) == ["z", "a"] and type(after["a"]) is list
    assert nn.sgd_step(tree, slope, 0.1)["z"] == nn.sgd_step(params, gradient, 0.1)
    assert nn.zeros_like(tree)["z"] == 0 * params
    assert nn.tree_leaves(tree)[0] is params.layers[0].weights, "in sorted order"
    vector, unravel = nn.ravel(tree)
    assert unravel(vector)["z"] == params
    assert nn.global_norm(nn.clip_by_global_norm(slope, 1e-3)) == pytest.approx(1e-3, rel=1e-4)
    with pytest.raises(ValueError, match=r"grads differs from params at a: list of 2 instead of list of 1"):
        nn.sgd_step(tree, slope | {"a": [1, 2]}, 0.1)
    with pytest.raises(ValueError, match=r"grads differs from params: dict\['a'\] instead of dict\['a', 'z'\]"):
        nn.sgd_step(tree, {"a": slope["a"]}, 0.1)


def test_whole_numbers_keep_their_digits():
    """They are not computed as floats of 16 bits are."""
    small = np.asarray([30001, 1], np.int16)
    assert nn.global_norm(small) == pytest.approx(np.hypot(30001, 1), rel=1e-13)
    assert nn.vdot(np.asarray([1, 2], np.int16), np.asarray([3, 4], np.int16)).dtype.kind == "i"
    many = np.full(100_000, 127, np.int8)
    assert nn.global_norm(many) == pytest.approx(127 * np.sqrt(100_000), rel=1e-3)
    assert (2 * Holder(small)).parts.dtype == (2.0 * small).dtype


@given(st.permutations("abcde"), st.permutations("abcde"))
def test_dicts_keep_the_order_of_their_keys(first, second):
    tree = {key: ({"z": key, "a": 2 * key}, key) for key in first}
    other = {key: ({"a": 2 * key, "z": key}, key) for key in second}
    together = nn.tree_map(lambda a, b: (a == b, a), tree, other)
    assert list(together) == first and list(together["a"][0]) == ["z", "a"]
    assert together == {key: ({"z": (True, key), "a": (True, 2 * key)}, (True, key)) for key in first}
    paths = nn.tree_map_with_path(lambda path, leaf: path, tree)
    assert list(paths) == first and paths["b"] == ({"z": "b.0.z", "a": "b.0.a"}, "b.1")
    assert nn.tree_leaves(tree) == nn.tree_leaves(other), "sorted, as in JAX"
    batch, _ = next(nn.batches(None, {key: np.asarray([ord(key)]) for key in first}, None))
    assert list(batch) == first and all(batch[key] == [ord(key)] for key in first)


@given(dtypes, st.sampled_from([np.float64(0.3), np.float32(0.3), np.asarray(0.3), 0.3, 1, True]))
def test_no_number_changes_a_dtype(dtype, number):
    params = nn.init(0, (3, 2), [nn.softmax], dtype).layers[0]
    for name, call in (NUMBERS | SETTINGS).items():
        tree = call(params, number / 2 if name in ("momentum", "beta1", "beta2", "rate") else number)
        leaves = [leaf for leaf in nn.tree_leaves(tree) if leaf.dtype != np.int64]
        assert {leaf.dtype for leaf in leaves} == {np.dtype(dtype)}


def test_vectors_from_the_disk_are_unravelled_to_arrays(tmp_path):
    vector, unravel = nn.ravel((np.eye(3), np.ones(3)))
    np.save(tmp_path / "v.npy", vector)
    for leaf in unravel(np.load(tmp_path / "v.npy", mmap_mode="r+")):
        assert type(leaf) is np.ndarray and not leaf.flags.writeable
