"""Sharpness-aware minimisation around Adam, against its algorithm written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import make_tiny_task, tiny_batches

from abaw_jax.errors import InputError
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.rng import stream_keys
from abaw_jax.training.state import named_leaves
from abaw_jax.training.step import abstract_state, jit_train_step, make_train_step, put_batch

LR, RHO, STEPS, SEED = 1e-2, 0.5, 3, 1
TASK = make_tiny_task()  # with dropout and BatchNorm


def trained(optimizer, shape=(1, 1, 1), batches=None):
    """(state at first, states after each step, their metrics) on a mesh of that shape."""
    mesh = make_mesh(shape, jax.devices()[: int(np.prod(shape))])
    batches, states, metrics = batches or tiny_batches(0), [], []
    with jax.set_mesh(mesh):
        first = next(iter(tiny_batches(0)))
        init, abstract = abstract_state(TASK, optimizer, seed=SEED, batch=first, mesh=mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        step = jit_train_step(make_train_step(TASK, optimizer, seed=SEED), shardings, mesh)
        state = init()
        begun = jax.device_get(state)
        for _ in range(STEPS):
            state, found = step(state, put_batch(next(batches), mesh))
            states.append(jax.device_get(state))
            metrics.append(jax.device_get(found))
    return begun, states, metrics


def follow(begun, rho, frozen=()):
    """Parameters after each step as the algorithm has them: float64 but for the gradients."""

    @jax.jit
    def gradient(params, model_state, batch, rngs):
        def mean_loss(params):
            total, aux = TASK.loss(params, model_state, batch, rngs, True)
            return total / aux.weight, aux.model_state

        return jax.grad(mean_loss, has_aux=True)(params)

    def arrays(tree):
        return {
            k: np.asarray(a, np.float64) * (k not in frozen) for k, a in named_leaves(tree).items()
        }

    def as_tree(values):
        leaves = [jnp.asarray(value, jnp.float32) for value in values.values()]
        return jax.tree.unflatten(jax.tree.structure(begun.params), leaves)

    params = {k: np.asarray(a, np.float64) for k, a in named_leaves(begun.params).items()}
    state, batches = begun.model_state, tiny_batches(0)
    first = {k: np.zeros_like(a) for k, a in params.items()}
    second, found = dict(first), []
    for n in range(STEPS):
        batch, rngs = next(batches), stream_keys(SEED, n)
        grads, state_after = gradient(as_tree(params), state, batch, rngs)
        grads = arrays(grads)
        norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
        worst = {k: p + rho * grads[k] / norm for k, p in params.items()}
        grads = arrays(gradient(as_tree(worst), state, batch, rngs)[0])
        for k, g in grads.items():  # Adam: Kingma and Ba 2015, algorithm 1
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * np.square(g)
            mean, square = first[k] / (1 - 0.9 ** (n + 1)), second[k] / (1 - 0.999 ** (n + 1))
            params[k] = params[k] - LR * mean / (np.sqrt(square) + 1e-8)
        state = state_after
        found.append(({k: v.copy() for k, v in params.items()}, state))
    return found


def adam(**options):
    return make_optimizer(name="adam", lr=LR, steps=STEPS, schedule="constant", **options)


# BatchNorm takes it out again: its gradient is rounding noise, which Adam makes steps of, and by
# which the running mean moves.
NOISE = "mlp/fc2/bias"


@pytest.fixture(scope="module")
def sharp():
    return trained(adam(sam_rho=RHO))


def test_each_update_is_that_of_the_worst_neighbour(sharp):
    begun, states, _ = sharp
    plain = follow(begun, 0.0)[-1][0]
    for state, (params, statistics) in zip(states, follow(begun, RHO), strict=True):
        for path, leaf in named_leaves(state.params).items():
            if path != NOISE:
                np.testing.assert_allclose(leaf, params[path], atol=2e-5, err_msg=path)
        # Of the first gradient alone.
        found, expected = (s["batch_stats"]["norm"]["var"] for s in (state.model_state, statistics))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    last = named_leaves(states[-1].params)
    assert max(np.abs(last[k] - plain[k]).max() for k in plain if k != NOISE) > 1e-3


def test_on_several_devices_it_is_the_same(sharp):
    _, states, metrics = trained(adam(sam_rho=RHO), (2, 2, 2))
    for path, leaf in named_leaves(states[-1].params).items():
        if path != NOISE:
            expected = named_leaves(sharp[1][-1].params)[path]
            np.testing.assert_allclose(leaf, expected, atol=2e-5, err_msg=path)
    for one, other in zip(metrics, sharp[2], strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-5)


def test_what_is_frozen_stays_and_does_not_count_in_the_norm():
    frozen = {path for path in ("mlp/fc1/kernel", "mlp/fc1/bias")}
    begun, states, _ = trained(adam(sam_rho=RHO, frozen=frozen.__contains__))
    params = follow(begun, RHO, frozen)[-1][0]
    for path, leaf in named_leaves(states[-1].params).items():
        if path in frozen:
            np.testing.assert_array_equal(leaf, named_leaves(begun.params)[path])
        elif path != NOISE:
            np.testing.assert_allclose(leaf, params[path], atol=2e-5, err_msg=path)


def test_a_batch_of_no_weight_changes_nothing():
    empty = ({**batch, "mask": np.zeros_like(batch["mask"])} for batch in tiny_batches(0))
    begun, states, _ = trained(adam(sam_rho=RHO), batches=empty)
    jax.tree.map(np.testing.assert_array_equal, states[-1].params, begun.params)


def test_a_distance_that_cannot_be_is_named():
    for rho in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="optimizer: sam_rho .*; expected a number of at lea"):
            adam(sam_rho=rho)
