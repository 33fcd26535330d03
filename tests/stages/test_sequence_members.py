"""Members of the stage `sequence`: one that sees all, one without each fold, and their mean."""

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.features import save_feature_settings, save_features
from abaw_jax.data.records import Split, Video, load_index, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.files import write_json
from abaw_jax.interop.archive import content_hash, load_model, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages import export, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.members import member_windows
from abaw_jax.training.partition import make_mesh
from configs import expr

VIDEOS = {"train": ("1", "2_left", "2_right", "3", "4"), "validation": ("5", "6")}
ROWS, WIDTH = 24, 8
IMAGE = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def make_context(workdir, folds):
    """Records, features and a frame classifier, as the stages before leave them."""
    config, rng = expr.get_config("tiny").unlock(), np.random.default_rng(0)
    config.encoder.width = WIDTH
    config.sequence.update(length=16, stride=8, shift=4, epochs=2.0, width=8, folds=folds)
    config.sequence.update(mlp_width=8, head_width=8, evaluations=1)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    labels = {v: rng.integers(0, 8, (ROWS, 1), np.int32) for vs in VIDEOS.values() for v in vs}
    frames = [(number, IMAGE) for number in range(1, ROWS + 1)]
    splits = [
        Split(split, [Video(v, frames, ROWS, {"expr": labels[v]}) for v in videos])
        for split, videos in VIDEOS.items()
    ]
    records = context.folder("prepare") / "records"
    write_corpus(records, "test", splits, progress=False)
    save_model(context.folder("finetune") / "model", {"params": {"w": np.ones(1)}}, {})
    encoder = content_hash(context.folder("finetune") / "model")
    for split, videos in VIDEOS.items():
        folder = context.folder("extract") / "features" / split
        for v in videos:
            values = np.eye(8, dtype=np.float32)[labels[v][:, 0]] + rng.normal(0, 1, (ROWS, WIDTH))
            save_features(folder, v, np.arange(1, ROWS + 1, dtype=np.int32), values)
        source = load_index(records, split).content_hash()
        save_feature_settings(folder, encoder=encoder, width=WIDTH, source_hash=source)
    return context


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("folds"), 2)
    return context, sequence.run(context)


def test_members_keep_recordings_whole_and_see_the_rest(done):
    context, _ = done
    windows, _ = sequence.split_windows(context, "train")
    members = member_windows(context, windows)
    assert list(members) == ["all", "fold1", "fold2"]
    assert len(members["all"]) == len(windows)
    seen = [{windows.videos[v] for v in members[m].video} for m in ("fold1", "fold2")]
    assert seen[0] | seen[1] == set(VIDEOS["train"]) and not seen[0] & seen[1]
    assert not {recording(v) for v in seen[0]} & {recording(v) for v in seen[1]}


def test_predictions_are_the_members_mean(done):
    context, outcome = done
    folder, track = context.folder("sequence"), context.track
    for split, videos in VIDEOS.items():
        mean = load_predictions(folder / "predictions" / split, track)
        members = [
            load_predictions(folder / "members" / name / split, track)
            for name in ("all", "fold1", "fold2")
        ]
        assert list(mean) == sorted(videos)
        for video in videos:
            values = np.stack([member[video].values for member in members])
            assert np.abs(values[1] - values[2]).max() > 1e-3, "two members are one"
            np.testing.assert_allclose(mean[video].values, values.mean(axis=0), atol=1e-6)
    truth = sequence.video_labels(
        load_index(context.folder("prepare") / "records", "validation"), track
    )
    mean = load_predictions(folder / "predictions" / "validation", track)
    sums = sum(track.evaluate(track.decode(mean[v].values), truth[v]) for v in truth)
    assert outcome["score"] == outcome["metrics"]["macro_f1"] == track.summary(sums).score
    assert outcome["samples"] == ROWS * len(VIDEOS["train"])


def test_each_member_has_its_model(done):
    context, outcome = done
    folder = context.folder("sequence")
    hashes = [content_hash(folder / name / "model") for name in ("", "fold1", "fold2")]
    assert outcome["content"] == hashes and len(set(hashes)) == 3
    assert load_model(folder / "fold2" / "model")[1]["kind"] == "sequence_model"


def test_again_is_the_same(done):
    context, outcome = done
    again = sequence.run(context)
    assert again["score"] == outcome["score"] and again["content"] == outcome["content"]


def test_the_model_card_says_whose_score_it_gives(done):
    context, outcome = done
    write_json(context.folder("sequence") / "results.json", outcome)
    card = export._card(context, "sequence", {"classes": [], "crop": {}}, {"sequence": 0.75})
    single = f"{outcome['metrics']['single']:.4f}"
    assert f"0.7500. This is of the mean of all members; the model here, alone: {single}." in card


@pytest.mark.parametrize("folds", [-1, 1])
def test_numbers_of_folds_that_cannot_be(folds):
    config = expr.get_config("tiny").unlock()
    config.sequence.folds = folds
    with pytest.raises(
        InputError, match=f"config.sequence.folds: {folds}; expected 0, or 2 and up"
    ):
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
