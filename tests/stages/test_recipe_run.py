"""What the recipe skips, refuses, makes again and counts as finished: stages that only count."""

import json
import types

import pytest

from abaw_jax import recipe
from abaw_jax.errors import InputError
from abaw_jax.recipe import STAGES
from abaw_jax.training.partition import make_mesh
from configs import expr

SCORE = {"ensemble": 0.5}


class Killed(BaseException):
    """Stands for kill -9: nothing of the run goes on."""


@pytest.fixture
def stages(monkeypatch):
    """Stages that write one file each. ran: their names in order. fail: name -> what it raises."""
    fake = types.SimpleNamespace(ran=[], fail={}, corpus="as it was", refused=None)

    def make(name):
        def run(context):
            folder = context.folder(name)
            fake.ran.append(name)
            if name in fake.fail:
                raise fake.fail[name]
            leftovers = [p.name for p in folder.iterdir() if p.name != "stage.json"]
            assert set(leftovers) <= {"half"}, "files of another config were taken up"
            (folder / "half").write_text("")
            if f"{name} half" in fake.fail:
                raise fake.fail[f"{name} half"]
            return {"score": SCORE.get(name), "split": "validation", "samples": 1}

        found = {"prepare": lambda context: {"root": fake.corpus}}

        def check_prepared(context):
            assert (context.folder("prepare") / "results.json").exists()
            if fake.refused:
                raise fake.refused

        return types.SimpleNamespace(
            run=run, FOUND=found, check_config=lambda *_: None, check_prepared=check_prepared
        )

    monkeypatch.setattr(recipe, "_module", make)
    return fake


def config(**sections):
    made = expr.get_config("tiny").unlock()
    for name, values in sections.items():
        made[name].update(values)
    return made


def run(workdir, made=None, **options):
    return recipe.run(made or config(), workdir, make_mesh(), **options)


def test_runs_in_order_then_skips(tmp_path, stages):
    first = run(tmp_path)
    assert stages.ran == list(STAGES)
    assert first["score"] == 0.5 and list(first["stages"]) == list(STAGES)
    assert run(tmp_path) == first
    assert stages.ran == list(STAGES)
    assert json.loads((tmp_path / "results.json").read_text()) == first


def test_a_refused_config_leaves_everything(tmp_path, stages):
    run(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    with pytest.raises(InputError, match=r"config.finetune.epochs: 1.0 -> 3.0.*--redo"):
        run(tmp_path, config(finetune={"epochs": 3.0}))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.json")} == before


def test_what_the_prepared_data_refuse_is_said_before_training(tmp_path, stages):
    stages.refused = InputError("no such video")
    with pytest.raises(InputError, match="no such video"):
        run(tmp_path)
    assert stages.ran == ["prepare"] and not (tmp_path / "pretrain").exists()


def test_redo_makes_the_stage_and_those_after_it(tmp_path, stages):
    first = run(tmp_path)
    stages.ran.clear()
    changed = config(finetune={"epochs": 3.0})
    second = run(tmp_path, changed, redo=True)
    assert stages.ran == ["finetune", "extract", "sequence", "ensemble", "export"]
    assert second["config_hash"] != first["config_hash"]
    assert json.loads((tmp_path / "config.json").read_text())["finetune"]["epochs"] == 3.0
    assert not list(tmp_path.glob(".*discarded"))


def test_a_corpus_that_changed_is_refused(tmp_path, stages):
    run(tmp_path)
    stages.corpus = "with another label"
    with pytest.raises(InputError, match=r"inputs.root: 'as it was' -> 'with another label'"):
        run(tmp_path)
    assert run(tmp_path, stages=["export"])["score"] == 0.5  # which does not look at it


def test_an_interrupted_stage_goes_on(tmp_path, stages):
    stages.fail = {"extract half": Killed()}
    with pytest.raises(Killed):
        run(tmp_path)
    assert (tmp_path / "extract" / "half").exists()
    stages.fail = {}
    stages.ran.clear()
    assert run(tmp_path)["score"] == 0.5
    assert stages.ran == ["extract", "sequence", "ensemble", "export"]


def test_a_kill_while_a_stage_is_discarded_leaves_nothing_to_take_up(tmp_path, stages, monkeypatch):
    run(tmp_path)
    real = recipe.shutil.rmtree

    def killed(path, **options):
        if path.exists():
            (path / "stage.json").unlink()  # the worst order: the record goes first
            raise Killed
        real(path, **options)

    changed = config(sequence={"epochs": 9.0})
    with monkeypatch.context() as patch:
        patch.setattr(recipe.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            run(tmp_path, changed, redo=True)
    stages.ran.clear()
    assert run(tmp_path, changed, redo=True)["score"] == 0.5
    assert stages.ran[0] == "sequence"
    assert not list(tmp_path.glob(".*discarded"))


def test_bad_input_before_anything_is_made_is_no_change(tmp_path, stages):
    stages.fail = {"prepare": InputError("no such folder")}
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path, config(corpus={"max_unmatched": 1}))
    stages.fail = {}
    assert run(tmp_path)["score"] == 0.5


def test_bad_input_after_something_was_made_is_a_change(tmp_path, stages):
    stages.fail = {"prepare half": InputError("a damaged image")}
    with pytest.raises(InputError, match="a damaged image"):
        run(tmp_path, config(corpus={"max_unmatched": 1}))
    stages.fail = {}
    with pytest.raises(InputError, match="--redo"):
        run(tmp_path)
    assert run(tmp_path, redo=True)["score"] == 0.5


def test_a_stage_needs_those_before_it_with_this_config(tmp_path, stages):
    with pytest.raises(InputError, match=r"extract needs prepare, .*run prepare first"):
        run(tmp_path, stages=["extract"])
    run(tmp_path)
    changed = config(finetune={"epochs": 3.0})
    with pytest.raises(InputError, match=r"extract needs finetune, .*run finetune first"):
        run(tmp_path, changed, stages=["extract"], redo=True)


def test_results_hold_no_score_of_another_config(tmp_path, stages):
    run(tmp_path)
    changed = config(finetune={"epochs": 3.0})
    results = run(tmp_path, changed, stages=["finetune"], redo=True)
    assert list(results["stages"]) == ["prepare", "pretrain", "finetune"]
    assert results["score"] is None
    results = run(tmp_path, changed, redo=True)
    assert results["score"] == 0.5


def test_a_config_without_a_section_is_refused():
    made = config()
    del made["extract"]
    with pytest.raises(InputError, match="config: has no extract; configs/base.py"):
        recipe.check_sections(made)
    recipe.check_sections(config())


def test_unknown_stages_and_tracks_are_named(tmp_path, stages):
    with pytest.raises(
        InputError, match=r"--stages: 'prepair' is not a stage; .* mean 'prepare'\?"
    ):
        run(tmp_path, stages=["prepair"])
    made = config()
    made.track = "exprs"
    with pytest.raises(InputError, match=r"config.track: 'exprs' is not a track; .* mean 'expr'\?"):
        run(tmp_path, made)
    assert not list(tmp_path.iterdir())


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert recipe._git_commit() is None


def test_commit_is_whole():
    commit = recipe._git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
