import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix

from abaw_jax import tasks
from abaw_jax.errors import InputError
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.mae import MAE, random_mask
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT
from abaw_jax.tasks.frames import mix_images
from abaw_jax.tasks.task import make_loss, normalise_by_channel, normalise_by_image
from abaw_jax.tracks import AU, EMI, EXPR, VA
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.rng import stream_keys
from abaw_jax.training.step import abstract_state, make_train_step


def compiled(make):
    """Make tasks whose functions are one program each: op by op they are a hundred to compile."""

    @functools.wraps(make)
    def made(*args, **options):
        task = make(*args, **options)
        loss = jax.jit(task.loss, static_argnums=4)  # train
        return dataclasses.replace(task, loss=loss, predict=jax.jit(task.predict))

    return made


make_frames_task = compiled(tasks.make_frames_task)
make_reconstruct_task = compiled(tasks.make_reconstruct_task)
make_sequences_task = compiled(tasks.make_sequences_task)

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
NORMALISE = normalise_by_channel(MEAN, STD)
VIT = ViT(image_size=8, patch_size=4, width=8, depth=1, heads=2)
CLASSIFIER = FrameClassifier(VIT, 8)
SEQUENCE = SequenceModel(width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=8)
RNGS = stream_keys(0, 0)
RANDOM = np.random.default_rng(0)
WEIGHTS = np.arange(1.0, 9.0)


def image_batch(size=6) -> dict:
    images = RANDOM.integers(0, 256, (size, 8, 8, 3)).astype(np.uint8)
    labels = RANDOM.integers(0, 8, (size, 1)).astype(np.int32)
    labels[1] = -1
    return {"image": images, "label": labels, "mask": np.arange(size) < size - 1}


def loud(params):
    """Parameters far from the small ones a head starts with, so that classes differ."""
    random = np.random.default_rng(9)
    return jax.tree.map(lambda x: np.float32(random.normal(size=x.shape) * 0.5), params)


def window_batch(size=3, length=7) -> dict:
    labels = RANDOM.integers(-1, 8, (size, length, 1)).astype(np.int32)
    mask = np.ones((size, length), bool)
    mask[0, 4:] = False
    features = RANDOM.normal(size=(size, length, 5)).astype(np.float32)
    return {"features": features, "label": labels, "mask": mask}


def test_pixels_are_normalised_per_channel():
    images = RANDOM.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    expected = (images / 255.0 - MEAN) / STD
    np.testing.assert_allclose(NORMALISE(images), expected, atol=1e-5)


def test_pixels_are_normalised_per_image():
    images = RANDOM.integers(0, 128, (3, 4, 4, 3)).astype(np.uint8)
    images[2] = 90  # even: no deviation to divide by
    found = np.asarray(normalise_by_image(images))
    expected = [(x - x.mean()) / x.std() for x in images[:2].astype(np.float64)]
    np.testing.assert_allclose(found[:2], expected, atol=1e-5)
    np.testing.assert_array_equal(found[2], 0)
    brighter = np.asarray(normalise_by_image(images[:2] * 2))
    np.testing.assert_allclose(brighter, found[:2], atol=1e-5)


def expected_loss(logits, labels, weights, smoothing=0.0):
    """Sums over the rows of torch's weighted, smoothed cross-entropy, written out."""
    logs = log_softmax(np.asarray(logits, np.float64), axis=1)
    losses = [
        -(1 - smoothing) * weights[y] * row[y] - smoothing / 8 * (weights * row).sum()
        for row, y in zip(logs, labels, strict=True)
    ]
    return sum(losses), weights[labels].sum()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_frames_loss_counts_labelled_rows_only(weights):
    task = make_frames_task(
        CLASSIFIER, EXPR, normalise=NORMALISE, class_weights=weights, label_smoothing=0.1
    )
    batch = image_batch()
    params = loud(jax.jit(task.init)(jax.random.key(0), batch)[0])
    loss_sum, aux = task.loss(params, {}, batch, RNGS, False)
    logits, _ = CLASSIFIER.apply({"params": params}, NORMALISE(batch["image"]))
    rows = [0, 2, 3, 4]  # row 1 is unlabelled, row 5 is padding
    labels, logits = batch["label"][rows, 0], np.asarray(logits)[rows]
    expected = expected_loss(logits, labels, np.ones(8) if weights is None else weights, 0.1)
    np.testing.assert_allclose((loss_sum, aux.weight), expected, rtol=1e-5)
    right = (logits.argmax(1) == labels).sum()
    assert tuple(map(float, aux.metrics["accuracy"])) == (right, 4)
    np.testing.assert_array_equal(
        aux.metrics["confusion"][0],
        confusion_matrix(labels, logits.argmax(1), labels=range(8)),
    )


