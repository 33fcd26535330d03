"""Feature stores: one vector per frame of each video, as an encoder left them.

    features.json    {"encoder": ..., "width": D, "source_hash": ..., and what else the writer adds}
    <video>.npz      frames int32 (n,), 1-based and rising; values float32 (n, D)

The files are not compressed, so that a window of frames is read without the rest of its video.
"""

import dataclasses
import os
import pathlib
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json, write_json

_SETTINGS = "features.json"
# NumPy reads headers by `ast.literal_eval`, which in CPython 3.11 may end in a SystemError
# ("recursion depth mismatch") where another thread is at it, too.
_HEADERS = threading.Lock()


def save_features(
    folder: str | os.PathLike, video: str, frames: np.ndarray, values: np.ndarray
) -> None:
    """Write one video's features; frames (n,) 1-based and rising, values (n, D), may be empty."""
    path = pathlib.Path(folder) / f"{video}.npz"
    frames, values = np.asarray(frames), np.asarray(values)
    problem = _fault(frames, values)
    if problem:
        raise InputError(f"{path}: not written: {problem}")
    with atomic_write(path) as file:
        np.savez(file, frames=frames.astype(np.int32), values=values.astype(np.float32))


def save_feature_settings(
    folder: str | os.PathLike, *, encoder: str, width: int, source_hash: str, **more: object
) -> None:
    """Write `features.json`, last: a folder without it is not a finished store.

    `encoder` names the weights (a hash), `source_hash` the records they were applied to.
    """
    settings = {"encoder": encoder, "width": width, "source_hash": source_hash, **more}
    write_json(pathlib.Path(folder) / _SETTINGS, settings)


@dataclasses.dataclass(frozen=True)
class _Member:
    """Where one video's values lie in its file."""

    path: pathlib.Path
    frames: np.ndarray
    offset: int


class FeatureStore:
    """A folder of features, opened for reading; threads may share it. Nothing is held in memory
    but the frame numbers.

    Args:
        folder: holds `features.json`.
        encoder, width, source_hash: what the store must be of; None accepts any.

    Attributes: folder, settings (the JSON object), width (D).

    Raises InputError where settings are absent, or differ from what is asked.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        encoder: str | None = None,
        width: int | None = None,
        source_hash: str | None = None,
    ):
        self.folder = pathlib.Path(folder)
        path = self.folder / _SETTINGS
        if not path.is_file():
            raise InputError(f"{path}: is absent; run the extract stage to make the features")
        self.settings = read_json(path)
        wanted = {"encoder": encoder, "width": width, "source_hash": source_hash}
        for key, value in wanted.items():
            found = self.settings.get(key)
            if found is None:
                raise InputError(f"{path}: has no {key!r}; extract the features again")
            if value is not None and found != value:
                raise InputError(
                    f"{path}: {key} is {found!r}, expected {value!r}; extract the features again"
                )
        self.width = self.settings["width"]
        if not isinstance(self.width, int) or self.width < 1:
            raise InputError(f"{path}: width is {self.width!r}; expected a positive whole number")
        self._members: dict[str, _Member] = {}

    def require(self, videos: Iterable[str]) -> None:
        """Raise InputError naming the videos that have no feature file."""
        missing = [video for video in videos if not self._path(video).is_file()]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise InputError(
                f"{self.folder}: no features of {len(missing)} videos ({names}); run the extract "
                "stage on them"
            )

    def frames(self, video: str) -> np.ndarray:
        """The frame numbers that have features, int32 (n,), rising."""
        return self._member(video).frames

    def read(self, video: str, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Values first .. stop-1 of a video (by position, not frame number), float32 (m, D)."""
        member = self._member(video)
        stop = len(member.frames) if stop is None else stop
        count = (stop - first) * self.width
        offset = member.offset + first * self.width * 4
        values = np.fromfile(member.path, "<f4", count, offset=offset)
        if len(values) != count:
            raise InputError(f"{member.path}: ends early; extract the features again")
        return values.reshape(-1, self.width)

    def _path(self, video: str) -> pathlib.Path:
        return self.folder / f"{video}.npz"

    def _member(self, video: str) -> _Member:
        member = self._members.get(video)
        if member is None:  # two threads may both read it: they find the same
            if not self._path(video).is_file():
                self.require([video])
            with _HEADERS:
                member = _open_member(self._path(video), self.width)
            self._members[video] = member
        return member


def make_standardise(store: FeatureStore) -> Callable[[np.ndarray], np.ndarray]:
    """Function of a store's values (n, D) to what models see of them.

    Where its settings hold `mean` and `deviation` they are standardised by these; of such a row
    whose last number is 0 all are. Other stores' stay as they are.
    """
    if "mean" not in store.settings:
        return lambda values: values
    keys = "mean", "deviation"
    mean, deviation = (np.asarray(store.settings[key], np.float32) for key in keys)
    return lambda values: (values - mean) / deviation * (values[:, -1:] != 0)


def _open_member(path: pathlib.Path, width: int) -> _Member:
    """Check one feature file and find where its values begin."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("frames.npy") as file:
                frames = np.lib.format.read_array(file, allow_pickle=False)
            shape, dtype = _array_header(archive, "values.npy")
            info = archive.getinfo("values.npy")
        with open(path, "rb") as file:
            file.seek(info.header_offset)
            local = file.read(30)  # the local header has its own, possibly longer, extra field
            names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: is no feature file ({' '.join(str(error).split())}); expected `frames` and "
            "`values`; extract the features again"
        ) from error
    values = _Header(shape, dtype)
    problem = _fault(frames, values)
    if not problem and shape[1] != width:
        problem = f"values are {shape[1]} wide, {_SETTINGS} says {width}"
    if not problem and info.compress_type != zipfile.ZIP_STORED:
        problem = "values are compressed, expected numpy.savez's plain form"
    if not problem and dtype != np.dtype("<f4"):
        problem = f"values are {dtype}, expected little-endian float32"
    if problem:
        raise InputError(f"{path}: {problem}; extract the features again")
    data = info.header_offset + 30 + names
    return _Member(path, frames.astype(np.int32), data + info.file_size - _bytes(shape))


def _bytes(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1] * 4


@dataclasses.dataclass(frozen=True)
class _Header:
    """Shape and type of an array that is not read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


def _array_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(name) as file:
        major, _ = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        if major not in read:
            raise ValueError(f"{name}: array format {major}")
        shape, in_columns, dtype = read[major](file)
    if in_columns and len(shape) > 1 and min(shape) > 1:
        raise ValueError(f"{name}: stored by columns")
    return shape, dtype


def _fault(frames: np.ndarray, values: np.ndarray | _Header) -> str | None:
    """What is wrong with one video's features, None if nothing."""
    if frames.ndim != 1 or frames.dtype.kind not in "iu":
        return f"frames are {frames.dtype} {frames.shape}, expected whole numbers (n,)"
    if values.ndim != 2 or values.dtype.kind != "f":
        return f"values are {values.dtype} {values.shape}, expected floats (n, width)"
    if len(frames) != values.shape[0]:
        return f"{len(frames)} frames and {values.shape[0]} values, expected as many"
    if len(frames) and (frames[0] < 1 or (np.diff(frames.astype(np.int64)) < 1).any()):
        return "frames do not rise from 1 up"
    return None
