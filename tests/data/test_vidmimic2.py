"""The Hume-Vidmimic2 reader against a tree with the published layout's irregularities."""

import corpus_trees
import numpy as np
import pytest

from abaw_jax.data.corpora import read_corpus
from abaw_jax.data.records import decode_record, load_index, open_records, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.tracks import EMI

TRAIN = (
    '\ufeff"filename",ADMIRATION,amusement,Determination,"Empathic Pain",Excitement,joy\r\n'
    "7,0.333,0,0,0.5,0,0\r\n"  # an integer
    "00012,0,1,0,0,0,0.25\r\n"  # padded
    '"123456",0,0,0,0,0,0\r\n'  # quoted, of six digits
    "3, -5,-5,-5,-5,-5,-5\r\n"  # no label
    "4,0,0,0,0,0,1\r\n\r\n"  # an empty face folder; blank lines at the end
)
VALIDATION = (  # other columns, another order
    "Joy,Filename,Excitement,Empathic Pain,note,Determination,Amusement,Admiration\n"
    "0.1,20,0.2,0.3,long,0.4,0.5,0.6\n"
    "0,21,0,0,,0,0,0\n"  # no face folder
)
EXAMPLE = f"{EMI.header}\n31,0,0,0,0,0,0\n30,0,0,0,0,0,0\n"
TEST = "FILENAME,Joy\n00030,\n00031,\n"
IMAGES = {
    "face_images": {
        "00007": [1, 2, 10, 9],  # by number 1, 2, 9, 10: by name 1, 10, 2, 9
        "12": [0, 1],  # an unpadded folder; from 0
        "123456": [5],  # a late first face
        "00003": [1, 3],
        "00004": [],
        "00020": [2],
        "00099": [1],  # in no table
    },
    "test/face_images": {"00030": [1], "31": [1, 2]},
}


class Tree:
    """A Hume-Vidmimic2 tree in `root`; `arguments` are those of the reader."""

    def __init__(self, root):
        self.root = root
        texts = {"train": TRAIN, "valid": VALIDATION, "test": TEST, "example": EXAMPLE}
        for name, text in texts.items():
            corpus_trees.write(root / f"{name}_split.csv", text.encode())
        for place, clips in IMAGES.items():
            for clip, numbers in clips.items():
                (root / place / clip).mkdir(parents=True)
                for number in numbers:
                    self.image(place, clip, number)
        corpus_trees.write(root / "face_images" / "00007" / "._1.jpg", b"")
        corpus_trees.write(root / "face_images" / ".DS_Store", b"")
        corpus_trees.write(root / "face_images" / "00007" / "cover.jpg", corpus_trees.jpeg())
        (root / "face_images" / "previews").mkdir()

    def image(self, place, clip, number):
        image = corpus_trees.jpeg(number)
        return corpus_trees.write(self.root / place / clip / f"{number}.jpg", image)

    @property
    def arguments(self):
        return {
            "train_table": self.root / "train_split.csv",
            "validation_table": self.root / "valid_split.csv",
            "face_images": [self.root / place for place in IMAGES],
            "test_table": self.root / "test_split.csv",
            "test_example": self.root / "example_split.csv",
        }


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "corpus")


def read(tree, **changes):
    return read_corpus("vidmimic2", **{**tree.arguments, **changes})


def numbers(video):
    return [number for number, _ in video.frames]


def test_clips_of_every_kind(tree):
    splits = {split.name: {v.name: v for v in split.videos} for split in read(tree)}
    assert {name: list(clips) for name, clips in splits.items()} == {
        "train": ["00007", "00012", "123456", "00003", "00004"],
        "validation": ["00020", "00021"],
        "test": ["00031", "00030"],  # the example's order
    }
    train = splits["train"]
    assert {name: (numbers(v), v.rows) for name, v in train.items()} == {
        "00007": ([1, 2, 9, 10], 10),
        "00012": ([1, 2], 2),
        "123456": ([5], 5),
        "00003": ([1, 3], 3),
        "00004": ([], 1),
    }
    assert train["00007"].frames[3][1] == str(tree.root / "face_images" / "00007" / "10.jpg")
    assert train["00007"].skipped == {"hidden_files": 1, "other_files": 1}
    assert train["00004"].skipped == {"empty_folders": 1}
    assert splits["validation"]["00021"].skipped == {"absent_folders": 1}
    assert [numbers(v) for v in splits["test"].values()] == [[1, 2], [1]]
    assert all(v.labels == {} for v in splits["test"].values())


