"""Clips whose modalities have time axes of their own: what is read of them, and in what shape."""

import numpy as np
import pytest

from abaw_jax.data import windows
from abaw_jax.data.clips import average_rows, make_clip_reader
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.errors import InputError

# Video -> rows of the face, of sound (5 steps at most).
VIDEOS = {"a": (3, 5), "b": (9, 2), "c": (0, 3), "d": (2, 0)}
ROWS = np.array([0, 3, 12, 13, 15])  # one that has no crop still has a row


def test_more_rows_than_steps_are_means_of_equal_parts():
    values = np.arange(14, dtype=np.float32).reshape(7, 2)
    expected = [values[a:b].mean(0) for a, b in ((0, 2), (2, 4), (4, 7))]
    found = average_rows(values, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    for steps in (7, 9):
        np.testing.assert_array_equal(average_rows(values, steps), values)


@pytest.fixture
def stores(tmp_path):
    """Of the face one number, the frame's; of sound two and a 1, of mean 10 and deviation 2."""
    for name, (frames, rows) in VIDEOS.items():
        numbers = np.arange(1, frames + 1)
        save_features(tmp_path / "face", name, numbers, numbers[:, None].astype(np.float32))
        heard = np.column_stack([np.full((rows, 2), 14.0), np.ones(rows)])
        save_features(tmp_path / "sound", name, np.arange(1, rows + 1), heard)
    save_feature_settings(tmp_path / "face", encoder="e", width=1, source_hash="s")
    scale = {"mean": [10, 10, 0], "deviation": [2, 2, 1]}
    save_feature_settings(
        tmp_path / "sound", encoder="e", width=3, source_hash="s", steps=5, **scale
    )
    return {name: FeatureStore(tmp_path / name) for name in ("face", "sound")}


def test_each_modality_has_its_rows_then_zeros(stores):
    labels = np.tile(np.float32(0.5), (15, 6))
    cuts = windows.make_clip_windows(list(VIDEOS), ROWS, labels, length=4)
    (batch,) = windows.window_epoch(
        cuts, make_clip_reader(list(VIDEOS), stores), batch_size=4, threads=0
    )
    assert batch["features"].shape == (4, 4, 2) and batch["features/sound"].shape == (4, 5, 3)
    faces = [[1, 2, 3, 0], [2, 4, 6, 8], [0, 0, 0, 0], [1, 2, 0, 0]]
    np.testing.assert_array_equal(batch["features"][..., 0], faces)
    np.testing.assert_array_equal(batch["features"][..., 1], np.array(faces) > 0)
    assert batch["mask"][:, 0].all(), "a clip without a crop is a clip"
    for clip, (_, rows) in enumerate(VIDEOS.values()):
        assert (batch["features/sound"][clip, :rows] == [2, 2, 1]).all()
        assert not batch["features/sound"][clip, rows:].any()


def test_one_modality_alone(stores):
    for name, key in (("face", "features"), ("sound", "features/sound")):
        read = make_clip_reader(list(VIDEOS), {name: stores[name]})
        assert list(read(0, np.arange(3), None)) == [key]


def test_a_training_clip_does_without_a_modality(stores):
    """Rows of zeros, each of whose last number says that there is none; one of the two is left."""
    read, rng = make_clip_reader(list(VIDEOS), stores, 0.5), np.random.default_rng(0)
    plain, seen = read(1, np.arange(4), None), set()
    for _ in range(40):
        found = read(1, np.arange(4), rng)
        for key, values in found.items():
            assert values.shape == plain[key].shape and values.dtype == plain[key].dtype
            assert not values.any() or (values == plain[key]).all()
        seen.add(tuple(bool(values.any()) for values in found.values()))
    assert seen == {(True, True), (True, False), (False, True)}


def test_clips_that_a_store_lacks_are_named(stores):
    with pytest.raises(InputError, match=r"sound: no features of 1 videos \(e\)"):
        make_clip_reader(["a", "e"], {"sound": stores["sound"]})
