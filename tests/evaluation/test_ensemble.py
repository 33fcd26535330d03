"""Combinations against their definitions, their scores in and out of fold, and every refusal."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import rankdata
from toy_tracks import KINDS, NUMBERS, SWITCHES, draw_labels, draw_member

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import align
from abaw_jax.evaluation.combination import METHODS, TUNED, Combination, apply
from abaw_jax.evaluation.ensemble import (
    compare_with_best,
    evaluate_ensemble,
    label_rows,
    score_members,
)
from abaw_jax.evaluation.folds import make_folds
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.thresholds import search_thresholds
from abaw_jax.tracks import EXPR

NOISE = {"EXPR": (1.0, 1.3, 1.6), "NUMBERS": (0.4, 0.5, 0.6), "SWITCHES": (0.6, 0.8, 1.0)}
FREE = ("average", "rank", "vote")


def case(track, seed=0, noise=None, videos=12, rows=60):
    rng = np.random.default_rng(seed)
    labels = draw_labels(track, rng, videos, rows)
    members = {
        f"m{i}": draw_member(track, labels, rng, n)
        for i, n in enumerate(noise or NOISE[track.name])
    }
    return members, labels


def run(track, members, labels, method, folds=4, **options):
    aligned = align(members, track)
    labelled = label_rows(aligned, labels, track)
    chosen = make_folds(labelled.frames(aligned), folds)
    return evaluate_ensemble(aligned, labelled, track, method, chosen, progress=False, **options)


def drop(members, seed):
    """Take videos and frames from some members."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, (name, videos) in enumerate(members.items()):
        found[name] = {}
        for v, (video, p) in enumerate(videos.items()):
            keep = rng.random(len(p.frames)) < (1 if i == 0 else 0.8)
            if i == 0 or (v + i) % 5:
                found[name][video] = Prediction(p.frames[keep], p.values[keep])
    return found


# --- the methods that look at no label


def test_average_is_the_mean_of_those_present():
    members, _ = case(SWITCHES)
    aligned = align(drop(members, 1), SWITCHES)
    assert not aligned.present.all()
    found = apply(Combination("average", aligned.members), aligned, SWITCHES)
    here = aligned.present[..., None]
    want = (aligned.values * here).sum(0) / here.sum(0)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", ["EXPR", "SWITCHES"])
def test_vote_is_the_majority_and_the_average_settles_draws(name):
    track = KINDS[name]
    members, _ = case(track, noise=(2.0, 2.0, 2.0, 2.0))
    aligned = align(members, track)
    found = track.decode(apply(Combination("vote", aligned.members), aligned, track))
    average = aligned.values.mean(0)
    draws = 0
    for row in range(len(found)):
        votes = [track.decode(member[row : row + 1])[0] for member in aligned.values]
        if name == "EXPR":
            counts = np.bincount(np.concatenate(votes), minlength=8)
            best = np.flatnonzero(counts == counts.max())
            draws += len(best) > 1
            assert found[row, 0] == best[np.argmax(average[row, best])]
        else:
            ones = np.sum(votes, axis=0)
            draws += (ones == 2).any()
            want = np.where(ones == 2, average[row] >= 0.5, ones > 2)
            np.testing.assert_array_equal(found[row], want)
    assert draws > 20


def test_an_absent_member_does_not_vote():
    three = np.eye(8, dtype=np.float32)[[[0], [1], [1]]]
    members = {
        f"m{i}": {"v": Prediction(np.array([1, 2]), np.repeat(p, 2, 0))}
        for i, p in enumerate(three)
    }
    members["m2"]["v"] = Prediction(np.array([2]), three[2])
    members["m0"]["v"].values[0] = [0.6, 0.3, *[0.1 / 6] * 6]
    members["m1"]["v"].values[0] = [0.2, 0.8, *[0] * 6]
    aligned = align(members, EXPR)
    found = apply(Combination("vote", aligned.members), aligned, EXPR)
    assert EXPR.decode(found)[:, 0].tolist() == [1, 1]  # a draw by 0.4 : 0.55, then 2 : 1
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_rank_average_orders_by_mean_rank_and_keeps_the_members_mean_distribution():
    members, _ = case(NUMBERS)
    aligned = align(members, NUMBERS)
    found = apply(Combination("rank", aligned.members), aligned, NUMBERS)
    for k in range(2):
        joint = np.sum([rankdata(member[:, k]) for member in aligned.values], axis=0)
        order = np.argsort(joint, kind="stable")
        assert (np.diff(found[order, k]) >= 0).all()
        want = np.sort(aligned.values[:, :, k], axis=1).mean(axis=0)
        untied = np.unique(joint, return_counts=True)[1].max() == 1
        np.testing.assert_allclose(np.sort(found[:, k]), want, atol=1e-6 if untied else 0.02)


