"""Annotation files with all that has been met in them."""

import dataclasses

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR
from abaw_jax.tracks.annotations import annotation_files, find_split, read_annotation

# Label formats of the other tracks, which the same reader must serve.
VA = dataclasses.replace(
    EXPR, name="VA", folder_prefix="VA", label_width=2, label_type="float32",
    label_range=(-1, 1), invalid=-5,
)  # fmt: skip
AU = dataclasses.replace(EXPR, name="AU", folder_prefix="AU", label_width=12, label_range=(0, 1))
NAMES = ",".join(EXPR.classes)


@pytest.mark.parametrize(
    "content",
    [
        f"{NAMES}\n0\n-1\n7\n",
        f"{NAMES}\n0\n-1\n7",
        f"{NAMES}\r\n0\r\n-1\r\n7\r\n",
        f"{NAMES}\n0\n-1 \n 7\n\n\n",
        "anything, not parsed \xff\n0\n-1\n7\n",
        "\n0\n-1\n7\n",
    ],
)
def test_rows_as_they_stand_below_any_header(tmp_path, content):
    path = tmp_path / "v.txt"
    path.write_bytes(content.encode("latin-1"))
    rows = read_annotation(path, EXPR)
    assert rows.dtype == np.int32 and rows.tolist() == [[0], [-1], [7]]


def test_wider_rows_and_numbers(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("valence,arousal\n0.5,-0.25\n-5,0.1\n1,-1\n-5.0,-5.0\n1e-3,0\n")
    rows = read_annotation(path, VA)
    want = np.array([[0.5, -0.25], [-5, 0.1], [1, -1], [-5, -5], [1e-3, 0]], np.float32)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, want)
    assert VA.valid(rows).tolist() == [True, False, True, False, True]
    path.write_text("header of one name\n" + ",".join("010101010101") + "\n0" + ",-1" * 11 + "\n")
    rows = read_annotation(path, AU)
    assert rows.shape == (2, 12) and AU.valid(rows).tolist() == [True, False]


@pytest.mark.parametrize(
    "track, body, message",
    [
        (EXPR, "1\n8\n", ":3: '8'; EXPR rows hold integers from 0 to 7, or -1 for no label"),
        (EXPR, "1\n-2\n", ":3: '-2'"),
        (EXPR, "1\n\n2\n", ":3: an empty row"),
        (EXPR, "1.5\n", ":2: '1.5'"),
        (EXPR, "1\n2\nx\n", ":4: 'x'"),
        (EXPR, "1,2\n", ":2: '1,2' has 2 columns; expected 1"),
        (EXPR, "9" * 400 + "\n", ":2: '999"),
        (VA, "0.5\n", ":2: '0.5' has 1 columns; expected 2"),
        (VA, "0.5,nan\n", ":2: '0.5,nan'"),
        (VA, "0,0\n0.5,1.01\n", ":3: '0.5,1.01'; VA rows hold numbers from -1 to 1, or -5"),
        (AU, ",".join("012101010101") + "\n", ":2: '0,1,2,"),
        (EXPR, "", "no row below its header"),
        (EXPR, "\n\n", "no row below its header"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path, track, body, message):
    path = tmp_path / "v.txt"
    path.write_text("header\n" + body)
    with pytest.raises(InputError) as error:
        read_annotation(path, track)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_annotation(tmp_path / "absent.txt", EXPR)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="no row"):
        read_annotation(tmp_path / "empty.txt", EXPR)


def test_files_of_a_folder(tmp_path):
    for name in ("video2.txt", "video10_1_left.txt", "._video2.txt", ".DS_Store", "notes.md"):
        (tmp_path / name).touch()
    assert list(annotation_files(tmp_path)) == ["video10_1_left", "video2"]
    with pytest.raises(InputError, match="cannot be read"):
        annotation_files(tmp_path / "absent")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no <video>\.txt"):
        annotation_files(tmp_path / "none")


@pytest.mark.parametrize(
    "challenge", ["EXPR_Recognition_Challenge", "EXPR_Classification_Challenge", "EXPR_Set"]
)
def test_split_is_found_from_three_heights(tmp_path, challenge):
    split = tmp_path / challenge / "Validation_Set"
    for folder in (challenge, "VA_Estimation_Challenge", "AU_Set", "EXPRESSIONS_Set"):
        (tmp_path / folder / "Validation_Set").mkdir(parents=True)
    (split / "v.txt").touch()
    for folder in (tmp_path, tmp_path / challenge):
        (folder / "readme.txt").touch()
    for start in (tmp_path, tmp_path / challenge, split):
        assert find_split(start, EXPR, "Validation_Set") == split
    assert find_split(tmp_path, AU, "Validation_Set") == tmp_path / "AU_Set" / "Validation_Set"


def test_split_is_not_guessed(tmp_path):
    # 'VA' begins 'Validation_Set' too.
    (tmp_path / "Validation_Set" / "Train_Set").mkdir(parents=True)
    with pytest.raises(InputError, match=r"neither Train_Set, nor VA_\*/Train_Set, nor"):
        find_split(tmp_path, VA, "Train_Set")
    with pytest.raises(InputError, match="cannot be read"):
        find_split(tmp_path / "absent", EXPR, "Train_Set")
    for year in ("EXPR_Set", "EXPR_Recognition_Challenge"):
        (tmp_path / year / "Train_Set").mkdir(parents=True)
    with pytest.raises(InputError, match="EXPR_Recognition_Challenge, EXPR_Set all hold"):
        find_split(tmp_path, EXPR, "Train_Set")
