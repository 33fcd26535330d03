"""Submissions: the example's lines, all of them, in its order; and a reader that names lines."""

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import Prediction, save_prediction
from abaw_jax.evaluation.smoothing import Smoothing, smooth_prediction
from abaw_jax.evaluation.submission import (
    check_submission,
    read_example,
    read_submission,
    write_submission,
)
from abaw_jax.tracks import EMI, EXPR, VA

HEADER = "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def example_file(path, locations, header=HEADER):
    path.write_text("\n".join([header, *(f"{text},0" for text in locations)]) + "\n")
    return path


def one_hot(*classes):
    return np.eye(8, dtype=np.float32)[list(classes)]


def test_every_line_in_the_examples_order_gaps_filled(tmp_path):
    # Lines of two videos, mixed, one of more than 9,999 frames; crops are known for some.
    locations = ["28-30-1280x720-4/00003.jpg", "video45_1/00001.jpg", "28-30-1280x720-4/00001.jpg"]
    locations += ["video45_1/10001.jpg", "28-30-1280x720-4/00002.jpg", "video45_1/00002.jpg"]
    example = example_file(tmp_path / "example.txt", locations)
    predictions = {
        "28-30-1280x720-4": Prediction(np.array([2]), one_hot(5)),
        "video45_1": Prediction(np.array([2, 9999]), one_hot(1, 7)),
        "unasked": Prediction(np.array([1]), one_hot(3)),
    }
    out = tmp_path / "new" / "EXPR.txt"
    written = write_submission(out, example, predictions, EXPR)
    want = [5, 1, 5, 7, 5, 1]
    lines = [f"{text},{label}" for text, label in zip(locations, want, strict=True)]
    assert out.read_text() == "\n".join([HEADER, *lines]) + "\n"
    assert (written.lines, written.videos, written.filled) == (6, 2, 4)
    assert check_submission(out, example, EXPR) == {"lines": 6, "videos": 2}
    frames, rows = read_submission(out, EXPR)["28-30-1280x720-4"]
    assert frames.tolist() == [1, 2, 3] and rows.tolist() == [[5]] * 3


def test_from_a_folder_smoothed_as_on_validation(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(8), 80).astype(np.float32)
    frames = np.sort(rng.choice(np.arange(1, 121), 80, replace=False))
    save_prediction(tmp_path / "p", "v", frames, values, EXPR.classes)
    example = example_file(tmp_path / "e.txt", [f"v/{i:05d}.jpg" for i in range(1, 122)])
    chosen = Smoothing("gaussian", 3, "hold")
    write_submission(tmp_path / "s.txt", example, tmp_path / "p", EXPR, smoothing=chosen)
    want = smooth_prediction(Prediction(frames, values), 121, chosen).values.argmax(1)
    np.testing.assert_array_equal(read_submission(tmp_path / "s.txt", EXPR)["v"][1][:, 0], want)
    raw = smooth_prediction(Prediction(frames, values), 121, Smoothing()).values.argmax(1)
    assert (raw != want).any()


def test_a_missing_video_needs_a_named_fallback(tmp_path):
    example = example_file(tmp_path / "e.txt", ["a/00001.jpg", "b/00001.jpg", "c/00002.jpg"])
    predictions = {
        "a": Prediction(np.array([1]), one_hot(4)),
        "c": Prediction(np.zeros(0, np.int32), np.zeros((0, 8), np.float32)),
    }
    out = tmp_path / "s.txt"
    with pytest.raises(InputError, match=r"names b, of which no frame is predicted \(2 of 3"):
        write_submission(out, example, predictions, EXPR)
    with pytest.raises(InputError, match="'Contempt'; expected mean or Neutral or"):
        write_submission(out, example, predictions, EXPR, fallback="Contempt")
    assert not out.exists()
    for fallback, label in (("mean", 4), ("Other", 7)):
        written = write_submission(out, example, predictions, EXPR, fallback=fallback)
        assert written.fallback_videos == ("b", "c") and written.filled == 2
        assert [r[1].tolist() for r in read_submission(out, EXPR).values()] == [
            [[4]],
            [[label]],
            [[label]],
        ]
    with pytest.raises(InputError, match="no frame of any video"):
        write_submission(out, example, {}, EXPR, fallback="mean")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    example = example_file(tmp_path / "e.txt", ["a/00001.jpg", "a/00002.jpg"])
    values = one_hot(4, 4)
    values[1, 0] = bad
    with pytest.raises(InputError, match="predictions: frame 2 of a has a value .* not finite"):
        write_submission(
            tmp_path / "s.txt", example, {"a": Prediction(np.array([1, 2]), values)}, EXPR
        )
    assert not (tmp_path / "s.txt").exists()


