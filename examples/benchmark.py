"""Measure a training step side by side with what people would use instead, and with the limit.

    python examples/benchmark.py            # everything, in under ten minutes on two cores
    python examples/benchmark.py --smoke    # one network, one batch size, one round

A step is the gradient of the cross-entropy and its SGD update, in float32, for networks with tanh, ReLU and softmax.
For small networks, where function calls cost more than matrix products, it is the gradient and its update by Adam (for
JAX, optax's), beside one step of scikit-learn's ``fit`` (for two classes, its network has one output, not two). Every
contender runs in its own process with the same number of threads, and they take turns. Before anything is timed,
all of them must come to the same parameters from the same start. One that is not installed is left out, and the table
says so. The floor is not a contender: it is a step's eight matrix products.

The first line printed names the kernel that NumPy's OpenBLAS has chosen for the processor; ``OPENBLAS_CORETYPE`` in the
environment (``Haswell``: AVX2, ``SkylakeX``: AVX-512) makes it take another.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import operator
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

import numpy as np

import purenn as nn

NETWORKS = [(784, 128, 64, 10), (784, 512, 512, 10), (784, 1024, 1024, 10)]
BATCHES = [32, 128, 512]
SMALL = [((4, 16, 3), 16), ((30, 32, 16, 2), 32), ((64, 64, 32, 10), 32), ((64, 64, 32, 10), 128)]  # with Adam
LR, ADAM_LR, BETA1, BETA2, EPS = 0.1, 1e-3, 0.9, 0.999, 1e-8
QUIET = 0.05  # seconds; threads of the contender that was measured before spin on for a while


# The contenders. Each takes the start (weights and biases by turns), a batch, the activations of the hidden layers and
# the optimizer, and returns two functions: one takes a step, the other returns what the parameters are by then.


def floor(start, x, y, hidden, optimizer):
    """Compute the eight matrix products of a step into preallocated arrays."""
    w1, _, w2, _, w3, _ = start
    random = np.random.default_rng(0)
    h1, h2, logits = (random.random((len(x), w.shape[1]), np.float32) for w in (w1, w2, w3))
    outputs = [np.zeros_like(a) for a in (h1, h2, logits, w3, h2, w2, h1, w1)]
    factors = [(x, w1), (h1, w2), (h2, w3), (h2.T, logits), (logits, w3.T), (h1.T, h2), (h2, w2.T), (x.T, h1)]

    def step():
        for (a, b), out in zip(factors, outputs, strict=True):
            np.matmul(a, b, out=out)

    return step, None


def by_hand(start, x, y, hidden, optimizer):
    """Take steps hand-written in NumPy for these networks only: no functions, no checks, arrays overwritten."""
    leaves, classes, ones = start, np.arange(start[-1].size), np.ones(len(x), np.float32)
    means = squares = [np.zeros_like(leaf) for leaf in start]
    steps = 0

    def step():
        nonlocal leaves, means, squares, steps
        w1, b1, *middle, w3, b3 = leaves
        z1 = x @ w1
        z1 += b1
        h1 = h2 = np.tanh(z1)
        if middle:
            w2, b2 = middle
            z2 = h1 @ w2
            z2 += b2
            h2 = np.maximum(z2, 0)
        z3 = h2 @ w3
        z3 += b3
        exps = np.exp(z3 - z3.max(axis=1, keepdims=True))
        d3 = exps / exps.sum(axis=1, keepdims=True)
        d3 -= y[:, None] == classes
        d3 /= len(x)
        d1 = d2 = d3 @ w3.T
        if middle:
            d2 *= z2 > 0
            d1 = d2 @ w2.T
        d1 *= 1 - h1 * h1
        gradient = [x.T @ d1, ones @ d1, *([h1.T @ d2, ones @ d2] if middle else []), h2.T @ d3, ones @ d3]
        if optimizer == "sgd":
            leaves = [-LR * g + p for g, p in zip(gradient, leaves, strict=True)]
            return
        steps += 1
        alpha, eps = _corrected(steps)
        means = [BETA1 * m + (1 - BETA1) * g for m, g in zip(means, gradient, strict=True)]
        squares = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(squares, gradient, strict=True)]
        leaves = [m / (np.sqrt(v) + eps) * -alpha + p for m, v, p in zip(means, squares, leaves, strict=True)]

    return step, lambda: leaves


def _corrected(steps):
    """Return Adam's rate and eps with the corrections of its averages (Kingma & Ba 2015, end of section 2)."""
    root = (1 - BETA2**steps) ** 0.5
    return ADAM_LR * root / (1 - BETA1**steps), EPS * root