def test_what_does_not_count_changes_nothing():
    task = make_frames_task(CLASSIFIER, EXPR, normalise=NORMALISE)
    batch = image_batch()
    params = jax.jit(task.init)(jax.random.key(0), batch)[0]
    other = {name: value.copy() for name, value in batch.items()}
    other["image"][[1, 5]] = 0
    other["label"][5] = -1
    gradient = jax.jit(jax.grad(lambda p, b: task.loss(p, {}, b, RNGS, True)[0]))
    for one, two in zip(
        jax.tree.leaves(gradient(params, batch)), jax.tree.leaves(gradient(params, other)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_batch_of_no_labels_has_weight_zero_and_a_finite_gradient():
    task = make_frames_task(CLASSIFIER, EXPR, normalise=NORMALISE, class_weights=WEIGHTS)
    batch = image_batch()
    batch["label"][:] = -1
    params = jax.jit(task.init)(jax.random.key(0), batch)[0]
    value, gradient = jax.jit(jax.value_and_grad(lambda p: task.loss(p, {}, batch, RNGS, True)[0]))(
        params
    )
    assert value == 0 and task.loss(params, {}, batch, RNGS, True)[1].weight == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_the_mask_may_be_left_out():
    task = make_frames_task(CLASSIFIER, EXPR, normalise=NORMALISE)
    batch = image_batch()
    params = jax.jit(task.init)(jax.random.key(0), batch)[0]
    whole = {**batch, "mask": np.ones(6, bool)}
    del batch["mask"]
    assert (
        task.loss(params, {}, batch, RNGS, False)[0] == task.loss(params, {}, whole, RNGS, False)[0]
    )


def test_frames_predict_gives_probabilities_and_features():
    task = make_frames_task(CLASSIFIER, EXPR, normalise=NORMALISE)
    batch = image_batch()
    params = loud(jax.jit(task.init)(jax.random.key(0), batch)[0])
    outputs = task.predict(params, {}, {"image": batch["image"]})
    logits, features = jax.jit(CLASSIFIER.apply)({"params": params}, NORMALISE(batch["image"]))
    np.testing.assert_allclose(outputs["probabilities"], softmax(logits, axis=1), rtol=1e-5)
    np.testing.assert_allclose(outputs["features"], features, rtol=1e-5, atol=1e-6)


def test_mixing_blends_or_pastes_and_says_by_how_much():
    images = np.zeros((4, 16, 16, 3), np.uint8)
    images[:2], images[2:] = 200, 100
    key = jax.random.key(3)
    blended, share = mix_images(key, images, 0.8, 0.0)
    np.testing.assert_allclose(blended[0], 200 * share + 100 * (1 - share), rtol=1e-5)
    pasted, share = mix_images(key, images, 0.0, 1.0)
    assert set(np.unique(pasted)) == {100, 200}
    assert (pasted[0] == 200).mean() == pytest.approx(float(share))
    kinds = {
        len(np.unique(mix_images(jax.random.key(i), images, 0.8, 1.0)[0][0])) for i in range(12)
    }
    assert kinds == {1, 2}


def test_mixup_loss_is_that_of_the_soft_label():
    task = make_frames_task(CLASSIFIER, EXPR, normalise=NORMALISE, mixup=0.8)
    batch = image_batch()
    batch["label"] = np.array([[0], [3], [7], [2], [2], [5]], np.int32)
    batch["mask"][:] = True
    params = loud(jax.jit(task.init)(jax.random.key(0), batch)[0])
    loss_sum, aux = task.loss(params, {}, batch, RNGS, True)
    images, share = mix_images(RNGS["mixup"], batch["image"], 0.8, 0.0)
    logits, _ = CLASSIFIER.apply({"params": params}, NORMALISE(images))
    hot = np.eye(8)[batch["label"][:, 0]]
    soft = float(share) * hot + (1 - float(share)) * hot[::-1]
    expected = -(soft * log_softmax(np.asarray(logits, np.float64), axis=1)).sum()
    assert float(loss_sum) == pytest.approx(expected, rel=1e-5) and float(aux.weight) == 6
    # Not in evaluation.
    assert task.loss(params, {}, batch, RNGS, False)[0] != pytest.approx(float(loss_sum), rel=1e-3)


def test_sequences_loss_counts_valid_frames_only():
    task = make_sequences_task(SEQUENCE, EXPR, class_weights=WEIGHTS)
    batch = window_batch()
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    params = loud(params)
    loss_sum, aux = task.loss(params, model_state, batch, RNGS, False)
    logits = SEQUENCE.apply({"params": params, **model_state}, batch["features"], batch["mask"])
    valid = (batch["label"][..., 0] >= 0) & batch["mask"]
    labels = batch["label"][..., 0][valid]
    expected = expected_loss(np.asarray(logits)[valid], labels, WEIGHTS)
    np.testing.assert_allclose((loss_sum, aux.weight), expected, rtol=1e-5)
    assert aux.metrics["accuracy"][1] == valid.sum() == aux.metrics["confusion"][0].sum()
    outputs = task.predict(params, model_state, {k: batch[k] for k in ("features", "mask")})
    np.testing.assert_allclose(outputs["probabilities"], softmax(logits, axis=-1), rtol=1e-5)


def test_unlabelled_frames_do_not_enter_the_running_statistics():
    task = make_sequences_task(SEQUENCE, EXPR)
    batch = window_batch()
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    _, aux = task.loss(params, model_state, batch, RNGS, True)
    before, after = jax.tree.leaves(model_state), jax.tree.leaves(aux.model_state)
    assert any((x != y).any() for x, y in zip(before, after, strict=True))
    batch["label"][:] = -1
    _, aux = task.loss(params, model_state, batch, RNGS, True)
    for x, y in zip(before, jax.tree.leaves(aux.model_state), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    _, aux = task.loss(params, model_state, window_batch(), RNGS, False)
    jax.tree.map(np.testing.assert_array_equal, aux.model_state, model_state)


def test_windows_of_no_labels_weigh_nothing_and_move_nothing():
    """By a loss that judges rows together, and one window is padding alone."""
    task = make_sequences_task(SEQUENCE.clone(outputs=2), VA)
    batch = window_batch() | {"label": np.full((3, 7, 2), -5, np.float32)}
    batch["mask"][1] = False
    params, state = jax.jit(task.init)(jax.random.key(0), batch)
    gradient = jax.value_and_grad(lambda p: task.loss(p, state, batch, RNGS, True), has_aux=True)
    (value, aux), found = jax.jit(gradient)(params)
    assert value == 0 and aux.weight == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found))
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(aux.model_state), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_reconstruction_is_scored_on_masked_patches_of_real_rows():
    model = MAE(VIT, decoder_width=8, decoder_depth=1, decoder_heads=2, mask_ratio=0.5)
    task = make_reconstruct_task(model, normalise=NORMALISE, norm_pix_loss=False)
    batch = {"image": image_batch()["image"]}
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    assert model_state == {}
    loss_sum, aux = task.loss(params, {}, batch, RNGS, True)
    noise = jax.random.uniform(RNGS["mask"], (6, 4))
    images = NORMALISE(batch["image"])
    prediction, mask = model.apply({"params": params}, images, noise)
    np.testing.assert_array_equal(mask, random_mask(noise, 0.5)[2])
    patches = np.asarray(images).reshape(6, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    error = np.square(prediction - patches.reshape(6, 4, 48)).mean(-1) * mask
    assert float(loss_sum) == pytest.approx(float(error.sum()), rel=1e-5)
    assert float(aux.weight) == 12
    padded = {**batch, "mask": np.arange(6) < 2}
    loss_sum, aux = task.loss(params, {}, padded, RNGS, True)
    assert float(loss_sum) == pytest.approx(float(error[:2].sum()), rel=1e-5)
    assert float(aux.weight) == 4
    features = task.predict(params, {}, batch)["features"]
    tokens = VIT.apply({"params": params["encoder"]}, images)
    np.testing.assert_allclose(features, tokens[:, 1:].mean(1), rtol=1e-6)


def test_init_needs_shapes_only():
    task = make_sequences_task(SEQUENCE, EXPR)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), window_batch())
    params, model_state = jax.eval_shape(task.init, jax.random.key(0), shapes)
    assert "head" in params and model_state["batch_stats"]["head"]["norm"]["mean"].shape == (8,)
    assert params["head"]["fc2"]["kernel"].dtype == jnp.float32