def test_rank_average_does_not_feel_a_members_scale():
    members, _ = case(SWITCHES)
    before = align(members, SWITCHES)
    found = apply(Combination("rank", before.members), before, SWITCHES)
    # The same ranks on other scales that have the same mean distribution: swap two members' scales.
    swapped = before.values.copy()
    for k in range(3):
        for m, other in ((0, 1), (1, 0)):
            order = np.argsort(before.values[m, :, k], kind="stable")
            swapped[m, order, k] = np.sort(before.values[other, :, k])
    before.values[:] = swapped
    np.testing.assert_allclose(
        apply(Combination("rank", before.members), before, SWITCHES), found, atol=1e-5
    )
    same = {"a": members["m0"], "b": members["m0"]}
    aligned = align(same, SWITCHES)
    back = apply(Combination("rank", aligned.members), aligned, SWITCHES)
    np.testing.assert_allclose(back, aligned.values[0], atol=1e-6)


def test_scenes_weigh_members_by_their_probability():
    members, labels = case(SWITCHES, videos=6)
    scenes = {"m0": "day", "m1": "night"}
    shares = {v: {"day": i / 5, "night": 1 - i / 5} for i, v in enumerate(labels)}
    aligned = align(members, SWITCHES)
    combination = Combination("scenes", aligned.members, scenes=scenes)
    found = apply(combination, aligned, SWITCHES, shares)
    for i, video in enumerate(labels):
        weights = np.array([i / 5, 1 - i / 5, 1]) / 2
        want = np.einsum("m,mnk->nk", weights, aligned.values[:, aligned.rows(i)])
        np.testing.assert_allclose(aligned_part(aligned, found, video), want, rtol=1e-5)
    # Of the two that have a scene, none fits here: both count alike.
    two = align({k: members[k] for k in scenes}, SWITCHES)
    nowhere = {v: {"cave": 1.0, "day": 0.0, "night": 0.0} for v in labels}
    found = apply(Combination("scenes", two.members, scenes=scenes), two, SWITCHES, nowhere)
    np.testing.assert_allclose(found, two.values.mean(0), rtol=1e-5)


def aligned_part(aligned, values, video):
    return aligned.by_video(values)[video].values


def test_scenes_that_do_not_fit_are_refused():
    members, labels = case(SWITCHES, videos=3)
    aligned = align(members, SWITCHES)
    shares = {v: {"day": 0.5, "night": 0.5} for v in labels}

    def attempt(scenes, shares):
        return apply(
            Combination("scenes", aligned.members, scenes=scenes), aligned, SWITCHES, shares
        )

    with pytest.raises(InputError, match="no member has a scene"):
        attempt({}, shares)
    with pytest.raises(InputError, match="scene day of m9; the members are m0, m1, m2"):
        attempt({"m9": "day"}, shares)
    with pytest.raises(InputError, match="scene 'dawn' is no video's; these are: day, night"):
        attempt({"m0": "dawn"}, shares)
    shares.pop("video01")
    with pytest.raises(InputError, match="video01 has no scene"):
        attempt({"m0": "day"}, shares)


# --- scores, tuned and out of fold


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("method", ["average", "weights", "rank", "stacking"])
def test_an_ensemble_beats_each_member_out_of_fold(name, method):
    track = KINDS[name]
    members, labels = case(track)
    result = run(track, members, labels, method)
    aligned = align(members, track)
    alone = score_members(aligned, label_rows(aligned, labels, track), track)
    assert result.cross_validated.score > max(m["score"] for m in alone.values()) + 0.01
    assert len(result.folds) == 4


@pytest.mark.parametrize("method", FREE)
def test_without_tuning_both_scores_are_one(method):
    members, labels = case(EXPR)
    result = run(EXPR, members, labels, method)
    assert result.tuned.score == result.cross_validated.score
    np.testing.assert_array_equal(result.tuned.confusion, result.cross_validated.confusion)
    assert result.combination.coefficients is None


