"""Features of sound: loudness, pitch and spectrum around each row, against made-up voices."""

import numpy as np
import pytest

from abaw_jax.data import sound
from abaw_jax.data.media import RATE

N = sound.LEVELS
LOUDNESS, PITCH = sound.LOUDNESS, sound.LOUDNESS + 1
WHOLE = slice(len(sound.CONTEXTS) * (N + 2), sound.width(whole=True) - 1)


def features(samples, times, whole=True):
    return sound.sound_features(samples, times, whole=whole)


def voice(pitch, seconds=2.0, volume=0.2):
    """A buzz: harmonics that fall off. pitch: a number, or one for each sample."""
    phase = np.cumsum(np.broadcast_to(pitch, round(seconds * RATE)) / RATE)
    wave = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 9))
    return (volume * 8000 * wave).astype(np.int16)


@pytest.mark.parametrize("pitch", [80, 120, 210, 380])
def test_pitch_is_found(pitch):
    whole = features(voice(pitch), np.array([1.0]))[0, WHOLE]
    assert 2 ** whole[PITCH] == pytest.approx(pitch, rel=0.03)
    assert whole[-1] > 0.9  # voiced throughout


def test_pitch_is_no_multiple_of_the_period():
    """With a resonance and some breath later peaks of the autocorrelation are as high."""
    rng = np.random.default_rng(0)
    for pitch in np.linspace(90, 240, 7):
        phase = np.cumsum(np.full(2 * RATE, pitch * 1.0) / RATE)
        pulses = np.diff(np.floor(phase), prepend=0.0) + 0.03 * rng.standard_normal(2 * RATE)
        at = np.arange(400) / RATE
        ringing = np.exp(-90 * np.pi * at) * np.sin(2 * np.pi * 600 * at)
        wave = np.convolve(pulses, ringing)[: 2 * RATE]
        whole = features((4000 * wave / np.abs(wave).max()).astype(np.int16), np.array([1.0]))
        assert 2 ** whole[0, WHOLE][PITCH] == pytest.approx(pitch, rel=0.05)


def test_what_rises_around_a_row_is_seen_there():
    """From 120 to 180 Hz, and four times as loud, at one second."""
    samples = np.concatenate([voice(120, 1.0, 0.1), voice(180, 1.0, 0.4)])
    rows = features(samples, np.array([0.5, 1.5]))
    near = rows[:, :N]
    assert near[1, PITCH] - near[0, PITCH] == pytest.approx(np.log2(1.5), abs=0.08)
    assert near[1, LOUDNESS] - near[0, LOUDNESS] == pytest.approx(np.log(4), abs=0.2)
    # Relative to the recording: both rows are as far from its mean.
    for column in (LOUDNESS, PITCH):
        assert near[0, column] == pytest.approx(-near[1, column], abs=0.05)
    np.testing.assert_array_equal(rows[0, WHOLE], rows[1, WHOLE])


def test_a_louder_recording_differs_in_its_own_level_alone():
    times = np.linspace(0, 2, 5)
    one, two = (features(voice(150, 2.0, v), times) for v in (0.1, 0.3))
    for column in (LOUDNESS, PITCH):
        np.testing.assert_allclose(one[:, column], two[:, column], atol=0.02)
    level = two[0, WHOLE][LOUDNESS] - one[0, WHOLE][LOUDNESS]
    assert level == pytest.approx(np.log(3), abs=0.05)


def test_rows_behind_the_sound_hear_nothing():
    rows = features(voice(150, 1.0), np.array([0.9, 1.5]))
    assert rows[:, -1].tolist() == [1, 0] and not rows[1, : WHOLE.start].any()
    assert np.abs(rows[0, : WHOLE.start]).max() > 1e-3


def test_noise_is_not_voiced():
    noise = np.random.default_rng(0).normal(0, 2000, RATE).astype(np.int16)
    samples = np.concatenate([voice(150, 1.0), noise])
    rows = features(samples, np.array([0.5, 1.5]))
    assert rows[0, N] - rows[1, N] > 0.8  # share of voiced windows within 0.15 s


def test_how_loud_breath_is_between_words():
    """Noise four times as loud in the last second; the voice before it does not count."""
    noise = np.random.default_rng(0).normal(0, 300, 2 * RATE)
    noise[RATE:] *= 4
    samples = np.concatenate([voice(150, 1.0), noise.astype(np.int16)])
    rows = features(samples, np.array([0.5, 1.5, 2.5]))[:, N + 1]
    assert rows[2] - rows[1] == pytest.approx(np.log(4), rel=0.15)
    assert rows[0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_short_sounds_give_finite_rows(length):
    rows = features(np.full(length, 7, np.int16), np.array([0.0, 0.1, 5.0]))
    assert rows.shape == (3, sound.width(whole=True)) and np.isfinite(rows).all()


def test_what_is_of_the_recording_can_be_left_out():
    times, samples = np.linspace(0, 2, 5), voice(150)
    rows, without = features(samples, times), features(samples, times, whole=False)
    assert without.shape[1] == sound.width(whole=False)
    np.testing.assert_array_equal(without, np.delete(rows, np.r_[WHOLE], axis=1))


def test_blocks_change_nothing(monkeypatch):
    times, samples = np.linspace(0, 2, 9), voice(np.linspace(100, 200, 2 * RATE))
    whole = features(samples, times)
    monkeypatch.setattr(sound, "_BLOCK", 7)
    np.testing.assert_allclose(features(samples, times), whole, atol=1e-4)
