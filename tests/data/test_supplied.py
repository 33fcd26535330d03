"""Supplied features: pickles of clips -> a feature store, once, and what is refused."""

import os
import pickle

import numpy as np
import pytest

from abaw_jax.data import supplied
from abaw_jax.data.features import FeatureStore
from abaw_jax.data.supplied import convert_features
from abaw_jax.data.windows import make_feature_reader
from abaw_jax.errors import InputError

LENGTHS = {"00000": 3, "7": 30, "12345": 0}  # clip 7 is longer than 12 s at two rows a second


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "wav2vec2"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for clip, length in LENGTHS.items():
        dump(folder / f"{clip}.pkl", rng.normal(size=(length, 4)).astype(np.float32))
    (folder / "._7.pkl").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    return folder


def dump(path, value):
    path.write_bytes(pickle.dumps(value, 4))


def convert(source, **options):
    options = {"encoder": "wav2vec2", "progress": False} | options
    return convert_features(source, source.parent / "store", **options)


def values(source, clip):
    return pickle.loads((source / f"{clip}.pkl").read_bytes())  # written by this test


def test_pickles_become_a_store_that_windows_read(source):
    settings = convert(source, rate=2.0)
    assert settings["encoder"] == "wav2vec2" and settings["width"] == 4
    assert settings["rate"] == 2.0 and settings["seconds"] == 12.0
    store = FeatureStore(source.parent / "store", encoder="wav2vec2", width=4)
    np.testing.assert_array_equal(store.read("00000"), values(source, "00000"))
    np.testing.assert_array_equal(store.read("00007"), values(source, "7")[:24])
    assert store.read("12345").shape == (0, 4)
    read = make_feature_reader(["00007"], [store])
    window = read(0, np.array([0, 23]), None)["features"]
    np.testing.assert_array_equal(window, values(source, "7")[[0, 23]])


def test_rows_are_of_the_images_of_a_clip(source):
    frames = {"00000": np.array([2, 5, 9]), "12345": np.zeros(0, int)}
    convert(source, encoder="vit", frames=frames)
    store = FeatureStore(source.parent / "store")
    np.testing.assert_array_equal(store.frames("00000"), [2, 5, 9])
    with pytest.raises(InputError, match="no features of 1 videos"):
        store.require(["00007"])
    with pytest.raises(InputError, match=r"0.pkl: 3 rows for 2 images of the clip"):
        convert_features(
            source, source.parent / "other", encoder="vit", frames={"00000": [1, 2]}, progress=False
        )


def test_is_done_once_and_again_where_it_was_interrupted(source, monkeypatch):
    read, load = [], supplied.load_array

    def counted(path):
        read.append(path.name)
        if len(read) == 2:
            raise KeyboardInterrupt
        return load(path)

    monkeypatch.setattr(supplied, "load_array", counted)
    with pytest.raises(KeyboardInterrupt):
        convert(source)
    with pytest.raises(InputError, match=r"features.json: is absent"):
        FeatureStore(source.parent / "store")
    settings = convert(source)
    assert len(read) == 5
    assert convert(source) == settings and len(read) == 5
    dump(source / "8.pkl", np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match=r"features.json: holds features of other files"):
        convert(source)


def test_several_folders(source, tmp_path):
    test = tmp_path / "test" / "wav2vec2"
    test.mkdir(parents=True)
    dump(test / "00008.pkl", np.ones((2, 4), np.float16))
    convert_features(
        [source, test], tmp_path / "both", encoder="wav2vec2", rate=50.0, progress=False
    )
    np.testing.assert_array_equal(FeatureStore(tmp_path / "both").read("00008"), np.ones((2, 4)))
    dump(test / "00007.pkl", np.ones((2, 4), np.float32))
    with pytest.raises(InputError, match=r"00007.pkl: is clip 00007 of .*/7.pkl"):
        convert_features([source, test], tmp_path / "c", encoder="w", progress=False)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(4, np.float32), r"float32 of shape \(4,\); expected finite floats \(rows, width"),
        (np.zeros((2, 4), np.int64), "holds int64"),
        (np.full((2, 4), np.nan), "expected finite floats"),
        (np.zeros((2, 5), np.float32), "rows of 5 numbers, 4 in the others"),
    ],
)
def test_pickles_of_other_shapes_are_refused(source, value, words):
    dump(source / "8.pkl", value)
    with pytest.raises(InputError, match=rf"8.pkl: .*{words}"):
        convert(source)
    assert not (source.parent / "store" / "features.json").exists()


def test_a_hostile_pickle_is_refused_and_not_run(source):
    dump(source / "8.pkl", Hostile(source / "ran"))
    with pytest.raises(InputError, match=r"8.pkl: names posix.system, of which no array is made"):
        convert(source)
    assert not (source / "ran").exists()


def test_folders_without_pickles_are_named(tmp_path):
    with pytest.raises(InputError, match=r"vit: cannot be read \(No such file"):
        convert_features(tmp_path / "vit", tmp_path / "store", encoder="vit")
    (tmp_path / "vit").mkdir()
    with pytest.raises(InputError, match=r"vit: no <clip>.pkl to convert"):
        convert_features(tmp_path / "vit", tmp_path / "store", encoder="vit")
    (tmp_path / "vit" / "all.pkl").write_bytes(b"")
    with pytest.raises(InputError, match=r"all.pkl: is no clip's number"):
        convert_features(tmp_path / "vit", tmp_path / "store", encoder="vit")
