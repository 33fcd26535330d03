"""The stage `ensemble` on several members: one combination, judged with the decision on it."""

import dataclasses
import shutil

import ml_collections
import numpy as np
import pytest
from test_ensemble_stage import ROWS, VIDEOS, draw_values, make_context, read

from abaw_jax.errors import InputError
from abaw_jax.evaluation.combination import Combination, apply
from abaw_jax.evaluation.ensemble import evaluate_ensemble
from abaw_jax.evaluation.matching import Matching
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.scenes import write_scenes
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.files import read_json, write_json
from abaw_jax.stages import combine, ensemble, export, report

NOISE = {"all": 0.6, "fold1": 0.8, "scene1": 0.7, "scene2": 0.9}
SHARES = (0.9, 0.7, 0.2, 0.4, 0.1, 0.8, 0.6, 0.3, 0.5, 0.2)


def make_members(workdir, key, **section):
    """(context, test truth): four members in the recipe, one elsewhere that lacks a video."""
    others = {"audio": str(workdir / "audio")}
    context, truth = make_context(workdir, key, **{"others": others, **section})
    track, rng, stage = context.track, np.random.default_rng(1), context.folder("sequence")
    frames = np.arange(1, ROWS + 1, dtype=np.int32)
    for split, names in VIDEOS.items():
        index = ensemble.load_index(context.folder("prepare") / "records", split)
        for video in names:
            rows = truth[video]
            assert video in index.videos
            for name, noise in {**NOISE, "audio": 1.0}.items():
                folder = stage / "members" / name if name in NOISE else workdir / "audio"
                values = draw_values(track, rows, rng, noise).astype(np.float32)
                if name == "audio" and (split == "train" or video == "6"):
                    continue
                seen = slice(5, None) if name == "audio" else slice(None)
                save_prediction(folder / split, video, frames[seen], values[seen], track.classes)
    scenes = {name: name if name.startswith("scene") else None for name in NOISE}
    record = {name: {"scene": s, "modality": None} for name, s in scenes.items()}
    write_json(stage / "members.json", record)
    names = [video for split in VIDEOS.values() for video in split]
    shares = {
        v: {"scene1": p, "scene2": 1 - p} for v, p in zip(names, SHARES[: len(names)], strict=True)
    }
    write_scenes(stage / "scenes.csv", shares)
    return context, truth


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    context, truth = make_members(tmp_path_factory.mktemp("va"), "va", method="weights", match=True)
    return context, truth, ensemble.run(context)


def test_combination_and_decision_are_judged_together(done):
    context, _, outcome = done
    metrics, record = outcome["metrics"], read(context, "ensemble.json")
    steps = ["", "_smoothed", "_matched", "_cross_validated"]
    assert [k for k in metrics if k.startswith("ensemble")] == [f"ensemble{s}" for s in steps]
    assert not [k for k in metrics if k.startswith("sequence")]
    assert record["decided"]["cross_validated"] == metrics["ensemble_cross_validated"]
    assert record["decided"]["tuned"] == metrics["ensemble_matched"] == outcome["score"]
    assert record["scores"]["tuned"] == pytest.approx(metrics["ensemble"])
    assert metrics["ensemble_cross_validated"] != metrics["ensemble_matched"]
    assert record["members"] == ["all", "audio", "fold1", "scene1", "scene2"]
    for name in record["members"]:
        assert metrics[f"member_{name}"] == record["scores"]["members"][name]["score"]
    assert record["predictions"]["fold1"] == "sequence/members/fold1"
    assert record["missing"]["audio"] == {"videos": 1, "frames": 0, "filled": 25}
    assert record["decision"]["matching"] == read(context, "matching.json")["ensemble"]


