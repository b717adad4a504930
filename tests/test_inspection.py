"""What one sees of a network: the check of its rules, the table of its layers, and its picture."""

import base64
import importlib
import re
import struct
import sys
import zlib
from pathlib import Path

import array_api_strict as strict
import attrs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import purenn as nn
from tests.strategies import ACTIVATIONS, dtypes, networks, problems, seeds


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    yield importlib.import_module
    sys.path.pop(0)


@settings(max_examples=30)
@given(networks(hidden=ACTIVATIONS, outputs=ACTIVATIONS), st.integers(1, 6), seeds, dtypes)
def test_networks_of_the_package_pass(params, n, seed, dtype):
    x = np.random.default_rng(seed).standard_normal((n, params.fan_in)).astype(dtype)
    nn.check_vjp(params, x)
    for layer in (
        params.layers[0],
        nn.Dropout(0.5),
        nn.Dropout(0.5, seed),
        nn.seeded(nn.Params((nn.Dropout(0.3), params)), seed),
    ):
        nn.check_vjp(layer, x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_activations_pass_on_inputs_of_any_shape(activation, shape):
    if shape or activation != nn.softmax:  # which needs an axis
        nn.check_vjp(activation, np.asarray(np.random.default_rng(0).standard_normal(shape)))


def test_layers_of_the_examples_pass(example):
    pytest.importorskip("matplotlib", reason="needs the extra 'examples'")
    pytest.importorskip("tqdm", reason="needs the extra 'examples'")
    random = np.random.default_rng(0)
    convolution = example("convolution")
    images = random.standard_normal((3, 8, 8, 1)).astype(np.float32)
    network = convolution.network(0, (8, 8))
    nn.check_vjp(network, images)
    for layer in network.layers:
        nn.check_vjp(layer, images)
        images = nn.forward(layer, images)
        images = images + 0.01 * random.standard_normal(images.shape).astype(np.float32)  # parts the ties of zeros


@nn.record
class Mix(nn.Vector):
    """y = (x @ matrix) * scale + shift, with a rule that has a fault."""

    matrix: nn.Array
    scale: nn.Array
    shift: nn.Array
    fault: str = ""


FAULTS = {  # what the rule does to its output, gradients and dx; and what the error says
    "": (lambda y, m, a, b, dx: (y, m, a, b, dx), None),
    "factor": (lambda y, m, a, b, dx: (y, m, 1.0001 * a, b, dx), r"the rule of Mix gives a wrong gradient.scale: -?\d.* along a random direction, but differences give -?\d"),
    "transposed": (lambda y, m, a, b, dx: (y, m.T, a, b, dx), "a wrong gradient.matrix: "),
    "sign": (lambda y, m, a, b, dx: (y, m, a, -b, dx), "a wrong gradient.shift: "),
    "zeros": (lambda y, m, a, b, dx: (y, m, a, 0 * b, dx), "a wrong gradient.shift: "),
    "NaN": (lambda y, m, a, b, dx: (y, m, a, b + np.nan, dx), "a wrong gradient.shift: it is not finite"),
    "infinite entry": (lambda y, m, a, b, dx: (y, m, np.where(np.arange(4) == 1, np.float32("inf"), a), b, dx), "a wrong gradient.scale: it is not finite"),
    "one entry": (lambda y, m, a, b, dx: (y, m + np.outer(b, [0, 0, 1, 0]).astype(m.dtype), a, b, dx), "a wrong gradient.matrix: "),
    "dx": (lambda y, m, a, b, dx: (y, m, a, b, dx + 0.001), "a wrong dx: "),
    "output": (lambda y, m, a, b, dx: (y + 1e-5, m, a, b, dx), r"the rule of Mix gives a wrong y: it differs from forward\(layer, x\) by up to 1e-05"),
    "infinite": (lambda y, m, a, b, dx: (y + np.inf, m, a, b, dx), r"gives y = f64\[3,4\], but must give numbers, at least one, and all finite"),
    "output's shape": (lambda y, m, a, b, dx: (y[:, :1], m, a, b, dx), r"y of the rule of Mix differs from forward\(layer, x\) in float32: f32\[3,1\] instead of f32\[3,4\]"),
    "shape": (lambda y, m, a, b, dx: (y, m, a, b[None], dx), r"the result of the rule of Mix differs from the layer and x at gradient.shift: f32\[1,4\] instead of f32\[4\]"),
    "dtype": (lambda y, m, a, b, dx: (y, m.astype(np.float64), a, b, dx), r"at gradient.matrix: f64\[4,4\] instead of f32\[4,4\]"),
    "shape of dx": (lambda y, m, a, b, dx: (y, m, a, b, dx[:2]), r"the result of the rule of Mix differs from the layer and x at dx: f32\[2,4\] instead of f32\[3,4\]"),
    "dx a list": (lambda y, m, a, b, dx: (y, m, a, b, dx.tolist()), "the result of the rule of Mix differs from the layer and x at dx: list of 3 instead of a leaf"),
}  # fmt: skip


def values_of(layer, x):
    return x @ layer.matrix * layer.scale + layer.shift


@nn.forward.register
def mix_forward(layer: Mix, x):
    return values_of(layer, x)


@nn.vjp.register
def mix_vjp(layer: Mix, x):
    def faulty(dy):
        dz = dy * layer.scale
        gradients = x.T @ dz, (dy * (x @ layer.matrix)).sum(axis=0), dy.sum(axis=0)
        return FAULTS[layer.fault][0](values_of(layer, x), *gradients, dz @ layer.matrix.T)

    def pullback(dy):
        _, *gradients, dx = faulty(dy)
        return nn.tree_map(lambda p: p, Mix(*gradients, layer.fault)), lambda: dx

    return faulty(np.zeros_like(x))[0], pullback


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_named(fault):
    random = np.random.default_rng(0)
    layer = Mix(*(random.standard_normal(shape).astype(np.float32) for shape in ((4, 4), 4, 4)), fault)
    x, message = random.standard_normal((3, 4)).astype(np.float32), FAULTS[fault][1]
    if message is None:
        nn.check_vjp(layer, x)
        return
    with pytest.raises(ValueError, match=message):
        nn.check_vjp(layer, x)
    if "gradient." in message and "gives" not in fault:
        with pytest.raises(ValueError, match=r"gradient\.layers\.0\."):
            nn.check_vjp(nn.Params((layer, nn.init(0, (4, 2), [nn.tanh]).layers[0])), x)


@given(seeds)
def test_a_factor_is_found_in_any_activation(seed):
    random = np.random.default_rng(seed)
    z = np.append(random.standard_normal(5), 1.0)  # one is positive, so that not all units of relu are dead
    for f in ACTIVATIONS:
        slightly_wrong = nn.Activation(
            f"almost_{f}", f.function, lambda z, y, dy, f=f: (1 + 1e-4) * f.pullback(z, y, dy)
        )
        with pytest.raises(ValueError, match=f"the pullback of almost_{f} gives a wrong dx: "):
            nn.check_vjp(slightly_wrong, z)


@nn.record
class Broken:
    result: nn.Array | None = None
    dx: str | None = None


@nn.vjp.register
def broken_vjp(layer: Broken, x):
    return x, lambda dy: (layer, layer.dx) if layer.dx else layer


def test_what_is_not_a_pair_or_not_callable_is_named():
    for layer, message in (
        (Broken(), "the pullback of Broken"),
        (Broken(dx="dx"), r"\(Broken\(.*, 'dx'\), but must return a pair"),
    ):
        with pytest.raises(TypeError, match=message):
            nn.check_vjp(layer, np.ones((2, 2)))
    with pytest.raises(TypeError, match="vjp has no rule for int"):
        nn.check_vjp(3, np.ones((2, 2)))


@given(seeds)
def test_directions_that_cross_a_kink_are_drawn_anew(seed):
    z = np.random.default_rng(seed).standard_normal(6)
    assume(np.abs(z).min() > 1e-4)
    nn.check_vjp(nn.relu, np.append(z, 6e-6))  # one of three directions moves the last across 0


def test_a_point_on_a_kink_is_said_to_be_one():
    with pytest.raises(
        ValueError, match=r"a wrong dx, or x is too close to kinks; take fewer examples, or values of x that are apart"
    ):
        nn.check_vjp(nn.relu, np.zeros((2, 3)))
    nn.check_vjp(nn.relu, np.zeros((2, 3)) + 0.01 * np.random.default_rng(0).standard_normal((2, 3)))
    with pytest.raises(ValueError, match=r"gives y = f64\[0,3\], but must give numbers, at least one"):
        nn.check_vjp(nn.relu, np.zeros((0, 3)))


@nn.record
class Embedding(nn.Vector):
    table: nn.Array
    slope: float = 1.0


@nn.vjp.register
def embedding_vjp(layer: Embedding, x):
    def pullback(dy):
        one_hot = (x[..., None] == np.arange(len(layer.table))).astype(dy.dtype)
        table = np.tensordot(one_hot, dy, axes=(tuple(range(x.ndim)), tuple(range(x.ndim))))
        return Embedding(layer.slope * table, layer.slope), lambda: 1 / 0

    return layer.table[x], pullback


def test_integers_have_no_gradient():
    table, words = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.asarray([[0, 4], [4, 2]])
    nn.check_vjp(Embedding(table), words)
    with pytest.raises(ValueError, match=r"the rule of Embedding gives a wrong gradient.table"):
        nn.check_vjp(Embedding(table, 1.001), words)


@nn.record
class MaskedMean(nn.Vector):
    """The weighted mean of the values that a mask lets through."""

    weight: nn.Array
    factor: float = 1.0


@nn.vjp.register
def masked_mean_vjp(layer: MaskedMean, x):
    mask, values = x
    kept = np.where(~mask, values, 0)  # which needs booleans

    def pullback(dy):
        slope = layer.factor * np.where(~mask, dy[:, None] * layer.weight, 0) / mask.shape[1]
        return MaskedMean((dy * kept.mean(axis=1)).sum(), layer.factor), lambda: (mask, slope.astype(values.dtype))

    return layer.weight * kept.mean(axis=1), pullback


def test_the_floats_among_several_inputs_are_checked():
    random = np.random.default_rng(0)
    x = random.random((4, 5)) < 0.5, random.standard_normal((4, 5)).astype(np.float32)
    nn.check_vjp(MaskedMean(np.float32(2)), x)
    with pytest.raises(ValueError, match=r"the rule of MaskedMean gives a wrong dx\.1: "):
        nn.check_vjp(MaskedMean(np.float32(2), 1.001), x)


def test_what_cannot_be_checked_is_said():
    with pytest.raises(ValueError, match="there are no arrays of numbers in the layer and x"):
        nn.check_vjp(nn.Dropout(0.5), np.ones((2, 2), int))
    log = nn.Activation("log", np.log, lambda z, y, dy: dy / z)
    nn.check_vjp(log, np.asarray([1.0, 2.0, 1e-3]))


@given(seeds, st.sampled_from([0, 10, 1000]))
def test_the_size_of_x_does_not_matter(seed, offset):
    random = np.random.default_rng(seed)
    x = offset + random.standard_normal((8, 6))

    def normalized(z):
        return (z - z.mean(axis=0)) / z.std(axis=0)

    def pullback(z, y, dy, factor=1.0):
        return factor * (dy - dy.mean(axis=0) - y * (dy * y).mean(axis=0)) / z.std(axis=0)

    nn.check_vjp(nn.Activation("norm", normalized, pullback), x)
    with pytest.raises(ValueError, match="the pullback of norm gives a wrong dx: "):
        nn.check_vjp(nn.Activation("norm", normalized, lambda *args: pullback(*args, factor=1.0001)), x)


def test_it_draws_the_same_numbers_each_time_and_runs_on_other_arrays():
    params = nn.init(0, (4, 3, 2), (nn.relu, nn.softmax))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    nn.check_vjp(nn.tree_map(strict.asarray, params), strict.asarray(x))
    nn.check_vjp(nn.gelu, strict.asarray(x))
    messages = set()
    for _ in range(2):
        with pytest.raises(ValueError, match="gives a wrong") as error:
            nn.check_vjp(nn.Activation("half", nn.tanh.function, lambda z, y, dy: dy * (1 - y * y) / 2), x)
        messages.add(str(error.value))
    assert len(messages) == 1


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


@nn.record
class Twice:
    """Your own layer, without a line for inspections."""


@nn.vjp.register
def twice_vjp(layer: Twice, x):
    return 2 * x, lambda dy: (layer, lambda: 2 * dy)


def test_nested_and_parameterless_layers_have_rows_and_count_once():
    first, second, last = nn.init(0, (4, 3, 3, 2), (nn.tanh, nn.relu, nn.softmax)).layers
    x, y = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32), np.arange(5) % 2
    nested = nn.Params((Twice(), first, nn.Params((nn.Dropout(0.5), second)), nn.Params((last,))))
    flat = nn.Params((Twice(), first, nn.Dropout(0.5), second, last))
    inspection = nn.inspect(nested, x, y)
    text = str(inspection)
    leaves = [row for row in inspection.rows if not isinstance(row.layer, nn.Params)]
    for ours, theirs in zip(leaves, nn.inspect(flat, x, y).rows, strict=True):
        assert_equal((ours.input, ours.output, ours.gradient), (theirs.input, theirs.output, theirs.gradient))
    assert [line.split("  ")[0] or line.strip().split("  ")[0] for line in text.splitlines()[1:-1]] == [
        "layers.0", "layers.1", "layers.2", "layers.2.layers.0", "layers.2.layers.1", "layers.3", "layers.3.layers.0", "prediction"
    ]  # fmt: skip
    assert "\n  layers.2.layers.1" in text and re.search(
        r"\n35 parameters; loss [\d.]+; first values that are not finite: none$", text
    )
    header = inspection.rows[2]
    assert header.gradient == nn.Params((nn.Dropout(0.5), leaves[3].gradient))
    assert_equal((header.input, header.output), (leaves[1].output, leaves[3].output))
    assert all(row.gradient is None for row in nn.inspect(nested, x).rows)
    assert nn.inspect(nn.Params((Twice(), Twice())), x).rows[1].output.tolist() == (4 * x).tolist()
    assert str(nn.inspect(Twice())).splitlines()[1].split() == ["Twice", "(n,", "?)", "0"]
    assert len(nn.inspect(first, x).rows) == 2


