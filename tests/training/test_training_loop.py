import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from tiny_training import bits, killing_batches, tiny_batches, tiny_train

from abaw_jax.errors import InputError
from abaw_jax.training.checkpoint import NotFinite, load_params
from abaw_jax.training.loop import Interrupted
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.state import named_leaves


def lines(workdir, key="loss") -> list[dict]:
    """The log's lines that have `key`, without what depends on the clock."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("images_per_second", "compile_seconds")}
        for line in found
        if key in line
    ]


def steps_of(workdir) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: (result, workdir)."""
    workdir = tmp_path_factory.mktemp("whole")
    return tiny_train(workdir), workdir


def test_a_run_learns_and_leaves_its_record(whole):
    result, workdir = whole
    log = lines(workdir)
    assert [line["step"] for line in log] == [2, 4, 6, 8, 10, 12]
    assert log[-1]["loss"] < log[0]["loss"]
    assert set(log[0]) == {"step", "loss", "bias", "grad_norm", "learning_rate"}
    assert steps_of(workdir) == [8, 12]
    assert list((workdir / "tensorboard").glob("events.*"))
    assert result.step == result.last_step == 12 and result.metrics == {}
    assert 0 <= result.input_wait_share <= 1 and result.examples_per_second > 0
    saved, saved_state, _ = load_params(workdir / "checkpoints")
    assert bits(saved) == bits(result.params) and bits(saved_state) == bits(result.model_state)


def test_a_finished_run_returns_without_compiling(whole):
    result, workdir = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    again = tiny_train(workdir)
    assert bits(again.params) == bits(result.params)
    assert again.compiles == 0 and again.step == 12
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("fatal", [6, 11])
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, fatal):
    result, workdir = whole
    script = pathlib.Path(__file__).with_name("tiny_training.py")
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(fatal)], env=environment, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = tiny_train(tmp_path)
    assert resumed.compiles == 1
    assert bits(resumed.params) == bits(result.params)
    assert bits(resumed.model_state) == bits(result.model_state)
    assert lines(tmp_path) == lines(workdir)


def signalling_batches(number, at):
    """tiny_batches that send this process a signal when batch `at` is made."""

    def make(start):
        for step, batch in enumerate(tiny_batches(start), start):
            if step == at:
                os.kill(os.getpid(), number)
            yield batch

    return make


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops_and_the_run_goes_on(whole, tmp_path, number, status):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        tiny_train(tmp_path, make_batches=signalling_batches(number, 5), save_every=100)
    assert caught.value.code == status
    assert signal.getsignal(number) is before
    (stopped,) = steps_of(tmp_path)
    assert 0 < stopped < 12
    resumed = tiny_train(tmp_path, save_every=100)
    assert bits(resumed.params) == bits(whole[0].params)
    assert lines(tmp_path) == lines(whole[1])


def test_a_second_signal_is_not_held_back(tmp_path):
    sent = []

    # Both are sent while nothing is being saved: a save that is cut short warns of its event loop.
    def evaluate(params, model_state):
        for _ in range(2):
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal was held back")

    # A test run started in the background inherits that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny_train(tmp_path, evaluate=evaluate, eval_every=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(sent) == 2


def test_a_damaged_newest_checkpoint_is_trained_again(whole, tmp_path, caplog):
    tiny_train(tmp_path, steps=8)
    (tmp_path / "checkpoints" / "8" / "weights" / "manifest.ocdbt").write_bytes(b"x")
    resumed = tiny_train(tmp_path)
    assert "checkpoints/8: checkpoint is damaged" in caplog.text
    assert bits(resumed.params) == bits(whole[0].params)
    assert lines(tmp_path) == lines(whole[1])


def test_a_run_goes_on_on_other_devices(whole, tmp_path):
    tiny_train(tmp_path, steps=4, mesh=(2, 2, 2))
    tiny_train(tmp_path, steps=8, mesh=(1, 2, 1))
    tiny_train(tmp_path, steps=12, mesh=(1, 1, 1))
    found = [line["loss"] for line in lines(tmp_path)]
    np.testing.assert_allclose(found, [line["loss"] for line in lines(whole[1])], atol=1e-6)


