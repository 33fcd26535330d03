"""Frames of video files by number, decoded one after another: no video is held in memory."""

import os
import threading
from collections.abc import Iterator

import av
import numpy as np
from av.sidedata.sidedata import Type

from abaw_jax.errors import InputError

_local = threading.local()


def count_frames(path: str | os.PathLike) -> int:
    """How many frames the decoder finds; headers are not to be trusted.

    Raises InputError for a file that holds no video, or cannot be decoded to its end.
    """
    count = 0
    try:
        for _ in _decode(path):
            count += 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(
            f"{path}: cannot be decoded after frame {count} ({error}); replace the file"
        ) from error
    if not count:
        raise InputError(f"{path}: holds no frame; replace the file")
    return count


def read_frame(path: str, number: int) -> av.VideoFrame:
    """The frame of that number, from 1, in the order in which they are shown.

    Each thread keeps the file that it read from last open where it stands: going on costs what
    decoding the frames up to `number` does, going back begins anew. Raises OSError, and ValueError
    where the video ends before or cannot be decoded.
    """
    opened, at, frames = getattr(_local, "open", ("", 0, None))
    if opened != path or at >= number:
        at, frames = 0, _decode(path)
    _local.open = "", 0, None  # a file that fails is not gone on with
    for frame in frames:
        at += 1
        if at == number:
            _local.open = path, at, frames
            return frame
    raise ValueError(f"video ends before frame {number}")


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Pixels (height, width, 3) of a decoded frame, turned as its container says to show them.

    Cameras held upright store lying pictures and a display matrix: (x, y) is shown at
    (a x + c y, b x + d y), of which the signs count here. Not `VideoFrame.rotation`, which PyAV
    has from 14.1 on alone and which takes a mirrored frame for one that stands on its head.
    """
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _decode(path: str | os.PathLike) -> Iterator[av.VideoFrame]:
    """All frames. Raises OSError, and ValueError for what is no video."""
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ValueError("it holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(str(error.strerror)) from error
