"""s-Aff-Wild2: one file of rows a split, labels of three tracks, images of Aff-Wild2's roots."""

import inspect

import numpy as np
import pytest
from corpus_trees import fill, refused, write

from abaw_jax.data import records
from abaw_jax.data.corpora import affwild2, mtl, read_corpus
from abaw_jax.tracks import TRACKS

HEADER = "image,valence,arousal,expression,aus"
ON = "1,0,0,0,0,0,1,0,0,0,1,0"
OFF = ",".join(["0"] * 12)
NO_UNITS = ",".join(["-1"] * 12)
TRAIN = [
    f"video45_1/00003.jpg,0.5,-0.25,4,{ON}",
    f"28-30-1280x720-4_left/00002.jpg,-5,0.5,0,{OFF}",  # -5 in one column only
    f"video45_1/00001.jpg,-5,-5,7,{NO_UNITS}",
    f"video45_1/00006.jpg,1,-1,-1,1,-1{OFF[3:]}",  # units partly -1
    f"28-30-1280x720-4_left/10001.jpg,0,0,2,{ON}",
]


class Tree:
    def __init__(self, root):
        self.roots = [root / "cropped_aligned", root / "cropped_aligned_new_50_vids"]
        self.annotations = root / "MTL"
        fill(self.roots[0] / "video45_1", "00003.jpg", "00006.jpg", "00009.jpg", "._00003.jpg")
        fill(self.roots[1] / "28-30-1280x720-4_left", "00002.jpg", "10001.jpg")
        fill(self.roots[0] / "video7", "00001.jpg")
        self.train = self.rows(TRAIN)
        self.rows([f"video7/00001.jpg,0,0,0,{OFF}"], "validation")

    def rows(self, rows, split="training", header=HEADER, end="\n"):
        path = self.annotations / f"{split}_set_annotations.txt"
        return write(path, end.join([header, *rows]) + end)

    def read(self, **options):
        return mtl.read(self.roots, self.annotations, **options)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_become_labels_of_three_tracks(tree, end):
    tree.rows(TRAIN, end=end)
    roots, annotations = [str(root) for root in tree.roots], str(tree.annotations)
    train, validation = read_corpus("mtl", image_roots=roots, annotations=annotations)
    assert (train.name, validation.name) == ("train", "validation")
    first, second = train.videos
    assert (first.name, first.rows) == ("video45_1", 6)
    assert [number for number, _ in first.frames] == [3, 6]  # 1 has no image, 9 no row
    assert first.skipped == {"hidden_files": 1, "unnamed_images": 1}
    none = [-5, -5]
    assert first.labels["va"].tolist() == [none, none, [0.5, -0.25], none, none, [1, -1]]
    assert first.labels["expr"].ravel().tolist() == [7, -1, 4, -1, -1, -1]
    assert first.labels["au"][[0, 2, 5]].tolist() == [
        [-1] * 12,
        [int(unit) for unit in ON.split(",")],
        [1, -1, *[0] * 10],
    ]
    assert {k: v.dtype for k, v in first.labels.items()} == {
        "va": np.float32,
        "expr": np.int32,
        "au": np.int32,
    }
    assert (second.name, second.rows) == ("28-30-1280x720-4_left", 10001)
    assert [number for number, _ in second.frames] == [2, 10001]
    assert second.labels["va"][1].tolist() == [-5, 0.5]
    assert second.labels["expr"][[1, 10000]].ravel().tolist() == [0, 2]
    assert validation.videos[0].labels["au"].tolist() == [[0] * 12]


@pytest.mark.parametrize("units", ['"{}"', "{}"])  # one cell of the header's five, or twelve
def test_cells_may_be_in_quotes(tree, units):
    wanted = tree.read()
    rows = []
    for row in TRAIN:
        *cells, last = row.split(",", 4)
        last = last if '"' in units else last.replace(",", '","').join('""')
        rows.append(",".join(f'"{cell}"' for cell in cells) + "," + units.format(last))
    tree.rows(rows, header=",".join(f'"{name}"' for name in HEADER.split(",")))
    for was, now in zip(wanted[0].videos, tree.read()[0].videos, strict=True):
        assert (now.name, now.rows, now.frames) == (was.name, was.rows, was.frames)
        for key in was.labels:
            np.testing.assert_array_equal(now.labels[key], was.labels[key])


def test_takes_what_the_prepare_stage_gives_affwild2():
    taken = [list(inspect.signature(read).parameters) for read in (mtl.read, affwild2.read)]
    assert taken[0] == taken[1]


