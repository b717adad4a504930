"""Arguments: numbers and seeds, and the errors for what is neither."""

import numpy as np
import pytest

import purenn as nn
from tests.strategies import NUMBERS, SETTINGS
from tests.toys import DENSE, PARAMS, Scale, X, Y

OUT_OF_RANGE = {"decay_rate": ("positive", (0, -0.5))}  # what a number must be, and numbers that are not
OUT_OF_RANGE |= dict.fromkeys(("momentum", "beta1", "beta2", "rate"), ("at least 0 and below 1", (-0.1, 1, 1.5)))
OUT_OF_RANGE |= dict.fromkeys(("eps", "weight_decay", "max_norm"), ("at least 0", (-1,)))
NO_NUMBERS = ("0.1", None, 1j, np.complex64(1), np.ones(2), np.asarray("ab"), np.asarray([None]), np.ma.masked)


@pytest.mark.parametrize("name", NUMBERS | SETTINGS)
def test_numbers_are_real_finite_and_in_their_range(name):
    call = (NUMBERS | SETTINGS)[name]
    for number in NO_NUMBERS:
        with pytest.raises(TypeError, match=f"{name} must be a number, not "):
            call(DENSE, number)
    for number in (np.nan, np.inf, -np.inf, np.float32("inf"), np.float64("-inf"), np.asarray(-np.inf), -(10**400)):
        with pytest.raises(ValueError, match=f"{name} is (nan|-?inf), but must be a finite number"):
            call(DENSE, number)
    expected, wrong = OUT_OF_RANGE.get(name, ("", ()))
    for number in wrong:
        with pytest.raises(ValueError, match=f"{name} is {float(number)}, but must be {expected}$"):
            call(DENSE, number)


def test_lists_may_be_any_iterable(tmp_path):
    sizes, activations = (4, 3, 2), (nn.tanh, nn.softmax)
    for made in (list, tuple, iter, lambda values: (value for value in values), dict.fromkeys):
        assert nn.init(0, made(sizes), made(activations)) == PARAMS
    nn.save(tmp_path / "file", DENSE)
    assert nn.load(tmp_path / "file", records=iter([Scale, nn.tanh])) == DENSE
    with pytest.raises(TypeError, match="two record classes or activations are called Scale"):
        nn.load(tmp_path / "file", records=iter([Scale, nn.record(type("Scale", (), {}))]))


@pytest.mark.parametrize("seed", [-1, (0, -1), 0.5, (), "x", [1, 2], np.ones(2), None])
def test_seeds_are_ints_of_at_least_0(seed):
    calls = [lambda: nn.init(seed, (4, 2), [nn.tanh]), lambda: nn.seeded(PARAMS, seed)]
    for call in [*calls, lambda: next(nn.batches(seed, X, Y))][: 2 if seed is None else 3]:
        with pytest.raises(ValueError, match=r"seed is .*, but must be an int >= 0, or a tuple of such ints") as info:
            call()
        assert ("purenn.seeded takes a key" in str(info.value)) == isinstance(seed, np.ndarray)


def test_bfloat16_of_numpy_is_named_and_converts():
    bfloat16 = pytest.importorskip("ml_dtypes", reason="comes with JAX").bfloat16
    x = X.astype(bfloat16)
    with pytest.raises(TypeError, match=r"x is bf16\[5,4\], but must hold floats: x.astype\(np.float32\)"):
        nn.forward(PARAMS, x)
    nn.forward(PARAMS, x.astype(np.float32))


def test_seeds_are_all_different():
    x = np.arange(100)
    seeds = [0, 1, (0, 1), (1, 0), (0, 0), (1, 0, 0), 2**40, np.int64(7)]
    orders = {next(nn.batches(seed, x, x, 100))[1].tobytes() for seed in seeds}
    assert len(orders) == len(seeds)
    assert next(nn.batches(7, x, x, 100))[1].tobytes() in orders
