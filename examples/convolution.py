"""Learn handwritten digits with a convolutional network whose layers are defined here, outside the package.

    python examples/convolution.py                      # MNIST, downloaded once
    python examples/convolution.py --data DIRECTORY     # MNIST's four files, from a directory
    python examples/convolution.py --data digits        # the bundled digits

A layer is a record and two functions: what it computes, and how it pulls a gradient back. Images stand as
(n, height, width, channels); the network is that of LeCun et al. 1998 in outline, with ReLU and max-pooling.
"""

import math

import numpy as np
from experiment import reproduce

import purenn as nn


@nn.record
class Conv2D:
    """Every output pixel is ``activation(patch @ weights + biases)`` of the patch of the input around it.

    The patches of a batch are the rows of one matrix, so that the convolution is a ``Dense`` layer applied to it.
    """

    dense: nn.Dense  # weights (size * size * channels, fan_out)
    size: int


@nn.record
class MaxPool:
    """The largest of every ``size`` by ``size`` pixels, channel by channel."""

    size: int


@nn.record
class Reshape:
    """Every example of a batch in another shape."""

    shape: tuple[int, ...]


def patches(x, size):
    """Return the patches of every image, (n, height - size + 1, width - size + 1, size * size * channels)."""
    windows = np.lib.stride_tricks.sliding_window_view(
        x, (size, size), axis=(1, 2)
    )  # (n, h', w', channels, size, size)
    n, h, w, *_ = windows.shape
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(n, h, w, size * size * x.shape[3])


@nn.forward.register
def _(layer: Conv2D, x):
    rows = patches(x, layer.size)
    return nn.forward(layer.dense, rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:3], layer.dense.fan_out)


@nn.vjp.register
def _(layer: Conv2D, x):
    rows = patches(x, layer.size)
    y, dense_pullback = nn.vjp(layer.dense, rows.reshape(-1, rows.shape[-1]))

    def pullback(dy):
        gradient, d_rows = dense_pullback(dy.reshape(-1, dy.shape[-1]))
        n, h, w, _ = rows.shape
        d_patches = d_rows.reshape(n, h, w, layer.size, layer.size, x.shape[3])
        dx = np.zeros_like(x)
        for i, j in np.ndindex(layer.size, layer.size):  # a pixel gets the gradients of all patches it is part of
            dx[:, i : i + h, j : j + w] += d_patches[:, :, :, i, j]
        return Conv2D(gradient, layer.size), dx

    return y.reshape(*rows.shape[:3], layer.dense.fan_out), pullback


@nn.parameter_vjp.register
def _(layer: Conv2D, x):  # optional: as first layer, it need not compute the gradient of the images
    rows = patches(x, layer.size)
    y, dense_pullback = nn.parameter_vjp(layer.dense, rows.reshape(-1, rows.shape[-1]))
    return y.reshape(*rows.shape[:3], layer.dense.fan_out), lambda dy: Conv2D(
        dense_pullback(dy.reshape(-1, dy.shape[-1])), layer.size
    )


def windows(x, size):
    """Return what is pooled, (n, height / size, size, width / size, size, channels): a view of ``x``."""
    n, h, w, channels = x.shape
    return x.reshape(n, h // size, size, w // size, size, channels)


@nn.forward.register
def _(layer: MaxPool, x):
    return windows(x, layer.size).max(axis=(2, 4))


@nn.vjp.register
def _(layer: MaxPool, x):
    values = windows(x, layer.size)
    y = values.max(axis=(2, 4), keepdims=True)

    def pullback(dy):
        largest = (values == y).astype(x.dtype)
        largest /= largest.sum(axis=(2, 4), keepdims=True)  # those that are equal share the gradient
        return layer, (largest * dy.reshape(y.shape)).reshape(x.shape)

    return y[:, :, 0, :, 0], pullback


@nn.forward.register
def _(layer: Reshape, x):
    return x.reshape(len(x), *layer.shape)


@nn.vjp.register
def _(layer: Reshape, x):
    return nn.forward(layer, x), lambda dy: (layer, dy.reshape(x.shape))


def network(seed, shape):
    """Return two convolutions, each with max-pooling, and a layer that says which digit it is."""
    size, channels = (5, (16, 32)) if min(shape) > 20 else (3, (16,))
    layers, (h, w), depth = [Reshape((*shape, 1))], shape, 1
    for number, count in enumerate(channels):
        (dense,) = nn.init((seed, number), (size * size * depth, count), [nn.relu]).layers
        layers += [Conv2D(dense, size), MaxPool(2)]
        h, w, depth = (h - size + 1) // 2, (w - size + 1) // 2, count
    output = nn.init((seed, len(channels)), (h * w * depth, 10), [nn.softmax])
    return nn.Params((*layers, Reshape((h * w * depth,)), *output.layers))


def train(seed, data, epochs, batch_size=64, peak_lr=0.1):
    """Yield the parameters after every epoch of gradient descent with momentum."""
    params = network(seed, data.image_shape)
    velocity, step = nn.zeros_like(params), 0
    total = epochs * math.ceil(len(data.train_images) / batch_size)
    for epoch in range(epochs):
        for x, y in nn.batches((seed, epoch), data.train_images, data.train_labels, batch_size):
            lr = nn.warmup_cosine(step, total, peak_lr, warmup_steps=total // 20)
            params, velocity = nn.momentum_step(params, nn.grads(params, x, y), velocity, lr)
            step += 1
        yield params


if __name__ == "__main__":
    reproduce(train, "Learn digits with a convolutional network.", 0.95, "LeNet-5, LeCun et al. 1998", epochs=5)
