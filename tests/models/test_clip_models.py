"""Models of whole clips: statistics against NumPy, rows that are not there, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.models.clips import ClipStatistics, ClipTransformer, clip_statistics

MASK = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)


def rows(width=3, length=4, seed=0):
    return np.random.default_rng(seed).normal(size=(3, length, width)).astype(np.float32)


def test_statistics_equal_numpys():
    x = rows()
    found = np.asarray(clip_statistics(x, MASK))
    for clip in (0, 1):
        seen = x[clip][MASK[clip]]
        expected = [seen.mean(0), seen.std(0), seen.min(0), seen.max(0)]
        np.testing.assert_allclose(found[clip], np.concatenate(expected), rtol=1e-5, atol=1e-6)
    assert not found[2].any()


def clips(garbage=0.0):
    """Of two modalities; where there is no row, `garbage` in its place."""
    face, sound = (np.where(MASK[..., None], rows(seed=s), np.float32(garbage)) for s in (0, 1))
    seen = MASK[..., None].astype(np.float32)
    heard = MASK[::-1, :, None].astype(np.float32)
    sound = np.where(heard > 0, rows(seed=1), np.float32(garbage))
    return {
        "frames": np.concatenate([face, seen], -1),
        "sound": np.concatenate([sound, heard], -1),
    }


MODELS = {
    "statistics": ClipStatistics(6),
    "tokens": ClipTransformer(width=8, depth=1, heads=2, mlp_width=8, head_width=4, outputs=6),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_where_no_row_is_is_never_read(name):
    model = MODELS[name]
    variables = jax.jit(model.init)(jax.random.key(0), clips())

    @jax.jit
    def run(features):
        def total(params):
            logits = model.apply({"params": params}, features, train=True)
            return jnp.square(logits).sum(), logits

        return jax.grad(total, has_aux=True)(variables["params"])

    gradients, logits = run(clips())
    assert logits.shape == (3, 6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    others, same = run(clips(garbage=1e3))
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, others
    )
    # A modality that is there is read.
    changed = clips()
    changed["sound"][2, 1, 0] += 1
    assert np.abs(run(changed)[1] - logits)[2].max() > 1e-3


def test_the_transformer_tells_modalities_and_times_apart():
    """Its rows in another order, or another modality's, are another clip."""
    model, both = MODELS["tokens"], clips()
    variables = jax.jit(model.init)(jax.random.key(0), both)
    run = jax.jit(model.apply)
    logits = run(variables, both)
    turned = {**both, "frames": both["frames"][:, [1, 0, 2, 3]]}
    assert np.abs(run(variables, turned) - logits)[0].max() > 1e-3
    swapped = {"frames": both["sound"], "sound": both["frames"]}
    assert np.abs(run(variables, swapped) - logits).max() > 1e-3
