"""The command that makes one table of finished runs, on made-up work directories."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from abaw_jax.data.records import IMAGE_SET, Index
from abaw_jax.evaluation.decision import Decision
from abaw_jax.evaluation.matching import Matching
from abaw_jax.evaluation.predictions import Prediction, save_prediction
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.files import write_json
from abaw_jax.recipe import STAGES
from abaw_jax.score import score_predictions
from abaw_jax.table import main
from abaw_jax.tracks import AU, EXPR, VA

VIDEOS, ROWS = ("1", "2_left", "2_right", "3"), 30
# Of the frames' predictions and of the final ones, by track.
DECISIONS = {
    "va": (Decision(Smoothing("box", 5), Matching((2.0, 2.0), (0.0, 0.1))), Decision(Smoothing())),
    "au": (
        Decision(Smoothing(), thresholds=(0.25,) * 12),
        Decision(Smoothing(), None, (0.4,) * 12),
    ),
    "expr": (Decision(Smoothing("median", 5)), Decision(Smoothing())),
}


def draw(track, seed, videos, noise):
    """(labels by video; single frames' predictions, the first frame unseen; final predictions)."""
    rng, labels, frames, final = np.random.default_rng(seed), {}, {}, {}
    numbers = np.arange(1, ROWS + 1, dtype=np.int32)
    for video in videos:
        rows = rng.uniform(-1, 1, (ROWS // 5, track.label_width)).astype(np.float32)
        if track.label_type == "int32":
            rows = ((rows + 1) * 4 if track is EXPR else rows > 0.3).astype(np.int32)
        labels[video] = np.repeat(rows, 5, axis=0)
        labels[video][7] = track.invalid
        values = track.encode(np.where(labels[video] == track.invalid, 0, labels[video]))
        for found, spread, first in ((frames, 1.0, 1), (final, noise, 0)):
            noisy = 0.5 * np.clip(values + spread * rng.normal(size=values.shape), 0, 1)
            found[video] = Prediction(numbers[first:], noisy[first:].astype(np.float32))
    return labels, frames, final


def score(predictions, labels, track, thresholds=None):
    return score_predictions(
        predictions, labels, track, gaps="linear", thresholds=thresholds
    ).summary.score


def make_run(folder, track, system="ctyun", seed=0, videos=VIDEOS, noise=0.5, **corpus):
    """A finished work directory; returns (labels, single frames' predictions, final ones)."""
    labels, frames, final = draw(track, seed, videos, noise)
    ends = ROWS * np.arange(len(videos) + 1)
    rows = {track.key: np.concatenate(list(labels.values()))}
    Index(tuple(videos), ends, np.tile(np.arange(ROWS) + 1, len(videos)), ends, rows).save(
        folder / "prepare/records/index-validation.npz"
    )
    write_json(folder / "prepare/records/summary.json", {"splits": {"validation": {}}})
    for stage, predictions in (("extract", frames), ("ensemble", final)):
        for video, found in predictions.items():
            place = folder / stage / "predictions" / "validation"
            save_prediction(place, video, found.frames, found.values, track.classes)
    records = [decision.record(track) for decision in DECISIONS[track.key]]
    for key in records[0]:
        of_members = {
            name: record.get(key)
            for name, record in zip(("frames", "sequence"), records, strict=True)
        }
        write_json(folder / "ensemble" / f"{key}.json", of_members)
    for stage in STAGES:
        write_json(folder / stage / "results.json", {})
    config = {"name": f"{track.key}-{system}", "track": track.key, "corpus": {"root": "", **corpus}}
    write_json(folder / "config.json", config)
    limits = DECISIONS[track.key][1].thresholds
    results = {
        "track": track.name, "system": system, "score": score(final, labels, track, limits),
        "metrics": {"sequence_cross_validated": 0.25}, "seconds": 90.0, "git": f"{'a' * 40}-dirty",
    }  # fmt: skip
    write_json(folder / "results.json", results)
    return labels, frames, final


def table(capsys, *arguments):
    """(lines of the table, the record, lines of standard error)."""
    assert main(["table", *map(str, arguments), "--resamples=50", "--json"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    return [line for line in lines if line.startswith("|")], json.loads(lines[-1]), err.splitlines()


@pytest.mark.parametrize("track", [VA, EXPR, AU], ids=lambda track: track.key)
def test_a_run_is_scored_as_the_scorer_does(track, tmp_path, capsys):
    labels, frames, final = make_run(tmp_path / "run", track)
    (_, _, line), record, _ = table(capsys, tmp_path / "run")
    (row,), (own, last) = record["rows"], DECISIONS[track.key]
    decided = {video: own.apply(found, ROWS, track) for video, found in frames.items()}
    expected = {
        "frames": score(frames, labels, track),
        "decided": score(decided, labels, track, own.thresholds),
        "final": score(final, labels, track, last.thresholds),
    }
    assert row["frames"] == pytest.approx(expected["frames"], abs=1e-12)
    assert row["decided"] == pytest.approx(expected["decided"], abs=1e-12)
    assert expected["frames"] != expected["decided"]
    for key, gain in (("final", 0), ("over_frames", "frames"), ("over_decided", "decided")):
        value = expected["final"] - (expected[gain] if gain else 0)
        assert row[key]["value"] == pytest.approx(value, abs=1e-12)
        assert row[key]["low"] <= row[key]["value"] <= row[key]["high"] > row[key]["low"]
    assert row["cross_validated"] == 0.25 and row["minutes"] == 1.5
    shown = f"{expected['final']:.3f}".removeprefix("0")
    assert f"| {shown} (" in line and line.endswith("| .250 | 1.5 | aaaaaaa-dirty |")


def test_nobody_reads_on(tmp_path, monkeypatch):
    make_run(tmp_path / "run", VA)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["table", "--resamples=2", str(tmp_path / "run")]) == 141


def test_runs_are_sorted_by_track_and_system(tmp_path, capsys):
    made = [("c", EXPR, "fuxi"), ("b", VA, "masked_vit"), ("a", EXPR, "ctyun"), ("d", VA, "ctyun")]
    for name, track, system in made:
        make_run(tmp_path / name, track, system, seed=2 if name == "c" else 0)
    folders = [tmp_path / name for name, _, _ in made]
    lines, record, errors = table(capsys, *folders, tmp_path / "a")
    assert [row["run"] for row in record["rows"]] == ["d", "b", "a", "c"]
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["d", "b", "a", "c"]
    assert errors == [] and record["left_out"] == {}


def test_an_ablation_stands_against_its_whole_system(tmp_path, capsys):
    names = {"a": "ctyun", "b": "ctyun-without_tcn", "c": "ctyun-without_tcn", "d": "masked_vit"}
    for name, system in names.items():
        # c has other labels.
        make_run(tmp_path / name, VA, system, seed=name == "c", noise=0.3 if name == "a" else 0.5)
        config = json.loads((tmp_path / name / "config.json").read_text())
        whole = "va-ctyun" if "without" in system else ""
        changed = {"whole": whole, "sequence": {"tcn": [] if whole else [8], "epochs": 2.0}}
        write_json(tmp_path / name / "config.json", config | changed)
    lines, record, _ = table(capsys, *(tmp_path / name for name in "abcd"))
    rows = {row["run"]: row for row in record["rows"]}
    assert [name for name, row in rows.items() if row["over_whole"]] == ["b"]
    assert rows["b"]["unlike_whole"] == ["sequence.tcn"] and rows["a"]["unlike_whole"] is None
    main(["table", "--resamples=2", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "b is unlike its whole system in sequence.tcn." in capsys.readouterr().out
    found, final = rows["b"]["over_whole"], {name: rows[name]["final"]["value"] for name in "ab"}
    assert found["value"] == pytest.approx(final["b"] - final["a"], abs=1e-12)
    assert found["low"] < found["value"] < found["high"] < 0
    assert lines[0].count("final - whole") == 1
    assert "final - whole" not in table(capsys, tmp_path / "b", tmp_path / "d")[0][0]


def test_where_frames_are_of_another_track_nothing_is_held_against_them(tmp_path, capsys):
    for name in "ab":
        make_run(tmp_path / name, VA)
    shutil.rmtree(tmp_path / "b" / "extract" / "predictions")
    for path in (tmp_path / "b" / "ensemble").glob("*.json"):
        found = json.loads(path.read_text())
        write_json(path, {name: record for name, record in found.items() if name != "frames"})
    lines, record, errors = table(capsys, tmp_path / "a", tmp_path / "b")
    whole, without = record["rows"]
    of_frames = ("frames", "decided", "over_frames", "over_decided")
    assert all(whole[key] and without[key] is None for key in of_frames) and not errors
    assert without["final"] == whole["final"]
    assert [cell.strip() for cell in lines[3].split("|")[4:6]] == ["", ""]


def test_runs_of_other_labels_are_told_apart(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_run(tmp_path / name, VA, seed=seed)
    main(["table", "--resamples=2", *(str(tmp_path / name) for name in "abc")])
    assert (
        "VA: not all are scored by the same labels, but apart: a, b; c." in capsys.readouterr().out
    )


def test_what_cannot_be_drawn_has_no_interval(tmp_path, capsys):
    make_run(tmp_path / "images", EXPR, videos=(IMAGE_SET,))
    make_run(tmp_path / "person", EXPR, persons="persons.csv")
    write_json(tmp_path / "person/prepare/persons.json", dict.fromkeys(VIDEOS, "one"))
    lines, record, _ = table(capsys, tmp_path / "images", tmp_path / "person")
    for row, line in zip(record["rows"], lines[2:], strict=True):
        for key in ("final", "over_frames", "over_decided"):
            assert row[key]["low"] is row[key]["high"] is None
        assert "(" not in line


def spoil(folder, what):
    """Make a finished run one that is none."""
    results = json.loads((folder / "results.json").read_text())
    if what == "foreign":
        (folder / "config.json").unlink()
    elif what == "another program's":
        write_json(folder / "config.json", {"track": ["a"]})
    elif what == "unfinished":
        (folder / "sequence/results.json").unlink()
    elif what == "no score":
        write_json(folder / "results.json", results | {"score": None})
    elif what == "another score":
        write_json(folder / "results.json", results | {"score": results["score"] + 0.01})
    elif what == "no labels":
        (folder / "prepare/records/summary.json").unlink()
    elif what == "damaged":
        (folder / "extract/predictions/validation/3.npz").write_bytes(b"x")
    elif what == "a video less":
        (folder / "extract/predictions/validation/3.npz").unlink()
    elif what == "no decision":
        (folder / "ensemble/smoothing.json").unlink()


SPOILT = {
    "foreign": "is no work directory of abaw_jax.main: it has no config.json",
    "another program's": "config.json: is no config of a recipe",
    "unfinished": "sequence is not finished",
    "no score": "results.json: has no score of a recipe",
    "another score": "and its results.json says",
    "no labels": "holds no finished records",
    "damaged": "3.npz: is no .npz of plain arrays",
    "a video less": "has no predictions of video 3",
    "no decision": "smoothing.json: cannot be read",
}


def test_what_is_no_finished_run_is_left_out_with_a_line(tmp_path, capsys):
    make_run(tmp_path / "whole", VA)
    for what in SPOILT:
        make_run(tmp_path / what, VA)
        spoil(tmp_path / what, what)
    folders = [tmp_path / "nowhere", *(tmp_path / what for what in SPOILT)]
    _, record, errors = table(capsys, *folders, tmp_path / "whole")
    assert [row["run"] for row in record["rows"]] == ["whole"] and len(errors) == len(folders)
    for folder, line in zip(folders, errors, strict=True):
        reason = record["left_out"][str(folder)]
        assert line == f"left out: {reason}" and reason.startswith(str(folder))
        assert SPOILT.get(folder.name, SPOILT["foreign"]) in reason
    assert main(["table", str(tmp_path / "nowhere")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("error: none of these 1 is a finished run")


def test_no_folder_is_refused(capsys):
    assert main(["table"]) == 2
    assert capsys.readouterr().err == "error: no work directory is named, as runs/*; see --help\n"
