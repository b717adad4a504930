"""Learn handwritten digits: a network of three layers (tanh, ReLU, softmax), backpropagation, and gradient descent.

    python examples/mnist.py                  # MNIST, downloaded once; offline, the bundled digits
    python examples/mnist.py --data DIR       # the four files of MNIST in DIR
    python examples/mnist.py --data digits    # the bundled digits

Prints a line per epoch and the accuracy on the test digits; writes the best parameters and four pictures to --output.
"""

import argparse
import math
import os
import pickle
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plots
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import purenn as nn


class Epoch(NamedTuple):
    """The parameters after an epoch, and how good they are."""

    params: nn.Params
    loss: float
    validation_loss: float
    validation_accuracy: float


def train(params, training, validation, options):
    """Yield an Epoch after each pass through the training digits."""
    for epoch in range(options.epochs):
        losses, seed, (x, y) = [], (options.seed, epoch), training
        if options.noise:  # new noise in every epoch, so that the network does not learn a few digits by heart
            x = x + options.noise * np.random.default_rng(seed).standard_normal(x.shape, np.float32)
        batches, steps = nn.batches(seed, x, y, options.batch_size), math.ceil(len(x) / options.batch_size)
        progress = tqdm(batches, f"epoch {epoch + 1:2}", steps, leave=False, disable=not sys.stderr.isatty())
        for step, (xb, yb) in enumerate(progress, start=epoch * steps):
            lr = nn.warmup_cosine(step, options.lr, options.epochs * steps, steps * (options.epochs > 1))
            loss, gradient = nn.loss_and_grads(params, xb, yb)
            params = nn.sgd_step(params, gradient, lr)
            losses.append(loss)
        figures = np.mean(losses), nn.loss(params, *validation), nn.accuracy(params, *validation)
        yield Epoch(params, *map(float, figures))


def train_until_convergence(params, training, validation, options):
    """Return all epochs; stop early on convergence, on a loss that is not finite, or on Ctrl-C."""
    epochs = []
    try:
        for epoch in train(params, training, validation, options):
            if not math.isfinite(epoch.loss + epoch.validation_loss):
                print(f"epoch {len(epochs) + 1}: the loss is {epoch.loss}; try a smaller --lr than {options.lr}")
                break
            epochs.append(epoch)
            validated = f"validation loss {epoch.validation_loss:.4f}, accuracy {epoch.validation_accuracy:.2%}"
            print(f"epoch {len(epochs):2}: loss {epoch.loss:.4f}, {validated}", flush=True)
            if nn.converged([epoch.validation_loss for epoch in epochs], options.patience):
                break
    except KeyboardInterrupt:
        print(f"\ninterrupted after {len(epochs)} epochs")
    return epochs


def load_data(source):
    """Return the data that ``--data`` names; without it MNIST, or offline the bundled digits."""
    if source:
        return nn.mnist.digits() if source == "digits" else nn.mnist.load(source)
    try:
        return nn.mnist.load()
    except (ConnectionError, ImportError) as error:
        print(f"{str(error).partition(';')[0]}; --data DIR reads MNIST from DIR. Using the bundled digits")
        return nn.mnist.digits()


def main():
    """Train, evaluate on the test digits, and write down the results."""
    parser = argparse.ArgumentParser(description="Learn handwritten digits with a network of three layers.")
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files, or 'digits' for the bundled ones")
    parser.add_argument("--sizes", type=int, nargs=2, default=(256, 128), help="units of the two hidden layers")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--patience", type=int, default=5, help="epochs without improvement before stopping")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.6, help="learning rate after the first epoch; it decays to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results are written")
    parser.add_argument("--no-plots", action="store_true")
    options = parser.parse_args()
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # on busy cores, the threads of BLAS wait for each other
        threadpool_limits(max(1, (os.cpu_count() or 1) - 1))
    data = load_data(options.data)
    held_out = max(1, len(data.train_images) // 12)  # to choose the best epoch
    x, y = data.train_images[:-held_out], data.train_labels[:-held_out]
    copies, options.noise = (20, 0.3) if len(x) < 10_000 else (1, 0)
    x, y = np.tile(x, (copies, 1)), np.tile(y, copies)
    validation = data.train_images[-held_out:], data.train_labels[-held_out:]
    params = nn.init(options.seed, (x.shape[1], *options.sizes, 10), activations=(nn.tanh, nn.relu, nn.softmax))
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{len(data.train_images) - held_out:,} digits to train with, {held_out:,} to validate\n{params}")
    start, epochs = time.perf_counter(), train_until_convergence(params, (x, y), validation, options)
    seconds = time.perf_counter() - start
    best = max(epochs, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_loss), default=None)
    if best is None:
        sys.exit("error: no epoch was finished, so there is nothing to keep")
    (options.output / "params.pickle").write_bytes(pickle.dumps(best.params))
    print(f"the best parameters are in {options.output / 'params.pickle'}")
    if not options.no_plots:
        plots.draw_all(epochs, epochs.index(best), data, options.output)
    wrong = nn.predict(best.params, data.test_images) != data.test_labels
    result = f"{100 * (1 - wrong.mean()):.2f} % ({wrong.sum():,} of {len(wrong):,} wrong)"
    print(f"test accuracy {result}, trained in {seconds:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