def purenn(start, x, y, hidden, optimizer):
    """Take steps with purenn as it is."""
    params = _params(start, hidden)
    state = nn.adam_init(params)
    (x, y) = next(nn.batches(0, x, y, len(x)))  # what a training loop gets: arrays that nobody can write to

    def step():
        nonlocal params, state
        if optimizer == "sgd":
            params = nn.sgd_step(params, nn.grads(params, x, y), LR)
        else:
            params, state = nn.adam_step(params, nn.grads(params, x, y), state, ADAM_LR, BETA1, BETA2, EPS)

    return step, lambda: nn.tree_leaves(params)


def purenn_jit(start, x, y, hidden, optimizer):
    """Take steps with purenn's functions, compiled by JAX."""
    import jax

    template = _params(start, hidden)

    @jax.jit
    def update(state, x, y):
        values = iter(state[0])
        params = nn.tree_map(lambda _: next(values), template)
        return (nn.tree_leaves(nn.sgd_step(params, nn.grads(params, x, y), LR)),)

    return _jax_steps(update, (start,), x, y)


def jax_jit(start, x, y, hidden, optimizer):
    """Take steps the way of JAX's tutorial: jax.grad of a loss; and optax's Adam."""
    import jax
    import jax.numpy as jnp
    import optax

    activations = [{"tanh": jnp.tanh, "relu": jax.nn.relu}[name] for name in hidden]
    adam = optax.adam(ADAM_LR, BETA1, BETA2, EPS)

    def loss(leaves, x, y):
        for k, activation in enumerate(activations):
            x = activation(x @ leaves[2 * k] + leaves[2 * k + 1])
        return -jnp.mean(jax.nn.log_softmax(x @ leaves[-2] + leaves[-1])[jnp.arange(len(y)), y])

    @jax.jit
    def step_of_sgd(state, x, y):
        (leaves,) = state
        return ([p - LR * g for p, g in zip(leaves, jax.grad(loss)(leaves, x, y), strict=True)],)

    @jax.jit
    def step_of_adam(state, x, y):
        updates, averages = adam.update(jax.grad(loss)(state[0], x, y), state[1])
        return optax.apply_updates(state[0], updates), averages

    return _jax_steps(
        *((step_of_sgd, (start,)) if optimizer == "sgd" else (step_of_adam, (start, adam.init(start)))), x, y
    )


def _jax_steps(update, state, x, y):
    import jax

    state, x, y = jax.device_put((state, x, y))

    def step():
        nonlocal state
        state = jax.block_until_ready(update(state, x, y))

    return step, lambda: state[0]


def torch(start, x, y, hidden, optimizer):
    """Take steps with PyTorch, eager: a Sequential, CrossEntropyLoss and optim.SGD or optim.Adam."""
    import torch

    model, criterion = _torch_model(start, hidden), torch.nn.CrossEntropyLoss()
    if optimizer == "sgd":
        stepper = torch.optim.SGD(model.parameters(), lr=LR)
    else:
        stepper = torch.optim.Adam(model.parameters(), lr=ADAM_LR, betas=(BETA1, BETA2), eps=EPS)
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def step():
        stepper.zero_grad()
        criterion(model(x), y).backward()
        stepper.step()

    return step, lambda: [parameter.detach().numpy().T for parameter in model.parameters()]


def _torch_model(start, hidden):
    import torch

    activations = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
    *below, last = (torch.nn.Linear(*w.shape) for w in start[::2])
    pairs = zip(below, (activations[name]() for name in hidden), strict=True)
    model = torch.nn.Sequential(*itertools.chain(*pairs), last)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(torch.from_numpy(value.T))
    return model