@pytest.mark.parametrize("method", TUNED)
@pytest.mark.parametrize("seed", range(3))
def test_tuning_on_noise_shows_in_the_tuned_score_alone(method, seed):
    rng = np.random.default_rng(seed)
    labels = draw_labels(EXPR, rng, videos=10, rows=40)
    others = draw_labels(EXPR, rng, videos=10, rows=40, invalid=0)
    members = {f"m{i}": draw_member(EXPR, others, rng, 1.0) for i in range(6)}
    result = run(EXPR, members, labels, method, folds=3)
    # Both mostly see out of fold that there is nothing, and stay near the average.
    assert result.cross_validated.score <= result.tuned.score
    assert result.cross_validated.score < 0.2


@pytest.mark.parametrize("method", TUNED)
def test_no_fold_is_scored_by_what_it_was_fitted_on(method):
    """Turning one fold's labels leaves the combination that scores it as it was."""
    members, labels = case(SWITCHES)
    aligned = align(members, SWITCHES)
    labelled = label_rows(aligned, labels, SWITCHES)
    folds = make_folds(labelled.frames(aligned), 4)
    before = evaluate_ensemble(aligned, labelled, SWITCHES, method, folds)
    turned = {
        v: np.where(rows >= 0, 1 - rows, rows) if folds.get(v) == 2 else rows
        for v, rows in labels.items()
    }
    after = evaluate_ensemble(
        aligned, label_rows(aligned, turned, SWITCHES), SWITCHES, method, folds
    )
    truth = np.concatenate([labels[v] for v in sorted(labels) if folds[v] == 2])
    truth = truth[SWITCHES.valid(truth)]
    # Hits and false alarms of the turned fold come from the same predictions.
    predicted = predictions_of_fold(aligned, labelled, folds, 2, method)
    for result, rows in ((before, truth), (after, 1 - truth)):
        want = SWITCHES.summary(SWITCHES.statistics(predicted, rows)).score
        assert result.folds[2] == pytest.approx(want, abs=1e-12)


def predictions_of_fold(aligned, labelled, folds, fold, method):
    """Fitted on a case that lacks the fold altogether, by hand."""
    from abaw_jax.evaluation.stacking import make_stacking
    from abaw_jax.evaluation.weights import Weighting

    of_row = np.array([folds[v] for v in aligned.videos])[labelled.videos]
    rest = of_row != fold
    values = aligned.values[:, labelled.index[rest]]
    make = {"weights": Weighting, "stacking": make_stacking}[method]
    renumbered = np.unique(of_row[rest], return_inverse=True)[1]
    found, _ = make(values, labelled.labels[rest], renumbered, SWITCHES).fit()
    whole = apply(Combination(method, aligned.members, found), aligned, SWITCHES)
    return SWITCHES.decode(whole[labelled.index[~rest]])


@pytest.mark.parametrize("method", METHODS)
def test_order_of_members_and_videos_changes_nothing(method):
    members, labels = case(EXPR, videos=8, rows=30)
    members = drop(members, 3)
    shares = {v: {"day": (i + 1) / 9, "night": 1 - (i + 1) / 9} for i, v in enumerate(labels)}
    options = {"scenes": {"m0": "day", "m2": "night"}, "probabilities": shares}
    options = options if method == "scenes" else {}
    first = run(EXPR, members, labels, method, **options)
    turned = {name: dict(reversed(members[name].items())) for name in reversed(members)}
    second = run(EXPR, turned, dict(reversed(labels.items())), method, **options)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.tuned.score == second.tuned.score and first.folds == second.folds
    assert first.cross_validated.score == second.cross_validated.score
    assert np.isfinite(first.values).all() and first.values.dtype == np.float32


def test_scores_are_of_the_values_that_are_returned():
    for track in KINDS.values():
        members, labels = case(track)
        for method in ("weights", "stacking"):
            result = run(track, members, labels, method)
            aligned = align(members, track)
            parts = [
                track.evaluate(track.decode(p.values), labels[v])
                for v, p in aligned.by_video(result.values).items()
            ]
            assert track.summary(sum(parts)).score == pytest.approx(result.tuned.score, abs=1e-12)


