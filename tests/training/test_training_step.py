import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import bits, make_tiny_task, tiny_batches

from abaw_jax.tasks.task import Aux, Task
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import TrainState, named_leaves
from abaw_jax.training.step import (
    abstract_state,
    jit_train_step,
    make_predict,
    make_train_step,
    put_batch,
)

OPTIMIZER = make_optimizer(lr=1e-2, steps=20, weight_decay=0.1)


def run(shape, steps, *, batch_size=16, **options):
    """Losses and last state on a mesh of that shape."""
    mesh = make_mesh(shape, jax.devices()[: int(np.prod(shape))])
    batches = tiny_batches(0, batch_size)
    with jax.set_mesh(mesh):
        init, abstract = abstract_state(
            make_tiny_task(), OPTIMIZER, seed=1, batch=next(batches), mesh=mesh,
            ema_decay=options.get("ema_decay"),
        )  # fmt: skip
        state = init()
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        step = make_train_step(make_tiny_task(), OPTIMIZER, seed=1, **options)
        step = jit_train_step(step, shardings, mesh)
        losses = []
        for _ in range(steps):
            batch = put_batch(next(batches), mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, batch)
            losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert step._cache_size() == 1
    return np.array(losses), state


@pytest.fixture(scope="module")
def one_device():
    return run((1, 1, 1), 20)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_one_device_and_eight_give_the_same_losses(one_device, shape):
    losses, state = run(shape, 20)
    np.testing.assert_allclose(losses, one_device[0], rtol=0, atol=1e-6)
    expected = named_leaves(one_device[1].params)
    for path, leaf in named_leaves(state.params).items():
        if path == "mlp/fc2/bias":  # BatchNorm cancels it: its gradient is rounding noise
            continue
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)
    assert losses[-1] < losses[0]


def test_state_is_split_over_the_mesh_and_only_expected_collectives_are_compiled():
    mesh = make_mesh((2, 4, 1))
    with jax.set_mesh(mesh):
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), next(tiny_batches(0))
        )
        init, abstract = abstract_state(make_tiny_task(), OPTIMIZER, seed=1, batch=batch, mesh=mesh)
        kernel = init().params["mlp"]["fc1"]["kernel"]
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16)}
        step = make_train_step(make_tiny_task(), OPTIMIZER, seed=1)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        text = jit_train_step(step, shardings, mesh).lower(abstract, batch).compile().as_text()
    # Split parameters are gathered for use, sums over the batch are reduced, rows never travel.
    assert "all-gather" in text and "all-reduce" in text
    assert "all-to-all" not in text
    assert "callback" not in text


def linear_task() -> Task:
    """No dropout and no BatchNorm: micro-batches change nothing but rounding."""

    def loss(params, model_state, batch, rngs, train):
        weight = batch["mask"].astype(jnp.float32)
        error = jnp.square(batch["x"] @ params["head"]["kernel"] - batch["y"]) * weight
        aux = Aux(weight.sum(), {"rows": (batch["x"] * weight[:, None], weight.sum())}, model_state)
        return error.sum(), aux

    def init(key, batch):
        return {"head": {"kernel": jax.random.normal(key, (8,))}}, {}

    return Task(init, loss, lambda params, model_state, batch: {})


def linear_state(optimizer):
    params, model_state = linear_task().init(jax.random.key(0), None)
    return TrainState(jnp.int32(0), params, model_state, optimizer.init(params))


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    # The masks differ between micro-batches: a mean of means would be another gradient.
    batch = next(tiny_batches(0))
    results = []
    for accumulate in (1, 4):
        step = make_train_step(linear_task(), OPTIMIZER, seed=0, accumulate=accumulate)
        results.append(jax.jit(step)(linear_state(OPTIMIZER), batch))
    (one, one_metrics), (four, four_metrics) = results
    np.testing.assert_allclose(
        four.params["head"]["kernel"], one.params["head"]["kernel"], rtol=1e-6
    )
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(four_metrics[name], one_metrics[name], rtol=1e-6)


