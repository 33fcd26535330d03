"""The command that makes feature stores of the pickles that EMI's organisers supply."""

import json
import os
import pickle

import numpy as np
import pytest

from abaw_jax import supplied
from abaw_jax.data.features import FeatureStore

ROWS = {"wav2vec2/00000": 3, "wav2vec2/7": 30, "test/wav2vec2/00008": 0}
ROWS |= {"vit/00000": 3, "vit/00007": 2, "vit/00009": 1, "test/vit/00008": 1}
IMAGES = {
    "face_images/0": ["2.jpg", "10.jpg", "9.jpg"],  # by number 2, 9, 10
    "face_images/00007": ["0.jpg", "1.png", "._1.png"],  # from 0
    "face_images/00009": [],
    "face_images/00011": ["1.jpg"],  # has no pickle
    "test/face_images/8": ["4.jpg"],
}
PAIRS = {kind: f"{kind},test/{kind}" for kind in ("wav2vec2", "vit", "face_images")}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """The published layout; the working directory."""
    monkeypatch.chdir(tmp_path)
    for number, (name, rows) in enumerate(ROWS.items()):
        values = np.full((rows, 4), number, np.float32) + np.arange(rows)[:, None]
        dump(tmp_path / f"{name}.pkl", values)
    for folder, names in IMAGES.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    return tmp_path


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, 4))


def run(*arguments):
    return supplied.main(["supplied", *map(str, arguments)])


def convert(kind, *more):
    images = [f"--face_images={PAIRS['face_images']}"] if kind == "vit" else []
    return run("--kind", kind, "--pickles", PAIRS[kind], "--output=store", *images, *more)


def test_sound_by_its_rate(corpus, capsys):
    assert convert("wav2vec2", "--rate=2", "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["clips"], record["left_out"], record["width"], record["rate"]) == (3, 0, 4, 2.0)
    store = FeatureStore("store", encoder="wav2vec2", width=4)
    lengths = {"00000": 3, "00007": 24, "00008": 0}  # 12 seconds at most
    assert {clip: len(store.read(clip)) for clip in lengths} == lengths
    before = {path: path.stat().st_mtime_ns for path in (corpus / "store").iterdir()}
    assert convert("wav2vec2", "--rate=2") == 0
    assert {path: path.stat().st_mtime_ns for path in (corpus / "store").iterdir()} == before
    assert convert("wav2vec2") == 2  # 50 rows a second are other features
    assert "features.json: holds features of other files" in capsys.readouterr().err


def test_rows_of_vit_are_of_the_images_in_their_order(corpus, capsys):
    assert convert("vit") == 0
    made, left_out = capsys.readouterr().out.splitlines()
    assert made == "store: 3 clips, rows of 4 numbers"
    assert left_out == "1 clips have a pickle and no image: left out"
    store = FeatureStore("store", encoder="vit", width=4)
    frames = {clip: store.frames(clip).tolist() for clip in ("00000", "00007", "00008")}
    assert frames == {"00000": [2, 9, 10], "00007": [1, 2], "00008": [4]}
    assert "rate" not in store.settings and store.read("00000")[:, 0].tolist() == [3, 4, 5]
    assert not (corpus / "store" / "00009.npz").exists()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_hostile_pickle_is_one_line_and_leaves_no_store(corpus, capsys):
    dump(corpus / "test" / "vit" / "00008.pkl", Hostile())
    assert convert("vit") == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: test/vit/00008.pkl: names posix.system")
    assert not (corpus / "ran").exists() and not (corpus / "store" / "features.json").exists()
    # What it has left is not taken for another's.
    assert run("--kind=wav2vec2", "--pickles=test/wav2vec2", "--output=store") == 2
    assert "error: store/00000.npz: is of other files" in capsys.readouterr().err
    dump(corpus / "test" / "vit" / "00008.pkl", np.ones((1, 4), np.float32))
    assert convert("vit") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pickles=vit"], "--kind is missing"),
        (["--kind=vit"], "--pickles is missing"),
        (["--kind=vit", "--pickles=vit"], "--face_images is missing"),
        (["--kind=vit", "--pickles=vit", "--rate=50"], "--rate does not go with --kind=vit"),
        (["--kind=wav2vec2", "--pickles=vit", "--face_images=a"], "--face_images does not go"),
        (["--kind=wav2vec2", "--pickles=wav2vec2", "--rate=0"], "rate 0; expected rows a second"),
        (["--kind=wav2vec2", "--pickles=wav2vec2", "--rate=nan"], "rate nan; expected"),
        (["--kind=wav2vec2", "--pickles=wav2vec2", "--rate=0.08"], "1 in 12 at least"),
        (["--kind=wav2vec2", "--pickles=wav2vec2", "test/wav2vec2"], "unexpected argument 'test"),
        (["--kind=wav2vec2", "--pickles=wav2vec2,face_images"], "face_images: no <clip>.pkl"),
        (["--kind=wav2vec2", "--pickles=absent"], "absent: cannot be read"),
        (["--kind=vit", "--pickles=vit", "--face_images=absent"], "absent: does not exist"),
        (["--kind=vit", "--pickles=vit", "--face_images=vit"], "vit: no pickle is of a clip that"),
        (["--kind=hubert", "--pickles=vit"], "wav2vec2|vit"),
    ],
)
def test_refusals(corpus, capsys, arguments, message):
    assert run(*arguments, "--output=store") == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (corpus / "store").exists()


def test_rows_that_are_not_the_images(corpus, capsys):
    (corpus / "face_images" / "0" / "11.jpg").write_bytes(b"")
    assert convert("vit") == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: vit/00000.pkl: 3 rows for 4 images of the clip; expected a row")
