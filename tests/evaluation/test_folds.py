"""Folds: recordings and persons stay together, sizes are alike, order does not matter."""

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import (
    given_folds,
    group_videos,
    make_folds,
    read_columns,
    read_mapping,
    recording,
)

LONG = "9" * 131_073  # a character more than the csv module reads as one cell


@pytest.mark.parametrize(
    "video, found",
    [
        ("video10_1_left", "video10_1"),
        ("video10_1_right", "video10_1"),
        ("video45_1", "video45_1"),
        ("28-30-1280x720-4", "28-30-1280x720-4"),
        ("left", "left"),
        ("_left", "_left"),
        ("a_left_2", "a_left_2"),
    ],
)
def test_only_the_two_endings_are_taken_off(video, found):
    assert recording(video) == found


def brute_groups(videos, persons):
    """Merge sets that meet until none do."""
    sets = [{v, *(w for w in videos if same(v, w, persons))} for v in videos]
    while True:
        for a in sets:
            for b in sets:
                if a is not b and a & b:
                    sets.remove(b)
                    a |= b
                    break
            else:
                continue
            break
        else:
            return {v: tuple(sorted(next(s for s in sets if v in s))) for v in videos}


def same(v, w, persons):
    return recording(v) == recording(w) or persons[v] == persons[w]


@pytest.mark.parametrize("seed", range(20))
def test_groups_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    videos = [f"r{i}{end}" for i in range(10) for end in ("", "_left", "_right")]
    videos = list(rng.permutation(videos)[:16])
    persons = {v: f"p{rng.integers(12)}" for v in videos}
    assert group_videos(videos, persons) == brute_groups(videos, persons)
    alone = {v: v for v in videos}
    assert group_videos(videos) == brute_groups(videos, alone)


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_and_balance_frames_in_any_order(seed):
    rng = np.random.default_rng(seed)
    videos = [f"r{i}{end}" for i in range(30) for end in ("_left", "_right")]
    frames = {v: int(rng.integers(1, 100)) for v in videos}
    folds = make_folds(frames, 5)
    assert all(folds[f"r{i}_left"] == folds[f"r{i}_right"] for i in range(30))
    load = [sum(frames[v] for v in videos if folds[v] == f) for f in range(5)]
    assert max(load) - min(load) <= 200 and set(folds.values()) == set(range(5))
    shuffled = {v: frames[v] for v in rng.permutation(videos)}
    assert make_folds(shuffled, 5) == folds
    assert list(make_folds(shuffled, 5)) == sorted(videos)


def test_fewer_groups_than_folds_and_too_few():
    assert make_folds({"a": 3, "b": 2, "c": 1}, 5) == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(InputError, match="needs 2 of both"):
        make_folds({"a_left": 3, "a_right": 2})
    with pytest.raises(InputError, match="needs 2 of both"):
        make_folds({"a": 3, "b": 2}, persons={"a": "p", "b": "p"})
    with pytest.raises(InputError, match="1 folds"):
        make_folds({"a": 3, "b": 2}, 1)
    with pytest.raises(InputError, match="video b has no person"):
        make_folds({"a": 3, "b": 2}, persons={"a": "p"})


def test_given_folds():
    frames = {"b_left": 1, "a": 2, "b_right": 3}
    names = {"a": "x", "b_left": "w", "b_right": "w", "unlabelled": "q"}
    assert given_folds(frames, names) == {"a": 1, "b_left": 0, "b_right": 0}
    with pytest.raises(InputError, match="b_left and b_right .* folds w and x"):
        given_folds(frames, {**names, "b_right": "x"})
    with pytest.raises(InputError, match="one recording or person"):
        given_folds(frames, names, {"a": "p", "b_left": "p", "b_right": "q"})
    with pytest.raises(InputError, match="video a has no fold"):
        given_folds(frames, {"b_left": "w", "b_right": "w"})
    with pytest.raises(InputError, match="all videos lie in fold w"):
        given_folds(frames, dict.fromkeys(frames, "w"))


def test_tables_of_other_systems_are_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbfVideo,person\r\n"a,b",p1\r\n\r\nc , "p2"\r\n')
    assert read_mapping(path, "person") == {"a,b": "p1", "c": "p2"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("video,fold\na,1\n", ":1: header 'video,fold'; expected video,person"),
        ("video,person\na\n", ":2: 'a'; expected video,person"),
        ("video,person\na,\n", ":2: 'a,'"),
        ("video,person\na,p\nb,q,r\n", ":3: 'b,q,r'"),
        ("video,person\na,p\nb,q\na,r\n", ":4: video a stands here a second time"),
        ("video,person\n", "no row below"),
        ("", ":1: header ''"),
        pytest.param(f"video,person\na,p\nb,{LONG}\n", ":3: 'b,9999", id="long cell"),
        pytest.param(f"{LONG},person\n", ":1: '9999", id="long name"),
    ],
)
def test_bad_tables_are_refused_with_their_line(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_mapping(path, "person")
    assert message in str(error.value) and str(path) in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        read_columns(tmp_path / "absent.csv", ("video", "person"))