def test_a_member_without_labelled_frames_and_missing_folds_are_refused():
    members, labels = case(EXPR, videos=4)
    members["m3"] = {"more": members["m0"]["video00"]}
    members["m0"]["more"] = members["m0"]["video00"]
    aligned = align(members, EXPR)
    with pytest.raises(InputError, match="member m3: has no labelled frame"):
        label_rows(aligned, labels, EXPR)
    members, labels = case(EXPR, videos=4)
    aligned = align(members, EXPR)
    labelled = label_rows(aligned, labels, EXPR)
    folds = make_folds(labelled.frames(aligned), 2)
    with pytest.raises(InputError, match="expected one of average, weights"):
        evaluate_ensemble(aligned, labelled, EXPR, "median", folds)
    for method in TUNED:
        with pytest.raises(InputError, match="give 3 folds at least"):
            evaluate_ensemble(aligned, labelled, EXPR, method, folds)
    with pytest.raises(InputError, match="EXPR is not decided by thresholds"):
        evaluate_ensemble(aligned, labelled, EXPR, "average", folds, thresholds=True)
    del folds["video02"]
    with pytest.raises(InputError, match="video02 has no fold"):
        evaluate_ensemble(aligned, labelled, EXPR, "average", folds)


def test_numbers_cannot_vote():
    members, labels = case(NUMBERS, videos=4)
    with pytest.raises(InputError, match="NUMBERS predicts numbers"):
        run(NUMBERS, members, labels, "vote")


def test_members_are_scored_on_their_own_frames():
    members, labels = case(EXPR, videos=4)
    members = drop(members, 0)
    aligned = align(members, EXPR)
    found = score_members(aligned, label_rows(aligned, labels, EXPR), EXPR)
    for name, videos in members.items():
        parts = [
            EXPR.evaluate(EXPR.decode(p.values), labels[v][p.frames - 1]) for v, p in videos.items()
        ]
        assert found[name]["score"] == EXPR.summary(sum(parts)).score
        assert found[name]["frames"] == sum(parts).sum()


@pytest.mark.parametrize("method", ["average", "weights"])
def test_thresholds_are_chosen_with_the_combination_and_out_of_fold(method):
    """Of each fold by the other folds' rows alone; the values are moved so that 0.5 decides."""
    members, labels = case(SWITCHES)
    for videos in members.values():  # the third unit is too low
        for p in videos.values():
            p.values[:, 2] *= 0.5
    plain = run(SWITCHES, members, labels, method)
    result = run(SWITCHES, members, labels, method, thresholds=True)
    assert result.combination.thresholds[2] < 0.35
    assert plain.cross_validated.score + 0.1 < result.cross_validated.score
    assert result.cross_validated.score < result.tuned.score
    aligned = align(members, SWITCHES)
    labelled = label_rows(aligned, labels, SWITCHES)
    fold = np.array([make_folds(labelled.frames(aligned), 4)[v] for v in aligned.videos])
    fold = fold[labelled.videos]
    for f, found in enumerate(result.without):
        combined = apply(dataclasses.replace(found, thresholds=None), aligned, SWITCHES)
        rest = labelled.index[fold != f], labelled.labels[fold != f]
        np.testing.assert_array_equal(
            found.thresholds, search_thresholds(combined[rest[0]], rest[1], 0.5)
        )
        mine = combined[labelled.index[fold == f]] >= found.thresholds
        statistics = SWITCHES.statistics(mine.astype(np.int32), labelled.labels[fold == f])
        assert result.folds[f] == SWITCHES.summary(statistics).score
    record = json.loads(json.dumps(result.combination.record(SWITCHES)))
    again = apply(Combination.load(record, SWITCHES, "e.json"), aligned, SWITCHES)
    np.testing.assert_array_equal(again, result.values)
    with pytest.raises(InputError, match="e.json: 2 thresholds; expected 3"):
        Combination.load({**record, "thresholds": [0.5, 0.5]}, SWITCHES, "e.json")
    old = {key: value for key, value in record.items() if key != "thresholds"}
    assert Combination.load(old, SWITCHES, "e.json").thresholds is None


