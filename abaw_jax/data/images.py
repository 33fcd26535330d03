"""Where the images of a corpus lie: a file, bytes in memory, a span of a file, a crop of one, a
frame of a video.

A corpus names its images; they are read one by one, when the records are written.
"""

import os
import pathlib
import zlib
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from abaw_jax.data.examples import image_fault

CROP_QUALITY = 95


class Span(NamedTuple):
    """An encoded image inside a larger file: `length` bytes from byte `offset`."""

    path: str
    offset: int
    length: int


class Crop(NamedTuple):
    """A part of an image file, in pixels from its left upper corner; read as a JPEG of its own."""

    path: str
    left: int
    top: int
    width: int
    height: int


class VideoFrame(NamedTuple):
    """A frame of a video file, numbered from 1; read upright, as a JPEG no side of which is above
    `side`."""

    path: str
    number: int
    side: int


Image = str | bytes | Span | Crop | VideoFrame


def read_image(image: Image) -> bytes:
    """The encoded image. Raises OSError or, where the file holds no such image, ValueError."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Crop):
        return _read_crop(image)
    if isinstance(image, VideoFrame):
        return _read_video_frame(image)
    if isinstance(image, Span):
        with open(image.path, "rb") as file:
            file.seek(image.offset)
            content = file.read(image.length)
        if len(content) < image.length:
            raise ValueError("file ends early")
        return content
    return pathlib.Path(image).read_bytes()


def identity(image: Image) -> str:
    """What tells an image from another without reading it: a file's name and size, and the part.

    Raises OSError where its file cannot be found.
    """
    if isinstance(image, bytes):
        return f"{len(image)} {zlib.crc32(image)}"
    if isinstance(image, Span):
        return f"{os.path.basename(image.path)} {image.offset} {image.length}"
    path, *part = image if isinstance(image, Crop | VideoFrame) else (image,)
    return " ".join(map(str, (os.path.basename(path), os.stat(path).st_size, *part)))


def location(image: Image) -> str | None:
    """How messages name an image; None where it has no place on disk."""
    if isinstance(image, Span):
        return f"{image.path} from byte {image.offset}"
    if isinstance(image, VideoFrame):
        return f"{image.path} frame {image.number}"
    if isinstance(image, Crop):
        return image.path
    return None if isinstance(image, bytes) else image


def _read_crop(crop: Crop) -> bytes:
    pixels = _decode(pathlib.Path(crop.path).read_bytes())
    height, width, _ = pixels.shape
    left, right = max(crop.left, 0), min(crop.left + crop.width, width)
    top, bottom = max(crop.top, 0), min(crop.top + crop.height, height)
    if left >= right or top >= bottom:
        raise ValueError(
            f"box of {crop.width} x {crop.height} from ({crop.left}, {crop.top}) is outside the "
            f"image of {width} x {height}"
        )
    pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
    return simplejpeg.encode_jpeg(pixels, CROP_QUALITY, "BGR", "444")


def _read_video_frame(image: VideoFrame) -> bytes:
    from abaw_jax.data.video import read_frame, upright  # PyAV, which most corpora do without

    frame = read_frame(image.path, image.number)
    scale = min(image.side / max(frame.width, frame.height), 1)
    pixels = frame.reformat(
        width=max(round(frame.width * scale), 1),
        height=max(round(frame.height * scale), 1),
        format="bgr24",
        interpolation="AREA",
    ).to_ndarray()
    pixels = np.ascontiguousarray(upright(pixels, frame))
    return simplejpeg.encode_jpeg(pixels, CROP_QUALITY, "BGR", "444")


def _decode(content: bytes) -> np.ndarray:
    """Pixels as stored, uint8 (height, width, 3), BGR: boxes know nothing of EXIF's rotation."""
    checkable = content.startswith((b"\xff\xd8", b"\x89PNG")) or not content
    fault = image_fault(content) if checkable else None  # OpenCV reads cut files without a word
    if fault:
        raise ValueError(fault)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        raise ValueError("no image that can be decoded")
    return pixels
