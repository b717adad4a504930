"""The table of what happens inside a network."""

import re

import attrs
import numpy as np
import pytest
from hypothesis import given

import purenn as nn
from tests.strategies import problems
from tests.toys import Embedding, Flip, Ruled


def by_hand(params, x, y):
    """The inputs, outputs and gradients of the layers of a flat network, by a chain of nn.vjp."""
    *below, last = params.layers
    linear = nn.Dense(last.weights, last.biases, nn.identity)
    inputs, pullbacks = [x], []
    for layer in (*below, linear):
        output, pullback = nn.vjp(layer, inputs[-1])
        inputs.append(output)
        pullbacks.append(pullback)
    k = y if y.ndim == 2 else np.eye(last.fan_out)[y]
    dy = (last.activation(inputs[-1]) - k.astype(inputs[-1].dtype)) / len(x)
    slopes, gradients = [dy], []
    for number, pullback in enumerate(reversed(pullbacks)):
        gradient, dx = pullback(slopes[0])
        gradients.insert(0, gradient)
        if number < len(pullbacks) - 1:
            slopes.insert(0, dx())
    return inputs, slopes, gradients


def assert_equal(a, b):
    assert [leaf.tobytes() for leaf in nn.tree_leaves(a)] == [leaf.tobytes() for leaf in nn.tree_leaves(b)]


@given(problems())
def test_an_inspection_holds_what_a_chain_by_hand_gives(problem):
    params, x, y = problem
    inputs, slopes, gradients = by_hand(params, x.astype(params.layers[0].weights.dtype), y)
    *rows, last = nn.inspect(params, x, y).rows
    for number, row in enumerate(rows):
        assert (row.path, row.layer) == (f"layers.{number}", params.layers[number])
        assert_equal((row.input, row.output), (inputs[number], inputs[number + 1]))
        assert_equal((row.output_gradient, row.gradient), (slopes[number], gradients[number]))
        assert type(row.gradient) is type(row.layer)
    assert_equal((last.input, last.output, last.output_gradient), (inputs[-1], nn.forward(params, x), slopes[-1]))
    for forwards in (nn.inspect(params, x), nn.inspect(params)):
        assert [row.path for row in forwards.rows] == [row.path for row in (*rows, last)][: len(forwards.rows)]
        assert all(row.gradient is row.output_gradient is None for row in forwards.rows)
    assert repr(nn.inspect(params)).splitlines()[-1].startswith(f"{nn.ravel(params)[0].size:,} parameters;")


def test_nested_and_parameterless_layers_have_rows_and_count_once():
    first, second, last = nn.init(0, (4, 3, 3, 2), (nn.tanh, nn.relu, nn.softmax)).layers
    x, y = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32), np.arange(5) % 2
    nested = nn.Params((Flip(), first, nn.Params((nn.Dropout(0.5), second)), nn.Params((last,))))
    flat = nn.Params((Flip(), first, nn.Dropout(0.5), second, last))
    inspection = nn.inspect(nested, x, y)
    text = str(inspection)
    leaves = [row for row in inspection.rows if not isinstance(row.layer, nn.Params)]
    for ours, theirs in zip(leaves, nn.inspect(flat, x, y).rows, strict=True):
        assert_equal((ours.input, ours.output, ours.gradient), (theirs.input, theirs.output, theirs.gradient))
    assert [line.split("  ")[0] or line.strip().split("  ")[0] for line in text.splitlines()[1:-1]] == [
        "layers.0", "layers.1", "layers.2", "layers.2.layers.0", "layers.2.layers.1", "layers.3", "layers.3.layers.0",
        "prediction",
    ]  # fmt: skip
    assert "\n  layers.2.layers.1" in text and re.search(
        r"\n35 parameters; loss [\d.]+; first values that are not finite: none$", text
    )
    header = inspection.rows[2]
    assert header.gradient == nn.Params((nn.Dropout(0.5), leaves[3].gradient))
    assert_equal((header.input, header.output), (leaves[1].output, leaves[3].output))
    assert all(row.gradient is None for row in nn.inspect(nested, x).rows)
    assert nn.inspect(nn.Params((Flip(), Flip())), x).rows[1].output.tolist() == x.tolist()
    assert str(nn.inspect(Flip())).splitlines()[1].split() == ["Flip", "(n,", "?)", "0"]
    assert len(nn.inspect(first, x).rows) == 2


def cells(inspection, path):
    """The cells of a row of the printed table by their headings."""
    head, *lines = (re.split(r"  +", line) for line in str(inspection).splitlines()[:-1])
    return next(dict(zip(head, line, strict=False)) for line in lines if line[0] == path)


def test_dead_and_saturated_units_are_counted():
    weights = np.asarray([[1.0, 1.0, 1.0, 30.0]])
    x = np.linspace(0.1, 1, 8)[:, None]
    for f, biases, dead, saturated in (
        (nn.relu, [0, -5, -0.5, 0], "25%", "0%"), (nn.tanh, [0, -5, 9, -1e3], "25%", "50%"),
        (nn.sigmoid, [0, 0, 9, 9], "0%", "50%"),
    ):  # fmt: skip
        hidden = nn.Dense(weights, np.asarray(biases, float), f)
        shown = cells(nn.inspect(nn.Params((hidden, nn.Dense(np.eye(4), np.zeros(4), nn.softmax))), x), "layers.0")
        assert (shown["dead"], shown["saturated"]) == (dead, saturated)
    _, logits, prediction, _ = str(
        nn.inspect(nn.Dense(weights, np.asarray([0.0, -5, -0.5, 0]), nn.relu), x)
    ).splitlines()
    assert "%" not in logits and "25%" in prediction  # of the logits, no unit is dead
    mine = nn.Activation("mine", nn.softmax.function, nn.softmax.pullback)
    for f, x in ((nn.softmax, np.eye(4)), (mine, np.eye(4)), (nn.relu, np.nan * np.eye(4))):
        assert "dead" not in str(nn.inspect(nn.Dense(np.eye(4), np.zeros(4), f), x))


