"""The recipe: order, skipping, refusing changes, and the whole chain on the smallest corpus."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from abaw_jax import recipe, score
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.evaluation.submission import check_submission
from abaw_jax.recipe import STAGES
from abaw_jax.tracks import EXPR, TRACKS
from abaw_jax.training.partition import make_mesh

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ["--config.pretrain.epochs=0.5", "--config.sequence.epochs=2.0"]


# Runs commands, one after another, each in a child: importing takes most of a short one's time.
RUN_EACH = """
import json, os, signal, sys
from absl import app
from abaw_jax import main
for line in sys.stdin:
    arguments, environment = json.loads(line)
    if not (child := os.fork()):
        signal.alarm(1200)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ |= environment
        sys.argv = ["main", *arguments]
        app.run(main.main, flags_parser=main.parse)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
ENVIRONMENT = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def arguments(workdir, *flags, track="expr"):
    return [f"--config={ROOT}/configs/{track}.py:tiny", f"--workdir={workdir}", *flags]


class Commands:
    """Children of one process, one at a time, with `folder` as their working directory."""

    def __init__(self, folder):
        self.folder = folder
        self.parent = subprocess.Popen(
            [sys.executable, "-c", RUN_EACH], cwd=folder, env=ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self, workdir, *flags, track="expr", environment=None) -> int:
        """The process id."""
        order = [arguments(workdir, *flags, track=track), environment or {}]
        print(json.dumps(order), file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def end(self) -> subprocess.CompletedProcess:
        """Of the one that was started: when it has ended."""
        status = int(self.parent.stdout.readline())
        texts = [(self.folder / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess((), status, *texts)

    def run(self, *order, **options) -> subprocess.CompletedProcess:
        self.start(*order, **options)
        return self.end()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    made = Commands(tmp_path_factory.mktemp("commands"))
    with made.parent:
        yield made
        made.parent.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of the smallest recipe, shared by the tests that only look at it."""
    workdir = tmp_path_factory.mktemp("recipe") / "run"
    finished = subprocess.run(
        [sys.executable, "-m", "abaw_jax.main", *arguments(workdir, "--json", *SMALL)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert finished.returncode == 0, finished.stderr
    return workdir, finished


def test_all_stages_finish(whole):
    workdir, finished = whole
    results = json.loads((workdir / "results.json").read_text())
    assert json.loads(finished.stdout.splitlines()[-1]) == results
    for name in STAGES:
        stage = json.loads((workdir / name / "results.json").read_text())
        assert stage["track"] == "EXPR" and stage["seconds"] >= 0
        assert results["stages"][name]["score"] == stage["score"]
    assert 0 < results["score"] < 1
    assert results["score"] == results["metrics"]["sequence_smoothed"]
    assert results["classes"] == list(EXPR.classes)
    assert (workdir / "ensemble" / "report.html").stat().st_size > 5000


def test_again_is_skipped_with_the_same_numbers(whole, commands):
    workdir, _ = whole
    before = (workdir / "results.json").read_text()
    again = commands.run(workdir, *SMALL)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before, skipped") == len(STAGES)
    assert (workdir / "results.json").read_text() == before


def test_a_changed_config_is_refused_by_key(whole, commands):
    workdir, _ = whole
    changed = commands.run(workdir, "--config.pretrain.epochs=0.5", "--config.sequence.epochs=3.0")
    assert changed.returncode == 2
    assert changed.stderr.splitlines()[-1].startswith("error: ")
    assert "config.sequence.epochs: 2.0 -> 3.0" in changed.stderr
    assert "--redo" in changed.stderr and "Traceback" not in changed.stderr


def test_score_command_agrees(whole, capsys):
    workdir, _ = whole
    status = score.main(
        [
            "score",
            "--track=EXPR",
            f"--predictions={workdir}/ensemble/predictions/validation",
            f"--annotations={workdir}/prepare/demo/6th ABAW Annotations",
            "--split=Validation_Set",
            "--json",
        ]
    )
    assert not status
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    results = json.loads((workdir / "results.json").read_text())
    assert printed["score"] == pytest.approx(results["score"], abs=1e-12)


def test_predictions_and_submission_are_complete(whole):
    workdir, _ = whole
    demo = workdir / "prepare" / "demo"
    example = next((demo / "test_set_examples").glob("*Expr*"))
    checked = check_submission(workdir / "ensemble" / "submission.txt", example, EXPR)
    assert checked["lines"] == len(example.read_text().splitlines()) - 1
    for split in ("train", "validation", "test"):
        for prediction in load_predictions(
            workdir / "ensemble" / "predictions" / split, EXPR
        ).values():
            # Medians are taken of each class by itself: rows sum to about 1.
            assert (prediction.values >= 0).all() and (prediction.values <= 1).all()
            assert (np.diff(prediction.frames) == 1).all()


def test_exports_say_the_same(whole):
    workdir, _ = whole
    parity = json.loads((workdir / "export" / "parity.json").read_text())
    assert {"frames_archive_difference", "sequence_program_difference"} < parity.keys()
    assert max(v for k, v in parity.items() if k.endswith("difference")) <= 1e-5
    config = json.loads((workdir / "export" / "sequence" / "config.json").read_text())
    assert config["classes"] == list(EXPR.classes)
    assert {"crop", "smoothing", "features"} < config.keys()


@pytest.mark.parametrize("key", ["va", "au"])
def test_other_tracks_run_whole(commands, quick, tmp_path, key):
    track, workdir = TRACKS[key], tmp_path / "run"
    short = ["--config.pretrain.epochs=0.0", "--config.sequence.epochs=1.0"]
    short += ["--config.encoder.depth=1", "--config.export.stablehlo=false"]
    finished = commands.run(workdir, *short, track=key, environment={"XLA_FLAGS": quick})
    assert finished.returncode == 0, finished.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["track"] == track.name and results["classes"] == list(track.classes)
    assert -1 < results["score"] < 1 and results["score"] == results["metrics"][track.score_name]
    assert "sequence, cross-validated" in finished.stdout
    assert list(results["stages"]) == list(STAGES)
    example = next((workdir / "prepare" / "demo" / "test_set_examples").glob(f"*_{track.name}_*"))
    checked = check_submission(workdir / "ensemble" / "submission.txt", example, track)
    assert checked["lines"] == results["metrics"]["submission_lines"]


def test_killed_anywhere_ends_with_the_same_score(whole, commands, tmp_path):
    """kill -9 soon after each stage has begun, then the same command."""
    workdir, _ = whole
    expected = json.loads((workdir / "results.json").read_text())
    for name in STAGES:
        process = commands.start(tmp_path, *SMALL)
        while not (tmp_path / name / "stage.json").exists():
            os.kill(process, 0)  # fails where it has ended
            time.sleep(0.02)
        os.kill(process, signal.SIGKILL)
        assert commands.end().returncode == -signal.SIGKILL
        assert not (tmp_path / name / "results.json").exists()
    finished = commands.run(tmp_path, *SMALL)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    for key in ("score", "metrics", "config_hash"):
        assert results[key] == expected[key]


BAD_FLAGS = {
    "epochs": "--config.finetune.epoch=3",
    "config.finetune.epochs": "--config.finetune.epochs=many",
    "config.finetune: 'epoch' is not a key of it; known": "--config.finetune.epoch=3",
    "config.seed: is 0, which holds no 'x'": "--config.seed.x=3",
    "--config.extract.stores=\"{'mine': ...}\"": "--config.extract.stores.mine=DIR",
    "config.track": "--config.track=va",
    "config.system": "--config.system=fuxi",
    "prepair": "--stages=prepair",
    "worksdir": "--worksdir=x",
    "mesh": "--config.mesh.data=3",
    "/no/such/folder": "--config.corpus.root=/no/such/folder",
    "config.corpus.root": "--config.corpus.demo_size=",
    "finetune": "--stages=export",
}


@pytest.mark.parametrize("named", BAD_FLAGS)
def test_bad_flags_are_one_line(commands, tmp_path, named):
    ended = commands.run(tmp_path / "run", BAD_FLAGS[named])
    assert ended.returncode == 2
    error = ended.stderr.splitlines()[-1]
    assert error.startswith("error: ") and named in error
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_work_directory_serves_one_run_at_a_time(tmp_path):
    with recipe._locked(tmp_path), pytest.raises(InputError, match="another run uses it"):
        recipe._locked(tmp_path).__enter__()


def test_an_unwritable_work_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run: cannot be written .*--workdir"):
        recipe._locked(tmp_path / "file" / "run").__enter__()


def test_mesh_covers_all_devices():
    assert dict(make_mesh((-1, 2, 1)).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
