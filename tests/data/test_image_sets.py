"""Readers of image sets: plain folders, FER2013, RAF-DB."""

import corpus_trees
import cv2
import numpy as np
import pytest
from corpus_trees import fill, refused

from abaw_jax.data import records
from abaw_jax.data.corpora import fer2013, image_folder, rafdb, read_corpus


def names(split):
    return [str(path).rsplit("/", 2)[-2:] for _, path in split.videos[0].frames]


def test_folder_without_classes(tmp_path):
    fill(tmp_path, "b/2.jpg", "b/10.jpeg", "a/c/1.PNG", "z.jpg", ".DS_Store", "b/._2.jpg", "x.txt")
    (split,) = image_folder.read(tmp_path)
    (video,) = split.videos
    assert (split.name, video.name, video.rows, video.labels) == ("train", "", 4, {})
    assert [n for n, _ in video.frames] == [1, 2, 3, 4]
    assert [name for _, name in names(split)] == ["z.jpg", "1.PNG", "10.jpeg", "2.jpg"]
    assert split.skipped == {"hidden_files": 2, "other_files": 1}


def test_folder_with_classes_maps_by_name(tmp_path):
    fill(tmp_path, "angry/1.jpg", "Neutral/1.jpg", "Surprise/1.jpg", "Other/1.jpg", "happy/1.jpg")
    fill(tmp_path, "loose.jpg", "angry/deep/2.jpg")
    (split,) = image_folder.read(tmp_path, classes=True)
    found = [
        (a, int(b[0]))
        for (a, _), b in zip(names(split), split.videos[0].labels["expr"], strict=True)
    ]
    assert found == [
        ("Neutral", 0),
        ("Other", 7),
        ("Surprise", 6),
        ("angry", 1),
        ("deep", 1),
        ("happy", 4),
    ]
    assert split.skipped == {"images_outside_classes": 1}


def test_folders_named_as_splits(tmp_path):
    fill(
        tmp_path, "test/sad/1.jpg", "train/sad/1.jpg", "train/fear/1.jpg", "public_test/fear/1.jpg"
    )
    splits = image_folder.read(tmp_path, classes=True)
    assert [s.name for s in splits] == ["train", "validation", "test"]
    assert splits[0].videos[0].labels["expr"].tolist() == [[3], [5]]
    fill(tmp_path, "val/sad/1.jpg")
    refused(lambda: image_folder.read(tmp_path, classes=True), "val", "public_test")


def test_folder_faults(tmp_path):
    refused(lambda: image_folder.read(tmp_path / "no"), tmp_path / "no", "does not exist")
    refused(lambda: image_folder.read(tmp_path), tmp_path, "no images")
    fill(tmp_path, "surprized/1.jpg")
    refused(lambda: image_folder.read(tmp_path, classes=True), "'surprized'", "'surprised'")
    fill(tmp_path / "twice", "sad/1.jpg", "sadness/1.jpg")
    refused(lambda: image_folder.read(tmp_path / "twice", classes=True), "sadness", "same class")


def csv_rows(count=4):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 48, 48), np.uint8)
    usages = ["Training", "PublicTest", "PrivateTest", "Training"]
    lines = [
        f"{i % 7},{' '.join(map(str, pixels[i].ravel()))},{usages[i % 4]}" for i in range(count)
    ]
    return pixels, lines


def test_fer2013_csv(tmp_path):
    pixels, lines = csv_rows()
    path = corpus_trees.write(tmp_path / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *lines]))
    train, validation, test = fer2013.read(path)
    assert [s.name for s in (train, validation, test)] == ["train", "validation", "test"]
    assert train.videos[0].labels["expr"].tolist() == [[1], [4]]  # angry, happy
    assert validation.videos[0].labels["expr"].tolist() == [[2]]
    image = train.videos[0].frames[1][1]
    assert records.image_fault(image) is None
    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, pixels[3])
    assert len(fer2013.read(tmp_path)) == 3  # the folder that holds it


def test_fer2013_csv_with_columns_in_another_order(tmp_path):
    _, (line, *_) = csv_rows()
    emotion, pixels, usage = line.split(",")
    text = f"emotion, Usage, pixels\n{emotion},{usage},{pixels}\n"
    (split,) = fer2013.read(corpus_trees.write(tmp_path / "icml.csv", text))
    assert split.videos[0].rows == 1


def test_fer2013_folders(tmp_path):
    fill(tmp_path, "train/angry/1.jpg", "public_test/happy/1.jpg", "private_test/neutral/1.jpg")
    splits = read_corpus("fer2013", path=str(tmp_path))
    assert [int(s.videos[0].labels["expr"][0, 0]) for s in splits] == [1, 4, 0]


