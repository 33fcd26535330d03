"""Intervals against drawing frames for real, comparisons, and splits that must not touch."""

import numpy as np
import pytest
from toy_tracks import KINDS, NUMBERS, draw_labels, draw_member

from abaw_jax.errors import InputError
from abaw_jax.evaluation.confidence import (
    bootstrap,
    check_apart,
    compare,
    split_hash,
    video_statistics,
    video_table,
)
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks import EXPR

NOISE = {"EXPR": 1.5, "NUMBERS": 0.5, "SWITCHES": 1.0}


def case(track, seed=0, videos=10, noise=None):
    rng = np.random.default_rng(seed)
    labels = draw_labels(track, rng, videos, 50)
    return draw_member(track, labels, rng, noise or NOISE[track.name]), labels


@pytest.mark.parametrize("name", KINDS)
def test_statistics_of_videos_add_up_to_the_split(name):
    track = KINDS[name]
    member, labels = case(track)
    found = video_statistics(member, labels, track)
    parts = [track.evaluate(track.decode(member[v].values), labels[v]) for v in labels]
    np.testing.assert_allclose(found.statistics.sum(axis=0), sum(parts), rtol=1e-9)
    assert found.videos == tuple(labels)
    assert found.frames.tolist() == [int(track.valid(rows).sum()) for rows in labels.values()]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("grouped", [False, True])
