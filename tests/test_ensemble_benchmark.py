"""The ensemble's benchmark runs and says what was measured; its figures mean nothing here."""

import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "benchmarks" / "ensemble.py"


def test_it_prints_one_line_a_track():
    options = ("--tracks", "expr", "--members", "2", "--frames", "700", "--evaluations", "5")
    run = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (line,) = map(json.loads, run.stdout.splitlines())
    assert line["case"] == "ensemble-expr-2x700" and line["unit"] == "s"
    assert all(line[name] > 0 for name in ("ours", "seconds_cross_validated", "peer"))
    assert line["average"] <= line["score"] <= 1
