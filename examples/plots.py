"""The pictures that ``mnist.py`` draws: learning curves, confusion matrix, mistakes, weights."""

import math

import numpy as np
from matplotlib.figure import Figure

import purenn as nn


def draw_all(epochs, best, data, directory):
    """Draw four pictures of a training run: its epochs, the number of the best, and the data."""
    params = epochs[best].params
    draw_learning_curves(epochs, best, directory / "learning-curves.png")
    draw_confusion(data.test_labels, nn.predict(params, data.test_images), directory / "confusion.png")
    probabilities = nn.forward(params, data.test_images)
    draw_mistakes(data.test_images, data.test_labels, probabilities, data.image_shape, directory / "mistakes.png")
    draw_weights(params.layers[0].weights, data.image_shape, directory / "weights.png")
    print(f"four pictures are in {directory}")


def draw_learning_curves(epochs, best, path):
    """Draw losses and validation accuracy over the epochs, and mark the best."""
    numbers = range(1, len(epochs) + 1)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [epoch.loss for epoch in epochs], "o-", ms=4, label="training (running)")
    left.plot(numbers, [epoch.validation_loss for epoch in epochs], "o-", ms=4, label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log", title="Loss")
    right.plot(numbers, [100 * epoch.validation_accuracy for epoch in epochs], "o-", ms=4, color="C1")
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy on validation data")
    for axes in (left, right):
        axes.axvline(best + 1, color="0.6", ls="--", lw=1, zorder=0, label=f"kept: epoch {best + 1}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_confusion(labels, predictions, path):
    """Draw how many images of each digit were predicted as which: correct ones in grey, mistakes in red."""
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
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="label")
    axes.set_title(f"Test digits: {mistakes.sum():,} of {len(labels):,} wrong")
    figure.savefig(path, dpi=120)


def draw_mistakes(images, labels, probabilities, shape, path):
    """Draw the mistakes with the highest predicted probability."""
    predictions = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-confidence[wrong])][:24]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    figure.suptitle("The most confident mistakes: prediction (probability) and label")
    for axes in figure.subplots(3, 8).flat:
        axes.axis("off")
    for axes, index in zip(figure.axes, wrong, strict=False):
        axes.imshow(images[index].reshape(shape), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"{predictions[index]} ({confidence[index]:.1%})\nlabel {labels[index]}", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_weights(weights, shape, path):
    """Draw the weights of each unit of the first layer: ink in red raises its input, in blue lowers it."""
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
    axes.set_title(f"Weights of the first layer: an image for each of {len(units)} of its {weights.shape[1]} units")
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(image, shrink=0.8, label="weight")
    figure.savefig(path, dpi=120)