def test_no_fold_is_scored_by_its_own_labels(done, monkeypatch):
    """Turning the labels of one fold leaves what it is scored with as it was."""
    context, _, _ = done
    index = ensemble.load_index(context.folder("prepare") / "records", "validation")
    labels = ensemble.video_labels(index, context.track)
    folds = combine.validation_folds(context, labels)
    fold = folds["4"]
    turned = {
        v: np.where(rows >= -1, -rows, rows) if folds[v] == fold else rows
        for v, rows in labels.items()
    }
    before, after = (combine.combine(context, rows) for rows in (labels, turned))
    found = [c.without(context.track)(fold) for c in (before, after)]
    for video in labels:
        np.testing.assert_array_equal(found[0][video].values, found[1][video].values)
    other = (fold + 1) % 5
    found = [c.without(context.track)(other)["3"].values for c in (before, after)]
    assert np.abs(found[0] - found[1]).max() > 0


def test_persons_stay_together_in_folds_and_resamples(done):
    context, _, _ = done
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.corpus.persons = "persons.csv"
    context = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    persons = {"3": "p", "4": "q", "5_left": "r", "5_right": "p", "6": "q", "7": "q"}
    write_json(context.folder("prepare") / "persons.json", persons)
    index = ensemble.load_index(context.folder("prepare") / "records", "validation")
    labels = ensemble.video_labels(index, context.track)
    folds = combine.validation_folds(context, labels)
    together = [{"3", "5_left", "5_right"}, {"4", "6", "7"}]
    assert [{v for v in folds if folds[v] == f} for f in (folds["3"], folds["4"])] == together
    folder = context.folder("ensemble") / "predictions" / "validation"
    evidence = [
        report.evidence(context.track, load_predictions(folder, context.track), labels, known)
        for known in (persons, None, dict.fromkeys(persons, "p"))
    ]
    widths = [e["intervals"]["score"].high - e["intervals"]["score"].low for e in evidence[:2]]
    assert widths[0] != widths[1] and "intervals" not in evidence[2]
    write_json(context.folder("prepare") / "persons.json", dict.fromkeys(persons, "p"))
    assert combine.validation_folds(context, labels) is None


def test_final_predictions_are_the_combination_decided(done):
    context, truth, outcome = done
    track, record = context.track, read(context, "ensemble.json")
    combination = Combination.load(record, track, "ensemble.json")
    folders = combine.member_folders(context)
    aligned = combine._align(context, folders, "test")
    values = aligned.by_video(apply(combination, aligned, track))
    final = load_predictions(context.folder("ensemble") / "predictions" / "test", track)
    matching = Matching(
        **{key: tuple(by_name.values()) for key, by_name in record["decision"]["matching"].items()}
    )
    sums = 0
    for video in VIDEOS["test"]:
        smoothing = Smoothing(**record["decision"]["smoothing"])
        want = ensemble.Decision(smoothing, matching).apply(values[video], ROWS, track)
        np.testing.assert_array_equal(final[video].values, want.values)
        sums = sums + track.evaluate(track.decode(want.values), truth[video])
    assert track.summary(sums).score == pytest.approx(outcome["score"], abs=0.2)
    # No prediction of the training set, which one member lacks.
    assert not (context.folder("ensemble") / "predictions" / "train").exists()


def test_the_report_shows_members_and_scenes(done):
    context, _, outcome = done
    page = (context.folder("ensemble") / "report.html").read_text()
    assert "<h2>Members</h2>" in page and "<h2>Scenes</h2>" in page
    assert "5 members combined by: weights." in page and "out of fold" in page
    assert f"{outcome['metrics']['member_audio']:.4f}" in page
    assert f"{outcome['metrics']['ensemble_cross_validated']:.4f}" in page


@pytest.mark.parametrize(
    ("named", "usual"),
    [((), "weights"), (("all", "fold1"), "average"), (("all", "fold1", "scene1"), "scenes")],
)
def test_members_of_single_modalities_are_weighted(tmp_path, monkeypatch, named, usual):
    context, _ = make_members(tmp_path, "expr", others={}, members=named)
    stage = context.folder("sequence")
    shutil.copytree(stage / "members" / "scene2", stage / "members" / "sound")
    record = read_json(stage / "members.json") | {"sound": {"scene": None, "modality": "sound"}}
    write_json(stage / "members.json", record)
    index = ensemble.load_index(context.folder("prepare") / "records", "validation")
    labels = ensemble.video_labels(index, context.track)
    methods = []

    def evaluate(aligned, labelled, track, method, folds, **options):
        methods.append(method)
        return evaluate_ensemble(aligned, labelled, track, "average", folds)

    monkeypatch.setattr(combine, "evaluate_ensemble", evaluate)
    combine.combine(context, labels)
    few = {video: rows for video, rows in labels.items() if video in list(labels)[:2]}
    combine.combine(context, few)
    assert methods == [usual, "scenes" if usual == "weights" else usual]


