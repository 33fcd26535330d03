"""Members of the stage `sequence`: one that sees all, one without each fold, one of each scene, and
their mean."""

import dataclasses

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.records import Split, Video, load_index, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.evaluation.scenes import read_scenes
from abaw_jax.files import read_json, write_json
from abaw_jax.interop.archive import content_hash, load_model, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages import export, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.extract import video_labels
from abaw_jax.stages.members import find_scenes, make_members, read_members
from abaw_jax.training.loop import TrainResult
from abaw_jax.training.partition import make_mesh
from configs import expr

VIDEOS = {"train": ("1", "2_left", "2_right", "3", "4"), "validation": ("5", "6")}
ROWS, WIDTH = 24, 8
SCENES = {"1": "warm", "2_left": "warm", "2_right": "cold", "3": "cold", "4": "warm"}
SCENES |= {"5": "cold", "6": "warm"}
COLOURS = {"warm": (40, 90, 200), "cold": (200, 120, 30)}


def draw_crop(video):
    """A background of its scene's colour, and no two alike."""
    shade = np.full((8, 8, 3), COLOURS[SCENES[video]], np.uint8) + np.uint8(4 * int(video[0]))
    return cv2.imencode(".png", shade)[1].tobytes()


def draw_video(video, labels):
    rows = len(labels)
    return Video(video, [(n + 1, draw_crop(video)) for n in range(rows)], rows, {"expr": labels})


def make_context(workdir, folds, short=(), **section):
    """Records, features and a frame classifier, as the stages before leave them.

    short: videos of 3 rows in place of ROWS.
    """
    config, rng = expr.get_config("tiny").unlock(), np.random.default_rng(0)
    config.encoder.width = WIDTH
    config.sequence.update(length=16, stride=8, shift=4, epochs=2.0, width=8, folds=folds)
    config.sequence.update(section)
    config.sequence.update(mlp_width=8, head_width=8, evaluations=1)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    labels = {
        v: rng.integers(0, 8, (3 if v in short else ROWS, 1), np.int32)
        for videos in VIDEOS.values()
        for v in videos
    }
    splits = [
        Split(split, [draw_video(v, labels[v]) for v in videos]) for split, videos in VIDEOS.items()
    ]
    records = context.folder("prepare") / "records"
    write_corpus(records, "test", splits, progress=False)
    save_model(context.folder("finetune") / "model", {"params": {"w": np.ones(1)}}, {})
    encoder = content_hash(context.folder("finetune") / "model")
    for split, videos in VIDEOS.items():
        folder = context.folder("extract") / "features" / split
        for v in videos:
            values = np.eye(8, dtype=np.float32)[labels[v][:, 0]]
            values = values + rng.normal(0, 1, values.shape)
            save_features(folder, v, np.arange(1, len(values) + 1, dtype=np.int32), values)
        source = load_index(records, split).content_hash()
        save_feature_settings(folder, encoder=encoder, width=WIDTH, source_hash=source)
    return context


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("members"), 0, scenes=2)
    return context, sequence.run(context)


def members_of(context, scenes=None):
    """(members, training windows) as the stage makes them."""
    windows = {split: sequence.split_windows(context, split)[0] for split in VIDEOS}
    scenes = find_scenes(context) if scenes is None else scenes
    return make_members(context, windows["train"], windows["validation"], scenes), windows["train"]


def names(windows):
    return {windows.videos[v] for v in windows.video}


def test_members_keep_recordings_whole_and_see_the_rest(done):
    context = with_section(done[0], folds=2)
    members, windows = members_of(context)
    assert list(members) == ["all", "fold1", "fold2", "scene1", "scene2"]
    assert len(members["all"].seen) == len(windows)
    assert names(members["all"].judged) == set(VIDEOS["validation"])
    seen = [names(members[m].seen) for m in ("fold1", "fold2")]
    assert seen[0] | seen[1] == set(VIDEOS["train"]) and not seen[0] & seen[1]
    assert not {recording(v) for v in seen[0]} & {recording(v) for v in seen[1]}
    assert names(members["fold1"].judged) == seen[1] and members["fold1"].of_training


