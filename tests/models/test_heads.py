"""BatchNorm, the frame classifier's pooling and the per-frame sequence model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.models.heads import FrameClassifier, FrameHeads
from abaw_jax.models.layers import BatchNorm
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def features(width=6):
    return np.random.default_rng(0).normal(size=(*MASK.shape, width)).astype(np.float32)


@jax.jit
def normed(x, mask, stats=None):
    model = BatchNorm()
    variables = model.init(jax.random.key(0), x, mask)
    if stats is not None:
        variables = {**variables, "batch_stats": stats}
    out, updated = model.apply(variables, x, mask, train=True, mutable=["batch_stats"])
    return out, updated["batch_stats"]


def test_masked_rows_do_not_enter_the_statistics():
    out, stats = normed(features(), MASK)
    garbage = np.where(MASK[..., None], features(), 1e3).astype(np.float32)
    other, other_stats = normed(garbage, MASK)
    np.testing.assert_array_equal(out[MASK], other[MASK])
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)


def test_init_leaves_the_running_statistics_alone():
    variables = BatchNorm().init(jax.random.key(0), features(), MASK, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(6))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(6))


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_or_one_row_gives_finite_values_and_gradients(rows):
    mask = np.zeros(MASK.shape, bool)
    mask.flat[:rows] = True
    stats = {"mean": np.full(6, 0.5, np.float32), "var": np.full(6, 2.0, np.float32)}
    out, updated = normed(features(), mask, stats)
    assert np.isfinite(out).all()
    if rows == 0:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updated, stats)
        np.testing.assert_allclose(out, (features() - 0.5) / np.sqrt(2 + 1e-5), atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: normed(x, mask, stats)[0].sum()))(features())
    assert np.isfinite(gradient).all()


def sequence_model(**options):
    return SequenceModel(16, 1, 2, mlp_width=16, head_width=8, outputs=3, **options)


@pytest.mark.parametrize("positions", ["sincos", "alibi", "directed"])
@pytest.mark.parametrize("train", [False, True])
def test_padding_changes_nothing(train, positions):
    """The same windows with more or other padding: the same logits and statistics."""
    model, x = sequence_model(positions=positions), features()
    variables = jax.jit(model.init)(jax.random.key(0), x, MASK)

    @jax.jit
    def run(x, mask):
        if not train:
            return model.apply(variables, x, mask), None
        return model.apply(variables, x, mask, train=True, mutable=["batch_stats"])

    logits, stats = run(x, MASK)
    garbage = np.where(MASK[..., None], x, 7.0).astype(np.float32)
    padding = [(0, 0), (0, 3)]
    longer, longer_stats = run(np.pad(garbage, [*padding, (0, 0)]), np.pad(MASK, padding))
    np.testing.assert_allclose(longer[:, :5][MASK], logits[MASK], atol=2e-6)
    if train:
        compare = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)  # noqa: E731
        jax.tree.map(compare, longer_stats, stats)


def test_counted_rows_alone_enter_the_statistics():
    model, x = sequence_model(), features()
    variables = jax.jit(model.init)(jax.random.key(0), x, MASK)

    @jax.jit
    def stats(counted):
        return model.apply(variables, x, MASK, counted, train=True, mutable=["batch_stats"])[1]

    few = MASK & (np.arange(5) < 2)
    by_default = stats(None)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, stats(MASK), by_default)
    found = stats(few)["batch_stats"]["head"]["norm"]["mean"]
    assert np.abs(found - by_default["batch_stats"]["head"]["norm"]["mean"]).max() > 1e-4


def test_a_window_of_padding_alone_gives_finite_gradients_in_training():
    model, x = sequence_model(dropout=0.3), features()
    variables = jax.jit(model.init)(jax.random.key(0), x, MASK)

    @jax.jit
    @jax.grad
    def gradients_of(params, mask):
        logits, _ = model.apply(
            {**variables, "params": params}, x, mask, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )  # fmt: skip
        return (logits * mask[..., None]).sum()

    for mask in (MASK, np.zeros_like(MASK)):
        gradients = gradients_of(variables["params"], mask)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_bfloat16_sequence_model_gives_float32_logits():
    model = sequence_model(dtype=jnp.bfloat16)
    variables = jax.jit(model.init)(jax.random.key(0), features(), MASK)
    logits = jax.jit(model.apply)(variables, features(), MASK)
    assert logits.dtype == jnp.float32
    expected = jax.jit(sequence_model().apply)(variables, features(), MASK)
    np.testing.assert_allclose(logits[MASK], expected[MASK], atol=0.1)


def test_pooling():
    encoder = ViT(image_size=8, patch_size=4, width=8, depth=1, heads=2)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    mean, cls = (FrameClassifier(encoder, 3, pooling=name) for name in ("mean", "cls"))
    variables = jax.jit(mean.init)(jax.random.key(0), images)
    tokens = np.asarray(jax.jit(encoder.apply)({"params": variables["params"]["encoder"]}, images))
    for model, pooled in ((mean, tokens[:, 1:].mean(1)), (cls, tokens[:, 0])):
        centred = pooled - pooled.mean(-1, keepdims=True)
        expected = centred / np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
        logits, found = jax.jit(model.apply)(variables, images)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        # The head starts near zero: the first steps leave the encoder alone.
        assert logits.shape == (2, 3) and np.abs(logits).max() < 1e-2
    with pytest.raises(ValueError, match="expected one of"):
        jax.eval_shape(FrameClassifier(encoder, 3, pooling="max").init, jax.random.key(0), images)


@pytest.mark.parametrize(("hidden", "also"), [(5, ()), (0, ()), (5, (("va", 2),))])
def test_heads_of_single_frames_are_dense_layers(hidden, also):
    model, x = FrameHeads(hidden, 3, also=also), features()
    variables = jax.jit(model.init)(jax.random.key(0), x, MASK)
    logits = jax.jit(model.apply)(variables, x, MASK)
    expected = []
    for name in ("head", *(f"head_{key}" for key, _ in also)):
        layers = variables["params"][name].values()
        found = x
        for i, layer in enumerate(layers):
            found = np.maximum(found, 0) if i else found
            found = found @ layer["kernel"] + layer["bias"]
        assert len(layers) == 1 + bool(hidden)
        expected.append(found)
    np.testing.assert_allclose(logits, np.concatenate(expected, -1), rtol=1e-5, atol=1e-6)
