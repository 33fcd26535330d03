"""The benchmarks run, and print a line that says what was measured; their figures mean nothing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ONCE = ("--repeats", "1")
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("name", "options", "case"),
    [
        (
            "mae_step.py",
            ("--sizes", "16px-16x1", "--steps", "1", "--threads", "1"),
            "mae-step-16px-16x1",
        ),
        (
            "sequence_step.py",
            ("--cases", "tiny", "--steps", "1", "--threads", "1"),
            "sequence-step-tiny",
        ),
        ("cnn_step.py", ("--cases", "tiny-1", "--steps", "1", "--threads", "1"), "cnn-tiny-1"),
        (
            "cnn_step.py",
            ("--cases", "tiny-train", "--steps", "1", "--threads", "1"),
            "cnn-tiny-train",
        ),
        pytest.param(
            "cnn_step.py",
            ("--cases", "tiny-1-onnx", "--steps", "1", "--threads", "1"),
            "cnn-tiny-1-onnx",
            marks=pytest.mark.onnx,
        ),
        (
            "sound_step.py",
            ("--cases", "tiny", "--steps", "1", "--threads", "1"),
            "sound-step-tiny",
        ),
        (
            "input.py",
            ("--cases", "eval", "--images", "16", "--batch-size", "8", "--threads", "1"),
            "input-eval-224",
        ),
        ("scoring.py", ("--tracks", "va", "--frames", "60"), "scoring-va-60"),
        ("scoring.py", ("--tracks", "au", "--frames", "60"), "scoring-au-60"),
        ("smoothing.py", ("--filters", "box", "--frames", "60000"), "smoothing-box25-60000x12"),
    ],
)
def test_a_benchmark_without_a_peer_prints_its_own_figure_and_why(
    quick, name, options, case, tmp_path
):
    nobody = tmp_path / "no-python"
    run = subprocess.run(
        [sys.executable, str(FOLDER / name), *options, *ONCE, "--peer-python", str(nobody)],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": quick},
    )
    assert run.returncode == 0, run.stderr
    (line,) = map(json.loads, run.stdout.splitlines())
    assert line["case"] == case and line["ours"] > 0
    assert line["peer"] is None and line["ratio"] is None and str(nobody) in line["reason"]


@pytest.mark.parametrize("name", ["box", "gaussian", "median"])
def test_smoothing_and_its_peer_come_to_the_same(name):
    options = ("--filters", name, "--frames", "60000", *ONCE)
    run = subprocess.run(
        [sys.executable, str(FOLDER / "smoothing.py"), *options], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    (line,) = map(json.loads, run.stdout.splitlines())
    assert line["ours"] > 0 and line["ratio"] > 0 and "reason" not in line
    assert 0.49 < line["result"] < 0.52 and "peer scipy" in line["versions"]