def cells(inspection, path):
    """The cells of a row of the printed table by their headings."""
    head, *lines = (re.split(r"  +", line) for line in str(inspection).splitlines()[:-1])
    return next(dict(zip(head, line, strict=False)) for line in lines if line[0] == path)


def test_dead_and_saturated_units_are_counted():
    weights = np.asarray([[1.0, 1.0, 1.0, 30.0]])
    x = np.linspace(0.1, 1, 8)[:, None]
    for f, biases, dead, saturated in (
        (nn.relu, [0, -5, -0.5, 0], "25%", "0%"), (nn.tanh, [0, -5, 9, -1e3], "25%", "50%"), (nn.sigmoid, [0, 0, 9, 9], "0%", "50%")
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
        (params, x, "none"), (params, x * np.inf, "the input: 20 of 20"), (spoilt, x, "the parameters of layers.1: 3 of 12"),
        (large, x * 1e20, "the output of layers.1: "), (large, x * 1e4, "the loss: 1 of 1"), (steep, x, "the gradient at the output of layers.1: ")
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


def test_wrong_arguments_of_inspect():
    params, x = nn.init(0, (4, 2), [nn.tanh]), np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match=r"y was given without x; inspect\(params, x, y\) takes both"):
        nn.inspect(params, y=np.ones(3))
    with pytest.raises(TypeError, match="the network ends in tanh, which determines no loss"):
        nn.inspect(params, x, np.ones(3))
    with pytest.raises(ValueError, match="x has 3 features, but the layer takes 4"):
        nn.inspect(params, x[:, :3])
    for arguments in ((3,), (3, x)):
        with pytest.raises(TypeError, match="vjp has no rule for int"):
            nn.inspect(*arguments)


