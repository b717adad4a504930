"""Stop a training run anywhere, even with kill -9, and go on to the very same bits.

    python examples/checkpoint.py

It trains on the bundled digits twice: once in one go, and once in a process that kills itself in the middle of an
epoch, and another that goes on from its last checkpoint. A checkpoint has everything: parameters, the optimizer's
state, and the number of steps taken, from which the order of the examples follows.
"""

import argparse
import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import purenn as nn

BATCH_SIZE, SAVE_EVERY = 32, 10


def train(path, steps, die_at=None):
    """Train from the last checkpoint, if there is one, up to a number of steps, and save every few of them."""
    data = nn.mnist.digits()
    params = nn.init(0, (64, 64, 32, 10), (nn.tanh, nn.relu, nn.softmax))
    state, step = nn.adam_init(params), 0
    if path.exists():
        params, state, step = nn.load(path)
        print(f"resuming after step {step}", flush=True)
    steps_an_epoch = math.ceil(len(data.train_images) / BATCH_SIZE)
    while step < steps:
        epoch, done = divmod(step, steps_an_epoch)
        batches = nn.batches((0, epoch), data.train_images, data.train_labels, BATCH_SIZE)
        for batch in itertools.islice(batches, done, done + steps - step):
            lr = nn.warmup_cosine(step, 3e-3, steps)
            params, state = nn.adam_step(params, nn.grads(params, *batch), state, lr)
            step += 1
            if step % SAVE_EVERY == 0 or step == steps:
                nn.save(path, (params, state, step))
            if step == die_at:
                print(f"killed after step {step}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)


def main():
    """Compare a run that was killed with one that was not."""
    parser = argparse.ArgumentParser(description="Stop a training run, and go on to the same bits.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-at", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.checkpoint:
        return train(options.checkpoint, options.steps, options.die_at)
    with tempfile.TemporaryDirectory() as directory:
        whole, stopped = Path(directory) / "whole", Path(directory) / "stopped"
        train(whole, options.steps)
        command = [sys.executable, __file__, "--steps", str(options.steps), "--checkpoint", str(stopped)]
        subprocess.run([*command, "--die-at", str(options.steps // 2 + 3)], check=False)
        subprocess.run(command, check=True)
        same = whole.read_bytes() == stopped.read_bytes()
        params, _, _ = nn.load(stopped)
    data = nn.mnist.digits()
    print(f"test accuracy {100 * nn.accuracy(params, data.test_images, data.test_labels):.2f} %")
    print("the same bits as without a stop" if same else "error: not the same bits as without a stop")
    return None if same else 1


if __name__ == "__main__":
    sys.exit(main())