def test_the_step_is_compiled_once(tmp_path):
    compiled = []

    def listen(event, seconds, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        result = tiny_train(tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len([name for name in compiled if name and "train_step" in name]) == 1, compiled
    assert result.compiles == 1
    (line,) = [
        json.loads(line)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
        if "compile_seconds" in line
    ]
    assert line["compile_seconds"] == result.compile_seconds > 0


def poisoned_batches(at):
    def make(start):
        for step, batch in enumerate(tiny_batches(start), start):
            yield {**batch, "y": batch["y"] * np.float32(np.inf if step == at else 1)}

    return make


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    message = r"step 7: \w+ is (nan|inf); last good checkpoint: .*/checkpoints/4; lower"
    with pytest.raises(NotFinite, match=message):
        tiny_train(tmp_path, make_batches=poisoned_batches(6))
    assert steps_of(tmp_path) == [4]
    assert all(line["step"] < 7 for line in lines(tmp_path))


def test_a_loss_that_is_not_finite_at_a_saving_step_is_not_saved(tmp_path):
    with pytest.raises(NotFinite, match=r"step 4: .*: there is no checkpoint yet"):
        tiny_train(tmp_path, make_batches=poisoned_batches(3))
    assert steps_of(tmp_path) == []


def test_a_state_that_is_not_finite_behind_a_finite_loss_is_not_saved(tmp_path):
    # No row counts, so there is neither loss nor gradient: weight decay alone overflows.
    huge = make_optimizer(lr=1e30, steps=12, schedule="constant", weight_decay=1e30)
    with pytest.raises(NotFinite, match=r"step 1: .* of the state are not finite; last good"):
        tiny_train(
            tmp_path,
            save_every=1,
            optimizer=huge,
            make_batches=lambda start: ({**b, "mask": b["mask"] & False} for b in tiny_batches(0)),
        )
    assert steps_of(tmp_path) == []


def scripted(scores):
    """evaluate() that gives these scores one after another."""
    scores = iter(scores)
    return lambda params, model_state: {"score": next(scores), "other": 0.0}


def test_the_best_evaluation_is_kept_and_returned(tmp_path):
    seen = []

    def evaluate(params, model_state):
        seen.append((bits(params), bits(model_state)))
        return {"score": [0.1, 0.9, 0.2, 0.3, 0.4, 0.5][len(seen) - 1]}

    result = tiny_train(tmp_path, evaluate=evaluate, eval_every=2, best="score")
    assert (result.step, result.last_step, result.metrics) == (4, 12, {"score": 0.9})
    # The EMA is what was evaluated and what is returned, from disk.
    assert (bits(result.params), bits(result.model_state)) == seen[1]
    assert steps_of(tmp_path) == [4, 10, 12]
    assert bits(load_params(tmp_path / "checkpoints")[0]) == seen[1][0]
    assert [line["evaluation/score"] for line in lines(tmp_path, "evaluation/score")] == [
        0.1, 0.9, 0.2, 0.3, 0.4, 0.5,
    ]  # fmt: skip
    again = tiny_train(tmp_path, evaluate=None, best=None)
    assert (again.step, again.metrics, bits(again.params)) == (4, {"score": 0.9}, seen[1][0])


def test_early_stopping_survives_a_stop(tmp_path):
    options = dict(eval_every=1, best="score", patience=3)
    with pytest.raises(Interrupted):
        tiny_train(
            tmp_path, evaluate=scripted([0.5, 0.4, 0.3, 0.2]),
            make_batches=signalling_batches(signal.SIGTERM, 0), **options,
        )  # fmt: skip
    assert steps_of(tmp_path) == [1]
    result = tiny_train(tmp_path, evaluate=scripted([0.4, 0.3, 0.2, 0.9]), **options)
    assert (result.step, result.last_step) == (1, 4)
    again = tiny_train(tmp_path, evaluate=scripted([]), **options)
    assert (again.step, again.last_step, again.compiles) == (1, 4, 0)


def test_the_last_step_is_evaluated(tmp_path):
    result = tiny_train(tmp_path, steps=3, evaluate=scripted([0.7]))
    assert result.metrics == {"score": 0.7, "other": 0.0}
    assert result.step == 3


def test_initial_parameters_enter_a_fresh_run_only(tmp_path):
    calls = []

    def initial(params):
        calls.append(1)
        return jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float64), params)

    first = tiny_train(tmp_path, steps=1, lr=1e-30, initial_params=initial)
    for leaf in jax.tree.leaves(first.params):
        np.testing.assert_array_equal(leaf, np.float32(0.5))
    tiny_train(tmp_path, steps=2, initial_params=initial)
    assert len(calls) == 1


