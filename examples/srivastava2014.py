"""Reproduce dropout: three hidden layers of 1024 ReLU units, 1.25 % (Srivastava et al. 2014, table 2).

    python examples/srivastava2014.py                                   # MNIST, downloaded once
    python examples/srivastava2014.py --data DIRECTORY --seeds 0 1 2    # MNIST's four files, three runs

A fifth of the pixels and half of the hidden units are left out in every step; the step's seed says which. Without
dropout, such a network makes 1.60 % of errors (the same table). No augmentation.
"""

import math

from experiment import reproduce

import purenn as nn


def network(seed, inputs, width=1024):
    """Return the network, with dropout before every dense layer."""
    activations = (nn.relu, nn.relu, nn.relu, nn.softmax)
    first, *others = nn.init(seed, (inputs, width, width, width, 10), activations).layers
    return nn.Params((nn.Dropout(0.2), first, *(part for dense in others for part in (nn.Dropout(0.5), dense))))


def train(seed, data, epochs, batch_size=128, peak_lr=1e-3):
    """Yield the parameters after every epoch of Adam."""
    params = network(seed, data.train_images.shape[1])
    state, step = nn.adam_init(params), 0
    steps = epochs * math.ceil(len(data.train_images) / batch_size)
    for epoch in range(epochs):
        for x, y in nn.batches((seed, epoch), data.train_images, data.train_labels, batch_size):
            gradient = nn.grads(nn.seeded(params, (seed, step)), x, y)
            params, state = nn.adam_step(params, gradient, state, nn.warmup_cosine(step, peak_lr, steps))
            step += 1
        yield params


if __name__ == "__main__":
    reproduce(train, "Three layers of 1024 ReLU units with dropout.", 1.25, "Srivastava et al. 2014", epochs=60)
