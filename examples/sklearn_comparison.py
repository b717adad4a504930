"""Compare purenn with scikit-learn's multilayer perceptrons on scikit-learn's small data sets: scores and seconds.

    pip install -e ".[bench]" && python examples/sklearn_comparison.py

Both libraries train hidden layers of 32 and 16 relu units with Adam (rate 1e-3) for 100 epochs, in batches of 32, on
the same folds of a five-fold cross-validation. Features, and the target of a regression, are scaled to mean 0 and
standard deviation 1 on the training folds. Each library runs in a process of its own, and they take turns. Two things
differ: scikit-learn draws the first biases at random, too, and for two classes it has one sigmoid output, purenn two
softmax outputs.
"""

import argparse
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from sklearn import datasets, metrics, model_selection, neural_network
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

import purenn as nn

SETS = ("iris", "wine", "breast_cancer", "diabetes")
HIDDEN, LR, BATCH_SIZE, EPOCHS = (32, 16), 1e-3, 32, 100


def with_purenn(seed, x, y):
    """Fit labels ``(n,)`` or values ``(n, 1)``, and return the function that predicts them."""
    is_regression = y.ndim == 2
    sizes = (x.shape[1], *HIDDEN, 1 if is_regression else y.max() + 1)
    activations = (nn.relu, nn.relu, nn.identity if is_regression else nn.softmax)
    params = nn.init(seed, sizes, activations, initializer=nn.initializers.glorot_uniform)
    state = nn.adam_init(params)
    for epoch in range(EPOCHS):
        for batch in nn.batches((seed, epoch), x, y, BATCH_SIZE):
            params, state = nn.adam_step(params, nn.grads(params, *batch), state, LR)
    return lambda x: nn.predict(params, x)


def with_sklearn(seed, x, y):
    """Do what ``with_purenn`` does."""
    kind = neural_network.MLPRegressor if y.ndim == 2 else neural_network.MLPClassifier
    same = {"hidden_layer_sizes": HIDDEN, "alpha": 0, "learning_rate_init": LR, "batch_size": BATCH_SIZE}
    model = kind(**same, max_iter=EPOCHS, n_iter_no_change=EPOCHS, tol=0, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as always after max_iter
        return model.fit(x, y if y.ndim == 1 else y[:, 0]).predict


FITS = {"purenn": with_purenn, "scikit-learn": with_sklearn}


def evaluate(library, name, seed, fold):
    """Return the score on a fold, accuracy or R2, and the seconds that the fit took."""
    data = getattr(datasets, f"load_{name}")()
    is_regression = name == "diabetes"
    split = (model_selection.KFold if is_regression else model_selection.StratifiedKFold)(
        5, shuffle=True, random_state=0
    )
    train, test = list(split.split(data.data, data.target))[fold]
    x = ((data.data - data.data[train].mean(axis=0)) / data.data[train].std(axis=0)).astype(np.float32)
    y = data.target
    if is_regression:
        y = ((y - y[train].mean()) / y[train].std()).astype(np.float32)[:, None]
    start = time.perf_counter()
    predict = FITS[library](seed, x[train], y[train])
    seconds = time.perf_counter() - start
    score = metrics.r2_score if is_regression else metrics.accuracy_score
    return score(y[test], predict(x[test])), seconds


def main():
    """Let the libraries take turns, and print a table."""
    parser = argparse.ArgumentParser(description="Compare with scikit-learn's multilayer perceptrons.")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, each with all five folds")
    options = parser.parse_args()
    results = {(name, library): [] for name in SETS for library in FITS}
    turns = [(name, seed, fold) for name in SETS for seed in range(options.seeds) for fold in range(5)]
    with ProcessPoolExecutor(1) as ours, ProcessPoolExecutor(1) as theirs:
        for pool, library in zip((ours, theirs), FITS, strict=True):
            pool.submit(evaluate, library, "iris", 0, 0).result()  # imports what it needs
        for name, seed, fold in tqdm(turns, leave=False, disable=None):
            for pool, library in zip((ours, theirs), FITS, strict=True):
                results[name, library].append(pool.submit(evaluate, library, name, seed, fold).result())
    print("Scores: mean ± standard deviation over folds and seeds. Difference: of the means, in standard deviations.\n")
    print("| data | score | purenn | scikit-learn | difference | seconds (median): purenn | scikit-learn | ratio |")
    print("| --- " * 8 + "|")
    ratios = []
    for name in SETS:
        (ours, our_seconds), (theirs, their_seconds) = (np.transpose(results[name, library]) for library in FITS)
        ratios.append(np.median(our_seconds) / np.median(their_seconds))
        scores = " | ".join(f"{scores.mean():.4f} ± {scores.std():.4f}" for scores in (ours, theirs))
        difference = (ours.mean() - theirs.mean()) / np.std([ours, theirs])
        times = f"{np.median(our_seconds):.3f} | {np.median(their_seconds):.3f} | {ratios[-1]:.2f}"
        print(f"| {name} | {'R2' if name == 'diabetes' else 'accuracy'} | {scores} | {difference:+.2f} | {times} |")
    print(f"| geometric mean | | | | | | | {np.exp(np.mean(np.log(ratios))):.2f} |")


if __name__ == "__main__":
    main()
