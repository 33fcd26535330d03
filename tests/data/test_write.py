"""Writing records: whole or absent, resumed, the same bytes every time; what is refused."""

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time

import corpus_trees
import pytest
from corpus_trees import contents, image_split, jpeg, make, one_line

from abaw_jax.data import records, write
from abaw_jax.data.corpora import affwild2
from abaw_jax.errors import InputError


@pytest.fixture
def tree(tmp_path):
    return corpus_trees.small_affwild2(tmp_path / "in")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(write, "SHARD_IMAGES", 2)


def test_same_inputs_again_do_nothing(tree, tmp_path):
    first = make(tree, tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert make(tree, tmp_path / "out") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == stamps


def test_workers_do_not_change_the_bytes(tree, tmp_path, small_shards):
    make(tree, tmp_path / "a", workers=1)
    make(tree, tmp_path / "b", workers=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len([n for n in contents(tmp_path / "a") if "-train.array_record" in n]) == 3


def test_changed_inputs_are_noticed(tree, tmp_path):
    make(tree, tmp_path / "out")
    before = contents(tmp_path / "out")
    path = tree.labels("Train", "video10_1_left", [0, 1, 2, -1, 4, 5, 5])
    with pytest.raises(InputError) as caught:
        make(tree, tmp_path / "out")
    one_line(caught, tmp_path / "out", "train labels")
    corpus_trees.small_affwild2(tmp_path / "same")
    path.write_bytes((tmp_path / "same" / path.relative_to(tree.root)).read_bytes())
    make(tree, tmp_path / "out")
    image = tree.roots[0] / "9_right" / "00002.jpg"
    image.write_bytes(jpeg(77, 20))
    with pytest.raises(InputError, match="changed: validation images"):
        make(tree, tmp_path / "out")
    image.unlink()
    with pytest.raises(InputError, match="changed: validation images"):
        make(tree, tmp_path / "out")
    tree.test_list.unlink()
    tree.example.unlink()
    with pytest.raises(InputError, match="splits train, validation, test there, train, valid"):
        make(tree, tmp_path / "out")
    splits = affwild2.read(**tree.arguments)
    with pytest.raises(InputError, match="'affwild2' there, 'other' given"):
        records.write_corpus(tmp_path / "out", "other", splits, progress=False)
    assert contents(tmp_path / "out") == before


def test_images_elsewhere_are_the_same_inputs(tree, tmp_path):
    make(tree, tmp_path / "out")
    tree.root.rename(tmp_path / "moved")
    moved = corpus_trees.AffWild2.__new__(corpus_trees.AffWild2)
    root = tmp_path / "moved"
    for key, value in vars(tree).items():
        paths = value if isinstance(value, tuple) else (value,)
        paths = tuple(root / p.relative_to(tree.root) for p in paths)
        setattr(moved, key, paths if isinstance(value, tuple) else paths[0])
    make(moved, tmp_path / "out")


def test_a_missing_or_cut_file_is_made_again(tree, tmp_path, small_shards):
    make(tree, tmp_path / "out")
    before = contents(tmp_path / "out")
    shard = tmp_path / "out" / "affwild2-train.array_record-00001-of-00003"
    shard.write_bytes(shard.read_bytes()[:-10])
    make(tree, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "index-test.npz").unlink()
    make(tree, tmp_path / "out")
    assert contents(tmp_path / "out") == before


KILLED = """
import pathlib, pickle, signal, sys, time
from abaw_jax.data import records, write
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
write.SHARD_IMAGES = 2
notes = pathlib.Path(sys.argv[2], write.NOTES)
def slow(image, check=write.image_fault):
    time.sleep(1.0 if list(notes.glob("*.json")) else 0.0)  # seconds are left to be killed in
    return check(image)
write.image_fault = slow
splits = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
records.write_corpus(sys.argv[2], "affwild2", splits, workers=2, progress=False)
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(tree, tmp_path, small_shards, by):
    make(tree, tmp_path / "whole")
    (tmp_path / "splits").write_bytes(pickle.dumps(affwild2.read(**tree.arguments)))
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "splits"), str(out)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while not list((out / write.NOTES).glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(by)
    assert process.wait() != 0
    finished = [out / note.stem for note in (out / write.NOTES).glob("*.json")]
    stamps = {path: path.stat().st_mtime_ns for path in finished}
    assert 0 < len(stamps) < 6 and not (out / "summary.json").exists()
    with pytest.raises(InputError, match="no finished records"):
        records.open_records(out, "train")
    make(tree, out)
    assert {path: path.stat().st_mtime_ns for path in finished} == stamps
    assert contents(out) == contents(tmp_path / "whole")


def test_leftovers_of_another_run_go_and_strangers_stay(tree, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    stranger = corpus_trees.write(out / ".bashrc", "keep")
    other = corpus_trees.write(out / "celeba-train.array_record-00000-of-00001", "keep")
    for name in (
        "affwild2-train.array_record-00000-of-00009",
        ".affwild2-train.array_record-00000-of-00001.123",
        ".summary.json.abc",
        ".index-train.npz.abc",
        ".metadata-x/features.json",
    ):
        corpus_trees.write(out / name, "stale")
    make(tree, out)
    assert stranger.read_text() == other.read_text() == "keep"
    make(tree, tmp_path / "clean")
    found = set(contents(out)) - {stranger.name, other.name}
    assert found == set(contents(tmp_path / "clean"))


def test_a_changed_input_after_an_interruption(tree, tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(write, "_finish", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(tree, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(write, "SHARD_IMAGES", 2)
    tree.labels("Train", "video10_1_left", [0, 1, 6, -1, 4, 5, 6])
    make(tree, tmp_path / "out")
    make(tree, tmp_path / "clean")
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_damaged_images_are_listed_and_left_out(tree, tmp_path, small_shards):
    cut = tree.roots[0] / "9_right" / "00002.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    text = tree.roots[0] / "9_right" / "00004.jpg"
    text.write_bytes(b"<html>")
    summary = make(tree, tmp_path / "out", max_damaged=2)
    assert [entry["file"] for entry in summary["damaged"]] == [str(cut), str(text)]
    assert summary["damaged"][1]["reason"] == "neither JPEG nor PNG"
    assert summary["splits"]["validation"]["damaged_images"] == 2
    index = records.load_index(tmp_path / "out", "validation")
    assert index.frames.tolist() == [1, 3] and index.rows.tolist() == [0, 5]
    source = records.open_records(tmp_path / "out", "validation")
    assert [records.decode_record(raw)["frame"] for raw in source] == [1, 3]
    assert len(records.open_records(tmp_path / "out", "test")) == 2


def test_too_many_damaged_images(tree, tmp_path):
    for n in (1, 2):
        (tree.roots[0] / "9_right" / f"{n:05d}.jpg").write_bytes(b"")
    for limit in (1, 0, 0.1, 0.01):
        with pytest.raises(InputError) as caught:
            make(tree, tmp_path / "out", max_damaged=limit)
        one_line(caught, "9_right/00001.jpg (empty file)", "max_damaged", "damaged images")
        assert not (tmp_path / "out" / "summary.json").exists()
    assert make(tree, tmp_path / "out", max_damaged=0.2)["splits"]["validation"]["images"] == 2
    for limit in (-1, 1.5, -0.1):
        with pytest.raises(InputError, match="max_damaged"):
            make(tree, tmp_path / "new", max_damaged=limit)


def test_an_image_that_vanishes(tree, tmp_path):
    splits = affwild2.read(**tree.arguments)
    path = tree.roots[0] / "9_right" / "00001.jpg"
    path.unlink()
    with pytest.raises(InputError) as caught:
        records.write_corpus(tmp_path / "out", "affwild2", splits, progress=False)
    one_line(caught, path)


def test_full_disk_when_syncing(tree, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError) as caught:
            make(tree, tmp_path / "out")
    one_line(caught, tmp_path / "out", "No space left on device")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == []
    make(tree, tmp_path / "out")
    make(tree, tmp_path / "clean")
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_writer_that_cannot_write_on(tmp_path):
    """A limit on file sizes makes the native writer fail in the middle, as a full disk does."""
    images = [jpeg(i, 200) for i in range(20)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError) as caught:
            records.write_corpus(tmp_path / "out", "faces", [image_split(images)], progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(caught, "array_record-00000-of-00001: cannot be written", "File too large")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_unwritable_folder(tree, tmp_path):
    corpus_trees.write(tmp_path / "file", "x")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(InputError) as caught:
            make(tree, folder)
        one_line(caught, folder, "cannot be written")


def test_splits_that_cannot_be_written(tmp_path):
    good = image_split([jpeg()])
    for corpus, splits, word in [
        ("Aff Wild", [good], "'Aff Wild'"),
        ("faces", [], "no split"),
        ("faces", [good, good], "'train'"),
        ("faces", [image_split([jpeg()], "dev")], "'dev'"),
        ("faces", [image_split([])], "no images"),
    ]:
        with pytest.raises(InputError) as caught:
            records.write_corpus(tmp_path / "out", corpus, splits, progress=False)
        one_line(caught, word)


def test_progress_is_drawn(tree, tmp_path, capsys):
    splits = affwild2.read(**tree.arguments)
    records.write_corpus(tmp_path / "out", "affwild2", splits)
    assert "affwild2 records" in capsys.readouterr().err
