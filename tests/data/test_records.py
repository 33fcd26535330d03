"""Records and their index: what is written, read back, resumed and refused."""

import dataclasses
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time

import corpus_trees
import cv2
import numpy as np
import pytest
from corpus_trees import image_split, jpeg, make, one_line, png

from abaw_jax.data import records, write
from abaw_jax.data.corpora import affwild2
from abaw_jax.data.records import Index
from abaw_jax.errors import InputError


@pytest.fixture
def tree(tmp_path):
    return corpus_trees.small_affwild2(tmp_path / "in")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(write, "SHARD_IMAGES", 2)


def test_record_round_trip():
    labels = {"expr": np.array([-1], np.int32), "va": np.array([0.25, -5], np.float32)}
    labels["au"] = np.array([0, 1, -1, 300, 2**31 - 1, -(2**31)], np.int32)
    raw = records.encode_record(b"\xff\xd8" * 300, "vidéo_1", 123456, labels)
    record = records.decode_record(raw)
    assert record["image"] == b"\xff\xd8" * 300
    assert (record["video"], record["frame"]) == ("vidéo_1", 123456)
    for key, value in labels.items():
        assert record[key].dtype == value.dtype
        np.testing.assert_array_equal(record[key], value)


def test_records_that_tfds_serialises_are_read():
    from tensorflow_datasets.core import example_serializer
    from tensorflow_datasets.core.features import feature

    info = {
        "image": feature.TensorInfo((), np.object_),
        "video": feature.TensorInfo((), np.object_),
        "frame": feature.TensorInfo((), np.int32),
        "expr": feature.TensorInfo((1,), np.int32),
        "va": feature.TensorInfo((2,), np.float32),
    }
    example = {
        "image": jpeg(),
        "video": "a_left",
        "frame": 200,
        "expr": np.array([-1], np.int32),
        "va": np.array([0.5, -5], np.float32),
    }
    raw = example_serializer.ExampleSerializer(info).serialize_example(example)
    record = records.decode_record(raw)
    assert record["image"] == jpeg() and record["video"] == "a_left" and record["frame"] == 200
    assert record["expr"].tolist() == [-1] and record["va"].tolist() == [0.5, -5]


@pytest.mark.parametrize("raw", [b"", b"\x0a", b"\x0a\x50abc", b"hello world", bytes(50)])
def test_bytes_that_are_no_record(raw):
    with pytest.raises(InputError) as caught:
        records.decode_record(raw)
    one_line(caught, f"{len(raw)} bytes")


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (jpeg(), None),
        (png(), None),
        (b"", "empty"),
        (b"GIF89a....", "neither"),
        (jpeg()[:-2], "nd of JPEG"),
        (jpeg()[:200], ""),
        (jpeg()[:3], ""),
        (png()[:-1], "early"),
        (png()[:8], "early"),
        (png()[:60] + b"x" + png()[61:], "checksum"),
    ],
)
def test_image_fault(image, word):
    fault = records.image_fault(image)
    if word is None:
        assert fault is None
    else:
        assert word in fault and "\n" not in fault


def test_progressive_and_grey_jpegs_are_sound():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    progressive = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert records.image_fault(progressive) is None
    assert records.image_fault(progressive[:-60]) is not None


def small_index():
    return Index(
        videos=("a", "b", "c_left"),
        first=np.array([0, 2, 2, 4]),
        frames=np.array([2, 4, 1, 3], np.int32),
        rows=np.array([0, 3, 5, 8]),
        labels={"expr": np.arange(8, dtype=np.int32)[:, None]},
    )


def test_index_labels_of_records():
    index = small_index()
    # Frame 4 of `a` is beyond its 3 rows; `b` has rows but no record.
    assert index.record_labels("expr").tolist() == [[1], [-1], [5], [7]]
    assert index.record_labels("expr").dtype == np.int32
    assert index.record_videos().tolist() == [0, 0, 2, 2]
    with pytest.raises(InputError, match="'va'.*expr"):
        index.record_labels("va")


def test_index_invalid_va_is_minus_five():
    index = Index(
        ("a",),
        np.array([0, 1]),
        np.array([9], np.int32),
        np.array([0, 1]),
        {"va": np.zeros((1, 2), np.float32)},
    )
    assert index.record_labels("va").tolist() == [[-5, -5]]


