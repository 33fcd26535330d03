"""The stage `sequence` with windows that end at the frame that they predict, folds among them."""

import jax
import ml_collections
import numpy as np
import pytest
from test_sequence_members import ROWS, VIDEOS, make_context, members_of, names

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import load_index
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.interop.archive import load_model
from abaw_jax.stages import export, sequence
from abaw_jax.stages.extract import video_labels
from abaw_jax.stages.parts import make_sequence_task

LENGTH, STRIDE = 6, 5
SHORT = "4"  # of 3 rows, fewer than a window has
COUNTS = {v: 3 if v == SHORT else ROWS for videos in VIDEOS.values() for v in videos}
MODELS = {"all": "", "fold1": "fold1", "fold2": "fold2"}  # member -> its folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(context, what the stage gives, what it asked of the training loop, by label)."""
    asked, real = {}, sequence.train

    def spy(task, **options):
        asked[options["label"]] = options
        return real(task, **options)

    context = make_context(
        tmp_path_factory.mktemp("last"), 2, (SHORT,), head="last", length=LENGTH, stride=STRIDE,
        shift=2, tcn=(8,), mask_rate=0.2, positions="sincos", patience=3,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "train", spy)
        return context, sequence.run(context), asked


def test_training_takes_every_stride_th_frame_and_stops_early(done):
    context, _, asked = done
    members, _ = members_of(context, {})
    assert list(members) == list(MODELS)
    section = context.config.sequence
    for member, folder in MODELS.items():
        options = asked[f"sequence {folder}".strip()]
        windows = sum(-(-COUNTS[video] // STRIDE) for video in names(members[member].seen))
        assert options["steps"] == -(-int(section.epochs) * windows // section.batch_size)
        assert options["patience"] == 3
        batch = next(options["make_batches"](0))
        assert batch["features"].shape == (section.batch_size, LENGTH, 8)


def test_every_frame_is_predicted_from_those_that_end_at_it(done):
    """By every member, the first row repeated before the start, whatever the video's length."""
    context, _, _ = done
    folder = context.folder("sequence")
    _, saved = load_model(folder / "model")
    task = make_sequence_task(ml_collections.FrozenConfigDict(saved), context.track)
    predict = jax.jit(task.predict)
    for member, place in MODELS.items():
        variables, _ = load_model(folder / place / "model")
        params = variables.pop("params")
        for split, videos in VIDEOS.items():
            found = load_predictions(folder / "members" / member / split, context.track)
            store = FeatureStore(context.folder("extract") / "features" / split)
            for video in videos:
                rows = np.arange(COUNTS[video])
                ends = np.maximum(rows[:, None] + np.arange(1 - LENGTH, 1), 0)
                inputs = {"features": store.read(video)[ends], "mask": np.ones(ends.shape, bool)}
                expected = predict(params, variables, inputs)["probabilities"][:, 0]
                np.testing.assert_allclose(found[video].values, expected, atol=1e-5)


def test_the_score_is_of_every_labelled_frame(done):
    context, outcome, _ = done
    track = context.track
    found = load_predictions(context.folder("sequence") / "predictions" / "validation", track)
    truth = video_labels(load_index(context.folder("prepare") / "records", "validation"), track)
    sums = sum(track.evaluate(track.decode(found[v].values), truth[v]) for v in truth)
    assert outcome["score"] == track.summary(sums).score
    assert outcome["samples"] == sum(COUNTS[video] for video in VIDEOS["train"])


def test_the_model_card_says_what_goes_in(done):
    config = {"classes": [], "crop": {}}
    card = export._card(done[0], "sequence", config, {"sequence": 0.5})
    made = "Causal convolutions, then a transformer over windows of features: the `frames` model's;"
    assert f"{made} an input is the 6 rows that end at the predicted frame, a video's first" in card
    section = done[0].config.sequence.to_dict() | {"depth": 0, "head": "frames"}
    what = export._sequence_model(ml_collections.ConfigDict(section), "x")
    assert what == "causal convolutions over windows of features: x"