def autograd(start, x, y, hidden, optimizer):
    """Take steps with HIPS autograd."""
    import autograd
    import autograd.numpy as anp

    activations = {"tanh": anp.tanh, "relu": lambda z: anp.maximum(z, 0)}
    targets = np.eye(start[-1].size, dtype=np.float32)[y]
    leaves = start

    def loss(leaves):
        w1, b1, w2, b2, w3, b3 = leaves
        h = activations[hidden[0]](anp.dot(x, w1) + b1)
        h = activations[hidden[1]](anp.dot(h, w2) + b2)
        z = anp.dot(h, w3) + b3
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.sum(targets * (anp.log(anp.sum(anp.exp(z), axis=1, keepdims=True)) - z)) / np.float32(len(x))

    gradient = autograd.grad(loss)

    def step():
        nonlocal leaves
        leaves = [p - np.float32(LR) * g for p, g in zip(leaves, gradient(leaves), strict=True)]

    return step, lambda: leaves


def sklearn(start, x, y, hidden, optimizer):
    """Take steps with scikit-learn's MLPClassifier.partial_fit, which has one activation for all hidden layers."""
    units, classes = [w.shape[1] for w in start[:-2:2]], np.arange(start[-1].size)
    model = _sklearn_model(units, hidden, optimizer, batch_size=len(x), shuffle=False)
    model.partial_fit(x, y, classes=classes)
    for there, value in zip([*model.coefs_, *model.intercepts_], [*start[::2], *start[1::2]], strict=True):
        there[...] = value
    if optimizer == "adam":
        del model._optimizer  # it has taken a step

    def step():
        model.partial_fit(x, y)

    return step, lambda: [array for pair in zip(model.coefs_, model.intercepts_, strict=True) for array in pair]


FITTED = 200  # steps of one call of fit


def sklearn_fit(start, x, y, hidden, optimizer):
    """Take many steps with one call of scikit-learn's MLPClassifier.fit, which checks its input once."""
    options = {"batch_size": len(x), "shuffle": False, "max_iter": FITTED, "n_iter_no_change": FITTED}
    model = _sklearn_model([w.shape[1] for w in start[:-2:2]], hidden, optimizer, **options)

    def steps():
        model.fit(x, y)
        assert model.n_iter_ == FITTED

    return steps, None


def _sklearn_model(units, hidden, optimizer="sgd", **options):
    from sklearn.neural_network import MLPClassifier

    assert len({*hidden}) == 1
    return MLPClassifier(
        units,
        activation=hidden[0],
        solver=optimizer,
        alpha=0,
        learning_rate_init=LR if optimizer == "sgd" else ADAM_LR,
        momentum=0,
        nesterovs_momentum=False,
        random_state=0,
        **options,
    )


def _params(start, hidden):
    activations = {"tanh": nn.tanh, "relu": nn.relu}
    layers = zip(start[::2], start[1::2], [*(activations[name] for name in hidden), nn.softmax], strict=True)
    return nn.Params(tuple(itertools.starmap(nn.Dense, layers)))


CONTENDERS = {  # name: (function, the package it needs, activations of the hidden layers)
    "floor": (floor, "numpy", ("tanh", "relu")),
    "NumPy by hand": (by_hand, "numpy", ("tanh", "relu")),
    "purenn": (purenn, "purenn", ("tanh", "relu")),
    "PyTorch": (torch, "torch", ("tanh", "relu")),
    "jax.jit": (jax_jit, "optax", ("tanh", "relu")),
    "purenn in jax.jit": (purenn_jit, "jax", ("tanh", "relu")),
    "autograd": (autograd, "autograd", ("tanh", "relu")),
    "scikit-learn (relu, relu)": (sklearn, "sklearn", ("relu", "relu")),
    "scikit-learn's fit": (sklearn_fit, "sklearn", ("relu", "relu")),
}
WITH_SGD = [name for name in CONTENDERS if name != "scikit-learn's fit"]
WITH_ADAM = ["NumPy by hand", "purenn", "PyTorch", "jax.jit", "scikit-learn's fit"]


# A worker: one contender in a process of its own, told line by line what to do


def problem(sizes, batch):
    """Return the start and the batch of a case."""
    random = np.random.default_rng(0)
    params = nn.init(0, sizes, [*[nn.tanh, nn.relu][: len(sizes) - 2], nn.softmax])
    x = random.random((batch, sizes[0]), np.float32)
    return [np.array(leaf) for leaf in nn.tree_leaves(params)], x, random.integers(0, sizes[-1], batch)


