"""Several tracks of one model: their losses, masks, gradients, and what leaves them alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT
from abaw_jax.tasks import make_frames_task, make_sequences_task
from abaw_jax.tasks.goals import make_goal
from abaw_jax.tasks.task import normalise_by_image
from abaw_jax.tracks import AU, EMI, EXPR, VA
from abaw_jax.tracks.together import (
    invalid_labels,
    join_labels,
    score_tracks,
    split_labels,
    split_outputs,
)
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.rng import stream_keys
from abaw_jax.training.state import named_leaves
from abaw_jax.training.step import abstract_state, make_train_step, put_batch

TRACKS = (VA, AU, EXPR)
HEADS = (("au", 12), ("expr", 8))
WEIGHTS = {"va": 1.0, "au": 0.5, "expr": 2.0}
CLASS_WEIGHTS = tuple(range(1, 9))
OPTIONS = {
    "va": {"loss": "mse"},
    "au": {"positive_weights": tuple(np.linspace(0.5, 3, 12))},
    "expr": {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1},
}
VIT = ViT(image_size=8, patch_size=4, width=8, depth=1, heads=2)
FRAMES = FrameClassifier(VIT, 2, also=HEADS)
SEQUENCE = SequenceModel(
    width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=2, also=HEADS
)
RNGS = stream_keys(0, 0)


def goals(**changes):
    return [
        make_goal(track, weight=WEIGHTS[track.key], **(OPTIONS | changes)[track.key])
        for track in TRACKS[1:]
    ]


def frames_task(**options):
    return make_frames_task(
        FRAMES, VA, normalise=normalise_by_image, also=goals(), **{**OPTIONS["va"], **options}
    )


def sequences_task():
    return make_sequences_task(SEQUENCE, VA, also=goals(), **OPTIONS["va"])


def draw_labels(shape, seed=0) -> list[np.ndarray]:
    """Rows of VA, AU and EXPR; about a third of each has no label."""
    rng = np.random.default_rng(seed)
    labels = [
        rng.uniform(-1, 1, (*shape, 2)).astype(np.float32),
        rng.integers(0, 2, (*shape, 12)).astype(np.int32),
        rng.integers(0, 8, (*shape, 1)).astype(np.int32),
    ]
    for track, rows in zip(TRACKS, labels, strict=True):
        rows[rng.random(shape) < 0.33, 0] = track.invalid
    return labels


def image_batch(size=16, labels=None) -> dict:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (size, 8, 8, 3)).astype(np.uint8)
    labels = draw_labels((size,)) if labels is None else labels
    return {"image": images, "label": join_labels(labels), "mask": np.arange(size) < size - 2}


def window_batch(size=4, length=7) -> dict:
    mask = np.ones((size, length), bool)
    mask[0, 4:] = False
    features = np.random.default_rng(2).normal(size=(size, length, 5)).astype(np.float32)
    return {"features": features, "label": join_labels(draw_labels((size, length))), "mask": mask}


def loud(params):
    rng = np.random.default_rng(9)
    return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape) * 0.5), params)


@functools.cache
def frames_params():
    return loud(jax.eval_shape(frames_task().init, jax.random.key(0), image_batch())[0])


def lone_params(params, key):
    """The parameters that a model of one track would have."""
    heads = {name for name in params if name.startswith("head")}
    own = "head" if key == "va" else f"head_{key}"
    return {"head": params[own], **{k: v for k, v in params.items() if k not in heads}}


def test_labels_and_outputs_lie_side_by_side():
    labels = draw_labels((5, 3))
    joined = join_labels(labels)
    assert joined.shape == (5, 3, 15) and joined.dtype == np.float32
    for part, rows in zip(split_labels(joined, TRACKS), labels, strict=True):
        assert part.dtype == rows.dtype
        np.testing.assert_array_equal(part, rows)
    for track, part in zip(TRACKS, split_labels(invalid_labels(TRACKS), TRACKS), strict=True):
        assert not track.valid(part)
    assert [p.shape[-1] for p in split_outputs(np.zeros((4, 22)), TRACKS)] == [2, 12, 8]
    assert join_labels(labels[1:2]) is labels[1] and split_labels(labels[1], [AU])[0] is labels[1]


def test_further_heads_leave_the_first_as_it_is():
    key, images = jax.random.key(3), jnp.zeros((1, 8, 8, 3))
    alone, several = (
        jax.jit(model.init)(key, images)["params"] for model in (FrameClassifier(VIT, 2), FRAMES)
    )
    assert several.keys() - alone.keys() == {"head_au", "head_expr"}
    for name, leaf in named_leaves(alone).items():
        np.testing.assert_array_equal(named_leaves(several)[name], leaf)


def test_frames_loss_is_the_weighted_sum_of_each_tracks_mean():
    task, batch, params = frames_task(), image_batch(), frames_params()
    loss_sum, aux = jax.jit(lambda p, b: task.loss(p, {}, b, RNGS, True))(params, task.whole(batch))
    expected = 0
    for track, labels in zip(TRACKS, split_labels(batch["label"], TRACKS), strict=True):
        model = FrameClassifier(VIT, track.outputs)
        alone = make_frames_task(model, track, normalise=normalise_by_image, **OPTIONS[track.key])
        own, own_aux = alone.loss(
            lone_params(params, track.key), {}, {**batch, "label": labels}, RNGS, True
        )
        expected += WEIGHTS[track.key] * float(own) / float(own_aux.weight)
        found = aux.metrics[f"{track.key}_loss"]
        np.testing.assert_allclose(found, (own, own_aux.weight), rtol=1e-5)
        if track is EXPR:
            for name, value in own_aux.metrics.items():
                np.testing.assert_allclose(aux.metrics[f"expr_{name}"][0], value[0], rtol=1e-6)
    assert float(loss_sum) / float(aux.weight) == pytest.approx(expected, rel=1e-5)
    # Without being told, a batch is the whole of itself.
    assert float(task.loss(params, {}, batch, RNGS, True)[0]) == pytest.approx(
        float(loss_sum), rel=1e-6
    )


def test_sequences_count_each_tracks_rows_in_its_loss_and_its_statistics():
    task, batch = sequences_task(), window_batch()
    params, state = jax.jit(task.init)(jax.random.key(0), batch)
    params = loud(params)
    loss_sum, aux = task.loss(params, state, batch, RNGS, True)
    expected = 0
    for track, labels in zip(TRACKS, split_labels(batch["label"], TRACKS), strict=True):
        model = SequenceModel(
            width=8, depth=1, heads=2, mlp_width=8, head_width=8, outputs=track.outputs
        )
        alone = make_sequences_task(model, track, **OPTIONS[track.key])
        own_head = "head" if track is VA else f"head_{track.key}"
        own_state = {"batch_stats": {"head": state["batch_stats"][own_head]}}
        own, own_aux = alone.loss(
            lone_params(params, track.key), own_state, {**batch, "label": labels}, RNGS, True
        )
        expected += WEIGHTS[track.key] * float(own) / float(own_aux.weight)
        for name, value in own_aux.model_state["batch_stats"]["head"]["norm"].items():
            found = aux.model_state["batch_stats"][own_head]["norm"][name]
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)
    assert float(loss_sum) / float(aux.weight) == pytest.approx(expected, rel=1e-4)
    found = task.predict(params, state, {k: batch[k] for k in ("features", "mask")})
    assert {name: value.shape for name, value in found.items()} == {
        "probabilities": (4, 7, 2), "probabilities_au": (4, 7, 12), "probabilities_expr": (4, 7, 8),
    }  # fmt: skip
    np.testing.assert_allclose(found["probabilities_expr"].sum(-1), 1, rtol=1e-5)


def test_of_a_last_frame_its_own_labels_count_alone():
    model = SEQUENCE.clone(head="last")
    task = make_sequences_task(model, VA, also=goals(), last=True, **OPTIONS["va"])
    batch = window_batch()
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch)
    params, state = loud(params), jax.tree.map(lambda s: np.ones(s.shape, s.dtype), state)

    @jax.jit
    def compute(batch):
        whole = task.whole(batch)
        return task.loss(params, state, whole, RNGS, True), whole["factors"]

    label = batch["label"].copy()
    label[:, :-1] = invalid_labels(TRACKS)
    found = compute(batch)
    jax.tree.map(np.testing.assert_array_equal, found, compute(batch | {"label": label}))
    for i, rows in enumerate(split_labels(batch["label"][:, -1], TRACKS)[:2]):  # EXPR has weights
        count = np.sum(TRACKS[i].valid(rows) & batch["mask"][:, -1])
        assert 0 < count < 4
        np.testing.assert_allclose(found[1][:, i], WEIGHTS[TRACKS[i].key] * 4 / count, rtol=1e-6)
    shapes = jax.eval_shape(task.predict, params, state, batch)
    assert {name: value.shape for name, value in shapes.items()} == {
        "probabilities": (4, 1, 2), "probabilities_au": (4, 1, 12), "probabilities_expr": (4, 1, 8),
    }  # fmt: skip


@pytest.mark.parametrize("absent", [{"expr"}, {"va", "au"}, {"va", "au", "expr"}])
def test_a_track_without_a_row_gives_no_gradient_and_no_nan(absent):
    labels = draw_labels((16,))
    for track, rows in zip(TRACKS, labels, strict=True):
        if track.key in absent:
            rows[:] = track.invalid
    # A loss that judges rows together as well: no rows have no agreement.
    task = frames_task(loss="ccc")
    gradient = jax.jit(jax.grad(lambda p, b: task.loss(p, {}, task.whole(b), RNGS, True)[0]))
    leaves = named_leaves(gradient(frames_params(), image_batch(labels=labels)))
    for path, leaf in leaves.items():
        head = path.split("/")[0]
        off = (head == "head" and "va" in absent) or head.removeprefix("head_") in absent
        assert np.isfinite(leaf).all(), path
        if off or len(absent) == 3:
            np.testing.assert_array_equal(leaf, 0, err_msg=path)
        elif not path.startswith("encoder"):
            assert np.any(leaf), path


def one_step(task, batch, shape=(1, 1, 1), accumulate=1):
    """(parameters after a step of plain gradient descent's direction, its loss)."""
    mesh = make_mesh(shape, jax.devices()[: int(np.prod(shape))])
    optimizer = make_optimizer(lr=1e-2, steps=9, schedule="constant", eps=1.0)
    with jax.set_mesh(mesh):
        init, _ = abstract_state(task, optimizer, seed=0, batch=batch, mesh=mesh)
        state = init()
        state = state.replace(params=jax.device_put(frames_params()))
        step = jax.jit(make_train_step(task, optimizer, seed=0, accumulate=accumulate))
        state, metrics = step(state, put_batch(batch, mesh))
    return named_leaves(jax.device_get(state.params)), jax.device_get(metrics)


def test_neither_micro_batches_nor_devices_change_the_step():
    # The masks differ between micro-batches: a mean of each one's means would be another gradient.
    task, batch = frames_task(), image_batch()
    expected, metrics = one_step(task, batch)
    for options in ({"accumulate": 4}, {"shape": (8, 1, 1)}):
        found, other = one_step(task, batch, **options)
        for path, leaf in expected.items():
            np.testing.assert_allclose(found[path], leaf, atol=1e-6, err_msg=path)
        for name in ("loss", "va_loss", "au_loss", "expr_loss", "expr_accuracy"):
            mean, again = (m[name][0] / m[name][1] for m in (metrics, other))
            np.testing.assert_allclose(again, mean, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(other["expr_confusion"][0], metrics["expr_confusion"][0])


def test_mixed_images_mix_the_labels_of_all_tracks():
    task, params = frames_task(mixup=0.8), frames_params()
    labels = [np.abs(rows) for rows in draw_labels((16,))]
    labels[0] = labels[0].clip(0, 1)  # all are valid
    labels[2] = labels[2].clip(0, 7)
    batch = {**image_batch(labels=labels), "mask": np.ones(16, bool)}
    loss_sum, aux = task.loss(params, {}, batch, RNGS, True)
    expected = 0
    for track, rows in zip(TRACKS, labels, strict=True):
        alone = make_frames_task(
            FrameClassifier(VIT, track.outputs), track, normalise=normalise_by_image, mixup=0.8,
            **OPTIONS[track.key],
        )  # fmt: skip
        own, own_aux = alone.loss(
            lone_params(params, track.key), {}, {**batch, "label": rows}, RNGS, True
        )
        expected += WEIGHTS[track.key] * float(own) / float(own_aux.weight)
    assert float(loss_sum) / float(aux.weight) == pytest.approx(expected, rel=1e-5)


def test_tracks_that_do_not_go_together_are_named():
    build = functools.partial(make_frames_task, FRAMES, normalise=normalise_by_image)
    with pytest.raises(InputError, match="VA, EMI: labels of EMI are of clips; it is learnt alone"):
        build(VA, also=[make_goal(EMI)])
    with pytest.raises(InputError, match="VA, AU, AU: one stands twice"):
        build(VA, also=[make_goal(AU), make_goal(AU)])
    with pytest.raises(InputError, match="loss soft_f1 of AU: judges rows together.*take binary"):
        build(EXPR, also=[make_goal(AU, "soft_f1")], mixup=0.5)


def test_scores_of_further_tracks_have_their_names():
    labels = dict(zip(("va", "au", "expr"), draw_labels((99,)), strict=True))
    pairs = {
        track.key: [(track.encode(labels[track.key][rows]), labels[track.key][rows])
                    for rows in (slice(0, 15), slice(15, 99))]
        for track in TRACKS
    }  # fmt: skip
    figures = score_tracks(TRACKS, pairs)
    assert figures["mean_ccc"] == pytest.approx(1) and figures["au_mean_f1"] == 1
    assert figures["expr_macro_f1"] == 1 and "macro_f1" not in figures
    pairs["au"] = [(values, np.full_like(rows, -1)) for values, rows in pairs["au"]]
    del pairs["expr"]
    assert not [name for name in score_tracks(TRACKS, pairs) if name.startswith(("au_", "expr_"))]
