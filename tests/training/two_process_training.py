"""One of two processes that train together, started by test_training_processes.py.

python two_process_training.py WORKDIR ADDRESS INDEX [STEP]   process 0 gets SIGTERM at STEP
"""

import os
import pathlib
import signal
import sys

import jax
import numpy as np
from tiny_training import tiny_batches, tiny_train


def main(workdir: str, address: str, index: str, at: str = "-1") -> None:
    jax.distributed.initialize(address, num_processes=2, process_id=int(index))

    def part(start):
        for step, batch in enumerate(tiny_batches(start), start):
            if step == int(at) and index == "0":
                os.kill(os.getpid(), signal.SIGTERM)
            yield {name: np.split(value, 2)[int(index)] for name, value in batch.items()}

    steps = 12 if at == "-1" else 2000
    tiny_train(pathlib.Path(workdir), mesh=(2, 2, 2), make_batches=part, steps=steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
