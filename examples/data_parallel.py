"""Train on many processes at once with JAX: each has a part of the data, all have the same parameters.

    python examples/data_parallel.py --processes 2                   # two processes on this machine, the bundled digits
    python examples/data_parallel.py --processes 2 --data DIRECTORY  # MNIST's four files

On a cluster, ``--write-parts`` writes the part of the data that each host is to have in its output directory, and then
every host runs the same file with its number; process 0 is where the others find it, under the address given:

    python examples/data_parallel.py --processes 8 --write-parts --data DIRECTORY
    python examples/data_parallel.py --processes 8 --process 3 --coordinator host-0:12345

Column j of every batch comes from part j of the data, and a process holds the parts of its columns only. So the
batches, and to rounding the parameters, do not depend on the number of processes. XLA adds up the gradients where they
meet; no line here says so. After every epoch process 0 writes a checkpoint, from which the same command goes on.
"""

import argparse
import os
import signal
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


@jax.jit
def step(params, velocity, x, y, lr):
    """Take a step on a batch that lies on all devices; the same functions as on one."""
    loss, gradient = nn.loss_and_grads(params, x, y)
    return (*nn.momentum_step(params, gradient, velocity, lr), loss)


def write_parts(data, batch_size, processes, directory):
    """Write the part of the training data that each process reads, one file for each: (batches, columns, ...)."""
    count = len(data.train_images) // batch_size
    if count == 0:
        raise ValueError(f"--batch-size is {batch_size}, but there are only {len(data.train_images)} digits")
    columns = batch_size // processes
    for number in range(processes):
        here = np.s_[:, number * columns : (number + 1) * columns]
        x, y = (
            a[: count * batch_size].reshape(count, batch_size, *a.shape[1:])[here]
            for a in (data.train_images, data.train_labels)
        )
        np.savez(directory / f"part-{number}-of-{processes}.npz", x=x, y=y)
    np.savez(directory / "test.npz", x=data.test_images, y=data.test_labels)


def local_batches(seed, x, y, first_column):
    """Yield this process's columns of every batch; each column in its own order."""
    orders = [np.random.default_rng((*seed, first_column + j)).permutation(len(x)) for j in range(x.shape[1])]
    for rows in np.stack(orders, axis=1):
        yield x[rows, np.arange(x.shape[1])], y[rows, np.arange(x.shape[1])]


def train(options):
    """Train on this process's part, together with the others; return the parameters and the times of a step."""
    if options.batch_size % jax.device_count():
        raise ValueError(f"a batch of {options.batch_size} cannot be shared by {jax.device_count()} devices evenly")
    devices = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec("data"))
    everywhere = NamedSharding(devices.mesh, PartitionSpec())
    with np.load(options.output / f"part-{options.process}-of-{options.processes}.npz") as part:
        x, y = part["x"], part["y"]
    if x.shape[1] * options.processes != options.batch_size:
        raise ValueError(
            f"--batch-size is {options.batch_size}, but the parts are for {x.shape[1] * options.processes}"
        )
    checkpoint = options.output / "data-parallel.checkpoint"
    sizes = (x.shape[-1], *options.sizes, 10)
    settings = (*sizes, len(x), options.batch_size, options.epochs, options.lr, options.seed)
    params = nn.init(options.seed, sizes, (nn.tanh, nn.relu, nn.softmax))
    state = params, nn.zeros_like(params), 0
    if options.process == 0 and checkpoint.exists():
        there, *state = nn.load(checkpoint)
        if there != settings:
            raise ValueError(f"{checkpoint} is of another run: {there}, not {settings}; delete it, or change --output")
    params, velocity, first = multihost_utils.broadcast_one_to_all(tuple(state))  # the others need no file of their own
    params, velocity = jax.device_put((params, velocity), everywhere)
    total = options.epochs * len(x)
    for epoch in range(int(first), options.epochs):
        batches = local_batches((options.seed, epoch), x, y, options.process * x.shape[1])
        progress = tqdm(batches, f"epoch {epoch + 1}", len(x), leave=False, disable=options.process > 0 or None)
        for number, batch in enumerate(progress, start=epoch * len(x)):
            batch = (jax.make_array_from_process_local_data(devices, a) for a in batch)
            params, velocity, loss = step(params, velocity, *batch, nn.warmup_cosine(number, options.lr, total))
        if options.process == 0:
            print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True)
            nn.save(checkpoint, (settings, *nn.tree_map(np.asarray, (params, velocity)), epoch + 1))
    batch = [jax.make_array_from_process_local_data(devices, a) for a in (x[0], y[0])]
    alone = jax.tree.map(lambda a: jnp.asarray(a.addressable_data(0)), (params, velocity))
    times = seconds_a_step((params, velocity), batch), seconds_a_step(alone, jax.device_put((x[0], y[0])))
    return nn.tree_map(np.asarray, params), times


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
    jax.distributed.initialize(
        options.coordinator, options.processes, options.process, heartbeat_timeout_seconds=HEARTBEAT
    )
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX treats it as a warning
    try:
        params, (together, computation) = train(options)
        if options.process == 0:
            print(f"{options.processes} processes: {1e3 * together:.2f} ms a step, {1e3 * computation:.2f} ms alone")
            nn.save(options.output / "params.checkpoint", params)
            with np.load(options.output / "test.npz") as test:
                print(f"test accuracy {100 * nn.accuracy(params, test['x'], test['y']):.2f} %", flush=True)
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = f"another process was lost; run the same command to resume ({str(error)[-200:]})"
        print(f"error: process {options.process}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # an orderly end would wait for the others, and they for this one


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
            time.sleep(0.1)
        lost = next((number for number, child in enumerate(children) if child.poll()), None)
    finally:
        for child in children:
            child.kill()
    if lost is not None:
        sys.exit(f"error: process {lost} ended with status {children[lost].returncode}; the others were stopped")


def main():
    """Prepare the parts, and start the processes, or be one."""
    parser = argparse.ArgumentParser(description="Train on many processes with JAX.")
    parser.add_argument("--data", metavar="DIR", default="digits", help="MNIST's files; without it, the bundled digits")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--process", type=int, help="this process's number; omit it to start all here")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is found")
    parser.add_argument("--sizes", type=int, nargs=2, default=(128, 64), help="units of the two hidden layers")
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR")
    parser.add_argument("--write-parts", action="store_true", help="write the data of all processes, and nothing else")
    options = parser.parse_args()
    if min(options.processes, options.batch_size, options.epochs, *options.sizes) < 1 or options.seed < 0:
        parser.error("--processes, --batch-size, --epochs and --sizes must be at least 1, and --seed not negative")
    if options.batch_size % options.processes:
        parser.error(f"a batch of {options.batch_size} cannot be shared by {options.processes} processes evenly")
    if options.process is not None and not (options.coordinator and 0 <= options.process < options.processes):
        parser.error("--process must be below --processes, and needs --coordinator")
    if options.process is not None:
        return work(options)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        write_parts(load(options.data), options.batch_size, options.processes, options.output)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    return None if options.write_parts else launch(options)


if __name__ == "__main__":
    main()
