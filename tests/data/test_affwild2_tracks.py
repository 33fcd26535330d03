"""The Aff-Wild2 reader with several tracks, whose training, validation and test sets differ."""

import corpus_trees
import numpy as np
import pytest

from abaw_jax.data.corpora import affwild2, mtl
from abaw_jax.data.records import index_of
from abaw_jax.errors import InputError

ROWS = {"VA": "0.5,0.25", "AU": ",".join("01" * 6)}
FOLDERS = {"VA": "VA_Estimation_Challenge", "AU": "AU_Detection_Challenge"}


def add(tree, track, split, video, rows):
    lines = ["header", *[ROWS[track]] * rows]
    path = tree.annotations / FOLDERS[track] / f"{split}_Set" / f"{video}.txt"
    return corpus_trees.write(path, "\n".join(lines))


@pytest.fixture
def tree(tmp_path):
    """EXPR trains on video10_1_left and 28-30-1280x720-4, validates 9_right, tests video45_1."""
    tree = corpus_trees.small_affwild2(tmp_path)
    add(tree, "VA", "Train", "video10_1_left", 8)  # EXPR has 7
    add(tree, "VA", "Train", "9_right", 5)
    add(tree, "VA", "Train", "video45_1", 7)
    add(tree, "VA", "Train", "only_va", 4)
    add(tree, "VA", "Validation", "28-30-1280x720-4", 4)
    add(tree, "AU", "Train", "video10_1_left", 6)
    add(tree, "AU", "Train", "only_au", 3)
    add(tree, "AU", "Validation", "9_right", 5)
    add(tree, "AU", "Validation", "only_va", 4)
    add(tree, "AU", "Validation", "nobody_trains", 4)
    for video in ("only_va", "only_au", "nobody_trains"):
        tree.images(video, [1, 2, 3])
    return tree


def read(tree, **changes):
    return affwild2.read(**{**tree.arguments, "also": ("va", "au"), **changes})


def valid(video):
    """Track -> how many of the video's rows have its label."""
    marks = {"expr": -1, "va": -5, "au": -1}
    return {key: int((rows != marks[key]).all(1).sum()) for key, rows in video.labels.items()}


def test_the_main_tracks_split_decides(tree):
    train, validation, test = read(tree)
    found = {video.name: valid(video) for video in train.videos}
    assert found == {
        "28-30-1280x720-4": {"expr": 3, "va": 0, "au": 0},  # VA validates it
        "video10_1_left": {"expr": 6, "va": 7, "au": 6},
        "only_va": {"expr": 0, "va": 4, "au": 0},  # AU validates it
        "only_au": {"expr": 0, "va": 0, "au": 3},
    }
    # VA trains on it, EXPR does not: in validation it has no label that was trained on elsewhere.
    (video,) = validation.videos
    assert video.name == "9_right" and valid(video) == {"expr": 5, "va": 0, "au": 5}
    assert [v.name for v in test.videos] == ["video45_1"] and test.videos[0].labels == {}


def test_people_of_a_judged_recording_are_not_trained_on(tree):
    """EXPR validates 9_right: what VA trains on of the same recording shows the same room."""
    add(tree, "VA", "Train", "9_left", 3)
    add(tree, "VA", "Train", "video10_1_right", 3)  # EXPR trains on the other person
    for video in ("9_left", "video10_1_right"):
        tree.images(video, [1, 2, 3])
    train = read(tree)[0]
    names = {video.name for video in train.videos}
    assert "9_left" not in names and "video10_1_right" in names
    assert train.skipped["videos_of_further_tracks"] == 1


def test_rows_are_as_many_as_the_main_tracks(tree):
    video = next(v for v in read(tree)[0].videos if v.name == "video10_1_left")
    assert video.rows == 7 and {len(rows) for rows in video.labels.values()} == {7}
    np.testing.assert_array_equal(video.labels["va"], np.tile(np.float32([0.5, 0.25]), (7, 1)))
    assert video.labels["au"].dtype == np.int32
    np.testing.assert_array_equal(video.labels["au"][5:], [[0, 1] * 6, [-1] * 12])
    path = add(tree, "AU", "Train", "video10_1_left", 20)
    with pytest.raises(InputError) as caught:
        read(tree, max_unmatched=12)
    corpus_trees.one_line(caught, path, "20 rows", "has 7 in another track")


def test_one_track_alone_reads_as_before(tree):
    alone = affwild2.read(**tree.arguments)
    for split, other in zip(alone, read(tree), strict=True):
        kept = [video for video in other.videos if not video.name.startswith("only")]
        for one, two in zip(split.videos, kept, strict=True):
            assert one.labels.keys() <= {"expr"} and one.frames == two.frames
            for key in one.labels:
                np.testing.assert_array_equal(one.labels[key], two.labels[key])
    index = index_of(read(tree)[0])
    assert set(index.labels) == {"va", "expr", "au"} and len(index.labels["va"]) == 7 + 4 + 4 + 3


def test_without_a_test_set_no_video_is_added(tree):
    train, _ = read(tree, test_list="", test_example="")
    assert {video.name for video in train.videos} == {"28-30-1280x720-4", "video10_1_left"}
    assert train.skipped["videos_of_further_tracks"] == 3  # video45_1, which EXPR tests, is one
    assert len(read(tree, test_example="")[0].videos) == 4
    assert "videos_of_further_tracks" not in read(tree)[0].skipped


def test_faults_are_named(tree):
    for also, words in (
        (("vaa",), "also: 'vaa'; expected tracks beside expr: va, au, ce"),
        (("expr",), "also: 'expr'; expected tracks beside expr"),
        (("emi",), "also: 'emi'; expected"),
        (("ce",), "holds neither CE_*/Train_Set nor CE_*/Validation_Set"),
    ):
        with pytest.raises(InputError) as caught:
            read(tree, also=also)
        corpus_trees.one_line(caught, words)
    with pytest.raises(InputError, match=r"Train_Set: is of one track, and labels of va"):
        read(tree, annotations=tree.folder)
    path = add(tree, "VA", "Validation", "only_va", 4)
    with pytest.raises(InputError) as caught:
        read(tree)
    corpus_trees.one_line(caught, path, "only_va is in validation", "train")
    path.unlink()
    for image in (tree.roots[0] / "only_au").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"only_au.txt: video only_au has an empty folder"):
        read(tree)


def test_the_multi_task_corpus_has_three_tracks(tmp_path):
    with pytest.raises(InputError, match="also: 'ce'; s-Aff-Wild2 has va, expr, au"):
        mtl.read(tmp_path, tmp_path, also=("va", "ce"))
