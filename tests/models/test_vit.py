"""Patches, sizes, parameter counts, recomputation, drop path and precision of the ViT."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.models.heads import POOLINGS, FrameClassifier
from abaw_jax.models.layers import sincos_2d
from abaw_jax.models.mae import MAE
from abaw_jax.models.vit import SIZES, Block, ViT, patchify

SMALL = dict(image_size=16, patch_size=4, width=16, depth=2, heads=2)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def images(batch=2, size=16):
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def test_patches_go_by_row_and_pixels_by_row_column_channel():
    given = images()
    patches = np.asarray(patchify(given, 4))
    assert patches.shape == (2, 16, 48)
    row, column = 2, 3
    expected = given[1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    np.testing.assert_array_equal(patches[1, 4 * row + column].reshape(4, 4, 3), expected)


# Parameters of the public models of 224 pixels without their 1000-class heads (timm's
# vit_*_patch16_224 and vit_huge_patch14_224): they hold the table of positions and a last norm.
PUBLISHED = {
    ("Ti", 16): 5_524_416,
    ("S", 16): 21_665_664,
    ("B", 16): 85_798_656,
    ("L", 16): 303_301_632,
    ("H", 14): 630_764_800,
}


@pytest.mark.parametrize(("size", "patch"), [*PUBLISHED, ("H", 16)])
def test_parameter_counts(size, patch):
    sizes = SIZES[size]
    width, tokens = sizes["width"], 1 + (224 // patch) ** 2
    model = ViT(224, patch, **sizes)
    shape = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), shape)
    assert jax.eval_shape(model.apply, variables, shape).shape == (2, tokens, width)
    found = count(variables) + tokens * width + 2 * width
    if (size, patch) in PUBLISHED:
        assert found == PUBLISHED[size, patch]
    else:
        # Only the patch projection and the table of positions depend on the patch.
        smaller = 3 * (14**2 - 16**2) * width + (257 - tokens) * width
        assert found == PUBLISHED["H", 14] - smaller


def test_mae_base_has_the_published_parameter_count():
    """111,907,840 in facebookresearch/mae's mae_vit_base_patch16, two position tables included."""
    model = MAE(ViT(224, 16, **SIZES["B"]))
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    noise = jax.ShapeDtypeStruct((2, 196), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image, noise)
    assert count(variables) + 197 * (768 + 512) == 111_907_840


def gradients_of(model, variables, given):
    def total(params):
        rngs = {"drop_path": jax.random.key(5)}
        return jnp.sin(model.apply({"params": params}, given, train=True, rngs=rngs)).sum()

    return jax.jit(jax.grad(total))(variables["params"])


def test_recomputing_blocks_gives_the_same_tree_and_gradients():
    stored, recomputed = ViT(**SMALL, drop_path=0.5), ViT(**SMALL, drop_path=0.5, remat=True)
    variables = jax.jit(stored.init)(jax.random.key(0), images())
    again = jax.jit(recomputed.init)(jax.random.key(0), images())
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    expected = gradients_of(stored, variables, images())
    found = gradients_of(recomputed, variables, images())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )
    text = str(jax.make_jaxpr(lambda v: recomputed.apply(v, images()))(variables))
    assert text.count("remat") >= 2 or text.count("checkpoint") >= 2


def test_drop_path_grows_from_zero_at_the_first_block_to_the_rate_at_the_last():
    rates = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, Block):
            rates[context.module.name] = context.module.drop_path
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        model = ViT(**SMALL, drop_path=0.4)
        jax.eval_shape(model.init, jax.random.key(0), images())
    assert rates == {"blocks_0": 0.0, "blocks_1": 0.4}


def test_kept_patches_are_embedded_with_their_own_positions():
    model = ViT(**{**SMALL, "depth": 0})
    variables = jax.jit(model.init)(jax.random.key(0), images())
    apply = jax.jit(model.apply)
    whole = apply(variables, images())
    keep = np.array([[3, 0, 15], [7, 8, 1]])
    part = apply(variables, images(), keep)
    np.testing.assert_allclose(part[:, 0], whole[:, 0])
    expected = np.take_along_axis(np.asarray(whole[:, 1:]), keep[..., None], axis=1)
    np.testing.assert_allclose(part[:, 1:], expected, atol=1e-6)


def test_bfloat16_compute_keeps_float32_parameters_and_stays_near():
    plain = FrameClassifier(ViT(**SMALL), outputs=3)
    half = FrameClassifier(ViT(**SMALL, dtype=jnp.bfloat16), outputs=3)
    variables = jax.jit(half.init)(jax.random.key(0), images())
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, features = jax.jit(half.apply)(variables, images())
    assert logits.dtype == features.dtype == jnp.float32
    assert (
        jax.eval_shape(
            half.encoder.apply, {"params": variables["params"]["encoder"]}, images()
        ).dtype
        == jnp.bfloat16
    )
    _, expected = jax.jit(plain.apply)(variables, images())
    np.testing.assert_allclose(features, expected, atol=0.1)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="not of 16 pixels"):
        ViT(**SMALL).init(jax.random.key(0), images(size=20))
    with pytest.raises(ValueError, match="18 is not a multiple of patch size 4"):
        ViT(**{**SMALL, "image_size": 18}).init(jax.random.key(0), images(size=16))


def test_learned_positions_are_added_to_the_tokens():
    fixed, learned = ViT(**SMALL), ViT(**SMALL, positions="learned")
    params = learned.init(jax.random.key(0), images())["params"]
    assert params.pop("pos_embed").shape == (1, 17, 16)
    table = sincos_2d(4, 16)[None]
    given = {"params": {**params, "pos_embed": table}}
    expected = fixed.apply({"params": params}, images())
    np.testing.assert_allclose(learned.apply(given, images()), expected, atol=1e-6)
    moved = learned.apply({"params": {**params, "pos_embed": table + 0.5}}, images())
    assert np.abs(moved - expected).max() > 0.1
    kept = np.array([[3, 0], [5, 9]])
    np.testing.assert_allclose(
        learned.apply(given, images(), kept), fixed.apply({"params": params}, images(), kept),
        atol=1e-6,
    )  # fmt: skip
    with pytest.raises(ValueError, match="positions 'none'; expected one of"):
        ViT(**SMALL, positions="none").init(jax.random.key(0), images())


def test_poolings_of_normed_tokens():
    """The mean of normed tokens is not the normed mean."""
    made = {name: FrameClassifier(ViT(**SMALL), 0, name) for name in POOLINGS}
    variables = made["mean"].init(jax.random.key(0), images())
    assert set(variables["params"]) == {"encoder", "fc_norm"}  # no head
    tokens = np.asarray(ViT(**SMALL).apply({"params": variables["params"]["encoder"]}, images()))
    normed = tokens - tokens.mean(-1, keepdims=True)
    normed = normed / np.sqrt(np.square(normed).mean(-1, keepdims=True) + 1e-6)
    for name, expected in {"cls": normed[:, 0], "norm_mean": normed[:, 1:].mean(1)}.items():
        logits, features = made[name].apply(variables, images())
        assert logits.shape == (2, 0)
        np.testing.assert_allclose(features, expected, atol=1e-5)
