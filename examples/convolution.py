"""Learn handwritten digits with a convolutional network whose layers are defined here, outside the package.

    python examples/convolution.py                      # MNIST, downloaded once
    python examples/convolution.py --data DIRECTORY     # MNIST's four files, from a directory
    python examples/convolution.py --data digits        # the bundled digits

A layer is a record and one rule: what it computes, and how it pulls a gradient back. Images stand as
(n, height, width, channels); the network is that of LeCun et al. 1998 in outline, with ReLU and max-pooling. The layers
take the functions they need from their input's own library, so that they run under JAX as well: see GRADS.
"""

import math

from experiment import reproduce

import purenn as nn

GRADS = nn.grads  # under JAX, after `import jax, purenn.jax`: jax.jit(nn.grads)


@nn.record
class Conv2D:
    """Every output pixel is ``activation(patch @ weights + biases)`` of the patch of the input around it."""

    weights: nn.Array  # (size, size, channels, fan_out)
    biases: nn.Array  # (fan_out,)
    activation: nn.Activation


@nn.record
class MaxPool:
    """The largest of every ``size`` by ``size`` pixels, channel by channel; sides are multiples of ``size``."""

    size: int


@nn.record
class Reshape:
    """Every example of a batch in another shape."""

    shape: tuple[int, ...]


def patches(x, size):
    """Return the patch at every place of every image as a row, (n * height' * width', size * size * channels)."""
    xp, (_, h, w, channels) = x.__array_namespace__(), x.shape
    shifts = [(i, j) for i in range(size) for j in range(size)]
    rows = xp.concat([x[:, i : h - size + 1 + i, j : w - size + 1 + j] for i, j in shifts], axis=-1)
    return xp.reshape(rows, (-1, size * size * channels))


def padded(x, width):
    """Return images with a frame of zeros around them."""
    xp, (n, h, w, channels) = x.__array_namespace__(), x.shape
    rows = xp.zeros((n, width, w, channels), dtype=x.dtype)
    columns = xp.zeros((n, h + 2 * width, width, channels), dtype=x.dtype)
    return xp.concat([columns, xp.concat([rows, x, rows], axis=1), columns], axis=2)


def matrix(weights):
    """Return the weights of a convolution as those of a dense layer that takes patches."""
    return weights.__array_namespace__().reshape(weights, (-1, weights.shape[-1]))


@nn.vjp.register
def conv2d_vjp(layer: Conv2D, x):
    """Compute every output pixel from its patch: a dense layer that slides over the image."""
    xp, (size, _, _, fan_out) = x.__array_namespace__(), layer.weights.shape
    rows = patches(x, size)
    shape = (x.shape[0], x.shape[1] - size + 1, x.shape[2] - size + 1, fan_out)
    z = xp.reshape(rows @ matrix(layer.weights) + layer.biases, shape)
    y = layer.activation(z)

    def pullback(dy):
        dz = layer.activation.pullback(z, y, dy)
        weights = xp.reshape(rows.T @ matrix(dz), layer.weights.shape)

        def dx():  # a pixel gets the gradients of all patches that it is part of: a convolution, turned around
            turned = xp.permute_dims(xp.flip(layer.weights, axis=(0, 1)), (0, 1, 3, 2))
            return xp.reshape(patches(padded(dz, size - 1), size) @ matrix(turned), x.shape)

        return Conv2D(weights, xp.sum(dz, axis=(0, 1, 2)), layer.activation), dx

    return y, pullback


@nn.vjp.register
def max_pool_vjp(layer: MaxPool, x):
    """Take the largest pixel of every window; pixels that are equally large share the gradient."""
    xp, (n, h, w, channels), size = x.__array_namespace__(), x.shape, layer.size
    windows = xp.reshape(x, (n, h // size, size, w // size, size, channels))
    y = xp.max(windows, axis=(2, 4), keepdims=True)

    def pullback(dy):
        def dx():
            largest = xp.astype(windows == y, x.dtype)
            shares = largest * (xp.reshape(dy, y.shape) / xp.sum(largest, axis=(2, 4), keepdims=True))
            return xp.reshape(shares, x.shape)

        return layer, dx

    return y[:, :, 0, :, 0], pullback


@nn.vjp.register
def reshape_vjp(layer: Reshape, x):
    """Reshape every example, and its gradient back."""
    xp = x.__array_namespace__()
    return xp.reshape(x, (x.shape[0], *layer.shape)), lambda dy: (layer, lambda: xp.reshape(dy, x.shape))


def network(seed, shape):
    """Return two convolutions (one for small images), each with max-pooling, and a softmax layer."""
    size, channels = (5, (16, 32)) if min(shape) > 20 else (3, (16,))
    layers, (h, w), depth = [], shape, 1
    for number, count in enumerate(channels):
        (dense,) = nn.init((seed, number), (size * size * depth, count), [nn.relu]).layers
        layers += [Conv2D(dense.weights.reshape(size, size, depth, count), dense.biases, nn.relu), MaxPool(2)]
        h, w, depth = (h - size + 1) // 2, (w - size + 1) // 2, count
    output = nn.init((seed, len(channels)), (h * w * depth, 10), [nn.softmax])
    return nn.Params((*layers, Reshape((h * w * depth,)), *output.layers))


def train(seed, data, epochs, batch_size=64, peak_lr=0.1):
    """Yield the parameters after every epoch of gradient descent with momentum."""
    params = network(seed, data.image_shape)
    velocity, step = nn.zeros_like(params), 0
    total = epochs * math.ceil(len(data.train_images) / batch_size)
    as_images = Reshape((*data.image_shape, 1))
    images = nn.forward(as_images, data.train_images)
    for epoch in range(epochs):
        for x, y in nn.batches((seed, epoch), images, data.train_labels, batch_size):
            lr = nn.warmup_cosine(step, peak_lr, total, warmup_steps=total // 20)
            params, velocity = nn.momentum_step(params, GRADS(params, x, y), velocity, lr)
            step += 1
        yield nn.Params((as_images, *params.layers))


if __name__ == "__main__":
    reproduce(train, "Learn digits with a convolutional network.", 0.95, "LeNet-5, LeCun et al. 1998", epochs=5)
