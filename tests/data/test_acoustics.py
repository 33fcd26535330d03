"""MFCC, prosody, patches of sound, and how they come to annotation rows."""

import numpy as np
import pytest

from abaw_jax.data import acoustics
from abaw_jax.data.media import RATE


def tone(pitch, seconds=1.0, volume=8000):
    """Harmonics that fall off: int16."""
    phase = 2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (volume * wave / 2).astype(np.int16)


@pytest.mark.parametrize("name", acoustics.FEATURES)
@pytest.mark.parametrize("length", [0, 1, 320, 321, 5000])
def test_there_is_a_row_every_20_ms_of_sound(name, length):
    compute, width = acoustics.FEATURES[name]
    values = compute(np.full(length, 7, np.int16))
    assert values.shape == (-(-length // 320), width) and values.dtype == np.float32
    assert np.isfinite(values).all()


def test_prosody_of_a_voice_that_rises_and_falls_silent():
    """Pitch from the mean of 100 and 200 Hz, in octaves; then nothing."""
    samples = np.concatenate([tone(100), tone(200, volume=4000), np.zeros(RATE, np.int16)])
    pitch, voiced, loudness, rise, crossings = acoustics.prosody(samples).T
    low, high, none = slice(5, 45), slice(55, 95), slice(105, 150)
    assert pitch[high].mean() - pitch[low].mean() == pytest.approx(1, abs=0.03)
    assert abs(pitch[low].mean() + pitch[high].mean()) < 0.1
    assert voiced[low].all() and voiced[high].all() and not voiced[none].any()
    assert not pitch[none].any()
    assert loudness[low].mean() - loudness[high].mean() == pytest.approx(np.log(2), abs=0.02)
    assert np.abs(rise[low]).max() < 0.02 and rise[48:52].max() < -0.03
    # A period of these tones changes its sign twice.
    assert crossings[low].mean() == pytest.approx(2 * 100 / RATE, rel=0.05)
    assert crossings[high].mean() == pytest.approx(2 * 200 / RATE, rel=0.05)


def test_mfcc_tell_a_spectrum_whatever_its_level():
    # In noise: bands of nothing have no level to tell.
    samples = np.concatenate([tone(150), tone(150), tone(310)])
    samples = samples + np.random.default_rng(0).normal(0, 300, len(samples))
    samples[RATE : 2 * RATE] /= 2
    values = acoustics.mfcc(samples.astype(np.int16))
    shape, loudness = values[:, :12], values[:, 12]
    one, softer, other = (shape[at : at + 40].mean(0) for at in (5, 55, 105))
    assert np.abs(one - softer).max() < 0.2 < 1 < np.abs(one - other).max()
    assert loudness[20] - loudness[70] == pytest.approx(np.log(2), abs=0.02)
    # Rises are a window's: all of them around a step make the whole of it.
    assert values[92:109, 13:25].sum(0) == pytest.approx(other - softer, abs=0.4)


@pytest.mark.parametrize(("length", "count"), [(0, 0), (1, 0), (15_599, 0), (15_600, 1),
                                               (30_959, 1), (30_960, 2)])  # fmt: skip
def test_patches_are_whole(length, count):
    assert acoustics.log_mel_patches(np.zeros(length, np.int16)).shape == (count, 96, 64)


def test_silence_is_the_logarithm_of_the_offset():
    np.testing.assert_allclose(
        acoustics.log_mel_patches(np.zeros(16000, np.int16)), np.log(0.01), rtol=1e-6
    )


def test_rows_take_what_is_around_their_time():
    values = np.arange(100.0)[:, None]  # two seconds
    times = np.array([0.0, 1.0, 1.01, 1.99, 2.5])
    rows = acoustics.at_rows(values, times, 2.0)
    assert rows[:, 1].tolist() == [1, 1, 1, 1, 0]
    np.testing.assert_allclose(rows[:, 0], [2.5, 50, 50.5, 97, 0], atol=1e-5)


@pytest.mark.parametrize("name", acoustics.FEATURES)
def test_what_is_of_the_recording_is_taken_of_clips_alone(name):
    samples, times = np.concatenate([tone(100), tone(200)]), np.linspace(0, 1.9, 7)
    (clip, settings), (frames, _) = (acoustics.make_features(name, whole=w) for w in (True, False))
    assert settings["width"] == clip(samples, times).shape[1]
    difference = clip(samples, times) - frames(samples, times)
    mean = acoustics.FEATURES[name][0](samples).mean(0)
    np.testing.assert_allclose(difference, [[*mean, 0]] * 7, atol=1e-4)


@pytest.mark.parametrize("length", [0, 15_599, 15_600, 3 * 15_360 + 239, 7 * 15_360 + 240])
def test_patches_in_blocks_are_those_of_the_whole(length):
    samples = np.random.default_rng(0).normal(0, 3000, length).astype(np.int16)
    parts = list(acoustics.patch_blocks(samples, 3))
    whole = acoustics.log_mel_patches(samples)
    assert all(len(part) for part in parts) and sum(map(len, parts)) == len(whole)
    np.testing.assert_array_equal(np.concatenate([whole[:0], *parts]), whole)


@pytest.mark.parametrize("sizes", [(6,), (2, 2, 2), (1, 5)])
def test_rows_take_the_state_at_their_time(sizes):
    """States of half a second each; sound ends at 3.4 s, where no whole one is left."""
    values = np.arange(1.0, 7)[:, None].astype(np.float32)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    times = np.array([-0.1, 0, 0.49, 0.5, 1.2, 1.2, 2.99, 3.1, 3.39, 3.4, 9])
    rows = acoustics.states_at(parts, times, rate=2.0, seconds=3.4)
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [1, 1, 1, 2, 3, 3, 6, 6, 6, 0, 0]
    assert rows[:, 1].tolist() == [1] * 9 + [0, 0]


def test_of_no_states_there_are_no_rows():
    assert acoustics.states_at([], np.arange(3.0), rate=1.0, seconds=3.0) is None
