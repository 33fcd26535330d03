"""Alignment by video and frame: what is missing is filled, counted or refused."""

import numpy as np
import pytest
from toy_tracks import NUMBERS

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import align, labelled_rows
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import GAP_RULES, fill_gaps
from abaw_jax.tracks import EXPR


def predicted(frames, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (len(frames), 2)).astype(np.float32)
    return Prediction(np.array(frames, np.int32), values)


@pytest.fixture
def members():
    return {
        "b": {"v": predicted([1, 2, 4], 1), "w": predicted([3], 2)},
        "a": {"v": predicted([2, 3, 4, 7], 3)},
        "c": {"w": predicted([3, 5], 4), "v": predicted([4], 5), "empty": predicted([])},
    }


def test_rows_are_the_union_and_absent_members_take_the_mean_of_the_others(members):
    found = align(members, NUMBERS)
    assert (found.members, found.videos) == (("a", "b", "c"), ("v", "w"))
    assert found.first.tolist() == [0, 5, 7]
    assert found.frames.tolist() == [1, 2, 3, 4, 7, 3, 5]
    for row, frame in enumerate(found.frames):
        video = found.videos[found.row_videos()[row]]
        said = {}
        for m, name in enumerate(found.members):
            p = members[name].get(video, predicted([]))
            here = np.flatnonzero(p.frames == frame)
            assert found.present[m, row] == bool(len(here))
            if len(here):
                said[m] = p.values[here[0]]
        for m in range(3):
            want = said.get(m, np.mean(list(said.values()), axis=0))
            np.testing.assert_allclose(found.values[m, row], want, rtol=1e-6)
    assert found.missing == {
        "a": {"videos": 1, "frames": 1, "filled": 0},
        "b": {"videos": 0, "frames": 3, "filled": 0},
        "c": {"videos": 0, "frames": 4, "filled": 0},
    }
    split = found.by_video(found.values[0])
    assert split["w"].frames.tolist() == [3, 5] and len(split["v"].values) == 5


def test_order_of_members_and_videos_changes_nothing(members):
    first = align(members, NUMBERS)
    turned = {name: dict(reversed(members[name].items())) for name in reversed(members)}
    second = align(turned, NUMBERS)
    assert first.members == second.members and first.missing == second.missing
    for name in ("first", "frames", "values", "present"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("rule", GAP_RULES)
def test_a_gap_rule_fills_from_the_member_itself(members, rule):
    found = align(members, NUMBERS, gaps=rule, rows={"v": 9, "w": 2, "more": 4})
    assert found.first.tolist() == [0, 9, 14] and found.frames.tolist() == [
        *range(1, 10),
        1,
        2,
        3,
        4,
        5,
    ]
    for m, name in enumerate(found.members):
        p = members[name]["v"]
        np.testing.assert_array_equal(found.values[m, :9], fill_gaps(p.frames, p.values, 9, rule))
    assert found.missing["a"] == {"videos": 1, "frames": 0, "filled": 5}
    assert not found.present[0, 9:].any() and found.present[1:].all()
    np.testing.assert_allclose(found.values[0, 9:], found.values[1:, 9:].mean(axis=0), rtol=1e-6)


def test_what_cannot_be_combined_is_refused(members):
    with pytest.raises(InputError, match="1 members; an ensemble needs two"):
        align({"a": members["a"]}, NUMBERS)
    with pytest.raises(InputError, match="member d: shares no frame"):
        align({**members, "d": {"other": predicted([1, 2])}}, NUMBERS)
    with pytest.raises(InputError, match="member d: shares no frame"):
        align({**members, "d": {"v": predicted([5, 6])}}, NUMBERS)
    with pytest.raises(InputError, match="member d: shares no frame"):
        align({**members, "d": {"v": predicted([])}}, NUMBERS)
    with pytest.raises(InputError, match=r"member a: v has values of shape \(4, 2\); expected"):
        align(members, EXPR)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(members, bad):
    members["c"]["w"].values[1, 0] = bad
    with pytest.raises(InputError, match="member c: frame 5 of w .* not finite"):
        align(members, NUMBERS)


def labels_of(*rows):
    return np.array(rows, np.float32)


def test_labelled_rows_as_the_scorer_counts_them():
    frames = {"b": np.array([1, 2, 3, 9]), "a": np.array([2, 3]), "c": np.array([1])}
    labels = {
        "c": labels_of([-5, 0], [0, -5]),
        "b": labels_of([0.1, 0], [-5, 0], [0.3, 0], [0.4, 0]),
        "a": labels_of([-5, -5], [0.5, 0], [0.6, 0]),
    }
    found, last = labelled_rows(frames, labels, NUMBERS)
    assert list(found) == ["a", "b"] and last == 1
    assert found["a"][0].tolist() == [0, 1] and found["b"][0].tolist() == [0, 2]
    np.testing.assert_array_equal(found["b"][1], labels["b"][[0, 2]])
    labels["b"] = labels_of([0.1, 0], [-5, 0], [0.3, 0], [0.4, 0], [0, 0])
    with pytest.raises(InputError, match="lacks frame 4 of b, .*1 such .*, 1 in 1 videos"):
        labelled_rows(frames, labels, NUMBERS)
    del frames["a"]
    with pytest.raises(InputError, match=r"no frame of a, which is labelled \(1 of 2"):
        labelled_rows(frames, labels, NUMBERS)
    with pytest.raises(InputError, match="no row of the 1 annotated videos has a NUMBERS label"):
        labelled_rows(frames, {"c": labels["c"]}, NUMBERS)
