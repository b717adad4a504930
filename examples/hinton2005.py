"""Reproduce the three-layer network 784-500-300-10 with weight decay: 1.53 % (Hinton 2005, the table of MNIST's page).

    python examples/hinton2005.py                                       # MNIST, downloaded once
    python examples/hinton2005.py --data DIRECTORY --seeds 0 1 2        # MNIST's four files, three runs

ReLU, softmax and cross-entropy; gradient descent with momentum, a learning rate that falls along a cosine, and weight
decay, which is the gradient of half the squared weights. No augmentation.
"""

import math

from experiment import reproduce

import purenn as nn


def train(seed, data, epochs, batch_size=128, peak_lr=0.1, weight_decay=2e-4):
    """Yield the parameters after every epoch."""
    sizes = (data.train_images.shape[1], 500, 300, 10)
    params = nn.init(seed, sizes, activations=(nn.relu, nn.relu, nn.softmax))
    velocity, step = nn.zeros_like(params), 0
    steps = epochs * math.ceil(len(data.train_images) / batch_size)
    for epoch in range(epochs):
        for x, y in nn.batches((seed, epoch), data.train_images, data.train_labels, batch_size):
            gradient = nn.grads(params, x, y) + weight_decay * weights_only(params)
            lr = nn.warmup_cosine(step, peak_lr, steps)
            params, velocity = nn.momentum_step(params, gradient, velocity, lr)
            step += 1
        yield params


def weights_only(params):
    """Return the parameters with zeros for the biases, which do not decay."""
    return nn.tree_map(lambda p: p if p.ndim == 2 else 0 * p, params)


if __name__ == "__main__":
    reproduce(train, "784-500-300-10 with weight decay.", 1.53, "Hinton 2005", epochs=40)
