"""CelebA, IMDB-WIKI and RAF-DB's compound expressions."""

import numpy as np
import pytest
import scipy.io
from corpus_trees import fill, refused, write

from abaw_jax.data import records
from abaw_jax.data.corpora import celeba, imdb_wiki, rafdb_compound, read_corpus
from abaw_jax.tracks import CE


def paths(split, depth=1):
    return ["/".join(path.rsplit("/", depth)[1:]) for _, path in split.videos[0].frames]


# ---- CelebA --------------------------------------------------------------------------------------


def celeb(root, listing="list_eval_partition.txt", folder="img_align_celeba"):
    rows = ["000003.jpg 0", "000001.jpg 0", "000002.jpg 1", "000004.jpg 2", ""]
    fill(root / folder, *(row.split()[0] for row in rows if row))
    return write(root / listing, "\r\n".join(rows))


@pytest.mark.parametrize("img, evaluation", [("", ""), ("Img/", "Eval/")])
def test_celeba(tmp_path, img, evaluation):
    celeb(tmp_path, f"{evaluation}list_eval_partition.txt", f"{img}img_align_celeba")
    fill(tmp_path / f"{img}img_align_celeba", "000009.jpg", "._000001.jpg")
    splits = read_corpus("celeba", root=str(tmp_path))
    assert [split.name for split in splits] == ["train", "validation", "test"]
    assert [paths(split) for split in splits] == [
        ["000001.jpg", "000003.jpg"],
        ["000002.jpg"],
        ["000004.jpg"],
    ]
    assert splits[0].videos[0].labels == {} and splits[0].videos[0].rows == 2
    assert splits[0].skipped == {"hidden_files": 1, "surplus_images": 1}
    assert splits[1].skipped == {}


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("000004.jpg 0", "line 4"),
        ("000005.jpg 0", "'000005.jpg' has no image"),
        ("000004.jpg 3", "0 to 2"),
        ("000004.jpg", "0 to 2"),
        ("000004.jpg 0 0", "0 to 2"),
    ],
)
def test_celeba_faults_of_a_row(tmp_path, row, word):
    path = celeb(tmp_path)
    write(path, path.read_text() + row)
    refused(lambda: celeba.read(tmp_path), f"{path}:5: ", word)


def test_celeba_faults_of_the_tree(tmp_path):
    refused(lambda: celeba.read(tmp_path / "no"), "does not exist")
    refused(lambda: celeba.read(tmp_path), tmp_path, "list_eval_partition.txt")
    path = write(tmp_path / "list_eval_partition.txt", "\n")
    refused(lambda: celeba.read(tmp_path), tmp_path, "img_align_celeba")
    (tmp_path / "img_align_celeba").mkdir()
    refused(lambda: celeba.read(tmp_path), path, "no rows")


# ---- IMDB-WIKI -----------------------------------------------------------------------------------

FACES = [
    ("01/nm1_a.jpg", 2.5, np.nan),
    ("01/nm1_b.jpg", -np.inf, np.nan),  # no face
    ("02/nm2_c.jpg", 1.0, 0.5),  # two faces
    ("02/nm2_d.jpg", -np.inf, 0.5),  # no face that is scored
    ("02/nm2_e.jpg", 0.25, np.nan),
]


def film(root, rows=FACES, name="imdb", place="", fill_in=True):
    if fill_in:
        fill(root / f"{name}_crop", *(path for path, _, _ in rows))
    names, scores, seconds = zip(*rows, strict=True)
    struct = {
        "dob": np.arange(len(rows), dtype=np.float64),
        "full_path": np.array(names, dtype=object),
        "name": np.array(["Ö. Ä."] * len(rows), dtype=object),
        "face_score": np.array(scores),
        "second_face_score": np.array(seconds),
    }
    path = root / f"{place}{name}.mat"
    path.parent.mkdir(exist_ok=True)
    scipy.io.savemat(path, {"other": 1, name: struct}, do_compression=True, oned_as="row")
    return path


@pytest.mark.parametrize("place", ["", "imdb_crop/"])
def test_imdb(tmp_path, place):
    film(tmp_path, place=place)
    (split,) = read_corpus("imdb_wiki", root=str(tmp_path))
    assert split.name == "train" and split.videos[0].labels == {}
    assert paths(split, 2) == ["01/nm1_a.jpg", "02/nm2_e.jpg"]
    assert split.skipped == {"images_without_face": 2, "images_of_several_faces": 1}


def test_imdb_with_wiki(tmp_path):
    film(tmp_path)
    film(tmp_path, [("00/1_x.jpg", 3.0, np.nan)], "wiki")
    (split,) = imdb_wiki.read(tmp_path)
    assert paths(split, 3)[2] == "wiki_crop/00/1_x.jpg"
    assert split.skipped == {"images_without_face": 2, "images_of_several_faces": 1}


