"""The system `hsemotion`: heads and losses by their formulas, its stages on a small tree."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from test_cnn_recipe import NAME, STAGES, make_tiny
from test_encoder import VIDEOS, make_video

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import Split, load_index, write_corpus
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.files import read_json
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.interop.export import example_inputs, make_task
from abaw_jax.models import families
from abaw_jax.recipe import Context
from abaw_jax.stages import extract, parts, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.tracks import EXPR, TRACKS, VA
from abaw_jax.training.partition import make_mesh
from configs import au, emi, expr, va

MODULES = {"va": va, "expr": expr, "au": au, "emi": emi}
ROWS = 40


def draw(key, width, rng):
    """A batch of frames (of EMI clips of two modalities), labels of every class, one of none."""
    track = TRACKS[key]
    if key == "expr":
        labels = np.arange(ROWS, dtype=np.int32)[:, None] % 8 * (np.arange(ROWS) > 9)[:, None]
    elif key == "au":
        labels = (rng.uniform(size=(ROWS, 12)) < np.linspace(0.1, 0.6, 12)).astype(np.int32)
    else:
        labels = rng.uniform(0, 1, (ROWS, track.outputs)).astype(np.float32)
    labels[-1] = track.invalid
    batch = {"mask": np.ones((ROWS, 1), bool), "label": labels[:, None]}
    if key == "emi":
        seen = np.ones((ROWS, 3, 1), np.float32)
        values = (rng.normal(size=(ROWS, 3, width)).astype(np.float32) for _ in range(2))
        face, sound = (np.concatenate([part, seen], -1) for part in values)
        return batch | {"features": face, "features/sound": sound}
    return batch | {"features": rng.normal(size=(ROWS, 1, width)).astype(np.float32)}


def dense(layer, x):
    return x @ np.float64(layer["kernel"]) + layer["bias"]


def expected_loss(key, params, batch):
    """By the formulas of the paper, from the parameters; and the class counts of all rows."""
    labels = batch["label"][:-1, 0].astype(np.float64)
    if key == "emi":
        both = [np.float64(batch[f"features{name}"][:-1, :, :-1]) for name in ("", "/sound")]
        x = np.concatenate([f(p, 1) for p in both for f in (np.mean, np.std, np.min, np.max)], 1)
        values = 1 / (1 + np.exp(-dense(params["head"], x)))
        return 1 - np.mean([np.corrcoef(values[:, k], labels[:, k])[0, 1] for k in range(6)])
    x = batch["features"][:-1, 0].astype(np.float64)
    head = params["head"]
    if key == "va":
        v = np.tanh(dense(head["fc1"], x))
        ccc = [
            2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
            for a, b in zip(v.T, labels.T, strict=True)
        ]
        return 1 - np.mean(ccc)
    logits = dense(head["fc2"], np.maximum(dense(head["fc1"], x), 0))
    if key == "expr":
        own = labels[:, 0].astype(int)
        weights = (1 / np.bincount(own, minlength=8))[own]
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(own)), own]
        return (weights * losses).sum() / weights.sum()
    on, n = labels.sum(0), len(labels)
    p = 1 / (1 + np.exp(-logits))
    rows = -(n / (2 * on) * labels * np.log(p) + n / (2 * (n - on)) * (1 - labels) * np.log(1 - p))
    return rows.mean()


@pytest.mark.parametrize("key", MODULES)
def test_losses_are_those_of_the_paper(key):
    config, rng = MODULES[key].get_config("hsemotion,paper"), np.random.default_rng(0)
    batch = draw(key, 10, rng)
    weights = parts.make_loss_weights(config.sequence, batch["label"][:, 0], TRACKS[key])
    task = parts.make_sequence_task(config, TRACKS[key], weights)
    params, state = task.init(jax.random.key(0), batch)
    loss, aux = jax.jit(lambda p: task.loss(p, state, batch, {}, False))(params)
    np.testing.assert_allclose(loss / aux.weight, expected_loss(key, params, batch), rtol=1e-5)


# Outputs of the encoder, of its scores and of wav2vec2; parameters of the heads.
SIZES = {
    "va": (10, 10 * 2 + 2),
    "expr": (1280, 1280 * 128 + 128 + 128 * 8 + 8),
    "au": (1280, 1280 * 128 + 128 + 128 * 12 + 12),
    "emi": (10, 4 * (10 + 768) * 6 + 6),
}


@pytest.mark.parametrize("key", MODULES)
def test_heads_have_as_many_parameters_as_described(key):
    config, (width, count) = MODULES[key].get_config("hsemotion,paper"), SIZES[key]
    batch = {
        "features": jax.ShapeDtypeStruct((2, config.sequence.length, width), jnp.float32),
        "mask": jax.ShapeDtypeStruct((2, config.sequence.length), jnp.bool_),
    }
    if key == "emi":
        batch["features"] = jax.ShapeDtypeStruct((2, config.sequence.length, 11), jnp.float32)
        batch["features/sound"] = jax.ShapeDtypeStruct((2, 1024, 769), jnp.float32)
    params, state = jax.eval_shape(
        parts.make_sequence_task(config, TRACKS[key]).init, jax.random.key(0), batch
    )
    assert not state and sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_the_l2_of_va_is_one_through_the_batch():
    """c sum w^2 in the loss, as Keras has it, is 2 c w in the gradient; biases have none."""
    section = va.get_config("hsemotion,paper").sequence
    assert section.optimizer.weight_decay == 2 / section.batch_size
    optimizer = parts.make_schedule_optimizer(section, 1000)
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.ones(2)}
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    assert (updates["kernel"] < 0).all() and not updates["bias"].any()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(context, what extract and sequence returned) of VA on the scores of a drawn encoder."""
    config = va.get_config("hsemotion,tiny").unlock()
    config.image.size = config.extract.batch_size = config.sequence.batch_size = 8
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    folder, rng = tmp_path_factory.mktemp("hsemotion"), np.random.default_rng(0)
    context = Context(ml_collections.FrozenConfigDict(config), folder, mesh)
    splits = [Split(s, [make_video(v, rng) for v in videos]) for s, videos in VIDEOS.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, NAME, families.Family(make_tiny, len(STAGES), True))
        check_config(config, mesh)
        described = {"kind": "frame_classifier", "track": "EXPR", "classes": list(EXPR.classes)}
        described |= parts.output_classes(config.finetune, EXPR)
        described |= context.section("image", "encoder", "finetune")
        shapes = make_task(described, "model")[1]
        drawn = jax.tree.map(lambda s: rng.uniform(0.1, 0.5, s.shape).astype(np.float32), shapes)
        save_model(context.folder("finetune") / "model", drawn, described)
        yield context, extract.run(context), sequence.run(context)


