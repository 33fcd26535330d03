"""The command that makes predictions of CE from predictions of EXPR."""

import json

import numpy as np
import pytest
from evaluation.blended_faces import blends

from abaw_jax import compound
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.tracks import CE, EXPR


@pytest.fixture
def expressions(tmp_path):
    labels, values = blends()
    frames = np.arange(1, len(labels) + 1)
    for video in ("01", "02"):
        save_prediction(tmp_path / "expr", video, frames, values, EXPR.classes)
    return tmp_path / "expr"


def run(*arguments):
    return compound.main(["compound", *map(str, arguments)])


def test_takes_the_rule_nearest_to_the_prior(expressions, tmp_path, capsys):
    output = tmp_path / "ce"
    even = "--prior=1,1,1,1,1,1,1"
    assert run("--predictions", expressions, "--output", output, even, "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["divergence"][record["chosen"]] == min(record["divergence"].values())
    found = load_predictions(output, CE)
    assert list(found) == ["01", "02"]
    decoded = CE.decode(found["01"].values)[:, 0]
    assert np.bincount(decoded).tolist() == [6] * 7


def test_a_rule_by_name(expressions, tmp_path, capsys):
    arguments = ("--predictions", expressions, "--output", tmp_path / "ce", "--rule=product")
    assert run(*arguments) == 0
    assert "product: 2 videos" in capsys.readouterr().out


def save_classes(folder, labels, videos=("01", "02")):
    """Predictions of these classes, one a frame from 1."""
    values = np.eye(7, dtype=np.float32)[labels]
    for video in videos:
        save_prediction(folder, video, np.arange(1, len(labels) + 1), values, CE.classes)


# Shares of the classes as the prior has them, and as it does not.
PRIOR, LIKE, UNLIKE = "--prior=4,1,1,1,1,1,1", [0, 0, 0, 0, 1, 2, 3, 4, 5, 6], [0, 0] + [6] * 8


def test_candidates_from_elsewhere_enter_the_choice(expressions, tmp_path, capsys):
    save_classes(tmp_path / "head", LIKE)
    save_classes(tmp_path / "other", UNLIKE, videos=("02", "03"))
    found = ("--candidates", f"head={tmp_path / 'head'}", f"other={tmp_path / 'other'}")
    arguments = ("--predictions", expressions, *found, PRIOR, "--json")
    assert run(*arguments, "--output", tmp_path / "ce") == 0
    *table, line = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    names = ["sum", "mean", "product", "cluster", "head", "other"]
    assert list(record["divergence"]) == names == [row.split()[0] for row in table[1:7]]
    assert record["chosen"] == "head" and record["divergence"]["head"] == pytest.approx(0)
    assert record["compared"] == {"videos": 1, "frames": 10}  # 02, as far as all have it
    assert record["frames"] == {**dict.fromkeys(names[:4], 84), "head": 20, "other": 20}
    written = load_predictions(tmp_path / "ce", CE)
    assert list(written) == ["01", "02"]
    assert CE.decode(written["01"].values)[:, 0].tolist() == LIKE
    assert run(*arguments, "--output", tmp_path / "by_rule", "--rule=mean") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["chosen"] == "mean"
    written = load_predictions(tmp_path / "by_rule", CE)
    assert [len(found.frames) for found in written.values()] == [42, 42]


def test_candidates_alone_and_merged(tmp_path, capsys):
    save_classes(tmp_path / "a", UNLIKE)
    save_classes(tmp_path / "b", LIKE, videos=("01_left", "01_right"))
    found = ("--candidates", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert run(*found, PRIOR, "--output", tmp_path / "ce") == 2
    assert "candidate b: has no frame in common with a" in capsys.readouterr().err
    assert run(*found, PRIOR, "--merge", "--output", tmp_path / "ce") == 0
    assert "\nb: 1 videos in" in capsys.readouterr().out
    assert list(load_predictions(tmp_path / "ce", CE)) == ["01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=x"], "--predictions is missing"),
        (["--predictions=absent", "--output=x"], "absent: cannot be read"),
        (["--predictions=EXPR", "--output=x", "--prior=a"], "expected 7 numbers"),
        (["--predictions=EXPR", "--output=x", "--prior=1,2"], "expected 7 numbers above 0"),
        (["--predictions=EXPR", "--output=x", "--rule=vote"], "sum|mean|product|cluster"),
        (["--predictions=EXPR", "--output=EXPR", "more"], "unexpected argument 'more'"),
        (["--predictions=EXPR", "--output=OTHER"], "holds 99.npz, of another run"),
        (["--predictions=EXPR", "--output=EXPR"], "is read from; name another folder"),
        (["--candidates", "a=OTHER", "--output=OTHER"], "is read from; name another folder"),
        (["--candidates", "a=OTHER", "--output=x", "--rule=sum"], "--predictions is missing"),
        (["--candidates", "OTHER", "--output=x"], "expected NAME=DIR"),
        (["--candidates", "a=OTHER", "a=EXPR", "--output=x"], "a is given twice"),
        (["--candidates", "mean=OTHER", "--output=x"], "mean is the name of a rule"),
        (["--candidates", "a=EXPR", "--output=x"], "CE has"),
        (
            ["--predictions=EXPR", "--candidates", "a=OTHER", "--output=x"],
            "candidate a: has no frame in common with sum, mean, product, cluster;",
        ),
        (["--predictions=EXPR", "a=OTHER", "--output=x"], "unexpected argument"),
    ],
)
def test_refusals(expressions, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    save_prediction(tmp_path / "other", "99", [1], np.full((1, 7), 1 / 7), CE.classes)
    given = [a.replace("EXPR", str(expressions)).replace("OTHER", "other") for a in arguments]
    assert run(*given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()