def test_members_keep_persons_whole(done):
    context = with_section(done[0], folds=2)
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.corpus.persons = "persons.csv"
    context = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    for others in (("3", "4"), ("1", "4"), ("1", "3")):
        persons = {v: "p" if v in others else v for videos in VIDEOS.values() for v in videos}
        write_json(context.folder("prepare") / "persons.json", persons)
        members, _ = members_of(context, {})
        held_out = [names(members[m].judged) for m in ("fold1", "fold2")]
        assert any(set(others) <= fold for fold in held_out)
        assert any({"2_left", "2_right"} <= fold for fold in held_out)


def test_members_of_scenes_see_the_videos_of_their_background(done):
    """Of a training video, a new one, and one with two people whose scenes differ."""
    members, _ = members_of(done[0])
    for member, scene in (("scene1", "warm"), ("scene2", "cold")):
        mine = {v for v in SCENES if SCENES[v] == scene}
        assert names(members[member].seen) == mine & set(VIDEOS["train"])
        assert names(members[member].judged) == mine & set(VIDEOS["validation"])
        assert not members[member].of_training
    folder = done[0].folder("sequence")
    shares = read_scenes(folder / "scenes.csv")
    assert sorted(shares) == sorted(SCENES) and shares["1"]["scene1"] > 0.5
    assert len(read_json(folder / "scenes.json")["centres"]) == 2
    record, of_all = read_members(done[0]), {"modality": None}
    assert record["scene1"] == of_all | {"scene": "scene1", "videos": 3, "samples": 3 * ROWS}
    assert record["all"] == of_all | {"scene": None, "videos": 5, "samples": 5 * ROWS}


def test_predictions_are_the_members_mean_weighted_by_scene(done):
    context, outcome = done
    folder, track = context.folder("sequence"), context.track
    shares = read_scenes(folder / "scenes.csv")
    for split, videos in VIDEOS.items():
        mean = load_predictions(folder / "predictions" / split, track)
        members = {
            name: load_predictions(folder / "members" / name / split, track)
            for name in ("all", "scene1", "scene2")
        }
        assert list(mean) == sorted(videos)
        for video in videos:
            values = np.stack([member[video].values for member in members.values()])
            assert np.abs(values[1] - values[2]).max() > 1e-3, "two members are one"
            weights = np.array([1, shares[video]["scene1"], shares[video]["scene2"]])
            want = np.einsum("m,mnk->nk", weights / 2, values)
            np.testing.assert_allclose(mean[video].values, want, atol=1e-6)
    truth = video_labels(load_index(context.folder("prepare") / "records", "validation"), track)
    mean = load_predictions(folder / "predictions" / "validation", track)
    sums = sum(track.evaluate(track.decode(mean[v].values), truth[v]) for v in truth)
    assert outcome["score"] == outcome["metrics"]["macro_f1"] == track.summary(sums).score
    assert outcome["samples"] == ROWS * len(VIDEOS["train"])


def test_each_member_has_its_model(done):
    context, outcome = done
    folder = context.folder("sequence")
    hashes = [content_hash(folder / name / "model") for name in ("", "scene1", "scene2")]
    assert outcome["content"][:3] == hashes and len(set(hashes)) == 3
    assert outcome["content"][3].keys() == set(SCENES)
    assert load_model(folder / "scene2" / "model")[1]["kind"] == "sequence_model"


def test_again_is_the_same(done):
    context, outcome = done
    again = sequence.run(context)
    assert again["score"] == outcome["score"] and again["content"] == outcome["content"]