def test_against_the_best_member():
    members, labels = case(SWITCHES)
    result = run(SWITCHES, members, labels, "weights")
    aligned = align(members, SWITCHES)
    labelled = label_rows(aligned, labels, SWITCHES)
    alone = score_members(aligned, labelled, SWITCHES)
    member, found = compare_with_best(result, aligned, labelled, SWITCHES)
    assert member == max(alone, key=lambda name: alone[name]["score"])
    assert found.a == pytest.approx(result.cross_validated.score)
    assert found.b == pytest.approx(alone[member]["score"])
    assert found.difference.low < found.difference.value < found.difference.high
    persons = {video: "p" if number < 3 else video for number, video in enumerate(aligned.videos)}
    _, by_person = compare_with_best(result, aligned, labelled, SWITCHES, persons)
    assert by_person.difference.value == found.difference.value
    assert by_person.difference.low != found.difference.low


# --- stored and used again


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_combination_gives_the_same_values(method):
    members, labels = case(SWITCHES, videos=6, rows=30)
    shares = {v: {"day": 0.25, "night": 0.75} for v in labels}
    options = {"scenes": {"m0": "day", "m2": "night"}, "probabilities": shares}
    result = run(SWITCHES, members, labels, method, **(options if method == "scenes" else {}))
    record = json.loads(json.dumps(result.combination.record(SWITCHES), allow_nan=False))
    loaded = Combination.load(record, SWITCHES, "e.json")
    again = apply(loaded, align(members, SWITCHES), SWITCHES, shares)
    np.testing.assert_array_equal(again, result.values)


def test_a_stored_sum_of_numbers_is_matched_as_it_was():
    members, labels = case(NUMBERS, videos=6, rows=30)
    members = {  # unsure ones
        name: {v: Prediction(p.frames, p.values * np.float32(0.4)) for v, p in found.items()}
        for name, found in members.items()
    }
    result = run(NUMBERS, members, labels, "weights")
    record = json.loads(json.dumps(result.combination.record(NUMBERS), allow_nan=False))
    assert record["matching"]["scale"] != [1, 1]
    loaded, aligned = Combination.load(record, NUMBERS, "e.json"), align(members, NUMBERS)
    np.testing.assert_array_equal(apply(loaded, aligned, NUMBERS), result.values)
    plain = apply(dataclasses.replace(loaded, matching=None), aligned, NUMBERS)
    assert not np.allclose(plain, result.values, atol=1e-3)
    older = Combination.load(record | {"matching": None}, NUMBERS, "e.json")
    np.testing.assert_array_equal(apply(older, aligned, NUMBERS), plain)
    short = {"scale": [1.0], "shift": [0.0, 0.0]}
    with pytest.raises(InputError, match="1 scales and 2 shifts; expected 2 of each"):
        Combination.load(record | {"matching": short}, NUMBERS, "e.json")
    with pytest.raises(InputError, match="KeyError 'shift'"):
        Combination.load(record | {"matching": {"scale": [1, 1]}}, NUMBERS, "e.json")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ["AU2", "AU1", "AU4"]}, "combines AU2,AU1,AU4; SWITCHES has AU1,AU2,AU4"),
        ({"track": "EXPR"}, "combines"),
        ({"method": "median"}, "method 'median'"),
        ({"members": ["m0", "m1"]}, "expected \\(2, 3\\) for 2 members"),
        ({"coefficients": None}, "shape None; expected \\(3, 3\\)"),
        ({"coefficients": [["a"]]}, "is no stored ensemble \\(ValueError"),
        ({"settings": None}, "is no stored ensemble \\(TypeError"),
    ],
)
def test_damaged_records_are_refused(change, message):
    record = Combination("weights", ("m0", "m1", "m2"), np.eye(3)).record(SWITCHES)
    assert Combination.load(record, SWITCHES, "e.json").method == "weights"
    with pytest.raises(InputError, match=message) as error:
        Combination.load({**record, **change}, SWITCHES, "e.json")
    assert str(error.value).startswith("e.json: ")
    del record["members"]
    with pytest.raises(InputError, match="KeyError 'members'"):
        Combination.load(record, SWITCHES, "e.json")


def test_other_members_are_refused():
    members, _ = case(SWITCHES, videos=3)
    aligned = align(members, SWITCHES)
    with pytest.raises(InputError, match="members m0, m1, m2; the ensemble was made of m0, m1"):
        apply(Combination("average", ("m0", "m1")), aligned, SWITCHES)
