"""What the reproductions of published results share: options, data, a progress bar, a plot, and the last line."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import purenn as nn


def reproduce(train, description, published, source, epochs):
    """Run an experiment once for every seed, and print the published test error beside ours.

    ``train(seed, data, epochs)`` is a generator that yields the parameters after every epoch. What counts is the last
    one: the number of epochs is fixed in advance, and nothing is chosen by the test digits.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files, or 'digits' for the bundled ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where the plot is written")
    options = parser.parse_args()
    if options.epochs < 1 or min(options.seeds) < 0:
        parser.error("--epochs must be at least 1, and --seeds not negative")
    try:
        data = nn.mnist.digits() if options.data == "digits" else nn.mnist.load(options.data)
        options.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")

    curves = []
    for seed in options.seeds:
        start, curve = time.perf_counter(), []
        progress = tqdm(
            train(seed, data, options.epochs),
            f"seed {seed}",
            options.epochs,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        for params in progress:
            curve.append(100 - 100 * accuracy(params, data.test_images, data.test_labels))
            progress.set_postfix_str(f"test error {curve[-1]:.2f} %")
        curves.append(curve)
        print(f"seed {seed}: test error {curve[-1]:.2f} % after {time.perf_counter() - start:.0f} s", flush=True)
    path = options.output / f"{Path(sys.argv[0]).stem}.png"
    draw(curves, options.seeds, published, source, path)
    print(f"test errors of all epochs are drawn in {path}")
    last = [curve[-1] for curve in curves]
    print(f"test error {np.mean(last):.2f} % (mean of {len(last)}); published for MNIST: {published:.2f} % ({source})")


def accuracy(params, x, y):
    """Return the fraction of correct predictions, computed in parts to save memory."""
    return float(np.mean([nn.predict(params, x[i : i + 1000]) == y[i : i + 1000] for i in range(0, len(x), 1000)]))


def draw(curves, seeds, published, source, path):
    """Draw the test error after every epoch, for all seeds."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seed, curve in zip(seeds, curves, strict=True):
        axes.plot(range(1, len(curve) + 1), curve, "o-", ms=3, label=f"seed {seed}: {curve[-1]:.2f} %")
    axes.axhline(published, color="0.3", ls="--", lw=1, label=f"{source}: {published:.2f} %")
    axes.set(xlabel="epoch", ylabel="test error (%)", yscale="log", title="What counts is the last epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
