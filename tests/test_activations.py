"""Activations: their formulas, their documentation, and how they pickle."""

import copy
import inspect
import math
import pickle
import pydoc
import re

import array_api_strict as strict
import numpy as np
import pytest

import purenn as nn
from tests.strategies import ACTIVATIONS


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_take_arrays_of_any_rank(activation):
    z = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_allclose(activation(z)[1, 2], activation(z[1, 2]), rtol=1e-14)
    np.testing.assert_allclose(np.asarray(activation(strict.asarray(z))), activation(z), rtol=1e-14)


def test_activations_are_their_formulas():
    z = np.linspace(-700, 700, 99)
    np.testing.assert_allclose(nn.sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-13)
    np.testing.assert_allclose(nn.tanh(z / 100), 2 / (1 + np.exp(-2 * z / 100)) - 1, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(nn.softmax(z), np.eye(99)[-1], atol=1e-6)
    assert nn.relu(np.asarray([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]
    np.testing.assert_allclose(nn.softmax(z / 100), np.exp(z / 100) / np.exp(z / 100).sum(), rtol=1e-12)
    np.testing.assert_allclose(nn.softplus(z), np.logaddexp(z, 0), rtol=1e-13)
    np.testing.assert_allclose(nn.silu(z), z / (1 + np.exp(-z)), rtol=1e-13)
    np.testing.assert_allclose(nn.elu(z), np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1), rtol=1e-13)
    assert nn.leaky_relu(np.asarray([-1.0, 0.0, 2.0])).tolist() == [-0.01, 0, 2]
    exact = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in z / 100]
    np.testing.assert_allclose(nn.gelu(z / 100), exact, atol=5e-4)
    tail = np.asarray([-6.0, -5.0, -3.0])  # from the tanh form with 50 digits
    np.testing.assert_allclose(nn.gelu(tail), [-8.43964670076e-11, -2.2917961966295e-07, -0.00363739208177], rtol=1e-11)
    np.testing.assert_allclose(nn.gelu(tail.astype(np.float32)), nn.gelu(tail), rtol=2e-5)
    huge = np.asarray([-3e38, 3e38], np.float32)
    assert nn.gelu(huge).tolist() == [0, huge[1]]
    assert nn.gelu.pullback(huge, nn.gelu(huge), np.ones_like(huge)).tolist() == [0, 1]
    assert repr(nn.softmax) == "softmax"


def test_activations_pickle_by_name():
    for activation in ACTIVATIONS:
        assert pickle.loads(pickle.dumps(activation)) is activation
        assert copy.deepcopy(activation) is activation
    impostor = nn.Activation("relu", np.abs, lambda z, y, dy: dy * np.sign(z))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(impostor)


def test_help_of_an_activation_shows_formula_derivative_and_source():
    for activation in ACTIVATIONS:
        text = pydoc.plain(pydoc.render_doc(activation))
        assert "``" in text and re.search(r"(Derivative|Jacobian): .*1|(Derivative|Jacobian): ", text)
        assert re.search(r"\(.*\d{4}.*\)", text), "the source"
    assert "A non-linearity and its derivative" in pydoc.plain(pydoc.render_doc(nn.Activation))
    assert "What ``repr`` shows" in nn.Activation.__doc__


def test_an_activation_is_documented_as_a_function():
    for activation in ACTIVATIONS:
        assert str(inspect.signature(activation)) == "(z: purenn.arrays.Array) -> purenn.arrays.Array"
        assert inspect.isroutine(activation)
        assert type("Holder", (), {"field": activation})().field is activation  # it does not become a method
    assert list(inspect.signature(nn.Activation).parameters) == ["name", "function", "pullback"]