def work(name):
    """Serve requests: "check" writes the parameters after three steps, "time" the seconds per step, "peak" MiB."""
    contender, _, hidden = CONTENDERS[name]
    prepared = {}

    def check(sizes, batch, optimizer, hidden, path):
        step, parameters = contender(*problem(sizes, batch), hidden[: len(sizes) - 2], optimizer)
        for _ in range(3):
            step()
        np.savez(path, *map(np.asarray, parameters()))
        return 0

    def seconds_a_step(sizes, batch, optimizer, seconds):
        key = (*sizes, batch, optimizer)
        if key not in prepared:
            prepared[key] = contender(*problem(sizes, batch), hidden[: len(sizes) - 2], optimizer)[0]
        time.sleep(QUIET)
        seconds_a_call(prepared[key], QUIET)
        return seconds_a_call(prepared[key], seconds) / (FITTED if contender is sklearn_fit else 1)

    answers = {"check": check, "time": seconds_a_step, "peak": peak_memory}
    for line in sys.stdin:
        request = json.loads(line)
        print(answers[request.pop("do")](**request), flush=True)


def seconds_a_call(function, seconds):
    """Call a function for about that many seconds; return the seconds per call."""
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not calls:
        function()
        calls += 1
    return elapsed / calls


class Worker:
    """The other end: a process that runs a contender."""

    def __init__(self, name):
        command = [sys.executable, __file__, "--worker", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        """Send a request, and return the number that answers it."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"error: a contender ended with status {self.process.wait()}")
        return float(answer)

    def stop(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def environment(threads):
    """Return the environment that gives every library the same number of threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    fixed = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
    return os.environ | fixed | dict.fromkeys(names, str(threads))


def contenders(workers, optimizer):
    """Return the installed contenders that have this optimizer."""
    return [name for name in (WITH_SGD if optimizer == "sgd" else WITH_ADAM) if name in workers]


def check_same_work(workers, sizes, batch, optimizer):
    """Exit unless all contenders reach the same parameters in three steps from the same start."""
    with tempfile.TemporaryDirectory() as directory:
        results = {}
        for name in contenders(workers, optimizer):
            hidden = CONTENDERS[name][2]
            for reference in ("purenn", name):
                if name not in ("floor", "scikit-learn's fit") and (reference, hidden) not in results:
                    path = str(Path(directory) / "parameters.npz")
                    ask = workers[reference].ask
                    ask(do="check", sizes=sizes, batch=batch, optimizer=optimizer, hidden=hidden, path=path)
                    with np.load(path) as arrays:
                        results[reference, hidden] = [arrays[key] for key in arrays]
        start = problem(sizes, batch)[0]
        for (name, hidden), arrays in results.items():
            for array, expected, first in zip(arrays, results["purenn", hidden], start, strict=True):
                error, size = np.abs(array - expected).max(), np.abs(expected - first).max()
                if array.dtype != np.float32 or array.shape != expected.shape or not error <= 1e-3 * size + 1e-7:
                    sys.exit(f"error: {name} reaches other parameters than purenn; they do different work")


# Ten epochs of MNIST, each library in a process of its own


def train(name, directory, epochs=10, batch=128):
    """Train 784-128-64-10 and print seconds, test accuracy and peak memory; "loading" only reads the files."""
    began = time.perf_counter()
    data = nn.mnist.load(directory)
    loading = time.perf_counter() - began
    start, _, _ = problem(NETWORKS[0], 1)
    learner, module = LEARNERS[name]
    importlib.import_module(module)
    began = time.perf_counter()
    predict = learner(start, data.train_images, data.train_labels, epochs, batch)
    seconds = time.perf_counter() - began if predict else loading
    accuracy = float(np.mean(predict(data.test_images) == data.test_labels)) if predict else None
    print(json.dumps([seconds, peak_memory(), accuracy]))


def peak_memory():
    """Return the most memory that this process has held, in MiB; on Linux without what its parent held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _train_purenn(start, x, y, epochs, batch):
    params = _params(start, ("tanh", "relu"))
    for epoch in range(epochs):
        for xb, yb in nn.batches((0, epoch), x, y, batch):
            params = nn.sgd_step(params, nn.grads(params, xb, yb), LR)
    return lambda x: nn.predict(params, x)


def _train_torch(start, x, y, epochs, batch):
    import torch

    torch.manual_seed(0)
    model = _torch_model(start, ("tanh", "relu"))
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=LR), torch.nn.CrossEntropyLoss()
    x, y = torch.from_numpy(np.array(x)), torch.from_numpy(y.astype(np.int64))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return lambda x: model(torch.from_numpy(np.array(x))).argmax(dim=1).numpy()


def _train_sklearn(start, x, y, epochs, batch):
    model = _sklearn_model(
        NETWORKS[0][1:3], ("relu", "relu"), batch_size=batch, max_iter=epochs, n_iter_no_change=epochs
    )
    return model.fit(x, y).predict


LEARNERS = {  # name: (function, the module it needs)
    "loading": (lambda *_: None, "numpy"),
    "purenn": (_train_purenn, "purenn"),
    "PyTorch": (_train_torch, "torch"),
    "scikit-learn (relu, relu)": (_train_sklearn, "sklearn.neural_network"),
}


# Everything in one place


def measure_steps(workers, cases, rounds, seconds):
    """Return each contender's seconds per step, one number per round and case; contenders take turns."""
    times = {case: {name: [] for name in contenders(workers, case[2])} for case in cases}
    for number, (sizes, batch, optimizer) in itertools.product(range(rounds), cases):
        print(f"\rround {number + 1} of {rounds}, {name_of(sizes)} batch {batch}    ", end="", file=sys.stderr)
        names = contenders(workers, optimizer)
        first = number % len(names)  # rotates every round, so that no contender always starts
        for name in names[first:] + names[:first]:
            took = workers[name].ask(do="time", sizes=sizes, batch=batch, optimizer=optimizer, seconds=seconds)
            times[sizes, batch, optimizer][name].append(took)
    print(file=sys.stderr)
    return times


def ratios(times, name, to):
    """Return the time of one contender relative to another: median, lowest and highest of the rounds."""
    values = np.divide(times[name], times[to])
    return np.median(values), values.min(), values.max()


def print_steps(times, peaks, optimizer):
    """Print the table of the steps of one optimizer, and the geometric means over its cases."""
    print(f"\nMicroseconds per step with {optimizer}, and ratio to purenn: median of the rounds (lowest-highest).\n")
    names = list(next(iter(times.values())))
    print(f"| network | batch | {' | '.join(names)} |\n|{' --- |' * (len(names) + 2)}")
    for (sizes, batch, _), case in times.items():
        cells = []
        for name in names:
            middle, low, high = (1e6 * f(case[name]) for f in (np.median, min, max))
            ratio, least, most = ratios(case, name, "purenn")
            cells.append(f"{middle:,.0f} ({low:,.0f}-{high:,.0f})<br>{ratio:.2f} ({least:.2f}-{most:.2f})")
        print(f"| {name_of(sizes)} | {batch} | {' | '.join(cells)} |")
    means = [f"{mean_ratio(times, name, 'purenn'):.2f}" for name in names]
    print(f"| geometric mean | | {' | '.join(means)} |")
    print(f"| peak memory, MiB | | {' | '.join(f'{peaks[name]:.0f}' for name in names)} |")
    limit = "floor" if optimizer == "SGD" else "NumPy by hand"
    for name in ("purenn", "NumPy by hand")[: 2 if optimizer == "SGD" else 1]:
        worst = max(ratios(case, name, limit)[0] for case in times.values())
        print(f"\n{name}: {mean_ratio(times, name, limit):.2f} times as long as {limit}, {worst:.2f} at worst.")


def mean_ratio(times, name, to):
    """Return the geometric mean of the median ratios over all cases."""
    return float(np.exp(np.mean([np.log(ratios(case, name, to)[0]) for case in times.values()])))


def print_training(directory, rounds=3):
    """Print what ten epochs of MNIST take."""
    results = {name: [] for name, (_, module) in LEARNERS.items() if is_installed(module)}
    for _, (name, list_) in itertools.product(range(rounds), results.items()):
        command = [sys.executable, __file__, "--train", name, *(["--data", directory] if directory else [])]
        list_.append(json.loads(subprocess.check_output(command)))
    print(f"\nTen epochs of MNIST, 784-128-64-10, batches of 128, learning rate 0.1, median of {rounds} runs:\n")
    print("| | seconds (lowest-highest) | test accuracy | peak memory, MiB |\n| --- | --- | --- | --- |")
    for name, list_ in results.items():
        seconds, peaks, (accuracy, *_) = zip(*list_, strict=True)
        cells = (
            f"{np.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})",
            f"{accuracy:.2%}" if accuracy else "",
        )
        print(f"| {name} | {' | '.join(cells)} | {max(peaks):.0f} |")


def print_import(rounds):
    """Print how long imports take, in processes that take turns."""
    seconds = {"pass": [], "import numpy": [], "import purenn": []}
    for _, (statement, list_) in itertools.product(range(rounds), seconds.items()):
        began = time.perf_counter()
        subprocess.check_call([sys.executable, "-c", statement])
        list_.append(1e3 * (time.perf_counter() - began))
    nothing, numpy, purenn = map(np.asarray, seconds.values())
    print(
        f"\nimport numpy: {np.median(numpy - nothing):.0f} ms; import purenn: {np.median(purenn - numpy):.0f} ms more."
    )


def print_allocations():
    """Print the peak memory of a step, beside the size of its parameters and activations."""
    print("\nPeak memory of a step (tracemalloc), in multiples of parameters plus activations:\n")
    for sizes, batch in itertools.product(NETWORKS, BATCHES):
        start, x, y = problem(sizes, batch)
        params = _params(start, ("tanh", "relu"))
        (x, y) = next(nn.batches(0, x, y, batch))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        result = nn.sgd_step(params, nn.grads(params, x, y), LR)
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        there = sum(leaf.nbytes for leaf in nn.tree_leaves(result)) + 4 * batch * sum(sizes[1:])
        print(f"- {name_of(sizes)}, batch {batch}: {peak / there:.2f}")


def measure_growth(seconds):
    """Return sizes, seconds and operations per step, as batch size, width and depth grow."""

    def cost(sizes, batch):
        activations = [nn.tanh] * (len(sizes) - 2) + [nn.softmax]
        random = np.random.default_rng(0)
        x, y = random.random((batch, sizes[0]), np.float32), random.integers(0, sizes[-1], batch)
        (x, y) = next(nn.batches(0, x, y, batch))
        params = nn.init(0, sizes, activations)
        products = 6 * sum(itertools.starmap(operator.mul, itertools.pairwise(sizes))) - 2 * sizes[0] * sizes[1]
        return seconds_a_call(lambda: nn.sgd_step(params, nn.grads(params, x, y), LR), seconds), batch * products

    batches, widths, depths = ([int(start * 10 ** (k / 2)) for k in range(7)] for start in (10, 4, 1))
    return {
        "batch size": (batches, *zip(*[cost((784, 128, 64, 10), n) for n in batches], strict=True)),
        "width of two hidden layers": (widths, *zip(*[cost((784, n, n, 10), 128) for n in widths], strict=True)),
        "number of hidden layers": (depths, *zip(*[cost((784, *[64] * n, 10), 128) for n in depths], strict=True)),
    }


def exponent(sizes, costs):
    """Return the slope of a line through the upper half of the points, on logarithmic axes."""
    half = len(sizes) // 2
    return np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0]