def test_a_row_counts_for_each_track_that_it_labels(tree, tmp_path):
    records.write_corpus(tmp_path / "out", "mtl", tree.read(), progress=False)
    index = records.load_index(tmp_path / "out", "train")
    assert index.videos == ("video45_1", "28-30-1280x720-4_left")
    assert index.frames.tolist() == [3, 6, 2, 10001]
    valid = {key: TRACKS[key].valid(index.record_labels(key)) for key in index.labels}
    assert {key: rows.tolist() for key, rows in valid.items()} == {
        "va": [True, True, False, True],
        "expr": [True, False, True, True],
        "au": [True, False, True, True],
    }


def test_test_videos(tree, tmp_path):
    fill(tree.roots[0] / "9_right", "00002.jpg", "00005.jpg")
    names = write(tmp_path / "test.txt", "9_right\n")
    *_, test = tree.read(task="VA", test_list=names)
    assert (test.name, test.videos[0].rows, test.videos[0].labels) == ("test", 5, {})
    lines = "".join(f"9_right/{i:05d}.jpg,0,0\n" for i in range(1, 8))
    example = write(tmp_path / "example.txt", f"image_location,valence,arousal\n{lines}")
    *_, test = tree.read(task="VA", test_list=names, test_example=example)
    assert test.videos[0].rows == 7
    refused(lambda: tree.read(task="EXPR", test_example=example), example)
    refused(lambda: tree.read(task="CE"), "'CE'", "VA, EXPR, AU")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (f"video45_1/00004.jpg,0,0,0,{OFF},0", "17 columns"),
        ("video45_1/00004.jpg,0,0,0", "4 columns"),
        ("", "1 columns"),
        (f"video45_1/00004.jpg,1.5,0,0,{OFF}", "1.5,0"),
        (f"video45_1/00004.jpg,0,nan,0,{OFF}", "0,nan"),
        (f"video45_1/00004.jpg,0,0,8,{OFF}", "'8'"),
        (f"video45_1/00004.jpg,0,0,happy,{OFF}", "'happy'"),
        (f"video45_1/00004.jpg,0,0,0,2{OFF[1:]}", "'2,0"),
        (f"video45_1/00000.jpg,0,0,0,{OFF}", "00000.jpg"),
        (f"video45_1/x.jpg,0,0,0,{OFF}", "x.jpg"),
        (f"video45_1/99999999.jpg,0,0,0,{OFF}", "99999999.jpg"),
        (f"00001.jpg,0,0,0,{OFF}", "00001.jpg"),
        (f"a/video45_1/00001.jpg,0,0,0,{OFF}", "a/video45_1"),
        (f"video45_1/3.jpg,0,0,0,{OFF}", "line 2"),
        (f"absent/00001.jpg,0,0,0,{OFF}", "video absent has no folder"),
        (f'"video45_1/00004.jpg,0,0,0,{OFF}', "no line of a csv table"),
    ],
)
def test_faults_of_a_row(tree, row, word):
    path = tree.rows([*TRAIN, row, TRAIN[0].replace("00003", "00008")])
    refused(tree.read, f"{path}:7: ", word)


def test_faults_of_the_tree(tree):
    path = tree.rows(TRAIN[1:], header=TRAIN[0])
    refused(tree.read, f"{path}:1: ", "image,valence")
    tree.rows([])
    refused(tree.read, f"{path}:1: ", "the only one")
    path.write_bytes(b"\xff\xfe")
    refused(tree.read, path, "UTF-8")
    other = tree.rows([TRAIN[0]], "validation")
    tree.rows(TRAIN)
    refused(tree.read, f"{other}:2: ", "video45_1 is in validation", f"{path}:2", "in train")
    path.unlink()
    other.unlink()
    refused(tree.read, tree.annotations, "training_set_annotations.txt")
    refused(lambda: mtl.read([], tree.annotations), "image_roots")


def test_images_and_rows_that_do_not_belong_together(tree):
    rows = [f"video45_1/{i:05d}.jpg,0,0,0,{OFF}" for i in range(3, 8)]
    path = tree.rows(rows)
    assert len(tree.read()[0].videos[0].frames) == 2
    refused(lambda: tree.read(max_unmatched=2), f"{path}:2: ", "3 of the 5 rows", "max_unmatched")
    tree.rows([f"video45_1/00004.jpg,0,0,0,{OFF}"])
    refused(tree.read, f"{path}:2: ", "1 of the 1 rows")
