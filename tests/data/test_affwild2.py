"""The Aff-Wild2 reader against a tree with the published layout's irregularities."""

import dataclasses
import subprocess
import sys

import corpus_trees
import numpy as np
import pytest

from abaw_jax.data.corpora import affwild2, read_corpus
from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR, TRACKS


@pytest.fixture
def tree(tmp_path):
    return corpus_trees.small_affwild2(tmp_path)


def read(tree, **changes):
    return affwild2.read(**{**tree.arguments, **changes})


def refused(tree, *words, **changes):
    """The reader's error, which must be one line and hold all the words."""
    with pytest.raises(InputError) as caught:
        read(tree, **changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message
    return message


def numbers(video):
    return [n for n, _ in video.frames]


def test_layout(tree):
    train, validation, test = read(tree)
    assert [s.name for s in (train, validation, test)] == ["train", "validation", "test"]
    assert [v.name for v in train.videos] == ["28-30-1280x720-4", "video10_1_left"]
    second = train.videos[1]
    assert numbers(second) == [3, 4, 6] and second.rows == 7
    assert second.frames[2][1] == str(tree.roots[0] / "video10_1_left" / "00006.jpg")
    assert second.labels["expr"].dtype == np.int32
    assert second.labels["expr"].tolist() == [[0], [1], [2], [-1], [4], [5], [6]]
    assert train.videos[0].frames[0][1].startswith(str(tree.roots[1]))
    assert numbers(validation.videos[0]) == [1, 2, 3, 4] and validation.videos[0].rows == 5
    assert test.videos[0].rows == 7 and test.videos[0].labels == {}
    assert numbers(test.videos[0]) == [2, 5]


@pytest.mark.parametrize("folder", ["EXPR_Classification_Challenge", "EXPR_Set"])
def test_folder_names(tmp_path, folder):
    tree = corpus_trees.AffWild2(tmp_path, folder)
    tree.images("a", [1])
    tree.labels("Train", "a", [0, 0])
    (split,) = read(tree)
    assert split.videos[0].rows == 2
    assert read(tree, annotations=tree.folder)[0].videos[0].rows == 2
    (tree.annotations / "EXPR_Other" / "Train_Set").mkdir(parents=True)
    refused(tree, "EXPR_Other", folder, "all hold EXPR Train_Set")


def test_test_rows_come_from_the_example(tree):
    tree.test({"video45_1": 7}, example=False)
    tree.example.unlink()
    assert read(tree)[2].videos[0].rows == 5  # the last image
    tree.test({"video45_1": 4})
    video = read(tree)[2].videos[0]
    assert (video.rows, numbers(video), video.skipped) == (4, [2], {"surplus_images": 1})
    assert read(tree, test_list="")[2].videos[0].rows == 4
    assert len(read(tree, test_list="", test_example="")) == 2


def test_example_with_gaps_counts_to_its_last_frame(tree):
    lines = [
        f"image_location,{corpus_trees.HEADER}",
        "video45_1/00002.jpg,0",
        "video45_1/00009.jpg,1",
    ]
    corpus_trees.write(tree.example, "\n".join(lines))
    assert read(tree)[2].videos[0].rows == 9


def test_hidden_and_other_files(tree):
    folder = tree.roots[0] / "9_right"
    corpus_trees.write(folder / "._00001.jpg", b"x")
    corpus_trees.write(folder / ".DS_Store", b"x")
    corpus_trees.write(folder / "notes.txt", b"x")
    corpus_trees.write(folder / "00001 (1).jpg", b"x")
    corpus_trees.write(tree.folder / "Validation_Set" / "._9_right.txt", b"\xff\xfe")
    corpus_trees.write(tree.folder / "Validation_Set" / "readme.md", "x")
    corpus_trees.write(tree.roots[0] / ".DS_Store", b"x")
    (tree.roots[0] / "._9_right").mkdir()
    validation = read(tree)[1]
    assert validation.videos[0].skipped == {"hidden_files": 2, "other_files": 2}
    assert validation.skipped == {"hidden_files": 1, "other_files": 1}
    assert numbers(validation.videos[0]) == [1, 2, 3, 4]


def test_more_than_five_digits_sort_by_number(tree):
    tree.images("long", [99_999, 100_000, 100_001, 2])
    tree.labels("Train", "long", [1] * 100_002)
    video = next(v for v in read(tree, max_unmatched=10**6)[0].videos if v.name == "long")
    assert numbers(video) == [2, 99_999, 100_000, 100_001]


def test_unpadded_names_and_png(tree):
    folder = tree.roots[0] / "mixed"
    for name in ("2.jpg", "10.PNG", "9.jpeg"):
        corpus_trees.write(folder / name, corpus_trees.jpeg())
    tree.labels("Train", "mixed", [0] * 11)
    assert numbers(next(v for v in read(tree)[0].videos if v.name == "mixed")) == [2, 9, 10]


def test_surplus_images_are_dropped(tree):
    tree.images("9_right", [5, 6, 7])
    video = read(tree)[1].videos[0]
    assert numbers(video) == [1, 2, 3, 4, 5] and video.skipped == {"surplus_images": 2}


@pytest.mark.parametrize("header", ["Neutral,Anger", corpus_trees.HEADER + ",More", "", "-5 what"])
def test_header_is_not_parsed(tree, header):
    tree.labels("Validation", "9_right", [3, 3, 3, 3, -1], header)
    labels = read(tree)[1].videos[0].labels["expr"]
    assert labels.tolist() == [[3], [3], [3], [3], [-1]]


VA = dataclasses.replace(
    EXPR, name="VA", key="va", classes=("valence", "arousal"), folder_prefix="VA", label_width=2,
    label_type="float32", label_range=(-1, 1), invalid=-5,
)  # fmt: skip
AU = dataclasses.replace(
    EXPR, name="AU", key="au", folder_prefix="AU", label_width=12, label_range=(0, 1)
)


@pytest.mark.parametrize(("track", "row"), [(VA, "0.5,-5"), (AU, ",".join("01" * 6))])
def test_a_further_track_needs_its_facts_alone(tree, monkeypatch, track, row):
    monkeypatch.setitem(TRACKS, track.key, track)
    folder = tree.annotations / f"{track.name}_Estimation_Challenge" / "Train_Set"
    corpus_trees.write(folder / "9_right.txt", "\n".join(["header", *[row] * 5]))
    header = ",".join(("image_location", *track.classes))
    corpus_trees.write(tree.example, f"{header}\nvideo45_1/00007.jpg,0,0\n")
    train, test = read(tree, task=track.name)
    labels = train.videos[0].labels[track.key]
    assert labels.shape == (5, track.label_width) and labels.dtype == track.label_type
    assert test.videos[0].rows == 7
    # The track's own folder: `Validation_Set` begins with VA, `Audio` with AU.
    folder.rename(folder.with_name("Validation_Set"))
    (folder.parent / "Audio").mkdir()
    (split,) = read(tree, annotations=folder.parent, task=track.name, test_list="", test_example="")
    assert split.name == "validation"


def test_bad_rows_are_named(tree):
    path = tree.labels("Validation", "9_right", [3, 3, "happy"])
    assert refused(tree).startswith(f"{path}:4: 'happy'; ")
    path = tree.labels("Validation", "9_right", [])
    assert refused(tree, "no row").startswith(f"{path}: ")


def test_reading_imports_no_jax(tree):
    code = (
        "import sys\n"
        "from abaw_jax.data import demo, features, records, transforms, write\n"
        "from abaw_jax.data.corpora import read_corpus\n"
        f"splits = read_corpus('affwild2', **{tree.texts!r})\n"
        "print(len(splits), 'jax' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 False\n"), done.stderr


def test_missing_folders(tree, tmp_path):
    refused(tree, tmp_path / "nowhere", "does not exist", image_roots=(tmp_path / "nowhere",))
    refused(tree, "image_roots", image_roots=())
    refused(tree, "image_roots", image_roots=("",))
    refused(tree, tmp_path / "none", annotations=tmp_path / "none")
    refused(tree, tree.example, "is a file", annotations=tree.example)
    refused(tree, "annotations", annotations="")
    refused(tree, "EXPR_*/Train_Set nor EXPR_*/Validation_Set", annotations=tree.roots[0])
    refused(tree, "task 'MTL'", task="MTL")
    refused(tree, tmp_path / "no.txt", test_list=tmp_path / "no.txt")


def test_split_folder_without_labels(tree):
    for path in (tree.folder / "Validation_Set").iterdir():
        path.unlink()
    refused(tree, tree.folder / "Validation_Set", "holds no <video>.txt")


def test_track_without_images(tree):
    path = tree.labels("Train", "gone", [1, 1])
    refused(tree, path, "gone", "no folder", *tree.roots)
    (tree.roots[0] / "gone").mkdir()
    refused(tree, path, "gone", "an empty folder", *tree.roots)
    corpus_trees.write(tree.roots[0] / "gone" / ".DS_Store", b"x")
    refused(tree, path, "an empty folder")


def test_one_root_alone_misses_videos(tree):
    refused(tree, "28-30-1280x720-4", tree.roots[0], image_roots=tree.roots[0])


def test_video_in_two_roots(tree):
    tree.images("9_right", [1], which=1)
    refused(tree, "9_right", *tree.roots)
    for path in (tree.roots[1] / "9_right").iterdir():
        path.unlink()
    assert len(read(tree)) == 3  # an empty folder is not a second one


def test_a_root_named_twice_is_one_root(tree):
    assert len(read(tree, image_roots=(*tree.roots, tree.roots[0]))) == 3


def test_frame_number_twice_or_zero(tree):
    twin = corpus_trees.write(tree.roots[0] / "9_right" / "1.jpg", b"x")
    refused(tree, twin.parent, "frame 1", "00001.jpg")
    twin.rename(twin.with_name("00000.jpg"))
    refused(tree, twin.with_name("00000.jpg"), "from 1")


def test_video_on_both_sides(tree):
    path = tree.labels("Validation", "video10_1_left", [0] * 7)
    refused(tree, path, "video10_1_left", "train", "validation")


def test_recording_on_both_sides_is_printed(tree, capsys):
    read(tree)
    assert capsys.readouterr().out == ""
    tree.images("9_left", [1])
    tree.labels("Train", "9_left", [0, 1])
    assert len(read(tree)) == 3
    printed = capsys.readouterr().out
    assert "1 videos show a recording" in printed and "9_right of validation, 9_left" in printed


def test_test_video_in_training(tree):
    tree.test({"video45_1": 7, "9_right": 5})
    refused(tree, "9_right", "validation", "test", f"{tree.test_list}:2: ")


def test_list_and_example_contradict(tree):
    tree.images("other", [1])
    corpus_trees.write(tree.test_list, "video45_1\nother\n")
    refused(tree, f"{tree.test_list}:2: ", "other", tree.example)
    tree.test({"video45_1": 7, "other": 2})
    corpus_trees.write(tree.test_list, "video45_1\n")
    refused(tree, tree.example, "other", tree.test_list)


def test_test_list_faults(tree):
    tree.test({"video45_1": 7, "ghost": 3})
    refused(tree, f"{tree.test_list}:2: ", "ghost", *tree.roots)
    refused(tree, tree.example, "ghost", test_list="")
    corpus_trees.write(tree.test_list, "video45_1\n\nvideo45_1\n")
    refused(tree, f"{tree.test_list}:3: ", "line 1", test_example="")
    corpus_trees.write(tree.test_list, "\n\n")
    refused(tree, tree.test_list, "no video")


@pytest.mark.parametrize(
    "line", ["video45_1,0", "video45_1/x.jpg,0", "/00001.jpg,0", "v/00000.jpg,0", ""]
)
def test_example_faults(tree, line):
    lines = [f"image_location,{corpus_trees.HEADER}", "video45_1/00001.jpg,0", line]
    corpus_trees.write(tree.example, "\n".join([*lines, "video45_1/00003.jpg,0"]))
    refused(tree, f"{tree.example}:3: ")


def test_example_of_another_task(tree):
    corpus_trees.write(tree.example, "image_location,valence,arousal\nvideo45_1/00001.jpg,0,0\n")
    refused(tree, f"{tree.example}:1: ", "Neutral")
    corpus_trees.write(tree.example, "")
    refused(tree, f"{tree.example}:1: ")
    corpus_trees.write(tree.example, f"image_location,{corpus_trees.HEADER}\n")
    refused(tree, tree.example, "no line below")


def test_images_and_rows_that_do_not_belong_together(tree):
    images = tree.images("far", [1, 2, 3, 4, 5, 2000])
    path = tree.labels("Train", "far", [1] * 2)
    read(tree)  # a handful of surplus images is legal
    refused(tree, path, "far", "4 are beyond", max_unmatched=3)
    path = tree.labels("Train", "far", [1] * 3500)
    assert len(read(tree)[0].videos) == 3  # rows after the last image: a gap at the end
    images[-1].unlink()
    refused(tree, path, "3495 valid rows")
    tree.labels("Train", "far", [1] * 5 + [-1] * 3495)
    read(tree)  # nothing is said about those frames: nothing is lost
    tree.images("late", [50])
    path = tree.labels("Train", "late", [1] * 5)
    refused(tree, path, "late", "frame 50")


def test_read_corpus(tree):
    assert len(read_corpus("affwild2", **tree.texts)) == 3
    with pytest.raises(InputError, match=r"nearest is 'affwild2'.*rafdb"):
        read_corpus("afwild2")
    with pytest.raises(InputError, match="'anotations', nearest is 'annotations'"):
        read_corpus("affwild2", image_roots=(), anotations="x")
    with pytest.raises(InputError, match="'annotations' is missing"):
        read_corpus("affwild2", image_roots=())