def print_growth(growth):
    """Print the exponents."""
    print(
        "\nHow the time of a step grows: exponents for the upper half of each range (products alone: in parentheses):\n"
    )
    for what, (sizes, seconds, operations) in growth.items():
        exponents = exponent(sizes, seconds), exponent(sizes, operations)
        print("- {}, {} to {}: {:.2f} ({:.2f})".format(what, sizes[0], sizes[-1], *exponents))


def draw(times, names, growth, path):
    """Draw the ratios of all cases, and how the cost grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, *below = figure.subplot_mosaic("AAA;BCD", height_ratios=(1.5, 1)).values()
    colors = ["0.6", "0.8", "C3", "C0", "C1", "C2", "C4", "C5"]
    for number, (name, color) in enumerate(zip(names, colors, strict=False)):
        values = np.asarray([ratios(case, name, "floor") for case in times.values()])
        places = np.arange(len(times)) + (number - (len(names) - 1) / 2) / (len(names) + 1)
        errors = np.abs(values[:, :1].T - values[:, 1:].T)
        top.bar(
            places, values[:, 0], 0.9 / (len(names) + 1), yerr=errors, color=color, label=name, error_kw={"lw": 0.8}
        )
    top.set_xticks(range(len(times)), [f"{name_of(sizes)}\nbatch {batch}" for sizes, batch, _ in times], fontsize=7)
    top.set(ylabel="times as long as the matrix products alone", title="A training step; whiskers: all rounds")
    top.axhline(1, color="0.3", lw=0.8)
    top.set(yscale="log", yticks=[1, 2, 5, 10, 20], yticklabels=[1, 2, 5, 10, 20])
    top.legend(ncols=len(names), fontsize=8)
    for axes, (what, (sizes, seconds, operations)) in zip(below, growth.items(), strict=True):
        axes.loglog(sizes, 1e3 * np.asarray(seconds), "o-", ms=4, color="C3", label="a step")
        products = np.asarray(operations, float) * (1e3 * seconds[-1] / operations[-1])
        axes.loglog(sizes, products, "--", color="0.6", lw=1, label="the matrix products, to scale")
        axes.set_ylim(1e3 * min(seconds) / 2, 1e3 * max(seconds) * 2)
        axes.set(
            xlabel=what, ylabel="milliseconds per step", title=f"grows with exponent {exponent(sizes, seconds):.2f}"
        )
        axes.grid(alpha=0.3)
    below[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def name_of(sizes):
    """Return the usual name of a network: its sizes with dashes."""
    return "-".join(map(str, sizes))


def is_installed(module):
    """Tell whether the package that a module belongs to is there."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def processor():
    """Return the name of the processor, as well as the system knows it, and the kernel of NumPy's BLAS."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    with contextlib.suppress(ImportError):
        import threadpoolctl

        libraries = threadpoolctl.threadpool_info()
        name += "".join(f", {lib['internal_api']} {lib['version']} for {lib['architecture']}" for lib in libraries)
    return name


def main():
    """Measure, print and draw."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description="Measure a training step beside other libraries and the limit.")
    parser.add_argument("--smoke", action="store_true", help="one network, one batch size, one round: does it work?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files")
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker)
    if options.train:
        return train(options.train, options.data)
    if environment(options.threads) != os.environ:  # libraries read it when they are loaded, so begin again
        os.execve(sys.executable, [sys.executable, *sys.argv], environment(options.threads))

    names = [name for name, (_, package, _) in CONTENDERS.items() if is_installed(package)]
    packages = sorted({CONTENDERS[name][1].replace("sklearn", "scikit-learn") for name in names})
    print(f"{processor()}; {options.threads} threads; Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    for name in CONTENDERS.keys() - set(names):
        print(f"{name} is absent: pip install {CONTENDERS[name][1].replace('sklearn', 'scikit-learn')}")

    large = [(NETWORKS[0], 128)] if options.smoke else list(itertools.product(NETWORKS, BATCHES))
    small = SMALL[:1] if options.smoke else SMALL
    cases = [*((sizes, batch, "sgd") for sizes, batch in large), *((sizes, batch, "adam") for sizes, batch in small)]
    workers = {name: Worker(name) for name in names}
    try:
        for case in cases:
            check_same_work(workers, *case)
        print("After three steps from the same start, all have the same parameters.")
        rounds, seconds = (1, 0.1) if options.smoke else (options.rounds, 0.3)
        times = measure_steps(workers, cases, rounds, seconds)
        peaks = {name: worker.ask(do="peak") for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    with_adam = {case: times.pop(case) for case in list(times) if case[2] == "adam"}
    print_steps(times, peaks, "SGD")
    print_steps(with_adam, peaks, "Adam")
    print_import(1 if options.smoke else 15)
    print_allocations()
    growth = measure_growth(0 if options.smoke else 0.3)
    print_growth(growth)
    if not options.smoke:
        try:
            nn.mnist.load(options.data)
        except (OSError, ValueError, ImportError) as error:
            print(f"\nskipping MNIST (--data names its directory): {str(error).partition(';')[0]}")
        else:
            print_training(options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(times, contenders(workers, "sgd"), growth, options.output / "benchmark.png")
    print(f"\ndrawn in {options.output / 'benchmark.png'}")
    return None


if __name__ == "__main__":
    main()