def test_fer2013_faults(tmp_path):
    _, (good, *_) = csv_rows()
    pixels = good.split(",")[1]
    path = tmp_path / "fer2013.csv"
    header = "emotion,pixels,Usage\n"
    for row, word in [
        (f"7,{pixels},Training", "emotion '7'"),
        (f"a,{pixels},Training", "emotion 'a'"),
        (f"0,{pixels} 1,Training", "2305 pixels"),
        (f"0,{pixels[:-1]}x,Training", "pixels"),
        (f"0,{pixels.rpartition(' ')[0]} 256,Training", "256"),
        (f"0,{pixels},Other", "Usage 'Other'"),
        (f"0,{pixels}", "2 columns"),
    ]:
        corpus_trees.write(path, f"{header}{good}\n{row}\n")
        refused(lambda: fer2013.read(path), f"{path}:3: ", word)
    corpus_trees.write(path, f"emotion,pixels\n0,{pixels}\n")
    refused(lambda: fer2013.read(path), f"{path}:1: ", "'usage'")
    corpus_trees.write(path, header)
    refused(lambda: fer2013.read(path), path, "no rows")
    refused(lambda: fer2013.read(tmp_path / "no.csv"), "does not exist")
    archive = corpus_trees.write(tmp_path / "fer2013.zip", b"PK")
    refused(lambda: fer2013.read(archive), archive, "unpack")
    refused(lambda: fer2013.read(""), "path")


def raf(root, listing="list_patition_label.txt", aligned="aligned"):
    lines = ["train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7", "train_00003.jpg 4"]
    path = corpus_trees.write(root / listing, "\n".join(lines) + "\n")
    fill(root / aligned, *(f"{line.split('.')[0]}_aligned.jpg" for line in lines))
    return path


@pytest.mark.parametrize(
    ("listing", "aligned"),
    [("list_patition_label.txt", "aligned"), ("EmoLabel/list_patition_label.txt", "Image/aligned")],
)
def test_rafdb(tmp_path, listing, aligned):
    raf(tmp_path, listing, aligned)
    fill(tmp_path / aligned, "train_99999_aligned.jpg", "._train_00001_aligned.jpg")
    train, test = rafdb.read(tmp_path)
    assert (train.name, test.name) == ("train", "test")
    assert train.videos[0].labels["expr"].tolist() == [[5], [6], [4]]  # Sad., Surprise, Happ.
    assert test.videos[0].labels["expr"].tolist() == [[0]]
    assert [name for _, name in names(train)][:2] == [
        "train_00001_aligned.jpg",
        "train_00002_aligned.jpg",
    ]
    assert train.skipped == {"hidden_files": 1, "surplus_images": 1}


def test_rafdb_faults(tmp_path):
    path = raf(tmp_path)
    text = path.read_text()
    for row, word in [
        ("train_00004.jpg 5", "train_00004_aligned.jpg"),
        ("train_00001.jpg 5", "line 1"),
        ("train_00001.jpg 8", "1 to 7"),
        ("train_00001.jpg x", "1 to 7"),
        ("train_00001.jpg", "1 to 7"),
        ("valid_00001.jpg 2", "train_ or test_"),
    ]:
        path.write_text(text + row + "\n")
        refused(lambda: rafdb.read(tmp_path), f"{path}:5: ", word)
    path.write_text("\n")
    refused(lambda: rafdb.read(tmp_path), path, "no rows")
    path.unlink()
    refused(lambda: rafdb.read(tmp_path), tmp_path, "list_patition_label.txt")
    refused(lambda: rafdb.read(tmp_path / "no"), "does not exist")


def test_image_sets_become_records(tmp_path):
    _, lines = csv_rows(8)
    path = corpus_trees.write(tmp_path / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *lines]))
    summary = records.write_corpus(
        tmp_path / "out", "fer2013", read_corpus("fer2013", path=path), progress=False
    )
    assert summary["splits"]["train"]["images"] == 4
    index = records.load_index(tmp_path / "out", "train")
    assert index.videos == ("",) and index.frames.tolist() == [1, 2, 3, 4]
    first = records.decode_record(records.open_records(tmp_path / "out", "train")[0])
    assert first["video"] == "" and first["expr"].tolist() == index.labels["expr"][0].tolist()


def test_unlabelled_images_become_records(tmp_path):
    fill(tmp_path / "in", "1.jpg", "2.jpg")
    records.write_corpus(
        tmp_path / "out", "image_folder", image_folder.read(tmp_path / "in"), progress=False
    )
    index = records.load_index(tmp_path / "out", "train")
    assert index.labels == {} and index.rows.tolist() == [0, 2]
    record = records.decode_record(records.open_records(tmp_path / "out", "train")[1])
    assert sorted(record) == ["frame", "image", "video"]