def test_what_inspect_checks_is_what_forward_and_grads_check():
    params, x, y = nn.init(0, (4, 2), [nn.softmax]), np.ones((3, 4), np.float32), np.asarray([0, 1, 0])
    with pytest.raises(TypeError, match=r"the pullback of Broken \(broken_vjp\) returned .* must return a pair"):
        nn.inspect(nn.Params((Broken(), *params.layers)), x, y)
    with pytest.raises(TypeError, match=r"returned f32\[\], but must return an array with one row per example"):
        nn.inspect(nn.Params((Mean(), *params.layers)), x)
    with pytest.raises(TypeError, match="is i64") as error:
        nn.inspect(nn.Params((nn.Dropout(0.5), *params.layers)), np.ones((3, 4), int))
    assert error.value.__notes__ == ["in layers.0"]


def test_integers_below_the_first_parameters_have_no_gradient():
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    dense = nn.init(0, (3, 2), [nn.softmax]).layers[0]
    network = nn.Params((Shifted(), Embedding(table), dense))
    words, labels = np.asarray([0, 3, 2]), np.asarray([0, 1, 1])
    first, second, third, _ = nn.inspect(network, words, labels).rows
    assert first.gradient is first.output_gradient is None
    gradient = nn.grads(network, words, labels)
    assert_equal((second.gradient, third.gradient), (gradient.layers[1], gradient.layers[2]))
    assert re.search(r"layers.1 +Embedding +\(3, 3\)", str(nn.inspect(network, words, labels)))