@pytest.mark.parametrize(
    "lines, message",
    [
        (["image_location,valence,arousal", "v/00001.jpg,1"], ":1: header"),
        ([HEADER], "no line below"),
        ([HEADER, "v/00001.jpg,1", "v/00001.jpg,2"], ":3: v/00001.jpg stands in line 2"),
        ([HEADER, "v/00001.jpg,8"], ":2: '8'; EXPR rows hold integers from 0 to 7"),
        ([HEADER, "v/00001.jpg,1", "v/00002.jpg,-1"], ":3: '-1'"),
        ([HEADER, "v/00001.jpg,0.5"], ":2: '0.5'"),
        ([HEADER, "v/00001.jpg,1,2"], ":2: '1,2' has 2 columns"),
        ([HEADER, "v/00001.jpg"], ":2: 'v/00001.jpg' has no label"),
        ([HEADER, "v/00001.jpg,1", "", "v/00002.jpg,1"], ":3: '' has no label"),
        ([HEADER, "00001.jpg,1"], ":2: '00001.jpg'; expected <video>/<number>.jpg"),
        ([HEADER, "v/a.jpg,1"], ":2: 'v/a.jpg'"),
        ([HEADER, "v/00000.jpg,1"], ":2: 'v/00000.jpg'"),
        ([HEADER, "v/²1.jpg,1"], ":2: 'v/²1.jpg'"),
        ([HEADER, 'v/00001.jpg,"1', "v/00002.jpg,1"], ":2: 'v/00001.jpg,\"1' is no line of a csv"),
        ([HEADER, f'v/00001.jpg,"{"1" * 140_000}"'], ":2: 'v/00001.jpg,\"1111"),
        ([HEADER, '"v/00001.jpg,1"'], ":2: '\"v/00001.jpg,1\"' has a comma in quotes"),
        ([f'"{HEADER}"', "v/00001.jpg,1"], ":1: "),
    ],
)
def test_reader_names_the_line(tmp_path, lines, message):
    path = tmp_path / "s.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as error:
        read_submission(path, EXPR)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_reader_takes_other_line_ends_and_spaces(tmp_path):
    path = tmp_path / "s.txt"
    path.write_bytes(
        b"\xef\xbb\xbf" + HEADER.replace(",", ", ").encode() + b"\r\nv/00002.jpg, 3\r\n"
    )
    frames, rows = read_submission(path, EXPR)["v"]
    assert frames.tolist() == [2] and rows.tolist() == [[3]] and rows.dtype == np.int32
    assert read_example(path, EXPR).text == ["v/00002.jpg"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_submission(path, EXPR)
    with pytest.raises(InputError, match="No such file"):
        read_submission(tmp_path / "absent", EXPR)


def quoted(text):
    """The same csv text with quotes round every cell."""
    return "".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()
    )


@pytest.mark.parametrize(
    ("track", "rows"),
    [
        (EMI, ["12660,0.5,0,0,1,0,0.25", "7,0,0,0.5,0,0,0"]),
        (EXPR, ["28-30-1280x720-4/00002.jpg,7", "28-30-1280x720-4/00001.jpg,0"]),
        (VA, ["v/00001.jpg,0.5,-0.25"]),
    ],
)
def test_cells_in_quotes_say_the_same(tmp_path, track, rows):
    plain, other = tmp_path / "plain.csv", tmp_path / "quoted.csv"
    plain.write_text("\n".join([track.header, *rows]) + "\n")
    other.write_text(quoted(plain.read_text()))
    for path in (plain, other):
        assert check_submission(path, other, track) == check_submission(plain, path, track)
    want, found = (read_submission(path, track) for path in (plain, other))
    assert list(found) == list(want)
    for video in want:
        for was, now in zip(want[video], found[video], strict=True):
            np.testing.assert_array_equal(now, was)
    predictions = {
        video: Prediction(frames, np.full((len(frames), track.outputs), 0.5, np.float32))
        for video, (frames, _) in want.items()
    }
    write_submission(tmp_path / "a.txt", plain, predictions, track)
    write_submission(tmp_path / "b.txt", other, predictions, track)
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "a.txt").read_text()
    assert '"' not in (tmp_path / "b.txt").read_text()


def test_check_finds_order_and_length(tmp_path):
    example = example_file(tmp_path / "e.txt", ["v/00001.jpg", "v/00002.jpg"])
    path = example_file(tmp_path / "s.txt", ["v/00002.jpg", "v/00001.jpg"])
    with pytest.raises(InputError, match=r"s\.txt:2: v/00002\.jpg; the example has v/00001\.jpg"):
        check_submission(path, example, EXPR)
    path = example_file(tmp_path / "s.txt", ["v/00001.jpg"])
    with pytest.raises(InputError, match=r"s\.txt:3: ends here; .* has v/00002"):
        check_submission(path, example, EXPR)
