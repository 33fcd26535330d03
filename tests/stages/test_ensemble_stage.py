"""The stage `ensemble` on made-up predictions: what it chooses, writes, and says it is worth."""

import json

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax import score
from abaw_jax.data.records import Split, Video, write_corpus
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.evaluation.submission import read_submission
from abaw_jax.files import write_json
from abaw_jax.recipe import SCORES, Context
from abaw_jax.stages import ensemble
from abaw_jax.tracks import TRACKS
from abaw_jax.training.partition import make_mesh
from configs import au, expr, va

CONFIGS = {"va": va, "au": au, "expr": expr}
VIDEOS = {
    "train": ("1", "2"),
    "validation": ("3", "4", "5_left", "5_right", "6", "7"),
    "test": ("8", "9"),
}
ROWS = 50
IMAGE = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def draw_truth(track, rng):
    """Label rows (ROWS, W) that change over time, all valid."""
    if track.label_type == "float32":
        turns = np.arange(ROWS)[:, None] / rng.uniform(10, 25, 2) + rng.random(2)
        return (0.6 * np.sin(2 * np.pi * turns)).astype(np.float32)
    high = track.outputs if track.label_width == 1 else 2
    changes = rng.integers(0, high, (ROWS // 5, track.label_width))
    return np.repeat(changes, 5, axis=0).astype(np.int32)


def draw_values(track, truth, rng, noise):
    """What a model may predict of it: values in the track's range. Numbers come out too narrow,
    units too low."""
    values = track.encode(truth) + noise * rng.normal(size=(ROWS, track.outputs))
    if track.label_type == "float32":
        return 0.5 * values.clip(-1, 1)
    if track.label_width > 1:
        return (0.2 + 0.4 * values).clip(0, 1)
    values = np.exp(2 * values)
    return values / values.sum(axis=1, keepdims=True)


def make_context(workdir, key, **section):
    """Records and predictions as the stages before leave them; returns (context, test truth)."""
    track, rng = TRACKS[key], np.random.default_rng(0)
    config = CONFIGS[key].get_config("tiny").unlock()
    config.corpus.root = str(workdir / "corpus")
    config.ensemble.update(section)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    splits, truth = [], {}
    for split, names in VIDEOS.items():
        videos = []
        for video in names:
            truth[video] = draw_truth(track, rng)
            rows = truth[video].copy()
            rows[rng.random(ROWS) < 0.1, -1] = track.invalid
            labels = {} if split == "test" else {key: rows}
            videos.append(Video(video, [(1, IMAGE)], ROWS, labels))
            seen = np.arange(3, ROWS, dtype=np.int32)  # no crop of the first and the last
            for stage, noise, frames in (
                ("extract", 1.0, seen),
                ("sequence", 0.5, np.arange(1, ROWS + 1, dtype=np.int32)),
            ):
                values = draw_values(track, truth[video], rng, noise)[frames - 1]
                folder = context.folder(stage) / "predictions" / split
                save_prediction(folder, video, frames, values.astype(np.float32), track.classes)
        splits.append(Split(split, videos))
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    for name in ("prepare", "pretrain", "finetune", "extract", "sequence"):
        write_json(
            context.folder(name) / "results.json",
            {"track": track.name, "seconds": 1.0, "score": None},
        )
    example = workdir / "corpus" / config.corpus.test_example
    example.parent.mkdir(parents=True)
    lines = [f"{v}/{frame:05d}.jpg,0" for v in VIDEOS["test"] for frame in range(1, ROWS + 1)]
    example.write_text("\n".join([track.header, *lines]) + "\n")
    return context, truth


def read(context, name):
    return json.loads((context.folder("ensemble") / name).read_text())


@pytest.fixture(scope="module", params=["va", "au", "expr"])
def done(request, tmp_path_factory):
    """(context, truth, what the stage returned) of each kind of track, with all it can do."""
    section = {"va": {"match": True}}.get(request.param, {})
    context, truth = make_context(tmp_path_factory.mktemp(request.param), request.param, **section)
    return context, truth, ensemble.run(context)


def test_scores_of_every_step(done):
    context, _, outcome = done
    key, metrics = context.config.track, outcome["metrics"]
    step = {"va": ["_matched"], "au": ["_thresholds"], "expr": []}[key]
    steps = ["", "_smoothed", *step, "_cross_validated"]
    expected = [member + step for member in ("frames", "sequence") for step in steps]
    assert [k for k in metrics if k in SCORES] == expected
    final = f"sequence{step[0] if step else '_smoothed'}"
    assert outcome["score"] == metrics[final] == metrics[context.track.score_name]
    assert metrics["sequence"] <= metrics["sequence_smoothed"]
    if step:
        assert metrics["sequence_smoothed"] + 0.05 < metrics[final]
        assert metrics["sequence_smoothed"] + 0.05 < metrics["sequence_cross_validated"]
    assert 0 < metrics["sequence_cross_validated"] < 1
    assert 200 < outcome["samples"] < 300


def test_final_predictions_give_the_score(done, tmp_path, capsys):
    """As anyone would score them: the command, the files, and the thresholds that are stored."""
    context, _, outcome = done
    track = context.track
    index = ensemble.load_index(context.folder("prepare") / "records", "validation")
    for video, rows in ensemble.video_labels(index, track).items():
        lines = [",".join(map(str, row)) for row in rows.tolist()]
        (tmp_path / f"{video}.txt").write_text("\n".join(["header", *lines]))
    limits = []
    if track.thresholds is not None:
        found = read(context, "thresholds.json")["sequence"]
        assert list(found) == list(track.classes)
        limits = ["--thresholds=" + ",".join(repr(limit) for limit in found.values())]
    predictions = context.folder("ensemble") / "predictions" / "validation"
    command = ["score", f"--track={track.name}", f"--predictions={predictions}"]
    status = score.main([*command, f"--annotations={tmp_path}", "--json", *limits])
    assert not status
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["score"] == pytest.approx(outcome["score"], abs=1e-6)
    assert printed["split_hash"] == outcome["split_hash"]


def test_the_submission_holds_the_final_predictions_decided(done):
    context, truth, outcome = done
    track, folder = context.track, context.folder("ensemble")
    found = read_submission(folder / "submission.txt", track)
    final = load_predictions(folder / "predictions" / "test", track)
    limits = ()
    if track.thresholds is not None:
        limits = (list(read(context, "thresholds.json")["sequence"].values()),)
    for video in VIDEOS["test"]:
        frames, rows = found[video]
        assert frames.tolist() == list(range(1, ROWS + 1))
        expected = track.decode(final[video].values, *limits)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    statistics = sum(track.evaluate(found[v][1], truth[v]) for v in VIDEOS["test"])
    assert track.summary(statistics).score == pytest.approx(outcome["score"], abs=0.2)
    assert outcome["metrics"]["submission_lines"] == 2 * ROWS


def test_what_was_chosen_is_stored_by_member(done):
    context, _, _ = done
    decisions = ensemble.read_decisions(context)
    extra = {"va": {"matching"}, "au": {"thresholds"}, "expr": set()}[context.config.track]
    for name in ("frames", "sequence"):
        assert decisions[name].keys() == {"smoothing"} | extra
        Smoothing(**decisions[name]["smoothing"])
    if "matching" in extra:
        assert decisions["sequence"]["matching"]["scale"]["valence"] > 1.2  # they were too narrow
        assert decisions["frames"]["matching"] != decisions["sequence"]["matching"]
    if "thresholds" in extra:
        assert max(decisions["sequence"]["thresholds"].values()) < 0.5  # they were too low


def test_the_report_says_what_the_score_rests_on(done):
    context, _, outcome = done
    page = (context.folder("ensemble") / "report.html").read_text()
    assert f"{outcome['score']:.4f}" in page
    assert f"{outcome['metrics']['sequence_cross_validated']:.4f}" in page
    assert "sequence, cross-validated" in page
    assert 1 <= page.count(" over time</h2>") <= 2 and "Its labels change most often." in page
    assert f"labels scored begins with {outcome['split_hash'][:16]}." in page
    assert ("own threshold" in page) == (context.config.track == "au")
    assert ("Matched to the mean" in page) == (context.config.track == "va")


def test_without_choice_nothing_but_smoothing_is_done(tmp_path):
    """Matching is off, and no threshold is searched, where the config does not ask for it."""
    context, _ = make_context(tmp_path, "au", search_thresholds=False)
    outcome = ensemble.run(context)
    assert outcome["score"] == outcome["metrics"]["sequence_smoothed"]
    assert ensemble.read_decisions(context)["sequence"].keys() == {"smoothing"}
    assert not (context.folder("ensemble") / "thresholds.json").exists()


def test_videos_without_a_label_change_nothing(tmp_path, monkeypatch):
    expected = ensemble.run(make_context(tmp_path / "few", "va", match=True)[0])
    context, _ = make_context(tmp_path / "more", "va", match=True)
    original = ensemble.video_labels

    def with_one_more(index, track):
        """Of the validation set, a video without any label."""
        more = {"0": np.full((ROWS, 2), -5, np.float32)} if "3" in index.videos else {}
        return original(index, track) | more

    for stage in ("extract", "sequence"):
        folder = context.folder(stage) / "predictions" / "validation"
        (folder / "0.npz").write_bytes((folder / "3.npz").read_bytes())
    monkeypatch.setattr(ensemble, "video_labels", with_one_more)
    monkeypatch.setattr(ensemble, "_write_predictions", lambda *_: None)
    monkeypatch.setattr(ensemble, "_submit", lambda *_: {})
    found = ensemble.run(context)
    shared = {k: v for k, v in expected["metrics"].items() if not k.startswith("submission")}
    assert found["metrics"] == pytest.approx(shared, abs=1e-12)
    assert found["samples"] == expected["samples"]


def test_one_recording_has_no_score_out_of_fold(tmp_path, monkeypatch):
    monkeypatch.setitem(VIDEOS, "validation", ("5_left", "5_right"))
    context, _ = make_context(tmp_path, "au")
    outcome = ensemble.run(context)
    assert "sequence_thresholds" in outcome["metrics"]
    assert not [key for key in outcome["metrics"] if key.endswith("cross_validated")]
