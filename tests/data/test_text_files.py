"""Label files as they come from other systems: Windows line ends, a byte order mark, quotes."""

import csv
import io
import pathlib

import numpy as np
import pytest
from corpus_trees import fill, jpeg, small_affwild2, write

from abaw_jax.data.corpora import read_corpus
from abaw_jax.tracks import EMI
from abaw_jax.tracks.targets import COMPOUNDS

UNITS = ",".join(["0"] * 12)


def affwild2(root):
    return small_affwild2(root).texts


def mtl(root):
    fill(root / "crops" / "a", "00001.jpg", "00002.jpg")
    fill(root / "crops" / "b", "00001.jpg")
    header = "image,valence,arousal,expression,aus"
    for split, rows in (("training", ["a/00001.jpg", "a/00002.jpg"]),
                        ("validation", ["b/00001.jpg"])):  # fmt: skip
        lines = [header, *(f"{row},0.5,-5,3,{UNITS}" for row in rows)]
        write(root / f"{split}_set_annotations.txt", "\n".join(lines) + "\n")
    return {"image_roots": [str(root / "crops")], "annotations": str(root)}


def vidmimic2(root):
    for clip, split in ((7, "train"), (8, "valid")):
        fill(root / "faces" / f"{clip:05d}", "1.jpg")
        write(root / f"{split}.csv", f"{EMI.header}\n{clip},0.25,0,0,0,0.5,1\n")
    return {
        "train_table": str(root / "train.csv"),
        "validation_table": str(root / "valid.csv"),
        "face_images": str(root / "faces"),
    }


def affectnet(root):
    names = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks"
    fill(root / "Manually_Annotated_Images", "1/a.jpg", "1/b.jpg")
    rows = ["1/a.jpg,0,0,8,8,1;2,6,-0.5,0.25", "1/b.jpg,0,0,8,8,1;2,7,-2,-2"]
    lines = [f"{names},expression,valence,arousal", *rows]
    write(root / "training.csv", "\n".join(lines) + "\n")
    return {"root": str(root)}


def fer2013(root):
    rows = [f"{label},{' '.join([str(label)] * 2304)},Training" for label in (3, 6)]
    write(root / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return {"path": str(root)}


def ferplus(root):
    votes = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    rows = ["Training,a.png,9,0,0,0,0,0,0,0,1,0", "Training,b.png,0,0,0,9,0,0,0,0,0,1"]
    write(root / "fer2013new.csv", "\n".join([f"{votes},unknown,NF", *rows]) + "\n")
    fill(root, "a.png", "b.png")
    return {"path": str(root)}


def rafdb(root):
    fill(root / "aligned", "train_00001_aligned.jpg", "test_0001_aligned.jpg")
    write(root / "list_patition_label.txt", "train_00001.jpg 5\ntest_0001.jpg 7\n")
    return {"root": str(root)}


def celeba(root):
    fill(root / "img_align_celeba", "000001.jpg", "000002.jpg")
    write(root / "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 1\n")
    return {"root": str(root)}


def cexpr(root):
    for split in ("train", "test"):
        for name in COMPOUNDS.classes:
            write(root / "raf" / split / name / "1.jpg", jpeg())
    fill(root / "crops" / "01", "00001.jpg")
    lines = ["image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,"
             "Disgustedly_Surprised,Angrily_Surprised,Sadly_Fearful,Sadly_Angry"]  # fmt: skip
    write(root / "example.txt", "\n".join([*lines, "01/00001.jpg,0", "01/00002.jpg,0", ""]))
    return {
        "images": str(root / "raf"),
        "image_roots": [str(root / "crops")],
        "test_example": str(root / "example.txt"),
    }


READERS = {
    make.__name__: make
    for make in (affwild2, mtl, vidmimic2, affectnet, fer2013, ferplus, rafdb, celeba, cexpr)
}


def facts(splits):
    """All that a reader found, but for where."""
    return [
        (split.name, video.name, video.rows, [number for number, _ in video.frames],
         {key: labels.tolist() for key, labels in video.labels.items()})
        for split in splits
        for video in split.videos
    ]  # fmt: skip


def quoted(text):
    """The same table with quotes round every cell."""
    file = io.StringIO()
    rows = csv.reader(text.splitlines())
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("kind", READERS)
def test_files_from_other_systems_say_the_same(tmp_path, kind):
    arguments = READERS[kind](tmp_path)
    plain = facts(read_corpus(kind, **arguments))
    assert sum(len(found[3]) for found in plain) >= 2
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".txt", ".csv")]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert facts(read_corpus(kind, **arguments)) == plain
    for path in files:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert facts(read_corpus(kind, **arguments)) == plain
    tables = [path for path in files if path.suffix == ".csv"]
    for path in tables:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        path.write_text(quoted(text), encoding="utf-8-sig", newline="\r\n")
    assert facts(read_corpus(kind, **arguments)) == plain


@pytest.mark.parametrize("kind", READERS)
def test_labels_are_of_the_tracks_types(tmp_path, kind):
    for split in read_corpus(kind, **READERS[kind](tmp_path)):
        for labels in (labels for video in split.videos for labels in video.labels.values()):
            assert labels.dtype in (np.int32, np.float32)
