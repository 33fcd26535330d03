"""The command that compares two sets of predictions."""

import json

import numpy as np
import pytest

from abaw_jax import score
from abaw_jax.compare import main
from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.tracks import AU, VA

VIDEOS = {"1_left": 30, "1_right": 30, "2": 40, "3": 25}


def make_case(root, track, errors):
    """Annotations of VIDEOS, and for each name in `errors` predictions that err by so much."""
    folder = root / f"{track.folder_prefix}_Challenge" / "Validation_Set"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for video, frames in VIDEOS.items():
        drawn = rng.uniform(-1, 1, (frames, track.label_width))
        labels = drawn.round(2) if track is VA else (drawn > 0.3).astype(int)
        rows = [",".join(map(str, row)) for row in labels.tolist()]
        (folder / f"{video}.txt").write_text("\n".join([",".join(track.classes), *rows]) + "\n")
        for name, error in errors.items():
            noisy = labels + error * rng.standard_normal(labels.shape)
            values = np.clip(noisy, *track.label_range).astype(np.float32)
            save_prediction(root / name, video, np.arange(1, frames + 1), values, track.classes)


def record(capsys, root, track, a, b, *options, run=main):
    sides = [f"--a={root / a}", f"--b={root / b}"] if run is main else [f"--predictions={root / a}"]
    arguments = [f"--track={track.name}", f"--annotations={root}", "--json", *sides, *options]
    assert run(["compare", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refusal(capsys, *arguments):
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def va(tmp_path_factory):
    root = tmp_path_factory.mktemp("va")
    make_case(root, VA, {"near": 0.1, "far": 0.8})
    return root


def test_the_better_is_told_from_the_worse(va, capsys):
    found = record(capsys, va, VA, "near", "far")
    alone = [record(capsys, va, VA, name, "", run=score.main) for name in ("near", "far")]
    scores = [figures["score"] for figures in alone]
    assert [found[side]["value"] for side in "ab"] == scores
    assert {figures["split_hash"] for figures in alone} == {found["split_hash"]}
    difference = found["difference"]
    assert difference["value"] == pytest.approx(scores[0] - scores[1], abs=1e-12)
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert (found["a_better"], found["b_better"]) == (1, 0)
    assert found["groups"] == 3 and found["frames"] == sum(VIDEOS.values())  # 1_left with 1_right
    assert {row["video"]: row["frames"] for row in found["videos"]} == VIDEOS
    gaps = [row["a"] - row["b"] for row in found["videos"]]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] > 0
    turned = record(capsys, va, VA, "far", "near")["difference"]
    assert turned["low"] == pytest.approx(-difference["high"], abs=1e-12)


def test_the_same_predictions_do_not_differ(va, capsys):
    found = record(capsys, va, VA, "far", "far")
    assert found["difference"] == {"value": 0, "low": 0, "high": 0}
    assert (found["a_better"], found["b_better"]) == (0, 0)


def test_persons_are_drawn_whole(va, capsys, tmp_path):
    persons = tmp_path / "persons.csv"
    persons.write_text("video,person\n1_left,p\n1_right,q\n2,p\n3,r\n")
    assert record(capsys, va, VA, "near", "far", f"--persons={persons}")["groups"] == 2


def test_thresholds_decide_both(tmp_path, capsys):
    make_case(tmp_path, AU, {"near": 0.2, "far": 0.6})
    plain = record(capsys, tmp_path, AU, "near", "far")
    found = record(capsys, tmp_path, AU, "near", "far", "--thresholds=0.9")
    for side, name in (("a", "near"), ("b", "far")):
        alone = record(capsys, tmp_path, AU, name, "", "--thresholds=0.9", run=score.main)
        assert found[side]["value"] == alone["score"] != plain[side]["value"]


def test_refusals(va, capsys, tmp_path):
    known = ["--track=VA", f"--annotations={va}", f"--a={va / 'near'}"]
    assert "--b is missing" in refusal(capsys, *known)
    assert "unexpected argument 'x'" in refusal(capsys, *known, f"--b={va / 'far'}", "x")
    save_prediction(tmp_path, "2", np.array([1]), np.zeros((1, 2), np.float32), VA.classes)
    assert str(tmp_path) in refusal(capsys, *known, f"--b={tmp_path}")