def test_the_model_card_says_whose_score_it_gives(done):
    context, outcome = done
    write_json(context.folder("sequence") / "results.json", outcome)
    results = {"ensemble": 0.75, "member_all": 0.5, "member_scene2": 0.25}
    config = {"classes": [], "crop": {}}
    card = export._card(context, "sequence", config, results)
    combined = "0.7500. This is of the members combined (ensemble.json); the model here, alone"
    assert f"{combined}: 0.5000." in card and "Training data: demo corpus (tiny).\n" in card
    card = export._card(context, "scene2", config, results)
    assert f"{combined}: 0.2500." in card and "the videos of scene scene2.\n" in card


def with_section(context, **section):
    """The context with other values in the section `sequence`."""
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.sequence.update(section)
    return dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))


def given(context, text):
    """The context with a list of scenes."""
    path = context.workdir / "given.csv"
    path.write_text("video,scene\n" + text)
    return with_section(context, scenes=0, scene_file=str(path))


def test_members_of_folds_are_judged_by_their_fold(done, tmp_path, monkeypatch):
    """The whole stage with folds; each member is the one trained above."""
    variables, _ = load_model(done[0].folder("sequence") / "model")
    params = variables.pop("params")
    judged = []

    def train_member(context, task, folder, windows, reader, evaluate, *, seed, label):
        figures = evaluate(params, variables)
        judged.append((label, seed, names(windows), figures["macro_f1"]))
        return TrainResult(params, variables, 1, figures, 1, 1.0)

    monkeypatch.setattr(sequence, "train_member", train_member)
    context = make_context(tmp_path, 2)
    outcome = sequence.run(context)
    assert [(label, seed) for label, seed, *_ in judged] == [
        ("sequence", 0),
        ("sequence fold1", 1),
        ("sequence fold2", 2),
    ]
    folder, track = context.folder("sequence"), context.track
    found = load_predictions(folder / "members" / "all" / "train", track)
    truth = video_labels(load_index(context.folder("prepare") / "records", "train"), track)
    for _, _, seen, score in judged[1:]:
        held_out = set(VIDEOS["train"]) - seen
        sums = sum(track.evaluate(track.decode(found[v].values), truth[v]) for v in held_out)
        assert score == track.summary(sums).score
    assert outcome["score"] == outcome["metrics"]["single"] == judged[0][3]
    assert list(read_members(context)) == ["all", "fold1", "fold2"]
    card = export._card(context, "fold1", {"classes": [], "crop": {}}, {"ensemble": 0.75})
    assert "0.7500. This is of the members combined (ensemble.json).\n" in card
    assert "but for the recordings of fold1.\n" in card


def test_members_of_single_modalities_see_only_theirs(tmp_path, monkeypatch):
    """Each is trained and judged by its own store, is no part of the mean, and is exported."""
    context = make_context(tmp_path, 0, modalities=("face", "sound"), apart=True)
    face = context.folder("extract") / "features"
    for split, videos in VIDEOS.items():
        folder = context.folder("extract") / "sound" / split
        for v in videos:
            save_features(folder, v, np.array([1], np.int32), np.full((1, 3), 7, np.float32))
        source = FeatureStore(face / split).settings["source_hash"]
        save_feature_settings(folder, encoder="log_mel", width=3, source_hash=source)
    seen = {}

    def train_member(context, task, folder, windows, reader, evaluate, *, seed, label):
        features = reader(0, np.arange(4), None)["features"]
        batch = {"features": features[None], "mask": np.ones((1, 4), bool)}
        params, state = task.init(jax.random.key(seed), batch)
        seen[label] = features
        return TrainResult(params, state, 1, evaluate(params, state), 1, 1.0)

    monkeypatch.setattr(sequence, "train_member", train_member)
    sequence.run(context)
    assert {label: rows.shape[1] for label, rows in seen.items()} == {
        "sequence": WIDTH + 3, "sequence face": WIDTH, "sequence sound": 3,
    }  # fmt: skip
    assert (seen["sequence sound"] == 7).all()
    np.testing.assert_array_equal(seen["sequence face"], seen["sequence"][:, :WIDTH])
    folder = context.folder("sequence")
    mean, alone = (folder / name / "validation" for name in ("predictions", "members/all"))
    for video in VIDEOS["validation"]:
        values = [load_predictions(at, context.track)[video].values for at in (mean, alone)]
        np.testing.assert_array_equal(*values)
    record = read_members(context)
    assert [record[name]["modality"] for name in record] == [None, "face", "sound"]
    described = [load_model(folder / m / "model")[1]["features"] for m in ("", "face", "sound")]
    assert [d["width"] for d in described] == [WIDTH + 3, WIDTH, 3]
    assert [list(d.get("modalities", ())) for d in described] == [["face", "sound"], [], ["sound"]]
    config = load_model(folder / "sound" / "model")[1]
    assert export._inputs(context, "sound", config)["features"].shape[-1] == 3
    card = export._card(context, "sound", {"classes": [], "crop": {}}, {"ensemble": 0.75})
    assert "features: sound," in card


