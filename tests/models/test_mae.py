"""Masking, target and loss of the masked autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.models.mae import MAE, random_mask, reconstruction_loss, reconstruction_target
from abaw_jax.models.vit import ViT, patchify

ENCODER = ViT(image_size=16, patch_size=4, width=16, depth=1, heads=2)
MODEL = MAE(ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2)


def images():
    return np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def noise():
    return np.random.default_rng(1).random((2, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def variables():
    """Of every model here: they depend neither on the mask ratio nor on the precision."""
    return jax.jit(MODEL.init)(jax.random.key(0), images(), noise())


@pytest.mark.parametrize("patches", [36, 196])
@pytest.mark.parametrize("ratio", [0.0, 0.6, 0.75, 0.9])
def test_the_patches_of_least_noise_are_kept(patches, ratio):
    values = np.random.default_rng(patches).random((3, patches), dtype=np.float32)
    keep, restore, mask = (np.asarray(part) for part in random_mask(values, ratio))
    kept = int(patches * (1 - ratio))
    assert keep.shape == (3, kept) and mask.shape == (3, patches)
    np.testing.assert_array_equal(mask.sum(1), patches - kept)
    for row in range(3):
        order = np.argsort(values[row])
        np.testing.assert_array_equal(keep[row], order[:kept])
        np.testing.assert_array_equal(order[restore[row]], np.arange(patches))
        assert not mask[row, keep[row]].any()


def test_normalised_target_has_zero_mean_and_unit_unbiased_variance():
    target = np.asarray(reconstruction_target(images(), 4, norm_pix_loss=True))
    np.testing.assert_allclose(target.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(target.var(-1, ddof=1), 1, rtol=1e-4)
    plain = reconstruction_target(images(), 4, norm_pix_loss=False)
    np.testing.assert_array_equal(plain, patchify(images(), 4))


def test_a_patch_of_one_colour_has_a_finite_target():
    target = reconstruction_target(np.full((1, 16, 16, 3), 0.7, np.float32), 4, True)
    np.testing.assert_allclose(target, 0, atol=1e-3)


def test_only_masked_patches_enter_the_loss_and_sums_merge():
    rng = np.random.default_rng(2)
    prediction, target = rng.normal(size=(2, 4, 16, 48)).astype(np.float32)
    mask = (rng.random((4, 16)) < 0.7).astype(np.float32)
    total, weight = reconstruction_loss(prediction, target, mask)
    expected = ((prediction - target) ** 2).mean(-1)[mask.astype(bool)]
    assert float(weight) == len(expected)
    np.testing.assert_allclose(total / weight, expected.mean(), rtol=1e-6)
    parts = [reconstruction_loss(prediction[i::2], target[i::2], mask[i::2]) for i in (0, 1)]
    np.testing.assert_allclose(sum(p[0] for p in parts), total, rtol=1e-6)
    assert sum(float(p[1]) for p in parts) == float(weight)
    changed = prediction + 9 * (1 - mask[..., None])
    np.testing.assert_allclose(reconstruction_loss(changed, target, mask)[0], total, rtol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.75, 0.99])
def test_extreme_ratios_give_finite_values_and_gradients(ratio, variables):
    """0: nothing is masked, the loss is an empty sum. 0.99: only the CLS token is encoded."""
    model = MODEL.clone(mask_ratio=ratio)

    def loss_sum(params):
        prediction, mask = model.apply({"params": params}, images(), noise())
        return reconstruction_loss(prediction, reconstruction_target(images(), 4, True), mask)

    (total, weight), gradients = jax.jit(jax.value_and_grad(loss_sum, has_aux=True))(
        variables["params"]
    )
    assert float(weight) == {0.0: 0, 0.75: 24, 0.99: 32}[ratio]
    assert (float(total) == 0) == (ratio == 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_what_is_masked_is_not_seen(variables):
    apply = jax.jit(MODEL.apply)
    prediction, mask = apply(variables, images(), noise())
    pixels = np.repeat(np.repeat(np.asarray(mask).reshape(2, 4, 4), 4, 1), 4, 2)[..., None]
    hidden, _ = apply(variables, images() + 5 * pixels, noise())
    np.testing.assert_allclose(hidden, prediction, atol=1e-6)
    seen, _ = apply(variables, images() + 5 * (1 - pixels), noise())
    assert np.abs(seen - prediction).max() > 1e-3


def test_bfloat16_compute(variables):
    model = MODEL.clone(encoder=ENCODER.clone(dtype=jnp.bfloat16))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(), noise())
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    prediction, mask = jax.jit(model.apply)(variables, images(), noise())
    assert prediction.dtype == jnp.bfloat16 and mask.dtype == jnp.float32
    target = reconstruction_target(images(), 4, True)
    total, _ = reconstruction_loss(prediction, target, mask)
    assert total.dtype == jnp.float32 and np.isfinite(total)
