"""The examples, as a person runs them."""

import importlib
import pickle
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import purenn as nn

pytest.importorskip("matplotlib", reason="needs the extra 'examples'")
pytest.importorskip("tqdm", reason="needs the extra 'examples'")
pytest.importorskip("pooch", reason="needs the extra 'examples'")

EXAMPLES = Path(__file__).parents[1] / "examples"


def start(*arguments, example="mnist.py"):
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_mnist(tmp_path):
    process = start("--data", "digits", "--output", tmp_path, "--epochs", 2)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "\r" not in output
    last = output.splitlines()[-1]
    assert re.fullmatch(r"test accuracy \d+\.\d\d % \(\d+ of 359 wrong\), trained in \d+\.\d s", last)
    assert float(last.split()[2]) > 85
    assert {path.name for path in tmp_path.iterdir()} == {
        "params.pickle", "learning-curves.png", "confusion.png", "mistakes.png", "weights.png"
    }  # fmt: skip
    params = pickle.loads((tmp_path / "params.pickle").read_bytes())
    data = nn.mnist.digits()
    wrong = (nn.predict(params, data.test_images) != data.test_labels).sum()
    assert f"({wrong} of 359 wrong)" in last


def test_mnist_interrupted_keeps_the_best_parameters(tmp_path):
    process = start("--data", "digits", "--output", tmp_path, "--epochs", 10_000, "--patience", 10_000, "--no-plots")
    for line in process.stdout:
        if line.startswith("epoch  2"):
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert re.search(r"interrupted after \d+ epochs", output)
    assert f"the best parameters are in {tmp_path / 'params.pickle'}" in output
    assert isinstance(pickle.loads((tmp_path / "params.pickle").read_bytes()), nn.Params)


def test_mnist_with_a_loss_that_is_not_finite(tmp_path):
    process = start("--data", "digits", "--output", tmp_path, "--lr", 1e30, "--no-plots")
    output, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(r"epoch 1: the loss is (nan|inf); try a smaller --lr than 1e\+30", output)
    assert "no epoch was finished" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "error: nowhere has neither train-images"),
        (("--data", "digits", "--batch-size", 0), "batch_size is 0, but must be at least 1"),
        (("--data", "digits", "--epochs", 0), "no epoch was finished"),
        (("--data", "digits", "--lr", "nan"), "peak_lr is nan, but must be a finite number"),
        (("--data", "digits", "--seed", -1), "seed is -1, but must be an int >= 0"),
    ],
)
def test_mnist_with_invalid_options(tmp_path, arguments, message):
    process = start(*arguments, "--output", tmp_path)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("example", "epochs", "limit"),
    [("hinton2005.py", 10, 12), ("srivastava2014.py", 2, 40), ("simard2003.py", 2, 60), ("convolution.py", 8, 12)],
)
def test_reproductions_in_short(tmp_path, example, epochs, limit):
    arguments = "--data", "digits", "--epochs", epochs, "--seeds", 0, 1, "--output", tmp_path
    output, errors = start(*arguments, example=example).communicate()
    assert errors == ""
    last = output.splitlines()[-1]
    assert re.fullmatch(r"test error \d+\.\d\d % \(mean of 2\); published for MNIST: \d\.\d\d % \(.+\)", last)
    assert float(last.split()[2]) < limit
    assert (tmp_path / example.replace(".py", ".png")).stat().st_size > 10_000


