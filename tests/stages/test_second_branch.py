"""A second branch in the stage `sequence`: trained after the first, exported with it, taken up."""

import jax
import ml_collections
import numpy as np
import pytest
from test_sequence_members import VIDEOS, make_context, with_section

from abaw_jax.data.features import FeatureStore
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import make_task
from abaw_jax.stages import export, report, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.parts import make_sequence_task
from abaw_jax.training.partition import make_mesh
from configs import emi, expr

COLLABORATE = {"epochs": 3.0, "hard": 0.3, "share": 0.6}


def make(workdir):
    context = make_context(workdir, 0, shift=0, feature_dropout=0.0, collaborate=COLLABORATE)
    return with_section(context, evaluations=2, optimizer={"lr": 1e-2, "warmup_epochs": 0.0})


class Killed(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(context, what the stage gives, results of its two trainings)."""
    context, results = make(tmp_path_factory.mktemp("two")), []
    real = sequence.train

    def spy(task, **options):
        results.append(real(task, **options))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "train", spy)
        return context, sequence.run(context), results


def test_the_first_branch_stays_and_the_second_learns(done):
    context, outcome, (first, second) = done
    variables, config = load_model(context.folder("sequence") / "model")
    assert config["kind"] == "two_branches"
    params, stats = variables["params"], variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, params["frozen"], first.params)
    given = first.model_state["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, stats["frozen"], given)
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), params["trained"], first.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    figures, key = outcome["metrics"], context.track.score_name
    assert figures["first_branch"] == first.metrics[key]
    assert outcome["score"] == figures[key] == second.metrics[key]
    windows = len(sequence.split_windows(context, "train")[0])
    steps = [result.last_step for result in (first, second)]
    assert steps == [-(-epochs * windows // 8) for epochs in (2, 3)]


def test_predictions_are_the_mixture_of_both(done):
    context, *_ = done
    folder, track = context.folder("sequence"), context.track
    variables, saved = load_model(folder / "model")
    task, _ = make_task(saved, folder)
    one = make_sequence_task(ml_collections.FrozenConfigDict(saved), track)
    store = FeatureStore(context.folder("extract") / "features" / "validation")
    video = VIDEOS["validation"][0]
    inputs = {"features": store.read(video)[:16][None], "mask": np.ones((1, 16), bool)}
    params = variables.pop("params")
    found = jax.jit(task.predict)(params, variables, inputs)["probabilities"][0]
    run = jax.jit(one.predict)
    logs = []
    for name in ("frozen", "trained"):
        state = {"batch_stats": variables["batch_stats"][name]}
        logs.append(np.log(run(params[name], state, inputs)["probabilities"][0]))
    want = np.exp(0.6 * logs[0] + 0.4 * logs[1])  # log-probabilities are logits but for a constant
    np.testing.assert_allclose(found, want / want.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert np.abs(logs[0] - logs[1]).max() > 1e-3
    kept = load_predictions(folder / "predictions" / "validation", track)[video]
    np.testing.assert_allclose(kept.values[:8], found[:8], rtol=1e-4, atol=1e-6)


def test_the_report_and_the_card_tell_of_it(done):
    context, *_ = done
    folder = context.folder("sequence")
    assert report.histories(context)["sequence"] == {
        "all": folder / "metrics.jsonl",
        "all, second branch": folder / "collaborate" / "metrics.jsonl",
    }
    card = export._card(context, "sequence", {"classes": [], "crop": {}}, {"sequence": 0.5})
    assert "two such models, whose logits are added, 0.6 and 0.4 of them" in card


def test_killed_in_the_second_it_ends_with_the_same_bits(done, tmp_path, monkeypatch):
    """After its first evaluation; the first branch is not trained again."""
    _, outcome, _ = done
    context, real = make(tmp_path), sequence.train
    compiled = []

    def kill(task, **options):
        calls = []

        def evaluate(params, state):
            if calls and "second" in options["label"]:
                raise Killed
            calls.append(params)
            return asked(params, state)

        asked, options["evaluate"] = options["evaluate"], evaluate
        return real(task, **options)

    def count(task, **options):
        result = real(task, **options)
        compiled.append(result.compiles)
        return result

    monkeypatch.setattr(sequence, "train", kill)
    with pytest.raises(Killed):
        sequence.run(context)
    assert not (context.folder("sequence") / "model").exists()
    monkeypatch.setattr(sequence, "train", count)
    again = sequence.run(context)
    assert compiled == [0, 1]
    assert again["content"] == outcome["content"] and again["score"] == outcome["score"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": -1.0}, "epochs: -1.0; expected a number of at least 0"),
        ({"hard": 0.0}, "hard: 0.0; expected a share from above 0 up to 1"),
        ({"beta": (5.0,)}, r"beta: \(5.0,\); expected two numbers above 0"),
        ({"beta": (5.0, 0.0)}, r"beta: \(5.0, 0.0\); expected two numbers above 0"),
        ({"share": 1.5}, "share: 1.5; expected a share from 0 up to 1"),
    ],
)
def test_values_that_cannot_be_are_named(changes, named):
    config = expr.get_config("tiny").unlock()
    config.sequence.collaborate.update(changes)
    with pytest.raises(InputError, match=f"^config.sequence.collaborate.{named}"):
        check_config(config, make_mesh())


def test_there_is_no_second_without_a_first_nor_of_clips():
    config = expr.get_config("tiny").unlock()
    config.sequence.collaborate.epochs = 1.0
    check_config(config, make_mesh())
    config.sequence.epochs = 0.0
    with pytest.raises(InputError, match="epochs: 1.0; expected 0: there is no first branch"):
        check_config(config, make_mesh())
    config = emi.get_config("tiny").unlock()
    config.sequence.collaborate.epochs = 1.0
    with pytest.raises(InputError, match="epochs: branches are .* and labels of EMI are of"):
        check_config(config, make_mesh())
