"""Prediction files: round trip, and every refusal."""

import os

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_prediction, load_predictions, save_prediction
from abaw_jax.tracks import EXPR

FRAMES = np.array([1, 2, 5, 10000])


def probabilities(seed=0, n=4):
    return np.random.default_rng(seed).dirichlet(np.ones(8), n).astype(np.float32)


def test_round_trip_is_exact_and_the_file_is_as_promised(tmp_path):
    values = probabilities()
    path = save_prediction(tmp_path / "new", "video10_1_left", FRAMES, values, EXPR.classes)
    assert path == tmp_path / "new" / "video10_1_left.npz"
    with np.load(path, allow_pickle=False) as file:
        assert file["frames"].dtype == np.int32 and file["values"].dtype == np.float32
        assert file["classes"].tolist() == list(EXPR.classes)
    read = load_prediction(path, EXPR)
    np.testing.assert_array_equal(read.frames, FRAMES)
    np.testing.assert_array_equal(read.values, values)
    assert os.listdir(path.parent) == ["video10_1_left.npz"]


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    first = save_prediction(tmp_path / "a", "v", FRAMES, probabilities(), EXPR.classes)
    second = save_prediction(tmp_path / "b", "v", FRAMES, probabilities(), EXPR.classes)
    assert first.read_bytes() == second.read_bytes()


def test_another_order_of_classes_is_refused(tmp_path):
    swapped = [EXPR.classes[1], EXPR.classes[0], *EXPR.classes[2:]]
    path = save_prediction(tmp_path, "v", FRAMES, probabilities(), swapped)
    with pytest.raises(InputError, match="in this order: write names and columns") as error:
        load_prediction(path, EXPR)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_video_without_frames_is_kept(tmp_path):
    path = save_prediction(tmp_path, "v", np.zeros(0, int), np.zeros((0, 8)), EXPR.classes)
    assert load_prediction(path, EXPR).values.shape == (0, 8)


@pytest.mark.parametrize(
    "frames, message",
    [
        ([1, 2, 2, 3], "frame 2 is there twice"),
        ([1, 3, 2, 4], "frame 2 follows frame 3"),
        ([0, 1, 2, 3], "frames count from 1"),
        ([1.0, 2.0, 3.0, 4.0], "expected integers"),
        ([[1, 2, 3, 4]], "expected integers"),
        ([1, 2, 3], "expected float32 \\(3, 8\\)"),
        ([1, 2, 3, 2**31], "frames count from 1"),
    ],
)
def test_bad_frames_are_refused_by_writer_and_reader(tmp_path, frames, message):
    with pytest.raises(InputError, match=message):
        save_prediction(tmp_path, "v", np.array(frames), probabilities(), EXPR.classes)
    assert not list(tmp_path.iterdir())
    path = tmp_path / "v.npz"
    np.savez(path, frames=np.array(frames), values=probabilities(), classes=EXPR.classes)
    with pytest.raises(InputError, match=message) as error:
        load_prediction(path, EXPR)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_unsigned_frames_do_not_wrap(tmp_path):
    path = tmp_path / "v.npz"
    frames = np.array([4, 3, 2, 1], np.uint32)
    np.savez(path, frames=frames, values=probabilities(), classes=EXPR.classes)
    with pytest.raises(InputError, match="frame 3 follows frame 4"):
        load_prediction(path, EXPR)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39, -1e39])  # 1e39: infinite in float32
def test_values_that_are_not_finite_are_refused_by_writer_and_reader(tmp_path, bad):
    values = probabilities().astype(np.float64)
    values[2, 3] = bad
    message = r"frame 5 has a value that is not finite in float32 \(1 such"
    with pytest.raises(InputError, match=message):
        save_prediction(tmp_path, "v", FRAMES, values, EXPR.classes)
    assert not list(tmp_path.iterdir())
    path = tmp_path / "v.npz"
    np.savez(path, frames=FRAMES, values=values, classes=EXPR.classes)
    with pytest.raises(InputError, match=message):
        load_prediction(path, EXPR)


def write(path, **arrays):
    good = {"frames": FRAMES, "values": probabilities(), "classes": np.array(EXPR.classes)}
    np.savez(path, **{name: a for name, a in {**good, **arrays}.items() if a is not None})


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"values": probabilities()[:, :7]}, "values are float32 of shape \\(4, 7\\)"),
        ({"values": np.ones((4, 8), int)}, "values are int64"),
        ({"classes": None}, "no array 'classes' \\(found: frames, values\\)"),
        ({"classes": np.array([*EXPR.classes[:-1], "Contempt"])}, "Contempt"),
        ({"classes": np.array([*EXPR.classes[:-1], "Neutral"])}, "each once"),
        ({"classes": np.array(EXPR.classes[:-1])}, "Neutral"),
        ({"classes": np.arange(8)}, "names as text"),
        ({"classes": np.array(EXPR.classes, object)}, "plain arrays"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    path = tmp_path / "v.npz"
    write(path, **arrays)
    with pytest.raises(InputError, match=message) as error:
        load_prediction(path, EXPR)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "v.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        load_prediction(path, EXPR)


def test_a_truncated_file_and_a_bare_array_are_refused(tmp_path):
    path = tmp_path / "v.npz"
    write(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=str(path)):
        load_prediction(path, EXPR)
    with open(path, "wb") as file:
        np.save(file, probabilities())
    with pytest.raises(InputError, match=str(path)):
        load_prediction(path, EXPR)
    with pytest.raises(InputError, match="No such file"):
        load_prediction(tmp_path / "absent.npz", EXPR)


@pytest.mark.parametrize("video", ["", "a/b", ".hidden", "..", "a\\b"])
def test_names_that_leave_the_folder_are_refused(tmp_path, video):
    with pytest.raises(InputError, match="cannot name"):
        save_prediction(tmp_path, video, FRAMES, probabilities(), EXPR.classes)


def test_folders(tmp_path):
    for video in ("b", "a", "28-30-1280x720-4.v2"):
        save_prediction(tmp_path, video, FRAMES, probabilities(), EXPR.classes)
    (tmp_path / "._a.npz").write_bytes(b"resource fork")
    (tmp_path / "notes.txt").write_text("x")
    assert list(load_predictions(tmp_path, EXPR)) == ["28-30-1280x720-4.v2", "a", "b"]
    assert list(load_predictions(tmp_path, EXPR, ["b", "absent"])) == ["b"]
    with pytest.raises(InputError, match="No such file"):
        load_predictions(tmp_path / "absent", EXPR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no"):
        load_predictions(tmp_path / "empty", EXPR)