def test_convolution(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    convolution = importlib.import_module("convolution")
    random = np.random.default_rng(0)
    first, *_ = convolution.network(0, (8, 8)).layers
    first = nn.tree_map(lambda p: p + 0.1 * random.standard_normal(p.shape), first)
    second = convolution.Conv2D(random.standard_normal((2, 2, 16, 3)), np.zeros(3), nn.tanh)
    pool, last = convolution.MaxPool(2), nn.init(1, (3, 3), [nn.softmax], "float64")
    network = nn.Params((first, pool, second, pool, convolution.Reshape((3,)), last))
    x, y = random.standard_normal((4, 8, 8, 1)), np.asarray([0, 1, 2, 0])
    nn.check_vjp(network, x)
    gradient = nn.grads(network, x, y)
    assert nn.forward(network, x[:0]).shape == (0, 3)
    jax = pytest.importorskip("jax", reason="needs the extra 'jax'")
    importlib.import_module("purenn.jax")
    with jax.enable_x64(True):
        compiled = nn.tree_map(np.asarray, jax.jit(nn.grads)(network, x, y))
        assert nn.global_norm(gradient - compiled) < 1e-12 * nn.global_norm(gradient)


def test_batchnorm(tmp_path):
    arguments = "--data", "digits", "--epochs", 4, "--output", tmp_path
    output, errors = start(*arguments, example="batchnorm.py").communicate()
    assert errors == ""
    learnt, not_learnt = (float(error) for error in re.findall(r"test error (\S+) %", output))
    assert learnt < 25 and not_learnt > 75
    assert (tmp_path / "batchnorm.png").stat().st_size > 10_000
    _, errors = start("--data", "nowhere", example="batchnorm.py").communicate()
    assert errors.startswith("error: nowhere has neither")


def test_a_calibrated_network_treats_examples_alone_and_has_the_statistics_of_all(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    batchnorm = importlib.import_module("batchnorm")
    random = np.random.default_rng(0)
    params, _ = batchnorm.networks(0, inputs=6, depth=3, width=5)
    params = nn.tree_map(lambda p: p + 0.1 * random.standard_normal(p.shape), params)
    x = random.standard_normal((400, 6))
    fixed = batchnorm.calibrated(params, x)
    np.testing.assert_allclose(nn.forward(fixed, x), nn.forward(params, x), atol=0.005)  # but for n - 1 instead of n
    assert np.allclose(nn.forward(fixed, x)[:3], nn.forward(fixed, x[:3]), rtol=1e-12)
    assert not np.allclose(nn.forward(params, x)[:3], nn.forward(params, x[:3]), rtol=0.1)
    nested = nn.Params((nn.Params(params.layers[:2]), *params.layers[2:]))
    assert batchnorm.calibrated(nested, x).layers[0].layers == fixed.layers[:2]
    means = [nn.forward(nn.Params(fixed.layers[:k]), x) for k in (2, 4)]
    assert all(0.3 < mean.mean() < 0.7 and mean.std(axis=0).min() > 0.1 for mean in means)
    for network in (params, fixed, *params.layers[:2], *fixed.layers[:2]):
        nn.check_vjp(network, x[:7, : network.fan_in] if isinstance(network, nn.Params | nn.Dense) else x[:7, :5])


def test_sklearn_comparison():
    pytest.importorskip("sklearn", reason="compares with scikit-learn")
    output, errors = start("--seeds", 1, example="sklearn_comparison.py").communicate()
    assert errors == ""
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["iris", "wine", "breast_cancer", "diabetes", "geometric mean"]
    for name, _, ours, theirs, *_ in rows[:4]:
        assert all(float(text.split()[0]) > (0.2 if name == "diabetes" else 0.85) for text in (ours, theirs))


def test_checkpoint():
    process = start("--steps", 100, example="checkpoint.py")
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "killed after step 53\nresuming after step 50\n" in output
    assert output.endswith("the same bits as without a stop\n")


def test_lbfgs():
    output, errors = start("--iterations", 20, example="lbfgs.py").communicate()
    assert errors == ""
    assert float(output.splitlines()[-1].split()[-1][:-1]) > 85


def test_any_number_of_processes_gives_the_same_parameters(tmp_path):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    results = {}
    for n in (1, 2, 4):
        arguments = "--processes", n, "--epochs", 2, "--output", tmp_path / str(n)
        process = start(*arguments, example="data_parallel.py")
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert f"{n} processes: " in output
        results[n] = nn.load(tmp_path / str(n) / "params.checkpoint")
        with np.load(tmp_path / str(n) / f"part-0-of-{n}.npz") as part:
            assert part["x"].shape == (1438 // 64, 64 // n, 64), "each process reads its part only"
    again, _ = start(*arguments, example="data_parallel.py").communicate()
    assert "epoch" not in again
    assert again.splitlines()[-1] == output.splitlines()[-1]
    for n in (2, 4):
        assert nn.global_norm(results[n] - results[1]) < 1e-5 * nn.global_norm(results[1])


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_run_and_the_checkpoint_resumes_it(tmp_path, lost):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = "--processes", 2, "--epochs", 5000, "--output", tmp_path
    start(*arguments, "--write-parts", example="data_parallel.py").communicate()
    processes = [
        start(*arguments, "--coordinator", address, "--process", k, example="data_parallel.py") for k in range(2)
    ]
    for line in processes[0].stdout:
        if line.startswith("epoch 3"):
            break
    processes[lost].kill()
    processes[lost].communicate()
    survivor = processes[1 - lost]
    _, errors = survivor.communicate(timeout=60)
    assert survivor.returncode != 0
    assert re.search("another process was lost|another task died", errors)
    *_, epoch = nn.load(tmp_path / "data-parallel.checkpoint")
    process = start(*arguments, example="data_parallel.py")
    try:
        first = next(line for line in process.stdout if line.startswith("epoch"))
        assert first.startswith(f"epoch {epoch + 1}:")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_process_that_fails_ends_all_at_once_and_says_why(tmp_path):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    arguments = "--processes", 2, "--epochs", 1, "--output", tmp_path
    start(*arguments, example="data_parallel.py").communicate()
    for options, message in ((("--sizes", 8, 8), "is of another run"), (("--batch-size", 0), "must be at least 1")):
        process = start(*arguments, *options, example="data_parallel.py")
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert message in errors


def test_convolution_runs_under_jit_with_one_changed_line(tmp_path):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    script = (EXAMPLES / "convolution.py").read_text()
    compiled = "import jax, purenn.jax; GRADS = jax.jit(nn.grads)"
    changed = re.sub(r"^GRADS = nn.grads.*$", compiled, script, flags=re.MULTILINE)
    (tmp_path / "convolution.py").write_text(changed)
    (tmp_path / "experiment.py").write_text((EXAMPLES / "experiment.py").read_text())
    arguments = "--data", "digits", "--epochs", 8, "--output", tmp_path
    before, _ = start(*arguments, example="convolution.py").communicate()
    after, errors = start(*arguments, example=tmp_path / "convolution.py").communicate()
    assert errors == ""
    ours, theirs = (float(re.findall(r"test error (\S+) %", output)[-1]) for output in (before, after))
    assert abs(ours - theirs) < 2


def test_examples_use_public_names_only():
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        assert set(re.findall(r"(?<![.\w])nn\.(\w+)", text)) <= set(nn.__all__), path
        assert not re.search(r"from purenn|import purenn\.(?!jax)", text), path


def test_distortions(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    distorted = importlib.import_module("simard2003").distorted
    x = nn.mnist.digits().train_images[:50]
    assert np.allclose(distorted(0, x, (8, 8), bend=0, degrees=0, stretch=0, shear=0), x, atol=1e-5)
    bent = distorted(1, x, (8, 8))
    assert bent.shape == x.shape
    assert bent.dtype == x.dtype
    assert 0 <= bent.min() < bent.max() <= 1
    assert 0.05 < np.abs(bent - x).mean() < 0.3
    assert 0.7 < bent.mean() / x.mean() < 1.3
