"""AffectNet, full and reduced: labels, boxes, damaged lists."""

import io

import cv2
import numpy as np
import pytest
from corpus_trees import fill, jpeg, refused, write

from abaw_jax.data import records
from abaw_jax.data.corpora import affectnet, read_corpus
from abaw_jax.data.images import Crop

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
    "expression,valence,arousal"
)
ROWS = [
    "1/a.jpg,2,3,8,9,1.5;2.5,0,0.25,-0.5",
    "1/b.jpg,2,3,8,9,1;2,6,-1,1",
    "2/c.JPG,0,0,-1,-1,,7,0.5,0.5",  # contempt, no box
    "2/d.jpg,0,0,9,9,1;2,8,-2,-2",
    "2/e.jpg,0,0,9,9,1;2,9,-2,-2",
    "2/f.jpg,0,0,9,9,1;2,10,-2,-2",
    "2/g.jpg,0,0,9,9,1;2,3,0.5,-2",  # one of the two unrated
]


def full(root, rows=ROWS, header=HEADER, end="\n", file="training.csv"):
    fill(root / "Manually_Annotated_Images", *(row.split(",")[0] for row in ROWS))
    return write(root / file, end.join([header, *rows] if header else rows) + end)


def check_full(split, images):
    (video,) = split.videos
    assert (split.name, video.rows) == ("train", 6)
    assert [number for number, _ in video.frames] == [1, 2, 3, 4, 5, 6]
    paths = [str(images / row.split(",")[0]) for row in ROWS if not row.startswith("2/f")]
    boxes = [(2, 3, 8, 9), (2, 3, 8, 9), None, (0, 0, 9, 9), (0, 0, 9, 9), (0, 0, 9, 9)]
    expected = [Crop(p, *box) if box else p for p, box in zip(paths, boxes, strict=True)]
    assert [image for _, image in video.frames] == expected
    assert video.labels["expr"].tolist() == [[0], [1], [-1], [-1], [-1], [6]]
    assert video.labels["expr"].dtype == np.int32
    none = [-5, -5]
    assert video.labels["va"].tolist() == [[0.25, -0.5], [-1, 1], [0.5, 0.5], none, none, none]
    assert video.labels["va"].dtype == np.float32
    assert split.skipped == {"non_face_images": 1, "contempt_labels": 1}


@pytest.mark.parametrize("header", [HEADER, HEADER.upper(), "\ufeff" + HEADER, None])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_full(tmp_path, header, end):
    full(tmp_path, header=header, end=end)
    (split,) = read_corpus("affectnet", root=str(tmp_path))
    check_full(split, tmp_path / "Manually_Annotated_Images")


def test_full_with_a_further_column_and_lists_in_their_folder(tmp_path):
    def moved(row):
        first, *rest = row.split(",")
        return ",".join([*rest, "note", first])

    header = HEADER.partition(",")[2] + ",note,subDirectory_filePath"
    file = "Manually_Annotated_file_lists/training.csv"
    # A header is known by its first name; without one the order is the published one.
    full(tmp_path, [moved(row) for row in ROWS], header, file=file)
    refused(lambda: affectnet.read(tmp_path), f"{tmp_path / file}:1: ", "10 columns, expected 9")
    full(tmp_path, [f"{row},note" for row in ROWS], f"{HEADER},note", file=file)
    (split,) = affectnet.read(tmp_path)
    check_full(split, tmp_path / "Manually_Annotated_Images")


def test_full_has_two_splits(tmp_path):
    full(tmp_path)
    full(tmp_path, ROWS[:1], None, file="validation.csv")
    train, validation = affectnet.read(tmp_path)
    assert (train.name, validation.name) == ("train", "validation")
    assert validation.videos[0].labels["expr"].tolist() == [[0]]


def test_faces_are_cut_out(tmp_path):
    full(tmp_path / "in")
    records.write_corpus(tmp_path / "out", "an", affectnet.read(tmp_path / "in"), progress=False)
    found = records.open_records(tmp_path / "out", "train")
    shapes = []
    for i in range(len(found)):
        record = records.decode_record(found[i])
        shapes.append(cv2.imdecode(np.frombuffer(record["image"], np.uint8), 1).shape[:2])
    assert shapes == [(9, 8), (9, 8), (16, 16), (9, 9), (9, 9), (9, 9)]
    assert record["expr"].tolist() == [6] and record["va"].tolist() == [-5, -5]