def test_index_saves_and_loads(tmp_path):
    index, path = small_index(), tmp_path / "index.npz"
    index.save(path)
    again = Index.load(path)
    assert again.videos == index.videos
    for key, array in index.arrays().items():
        np.testing.assert_array_equal(again.arrays()[key], array)
        assert again.arrays()[key].dtype == array.dtype
    assert again.content_hash() == index.content_hash()
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["index.npz"]


def test_index_hash_sees_every_part():
    base = small_index()
    changes = [
        {"videos": ("a", "b", "c_lef")},
        {"frames": np.array([2, 4, 1, 4], np.int32)},
        {"first": np.array([0, 2, 3, 4])},
        {"rows": np.array([0, 3, 4, 8])},
        {"labels": {"expr": np.zeros((8, 1), np.int32)}},
        {"labels": {"au": base.labels["expr"]}},
        {"labels": {}},
    ]
    hashes = [dataclasses.replace(base, **change).content_hash() for change in changes]
    assert len({base.content_hash(), *hashes}) == len(changes) + 1


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04 cut", pickle.dumps([1]), "pickled", "keys", "cut"]
)
def test_index_faults(tmp_path, content):
    path = tmp_path / "index.npz"
    if content == "pickled":
        np.savez(path, videos=np.array(["a"], object))
    elif content == "keys":
        np.savez(path, videos=np.array(["a"]))
    elif content == "cut":
        small_index().save(path)
        path.write_bytes(path.read_bytes()[:-100])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Index.load(path)
    one_line(caught, path)


def test_index_parts_must_fit():
    with pytest.raises(ValueError, match="fit"):
        Index(("a",), np.array([0, 2]), np.array([1], np.int32), np.array([0, 1]), {})


