"""Batch normalization without hidden state: ten hidden layers of sigmoid units learn with it, and not without.

    python examples/batchnorm.py                     # MNIST, downloaded once
    python examples/batchnorm.py --data DIRECTORY    # MNIST's four files, from a directory
    python examples/batchnorm.py --data digits       # the bundled digits

In training, ``BatchNorm`` uses the mean and the variance of the batch (Ioffe & Szegedy 2015, algorithm 1). After
training, ``calibrated(params, x)`` returns another network, in which each ``BatchNorm`` has become an ``Affine`` map
with the mean and the unbiased variance of all training examples (algorithm 2, with all examples in one batch). The
record says which of the two a network does; there is no flag and no running average.

The script prints the test error of both networks after training, and draws it over the epochs: batchnorm.png in
--output.
"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

import purenn as nn

EPS = 1e-5


@nn.record
class BatchNorm(nn.Vector):
    """``y = activation(scale * h + shift)``, with ``h = (x - mean) / sqrt(variance + EPS)`` over the rows of ``x``.

    ``x`` and ``y`` are ``(n, features)``; the variance is divided by ``n``.
    """

    scale: nn.Array  # (features,)
    shift: nn.Array  # (features,)
    activation: nn.Activation


@nn.record
class Affine(nn.Vector):
    """``y = activation(scale * x + shift)``, for each example by itself."""

    scale: nn.Array  # (features,)
    shift: nn.Array  # (features,)
    activation: nn.Activation


@nn.vjp.register
def batch_norm_vjp(layer: BatchNorm, x):
    """Normalize a batch. The pullback differentiates its mean and variance, too (Ioffe & Szegedy 2015, section 3)."""
    xp = x.__array_namespace__()
    centred = x - xp.mean(x, axis=0)
    std = xp.sqrt(xp.mean(centred**2, axis=0) + EPS)
    h = centred / std
    z = layer.scale * h + layer.shift
    y = layer.activation(z)

    def pullback(dy):
        dz = layer.activation.pullback(z, y, dy)

        def dx():
            dh = dz * layer.scale
            return (dh - xp.mean(dh, axis=0) - h * xp.mean(dh * h, axis=0)) / std

        return BatchNorm(xp.sum(dz * h, axis=0), xp.sum(dz, axis=0), layer.activation), dx

    return y, pullback


@nn.vjp.register
def affine_vjp(layer: Affine, x):
    """Scale and shift each feature."""
    xp = x.__array_namespace__()
    z = layer.scale * x + layer.shift
    y = layer.activation(z)

    def pullback(dy):
        dz = layer.activation.pullback(z, y, dy)
        return Affine(xp.sum(dz * x, axis=0), xp.sum(dz, axis=0), layer.activation), lambda: dz * layer.scale

    return y, pullback


def calibrated(params, x):
    """Return a network that normalizes by the mean and variance of all examples ``x``, (n, fan_in), not of a batch."""
    xp, layers = x.__array_namespace__(), []
    for layer in params.layers:
        if isinstance(layer, nn.Params):
            layer = calibrated(layer, x)
        if isinstance(layer, BatchNorm):
            scale = layer.scale / xp.sqrt(xp.var(x, axis=0, correction=1) + EPS)
            layer = Affine(scale, layer.shift - scale * xp.mean(x, axis=0), layer.activation)
        layers.append(layer)
        x = nn.forward(layer, x)
    return nn.Params(tuple(layers))


def networks(seed, inputs, depth=10, width=64):
    """Return two networks with the same weights: with batch normalization before each sigmoid, and without."""
    plain = nn.init(seed, (inputs, *[width] * depth, 10), [nn.sigmoid] * depth + [nn.softmax])
    *hidden, last = plain.layers
    normalized = []
    for layer in hidden:
        norm = BatchNorm(layer.biases + 1, layer.biases, layer.activation)
        normalized += [nn.Dense(layer.weights, layer.biases, nn.identity), norm]
    return nn.Params((*normalized, last)), plain


def train(seed, params, x, y, epochs, lr=1e-2, batch_size=64):
    """Yield the parameters after every epoch of Adam; only weights decay, not biases, scales and shifts."""
    state = nn.adam_init(params)
    decays = nn.tree_map_with_path(lambda path, p: 1e-2 if path.endswith("weights") else 0.0, params)
    for epoch in range(epochs):
        for xb, yb in nn.batches((seed, epoch), x, y, batch_size, drop_last=True):
            params, state = nn.adam_step(params, nn.grads(params, xb, yb), state, lr, weight_decay=decays)
        yield params


def main():
    """Train both networks, and draw their learning curves."""
    parser = argparse.ArgumentParser(description="Ten layers of sigmoid units, with and without batch normalization.")
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files, or 'digits' for the bundled ones")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where the plot is written")
    options = parser.parse_args()
    data = nn.mnist.digits() if options.data == "digits" else nn.mnist.load(options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    x, y = data.train_images, data.train_labels
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for name, params in zip(("with", "without"), networks(options.seed, x.shape[1]), strict=True):
        runs = tqdm(train(options.seed, params, x, y, options.epochs), name, options.epochs, leave=False, disable=None)
        errors = [100 - 100 * nn.accuracy(calibrated(p, x), data.test_images, data.test_labels) for p in runs]
        axes.plot(range(1, len(errors) + 1), errors, "o-", ms=3, label=f"{name}: {errors[-1]:.2f} %")
        print(f"{name} batch normalization: test error {errors[-1]:.2f} %", flush=True)
    axes.set(xlabel="epoch", ylabel="test error (%)", ylim=(0, 100), title="Ten hidden layers of sigmoid units")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(title="batch normalization")
    figure.savefig(options.output / "batchnorm.png", dpi=120)
    print(f"the learning curves are drawn in {options.output / 'batchnorm.png'}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
