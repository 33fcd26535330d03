"""Feature stores: what is written is read, and what does not belong is refused."""

import json
import threading

import numpy as np
import pytest

from abaw_jax.data import features
from abaw_jax.errors import InputError

WIDTH = 5


def values(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    features.save_features(tmp_path, "video10_1_left", np.array([2, 3, 7]), values(3))
    features.save_features(tmp_path, "28-30-1280x720-4", np.arange(1, 10), values(9, 1))
    features.save_features(tmp_path, "empty", np.zeros(0, int), np.zeros((0, WIDTH)))
    features.save_feature_settings(tmp_path, encoder="abc", width=WIDTH, source_hash="123", fps=30)
    return tmp_path


def test_what_is_saved_is_loaded(folder):
    store = features.FeatureStore(folder)
    frames, found = store.frames("video10_1_left"), store.read("video10_1_left")
    assert frames.dtype == np.int32 and found.dtype == np.float32
    np.testing.assert_array_equal(frames, [2, 3, 7])
    np.testing.assert_array_equal(found, values(3))
    frames, found = store.frames("empty"), store.read("empty")
    assert frames.shape == (0,) and found.shape == (0, WIDTH)
    with np.load(folder / "video10_1_left.npz", allow_pickle=False) as file:
        assert file["frames"].dtype == np.int32 and file["values"].dtype == np.float32


def test_a_part_is_read_alone_and_by_many_threads(folder):
    store = features.FeatureStore(folder, encoder="abc", width=WIDTH, source_hash="123")
    assert store.settings["fps"] == 30
    wrong = []

    def work(seed):
        generator = np.random.default_rng(seed)
        for _ in range(50):
            first, stop = sorted(generator.integers(0, 10, 2).tolist())
            part = store.read("28-30-1280x720-4", first, stop)
            if not np.array_equal(part, values(9, 1)[first:stop]):
                wrong.append((first, stop))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_files_written_by_plain_numpy_are_read(folder):
    fortran = np.asfortranarray(values(4))
    np.savez(folder / "mine.npz", values=values(4, 3), extra=np.ones(3), frames=np.arange(1, 5))
    np.testing.assert_array_equal(features.FeatureStore(folder).read("mine"), values(4, 3))
    np.savez(folder / "columns.npz", values=fortran, frames=np.arange(1, 5))
    with pytest.raises(InputError, match=r"columns.npz: .*stored by columns"):
        features.FeatureStore(folder).read("columns")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"encoder": "other"}, "encoder is 'abc', expected 'other'"),
        ({"width": 768}, "width is 5, expected 768"),
        ({"source_hash": "9"}, "source_hash is '123', expected '9'"),
    ],
)
def test_another_encoder_width_or_source_is_refused(folder, asked, message):
    with pytest.raises(InputError, match=rf"features\.json: {message}"):
        features.FeatureStore(folder, **asked)


def test_videos_that_are_absent_are_named(folder):
    store = features.FeatureStore(folder)
    with pytest.raises(InputError, match=r"no features of 2 videos \(a, b\)"):
        store.require(["a", "empty", "b"])
    with pytest.raises(InputError, match=r"no features of 1 videos \(a\)"):
        store.read("a")
    with pytest.raises(InputError, match=r"7 videos \(0, 1, 2, 3, 4, \.\.\.\)"):
        store.require(map(str, range(7)))


def test_an_unfinished_store_is_refused(tmp_path):
    features.save_features(tmp_path, "a", np.array([1]), values(1))
    with pytest.raises(InputError, match=r"features\.json: is absent"):
        features.FeatureStore(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps({"encoder": "x", "width": 5}))
    with pytest.raises(InputError, match="has no 'source_hash'"):
        features.FeatureStore(tmp_path)
    settings = {"encoder": "x", "width": "5", "source_hash": "y"}
    (tmp_path / "features.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="width is '5'"):
        features.FeatureStore(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": [1, 2], "values": np.ones((2, 4), "f4")}, "values are 4 wide"),
        ({"frames": [1, 2], "values": np.ones((2, 5), "f8")}, "float64, expected little-endian"),
        ({"frames": [1, 2], "values": np.ones((2, 5), "i4")}, "expected floats"),
        ({"frames": [1, 2], "values": np.ones(2, "f4")}, "expected floats"),
        ({"frames": [1, 2, 3], "values": np.ones((2, 5), "f4")}, "3 frames and 2 values"),
        ({"frames": [2, 1], "values": np.ones((2, 5), "f4")}, "do not rise from 1"),
        ({"frames": [0, 1], "values": np.ones((2, 5), "f4")}, "do not rise from 1"),
        ({"frames": [1.0, 2.0], "values": np.ones((2, 5), "f4")}, "whole numbers"),
        ({"frames": [1, 2]}, "is no feature file"),
        ({"frames": [1, None], "values": np.ones((2, 5), "f4")}, "is no feature file"),
    ],
)
def test_feature_files_of_another_kind_are_refused(folder, arrays, message):
    np.savez(folder / "v.npz", **{k: np.asarray(v) for k, v in arrays.items()})
    with pytest.raises(InputError, match=rf"v\.npz: .*{message}"):
        features.FeatureStore(folder).read("v")


@pytest.mark.parametrize("size", [0, 10, 150, -1])
def test_cut_and_compressed_files_are_refused(folder, size):
    path = folder / "28-30-1280x720-4.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="is no feature file"):
        features.FeatureStore(folder).read(path.stem)
    np.savez_compressed(path, frames=np.arange(1, 10), values=values(9))
    with pytest.raises(InputError, match="compressed"):
        features.FeatureStore(folder).read(path.stem)


@pytest.mark.parametrize(
    ("frames", "found"),
    [([3, 2], values(2)), ([1], values(2)), ([1, 2], values(2)[0]), ([0, 1], values(2))],
)
def test_what_could_not_be_read_is_not_written(tmp_path, frames, found):
    with pytest.raises(InputError, match=r"v\.npz: not written"):
        features.save_features(tmp_path, "v", np.array(frames), found)
    assert not list(tmp_path.iterdir())