@nn.record
class Shifted:
    pass


@nn.vjp.register
def shifted_vjp(layer: Shifted, x):
    return x + 1, lambda dy: (layer, lambda: 1 / 0)


@nn.record
class Mean:
    pass


@nn.vjp.register
def mean_vjp(layer: Mean, x):
    return x.mean(), lambda dy: (layer, lambda: dy)


def pixels(page):
    """The pixels of all pictures of a page, as palette indices."""
    for source in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        png = base64.b64decode(source)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, at = {}, 8
        while at < len(png):
            (length,) = struct.unpack(">I", png[at : at + 4])
            name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
            assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
            chunks[name], at = data, at + 12 + length
        width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
        assert len(chunks[b"PLTE"]) == 3 * len(chunks[b"tRNS"]) == 3 * 34
        rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
        assert not rows[:, 0].any() and rows.max() < 34
        yield rows[:, 1:].astype(int)


def test_pictures_show_signs_sizes_and_what_is_not_finite():
    (picture,) = pixels(nn.html(np.asarray([[-2.0, 0.0, 2.0], [1.0, np.nan, -np.inf]])))
    assert picture.tolist() == [[0, 16, 32], [24, 33, 33]]
    text = nn.html(np.asarray([[-2.0, 0.0, 2.0], [1.0, np.nan, -np.inf]]))
    assert "f64[2,3] -2 … 0.25 … 2 <mark>2 not finite</mark>" in text
    assert "<mark>" not in nn.html(np.ones(3))
    assert "f32[4] 3e+38 … 3e+38 … 3e+38" in nn.html(np.full(4, 3e38, np.float32)) and '<img height="8"' in nn.html(
        np.ones(3)
    )
    assert "f64[2] <mark>2 not finite</mark></div>" in nn.html(np.full(2, np.nan))
    for array in (np.zeros((0, 3)), np.asarray("text"), np.ones(2, complex)):
        assert "<img" not in nn.html(array)
    assert "f32[] 2.5" in nn.html(np.float32(2.5)[None].reshape(())) and "bool[2]" in nn.html(np.asarray([True, False]))


