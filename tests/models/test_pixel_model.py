"""Encoder and sequence model as one: against the two of them, with and without recomputing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.pixels import PixelSequenceModel
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT
from abaw_jax.tasks import make_sequences_task
from abaw_jax.tasks.sequences import make_pixel_inputs
from abaw_jax.tasks.task import normalise_by_image
from abaw_jax.tracks import EXPR
from abaw_jax.training.rng import stream_keys

B, T, S, D, MORE = 2, 5, 8, 8, 3
ENCODER = ViT(image_size=S, patch_size=4, width=D, depth=2, heads=2, drop_path=0.5)
SEQUENCE = SequenceModel(
    width=8, depth=1, heads=2, mlp_width=8, head_width=4, outputs=EXPR.outputs, dropout=0.3,
    positions="alibi",
)  # fmt: skip


def draw_batch():
    """The second window ends in padding; in the first a row is not seen."""
    rng = np.random.default_rng(0)
    mask = np.arange(T) < np.array([5, 3])[:, None]
    seen = mask.copy()
    seen[0, 2] = False
    image = rng.integers(0, 256, (B, T, S, S, 3), np.uint8)
    return {
        "image": image * seen[..., None, None, None],
        "seen": seen,
        "features": rng.normal(size=(B, T, MORE)).astype(np.float32) * mask[..., None],
        "mask": mask,
        "label": rng.integers(0, 8, (B, T, 1), np.int32),
    }


def task_of(encoder, pooling="mean"):
    model = PixelSequenceModel(encoder, SEQUENCE, pooling)
    return make_sequences_task(model, EXPR, inputs=make_pixel_inputs(normalise_by_image))


@functools.cache
def variables():
    """Parameters far from small."""
    params, state = jax.eval_shape(task_of(ENCODER).init, jax.random.key(0), draw_batch())
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.float32(rng.normal(0, 0.5, x.shape)), params), jax.tree.map(
        lambda x: np.float32(rng.uniform(0.5, 1.5, x.shape)), state
    )


def test_it_is_the_frame_classifiers_features_before_a_sequence_model():
    """Beside those of other modalities; zeros where no crop is seen, whatever lies there."""
    batch, (params, state) = draw_batch(), variables()
    for pooling in ("mean", "cls"):
        frames = FrameClassifier(ENCODER, EXPR.outputs, pooling)
        head = {"kernel": np.zeros((D, EXPR.outputs)), "bias": np.zeros(EXPR.outputs)}
        of_frames = {"encoder": params["encoder"], "fc_norm": params["fc_norm"], "head": head}
        pixels = normalise_by_image(jnp.asarray(batch["image"].reshape(-1, S, S, 3)))
        _, features = jax.jit(frames.apply)({"params": of_frames}, pixels)
        features = np.asarray(features).reshape(B, T, D) * batch["seen"][..., None]
        both = {
            "features": np.concatenate([features, batch["features"]], -1), "mask": batch["mask"],
        }  # fmt: skip
        cached = make_sequences_task(SEQUENCE, EXPR)
        want = jax.jit(cached.predict)(params["sequence"], state_of(state), both)["probabilities"]
        predict = jax.jit(task_of(ENCODER, pooling).predict)
        found = predict(params, state, batch)["probabilities"]
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
        batch["image"][~batch["seen"]] = 77
        again = predict(params, state, batch)["probabilities"]
        np.testing.assert_allclose(again, found, rtol=1e-6)
    assert np.ptp(np.asarray(found)[0], axis=0).max() > 1e-2


def state_of(state):
    """The statistics of the sequence model within those of the whole."""
    return {name: of["sequence"] for name, of in state.items()}


def test_recomputing_changes_no_gradient():
    """Dropped paths among them: what is drawn is drawn again."""
    batch, (params, state) = draw_batch(), variables()
    gradients = []
    for remat in (False, True):
        loss = task_of(ENCODER.clone(remat=remat)).loss

        def total(params, loss=loss):
            return loss(params, state, batch, stream_keys(0, 0), True)[0]

        gradients.append(jax.jit(jax.grad(total))(params))
    flat = [jax.tree.leaves(gradient["encoder"]) for gradient in gradients]
    for one, two in zip(*flat, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert min(np.abs(leaf).max() for leaf in flat[0]) > 1e-6