def test_initial_statistics_enter_a_fresh_run(tmp_path):
    def initial(state):
        return jax.tree.map(lambda x: np.full(x.shape, 50.0), state)

    result = tiny_train(tmp_path, steps=1, initial_state=initial)
    assert np.asarray(result.model_state["batch_stats"]["norm"]["mean"]).min() > 40
    with pytest.raises(InputError, match=r"initial statistics: batch_stats/norm/mean absent"):
        tiny_train(tmp_path / "other", initial_state=lambda state: {})


def test_initial_parameters_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError, match=r"initial .*: head/kernel \(3,\), expected \(8, 1"):
        tiny_train(
            tmp_path, initial_params=lambda p: {**p, "head": {**p["head"], "kernel": np.ones(3)}}
        )


def test_a_checkpoint_with_other_metadata_is_refused(tmp_path):
    tiny_train(tmp_path, steps=1, metadata={"classes": ("a", "b")})
    tiny_train(tmp_path, steps=2, metadata={"classes": ("a", "b")})
    with pytest.raises(InputError, match=r"trained with classes \['a', 'b'\], now it is \['b'"):
        tiny_train(tmp_path, steps=3, metadata={"classes": ("b", "a")})


def test_waiting_for_input_is_measured(tmp_path):
    def slow(start):
        for batch in tiny_batches(start):
            time.sleep(0.2)  # far longer than a step, on a busy machine too
            yield batch

    result = tiny_train(tmp_path, make_batches=slow)
    assert result.input_wait_share > 0.5


def test_input_faults_are_raised_where_they_are_met(tmp_path):
    def broken(start):
        yield from itertools.islice(tiny_batches(start), 3)
        raise InputError("shard-3: row 7 is damaged")

    def uneven(start):
        yield next(tiny_batches(start))
        yield next(tiny_batches(start, size=8))

    cases = {
        "shard-3: row 7 is damaged": broken,
        "came to an end": lambda start: itertools.islice(tiny_batches(start), 3),
        "not one batch": lambda start: iter(()),
        "one shape": uneven,
        "differ in length": lambda start: iter([{"x": np.ones(8), "y": np.ones(4)}]),
    }
    for message, make in cases.items():
        with pytest.raises(InputError, match=message):
            tiny_train(tmp_path, make_batches=make)
        assert "feed" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(steps=0), "steps: 0"),
        (dict(save_every=0), "save_every: 0"),
        (dict(best="score"), "nothing is evaluated"),
        (dict(patience=2), "no best is named"),
        (dict(mesh=(1, 5, 1)), "16 examples .* 5 devices"),
        (dict(steps=1, evaluate=scripted([0.1]), best="scor"), "'scor'; expected .* score, other"),
        (dict(steps=1, evaluate=scripted([float("nan")]), best="score"), "score is nan; last good"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        tiny_train(tmp_path, **options)


def test_the_log_drops_what_was_written_after_the_restored_step(tmp_path):
    tiny_train(tmp_path, steps=4)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "loss": 1}\n{"step": 3, "lo')
    tiny_train(tmp_path, steps=6)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]


def test_every_array_of_the_result_is_on_the_mesh(tmp_path):
    result = tiny_train(
        tmp_path, steps=4, mesh=(2, 2, 2), evaluate=scripted([0.9, 0.1]), eval_every=2, best="score"
    )
    assert result.step == 2
    for path, leaf in named_leaves((result.params, result.model_state)).items():
        assert len(leaf.sharding.device_set) == 8, path


def test_killing_batches_kill_only_at_their_step():
    # The tests above rest on it: were nothing killed, they would show nothing.
    assert len(list(itertools.islice(killing_batches(6)(3), 3))) == 3
