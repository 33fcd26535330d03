import jax
import numpy as np

from abaw_jax.training.rng import STREAMS, stream_keys


def draws(seed, step, names=STREAMS):
    return {k: float(jax.random.uniform(v)) for k, v in stream_keys(seed, step, names).items()}


def test_every_stream_step_and_seed_differs():
    values = [v for seed in (0, 1) for step in range(3) for v in draws(seed, step).values()]
    assert len(set(values)) == 2 * 3 * len(STREAMS)


def test_a_key_depends_on_nothing_but_seed_step_and_name():
    assert draws(5, 9, ["mask"])["mask"] == draws(5, 9)["mask"]
    traced = jax.jit(lambda step: jax.random.uniform(stream_keys(5, step)["mask"]))(9)
    assert float(traced) == draws(5, 9)["mask"]


def test_keys_never_change_between_releases():
    # Resuming a run under a newer package must go on with the same randomness.
    data = jax.random.key_data(stream_keys(0, 0, ["mask"])["mask"])
    np.testing.assert_array_equal(data, [1342685123, 2244310618])
