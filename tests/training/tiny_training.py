"""A task small enough to train in a test, and a command that trains it, to be killed.

python tiny_training.py WORKDIR [STEP]     SIGKILL itself when it makes the batch of STEP
"""

import os
import pathlib
import signal
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.models.layers import BatchNorm, Mlp
from abaw_jax.tasks.task import Aux, Task
from abaw_jax.training.loop import TrainResult, train
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves

WIDTH = 8


class TinyModel(nn.Module):
    """Dropout, BatchNorm and kernels that every mesh axis can split."""

    @nn.compact
    def __call__(self, x, mask, *, train: bool):
        x = Mlp(16, dropout=0.1, name="mlp")(x, train=train)
        x = BatchNorm(name="norm")(x, mask, train=train)
        return nn.Dense(1, name="head")(x)[:, 0]


def make_tiny_task() -> Task:
    """Regression of y (B,) on x (B, 8), squared error over the rows of the mask."""
    model = TinyModel()

    def init(key, batch):
        variables = dict(model.init(key, batch["x"], batch["mask"], train=False))
        return variables.pop("params"), variables

    def loss(params, model_state, batch, rngs, train):
        out, state = model.apply(
            {"params": params, **model_state}, batch["x"], batch["mask"], train=train,
            rngs=rngs, mutable=["batch_stats"],
        )  # fmt: skip
        weight = batch["mask"].astype(jnp.float32)
        error = jnp.square(out - batch["y"]) * weight
        metrics = {"bias": ((out - batch["y"]).sum(), weight.sum())}
        return error.sum(), Aux(weight.sum(), metrics, state)

    def predict(params, model_state, batch):
        variables = {"params": params, **model_state}
        return {"y": model.apply(variables, batch["x"], batch["mask"], train=False)}

    return Task(init, loss, predict)


def tiny_batches(start: int, size: int = 16):
    """Batch n depends on n alone; y is a function of x, so that the loss can fall."""
    step = start
    while True:
        random = np.random.default_rng((7, step))
        x = random.normal(size=(size, WIDTH)).astype(np.float32)
        yield {"x": x, "y": np.tanh(x[:, 0]) + x[:, 1], "mask": random.random(size) < 0.8}
        step += 1


def tiny_train(workdir, *, steps=12, mesh=(1, 1, 1), lr=1e-2, **options) -> TrainResult:
    """`train` with small defaults, on as many devices as the mesh takes."""
    devices = jax.devices()[: int(np.prod(mesh))]
    options = {
        "make_batches": tiny_batches, "save_every": 4, "log_every": 2, "seed": 3,
        "ema_decay": 0.9, "optimizer": make_optimizer(lr=lr, steps=12, weight_decay=0.1),
        **options,
    }  # fmt: skip
    return train(
        make_tiny_task(), steps=steps, mesh=make_mesh(mesh, devices), workdir=workdir, **options
    )


def bits(tree) -> dict[str, bytes]:
    """The exact contents of a tree by path."""
    return {path: np.asarray(leaf).tobytes() for path, leaf in named_leaves(tree).items()}


def killing_batches(fatal: int):
    """tiny_batches whose process is killed, as by `kill -9`, when it makes batch `fatal`."""

    def make(start):
        for step, batch in enumerate(tiny_batches(start), start):
            if step == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    return make


if __name__ == "__main__":
    fatal = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    tiny_train(pathlib.Path(sys.argv[1]), make_batches=killing_batches(fatal))
