"""Reproduce elastic distortions: hidden layers of 800 units, 0.7 % (Simard, Steinkraus & Platt 2003).

    python examples/simard2003.py                                       # MNIST, downloaded once
    python examples/simard2003.py --data DIRECTORY --seeds 0 1 2        # MNIST's four files, three runs

No image is seen twice: each is bent by a smooth random field, rotated, stretched and sheared anew in every epoch.
"""

import math

import numpy as np
from experiment import reproduce

import purenn as nn


def distorted(seed, x, shape, bend=34.0, sigma=4.0, degrees=10.0, stretch=0.1, shear=0.1):
    """Return images in which every pixel comes from a nearby place.

    The places are those of a random affine map, plus a field of random numbers in (-1, 1), smoothed by a Gaussian of
    width ``sigma`` pixels and multiplied by ``bend`` (Simard et al. 2003, section 2). ``sigma`` and ``bend`` are for
    images of 28 pixels, and scaled for others.
    """
    random = np.random.default_rng(seed)
    n, (h, w), scale = len(x), shape, shape[0] / 28
    angles = np.deg2rad(degrees) * random.uniform(-1, 1, n)
    heights, widths = 1 + stretch * random.uniform(-1, 1, (2, n))
    affine = np.stack(
        [heights * np.cos(angles), -widths * np.sin(angles), heights * np.sin(angles), widths * np.cos(angles)]
    )
    affine[1] += shear * random.uniform(-1, 1, n)
    affine = affine.astype(np.float32).reshape(2, 2, n, 1, 1)
    rows, columns = np.arange(h, dtype=np.float32)[:, None] - (h - 1) / 2, np.arange(w, dtype=np.float32) - (w - 1) / 2
    field = 2 * random.random((2, n, h, w), np.float32) - 1
    places = bend * scale * (gaussian(h, sigma * scale) @ field @ gaussian(w, sigma * scale))
    places += affine[:, 0] * rows + affine[:, 1] * columns
    return interpolated(x.reshape(n, h, w), places[0] + (h - 1) / 2, places[1] + (w - 1) / 2).reshape(n, -1)


def gaussian(size, sigma):
    """Return the matrix that smooths a column by a Gaussian."""
    distances = np.subtract.outer(np.arange(size), np.arange(size))
    return (np.exp(-((distances / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))).astype(np.float32)


def interpolated(images, rows, columns):
    """Return what the images show at places between pixels, bilinearly; nothing beyond their edges."""
    n, h, w = images.shape
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2))).ravel()
    rows, columns = np.clip(rows + 1, 0, h + 1), np.clip(columns + 1, 0, w + 1)
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    down, right = rows - top, columns - left
    corner = np.arange(n)[:, None, None] * ((h + 3) * (w + 3)) + top * (w + 3) + left
    above, below = (padded[start] * (1 - right) + padded[start + 1] * right for start in (corner, corner + w + 3))
    return (above * (1 - down) + below * down).astype(images.dtype)


def train(seed, data, epochs, batch_size=128, peak_lr=0.1):
    """Yield the parameters after every epoch of gradient descent with momentum."""
    sizes = (data.train_images.shape[1], 800, 800, 10)
    params = nn.init(seed, sizes, activations=(nn.relu, nn.relu, nn.softmax))
    velocity, step = nn.zeros_like(params), 0
    steps = epochs * math.ceil(len(data.train_images) / batch_size)
    for epoch in range(epochs):
        for x, y in nn.batches((seed, epoch), data.train_images, data.train_labels, batch_size):
            x = distorted((seed, step), x, data.image_shape)
            lr = nn.warmup_cosine(step, peak_lr, steps)
            params, velocity = nn.momentum_step(params, nn.grads(params, x, y), velocity, lr)
            step += 1
        yield params


if __name__ == "__main__":
    reproduce(train, "Layers of 800 units, elastic distortions.", 0.70, "Simard et al. 2003", epochs=120)
