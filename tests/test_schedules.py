"""Schedules, and when to stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn

SCHEDULES = (
    lambda s: nn.warmup_cosine(s, 0.5, 100, 10, 0.1),
    lambda s: nn.warmup_cosine(s, 0.5, 100),
    lambda s: nn.exponential_decay(s, 0.5, 10, 0.9),
    lambda s: nn.piecewise_constant(s, (1, 2, 3), (5, 70)),
    lambda s: nn.piecewise_constant(s, (1, 2), (0,)),
    lambda s: nn.piecewise_constant(s, (1, 2), (-7,)),
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(st.integers(-(2**40), -1))
def test_before_the_start_the_rate_is_that_of_step_0(schedule, step):
    assert schedule(step) == schedule(0)
    assert schedule(np.asarray([step, 0])).tolist() == [schedule(0)] * 2


@given(st.integers(0, 200), st.integers(0, 99), st.floats(0, 10), st.floats(0, 1))
def test_warmup_cosine(step, warmup, peak, final):
    rate = nn.warmup_cosine(step, peak, 100, warmup, final)
    assert type(rate) is float
    if step < warmup:
        assert rate == pytest.approx(peak * step / warmup)
    else:
        done = min((step - warmup) / (100 - warmup), 1)
        assert rate == pytest.approx(final + (peak - final) * np.cos(np.pi * done / 2) ** 2, abs=1e-12)
    assert nn.warmup_cosine(warmup, peak, 100, warmup, final) == pytest.approx(peak)
    assert nn.warmup_cosine(max(step, 100), peak, 100, warmup, final) == pytest.approx(final)


def test_schedules_take_arrays_of_steps():
    steps = np.arange(0, 130, 7)
    for schedule in SCHEDULES:
        np.testing.assert_allclose(schedule(steps), [schedule(int(s)) for s in steps], rtol=1e-14)
        assert not schedule(steps).flags.writeable
        params = nn.init(0, (3, 2), [nn.softmax])
        assert nn.sgd_step(params, params, schedule(np.int64(3))) == nn.sgd_step(params, params, schedule(3))


def test_exponential_and_piecewise_schedules_are_their_formulas():
    assert nn.exponential_decay(15, 2.0, 10, 0.25) == pytest.approx(2 * 0.25**1.5)
    assert [nn.piecewise_constant(s, [5, 6, 7], [1, 3]) for s in range(5)] == [5, 6, 6, 7, 7]
    assert nn.piecewise_constant(9, [5], []) == 5
    assert nn.warmup_cosine(0, peak_lr=3.0, total_steps=10) == 3
    assert nn.exponential_decay(2, 1.0, decay_steps=1, decay_rate=0.5) == 0.25


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 1, False),
        ([1], 1, False),
        ([1, 1], 1, True),
        ([2, 1], 1, False),
        ([1, 2, 0.5], 2, False),
        ([1, 2, 3], 2, True),
        ([5, 1, 7], 2, False),
        ([1, 2, 3], 3, False),
        ([3, 1, 2, 2, 0.9, 1, 1], 3, False),
        ([1, np.nan], 1, True),
        ([np.nan, 1], 1, False),
        ([np.nan, np.nan], 1, True),
    ],
)
def test_converged(losses, patience, expected):
    assert nn.converged(iter(losses), patience) is expected


def test_a_step_that_is_nan_has_no_rate():
    step = np.asarray([np.nan, 3.0])
    for rates in (
        nn.piecewise_constant(step, [0.1, 0.2, 0.3], [2, 5]),
        nn.warmup_cosine(step, 0.1, 10, 2),
        nn.exponential_decay(step, 0.1, 10, 0.5),
    ):
        assert np.isnan(rates[0]) and rates[1] > 0


def test_the_default_patience_is_5():
    assert nn.converged([1.0] * 6) and not nn.converged([1.0] * 5)