def test_first_weights_are_images_and_digits_have_labels():
    params = nn.init(0, (64, 10, 9), (nn.tanh, nn.softmax))
    first, *_ = pixels(params._repr_html_())
    assert first.shape == (18, 72)
    tile = np.round(16 * params.layers[0].weights[:, 0] / abs(params.layers[0].weights).max()).reshape(8, 8) + 16
    for fan_in in (4, 8):  # not images of at least 4 by 4 pixels
        assert next(pixels(nn.html(nn.init(0, (fan_in, 3, 2), (nn.relu, nn.relu))))).shape == (fan_in, 3)
    wide, narrow = nn.init(0, (64, 16, 9), (nn.relu, nn.relu)).layers
    assert next(pixels(nn.html(nn.Params((nn.Params((wide,)), narrow))))).shape == (18, 72)
    assert [picture.shape for picture in pixels(nn.html(nn.Params((wide, nn.Params((narrow,))))))][2] == (16, 9)
    assert first[:8, :8].tolist() == tile.tolist() and (first[8] == 16).all() and (first[9:, 18:] == 16).all()
    data = nn.mnist.digits()
    labels = re.findall(r"<figcaption>(\d)</figcaption>", nn.html(data))
    assert labels == [str(label) for label in data.train_labels[:20]]
    digit = next(pixels(nn.html(data)))
    image = data.train_images[0].reshape(8, 8)
    assert digit.tolist() == (np.round(16 * (image / image.max())) + 16).tolist()


