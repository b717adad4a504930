"""Learn the bundled digits with L-BFGS, a SciPy optimizer that works only on vectors.

    python examples/lbfgs.py

``nn.ravel`` turns a network or its gradient into a vector; the function it returns turns the vector back.
"""

import argparse

import scipy.optimize
from tqdm import tqdm

import purenn as nn


def minimize(params, x, y, penalty, iterations, callback=None):
    """Return the parameters that minimize the loss plus half the penalty times their square."""
    vector, unravel = nn.ravel(params)

    def value_and_slope(vector):
        params = unravel(vector)
        loss, gradient = nn.loss_and_grads(params, x, y)
        return loss + penalty / 2 * nn.vdot(params, params), nn.ravel(gradient + penalty * params)[0]

    options = {"maxiter": iterations}
    result = scipy.optimize.minimize(
        value_and_slope, vector, jac=True, method="L-BFGS-B", options=options, callback=callback
    )
    return unravel(result.x)


def main():
    """Train on the whole data set at once, and evaluate."""
    parser = argparse.ArgumentParser(description="Learn the bundled digits with SciPy's L-BFGS.")
    parser.add_argument("--penalty", type=float, default=1e-3, help="weight of half the squared parameters")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = nn.mnist.digits()
    params = nn.init(options.seed, (64, 64, 32, 10), (nn.tanh, nn.relu, nn.softmax), dtype="float64")
    with tqdm(desc="L-BFGS", total=options.iterations, leave=False, disable=None) as progress:
        params = minimize(
            params,
            data.train_images,
            data.train_labels,
            options.penalty,
            options.iterations,
            lambda intermediate_result: progress.update(),
        )
    for name, images, labels in (
        ("training", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        loss, accuracy = nn.loss(params, images, labels), nn.accuracy(params, images, labels)
        print(f"{name}: loss {loss:.4f}, accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
