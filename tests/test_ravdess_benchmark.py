"""The benchmark on RAVDESS, on drawn clips in its layout."""

import dataclasses
import json
import pathlib
import wave

import jax
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
ACTORS, EMOTIONS = range(1, 7), range(1, 9)
PREDICTORS = {a + b for a in ("face", "sound", "fused") for b in ("", "_ridge")}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import ravdess

    return ravdess


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A clip of each emotion by each of six actors; action units tell the emotion, noise is all
    that is heard. The table holds its rows in another order."""
    root, rng = tmp_path_factory.mktemp("ravdess"), np.random.default_rng(0)
    clips, units = [], []
    for actor in ACTORS:
        folder = root / f"Actor_{actor:02}"
        folder.mkdir()
        for emotion in EMOTIONS:
            rest = f"01-{emotion:02}-01-01-01-{actor:02}"
            with wave.open(str(folder / f"03-{rest}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(rng.integers(-900, 900, 4800).astype("<i2").tobytes())
            clips.append(f"01-{rest}")
            units.append(np.eye(35)[emotion] * rng.normal(1, 0.05))
    order = rng.permutation(len(clips))
    np.savez(
        root / "au_mfcc.npz",
        clip=np.array(clips)[order],
        au=np.array(units, np.float32)[order],
        mfcc=rng.normal(size=(len(clips), 259)).astype(np.float32),
    )
    return root


def test_it_scores_actors_it_was_not_trained_on(script, corpus, tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)

    def draw(settings, features, plain, labels, rows, others, workdir, augment=None):
        assert len(features) == len(plain) == len(labels) == 48
        assert sorted([*rows, *others]) == list(range(48))
        return rng.dirichlet(np.ones(8), len(others))

    monkeypatch.setattr(script, "predict_network", draw)
    monkeypatch.setattr(script, "hear_all", lambda clips, kept: rng.normal(size=(48, 95, 95)))
    options = ["--data", str(corpus), "--workdir", str(tmp_path), "--splits", "2", "--steps", "2"]
    assert script.main(options) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {line["case"].removeprefix("ravdess-"): line for line in lines}
    assert set(found) > PREDICTORS
    for name in PREDICTORS:
        line = found[name]
        assert line["clips"] == np.sum(line["confusion"]) == 24
        assert line["accuracy"] == line["splits"]["2"] == round(np.trace(line["confusion"]) / 24, 4)
        low, high = line["accuracy_interval"]
        assert low <= line["accuracy"] <= high
    # The units are those of the same take, and of noise nobody learns.
    assert found["face_ridge"]["accuracy"] == 1 > found["sound_ridge"]["accuracy"]
    gap = found["face-less-face_ridge"]
    assert gap["difference"] == round(found["face"]["accuracy"] - 1, 4)


def test_a_network_learns_of_training_clips_and_says_what_others_are(script, corpus, tmp_path):
    clips = script.read_clips(corpus)
    rows, others = np.arange(24), np.arange(24, 48)
    units = script.standardise(clips.units, rows)[:, None]
    labels = np.where(np.arange(48) < 24, clips.labels, 0)
    model = script.FACE.model.clone(
        width=32, join=(32,), head_width=16, dropout=0.0, feature_dropout=0.0
    )
    settings = dataclasses.replace(script.FACE, model=model, steps=80, lr=1e-2, batch=24)
    # What is predicted from is not what training alone is shown.
    shown = np.where(np.arange(48)[:, None, None] < 24, units, np.nan)
    found = script.predict_network(
        settings, shown, units, labels, rows, others, tmp_path, lambda part, rng: part
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), clips.labels[others])
    # Of other settings than those that a folder's training began with.
    with pytest.raises(script.InputError, match="another workdir"):
        longer = dataclasses.replace(settings, steps=90)
        script.predict_network(longer, shown, units, labels, rows, others, tmp_path)


def test_the_sound_of_clips_and_what_training_hears(script, corpus, tmp_path, monkeypatch):
    clips = script.read_clips(corpus)
    two = dataclasses.replace(clips, names=clips.names[:2], files=clips.files[:2])
    heard = script.hear_all(two, tmp_path / "sound.npz")
    assert heard.shape == (2, 95, 95) and np.isfinite(heard).all() and heard.std() > 0
    monkeypatch.setattr("ravdess_clips.hear", None)  # what is kept is not heard again
    np.testing.assert_array_equal(script.hear_all(two, tmp_path / "sound.npz"), heard)
    first, again, other = (
        script.disturb(np.ones((2, 95, 95)), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first == 0).any()
    rest = first[..., 64:]
    assert ((rest == 0) | (abs(rest - 1) <= 0.1)).all()
    model = script.HEARD.model
    mask = np.ones(first.shape[:2], bool)
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), first, mask)
    assert outputs.shape == (2, 75, 8)


def test_no_actor_lies_on_both_sides_of_a_split(script, corpus):
    clips = script.read_clips(corpus)
    splits = script.find_splits(clips)
    for actor, split in zip(ACTORS, [1, 1, 1, 2, 2, 2], strict=True):
        assert set(splits[clips.actors == actor]) == {split}


def test_what_is_standardised_hangs_on_training_clips_alone(script, corpus):
    clips = script.read_clips(corpus)
    rows, others = np.arange(24), np.arange(24, 48)
    moved = clips.units.copy()
    moved[others] += 100
    before, after = (script.standardise(x, rows) for x in (clips.units, moved))
    np.testing.assert_array_equal(before[rows], after[rows])
    np.testing.assert_allclose(before[rows].mean(axis=0), 0, atol=1e-5)


def test_another_layout_is_refused_in_one_line(script, corpus, tmp_path, capsys):
    assert script.main(["--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "--data" in error and error.count("\n") == 1
    assert script.main(["--data", str(corpus), "--splits", "3"]) == 2
    assert "gives 2" in capsys.readouterr().err
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "Actor_01" / "03-01-09-01-01-01-01.wav").touch()
    assert script.main(["--data", str(tmp_path)]) == 2
    assert "03-01-09-01-01-01-01.wav" in capsys.readouterr().err
