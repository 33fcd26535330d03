"""The launchers, with an interpreter that writes down what it is asked to run."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from configs import base

ROOT = pathlib.Path(__file__).parents[1]
# What is read from standard input is run, modules are noted.
STAND_IN = f"""#!/usr/bin/env bash
if [ "$1" = - ]; then exec {sys.executable} "$@"; fi
echo "$@" >> "$(dirname "$0")/asked"
"""


@pytest.fixture
def launch(tmp_path):
    """(arguments) -> (finished process, what was asked of Python, a line a call)."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def run(*arguments):
        finished = subprocess.run(
            [ROOT / "launch" / "demo.sh", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(python)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        asked = tmp_path / "asked"
        return finished, asked.read_text().splitlines() if asked.exists() else []

    return run


def make_stages(run, *stages):
    for stage in stages:
        (run / stage / "model").mkdir(parents=True)
        (run / stage / "results.json").write_text(str(run))


def test_all_systems_run_on_all_their_tracks_and_are_tabulated(launch, tmp_path):
    finished, asked = launch()
    assert finished.returncode == 0, finished.stderr
    *mains, table = asked
    pairs = {(key, system) for system, keys in base.SYSTEMS.items() for key in keys}
    assert len(mains) == len(pairs)
    for key, system in pairs:
        name = f"{key}-demo" if system == "mae_transformer" else f"{key}-{system}-demo"
        assert (
            f"-m abaw_jax.main --config=configs/{key}.py:{system},demo "
            f"--workdir={tmp_path}/runs/{name}"
        ) in mains
        assert f" {tmp_path}/runs/{name}" in table
    assert table.startswith("-m abaw_jax.table ") and table.count("/runs/") == len(pairs)


def test_a_run_begins_with_the_stages_of_one_that_may_share_them(launch, tmp_path):
    runs = tmp_path / "elsewhere"
    make_stages(runs / "va-demo", "prepare", "pretrain", "finetune")
    make_stages(runs / "va-ctyun-demo", "prepare")
    (runs / "va-ctyun-demo" / "results.json").write_text("{}")
    make_stages(runs / "va-fuxi-demo", "prepare", "pretrain", "finetune", "extract", "sequence")
    (runs / "va-fuxi-demo" / "pretrain" / "results.json").unlink()
    configs = ["va:masked_vit,demo", "va:ctyun,demo", "va:fuxi,demo,without_sound"]
    finished, asked = launch(str(runs), *configs)
    assert finished.returncode == 0, finished.stderr
    assert len(asked) == len(configs) + 1
    # Copies alone are made again; one that went on is finished now.
    assert ["--redo" in line for line in asked] == [True, False, True, False]
    assert not list(runs.glob("*/.shared"))

    def stages(name):
        made = [path for path in (runs / name).iterdir() if path.is_dir()]
        return {path.name: (path / "results.json").read_text() for path in made}

    whole = ["prepare", "pretrain", "finetune"]
    assert stages("va-masked_vit-demo") == dict.fromkeys(whole, str(runs / "va-demo"))
    # One that had begun is left as it was.
    assert list(stages("va-ctyun-demo")) == ["prepare"]
    # Of its whole system, as far as that is finished.
    taken = {"prepare": str(runs / "va-fuxi-demo")}
    assert stages("va-fuxi-demo-without_sound") == taken


def test_flags_after_two_dashes_go_to_every_run(launch, tmp_path):
    finished, asked = launch("runs", "expr:faces", "expr:ctyun,faces", "--", "--config.seed=1")
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "--").exists()
    *mains, table = asked
    assert len(mains) == 2 and all(line.endswith(" --config.seed=1") for line in mains)
    assert table == f"-m abaw_jax.table {tmp_path}/runs/expr-faces {tmp_path}/runs/expr-ctyun-faces"


@pytest.mark.parametrize("word", ["--help", "va:ctyun,tiny"])
def test_a_first_word_that_is_no_folder_is_refused(launch, tmp_path, word):
    finished, asked = launch(word)
    assert finished.returncode == 2 and asked == [] and not (tmp_path / word).exists()
    assert finished.stderr.startswith(f"error: {word} is no folder for the runs; launch/demo.sh [")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("fer:demo", "fer:demo: 'fer' is no track"),
        ("base:tiny", "base:tiny: 'base' is no track"),
        ("va:ctyun,dmo", "configs/va.py:ctyun,dmo: 'dmo' is neither"),
    ],
)
def test_a_config_that_there_is_not_is_one_line(launch, config, message):
    finished, asked = launch("runs", config)
    assert finished.returncode != 0 and asked == []
    assert finished.stderr.startswith(f"error: {message}") and finished.stderr.count("\n") == 1
