"""What a page can ask for: every command is a pure function, ``(run, ...) -> (run, answer)``."""

import base64
from typing import Annotated

import attrs
import numpy as np
import runs
from pydantic import Field, validate_call

import purenn as nn

Count = Annotated[int, Field(ge=0, lt=2**53)]
Example = list[runs.Coordinate]
Unit = tuple[Annotated[int, Field(ge=0, le=2)], Count]  # the number of a layer, and of a unit in it
When = tuple[Count, Count]  # the number of a branch, and a step

# How numbers travel


def numbers(array):
    """Return a flat list of the numbers, with four significant digits."""
    return [float(f"{value:.4g}") for value in np.ravel(array).tolist()]


def picture(array):
    """Return the numbers as bytes from -127 to 127, and the magnitude that 127 stands for."""
    array = np.nan_to_num(np.ravel(array))
    top = float(abs(array).max())
    levels = np.round(array * (127 / top if top else 0)).astype(np.int8)
    return {"top": float(f"{top:.3g}"), "levels": base64.b64encode(levels).decode()}


def status(run, seen=None):
    """Return what is new for a page that shows an older run, ``seen``; omit the branches that did not change."""
    old = dict(enumerate(seen.branches)) if seen else {}
    new = {k: branch for k, branch in enumerate(run.branches) if branch and branch is not old.get(k)}
    return {
        "training": run.is_training,
        "memory": run.nbytes,
        "branches": [k for k, branch in enumerate(run.branches) if branch],
        "settings": {k: branch[-1].settings.model_dump() for k, branch in new.items()},
        "curves": {k: [(moment.step, *moment.figures) for moment in branch] for k, branch in new.items()},
    }


# Learn


def train(run):
    """Go on training."""
    return attrs.evolve(run, is_training=True), {}


def pause(run):
    """Stop training."""
    return attrs.evolve(run, is_training=False), {}


def one_step(run):
    """Take one step."""
    return pause(runs.grown(run, next(runs.training(run, seconds=0))))


def start_over(run, settings: runs.Settings):
    """Begin a run with new parameters."""
    return runs.start(run.digits, settings), {}


def change(run, settings: runs.Settings):
    """Go on with other settings."""
    return runs.changed(run, settings), {}


def add_point(run, point: runs.Point):
    """Add a point to the plane."""
    old = run.head.settings.model_dump()
    return runs.changed(run, runs.Settings(**old | {"points": (*old["points"], point)})), {}


# Time


def branch_off(run, settings: runs.Settings, when: When):
    """Start a branch at a moment, with these settings, and train it."""
    return train(runs.changed(runs.branched(run, *moment_at(run, when)), settings))


def moment_at(run, when):
    """Return the number of a branch, and its last moment up to a step; None means the present."""
    number, step = when or (len(run.branches) - 1, run.head.step)
    if not (number < len(run.branches) and run.branches[number]):
        raise ValueError(f"there is no branch {number}; only the last {runs.BRANCHES} are kept")
    return number, [moment for moment in run.branches[number] if moment.step <= step][-1]


# Draw


def digit(run, number: Count, wrong: bool, when: When | None = None):
    """Get a test digit, or one that the network gets wrong."""
    moment = moment_at(run, when)[1]
    images, labels = run.digits.test_images[:2000], run.digits.test_labels[:2000]
    chosen = np.flatnonzero(nn.predict(moment.params, images) != labels) if wrong else np.arange(len(images))
    if not len(chosen):
        raise ValueError(f"the network gets all of the first {len(images):,} test digits right")
    k = chosen[number % len(chosen)]
    return run, {"x": numbers(images[k]), "label": int(labels[k]), "shape": run.digits.image_shape}


def learn(run, x: Example, target: Count, when: When | None = None):
    """Take one step on one example alone."""
    number, moment = moment_at(run, when)
    new = runs.next_moment(moment, np.float32([x]), np.int64([target]))
    run = run if moment is run.head else runs.branched(run, number, moment)
    return runs.grown(run, [runs.measured(new, runs.data(run.digits, moment.settings))]), {}


# Inside and backwards


def look(run, x: Example, unit: Unit, target: Count | None = None, when: When | None = None):
    """Return the sums and values of all layers for an example and, given a target, the gradients."""
    number, moment = moment_at(run, when)
    params, (layer, column), layers, h = moment.params, unit, [], np.float32([x])
    for dense in params.layers:
        sums, h = nn.logits(dense, h), nn.forward(dense, h)
        layers.append({"sums": numbers(sums), "values": numbers(h)})
    return run, {
        "when": (number, moment.step),
        "settings": moment.settings.model_dump(),
        "layers": layers,
        "weights": picture(params.layers[layer].weights[:, column]),
        "bias": float(params.layers[layer].biases[column]),
        "backwards": None if target is None else _backwards(params, np.float32([x]), np.int64([target]), unit),
        "plane": None if moment.settings.data == "digits" else _surfaces(params, moment.settings),
    }


def _backwards(params, x, y, unit):
    """Return the gradients of one example's loss; a bias has the same gradient as its sum."""
    loss, (z, pullback), (layer, column) = nn.loss(params, x, y), nn.logits_vjp(params, x), unit
    gradient, dx = pullback(nn.softmax(z) - (np.arange(params.fan_out) == y))
    weights = gradient.layers[layer].weights[:, column]
    return {
        "loss": float(loss),
        "sums": [numbers(dense.biases) for dense in gradient.layers],
        "weights": picture(weights),
        "steepest": int(np.argmax(abs(weights))),
        "x": picture(dx()),
    }


def _surfaces(params, settings, side=40, edge=1.5):
    """Return what every unit computes on a grid of points, and the points of the data."""
    across, down = np.meshgrid(np.linspace(-edge, edge, side), np.linspace(edge, -edge, side))
    h, units = np.float32([across.ravel(), down.ravel()]).T, []
    for dense in params.layers:
        h = nn.forward(dense, h)
        units.append([picture(values.reshape(side, side)[::2, ::2]) for values in h.T])
    points = np.column_stack(runs.data(None, settings)[0])
    return {"decision": picture(h[:, 1] - h[:, 0]), "units": units, "points": points.round(3).tolist()}


def check(run, x: Example, unit: Unit, weight: Count, target: Count, when: When | None = None):
    """Return the derivative of the loss with respect to one weight, and a difference quotient, in float64."""
    params = nn.tree_map(lambda p: p.astype(np.float64), moment_at(run, when)[1].params)
    example, dense, entry = (np.float64([x]), np.int64([target])), params.layers[unit[0]], (weight, unit[1])

    def loss(value):
        weights = dense.weights.copy()
        weights[entry] = value
        layers = (attrs.evolve(layer, weights=weights) if layer is dense else layer for layer in params.layers)
        return nn.loss(nn.Params(tuple(layers)), *example)

    derivative = nn.grads(params, *example).layers[unit[0]].weights[entry]
    quotient = nn.numerical_grads(loss, dense.weights[entry])
    return run, {"derivative": f"{derivative:.11e}", "quotient": f"{quotient:.11e}"}


_FUNCTIONS = train, pause, one_step, start_over, change, add_point, branch_off, digit, learn, look, check
COMMANDS = {f.__name__: validate_call(f, config={"allow_inf_nan": False}) for f in _FUNCTIONS}
