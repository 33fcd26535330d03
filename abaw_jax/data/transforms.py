"""Encoded image in, square uint8 image out: decoding, cropping, resizing, augmentation.

Every `make_*` returns a function `(data: bytes, rng) -> uint8 (size, size, 3) RGB`. All randomness
comes from the `numpy.random.Generator` given; the evaluation transform takes none. Undecodable
data raises InputError. Pixels are normalised later, on the device.

With a `view` (`data/views.py`) the image is that view of the crop, resized to `size` x `size`, and
augmented as any image is.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg

from abaw_jax.errors import InputError

# The reader threads already use every core: OpenCV's own pool would fight them for it.
cv2.setNumThreads(0)

Transform = Callable[[bytes, np.random.Generator | None], np.ndarray]
View = Callable[[np.ndarray], np.ndarray]

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = np.array([0.299, 0.587, 0.114])  # luma weights, ITU-R BT.601


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of a JPEG or PNG, from its header alone. Raises InputError."""
    if data[:8] == _PNG and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data[:2] == b"\xff\xd8":
        try:
            return simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError as error:
            raise _undecodable(data, error) from error
    raise _undecodable(data, "unknown first bytes")


def decode_image(
    data: bytes, *, min_height: int = 0, min_width: int = 0, fast: bool = False
) -> np.ndarray:
    """Decode a JPEG or PNG to RGB uint8 (height, width, 3). Grey becomes RGB, alpha is dropped.

    With `min_height` and `min_width` a JPEG that is larger than twice that is shrunk while it is
    decoded, to no less than the two (a PNG keeps its size). `fast` takes the faster, slightly
    less exact inverse DCT. Orientation tags are not obeyed: crops are stored upright.
    Raises InputError for data that is damaged or is neither.
    """
    data = bytes(data)
    try:
        if data[:2] == b"\xff\xd8":
            return simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastdct=fast,
                fastupsample=fast,
                min_height=min_height,
                min_width=min_width,
                min_factor=2,
            )
        if data[:8] != _PNG:
            raise _undecodable(data, "unknown first bytes")
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except InputError:
        raise
    except (ValueError, cv2.error) as error:
        raise _undecodable(data, error) from error
    if image is None:
        raise _undecodable(data, "damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _undecodable(data: bytes, why: object) -> InputError:
    why = str(why).splitlines()[0] if str(why) else "damaged"
    return InputError(f"{len(data)} bytes cannot be decoded ({why}); expected a whole JPEG or PNG")


def make_eval_transform(size: int, view: View | None = None) -> Transform:
    """All of the image, or of its view, at `size` x `size`: area average when shrinking, bicubic
    when enlarging."""
    _check_size(size)

    def transform(data: bytes, rng: np.random.Generator | None = None) -> np.ndarray:
        del rng
        image = decode_image(data)
        return _resize(view(image) if view else image, size)

    return transform


def make_pretrain_transform(
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Transform:
    """Random resized crop and horizontal flip, as masked autoencoders are trained.

    Args:
        size: side of the result in pixels.
        scale: share of the image's area that is kept, drawn uniformly.
        aspect: width / height of the kept part, drawn log-uniformly.
        flip: probability of a horizontal flip.

    Source: He et al., Masked Autoencoders Are Scalable Vision Learners, appendix A.1.
    """
    _check_size(size)
    _check_range("scale", scale, 0, 1)
    _check_range("aspect", aspect, 1e-3, 1e3)
    _check_range("flip", (flip, flip), 0, 1, zero=True)

    def transform(data: bytes, rng: np.random.Generator | None) -> np.ndarray:
        image, box = _decode_crop(data, rng, size, scale, aspect)
        left, top, width, height = (round(x) for x in box)
        crop = image[top : top + max(height, 1), left : left + max(width, 1)]
        if rng.random() < flip:  # before enlarging: fewer pixels to turn
            crop = cv2.flip(crop, 1)
        return _resize(crop, size)

    return transform


def make_train_transform(
    size: int,
    *,
    crop: tuple[float, float] = (0.8, 1.0),
    aspect: tuple[float, float] = (0.9, 1.1),
    rotation: float = 10.0,
    flip: float = 0.5,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    erase: float = 0.25,
    erase_area: tuple[float, float] = (0.02, 0.2),
    view: View | None = None,
) -> Transform:
    """Mild augmentation of aligned faces for fine-tuning. Values not published: chosen here.

    Args:
        size: side of the result in pixels.
        crop: share of the area that is kept, at a random place; (1, 1) keeps everything.
        aspect: width / height of the kept part, drawn log-uniformly.
        rotation: greatest angle in degrees, either way; corners are filled by reflection.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: each factor is drawn from 1 - x .. 1 + x.
        erase: probability that one rectangle is replaced by noise (Zhong et al., Random Erasing).
        erase_area: share of the area that the rectangle takes.
        view: what of the face is seen; None for all of it.
    """
    _check_size(size)
    _check_range("crop", crop, 0, 1)
    _check_range("aspect", aspect, 1e-3, 1e3)
    _check_range("erase_area", erase_area, 0, 1)
    for name, value in (("flip", flip), ("erase", erase), ("brightness", brightness)):
        _check_range(name, (value, value), 0, 1, zero=True)
    for name, value in (("contrast", contrast), ("saturation", saturation)):
        _check_range(name, (value, value), 0, 1, zero=True)
    _check_range("rotation", (rotation, rotation), 0, 180, zero=True)

    def transform(data: bytes, rng: np.random.Generator | None) -> np.ndarray:
        image, box = _decode_crop(data, rng, size, crop, aspect, view)
        jitter = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
        # On the decoded image, not the result: for small crops that is a quarter of the pixels.
        image = _adjust_colour(image, *jitter)
        angle = math.radians(rng.uniform(-rotation, rotation))
        image = _warp(image, box, size, angle, mirrored=rng.random() < flip)
        if rng.random() < erase:
            _erase(image, rng, erase_area)
        return image

    return transform


def _decode_crop(
    data: bytes,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    view: View | None = None,
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Draw a crop, decode no finer than it needs; returns the image and the box in its pixels."""
    if view:  # a part of the image, which needs all of its pixels
        return _resize(view(decode_image(data)), size), draw_box(rng, size, size, scale, aspect)
    height, width = image_size(data)
    left, top, box_width, box_height = draw_box(rng, width, height, scale, aspect)
    image = decode_image(
        data,
        min_height=math.ceil(height * min(size / box_height, 1)),
        min_width=math.ceil(width * min(size / box_width, 1)),
        fast=True,
    )
    x, y = image.shape[1] / width, image.shape[0] / height
    return image, (left * x, top * y, box_width * x, box_height * y)


def draw_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """A random (left, top, width, height) inside the image, in whole pixels.

    Ten draws of area and shape are tried; where none fits, the largest central box of the
    nearest allowed shape is taken, as random resized cropping is commonly defined.
    """
    draws = rng.random((10, 2))
    areas = width * height * (scale[0] + (scale[1] - scale[0]) * draws[:, 0])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for area, shape in zip(areas.tolist(), draws[:, 1].tolist(), strict=True):
        ratio = math.exp(low + (high - low) * shape)
        box_width = round(math.sqrt(area * ratio))
        box_height = round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(width - box_width + 1))
            top = int(rng.integers(height - box_height + 1))
            return left, top, box_width, box_height
    box_width = max(1, min(width, round(height * aspect[1])))
    box_height = max(1, min(height, round(width / aspect[0])))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    if height == width == size:
        return np.ascontiguousarray(image)
    shrinking = height >= size and width >= size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    )


def _adjust_colour(
    image: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Brightness, then contrast about the mean grey, then saturation: one affine map of RGB."""
    grey = float(_GREY @ cv2.mean(image)[:3])
    mix = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _GREY)
    offset = np.full((3, 1), (1 - contrast) * brightness * grey)
    return cv2.transform(image, np.hstack([contrast * brightness * mix, offset]))


def _warp(
    image: np.ndarray,
    box: tuple[float, float, float, float],
    size: int,
    angle: float,
    *,
    mirrored: bool,
) -> np.ndarray:
    """Cut `box` out of the image, turned by `angle` (radians) about its centre, and resize it."""
    left, top, width, height = box
    if width > 1.25 * size and height > 1.25 * size:
        # The warp samples points: shrink by area average first, or fine detail would alias.
        factor = max(size / width, size / height)
        new = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        x, y = new[0] / image.shape[1], new[1] / image.shape[0]
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
        left, top, width, height = left * x, top * y, width * x, height * y
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([(-1 if mirrored else 1) * width / size, height / size])
    centre = np.array([left + width / 2 - 0.5, top + height / 2 - 0.5])
    offset = centre - linear @ np.full(2, (size - 1) / 2)
    return cv2.warpAffine(
        image,
        np.column_stack([linear, offset]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _erase(image: np.ndarray, rng: np.random.Generator, area: tuple[float, float]) -> None:
    """Overwrite one random rectangle of the image with noise, in place."""
    size = image.shape[0]
    left, top, width, height = draw_box(rng, size, size, area, (0.3, 1 / 0.3))
    image[top : top + height, left : left + width] = rng.integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def _check_size(size: int) -> None:
    if size < 1:
        raise InputError(f"image size {size}: expected at least 1 pixel; change the image size")


def _check_range(
    name: str, value: tuple[float, float], low: float, high: float, *, zero: bool = False
) -> None:
    first, last = value
    if not (low <= first <= last <= high) or (first == 0 and not zero):
        raise InputError(
            f"augmentation {name} = {value}: expected numbers in rising order from {low} to {high}"
        )