def test_rows_without_an_image(tmp_path):
    path = full(tmp_path, [*ROWS, "9/no.jpg,0,0,9,9,,0,0,0", "9/na.jpg,0,0,9,9,,0,0,0"])
    assert affectnet.read(tmp_path)[0].skipped["missing_images"] == 2
    refused(
        lambda: affectnet.read(tmp_path, max_missing=1), f"{path}:10: ", "9/na.jpg", "max_missing"
    )
    full(tmp_path, ["9/no.jpg,0,0,9,9,,0,0,0"])
    refused(lambda: affectnet.read(tmp_path), path, "no images")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("1/a.jpg,0,0,9,9,,11,0,0", "expression '11'"),
        ("1/a.jpg,0,0,9,9,,-1,0,0", "expression '-1'"),
        ("1/a.jpg,0,0,9,9,,1.5,0,0", "expression '1.5'"),
        ("1/a.jpg,0,0,9,9,,nan,0,0", "expression 'nan'"),
        ("1/a.jpg,0,0,9,9,,happy,0,0", "'happy'"),
        ("1/a.jpg,0,0,9,9,,1,1.5,0", "'1.5'"),
        ("1/a.jpg,0,0,9,9,,1,0,nan", "'nan'"),
        ("1/a.jpg,0,x,9,9,,1,0,0", "'x'"),
        ("1/a.jpg,0,0,inf,9,,1,0,0", "face_x"),
        ("1/a.jpg,0,0,9,9,1,0,0", "8 columns"),
        ("../a.jpg,0,0,9,9,,1,0,0", "'../a.jpg'"),
        ("/a.jpg,0,0,9,9,,1,0,0", "'/a.jpg'"),
        (",0,0,9,9,,1,0,0", "''"),
        ("", "0 columns"),
    ],
)
def test_full_faults(tmp_path, row, word):
    path = full(tmp_path, [ROWS[0], row, ROWS[1]])
    refused(lambda: affectnet.read(tmp_path), f"{path}:3: ", word)


def test_faults_of_the_tree(tmp_path):
    refused(lambda: affectnet.read(tmp_path), tmp_path, "training.csv", "train_set")
    path = write(tmp_path / "training.csv", HEADER + "\n" + ROWS[0])
    refused(lambda: affectnet.read(tmp_path), tmp_path, "Manually_Annotated_Images")
    full(tmp_path, header=HEADER.replace("valence", "pleasure"))
    refused(lambda: affectnet.read(tmp_path), f"{path}:1: ", "'valence'")
    path.write_bytes(b"\xff\xfe\x00")
    refused(lambda: affectnet.read(tmp_path), path, "csv")


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=isinstance(value, np.ndarray) and value.dtype == object)
    return buffer.getvalue()


def reduced(root, rows, folder="train_set"):
    for stem, values in rows.items():
        write(root / folder / f"images/{stem}.jpg", jpeg(int(stem)))
        for kind, value in zip(("exp", "val", "aro", "lnd"), values, strict=True):
            write(root / folder / f"annotations/{stem}_{kind}.npy", npy(value))


def test_reduced(tmp_path):
    landmarks = np.zeros(136)
    rows = {
        "0": (np.array("1"), np.array("0.5"), np.array("-0.25"), landmarks),
        "10": (np.array(2), np.array(-1.0), np.float32(0.5), landmarks),
        "2": (np.array([3]), np.array([0.0]), np.array(b"1"), landmarks),
        "3": (np.array("7"), np.array("-0.5"), np.array("0"), landmarks),
        "4": (np.array("9"), np.array("-2"), np.array("-2"), landmarks),
        "5": (np.array("10"), np.array("-2"), np.array("-2"), landmarks),
    }
    reduced(tmp_path, rows)
    reduced(tmp_path, {"7": rows["0"]}, "val_set")
    write(tmp_path / "train_set/images/.DS_Store", b"")
    write(tmp_path / "train_set/annotations/._0_exp.npy", b"x")
    train, validation = affectnet.read(tmp_path)
    assert (train.name, validation.name) == ("train", "validation")
    (video,) = train.videos
    assert [p.rsplit("/", 1)[1] for _, p in video.frames] == [
        "0.jpg",
        "10.jpg",
        "2.jpg",
        "3.jpg",
        "4.jpg",
    ]
    assert video.labels["expr"].tolist() == [[4], [5], [6], [-1], [-1]]
    assert video.labels["va"].tolist() == [[0.5, -0.25], [-1, 0.5], [0, 1], [-0.5, 0], [-5, -5]]
    assert train.skipped == {"hidden_files": 1, "non_face_images": 1, "contempt_labels": 1}
    assert validation.videos[0].labels["expr"].tolist() == [[4]]


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def test_reduced_faults(tmp_path):
    good = (np.array("1"), np.array("0.5"), np.array("-0.25"), np.zeros(136))
    reduced(tmp_path, {"3": good})
    path = tmp_path / "train_set/annotations/3_val.npy"
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(1))
    for content, word in [
        (npy(np.array("x")), "'x'"),
        (npy(np.array(1.5)), "'1.5'"),
        (npy(np.zeros(2)), "one number"),
        (npy(np.array(1j)), "one number"),
        (npy(np.array([Trap()], dtype=object)), "allow_pickle"),
        (npy(good[1])[:70], "annotation"),
        (npy(good[1])[:-3], "annotation"),
        (archive.getvalue(), "one number"),
        (archive.getvalue()[:40], "annotation"),
        (b"", "annotation"),
    ]:
        path.write_bytes(content)
        refused(lambda: affectnet.read(tmp_path), tmp_path / "train_set/annotations/3_", word)
    path.unlink()
    refused(lambda: affectnet.read(tmp_path), path, "No such file")
    (tmp_path / "train_set/images/3.jpg").unlink()
    refused(lambda: affectnet.read(tmp_path), tmp_path / "train_set/images", "no images")
