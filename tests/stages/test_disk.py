"""A stage notices what it reads beside the work of others, where that has changed."""

import os
import pathlib

import ml_collections
import pytest

from abaw_jax.recipe import Context
from abaw_jax.stages.disk import FOUND
from configs import expr


@pytest.fixture
def config(tmp_path):
    for name in ("batch1/1.mp4", "transcripts/1.txt", "store/features.json", "scenes.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / "store" / "features.json").write_text('{"rate": 50.0}')
    (tmp_path / "other" / "validation").mkdir(parents=True)
    config = expr.get_config("tiny").unlock()
    config.corpus.root = str(tmp_path)
    config.extract.stores = ml_collections.ConfigDict({"mine": "store", "idle": "nowhere"})
    config.sequence.scene_file = str(tmp_path / "scenes.csv")
    config.ensemble.others = ml_collections.ConfigDict({"theirs": str(tmp_path / "other")})
    return config


def look(config, stage):
    return FOUND[stage](Context(ml_collections.FrozenConfigDict(config), pathlib.Path("run"), None))


def touch(path):
    path.write_text("y")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("stage", "modalities", "path"),
    [
        ("extract", ("sound",), "batch1/2.mp4"),
        ("extract", ("words",), "transcripts/1.txt"),
        ("extract", ("face", "mine"), "store/2.npz"),
        ("extract", ("face", "mine"), "batch1/2.mp4"),
        ("sequence", ("face",), "scenes.csv"),
        ("ensemble", ("face",), "other/validation/1.npz"),
    ],
)
def test_a_change_is_seen(config, tmp_path, stage, modalities, path):
    config.sequence.modalities = modalities
    before = look(config, stage)
    assert before and look(config, stage) == before
    touch(tmp_path / path)
    assert look(config, stage) != before


def test_what_is_not_read_is_not_looked_at(config, tmp_path):
    assert look(config, "extract") == {}
    before = look(config, "prepare")
    for name in ("batch1/2.mp4", "transcripts/1.txt", "store/2.npz"):
        touch(tmp_path / name)
    assert look(config, "prepare") == before
    config.sequence.modalities = ("sound", "words")
    config.corpus.root = ""  # a demo corpus
    assert look(config, "extract") == {}