def test_losses_that_judge_rows_together_refuse_mixing():
    build = functools.partial(make_frames_task, FrameClassifier(VIT, 2), VA, normalise=NORMALISE)
    for mixing in ({"mixup": 0.8}, {"cutmix": 1.0}):
        with pytest.raises(InputError, match=r"of VA: judges rows together.*set mixup .* take mse"):
            build(**mixing)
        with pytest.raises(InputError, match="loss ccc_sequence of VA"):
            build(loss="ccc_sequence", **mixing)
        build(loss="mse", **mixing)
    build()


def test_mixup_of_units_and_numbers_takes_both_labels_by_their_shares():
    rng = np.random.default_rng(4)
    for track, loss in ((VA, "mse"), (AU, "binary_cross_entropy")):
        model = FrameClassifier(VIT, track.outputs)
        task = make_frames_task(model, track, normalise=NORMALISE, loss=loss, mixup=0.8)
        labels = rng.integers(0, 2, (6, track.label_width)).astype(track.label_type)
        batch = {**image_batch(), "label": labels, "mask": np.ones(6, bool)}
        params = loud(jax.jit(task.init)(jax.random.key(0), batch)[0])
        loss_sum, aux = task.loss(params, {}, batch, RNGS, True)
        images, share = mix_images(RNGS["mixup"], batch["image"], 0.8, 0.0)
        logits, _ = jax.jit(model.apply)({"params": params}, NORMALISE(images))
        row_loss = make_loss(track, loss)
        rows = [row_loss(logits, y, np.ones(6, bool))[0] for y in (labels, labels[::-1])]
        expected = share * rows[0] + (1 - share) * rows[1]
        assert float(loss_sum) == pytest.approx(float(expected.sum()), rel=1e-5)
        assert float(aux.weight) == pytest.approx(6)


