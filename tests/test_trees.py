"""Arithmetic on all arrays of a tree at once."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given

import purenn as nn
from tests.strategies import networks, seeds


class Pair(NamedTuple):
    left: object
    right: object


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
