"""Prediction folders: one `<video>.npz` per video, arrays only, with the class names inside.

    frames   int32 (n,)        frame numbers, 1-based, strictly ascending
    values   float32 (n, K)    probabilities (valence and arousal: in [-1, 1]); never logits
    classes  text (K,)         the name of each column, in the track's order

Other classes, and these in another order, are refused: no order is assumed, and none is mended.
"""

import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write
from abaw_jax.tracks.track import Track


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What was predicted for one video.

    frames: int32 (n,), 1-based, strictly ascending. values: float32 (n, K), in the track's order.
    """

    frames: np.ndarray
    values: np.ndarray


def save_prediction(
    folder: str | os.PathLike,
    video: str,
    frames: np.ndarray,
    values: np.ndarray,
    classes: Sequence[str],
) -> pathlib.Path:
    """Write `<folder>/<video>.npz`, whole or not at all, and return its path.

    frames (n,) integers, values (n, K), classes K names in the order of the columns. n may be 0: a
    video in which nobody was seen. Raises InputError for what `load_prediction` would refuse.
    """
    if not video or video.startswith(".") or "/" in video or "\\" in video:
        raise InputError(
            f"{folder}: {video!r} cannot name a prediction file; give the video's name"
        )
    path = pathlib.Path(folder) / f"{video}.npz"
    frames, values = _checked(path, np.asarray(frames), np.asarray(values), len(classes))
    names = np.array([str(name) for name in classes], dtype=np.str_)
    with atomic_write(path) as file:
        np.savez(file, frames=frames, values=values, classes=names)
    return path


def load_prediction(path: str | os.PathLike, track: Track) -> Prediction:
    """Read one file.

    Raises InputError, naming the file, if it is damaged, lacks an array, holds pickled objects,
    has frames that are not ascending or below 1, values that are not finite in float32 or of the
    wrong width, or classes other than the track's or in another order.
    """
    arrays = _read_arrays(path)
    for name in ("frames", "values", "classes"):
        if name not in arrays:
            raise InputError(
                f"{path}: has no array {name!r} (found: {', '.join(sorted(arrays)) or 'none'}); "
                "expected frames, values and classes"
            )
    classes = arrays["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise InputError(
            f"{path}: classes are {classes.dtype} of shape {classes.shape}; expected "
            f"{track.outputs} names as text"
        )
    track.check_classes(classes.tolist(), str(path))
    return Prediction(*_checked(path, arrays["frames"], arrays["values"], len(classes)))


def _read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; InputError if it is none, is damaged or holds pickled objects."""
    try:
        # Opened here, since np.load leaves a file that it cannot read to the garbage collector.
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array")
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: is no .npz of plain arrays ({reason}); predict it again"
        ) from error


def load_predictions(
    folder: str | os.PathLike, track: Track, videos: Iterable[str] | None = None
) -> dict[str, Prediction]:
    """Predictions of a folder by video name, sorted: all, or those of `videos` that are there.

    Hidden files are passed over. Raises InputError if the folder cannot be read or holds no
    predictions, and as `load_prediction` does.
    """
    folder = pathlib.Path(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    found = [n.removesuffix(".npz") for n in names if n.endswith(".npz") and n[0] != "."]
    if not found:
        raise InputError(f"{folder}: holds no <video>.npz; name a folder of predictions")
    wanted = None if videos is None else set(videos)
    return {
        video: load_prediction(folder / f"{video}.npz", track)
        for video in found
        if wanted is None or video in wanted
    }


def _checked(
    path: str | os.PathLike, frames: np.ndarray, values: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The arrays as int32 and float32, or InputError saying what is wrong with them."""
    if frames.ndim != 1 or (frames.size and frames.dtype.kind not in "iu"):
        raise InputError(
            f"{path}: frames are {frames.dtype} of shape {frames.shape}; expected integers (n,)"
        )
    if values.shape != (len(frames), classes) or values.dtype.kind != "f":
        raise InputError(
            f"{path}: values are {values.dtype} of shape {values.shape}; expected float32 "
            f"({len(frames)}, {classes}): one row per frame, one column per class"
        )
    if frames.size and not (frames.min() >= 1 and frames.max() <= np.iinfo(np.int32).max):
        raise InputError(f"{path}: frame {frames.min()}..{frames.max()}; frames count from 1")
    back = frames[1:] <= frames[:-1]
    if back.any():
        at = int(np.argmax(back))
        same = frames[at + 1] == frames[at]
        what = "is there twice" if same else f"follows frame {frames[at]}"
        raise InputError(
            f"{path}: frame {frames[at + 1]} {what}; frames must ascend, each once: sort them"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite below
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        finite = np.isfinite(values).all(axis=1)
        bad = int(np.argmin(finite))
        raise InputError(
            f"{path}: frame {frames[bad]} has a value that is not finite in float32 "
            f"({(~finite).sum()} such frames); leave such frames out: gaps are filled later"
        )
    return frames.astype(np.int32, copy=False), values