def test_options_that_a_loss_does_not_take_are_refused():
    with pytest.raises(InputError, match="loss ccc of VA: has no option 'gamma'; it takes none"):
        make_loss(VA, "ccc", gamma=2.0, class_weights=None)
    with pytest.raises(InputError, match="loss by default of AU: has no option 'margin'; it"):
        make_sequences_task(SEQUENCE, AU, margin=0.1)


def test_values_are_activated_in_loss_and_prediction():
    model = SequenceModel(width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=2)
    batch = window_batch()
    batch["label"] = RANDOM.uniform(-1, 1, (3, 7, 2)).astype(np.float32)
    batch["label"][1, 2, 0] = -5
    valid = VA.valid(batch["label"]) & batch["mask"]
    inputs = {k: batch[k] for k in ("features", "mask")}
    for output, expected in (("tanh", np.tanh), ("linear", np.asarray)):
        task = make_sequences_task(model, VA, loss="ccc", activation=output)
        params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
        params = jax.tree.map(lambda x: 4 * x, loud(params))
        logits = np.asarray(
            jax.jit(model.apply)({"params": params, **model_state}, *inputs.values())
        )
        assert np.abs(logits).max() > 1
        x, y = expected(logits)[valid].astype(np.float64), batch["label"][valid]
        cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
        ccc = 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
        loss_sum, aux = task.loss(params, model_state, batch, RNGS, False)
        assert float(aux.weight) == valid.sum() and aux.metrics == {}
        assert float(loss_sum) / valid.sum() == pytest.approx(1 - ccc.mean(), rel=1e-4)
        values = task.predict(params, model_state, inputs)["probabilities"]
        np.testing.assert_allclose(values, np.clip(expected(logits), -1, 1), rtol=1e-5, atol=1e-6)


