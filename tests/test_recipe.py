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


def command(workdir, *flags, config="tiny", track="expr"):
    return [
        sys.executable,
        "-m",
        "abaw_jax.main",
        f"--config={ROOT}/configs/{track}.py:{config}",
        f"--workdir={workdir}",
        *flags,
    ]


def run(workdir, *flags, **options):
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        command(workdir, *flags, **options),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of the smallest recipe, shared by the tests that only look at it."""
    workdir = tmp_path_factory.mktemp("recipe") / "run"
    finished = run(workdir, "--json", *SMALL)
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


def test_again_is_skipped_with_the_same_numbers(whole):
    workdir, _ = whole
    before = (workdir / "results.json").read_text()
    again = run(workdir, *SMALL)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before, skipped") == len(STAGES)
    assert (workdir / "results.json").read_text() == before


def test_a_changed_config_is_refused_by_key(whole):
    workdir, _ = whole
    changed = run(workdir, "--config.pretrain.epochs=0.5", "--config.sequence.epochs=3.0")
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
def test_other_tracks_run_whole(tmp_path, key):
    track, workdir = TRACKS[key], tmp_path / "run"
    short = ["--config.pretrain.epochs=0.0", "--config.sequence.epochs=1.0"]
    finished = run(workdir, *short, "--config.export.stablehlo=false", track=key)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["track"] == track.name and results["classes"] == list(track.classes)
    assert -1 < results["score"] < 1 and results["score"] == results["metrics"][track.score_name]
    assert "sequence, cross-validated" in finished.stdout
    assert list(results["stages"]) == list(STAGES)
    example = next((workdir / "prepare" / "demo" / "test_set_examples").glob(f"*_{track.name}_*"))
    checked = check_submission(workdir / "ensemble" / "submission.txt", example, track)
    assert checked["lines"] == results["metrics"]["submission_lines"]


def test_killed_anywhere_ends_with_the_same_score(whole, tmp_path):
    """kill -9 soon after each stage has begun, then the same command."""
    workdir, _ = whole
    expected = json.loads((workdir / "results.json").read_text())
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    for name in STAGES:
        log = tmp_path / f"{name}.log"
        with (
            open(log, "w") as output,
            subprocess.Popen(
                command(tmp_path, *SMALL), cwd=ROOT, env=environment, stdout=output, stderr=output
            ) as process,
        ):
            deadline = time.monotonic() + 120
            while not (tmp_path / name / "stage.json").exists():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert not (tmp_path / name / "results.json").exists()
    finished = run(tmp_path, *SMALL)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    for key in ("score", "metrics", "config_hash"):
        assert results[key] == expected[key]


BAD_FLAGS = {
    "epochs": "--config.finetune.epoch=3",
    "config.finetune.epochs": "--config.finetune.epochs=many",
    "exprs": "--config.track=exprs",
    "prepair": "--stages=prepair",
    "worksdir": "--worksdir=x",
    "mesh": "--config.mesh.data=3",
    "/no/such/folder": "--config.corpus.root=/no/such/folder",
    "config.corpus.root": "--config.corpus.demo_size=",
    "finetune": "--stages=export",
}
# Each command in a child of one process, which has imported what takes most of a command's time.
RUN_EACH = """
import json, os, sys
from absl import app
from abaw_jax import main
for number, command in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        os.dup2(os.open(str(number), os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        sys.argv = command
        app.run(main.main, flags_parser=main.parse)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What each of BAD_FLAGS ends with: named -> (exit status, standard error)."""
    folder = tmp_path_factory.mktemp("refusals")
    commands = [command(folder / f"run{i}", f)[2:] for i, f in enumerate(BAD_FLAGS.values())]
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    errors = [(folder / str(number)).read_text() for number in range(len(BAD_FLAGS))]
    found = zip(map(int, done.stdout.split()), errors, strict=True)
    return dict(zip(BAD_FLAGS, found, strict=True))


@pytest.mark.parametrize("named", BAD_FLAGS)
def test_bad_flags_are_one_line(refusals, named):
    status, text = refusals[named]
    assert status == 2
    error = text.splitlines()[-1]
    assert error.startswith("error: ") and named in error
    assert "Traceback" not in text


def test_a_work_directory_serves_one_run_at_a_time(tmp_path):
    with recipe._locked(tmp_path), pytest.raises(InputError, match="another run uses it"):
        recipe._locked(tmp_path).__enter__()


def test_an_unwritable_work_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run: cannot be written .*--workdir"):
        recipe._locked(tmp_path / "file" / "run").__enter__()


def test_mesh_covers_all_devices():
    assert dict(make_mesh((-1, 2, 1)).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