@nn.record
class Named:
    text: str
    parts: nn.Tree = None


TREES = {
    "script": {"<script>alert(1)</script>": Named("<b>&\"'", (np.ones(2), "</details><script>"))},
    "many arrays": tuple(np.random.default_rng(0).standard_normal((300, 60, 60))),
    "many leaves": list(range(100_000)),
    "deep": None,
    "long": {"x" * 1_000_000: "y" * 1_000_000, "z": Named("t" * 1_000_000)},
    "large": np.random.default_rng(0).standard_normal((2_000, 2_000)),
    "first weights": nn.init(0, (784, 300, 10), (nn.tanh, nn.softmax)),
    "layers": nn.init(0, [8] * 400, [nn.relu] * 399),
    "inspection": nn.inspect(nn.init(0, [8] * 400, [nn.relu] * 399), np.ones((9, 8), np.float32)),
    "emoji": {"😀" * 80 + str(number): "😀" * 100 for number in range(2_000)},
    "mixed": (
        *np.random.default_rng(0).standard_normal((34, 48, 48)),
        nn.inspect(nn.init(0, [8] * 99, [nn.relu] * 98), np.ones((9, 8), np.float32)),
    ),
    "surrogates": {"\ud800": "\udfff\0"},
    "nothing": (
        nn.tree_map(np.mean, nn.mnist.digits()),
        nn.tree_map(lambda a: a[:, ::2] if a.ndim == 2 else a, nn.mnist.digits()),
        np.ma.ones(3),
        np.full((2, 2), np.nan),
    ),
    "huge": np.asarray([1.7e308, -1.7e308, 5e-324, 0]),
}
for _ in range(500):
    TREES["deep"] = (TREES["deep"], 1)


@pytest.mark.parametrize("name", TREES)
def test_pages_are_small_well_formed_and_escaped(name):
    page = nn.html(TREES[name])
    assert len(page.encode()) <= 100_000
    assert "<script" not in page
    for tag in ("div", "details", "summary", "table", "tr", "td", "th", "figure", "mark", "b", "svg"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert all(picture.size < 20_000 for picture in pixels(page))
    assert ("…</" in page) == (name in ("many arrays", "many leaves", "deep", "layers", "inspection", "emoji", "mixed"))
    assert ("prediction" in page) == ("inspection" in name)


def test_every_record_has_its_picture_and_inspections_their_histograms():
    assert Named("a")._repr_html_() == nn.html(Named("a"))
    own = nn.record(type("Own", (), {"__annotations__": {"name": str}, "_repr_html_": lambda self: "mine"}))
    assert own("x")._repr_html_() == "mine"
    inspection = nn.inspect(nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax)), np.eye(4, dtype=np.float32), np.arange(4) % 2)
    page = inspection._repr_html_()
    two = nn.html(nn.inspect(nn.Dense(np.eye(1), np.zeros(1), nn.identity), np.asarray([[0.0], [1.0]])))
    assert "M0,16h3v-16.0h-3zM4,16h3v0.0" in two.replace("-0.0", "0.0") and "M60,16h3v-16.0h-3z" in two
    assert page.count("<svg") == 3 and "<th>dead</th>" in page and "<td>Dense tanh</td>" in page
    assert "<svg" not in nn.html(nn.inspect(inspection.rows[0].layer, np.full((2, 4), np.nan, np.float32)))
    assert "f16[70000] 1 … 1 … 1<" in nn.html(np.ones(70_000, np.float16))
    there = nn.tree_map(strict.asarray, nn.init(0, (4, 3), [nn.softmax]))
    assert nn.html(there) == nn.html(nn.init(0, (4, 3), [nn.softmax]))
    assert str(nn.inspect(there, strict.ones((2, 4), dtype=strict.float32))).count("\n") == 3
