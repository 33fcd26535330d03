"""VA, EXPR and AU from one model, through the stages that learn: small models, no recipe."""

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.records import Split, Video, load_index, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import make_task
from abaw_jax.recipe import Context
from abaw_jax.stages import extract, finetune, sequence
from abaw_jax.tracks import TRACKS
from abaw_jax.training.partition import make_mesh
from configs import va

ROWS = 12
VIDEOS = {"train": ("1", "2", "3"), "validation": ("4", "5")}


def make_video(name, rng):
    image = cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), np.uint8))[1].tobytes()
    labels = {
        "va": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "expr": np.arange(ROWS, dtype=np.int32)[:, None] % 8,
        "au": rng.integers(0, 2, (ROWS, 12)).astype(np.int32),
    }
    if name == "3":  # of no training set but EXPR's
        labels["va"][:], labels["au"][:] = -5, -1
    if name == "4":
        labels["expr"][:] = -1
    return Video(name, [(n, image) for n in range(1, ROWS + 1)], ROWS, labels)


def make_context(workdir):
    config, rng = va.get_config("tiny,together").unlock(), np.random.default_rng(0)
    config.image.size, config.pretrain.epochs = 8, 0.0
    config.encoder.update(width=8, depth=1, heads=2)
    config.finetune.update(batch_size=8, evaluations=1)
    config.sequence.update(length=8, stride=4, shift=2, epochs=2.0, width=8, mlp_width=8)
    config.sequence.update(head_width=8, batch_size=4, evaluations=1)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    splits = [Split(s, [make_video(v, rng) for v in videos]) for s, videos in VIDEOS.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    return context


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("together"))
    tuned = finetune.run(context)
    extract.run(context)
    return context, tuned, sequence.run(context)


def test_every_track_is_scored(done):
    _, tuned, learnt = done
    for outcome in (tuned, learnt):
        assert outcome["score"] == outcome["metrics"]["mean_ccc"]
        assert {"au_mean_f1", "expr_macro_f1"} < outcome["metrics"].keys()
    assert tuned["samples"] == 3 * ROWS  # each has a label of some track
    assert learnt["samples"] == 2 * ROWS  # of the main one


def test_predictions_of_further_tracks_can_be_scored(done):
    context, _, learnt = done
    index = load_index(context.folder("prepare") / "records", "validation")
    for key, folder in (
        ("va", "predictions"),
        ("au", "predictions_au"),
        ("expr", "predictions_expr"),
    ):
        track, place = TRACKS[key], context.folder("sequence") / folder
        assert {path.name for path in place.iterdir()} == {"train", "validation"}
        found = load_predictions(place / "validation", track)
        labels = extract.video_labels(index, track)
        statistics = sum(track.evaluate(track.decode(found[v].values), labels[v]) for v in labels)
        name = track.score_name if key == "va" else f"{key}_{track.score_name}"
        assert learnt["metrics"][name] == pytest.approx(track.summary(statistics).score, abs=1e-6)


def test_models_say_what_their_heads_are(done):
    context, _, _ = done
    for stage in ("finetune", "sequence"):
        variables, config = load_model(context.folder(stage) / "model")
        assert config["also"] == {key: list(TRACKS[key].classes) for key in ("au", "expr")}
        _, shapes = make_task(config, stage)
        assert jax.tree.structure(shapes) == jax.tree.structure(variables)
        heads = {name for name in variables["params"] if name.startswith("head")}
        assert heads == {"head", "head_au", "head_expr"}
        config["also"]["expr"] = ["Joy"]
        with pytest.raises(InputError, match=r"track 'expr' with classes \['Joy'\]"):
            make_task(config, stage)


def test_a_track_that_nothing_is_labelled_for_is_named(tmp_path):
    context = make_context(tmp_path / "run")
    rng = np.random.default_rng(1)
    videos = [make_video(v, rng) for v in VIDEOS["train"]]
    for video in videos:
        video.labels["au"][:] = -1
    folder = tmp_path / "other"
    other = Context(context.config, folder, context.mesh)
    write_corpus(other.folder("prepare") / "records", "test", [Split("train", videos)],
                 progress=False)  # fmt: skip
    with pytest.raises(InputError, match="no train crop has a valid AU label"):
        finetune.labelled(other, "train")
    windows = sequence.make_windows(
        VIDEOS["train"],
        np.arange(4) * ROWS,
        videos[0].labels["va"].repeat(3, 0),
        length=8,
        stride=4,
    )
    with pytest.raises(InputError, match="no train row has a valid AU label"):
        sequence.with_all_labels(other, windows)