def test_imdb_without_all_images(tmp_path):
    rows = [("03/x.jpg", 1.0, np.nan), FACES[0], ("03/y.jpg", 1.0, np.nan)]
    path = film(tmp_path, rows, fill_in=False)
    fill(tmp_path / "imdb_crop", FACES[0][0])
    (split,) = imdb_wiki.read(tmp_path)
    assert paths(split) == ["nm1_a.jpg"] and split.skipped == {"missing_images": 2}
    refused(lambda: imdb_wiki.read(tmp_path, 1), f"{path}: full_path 3", "03/y.jpg", "max_missing")


def test_imdb_faults(tmp_path):
    refused(lambda: imdb_wiki.read(tmp_path), tmp_path, "imdb_crop")
    (tmp_path / "imdb_crop").mkdir()
    refused(lambda: imdb_wiki.read(tmp_path), tmp_path, "imdb.mat")
    path = film(tmp_path, [("../x.jpg", 1.0, np.nan)], fill_in=False)
    refused(lambda: imdb_wiki.read(tmp_path), f"{path}: full_path 1", "'../x.jpg'")
    film(tmp_path, FACES[1:3])
    refused(lambda: imdb_wiki.read(tmp_path), tmp_path, "no image")
    film(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"no", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, whole[:150], whole[:-40]):
        path.write_bytes(content)
        refused(lambda: imdb_wiki.read(tmp_path), f"{path}: is no readable imdb.mat")
    for content in (
        {"wiki": {"full_path": "x"}},
        {"imdb": {"full_path": "x"}},
        {"imdb": {"full_path": ["x", "y"], "face_score": [1.0], "second_face_score": [1.0]}},
        {"imdb": {"full_path": ["x"], "face_score": ["y"], "second_face_score": [1.0]}},
        {"imdb": 3},
    ):
        scipy.io.savemat(path, content)
        refused(lambda: imdb_wiki.read(tmp_path), f"{path}: is no readable imdb.mat")


# ---- RAF-DB, compound ----------------------------------------------------------------------------

NAMES = [
    "Angrily Disgusted",
    "Angrily Surprised",
    "Disgustedly Surprised",
    "Fearfully Angry",
    "Fearfully Surprised",
    "Happily Disgusted",
    "Happily Surprised",
    "Sadly Angry",
    "Sadly Disgusted",
    "Sadly Fearful",
    "Sadly Surprised",
]
LABELS = [-1, 4, 3, -1, 0, -1, 1, 6, -1, 5, 2]


@pytest.mark.parametrize(
    "spelt",
    [
        str,
        lambda name: name.replace(" ", "_"),
        lambda name: "_".join(reversed(name.lower().split())),
        lambda name: name.replace(" ", " - ").upper(),
    ],
)
def test_compound(tmp_path, spelt):
    fill(tmp_path, *(f"train/{spelt(name)}/{i}.jpg" for i, name in enumerate(NAMES)))
    fill(tmp_path, f"test/{spelt('Sadly Angry')}/1.jpg", "train/loose.jpg", "train/.DS_Store")
    train, test = read_corpus("rafdb_compound", root=str(tmp_path))
    found = zip(paths(train), train.videos[0].labels["ce"].ravel().tolist(), strict=True)
    assert sorted(found) == sorted((f"{i}.jpg", label) for i, label in enumerate(LABELS))
    assert [CE.classes[LABELS[i]] for i in (4, 7)] == ["Fearfully_Surprised", "Sadly_Angry"]
    labels = test.videos[0].labels
    assert labels["ce"].tolist() == labels["compounds"].tolist() == [[6]]
    assert labels["basic"].tolist() == [[1, 0, 0, 0, 1, 0]]  # Anger, Sadness
    assert sorted(train.videos[0].labels["compounds"].ravel().tolist()) == list(range(11))
    assert train.skipped == {"hidden_files": 1, "images_outside_classes": 1}
    assert test.skipped == {}


def test_compound_records_count_classes(tmp_path):
    fill(tmp_path / "in", *(f"train/{name}/{i}.jpg" for i, name in enumerate(NAMES)))
    splits = rafdb_compound.read(tmp_path / "in")
    summary = records.write_corpus(tmp_path / "out", "raf", splits, progress=False)
    labels = summary["splits"]["train"]["labels"]["ce"]
    assert labels["rows_per_class"] == [1] * 7 and labels["invalid_rows"] == 4


def test_compound_faults(tmp_path):
    refused(lambda: rafdb_compound.read(tmp_path), tmp_path, "neither train nor test")
    (tmp_path / "train").mkdir()
    refused(lambda: rafdb_compound.read(tmp_path), tmp_path / "train", "no images")
    fill(tmp_path, "train/Sadly Angree/1.jpg")
    refused(lambda: rafdb_compound.read(tmp_path), "'Sadly Angree'", "'Sadly Angry'")
    fill(tmp_path / "twice", "test/Sadly Angry/1.jpg", "test/angry_sadly/2.jpg")
    refused(lambda: rafdb_compound.read(tmp_path / "twice"), "angry_sadly", "same class")
