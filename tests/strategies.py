"""Random networks and data for them, and what several test modules need."""

import contextlib
import resource
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import purenn as nn

ACTIVATIONS = (
    nn.tanh, nn.relu, nn.sigmoid, nn.identity, nn.softmax, nn.leaky_relu, nn.elu, nn.softplus, nn.gelu, nn.silu
)  # fmt: skip
FUZZ = max(2_000, settings().max_examples)  # how many inputs a fuzz test tries
NUMBERS = {  # the arguments that are numbers, by their names in messages, and calls with a tree and the number
    "lr": lambda p, c: (nn.sgd_step(p, p, c), nn.adam_step(p, p, nn.adam_init(p), c)),
    "momentum": lambda p, c: nn.momentum_step(p, p, p, 0.1, momentum=c, nesterov=True),
    "eps": lambda p, c: nn.adam_step(p, p, nn.adam_init(p), 0.1, eps=c),
    "weight_decay": lambda p, c: nn.adam_step(p, p, nn.adam_init(p), 0.1, weight_decay=c),
    "max_norm": lambda p, c: nn.clip_by_global_norm(p, c),
    "the factor": lambda p, c: c * p,
    "the divisor": lambda p, c: p / c,
}
SETTINGS = {  # the same for those that must be numbers of Python under jax.jit
    "beta1": lambda p, c: nn.adam_step(p, p, nn.adam_init(p), 0.1, beta1=c),
    "beta2": lambda p, c: nn.adam_step(p, p, nn.adam_init(p), 0.1, beta2=c),
    "rate": lambda p, c: nn.forward(nn.Dropout(c, 1), p.weights),
    "peak_lr": lambda p, c: nn.sgd_step(p, p, nn.warmup_cosine(3, c, 10)),
    "final_lr": lambda p, c: nn.sgd_step(p, p, nn.warmup_cosine(3, 0.1, 10, final_lr=c)),
    "initial_lr": lambda p, c: nn.sgd_step(p, p, nn.exponential_decay(3, c, 10, 0.5)),
    "decay_rate": lambda p, c: nn.sgd_step(p, p, nn.exponential_decay(3, 0.1, 10, c)),
    "a value": lambda p, c: nn.sgd_step(p, p, nn.piecewise_constant(3, [c], [])),
}
OUTPUTS = (nn.softmax, nn.sigmoid, nn.identity)

dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32)


@st.composite
def networks(draw, dtype=dtypes, hidden=ACTIVATIONS, outputs=OUTPUTS, max_width=20):
    """Networks of 1 to 5 layers with random biases, so that none of them stands out."""
    sizes = draw(st.lists(st.integers(1, max_width), min_size=2, max_size=6))
    activations = [*draw(st.lists(st.sampled_from(hidden), min_size=len(sizes) - 2, max_size=len(sizes) - 2))]
    params = nn.init(draw(seeds), sizes, [*activations, draw(st.sampled_from(outputs))], dtype=draw(dtype))
    random = np.random.default_rng(draw(seeds))
    return nn.tree_map(lambda p: p + 0.1 * random.standard_normal(p.shape).astype(p.dtype), params)


@st.composite
def problems(draw, max_rows=8, **options):
    """A network, a batch, and targets that fit its output."""
    params = draw(networks(**options))
    n, random = draw(st.integers(1, max_rows)), np.random.default_rng(draw(seeds))
    x = random.standard_normal((n, params.fan_in)).astype(params.layers[0].weights.dtype)
    return params, x, targets(random, params, n, soft=draw(st.booleans()))


def targets(random, params, n, soft):
    k, output = params.fan_out, params.layers[-1].activation
    if output == nn.identity:
        return random.standard_normal((n, k))
    if output == nn.sigmoid:
        return random.random((n, k)) if soft else random.integers(0, 2, (n, k))
    return random.dirichlet(np.ones(k), n) if soft else random.integers(0, k, n)


def relative_error(a, b):
    """The distance of two trees of arrays, relative to their size (at least 1e-3; below, rounding dominates)."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in nn.tree_leaves(tree)]).astype(np.float64) for tree in (a, b))
    return np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b), 1e-3)


@contextlib.contextmanager
def little_memory():
    """Allow at most 256 MB beyond current use; a larger allocation is a MemoryError, which no test expects."""
    now = Path("/proc/self/statm")
    if not now.exists():  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(now.read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
