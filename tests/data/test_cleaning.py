"""Cleaning: what a crop must have, and what becomes of those without it."""

import csv

import corpus_trees
import cv2
import numpy as np
import pytest
from corpus_trees import make

from abaw_jax.data import write
from abaw_jax.data.cleaning import Cleaning
from abaw_jax.data.records import load_index, open_records
from abaw_jax.errors import InputError

ALL = Cleaning(min_side=32, min_contrast=10.0, min_sharpness=3.0)


def jpeg(image):
    return cv2.imencode(".jpg", image)[1].tobytes()


def noise(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def test_each_reason_is_that_of_its_own_crop():
    sharp = noise(48)
    enlarged = cv2.resize(cv2.resize(sharp, (6, 6)), (48, 48), interpolation=cv2.INTER_CUBIC)
    assert enlarged.std() > 10
    assert ALL.faults(jpeg(sharp)) == ()
    assert ALL.faults(jpeg(sharp[:31])) == ("small",)
    assert ALL.faults(jpeg(np.full((48, 48), 90, np.uint8))) == ("blank", "blurred")
    assert Cleaning(min_contrast=200.0).faults(jpeg(sharp)) == ("blank",)
    assert Cleaning(min_sharpness=20.0).faults(jpeg(enlarged)) == ("blurred",)
    assert not Cleaning() and Cleaning().faults(b"no image: it is not looked at") == ()


def test_a_number_below_zero_is_refused():
    with pytest.raises(InputError, match="clean.min_contrast: -1; expected 0"):
        Cleaning(min_contrast=-1)


def test_training_crops_are_left_out_counted_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SHARD_IMAGES", 2)
    tree = corpus_trees.small_affwild2(tmp_path / "in")
    plain = make(tree, tmp_path / "plain")
    assert "cleaned_images" not in plain["splits"]["train"]
    assert not (tmp_path / "plain" / "cleaned.csv").exists()
    before = load_index(tmp_path / "plain", "train")
    # The crops of this tree are of few pixels: one gets more.
    kept = next(path for root in tree.roots for path in root.glob(f"{before.videos[0]}/*.jpg"))
    kept.write_bytes(jpeg(noise(48)))
    found = make(tree, tmp_path / "clean", clean=Cleaning(min_side=32))
    index, count = load_index(tmp_path / "clean", "train"), len(before.frames) - 1
    assert len(index.frames) == len(open_records(tmp_path / "clean", "train")) == 1
    assert found["splits"]["train"]["cleaned_images"]["all"] == count
    assert found["splits"]["train"]["cleaned_images"]["small"] == count
    np.testing.assert_array_equal(index.rows, before.rows)  # their labels stay
    np.testing.assert_array_equal(index.labels["expr"], before.labels["expr"])
    with open(tmp_path / "clean" / "cleaned.csv") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == count and {row["reasons"] for row in listed} == {"small"}
    assert str(kept) not in {row["file"] for row in listed}
    # What is predicted and scored stays, whatever it looks like.
    others = load_index(tmp_path / "clean", "validation")
    assert len(others.frames) == len(load_index(tmp_path / "plain", "validation").frames)
    with pytest.raises(InputError, match="other inputs .*the cleaning"):
        make(tree, tmp_path / "clean")


def test_nothing_left_is_an_error(tmp_path):
    tree = corpus_trees.small_affwild2(tmp_path / "in")
    with pytest.raises(InputError, match="none of .* train images passes .*min_side=4000"):
        make(tree, tmp_path / "out", clean=Cleaning(min_side=4000))
    assert not (tmp_path / "out" / "summary.json").exists()
