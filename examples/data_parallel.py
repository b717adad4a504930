"""Train on many processes at once with JAX: each has a part of the data, all have the same parameters.

    python examples/data_parallel.py --processes 2                   # two processes on this machine, the bundled digits
    python examples/data_parallel.py --processes 2 --data DIRECTORY  # MNIST's four files

On a cluster, ``--write-parts`` writes the part of the data that each host is to have in its output directory, and then
every host runs the same file with its number; process 0 is where the others find it, under the address given:

    python examples/data_parallel.py --processes 8 --write-parts
    python examples/data_parallel.py --processes 8 --process 3 --coordinator host-0:12345

Column j of every batch comes from part j of the data, and a process holds the parts of its columns only. So the
batches, and to rounding the parameters, do not depend on the number of processes. XLA adds the gradients up where they
meet; no line here says so. After every epoch process 0 writes a checkpoint, from which the same command goes on.
"""

import argparse
import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

import purenn as nn
import purenn.jax

HEARTBEAT = 20  # seconds without a sign of life after which a process counts as dead
RESUME = "and the same command, given again, goes on after the last epoch"


@jax.jit
def step(params, velocity, x, y, lr):
    """Take a step on a batch that lies on all devices; the same functions as on one."""
    loss, gradient = nn.loss_and_grads(params, x, y)
    return (*nn.momentum_step(params, gradient, velocity, lr), loss)


def write_parts(data, batch_size, processes, directory):
    """Write the part of the training data that each process reads, one file for each: (batches, columns, ...)."""
    count = len(data.train_images) // batch_size
    columns = batch_size // processes
    for number in range(processes):
        here = np.s_[:, number * columns : (number + 1) * columns]
        x, y = (
            a[: count * batch_size].reshape(count, batch_size, *a.shape[1:])[here]
            for a in (data.train_images, data.train_labels)
        )
        np.savez(directory / f"part-{number}-of-{processes}.npz", x=x, y=y)


def local_batches(seed, x, y, first_column):
    """Yield this process's columns of every batch; each column in an order of its own."""
    orders = [np.random.default_rng((*seed, first_column + j)).permutation(len(x)) for j in range(x.shape[1])]
    for rows in np.stack(orders, axis=1):
        yield x[rows, np.arange(x.shape[1])], y[rows, np.arange(x.shape[1])]


def train(options):
    """Train on this process's part, together with the others, and return what came out."""
    devices = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec("data"))
    everywhere = NamedSharding(devices.mesh, PartitionSpec())
    with np.load(options.output / f"part-{jax.process_index()}-of-{options.processes}.npz") as part:
        x, y = part["x"], part["y"]
    checkpoint = options.output / "data-parallel.pickle"
    params = nn.init(options.seed, (x.shape[-1], *options.sizes, 10), (nn.tanh, nn.relu, nn.softmax))
    state = params, nn.zeros_like(params), np.asarray(0)
    if jax.process_index() == 0 and checkpoint.exists():
        state = pickle.loads(checkpoint.read_bytes())
    state = multihost_utils.broadcast_one_to_all(state)  # the others need no file of their own
    first = int(state[2])
    params, velocity, _ = jax.device_put(state, everywhere)
    total = options.epochs * len(x)
    for epoch in range(first, options.epochs):
        batches = local_batches((options.seed, epoch), x, y, jax.process_index() * x.shape[1])
        progress = tqdm(batches, f"epoch {epoch + 1}", len(x), leave=False, disable=jax.process_index() > 0 or None)
        for number, batch in enumerate(progress, start=epoch * len(x)):
            xb, yb = (jax.make_array_from_process_local_data(devices, a) for a in batch)
            params, velocity, loss = step(params, velocity, xb, yb, nn.warmup_cosine(number, total, options.lr))
        if jax.process_index() == 0:
            print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True)
            write(checkpoint, nn.tree_map(np.asarray, (params, velocity, np.asarray(epoch + 1))))
    return params, velocity, (xb, yb), batch


def write(path, tree):
    """Write a pickle so that a reader sees the old file or the new one."""
    path.with_suffix(".new").write_bytes(pickle.dumps(tree))
    os.replace(path.with_suffix(".new"), path)


def seconds_a_step(state, batch, calls=50):
    """Return the median time of a step."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(step(*state, *batch, 0.1))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def work(options):
    """Be one of the processes."""
    with contextlib.suppress(ImportError):
        jax.distributed.initialize(
            options.coordinator, options.processes, options.process, heartbeat_timeout_seconds=HEARTBEAT
        )
    try:
        params, velocity, batch, local_batch = train(options)
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} is missing; --write-parts writes it")
    except jax.errors.JaxRuntimeError as error:
        print(f"error: process {options.process} lost another one, {RESUME} ({str(error)[-200:]})", file=sys.stderr)
        os._exit(1)  # an orderly end would wait for the others
    together = seconds_a_step((params, velocity), batch)
    alone = jax.tree.map(lambda a: jnp.asarray(a.addressable_data(0)), (params, velocity))
    computation = seconds_a_step(alone, local_batch)
    if jax.process_index() == 0:
        here = nn.tree_map(np.asarray, params)
        times = f"{1e3 * together:.2f} ms a step, {1e3 * computation:.2f} ms of it computation"
        print(f"{options.processes} processes: {times}")
        with open(options.output / "params.pickle", "wb") as file:
            pickle.dump(here, file)
        data = load(options.data)
        print(f"test accuracy {100 * nn.accuracy(here, data.test_images, data.test_labels):.2f} %")


def load(source):
    """Return the data set that ``--data`` names."""
    return nn.mnist.digits() if source == "digits" else nn.mnist.load(source)


def launch(options):
    """Start all processes on this machine, and stop all if one fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    threads = str(max(1, len(os.sched_getaffinity(0)) // options.processes))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": threads}
    command = [sys.executable, *sys.argv, "--coordinator", address, "--process"]
    children = [subprocess.Popen([*command, str(k)], env=environment) for k in range(options.processes)]
    try:
        while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
            time.sleep(0.1)
        lost = next((number for number, child in enumerate(children) if child.poll()), None)
    finally:
        for child in children:
            child.kill()
    if lost is not None:
        sys.exit(f"error: process {lost} ended with status {children[lost].returncode}, {RESUME}")


def main():
    """Prepare the parts, and start the processes, or be one."""
    parser = argparse.ArgumentParser(description="Train on many processes with JAX.")
    parser.add_argument("--data", metavar="DIR", default="digits", help="MNIST's files; without it, the bundled digits")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--process", type=int, help="which of them this is; without it, all are started here")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is found")
    parser.add_argument("--sizes", type=int, nargs=2, default=(128, 64), help="units of the two hidden layers")
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR")
    parser.add_argument("--write-parts", action="store_true", help="write the data of all processes, and nothing else")
    options = parser.parse_args()
    if options.batch_size % options.processes:
        sys.exit(f"error: a batch of {options.batch_size} cannot be shared by {options.processes} processes evenly")
    options.output.mkdir(parents=True, exist_ok=True)
    if options.process is not None:
        return work(options)
    write_parts(load(options.data), options.batch_size, options.processes, options.output)
    return None if options.write_parts else launch(options)


if __name__ == "__main__":
    main()
