"""The stage `sequence` with windows that end at the frame that they predict."""

import jax
import ml_collections
import numpy as np
import pytest
from test_sequence_members import ROWS, VIDEOS, make_context

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import load_index
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.interop.archive import load_model
from abaw_jax.stages import export, sequence
from abaw_jax.stages.extract import video_labels
from abaw_jax.stages.parts import make_sequence_task

LENGTH, STRIDE = 6, 5


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(context, what the stage gives, what it asked of the training loop)."""
    options, real = {}, sequence.train

    def spy(task, **asked):
        options.update(asked)
        return real(task, **asked)

    context = make_context(
        tmp_path_factory.mktemp("last"), 0, head="last", length=LENGTH, stride=STRIDE, shift=2,
        tcn=(8,), mask_rate=0.2, positions="sincos", patience=3,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "train", spy)
        return context, sequence.run(context), options


def test_training_takes_every_stride_th_frame_and_stops_early(done):
    context, _, options = done
    windows = len(VIDEOS["train"]) * -(-ROWS // STRIDE)
    section = context.config.sequence
    assert options["steps"] == -(-int(section.epochs) * windows // section.batch_size)
    assert options["patience"] == 3
    batch = next(options["make_batches"](0))
    assert batch["features"].shape == (section.batch_size, LENGTH, 8)


def test_every_frame_is_predicted_from_those_that_end_at_it(done):
    context, _, _ = done
    folder = context.folder("sequence")
    variables, saved = load_model(folder / "model")
    task = make_sequence_task(ml_collections.FrozenConfigDict(saved), context.track)
    params = variables.pop("params")
    ends = np.maximum(np.arange(ROWS)[:, None] + np.arange(1 - LENGTH, 1), 0)
    predict = jax.jit(task.predict)
    for split, videos in VIDEOS.items():
        found = load_predictions(folder / "predictions" / split, context.track)
        store = FeatureStore(context.folder("extract") / "features" / split)
        for video in videos:
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


def test_the_model_card_says_which_frame_is_predicted(done):
    config = {"classes": [], "crop": {}}
    card = export._card(done[0], "sequence", config, {"sequence": 0.5})
    assert "windows of features: the `frames` model's; of each window the last frame is" in card