def test_corpus_as_records(tree, tmp_path):
    summary = make(tree, tmp_path / "out")
    index = records.load_index(tmp_path / "out", "train")
    assert index.videos == ("28-30-1280x720-4", "video10_1_left")
    assert index.first.tolist() == [0, 3, 6] and index.rows.tolist() == [0, 4, 11]
    assert index.frames.tolist() == [1, 2, 3, 3, 4, 6]
    assert index.record_labels("expr").ravel().tolist() == [7, 7, -1, 2, -1, 5]
    source = records.open_records(tmp_path / "out", "train")
    assert len(source) == 6
    for i, raw in enumerate(source):
        record = records.decode_record(raw)
        video = index.videos[index.record_videos()[i]]
        assert (record["video"], record["frame"]) == (video, index.frames[i])
        root = tree.roots[0 if video == "video10_1_left" else 1]
        assert record["image"] == (root / video / f"{record['frame']:05d}.jpg").read_bytes()
        assert record["expr"].tolist() == index.record_labels("expr")[i].tolist()
    test = records.decode_record(records.open_records(tmp_path / "out", "test")[0])
    assert test["expr"].tolist() == [-1] and test["video"] == "video45_1"
    index = records.load_index(tmp_path / "out", "test")
    assert index.labels == {} and index.rows.tolist() == [0, 7]
    part = summary["splits"]["train"]
    assert (part["videos"], part["images"], part["rows"]) == (2, 6, 11)
    assert part["labels"]["expr"] == {
        "valid_rows": 9,
        "invalid_rows": 2,
        "label_only_rows": 5,
        "labelled_images": 4,
        "rows_per_class": [1, 1, 1, 0, 1, 1, 1, 3],
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


def test_tfds_reads_it_and_nothing_imports_tensorflow(tree, tmp_path, small_shards):
    make(tree, tmp_path / "out")
    code = (
        "import sys\n"
        "import tensorflow_datasets as tfds\n"
        "from abaw_jax.data import records\n"
        f"builder = tfds.builder_from_directory({str(tmp_path / 'out')!r})\n"
        "out = []\n"
        "for split in ('train', 'validation', 'test'):\n"
        "    source = builder.as_data_source(split=split)\n"
        "    ours = records.open_records(builder.data_dir, split)\n"
        "    assert len(source) == len(ours)\n"
        "    for theirs, raw in zip(source, ours):\n"
        "        own = records.decode_record(raw)\n"
        "        assert theirs['image'].shape == (16, 16, 3), theirs['image'].shape\n"
        "        assert theirs['video'].decode() == own['video']\n"
        "        assert theirs['frame'] == own['frame'] and theirs['expr'] == own['expr']\n"
        "    out.append(len(source))\n"
        "print(out, [name for name in ('tensorflow', 'jax') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[6, 4, 2] []"


def test_writing_imports_no_tensorflow_and_no_jax(tree, tmp_path):
    code = (
        "import pathlib, pickle, sys\n"
        "from abaw_jax.data import records\n"
        f"splits = pickle.loads(pathlib.Path({str(tmp_path / 'splits')!r}).read_bytes())\n"
        f"records.write_corpus({str(tmp_path / 'out')!r}, 'affwild2', splits, progress=False)\n"
        "print([name for name in ('tensorflow', 'jax') if name in sys.modules])\n"
    )
    (tmp_path / "splits").write_bytes(pickle.dumps(affwild2.read(**tree.arguments)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.fixture
def many(tmp_path, small_shards):
    images = [jpeg(i) for i in range(9)]
    splits = [image_split(images)]
    records.write_corpus(tmp_path / "out", "faces", splits, progress=False)
    return records.open_records(tmp_path / "out", "train"), images


def image_of(raw):
    return records.decode_record(raw)["image"]


def test_random_access(many):
    source, images = many
    assert len(source) == 9 and len(source.paths) == 5
    for i in (8, 0, np.int64(3), -1, -9):
        assert image_of(source[i]) == images[i]
    for i in (9, -10):
        with pytest.raises(IndexError):
            source[i]
    with pytest.raises(TypeError):
        source[1.5]
    assert "5 shards, 9 records" in repr(source)


def test_pickled_records_are_small_and_work_elsewhere(many):
    source, images = many
    source[0]
    pickled = pickle.dumps(source)
    assert len(pickled) < 200 * len(source.paths)
    assert image_of(pickle.loads(pickled)[4]) == images[4]


def test_threads_share_records(many):
    source, images = many
    wrong = []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 9, 300):
            if image_of(source[i]) != images[i]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
# JAX, where another test has loaded it, warns of any fork; the child here does not use it.
@pytest.mark.filterwarnings("ignore:.*os.fork.*:RuntimeWarning")
def test_a_forked_process_opens_its_own_files(many):
    source, images = many
    source[0]
    before = source._readers[0]
    child = os.fork()
    if child == 0:
        same = image_of(source[1]) == images[1] and source._readers[0] is not before
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_damaged_shard(many):
    source, _ = many
    path = pathlib.Path(source.paths[2])
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"text",
        pathlib.Path(source.paths[0]).read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            pickle.loads(pickle.dumps(source))[4]
        one_line(caught, path, "damaged records")


def test_a_changed_byte_is_noticed(many):
    source, images = many
    path = pathlib.Path(source.paths[2])
    whole = bytearray(path.read_bytes())
    whole[bytes(whole).index(images[4]) + 20] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="damaged records"):
        source[4]


def test_folders_that_are_not_finished_records(many, tmp_path):
    source, _ = many
    for read in (records.open_records, records.load_index):
        with pytest.raises(InputError, match="'validation'; it has train"):
            read(tmp_path / "out", "validation")
        with pytest.raises(InputError, match="no finished records"):
            read(tmp_path / "nowhere", "train")
    pathlib.Path(source.paths[1]).unlink()
    with pytest.raises(InputError, match="00001-of-00005: is missing"):
        records.open_records(tmp_path / "out", "train")


def test_reading_is_much_faster_than_decoding(tmp_path):
    """Records are read faster than images are decoded, by a wide margin (measured: 28 us)."""
    images = [jpeg(i % 5, 32) for i in range(2000)]
    records.write_corpus(tmp_path / "out", "faces", [image_split(images)], progress=False)
    source = records.open_records(tmp_path / "out", "train")
    best = min(_seconds(lambda: [records.decode_record(raw) for raw in source]) for _ in range(5))
    assert best / len(source) < 200e-6  # an image of 112 x 112 takes 150 us to decode


def _seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start
