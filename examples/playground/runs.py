"""Training runs as sequences of immutable records: settings, data, moments, and branches of moments."""

import itertools
import math
import time
from typing import Annotated, Literal

import attrs
import numpy as np
import pydantic
from pydantic import Field

import purenn as nn

MEMORY = 256 * 2**20  # bytes, for all moments that are kept
BRANCHES = 8
ACTIVATIONS = {str(f): f for f in (nn.tanh, nn.relu, nn.sigmoid, nn.leaky_relu, nn.elu, nn.gelu, nn.silu, nn.identity)}
OPTIMIZERS = {  # the state to start with, and the step
    "sgd": (lambda params: (), lambda params, gradient, state, lr: (nn.sgd_step(params, gradient, lr), state)),
    "momentum": (nn.zeros_like, nn.momentum_step),
    "adam": (nn.adam_init, nn.adam_step),
}

Width = Annotated[int, Field(ge=1, le=256)]
Coordinate = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate, Literal[0, 1]]  # with its class


class Settings(pydantic.BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What you can choose on the page."""

    data: Literal["digits", "moons", "circles", "spirals", "xor", "points"] = "digits"
    widths: tuple[Width, Width] = (128, 64)
    activations: tuple[Literal[*ACTIVATIONS], Literal[*ACTIVATIONS]] = ("tanh", "relu")
    optimizer: Literal[*OPTIMIZERS] = "sgd"
    lr: float = Field(0.1, gt=0, le=100)
    batch_size: int = Field(128, ge=1, le=10_000)
    l2: float = Field(0.0, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**32)
    points: tuple[Point, ...] = Field((), max_length=500)  # added to the plane


# Data


def plane(name, seed, noise=0.08):
    """Return points of two classes in a plane, ``(x, y)``."""
    random, n = np.random.default_rng(seed), 2 if name == "points" else 200
    t, label = random.uniform(0, 1, n), np.arange(n) % 2
    side, turn, radius, spiral = 1 - 2 * label, 2 * np.pi * t, 1.2 * np.sqrt(t), np.pi * (3.5 * np.sqrt(t) + label)
    x1, x2 = {
        "points": (side / 2, np.zeros(n)),
        "moons": (side * (np.cos(turn / 2) - 0.5), side * (np.sin(turn / 2) - 0.25)),
        "circles": ((0.4 + 0.6 * label) * np.cos(turn), (0.4 + 0.6 * label) * np.sin(turn)),
        "spirals": (radius * np.cos(spiral), radius * np.sin(spiral)),
        "xor": (2 * t - 1, side * np.sign(2 * t - 1) * random.uniform(0.1, 1, n)),
    }[name]
    return np.stack([x1, x2], axis=1) + noise * random.standard_normal((n, 2)), label


def data(digits, settings):
    """Return the training and the validation data for the settings, each a pair ``(x, y)``."""
    if settings.data == "digits":
        (x, y), held_out = (digits.train_images, digits.train_labels), max(1, len(digits.train_images) // 12)
        return (x[:-held_out], y[:-held_out]), (x[-held_out:], y[-held_out:])
    added, samples = np.reshape(settings.points, (-1, 3)), (plane(settings.data, seed) for seed in (0, 1))
    return tuple((np.float32([*x, *added[:, :2]]), np.int64([*y, *added[:, 2]])) for x, y in samples)


# Moments


@nn.record
class Moment:
    """A run after a number of steps: everything needed to resume from there."""

    settings: Settings
    step: int
    params: nn.Params
    state: nn.Tree  # of the optimizer
    figures: tuple[float, ...] = ()  # training loss, validation loss, validation accuracy


@np.errstate(all="ignore")  # a rate that is too large leads to infinity, which the page shows
def measured(moment, pairs):
    """Return the moment with its losses and accuracy, on at most 500 examples of each kind."""
    training, validation = ((x[:500], y[:500]) for x, y in pairs)
    figures = (nn.loss, training), (nn.loss, validation), (nn.accuracy, validation)
    return attrs.evolve(moment, figures=tuple(float(f(moment.params, *pair)) for f, pair in figures))


@np.errstate(all="ignore")
def next_moment(moment, x, y):
    """Take one step of the optimizer on a batch."""
    settings, params = moment.settings, moment.params
    gradient = nn.grads(params, x, y)
    if settings.l2:  # the penalty is l2 / 2 times the sum of the squared weights
        gradient += nn.tree_map_with_path(lambda path, p: settings.l2 * path.endswith("weights") * p, params)
    params, state = OPTIMIZERS[settings.optimizer][1](params, gradient, moment.state, settings.lr)
    return Moment(settings, moment.step + 1, params, state)


def is_kept(step, bits):
    """Return whether to keep the moment after a step: every early one, then 2 ** (bits - 1) per doubling of steps."""
    return step % (1 << max(0, step.bit_length() - bits)) == 0


def training(run, seconds):
    """Train forever; every ``seconds`` seconds, yield the new moments to keep, including the current one."""
    moment, pairs, kept, end = run.head, data(run.digits, run.head.settings), [], time.perf_counter() + seconds
    settings, (x, y) = moment.settings, pairs[0]
    while True:
        epoch, done = divmod(moment.step, math.ceil(len(x) / settings.batch_size))
        for batch in itertools.islice(nn.batches((settings.seed, epoch), x, y, settings.batch_size), done, None):
            moment, is_over = next_moment(moment, *batch), time.perf_counter() >= end
            if is_over or is_kept(moment.step, run.bits):
                kept.append(measured(moment, pairs))
            if is_over or (kept and not math.isfinite(sum(kept[-1].figures))):
                yield kept
                kept, end = [], time.perf_counter() + seconds


# Runs


@attrs.frozen(eq=False)
class Run:
    """Everything that all pages share. The last branch is the one that trains.

    A branch begins at step 0; branches share the moments up to their fork. Branches that were dropped are empty.
    """

    digits: nn.mnist.Dataset
    branches: tuple[tuple[Moment, ...], ...]
    is_training: bool = False
    bits: int = 5  # see is_kept

    @property
    def head(self):
        """The moment from which training goes on."""
        return self.branches[-1][-1]

    @property
    def nbytes(self):
        """The memory that all moments use, in bytes."""
        distinct = {id(moment.params): moment for branch in self.branches for moment in branch}
        return sum(leaf.nbytes for moment in distinct.values() for leaf in nn.tree_leaves(moment))


def start(digits, settings):
    """Return a run with one moment: new parameters."""
    pairs, classes = data(digits, settings), 10 if settings.data == "digits" else 2
    activations = [*(ACTIVATIONS[name] for name in settings.activations), nn.softmax]
    params = nn.init(settings.seed, (pairs[0][0].shape[1], *settings.widths, classes), activations)
    return Run(digits, ((measured(Moment(settings, 0, params, OPTIMIZERS[settings.optimizer][0](params)), pairs),),))


def grown(run, new):
    """Return the run with new moments in its last branch; if they take too much memory, keep fewer of all."""
    branches, bits = (*run.branches[:-1], _thinned((*run.branches[-1], *new), run.bits)), run.bits
    run = attrs.evolve(run, branches=branches, is_training=run.is_training and math.isfinite(sum(new[-1].figures)))
    while run.nbytes > MEMORY and bits > 0:
        bits -= 1
        run = attrs.evolve(run, branches=tuple(_thinned(branch, bits) for branch in run.branches), bits=bits)
    return run


def _thinned(branch, bits):
    """Return the moments to keep, the first and the last among them."""
    return tuple(m for m in branch if m is branch[-1] or is_kept(m.step, bits))


def changed(run, settings):
    """Return the run with other settings for the steps that follow."""
    old, fixed = run.head, {"data", "widths", "activations"}
    if settings.model_dump(include=fixed) != old.settings.model_dump(include=fixed):
        raise ValueError("a run keeps its data, widths and activations; use 'Start over' to change them")
    is_same = settings.optimizer == old.settings.optimizer
    state = old.state if is_same else OPTIMIZERS[settings.optimizer][0](old.params)
    head = measured(Moment(settings, old.step, old.params, state), data(run.digits, settings))
    return attrs.evolve(run, branches=(*run.branches[:-1], (*run.branches[-1][:-1], head)))


def branched(run, number, moment):
    """Return the run with a new branch from a moment of another; drop the oldest if there are more than BRANCHES."""
    past = tuple(m for m in run.branches[number] if m.step <= moment.step)
    gone = len(run.branches) + 1 - BRANCHES
    return attrs.evolve(run, branches=(*(() if k < gone else b for k, b in enumerate(run.branches)), past))