def test_the_encoder_learns_expressions_and_valence_and_arousal(done):
    context, extracted, _ = done
    learnt = parts.section_tracks(context.config.finetune, EXPR)
    assert [track.key for track in learnt] == ["expr", "va"]
    assert context.config.finetune.also.va.weight == 2.0
    assert "score" not in extracted  # nothing is predicted of VA's own single frames


def test_scores_are_what_the_heads_say_of_each_crop(done):
    context = done[0]
    params = load_model(context.folder("finetune") / "model")[0]["params"]
    for split, videos in VIDEOS.items():
        stores = {
            name: FeatureStore(context.folder("extract") / name / split)
            for name in ("features", "scores")
        }
        for video in videos:
            x = stores["features"].read(video)
            found = stores["scores"].read(video)
            expected = [dense(params[name], x) for name in ("head", "head_va")]
            np.testing.assert_allclose(found, np.concatenate(expected, 1), rtol=1e-5, atol=1e-5)
            frames = [store.frames(video).tolist() for store in stores.values()]
            assert frames[0] == frames[1]


def test_every_row_is_predicted_from_its_own_scores(done):
    context, _, result = done
    variables, config = load_model(context.folder("sequence") / "model")
    assert config["sequence"]["model"] == "frames" and -1 <= result["score"] <= 1
    (layer,) = variables["params"]["head"].values()
    store = FeatureStore(context.folder("extract") / "scores" / "validation")
    index = load_index(context.folder("prepare") / "records", "validation")
    found = load_predictions(context.folder("sequence") / "predictions" / "validation", VA)
    for video, rows in zip(index.videos, np.diff(index.rows), strict=True):
        values = np.tanh(dense(layer, store.read(video)))
        expected = values[np.minimum(np.arange(rows), len(values) - 1)]  # the last has no crop
        np.testing.assert_allclose(found[video].values, expected, rtol=1e-5, atol=1e-6)
    task, _ = make_task(config, "model")
    inputs = example_inputs(config, 3)
    assert inputs["features"].shape == (3, 1, 10)
    outputs = jax.eval_shape(task.predict, variables["params"], {}, inputs)
    assert outputs["probabilities"].shape == (3, 1, 2)
    assert read_json(context.folder("sequence") / "model" / "config.json")["features"]["modalities"]