def test_scenes_weigh_the_members(tmp_path):
    context, _ = make_members(tmp_path, "expr", others={})  # without a method
    outcome = ensemble.run(context)
    labels = ensemble.video_labels(
        ensemble.load_index(context.folder("prepare") / "records", "validation"), context.track
    )
    found = combine.combine(context, labels)
    aligned = found.aligned
    v = aligned.videos.index("4")  # the fourth name of all
    weights = np.array([1, 1, SHARES[3], 1 - SHARES[3]]) / 3
    want = np.einsum("m,mnk->nk", weights, aligned.values[:, aligned.rows(v)])
    np.testing.assert_allclose(found.result.values[aligned.rows(v)], want, atol=1e-6)
    assert found.without(context.track) is None
    rows = combine.scene_table(context, found)
    assert [row["scene"] for row in rows] == ["scene1", "scene2"]
    assert [row["train videos"] for row in rows] == [2, 0]
    assert [row["validation videos"] for row in rows] == [2, 4]
    assert rows[0]["test rows"] == ROWS and 0 < rows[1]["scene2"] < 1
    table = combine.member_table(found, context.track)
    assert sum(row["weight"] for row in table) == pytest.approx(1)
    scores = outcome["metrics"]
    assert scores["ensemble"] == found.result.tuned.score


def test_the_average_of_members_without_search_has_no_second_score(tmp_path):
    context, _ = make_members(tmp_path, "va", members=("all", "frames"), kinds=(), others={})
    outcome = ensemble.run(context)
    keys = [k for k in outcome["metrics"] if k.startswith(("ensemble", "frames", "member"))]
    assert keys == ["frames", "ensemble", "member_all", "member_frames"]
    assert outcome["metrics"]["frames"] == outcome["metrics"]["member_frames"]


@pytest.mark.parametrize(
    "section, message",
    [
        ({"members": ("al",)}, "config.ensemble.members: 'al' is not a member.*mean 'all'"),
        ({"others": {"frames": "x"}}, "others.frames: the recipe has a member frames itself"),
        ({"others": {"x": "nowhere"}}, "member x: nowhere has no folder"),
        ({"members": ("all",), "others": {}}, "1 members; an ensemble needs two"),
    ],
)
def test_members_that_are_not_there(done, section, message):
    context = done[0]
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.ensemble.others = ml_collections.ConfigDict()
    config.ensemble.update(section)
    changed = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    with pytest.raises(InputError, match=message):
        combine.combine(changed, {})


def test_one_recording_cannot_be_searched(tmp_path, monkeypatch):
    monkeypatch.setitem(VIDEOS, "validation", ("5_left", "5_right"))
    context, _ = make_members(tmp_path, "au", method="stacking")
    with pytest.raises(InputError, match="config.ensemble.method: stacking is tuned on one part"):
        ensemble.run(context)


def test_what_is_exported_beside_the_models(done):
    context, _, _ = done
    models = export._models(context)
    assert list(models) == ["frames", "sequence", "fold1", "scene1", "scene2"]
    assert models["fold1"] == context.folder("sequence") / "fold1" / "model"
    export._write_combination(context)
    record = read(context, "../export/ensemble.json")
    assert record["models"] == {
        "all": "sequence",
        "audio": None,
        "fold1": "fold1",
        "scene1": "scene1",
        "scene2": "scene2",
    }
    assert (context.folder("export") / "scenes.csv").exists()
    decisions = ensemble.read_decisions(context)
    assert export._decided("scene1", decisions) == "ensemble" and set(decisions) == {
        "frames",
        "ensemble",
    }