def test_each_row_of_a_clip_holds_its_label(tree):
    train, validation, _ = read(tree)
    for video in [*train.videos, *validation.videos]:
        label = video.labels["emi"]
        assert label.shape == (video.rows, 6) and label.dtype == np.float32
        assert (label == label[0]).all()
    rows = {v.name: v.labels["emi"][0] for v in [*train.videos, *validation.videos]}
    np.testing.assert_array_equal(rows["00007"], np.float32([0.333, 0, 0, 0.5, 0, 0]))
    np.testing.assert_array_equal(rows["00020"], np.float32([0.6, 0.5, 0.4, 0.3, 0.2, 0.1]))
    assert not EMI.valid(rows["00003"]) and EMI.valid(rows["00004"])


def test_records_carry_the_label_and_count_what_has_no_image(tree, tmp_path):
    summary = write_corpus(tmp_path / "records", "vidmimic2", read(tree), progress=False)
    assert summary["splits"]["train"]["skipped"]["empty_folders"] == 1
    assert summary["splits"]["validation"]["skipped"] == {"absent_folders": 1}
    index = load_index(tmp_path / "records", "train")
    labels = index.record_labels("emi")
    np.testing.assert_array_equal(labels[:4], np.repeat(index.labels["emi"][:1], 4, axis=0))
    record = decode_record(open_records(tmp_path / "records", "train")[5])
    assert (record["video"], record["frame"]) == ("00012", 2)
    np.testing.assert_array_equal(record["emi"], np.float32([0, 1, 0, 0, 0, 0.25]))
    assert "emi" not in load_index(tmp_path / "records", "test").labels


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"test_table": "", "test_example": ""}, None),
        ({"test_example": ""}, ["00030", "00031"]),
        ({"test_table": None}, ["00031", "00030"]),
    ],
)
def test_the_test_set_is_named_by_table_or_example(tree, changes, names):
    splits = read(tree, **changes)
    found = [v.name for split in splits if split.name == "test" for v in split.videos]
    assert found == (names or [])


def damage(tree, name, old, new):
    path = tree.root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: damage(t, "train_split.csv", "joy", "fun"), ("train_split.csv:1", "'Joy'")),
        (lambda t: damage(t, "train_split.csv", "00012", "7.0"), (":3", "no clip's number")),
        (lambda t: damage(t, "train_split.csv", "00012", "00007"), (":3", "line 2 too")),
        (lambda t: damage(t, "train_split.csv", "0.333", "1.5"), (":2", "from 0 to 1")),
        (lambda t: damage(t, "valid_split.csv", "long,", ""), ("valid_split.csv:2", "7 columns")),
        (
            lambda t: damage(t, "valid_split.csv", ",21,", ",12,"),
            ("valid_split.csv: clip 00012 is in validation and, by", "train_split.csv"),
        ),
        (
            lambda t: damage(t, "test_split.csv", "00030", "00007"),
            ("clip 00007 is not in", "example_split.csv"),
        ),
        (lambda t: damage(t, "test_split.csv", "FILENAME", "Clip"), ("columns 'Filename'",)),
        (lambda t: t.image("test/face_images", "7", 1), ("face_images/7", "of clip 00007")),
        (lambda t: t.image("face_images", "00007", 100001), ("100001.jpg", "at most 100000")),
        (
            lambda t: (t.root / "test/face_images/00030/01.jpg").write_bytes(b""),
            ("1.jpg: is frame 1",),
        ),
    ],
)
def test_faults_are_one_line(tree, change, words):
    change(tree)
    with pytest.raises(InputError) as caught:
        read(tree)
    corpus_trees.one_line(caught, *words)


def test_folders_that_are_wrong_are_named(tree):
    with pytest.raises(InputError, match="nowhere: does not exist; expected the folder for face"):
        read(tree, face_images=tree.root / "nowhere")
    with pytest.raises(InputError, match=r"none of its 5 clips has an image; searched .*previews"):
        read(tree, face_images=tree.root / "face_images" / "previews")
    with pytest.raises(InputError, match="face_images: is empty"):
        read(tree, face_images=())
