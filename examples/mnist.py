"""Learn handwritten digits: a network of three layers (tanh, ReLU, softmax) and gradient descent.

    python examples/mnist.py                      # MNIST, downloaded once; without a network, the bundled digits
    python examples/mnist.py --data DIRECTORY     # MNIST's four files, from a directory
    python examples/mnist.py --data digits        # the bundled digits

Writes the parameters and four pictures to the directory that --output names.
"""

import argparse
import math
import pickle
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import purenn as nn


class Epoch(NamedTuple):
    """What is known after an epoch."""

    params: nn.Params
    loss: float
    validation_loss: float
    validation_accuracy: float

    def __str__(self):
        return (
            f"loss {self.loss:.4f}, validation loss {self.validation_loss:.4f}, "
            f"validation accuracy {self.validation_accuracy:.2%}"
        )


def train(params, training, validation, options):
    """Train by gradient descent on batches, and yield an Epoch after each."""
    steps = math.ceil(options.copies * len(training[0]) / options.batch_size)
    so_far = None
    for epoch in range(options.epochs):
        x, y = noisy_copies((options.seed, epoch), *training, options.copies, options.noise)
        batches = nn.batches((options.seed, epoch), x, y, options.batch_size)
        progress = tqdm(
            batches,
            f"epoch {epoch + 1:2}",
            steps,
            leave=False,
            postfix=so_far and str(so_far),
            disable=not sys.stderr.isatty(),
        )
        losses = []
        for step, (xb, yb) in enumerate(progress, start=epoch * steps):
            loss, gradient = nn.loss_and_grads(params, xb, yb)
            params = nn.sgd_step(params, gradient, lr=nn.warmup_cosine(step, options.lr, options.epochs * steps))
            losses.append(loss)
        figures = np.mean(losses), nn.loss(params, *validation), nn.accuracy(params, *validation)
        so_far = Epoch(params, *map(float, figures))
        yield so_far


def noisy_copies(seed, x, y, copies, noise):
    """Return every example several times, each with other Gaussian noise, so that fewer are learnt by heart."""
    if copies == 1 and noise == 0:
        return x, y
    x, y = np.tile(x, (copies, 1)), np.tile(y, copies)
    return x + np.float32(noise) * np.random.default_rng(seed).standard_normal(x.shape, np.float32), y


def train_until_convergence(params, training, validation, options):
    """Train, print a line an epoch, and return all epochs; stop early on convergence, trouble, or Ctrl-C."""
    epochs = []
    try:
        for epoch in train(params, training, validation, options):
            if not math.isfinite(epoch.loss + epoch.validation_loss):
                print(f"epoch {len(epochs) + 1}: the loss is {epoch.loss}; try a smaller --lr than {options.lr}")
                break
            epochs.append(epoch)
            print(f"epoch {len(epochs):2}: {epoch}", flush=True)
            if nn.converged([epoch.validation_loss for epoch in epochs], options.patience):
                break
    except KeyboardInterrupt:
        print(f"\ninterrupted after {len(epochs)} epochs")
    return epochs


def quality(epoch):
    """Return what makes the parameters of one epoch better than those of another: what counts in the end."""
    return epoch.validation_accuracy, -epoch.validation_loss


def load_data(source):
    """Return the data set that ``--data`` names; without it MNIST, or else the bundled digits."""
    if source == "digits":
        return nn.mnist.digits()
    if source is not None:
        return nn.mnist.load(source)
    try:
        return nn.mnist.load()
    except (ConnectionError, ImportError) as error:
        print(f"no MNIST here ({str(error).partition(';')[0]}): training on the bundled digits instead")
        return nn.mnist.digits()