def test_the_table_shows_means_and_norms():
    params, x, y = nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax), "float64"), np.eye(4), np.arange(4) % 2
    inspection = nn.inspect(params, x, y)
    shown, row = cells(inspection, "layers.0"), inspection.rows[0]
    assert shown["layer"] == "Dense tanh" and shown["output"] == "(4, 3)" and shown["parameters"] == "15"
    norm = nn.global_norm(row.gradient)
    expected = row.output.mean(), row.output.std(), float(norm), norm / nn.global_norm(row.layer)
    assert [float(shown[name]) for name in ("mean", "std", "|gradient|", "/ |layer|")] == pytest.approx(
        expected, rel=1e-2
    )
    at_the_logits = float(str(inspection).splitlines()[-2].split()[-1])
    assert at_the_logits == pytest.approx(float(nn.global_norm(inspection.rows[2].output_gradient)), rel=1e-2)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_the_first_value_that_is_not_finite_is_found():
    params, x, y = (
        nn.init(0, (4, 3, 3, 2), (nn.relu, nn.relu, nn.identity)),
        np.ones((5, 4), np.float32),
        np.ones((5, 2)),
    )
    spoilt = nn.tree_map_with_path(lambda path, p: p * np.nan if path == "layers.1.biases" else p, params)
    steep = nn.tree_map_with_path(
        lambda path, p: p * (1e10 if path == "layers.0.weights" else 1e-38 if path == "layers.1.weights" else 1), params
    )
    steep = nn.tree_map_with_path(lambda path, p: p * (1e38 if path == "layers.2.weights" else 1), steep)
    large = nn.tree_map_with_path(lambda path, p: p * 1e30 if path == "layers.1.weights" else p, params)
    for network, batch, where in (
        (params, x, "none"), (params, x * np.inf, "the input: 20 of 20"),
        (spoilt, x, "the parameters of layers.1: 3 of 12"), (large, x * 1e20, "the output of layers.1: "),
        (large, x * 1e4, "the loss: 1 of 1"), (steep, x, "the gradient at the output of layers.1: "),
    ):  # fmt: skip
        assert f"first values that are not finite: {where}" in str(nn.inspect(network, batch, y))


def test_nothing_warns_where_there_is_nothing_to_compute_with():
    params, x = nn.init(0, (4, 3, 2), (nn.relu, nn.softmax)), np.ones((5, 4), np.float32)
    empty, unknown = nn.inspect(params, x[:0]), nn.inspect(params, np.nan * x)
    assert "nan" not in str(empty) + str(unknown) and "<svg" not in nn.html((empty, unknown))
    one = nn.Dense(np.eye(1), np.zeros(1), nn.relu), nn.Dense(np.eye(1), np.zeros(1), nn.identity)
    assert "the input: 1 of 1" in str(nn.inspect(nn.Params(one), np.asarray([[np.inf]])))
    shown = cells(nn.inspect(0 * params, x, np.zeros(5, int)), "layers.0")
    assert shown["|gradient|"] == "0" and "/ |layer|" not in shown
    inspection = nn.inspect(params, x, np.zeros(5, int))
    *rows, last = inspection.rows
    spoilt = type(inspection)((*rows, attrs.evolve(last, output_gradient=np.nan * last.output)), inspection.loss)
    assert str(spoilt).endswith("not finite: the gradient at the logits: 10 of 10")


def test_integers_below_the_first_parameters_have_no_gradient():
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    shifted = Ruled(lambda layer, x: (x + 1, lambda dy: (layer, lambda: 1 / 0)))
    dense = nn.init(0, (3, 2), [nn.softmax]).layers[0]
    network = nn.Params((shifted, Embedding(table), dense))
    words, labels = np.asarray([0, 3, 2]), np.asarray([0, 1, 1])
    first, second, third, _ = nn.inspect(network, words, labels).rows
    assert first.gradient is first.output_gradient is None
    gradient = nn.grads(network, words, labels)
    assert_equal((second.gradient, third.gradient), (gradient.layers[1], gradient.layers[2]))
    assert re.search(r"layers.1 +Embedding +\(3, 3\)", str(nn.inspect(network, words, labels)))


def test_derivatives_that_are_nan_give_no_shares_of_dead_units():
    root = nn.Activation("root", lambda z: abs(z) ** 0.5, lambda z, y, dy: dy * z / (2 * y**3))
    with np.errstate(invalid="ignore"):
        table = repr(nn.inspect(nn.Dense(np.eye(3), np.zeros(3), root), np.asarray([[1.0, 4.0, 0.0]])))
    assert "nan%" in table and "nan%" not in repr(nn.inspect(nn.Dense(np.eye(3), np.zeros(3), root), np.ones((1, 3))))