def test_ccc_over_micro_batches_is_their_mean_weighted_by_rows():
    model = SequenceModel(width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=2)
    task = make_sequences_task(model, VA)
    batch = window_batch(4)
    batch["label"] = RANDOM.uniform(-1, 1, (4, 7, 2)).astype(np.float32)
    optimizer = make_optimizer(lr=1e-3, steps=5)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        init, _ = abstract_state(task, optimizer, seed=0, batch=batch, mesh=mesh)
        state = init()
        step = jax.jit(make_train_step(task, optimizer, seed=0, accumulate=2))
        _, metrics = step(state, batch)
    loss_sum = weight = 0
    model_state = state.model_state
    for index in range(2):
        micro = {k: v[index::2] for k, v in batch.items()}
        keys = {k: jax.random.fold_in(v, index) for k, v in stream_keys(0, 0).items()}
        part, aux = task.loss(state.params, model_state, micro, keys, True)
        loss_sum, weight, model_state = loss_sum + part, weight + aux.weight, aux.model_state
    assert float(weight) == batch["mask"].sum() == float(metrics["loss"][1])
    assert float(metrics["loss"][0]) == pytest.approx(float(loss_sum), rel=1e-5)


CLIP_MODEL = SequenceModel(width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=6)


def clip_batch() -> dict:
    """Four clips: one cut short by padding, one without a label, one of padding alone."""
    batch = window_batch(4)
    labels = np.random.default_rng(1).uniform(0, 1, (4, 1, 6)).astype(np.float32)
    labels[2] = -5
    batch["mask"][3] = False
    batch["label"] = np.where(batch["mask"][..., None], labels, np.float32(-5))
    return batch


def clip_variables(task, batch):
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    return loud(params), model_state


@pytest.mark.parametrize("loss", ["mse", "pearson", "ccc"])
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_a_clip_is_judged_once_by_the_mean_of_its_frames(loss, output):
    batch = clip_batch()
    task = make_sequences_task(CLIP_MODEL, EMI, loss=loss, activation=output)
    params, model_state = clip_variables(task, batch)
    logits = CLIP_MODEL.apply({"params": params, **model_state}, batch["features"], batch["mask"])
    means = [np.asarray(logits[i], np.float64)[batch["mask"][i]].mean(0) for i in range(3)]
    values = 1 / (1 + np.exp(-np.array(means))) if output == "sigmoid" else np.array(means)
    x, y = values[:2], batch["label"][:2, 0].astype(np.float64)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    expected = {
        "mse": ((x - y) ** 2).mean(),
        "pearson": 1 - (cov / np.sqrt((x.var(0) + 1e-6) * (y.var(0) + 1e-6))).mean(),
        "ccc": 1 - (2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)).mean(),
    }[loss]
    loss_sum, aux = task.loss(params, model_state, batch, RNGS, False)
    assert float(aux.weight) == 2 and aux.metrics == {}
    assert float(loss_sum) / 2 == pytest.approx(expected, rel=1e-4)
    found = task.predict(params, model_state, {k: batch[k] for k in ("features", "mask")})
    assert found["probabilities"].shape == (4, 6)
    np.testing.assert_allclose(found["probabilities"][:3], values.clip(0, 1), rtol=1e-4, atol=1e-6)


def test_padding_and_unlabelled_clips_change_nothing_of_the_others():
    task = make_sequences_task(CLIP_MODEL, EMI)
    batch = clip_batch()
    params, model_state = clip_variables(task, batch)
    other = {name: value.copy() for name, value in batch.items()}
    other["features"][0, 4:] = 7  # padding
    other["features"][2:] = -7  # without a label; of padding alone
    gradient = jax.jit(jax.grad(lambda p, b: task.loss(p, model_state, b, RNGS, True)[0]))
    for one, two in zip(
        jax.tree.leaves(gradient(params, batch)), jax.tree.leaves(gradient(params, other)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(one, two, atol=1e-6)
    statistics = [
        jax.tree.leaves(task.loss(params, model_state, b, RNGS, True)[1].model_state)
        for b in (batch, other)
    ]
    for one, two in zip(*statistics, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