def test_gradient_is_of_the_sum_over_the_weights():
    batch = next(tiny_batches(0))
    step = make_train_step(linear_task(), OPTIMIZER, seed=0)
    state = linear_state(OPTIMIZER)
    kernel, mask = np.asarray(state.params["head"]["kernel"], np.float64), batch["mask"]
    x, y = batch["x"][mask].astype(np.float64), batch["y"][mask]
    expected = np.linalg.norm(2 * x.T @ (x @ kernel - y) / mask.sum())
    _, metrics = jax.jit(step)(state, batch)
    assert float(metrics["grad_norm"][0]) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_weight_has_gradient_zero():
    batch = {**next(tiny_batches(0)), "mask": np.zeros(16, bool)}
    _, metrics = jax.jit(make_train_step(linear_task(), OPTIMIZER, seed=0))(
        linear_state(OPTIMIZER), batch
    )
    assert float(metrics["grad_norm"][0]) == 0 and float(metrics["loss"][1]) == 0


def test_ema_follows_its_recurrence():
    optimizer = make_optimizer(lr=0.1, steps=5, schedule="constant")
    step = jax.jit(make_train_step(linear_task(), optimizer, seed=0, ema_decay=0.8))
    state = linear_state(optimizer)
    state = state.replace(ema=state.params)
    expected = np.asarray(state.params["head"]["kernel"])
    for batch, _ in zip(tiny_batches(0), range(5), strict=False):
        state, _ = step(state, batch)
        expected = 0.8 * expected + 0.2 * np.asarray(state.params["head"]["kernel"])
    np.testing.assert_allclose(state.ema["head"]["kernel"], expected, rtol=1e-6)


def test_the_step_is_pure():
    step = jax.jit(make_train_step(make_tiny_task(), OPTIMIZER, seed=0))
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    batch = next(tiny_batches(0))
    kept = {name: value.copy() for name, value in batch.items()}
    init, _ = abstract_state(make_tiny_task(), OPTIMIZER, seed=0, batch=batch, mesh=mesh)
    state = init()
    first, second = step(state, batch), step(state, batch)
    assert bits(first) == bits(second)
    for name, value in kept.items():
        np.testing.assert_array_equal(batch[name], value)


def test_frozen_parameters_do_not_move_and_cost_no_gradient():
    optimizer = make_optimizer(
        lr=0.1, steps=5, schedule="constant", weight_decay=0.1, frozen=lambda p: p.startswith("mlp")
    )
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    batch = next(tiny_batches(0))
    init, _ = abstract_state(make_tiny_task(), optimizer, seed=0, batch=batch, mesh=mesh)
    state = init()
    after, metrics = jax.jit(make_train_step(make_tiny_task(), optimizer, seed=0))(state, batch)
    assert bits(after.params["mlp"]) == bits(state.params["mlp"])
    assert bits(after.params["head"]) != bits(state.params["head"])
    assert not any("mlp" in path for path in named_leaves(state.opt_state))
    assert np.isfinite(float(metrics["grad_norm"][0]))


def test_predict_gives_each_batch_with_its_outputs():
    mesh = make_mesh((8, 1, 1))
    batches = [batch for batch, _ in zip(tiny_batches(0), range(3), strict=False)]
    with jax.set_mesh(mesh):
        init, _ = abstract_state(make_tiny_task(), OPTIMIZER, seed=0, batch=batches[0], mesh=mesh)
        state = init()
        predict = make_predict(make_tiny_task(), mesh)
        results = list(predict(state.params, state.model_state, iter(batches)))
        assert list(predict(state.params, state.model_state, iter([]))) == []
    task = make_tiny_task()
    for expected, (batch, outputs) in zip(batches, results, strict=True):
        assert batch is expected and isinstance(outputs["y"], np.ndarray)
        direct = task.predict(
            jax.device_get(state.params), jax.device_get(state.model_state), batch
        )
        np.testing.assert_allclose(outputs["y"], direct["y"], atol=1e-6)


def test_a_frozen_norm_stays_as_it_is_and_normalises_as_elsewhere():
    """Its running statistics do not change, and the loss is that of a model that does not train."""
    frozen = make_optimizer(lr=1e-2, steps=20, frozen=lambda path: not path.startswith("head"))
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    batch = next(tiny_batches(0, 8))
    losses = {}
    for name, optimizer in {"frozen": frozen, "trained": OPTIMIZER}.items():
        init, _ = abstract_state(make_tiny_task(), optimizer, seed=1, batch=batch, mesh=mesh)
        state = init()
        state = state.replace(model_state=jax.tree.map(lambda x: x + 2.0, state.model_state))
        before = bits(state.model_state)
        after, metrics = make_train_step(make_tiny_task(), optimizer, seed=1)(state, batch)
        assert (bits(after.model_state) == before) == (name == "frozen")
        losses[name] = float(metrics["loss"][0])
    assert losses["frozen"] != losses["trained"]
