"""Compound expressions from basic ones: the rules, faces, clusters, and the choice among rules."""

import numpy as np
import pytest
from evaluation.blended_faces import blends, face

from abaw_jax.errors import InputError
from abaw_jax.evaluation import compound
from abaw_jax.evaluation.compound import divergence, predict_compound
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks import CE, EXPR
from abaw_jax.tracks.targets import PARTS

ADJECTIVES = {
    "Surprise": "Surprised",
    "Fear": "Fearful",
    "Anger": "Angry",
    "Disgust": "Disgusted",
}


def test_parts_spell_the_class_names():
    adverbs = {"Fear": "Fearful", "Happiness": "Happ", "Sadness": "Sad", "Disgust": "Disgust"}
    for name, (first, second) in PARTS.items():
        adverb, adjective = name.split("_")
        assert adverb.startswith(adverbs.get(first, "Angr"))
        assert adjective in ADJECTIVES[second]
    assert tuple(PARTS)[: CE.outputs] == CE.classes and len(PARTS) == 11


@pytest.mark.parametrize("rule", compound.RULES)
def test_every_rule_finds_clear_blends(rule):
    labels, values = blends()
    video = Prediction(np.arange(1, len(labels) + 1, dtype=np.int32), values)
    found = predict_compound({"01": video}, rule)["01"]
    assert (CE.decode(found.values)[:, 0] == labels).all()
    np.testing.assert_allclose(found.values.sum(axis=1), 1, rtol=1e-6)


def test_sum_and_product_by_hand():
    row = face(Fear=0.2, Surprise=0.5, Sadness=0.1)[None]
    at = CE.classes.index("Fearfully_Surprised")
    assert compound.add(row)[0, at] == pytest.approx(0.7)
    assert compound.multiply(row)[0, at] == pytest.approx(0.1)


def test_the_mean_is_the_sum_by_another_name():
    _, values = blends(noise=0.1)
    half = len(values) // 2
    faces = {
        "01_left": Prediction(np.arange(1, half + 1), values[:half]),
        "01_right": Prediction(np.arange(3, half + 3), values[half:]),
    }
    for merge in (False, True):
        added, averaged = (predict_compound(faces, r, merge=merge) for r in ("sum", "mean"))
        for video in added:
            np.testing.assert_array_equal(averaged[video].values, added[video].values)
    row = compound.average(values)
    assert 0 <= row.min() and row.max() <= 0.5 and (row.sum(axis=1) != 1).any()


def test_product_asks_for_both_parts():
    row = face(Happiness=0.5, Surprise=0.02, Sadness=0.25, Anger=0.22)[None]
    frames = np.array([1], np.int32)
    names = {}
    for rule in ("sum", "product"):
        found = predict_compound({"a": Prediction(frames, row)}, rule)["a"]
        names[rule] = CE.classes[CE.decode(found.values)[0, 0]]
    assert names == {"sum": "Happily_Surprised", "product": "Sadly_Angry"}


def test_largest_score_over_the_faces_of_a_frame():
    happy, sad = face(Happiness=0.5, Surprise=0.4), face(Sadness=0.3, Anger=0.2)
    faces = {
        "01_left": Prediction(np.array([1, 2], np.int32), np.stack([happy, sad])),
        "01_right": Prediction(np.array([2, 4], np.int32), np.stack([happy, sad])),
        "02": Prediction(np.zeros(0, np.int32), np.zeros((0, EXPR.outputs), np.float32)),
    }
    found = predict_compound(faces, "sum", merge=True)
    assert list(found) == ["01", "02"] and len(found["02"].frames) == 0
    assert found["01"].frames.tolist() == [1, 2, 4]
    names = [CE.classes[k] for k in CE.decode(found["01"].values)[:, 0]]
    assert names == ["Happily_Surprised", "Happily_Surprised", "Sadly_Angry"]
    assert list(predict_compound(faces, "sum")) == list(faces)


def test_candidates_are_compared_on_the_frames_that_all_have():
    def video(*frames):
        return Prediction(np.array(frames), np.eye(7, dtype=np.float32)[[f % 7 for f in frames]])

    candidates = {
        "a": {"01": video(1, 2, 3, 9), "02": video(1)},
        "b": {"03": video(4), "01": video(2, 3, 4)},
        "c": {"01": video(3, 9), "02": video(1)},
    }
    found = compound.shared_frames(candidates)
    assert list(found) == ["a", "b", "c"]
    for videos in found.values():
        assert list(videos) == ["01"]
        assert videos["01"].frames.tolist() == [3]
        np.testing.assert_array_equal(videos["01"].values, video(3).values)
    candidates["c"] = {"01": video(9), "02": video(1)}  # shares with a, and with b none
    with pytest.raises(InputError, match="candidate c: has no frame in common with a, b;"):
        compound.shared_frames(candidates)


def test_divergence_by_hand_and_of_a_class_never_predicted():
    prior = (1, 1, 2, 1, 1, 1, 1)
    shares = np.array([0.5, 0, 0.5, 0, 0, 0, 0])
    assert divergence(np.array(prior) / 8, prior) == pytest.approx(0, abs=1e-15)
    assert divergence(shares, prior) == pytest.approx(0.5 * np.log(4) + 0.5 * np.log(2))


@pytest.mark.parametrize("prior", [(1,) * 6, (1, 1, 1, 1, 1, 1, 0), (1, 1, 1, 1, 1, 1, np.nan)])
def test_priors_that_cannot_be(prior):
    with pytest.raises(InputError, match="expected 7 numbers above 0"):
        divergence(np.full(7, 1 / 7), prior)


def test_refusals():
    empty = {"01": Prediction(np.zeros(0, np.int32), np.zeros((0, 8), np.float32))}
    with pytest.raises(InputError, match="no frame at all"):
        predict_compound(empty, "sum")
    same = {"01": Prediction(np.array([1, 2], np.int32), np.stack([face(), face()]))}
    with pytest.raises(InputError, match="1 different rows"):
        predict_compound(same, "cluster")
    with pytest.raises(InputError, match="expected one of sum, mean, product, cluster"):
        predict_compound(same, "vote")
