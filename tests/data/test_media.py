"""Sound and transcripts: found in the published layouts, read with the pictures' times."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from abaw_jax.data import media
from abaw_jax.data.demo.container import write_container, write_sound
from abaw_jax.errors import InputError
from tests.data.corpus_trees import one_line, write

RATE = media.RATE


def tone(seconds, start=0.0):
    """200 Hz at half of full scale from `start` on, silence before."""
    at = np.arange(round(seconds * RATE)) / RATE
    return (16384 * np.sin(2 * np.pi * 200 * at) * (at >= start)).astype(np.int16)


def container(path, frames=20, rate=Fraction(10), sound=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_container(path, np.full((frames, 32, 32, 3), 90, np.uint8), Fraction(rate), sound)
    return path


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_pictures_have_their_own_times(tmp_path, ending):
    rate = Fraction(30000, 1001)
    found = media.read_sound(container(tmp_path / f"a.{ending}", 45, rate, tone(1.5)))
    np.testing.assert_allclose(found.times, np.arange(45) / float(rate), atol=2e-3)
    assert found.samples.dtype == np.int16 and found.seconds == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_sound_keeps_its_place(tmp_path, ending):
    """What begins at half a second is heard from there on, within a codec's frame."""
    path = container(tmp_path / f"a.{ending}", 20, 10, tone(2.0, start=0.5))
    samples = media.read_sound(path).samples.astype(np.float64)
    loud = np.flatnonzero(np.abs(samples) > 4000)[0] / RATE
    assert loud == pytest.approx(0.5, abs=0.07)
    assert 9000 < np.abs(samples[RATE : 2 * RATE - 2000]).mean() < 12000


def test_a_clip_of_sound_alone_is_cut(tmp_path):
    write_sound(tmp_path / "00000.mp3", tone(14.0))
    found = media.read_sound(tmp_path / "00000.mp3", 12.0)
    assert len(found.samples) == 12 * RATE and found.seconds == pytest.approx(14, abs=0.2)
    assert not len(found.times) and not found.silent


def test_no_audio_track_and_silence_are_no_errors(tmp_path):
    without = media.read_sound(container(tmp_path / "a.mp4"))
    assert without.silent and without.samples.shape == (0,) and len(without.times) == 20
    silent = media.read_sound(container(tmp_path / "b.mp4", sound=np.zeros(2 * RATE, np.int16)))
    assert silent.silent and len(silent.samples) > RATE


@pytest.mark.parametrize("content", [b"", b"no film at all " * 40], ids=["empty", "text"])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = write(tmp_path / "a.mp4", content)
    with pytest.raises(InputError) as caught:
        media.read_sound(path)
    one_line(caught, path, "cannot be read", "unpack it again")


def test_files_are_found_in_the_published_layout(tmp_path):
    for name in (
        "batch1/1-30-1280x720.avi", "batch1/1-30-1280x720.mp4", "batch1/._7.mp4", "batch1/7.txt",
        "new_vids/video10_1_left.mp4", "new_vids/video10_1.MP4", "new_vids/1-30-1280x720.mp4",
        "new_vids/x_left_2.mp4",
    ):  # fmt: skip
        write(tmp_path / name, b"")
    folders = [tmp_path / name for name in ("batch1", "batch2", "new_vids")]
    files = media.find_files(folders, media.SOUND)
    assert set(files) == {"1-30-1280x720", "video10_1_left", "video10_1", "x_left_2"}
    mp4 = str(tmp_path / "batch1" / "1-30-1280x720.mp4")
    assert media.of_video(files, "1-30-1280x720_right") == mp4
    assert media.of_video(files, "video10_1_left").endswith("video10_1_left.mp4")
    assert media.of_video(files, "video10_1_right").endswith("video10_1.MP4")
    assert media.of_video(files, "x") is None and media.of_video(files, "7") is None


def test_rows_are_pictures_and_the_last_stays():
    sound = media.Sound(np.ones(RATE, np.int16), 1.0, np.array([0.0, 0.1, 0.3]))
    assert media.row_times(sound, 5, clip=False).tolist() == [0.0, 0.1, 0.3, 0.3, 0.3]
    assert media.row_times(sound, 2, clip=True).tolist() == [0.25, 0.75]
    alone = media.Sound(sound.samples, 1.0, np.zeros(0))
    assert media.row_times(alone, 4, clip=False).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_transcripts_are_utf8(tmp_path):
    assert media.read_transcript(write(tmp_path / "a.txt", "\ufeffgrüß dich")) == "grüß dich"
    assert media.read_transcript(write(tmp_path / "b.txt", "")) == ""
    path = write(tmp_path / "c.txt", "grüß".encode("latin-1"))
    with pytest.raises(InputError) as caught:
        media.read_transcript(path)
    one_line(caught, path, "byte 2 is not UTF-8")


