"""What the report of a run shows: videos over time, chosen or not, and every model's learning."""

import dataclasses
import types

import ml_collections
import numpy as np
import pytest

from abaw_jax.data.records import IMAGE_SET
from abaw_jax.errors import InputError
from abaw_jax.evaluation.decision import Decision
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.files import write_json
from abaw_jax.recipe import Context
from abaw_jax.stages import check, report
from abaw_jax.tracks import EMI, VA
from abaw_jax.training.partition import make_mesh
from configs import va

ROWS = 20
# Changes of the label, and a score, of each video; c is all without labels.
CHANGES = {"c": 0, "a": 3, "b": 9, "<d>": 9}
TABLE = [{"video": "a", "score": 0.1}, {"video": "<d>", "score": 0.2}, {"video": "b", "score": 0.5}]


@pytest.fixture(scope="module")
def found():
    """(labels, predictions), of frames a tenth, of the sequence model a half."""
    labels = {}
    for video, changes in CHANGES.items():
        labels[video] = np.full((ROWS, 2), 0.0 if changes else -5.0, np.float32)
        labels[video][1 : changes + 1] = np.arange(changes)[:, None] / 10 + 0.1
        labels[video][changes + 1 :] = labels[video][changes]
    frames = np.arange(1, ROWS + 1, dtype=np.int32)
    predictions = {
        name: {v: Prediction(frames, np.full((ROWS, 2), value, np.float32)) for v in labels}
        for name, value in (("frames", 0.1), ("sequence", 0.5))
    }
    return labels, predictions


def drawn(found, chosen=(), table=TABLE, track=VA):
    return report.timelines(track, *found, Decision(Smoothing()), table, chosen)


def test_without_a_choice_the_liveliest_and_the_worst_are_shown(found):
    liveliest, worst = drawn(found)
    assert liveliest.video == "<d>" and worst.video == "a"  # of equals the first by name
    assert liveliest.note == (
        "mean_ccc 0.2000 by its own frames, place 2 of 3. Its labels change most often."
    )
    assert worst.note == "mean_ccc 0.1000 by its own frames, place 3 of 3. It scores worst."
    assert list(worst.rows) == ["labels", "frames", "sequence", "final"]
    np.testing.assert_array_equal(worst.rows["labels"], found[0]["a"])
    for caption, value in (("frames", 0.1), ("sequence", 0.5), ("final", 0.5)):
        np.testing.assert_allclose(worst.rows[caption], np.full((ROWS, 2), value), atol=1e-6)


def test_one_that_is_both_is_shown_once(found):
    (both,) = drawn(found, table=[{"video": "<d>", "score": -1.0}])
    assert both.note.endswith("Its labels change most often. It scores worst.")
    assert [t.video for t in drawn(found, table=())] == ["<d>"]


def test_chosen_videos_come_in_their_order_and_once(found):
    shown = drawn(found, ("c", "b", "c"))
    assert [t.video for t in shown] == ["c", "b"]
    assert [t.note for t in shown] == ["", "mean_ccc 0.5000 by its own frames, place 1 of 3."]


def test_clips_and_images_have_no_time(found):
    assert drawn(found, track=EMI) == []
    labels, predictions = found
    assert drawn(({IMAGE_SET: labels["a"]}, predictions)) == []


@pytest.fixture
def make_context(tmp_path, monkeypatch):
    """Of a run whose validation videos are those of CHANGES, or others."""

    def make(chosen, track="va", videos=tuple(CHANGES)):
        config = va.get_config("tiny").unlock()
        config.track, config.ensemble.report_videos = track, chosen
        index = types.SimpleNamespace(videos=videos)
        monkeypatch.setattr(check, "load_index", lambda folder, split: index)
        monkeypatch.setattr(check, "splits", lambda context: ["train", "validation"])
        return Context(ml_collections.FrozenConfigDict(config), tmp_path, make_mesh())

    return make


def test_a_video_that_is_not_there_is_named_with_some_that_are(make_context):
    check.check_prepared(make_context(("b", "<d>")))
    where = r"^config\.ensemble\.report_videos: "
    with pytest.raises(InputError, match=f"{where}'x1' is no validation video; of the 4 .* c, a, "):
        check.check_prepared(make_context(("b", "x1")))
    many = tuple(f"video{i}_left" for i in range(300))
    with pytest.raises(InputError, match=r"of the 300 .*such as \w+, \w+, \w+$") as raised:
        check.check_prepared(make_context(("video77",), videos=many))
    assert "video77_left" in str(raised.value)
    for context in (make_context(("a",), "emi"), make_context((IMAGE_SET,), videos=(IMAGE_SET,))):
        with pytest.raises(InputError, match=f"{where}nothing runs over time"):
            check.check_prepared(context)


def test_more_videos_than_a_page_holds_are_refused():
    config = va.get_config("tiny").unlock()
    config.ensemble.report_videos = ("a", *map(str, range(check.MOST_VIDEOS)))
    with pytest.raises(InputError, match=r"^config\.ensemble: report_videos: 13 videos; expected"):
        check.check_config(config, make_mesh())
    config.ensemble.report_videos = ("a",) * 20
    check.check_config(config, make_mesh())


def test_learning_curves_of_every_model(make_context):
    context = make_context(())
    for place in ("finetune", "sequence", "sequence/fold1", "sequence/face"):
        (context.workdir / place).mkdir()
        (context.workdir / place / "metrics.jsonl").write_text("")
    folder = context.folder("sequence")
    alone = {"all": folder / "metrics.jsonl"}
    tuned = {"all": context.folder("finetune") / "metrics.jsonl"}
    assert report.histories(context) == {"finetune": tuned, "sequence": alone}
    write_json(folder / "members.json", {"all": {}, "fold1": {}, "face": {}})
    members = alone | {name: folder / name / "metrics.jsonl" for name in ("fold1", "face")}
    assert report.histories(context) == {"finetune": tuned, "sequence": members}
    config = ml_collections.ConfigDict(context.config)
    config.finetune.views = ("face", "eyes_mouth")
    (context.folder("finetune") / "eyes_mouth").mkdir()
    view = {"eyes_mouth": context.folder("finetune") / "eyes_mouth" / "metrics.jsonl"}
    view["eyes_mouth"].write_text("")
    views = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    assert report.histories(views)["finetune"] == tuned | view
    head = {"eyes_mouth, head alone": view["eyes_mouth"].parent / "head" / "metrics.jsonl"}
    (path := next(iter(head.values()))).parent.mkdir()
    path.write_text("")
    assert report.histories(views)["finetune"] == tuned | view | head
    config.finetune.views = ("face",)
    config.sequence.epochs = 0.0  # whatever an earlier run left there
    frames = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    assert report.histories(frames) == {"finetune": tuned}