def test_scenes_from_a_list(done):
    rows = [f"{v},{scene}" for v, scene in SCENES.items()]
    context = given(done[0], "\n".join(rows))
    found = {v: {scene: 1.0} for v, scene in SCENES.items()}
    members, _ = members_of(context, found)
    assert list(members)[1:] == ["scene_warm", "scene_cold"]
    assert members["scene_cold"].scene == "cold"
    # The only validation video of a scene is not labelled: all of them judge.
    cold = {**found, "5": {"warm": 1.0}}
    assert names(members_of(context, cold)[0]["scene_cold"].judged) == set(VIDEOS["validation"])
    alone = {**found, "3": {"lone": 1.0}, "2_right": {"warm": 1.0}}
    with pytest.raises(InputError, match="scene lone: 1 labelled training videos of 5; a member"):
        members_of(context, alone)
    slash = {v: {"a/b": 1.0} for v in SCENES}
    with pytest.raises(InputError, match="scene 'a/b'; its name may hold"):
        members_of(context, slash)
    with pytest.raises(InputError, match=r"given.csv: has no scene of 6 \(1 of 2 validation vid"):
        find_scenes(given(done[0], "\n".join(rows[:-1])))


@pytest.mark.parametrize("key", ["folds", "scenes"])
@pytest.mark.parametrize("number", [-1, 1])
def test_numbers_of_members_that_cannot_be(key, number):
    config = expr.get_config("tiny").unlock()
    config.sequence[key] = number
    with pytest.raises(InputError, match=f"config.sequence.{key}: {number}; expected 0, or 2 and"):
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))


@pytest.mark.parametrize(
    "sequence, ensemble, message",
    [
        ({"scenes": 2, "scene_file": "x.csv"}, {}, "config.sequence: scenes and scene_file"),
        ({"scene_file": "nowhere.csv"}, {}, "nowhere.csv: cannot be read"),
        ({}, {"method": "mean"}, "config.ensemble: method: 'mean'; expected one of average"),
        ({}, {"method": "weights"}, "weights of a single member"),
        ({"folds": 2}, {"method": "scenes"}, "scenes needs config.sequence.scenes"),
        ({}, {"others": {"a": "nowhere"}}, "others.a: nowhere has no folder validation"),
        ({"folds": 2}, {"members": ("all",)}, "members: all alone; name two at least"),
        ({}, {"members": ("frames",)}, "members: frames alone; name two at least"),
        ({"epochs": 0.0, "folds": 2}, {"method": "stacking"}, "stacking of a single member"),
        ({"epochs": 0.0, "scenes": 2}, {"method": "scenes"}, "scenes of a single member"),
        ({"epochs": 0.0}, {"members": ("frames", "all")}, "members: there is no sequence model"),
    ],
)
def test_combinations_that_cannot_be(sequence, ensemble, message):
    config = expr.get_config("tiny").unlock()
    config.sequence.update(sequence)
    config.ensemble.update(ensemble)
    with pytest.raises(InputError, match=message):
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