def draw_learning_curves(epochs, path):
    """Draw losses and validation accuracy over the epochs."""
    numbers = range(1, len(epochs) + 1)
    best = epochs.index(max(epochs, key=quality)) + 1
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [epoch.loss for epoch in epochs], "o-", ms=4, label="training (running)")
    left.plot(numbers, [epoch.validation_loss for epoch in epochs], "o-", ms=4, label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log", title="Loss")
    right.plot(numbers, [100 * epoch.validation_accuracy for epoch in epochs], "o-", ms=4, color="C1")
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy on validation data")
    for axes in (left, right):
        axes.axvline(best, color="0.6", ls="--", lw=1, zorder=0, label=f"kept: epoch {best}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_confusion(labels, predictions, path):
    """Draw how many images of each digit were taken for which; right answers in grey, mistakes in red."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predictions), 1)
    mistakes = np.where(np.eye(10, dtype=bool), 0, counts)
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Reds", vmax=max(1, mistakes.max()) * 1.3)
    for row, column in np.ndindex(10, 10):
        if counts[row, column]:
            weight, color = ("normal", "0.5") if row == column else ("bold", "black")
            axes.text(column, row, counts[row, column], ha="center", va="center", weight=weight, color=color)
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="right")
    axes.set_title(f"Test digits: {mistakes.sum():,} of {len(labels):,} wrong")
    figure.savefig(path, dpi=120)


def draw_mistakes(images, labels, probabilities, shape, path):
    """Draw the mistakes that the network was most sure of."""
    predictions = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-confidence[wrong])][:24]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    figure.suptitle("The most confident mistakes: what the network said, and what was right")
    for axes in figure.subplots(3, 8).flat:
        axes.axis("off")
    for axes, index in zip(figure.axes, wrong, strict=False):
        axes.imshow(images[index].reshape(shape), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"said {predictions[index]} ({confidence[index]:.1%})\nright {labels[index]}", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_weights(weights, shape, path):
    """Draw what every unit of the first layer looks for: ink in red places speaks for it, in blue places against."""
    columns = 16
    units = weights.T[: 8 * columns].reshape(-1, *shape)
    rows = math.ceil(len(units) / columns)
    tiles = np.full((rows * columns, shape[0] + 2, shape[1] + 2), np.nan)  # a frame of paper around every unit
    tiles[: len(units), 1:-1, 1:-1] = units
    picture = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
    limit = np.quantile(np.abs(weights), 0.998)
    figure = Figure(figsize=(9, 1 + 0.5 * rows), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(f"Weights of the first layer: one image for each of {len(units)} units")
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(image, shrink=0.8, label="weight")
    figure.savefig(path, dpi=120)


def natural(text):
    """Return the number that an option gives, if it is an integer of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text):
    """Return the number that an option gives, if it is an integer of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def learning_rate(text):
    """Return the number that an option gives, if it is finite and above 0."""
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def main():
    """Train, evaluate on the test digits, and write down what came out."""
    parser = argparse.ArgumentParser(description="Learn handwritten digits with a network of three layers.")
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files, or 'digits' for the bundled ones")
    parser.add_argument("--sizes", type=positive, nargs=2, default=(128, 64), help="units of the two hidden layers")
    parser.add_argument("--epochs", type=positive, default=10, help="at most so many")
    parser.add_argument("--patience", type=positive, default=5, help="stop after so many epochs without improvement")
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--lr", type=learning_rate, default=0.3, help="learning rate at the start; it decays to 0")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results are written")
    parser.add_argument("--no-plots", action="store_true")
    options = parser.parse_args()
    try:
        data = load_data(options.data)
        options.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")

    # 1,438 digits are few, and other people wrote those of the test: noise makes more of them.
    few = len(data.train_images) < 10_000
    options.copies, options.noise = (20, 0.3) if few else (1, 0)
    held_out = max(1, len(data.train_images) // 12)
    training = data.train_images[:-held_out], data.train_labels[:-held_out]
    validation = data.train_images[-held_out:], data.train_labels[-held_out:]

    sizes = (data.train_images.shape[1], *options.sizes, 10)
    params = nn.init(options.seed, sizes, activations=(nn.tanh, nn.relu, nn.softmax))
    print(f"{len(training[0]):,} digits to train with, {held_out:,} to validate, {len(data.test_images):,} to test")
    print(params)
    start = time.perf_counter()
    epochs = train_until_convergence(params, training, validation, options)
    seconds = time.perf_counter() - start
    if not epochs:
        sys.exit("error: no epoch was finished, so there is nothing to keep")
    best = max(epochs, key=quality).params
    with open(options.output / "params.pickle", "wb") as file:
        pickle.dump(best, file)
    print(f"the best parameters are in {options.output / 'params.pickle'}")

    probabilities = nn.forward(best, data.test_images)
    predictions = nn.predict(best, data.test_images)
    if not options.no_plots:
        draw_learning_curves(epochs, options.output / "learning-curves.png")
        draw_confusion(data.test_labels, predictions, options.output / "confusion.png")
        draw_mistakes(
            data.test_images, data.test_labels, probabilities, data.image_shape, options.output / "mistakes.png"
        )
        draw_weights(best.layers[0].weights, data.image_shape, options.output / "weights.png")
        print(f"learning curves, confusion matrix, mistakes and weights are drawn in {options.output}")
    wrong = int((predictions != data.test_labels).sum())
    print(
        f"test accuracy {100 - 100 * wrong / len(predictions):.2f} % ({wrong:,} of {len(predictions):,} wrong), "
        f"trained in {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