@pytest.mark.parametrize(
    ("encoding", "fault"),
    [("utf-16", "byte 0 is not UTF-8"), ("utf-16-le", "zero bytes"), ("utf-16-be", "zero bytes")],
)
def test_transcripts_in_utf16_are_refused(tmp_path, encoding, fault):
    path = write(tmp_path / "a.txt", "Stop it.".encode(encoding))
    with pytest.raises(InputError) as caught:
        media.read_transcript(path)
    one_line(caught, path, fault, "save the transcript as UTF-8")


def remux(source, target, keep, shift=0.0):
    """Copy the packets for which keep(kind, seconds) holds, `shift` seconds later."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is None or not keep(
                packet.stream.type, float(packet.pts * packet.time_base)
            ):
                continue
            late = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return target


def test_a_hole_in_the_sound_is_silence(tmp_path):
    """What is heard after a hole keeps its time."""
    whole = container(tmp_path / "a.mp4", 60, 10, tone(6.0))
    holed = remux(whole, tmp_path / "b.mkv", lambda kind, at: kind == "video" or not 2 < at < 4)
    found = media.read_sound(holed)
    assert found.seconds == pytest.approx(6, abs=0.2)
    loud = [np.abs(found.samples[RATE * s // 2 :][: RATE // 4]).mean() > 4000 for s in range(11)]
    assert all(loud[:3]) and all(loud[9:]) and not any(loud[5:7])


def test_pictures_cut_away_are_not_counted(tmp_path):
    """A file whose first second was trimmed keeps its pictures, and does not show them."""
    whole = container(tmp_path / "a.mp4", 40, 10, tone(4.0))
    trimmed = remux(whole, tmp_path / "b.mp4", lambda kind, at: True, shift=-1.0)
    found = media.read_sound(trimmed)
    with av.open(str(trimmed)) as file:
        shown = [frame.time for frame in file.decode(video=0)]
    np.testing.assert_allclose(found.times, shown, atol=1e-3)


def test_spoilt_packets_are_left_out(tmp_path):
    write_sound(tmp_path / "a.mp3", tone(4.0))
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(range(256)) + bytes(44)
    (tmp_path / "b.mp3").write_bytes(bytes(data) + bytes(4096))
    found = media.read_sound(tmp_path / "b.mp3")
    assert found.seconds == pytest.approx(4, abs=0.5) and not found.silent


def write_wav(path, samples, rate=RATE, channels=1):
    """PCM of 8 bits (uint8) or 16 (int16), the same in all channels."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(samples.itemsize)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples[:, None], channels, 1).tobytes())
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "bits"),
    [(RATE, 1, 8), (8000, 2, 8), (192_000, 1, 16), (44_100, 6, 16), (48_000, 7, 16)],
)
def test_any_form_of_pcm_becomes_16_khz_of_one_channel(tmp_path, rate, channels, bits):
    wave_of = np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
    samples = {8: 128 + 64 * wave_of, 16: 16384 * wave_of}[bits]
    samples = samples.astype({8: np.uint8, 16: np.int16}[bits])
    found = media.read_sound(write_wav(tmp_path / "a.wav", samples, rate, channels))
    assert len(found.samples) == pytest.approx(RATE, abs=32)
    middle = slice(1000, 15_000)
    np.testing.assert_allclose(found.samples[middle], tone(1.0)[middle], atol=500)


@pytest.mark.parametrize(("codec", "ending"), [("flac", "flac"), ("opus", "ogg"), ("aac", "m4a")])
def test_coded_sound_is_read_as_it_was(tmp_path, codec, ending):
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as file:
        coder = {"opus": "libopus"}.get(codec, codec)
        stream = file.add_stream(coder, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(2.0)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        stream_form = dict(format=stream.format.name, layout="mono", rate=RATE, frame_size=1024)
        resampler = av.AudioResampler(**stream_form)
        for part in resampler.resample(frame) + resampler.resample(None):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    found = media.read_sound(path)
    assert found.seconds == pytest.approx(2, abs=0.15) and not len(found.times)
    level = np.abs(found.samples[4000:24_000].astype(float)).mean()
    assert level == pytest.approx(16384 * 2 / np.pi, rel=0.03)


@pytest.mark.parametrize("count", [0, 1])
def test_sound_of_no_or_one_sample_is_read(tmp_path, count):
    found = media.read_sound(write_wav(tmp_path / "a.wav", np.full(count, 99, np.int16)))
    assert found.samples.tolist() == [99] * count and found.seconds == count / RATE
    assert found.silent == (not count)
    assert media.row_times(found, 2, clip=True).tolist() == [count / RATE / 4, count / RATE * 3 / 4]


def test_a_header_without_its_sound_is_cut_short(tmp_path):
    """A copy that broke off holds what had come."""
    whole = write_wav(tmp_path / "a.wav", tone(2.0))
    (tmp_path / "b.wav").write_bytes(whole.read_bytes()[: 44 + RATE])
    found = media.read_sound(tmp_path / "b.wav")
    np.testing.assert_array_equal(found.samples, tone(0.5))