def test_interval_is_that_of_drawing_the_frames(name, grouped):
    track = KINDS[name]
    member, labels = case(track)
    groups = {v: v[:-1] + str(int(v[-1]) // 2) for v in labels} if grouped else None
    found = bootstrap(
        video_statistics(member, labels, track), track, resamples=40, seed=3, groups=groups
    )
    names = sorted({groups[v] for v in labels} if grouped else labels)
    even = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(3).multinomial(len(names), even, size=40)
    scores = []
    for draw in draws:
        drawn = [n for n, times in zip(names, draw, strict=True) for _ in range(times)]
        videos = [v for n in drawn for v in labels if (groups[v] if grouped else v) == n]
        values = np.concatenate([member[v].values for v in videos])
        rows = np.concatenate([labels[v] for v in videos])
        scores.append(track.summary(track.evaluate(track.decode(values), rows)).score)
    interval = found["score"]
    want = np.quantile(scores, [0.025, 0.975])
    np.testing.assert_allclose([interval.low, interval.high], want, atol=1e-9)
    assert interval.low < interval.value < interval.high
    assert found[track.score_name] == interval


def test_interval_covers_and_shrinks_with_more_videos():
    """95 % intervals of many draws from one population hold its score about as often."""
    widths, hits = {}, 0
    whole = video_statistics(*case(EXPR, 100, videos=400), EXPR)
    truth = EXPR.summary(whole.statistics.sum(axis=0)).score
    for videos in (10, 40):
        found = []
        for seed in range(40):
            statistics = video_statistics(*case(EXPR, seed, videos), EXPR)
            found.append(bootstrap(statistics, EXPR, resamples=200)["score"])
        widths[videos] = np.mean([i.high - i.low for i in found])
        hits = sum(i.low <= truth <= i.high for i in found)
    assert hits >= 32
    assert 1.6 < widths[10] / widths[40] < 2.5


def test_seed_order_and_level():
    member, labels = case(NUMBERS)
    statistics = video_statistics(member, labels, NUMBERS)
    turned = video_statistics(
        dict(reversed(member.items())), dict(reversed(labels.items())), NUMBERS
    )
    first = bootstrap(statistics, NUMBERS)
    assert first == bootstrap(turned, NUMBERS) != bootstrap(statistics, NUMBERS, seed=1)
    half = bootstrap(statistics, NUMBERS, level=0.5)["score"]
    assert first["score"].low < half.low < half.high < first["score"].high


def test_what_has_no_interval_is_refused():
    member, labels = case(EXPR)
    statistics = video_statistics(member, labels, EXPR)
    for level in (0, 1, 95):
        with pytest.raises(InputError, match=f"level {level}"):
            bootstrap(statistics, EXPR, level=level)
    with pytest.raises(InputError, match="1000 resamples of 1 videos or groups"):
        bootstrap(statistics, EXPR, groups=dict.fromkeys(labels, "one"))
    with pytest.raises(InputError, match="0 resamples"):
        bootstrap(statistics, EXPR, resamples=0)
    with pytest.raises(InputError, match="video video00 has no group"):
        bootstrap(statistics, EXPR, groups={})
    del member["video03"]
    with pytest.raises(InputError, match="no frame of video03, which is labelled"):
        video_statistics(member, labels, EXPR, "folder")


def test_comparison_is_paired():
    good, labels = case(EXPR, videos=12, noise=1.2)
    rng = np.random.default_rng(9)
    worse = {}
    for video, p in good.items():
        values = p.values.copy()
        spoilt = rng.random(len(values)) < 0.25
        values[spoilt] = rng.permutation(values[spoilt])
        worse[video] = Prediction(p.frames, values)
    a, b = (video_statistics(p, labels, EXPR) for p in (good, worse))
    found = compare(a, b, EXPR)
    alone = [bootstrap(s, EXPR)["score"] for s in (a, b)]
    assert (found.a, found.b) == (alone[0].value, alone[1].value)
    assert found.difference.value == found.a - found.b > 0
    # By themselves they overlap; on the same videos they do not.
    assert alone[1].high > alone[0].low and found.difference.low > 0
    assert found.a_better > 0.97 and found.a_better + found.b_better <= 1
    back = compare(b, a, EXPR)
    assert (back.a_better, back.b_better) == (found.b_better, found.a_better)
    np.testing.assert_allclose(
        [back.difference.low, back.difference.high],
        [-found.difference.high, -found.difference.low],
        atol=1e-12,
    )
    same = compare(a, a, EXPR)
    assert (same.a_better, same.b_better, same.difference.low, same.difference.high) == (0, 0, 0, 0)


def test_other_frames_cannot_be_compared():
    member, labels = case(EXPR)
    a = video_statistics(member, labels, EXPR)
    fewer = {**labels, "video02": labels["video02"][:-5]}
    with pytest.raises(InputError, match="video video02: .* labelled frames against"):
        compare(a, video_statistics(member, fewer, EXPR), EXPR)
    del fewer["video02"]
    with pytest.raises(InputError, match="video02: .* labelled frames against 0"):
        compare(a, video_statistics(member, fewer, EXPR), EXPR)


def test_table_of_videos_is_worst_first():
    member, labels = case(EXPR)
    table = video_table(video_statistics(member, labels, EXPR), EXPR)
    scores = [row["score"] for row in table]
    assert scores == sorted(scores) and {row["video"] for row in table} == set(labels)
    for row in table:
        video = row["video"]
        part = EXPR.evaluate(EXPR.decode(member[video].values), labels[video])
        assert row["score"] == row["macro_f1"] == EXPR.summary(part).score
        assert row["frames"] == part.sum()


def test_split_hash():
    _, labels = case(EXPR)
    first = split_hash(labels, EXPR)
    assert len(first) == 64 and first == split_hash(dict(reversed(labels.items())), EXPR)
    assert first == split_hash({v: rows.astype(np.int64) for v, rows in labels.items()}, EXPR)
    none = np.full((4, 1), -1)
    longer = {**labels, "video00": np.append(labels["video00"], none, axis=0), "none": none}
    assert first == split_hash(longer, EXPR)
    shifted = {**labels, "video00": np.append(none, labels["video00"], axis=0)}
    changed = {v: rows.copy() for v, rows in labels.items()}
    changed["video04"][7] = (changed["video04"][7] + 2) % 7
    renamed = {v.replace("09", "10"): rows for v, rows in labels.items()}
    moved = {**labels, "video00": np.append(labels["video00"], labels["video01"][:1], axis=0)}
    moved["video01"] = labels["video01"][1:]
    fewer = {v: rows for v, rows in labels.items() if v != "video05"}
    hashes = {split_hash(x, EXPR) for x in (labels, shifted, changed, renamed, moved, fewer)}
    assert len(hashes) == 6
    floats = {"v": np.array([[0.5, -0.25]])}
    single = {"v": floats["v"].astype(np.float32)}
    assert split_hash(floats, NUMBERS) == split_hash(single, NUMBERS)


def test_splits_that_share_a_person_are_refused():
    persons = {"a": "p", "b": "q", "c": "p"}
    check_apart({"train": ["a", "c"], "validation": ["b"]}, persons, "p.csv")
    message = r"^p.csv: person p lies in train \(a\) and in validation \(c\); take"
    with pytest.raises(InputError, match=message):
        check_apart({"train": ["a"], "validation": ["b", "c"]}, persons, "p.csv")
    message = r"^p.csv: has no person of video d \(1 of 2 validation videos lack one\); give"
    with pytest.raises(InputError, match=message):
        check_apart({"train": ["a"], "validation": ["b", "d"]}, persons, "p.csv")
