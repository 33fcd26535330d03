"""One step: a pure function of (state, batch), jitted, donated and sharded."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from abaw_jax.models.layers import keep_norms
from abaw_jax.tasks.task import Aux, Task
from abaw_jax.training.optim import Optimizer
from abaw_jax.training.partition import RULES, batch_sharding, state_shardings
from abaw_jax.training.rng import stream_keys
from abaw_jax.training.state import TrainState, map_named

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def make_train_step(
    task: Task,
    optimizer: Optimizer,
    *,
    seed: int,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The pure step (state, batch) -> (state, metrics); metrics are name -> (sum, weight).

    The gradient is that of sum(loss_sum) / sum(weight) over the global batch, in `accumulate`
    micro-batches one after another. A batch of weight 0 has gradient 0. Of what the optimiser
    leaves alone neither parameters change nor running statistics (`keep_norms`). Where it asks for
    a second gradient, that is of the same batch with the same random numbers.
    """

    def loss(params, model_state, batch, rngs):
        params = map_named(
            lambda path, leaf: jax.lax.stop_gradient(leaf) if optimizer.frozen(path) else leaf,
            params,
        )
        with keep_norms(optimizer.frozen):
            return task.loss(params, model_state, batch, rngs, True)

    gradient = jax.value_and_grad(loss, has_aux=True)

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        rngs = stream_keys(seed, state.step)
        batch = task.whole(batch)

        def mean_gradient(params):
            at = state.replace(params=params)
            grads, loss_sum, aux = _sum_gradients(gradient, at, batch, rngs, accumulate)
            some = aux.weight > 0
            scale = jnp.where(some, 1.0 / jnp.where(some, aux.weight, 1.0), 0.0)
            return jax.tree.map(lambda g: g * scale, grads), loss_sum, aux

        grads, loss_sum, aux = mean_gradient(state.params)
        # Running statistics and metrics are of the first gradient.
        more = {"grad_fn": lambda params, _: mean_gradient(params)[0]} if optimizer.twice else {}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            ema = jax.tree.map(lambda old, new: old + (1 - ema_decay) * (new - old), ema, params)
        one = jnp.float32(1)
        metrics = {
            **aux.metrics,
            "loss": (loss_sum, aux.weight),
            "grad_norm": (optax.tree.norm(grads), one),
            "learning_rate": (optimizer.learning_rate(state.step), one),
        }
        return TrainState(state.step + 1, params, aux.model_state, opt_state, ema), metrics

    return train_step


def _sum_gradients(gradient, state, batch, rngs, accumulate):
    """Sums over micro-batches: gradient, loss, Aux. Micro-batch i holds rows i, i + n, i + 2n, ...

    Rows are taken in strides because a device's rows are neighbours: so each device works on its
    own rows in every micro-batch and none have to travel.
    """
    if accumulate == 1:
        (loss_sum, aux), grads = gradient(state.params, state.model_state, batch, rngs)
        return grads, loss_sum, aux

    def body(carry, xs):
        total, model_state = carry
        index, micro = xs
        keys = {name: jax.random.fold_in(key, index) for name, key in rngs.items()}
        (loss_sum, aux), grads = gradient(state.params, model_state, micro, keys)
        total = jax.tree.map(jnp.add, total, grads)
        return (total, aux.model_state), (loss_sum, aux.weight, aux.metrics)

    micro = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1),
        batch,
    )
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (grads, model_state), sums = jax.lax.scan(
        body, (zeros, state.model_state), (jnp.arange(accumulate), micro)
    )
    loss_sum, weight, metrics = jax.tree.map(lambda x: x.sum(0), sums)
    return grads, loss_sum, Aux(weight, metrics, model_state)


def jit_train_step(train_step: Callable, shardings: TrainState, mesh: Mesh) -> Callable:
    """The step jitted: state donated, layouts of everything that goes in and out written out."""
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, NamedSharding(mesh, P())),
        donate_argnums=0,
    )


def abstract_state(
    task: Task,
    optimizer: Optimizer,
    *,
    seed: int,
    batch: Any,
    mesh: Mesh,
    ema_decay: float | None = None,
    rules: Any = RULES,
) -> tuple[Callable[[], TrainState], TrainState]:
    """(init, state as ShapeDtypeStructs with shardings); init() makes it, each shard in its place.

    batch: an example global batch (arrays or ShapeDtypeStructs); only its shapes are read.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

    def init() -> TrainState:
        example = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        params, model_state = task.init(jax.random.key(seed), example)
        # The average starts as a copy: donating one buffer under two names is an error.
        ema = None if ema_decay is None else jax.tree.map(jnp.copy, params)
        return TrainState(jnp.int32(0), params, model_state, optimizer.init(params), ema)

    abstract = jax.eval_shape(init)
    shardings = state_shardings(abstract, mesh, rules)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )
    return jax.jit(init, out_shardings=shardings), abstract


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (NumPy) -> global arrays, examples divided over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def make_predict(
    task: Task, mesh: Mesh
) -> Callable[[Any, Any, Iterable[Any]], Iterator[tuple[Any, dict[str, np.ndarray]]]]:
    """predict(params, model_state, batches) -> iterator of (batch, outputs as NumPy).

    One compile a batch shape; while the device works on a batch the outputs of the one before are
    fetched. Every process sees the outputs of the whole batch.
    """
    run = jax.jit(
        task.predict,
        in_shardings=(None, None, batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, P()),
    )

    def predict(params, model_state, batches):
        waiting = None
        for batch in batches:
            outputs = run(params, model_state, put_batch(batch, mesh))
            if waiting is not None:
                yield waiting[0], jax.device_get(waiting[1])
            waiting = batch, outputs
        if waiting is not None:
            yield waiting[0], jax.device_get(waiting[1])

    return predict
