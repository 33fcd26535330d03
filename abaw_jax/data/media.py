"""Sound and transcripts of videos: where they lie, what they hold.

Aff-Wild2 keeps its recordings as `batch1/`, `batch2/`, `new_vids/` `<recording>.mp4` or `.avi`, of
which a video is one person (`_left`, `_right`); some lack an audio track, some have a silent one.
Hume-Vidmimic2 has `audio/<clip>.mp3` and `raw/<clip>.mp4`. Neither comes with transcripts: those
are `<video>.txt`, in UTF-8, and may be empty or absent.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording

RATE = 16_000  # samples a second
GAP = 0.05  # seconds without sound that are kept: less is a codec's rounding
# Where a recording lies in several of these forms beside each other, the first is read.
SOUND = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".mp4", ".avi", ".mkv", ".mov", ".webm")
TEXT = (".txt",)


@dataclasses.dataclass(frozen=True, eq=False)
class Sound:
    """What is heard in a recording, from its time 0 on.

    samples: int16 (n,) at 16 kHz, one channel; empty without audio track. seconds: how long the
    whole lasts, also where the samples were cut. times: float64 (F,), seconds at which each frame
    of the picture is shown, rising; empty where there is no picture.
    """

    samples: np.ndarray
    seconds: float
    times: np.ndarray

    @property
    def silent(self) -> bool:
        """Whether nothing is heard: no audio track, or one of zeros."""
        return not self.samples.any()


def find_files(folders: Iterable[str | os.PathLike], endings: tuple[str, ...]) -> dict[str, str]:
    """Name without ending -> path, of the files in these folders that end so.

    Of several of a name the one in the folder named first is taken, and there the one whose ending
    is named first. Folders that are absent hold nothing; hidden files and others are left.
    """
    found: dict[str, str] = {}
    for folder in map(pathlib.Path, folders):
        try:
            names = os.listdir(folder) if folder.exists() else []
        except OSError as error:
            raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
        paths = [folder / name for name in sorted(names) if not name.startswith(".")]
        paths = [path for path in paths if path.suffix.lower() in endings]
        for path in sorted(paths, key=lambda path: endings.index(path.suffix.lower())):
            found.setdefault(path.stem, os.fspath(path))
    return found


def of_video(files: dict[str, str], video: str) -> str | None:
    """The file of a video: its own, or else that of the recording it was cut from."""
    return files.get(video) or files.get(recording(video))


def read_sound(path: str | os.PathLike, seconds: float | None = None) -> Sound:
    """Read a file's sound, cut behind the first `seconds`, and the times of its pictures.

    Pictures are not decoded: their times stand in the container. Raises InputError for a file that
    cannot be read.
    """
    import av

    try:
        with av.open(os.fspath(path)) as file:
            times, samples = _read(file)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: cannot be read ({reason}); expected a recording: unpack it again or move it "
            "away"
        ) from error
    kept = len(samples) if seconds is None else int(seconds * RATE)
    return Sound(samples[:kept], len(samples) / RATE, times)


def _read(file) -> tuple[np.ndarray, np.ndarray]:
    """(times of the pictures, samples) of an open container."""
    streams = [*file.streams.video[:1], *file.streams.audio[:1]]
    times, sound = [], _Samples()
    for packet in file.demux(streams):
        if packet.stream.type == "video":
            shown = packet.pts if packet.pts is not None else packet.dts  # .avi has the latter
            # What a trimmed file keeps before its first picture is never shown.
            if packet.size and not packet.is_discard and shown is not None:
                times.append(float(shown * packet.time_base))
        elif packet.stream.type == "audio":
            sound.add(packet)
    return np.sort(np.array(times, np.float64)), sound.finish()


class _Samples:
    """The samples of a stream at RATE, from time 0 on; what is missing or spoilt is silence."""

    def __init__(self):
        self.parts: list[np.ndarray] = []
        self.end = 0.0  # seconds up to which there is sound
        self.early = 0.0  # seconds of it before time 0
        self.form = self.resampler = self.error = None

    def add(self, packet) -> None:
        """Decode a packet. One that cannot be decoded is left out."""
        import av

        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            self.error = error
            return
        for frame in frames:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            start = self.end if frame.time is None else frame.time
            if self.form is None and start < 0:
                self.early, self.end = -start, start
            gap = start - self.end
            # The first may begin at any time; the form may change on the way.
            if form != self.form or gap > GAP:
                self._flush()
                self.form = form
                self.resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
                self.parts.append(np.zeros(max(round(gap * RATE), 0), np.int16))
            self.parts += [part.to_ndarray()[0] for part in self.resampler.resample(frame)]
            self.end = start + frame.samples / frame.sample_rate

    def _flush(self) -> None:
        if self.resampler is not None:
            self.parts += [part.to_ndarray()[0] for part in self.resampler.resample(None)]

    def finish(self) -> np.ndarray:
        """int16 (n,). Raises av.error.InvalidDataError where nothing could be decoded."""
        self._flush()
        if self.error is not None and not self.parts:
            raise self.error
        whole = np.concatenate([np.zeros(0, np.int16), *self.parts])
        return whole[round(self.early * RATE) :]


def row_times(sound: Sound, rows: int, *, clip: bool) -> np.ndarray:
    """Seconds at which each of a video's annotation rows is seen, float64 (rows,).

    Row i is picture i; rows beyond the last stay with it. Without pictures (or with one alone, a
    cover), and of a clip, whose faces may have been taken at a rate of their own, rows share the
    sound evenly.
    """
    if clip or len(sound.times) < 2:
        return (np.arange(rows) + 0.5) * sound.seconds / rows
    return sound.times[np.minimum(np.arange(rows), len(sound.times) - 1)]


def read_transcript(path: str | os.PathLike) -> str:
    """What is said. Raises InputError for a file that cannot be read or is not UTF-8."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8; save the transcript as UTF-8"
        ) from error
    if "\0" in text:  # of English in UTF-16 without its mark every other byte
        raise InputError(f"{path}: holds zero bytes, as UTF-16 does; save the transcript as UTF-8")
    return text
