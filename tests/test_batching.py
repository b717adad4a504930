"""The order in which examples are seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import seeds


@given(seeds, st.integers(0, 50), st.integers(1, 60))
def test_batches_are_a_permutation_of_the_examples(seed, n, batch_size):
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n)
    batches = list(nn.batches(seed, x, y, batch_size))
    assert [len(yb) for _, yb in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-n // batch_size)
    assert all(np.array_equal(xb, x[yb]) for xb, yb in batches)
    assert sorted(label for _, yb in batches for label in yb.tolist()) == list(range(n))


@given(seeds, st.integers(1, 30), st.integers(1, 40), st.booleans())
def test_batches_of_trees_are_batches_of_their_arrays(seed, n, batch_size, drop_last):
    x, y, w = np.arange(2 * n).reshape(n, 2), np.arange(n), np.arange(n) / 2
    if drop_last and n < batch_size:
        with pytest.raises(
            ValueError, match=f"x has {n} rows, fewer than one batch of {batch_size}; use drop_last=False"
        ):
            nn.batches(seed, x, y, batch_size, drop_last)
        drop_last = False
    trees = list(nn.batches(seed, {"left": x, "right": [y]}, (y, w), batch_size, drop_last))
    pairs = list(nn.batches(seed, x, y, batch_size))
    assert len(trees) == (n // batch_size if drop_last else len(pairs))
    for (xs, (yt, wt)), (xb, yb) in zip(trees, pairs, strict=False):
        assert list(xs) == ["left", "right"] and type(xs["right"]) is list
        for ours, theirs in ((xs["left"], xb), (xs["right"][0], yb), (yt, yb), (wt, yb / 2)):
            assert np.array_equal(ours, theirs) and not ours.flags.writeable


@given(st.integers(0, 30), st.integers(1, 40))
def test_without_a_seed_batches_keep_the_order(n, batch_size):
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n)
    parts = [*nn.batches(None, x, y, batch_size)]
    assert np.concatenate([x[:0], *(xb for xb, _ in parts)]).tolist() == x.tolist()
    assert [yb.tolist() for _, yb in parts] == [y[k : k + batch_size].tolist() for k in range(0, n, batch_size)]
    assert [(xb.tolist(), yb) for xb, yb in nn.batches(None, x, None, batch_size)] == [
        (xb.tolist(), None) for xb, _ in parts
    ]


def test_defaults():
    batch, _ = next(nn.batches(0, np.zeros((200, 1)), np.zeros(200)))
    assert batch.shape == (128, 1)
