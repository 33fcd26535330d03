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
    assert record["divergence"][record["rule"]] == min(record["divergence"].values())
    found = load_predictions(output, CE)
    assert list(found) == ["01", "02"]
    decoded = CE.decode(found["01"].values)[:, 0]
    assert np.bincount(decoded).tolist() == [6] * 7


def test_a_rule_by_name(expressions, tmp_path, capsys):
    arguments = ("--predictions", expressions, "--output", tmp_path / "ce", "--rule=product")
    assert run(*arguments) == 0
    assert "product: 2 videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=x"], "--predictions is missing"),
        (["--predictions=absent", "--output=x"], "absent: cannot be read"),
        (["--predictions=EXPR", "--output=x", "--prior=a"], "expected 7 numbers"),
        (["--predictions=EXPR", "--output=x", "--prior=1,2"], "expected 7 numbers above 0"),
        (["--predictions=EXPR", "--output=x", "--rule=vote"], "sum|product|cluster"),
        (["--predictions=EXPR", "--output=EXPR", "more"], "unexpected argument 'more'"),
        (["--predictions=EXPR", "--output=OTHER"], "holds 99.npz, of another run"),
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
