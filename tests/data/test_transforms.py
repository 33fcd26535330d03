"""Decoding, resizing and augmentation of single images."""

import cv2
import numpy as np
import pytest
import simplejpeg

from abaw_jax.data import transforms
from abaw_jax.errors import InputError


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, with every corner different: RGB ramps."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    ramp = np.stack([255 * x / width, 255 * y / height, 120 + 100 * np.sin(x / width + y / height)])
    return np.ascontiguousarray(np.moveaxis(ramp, 0, -1), np.uint8)


def png(image: np.ndarray) -> bytes:
    flag = cv2.COLOR_RGB2BGR if image.shape[-1] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.imencode(".png", cv2.cvtColor(image, flag))[1].tobytes()


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    return simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="444")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def error_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_decode_gives_rgb_from_every_kind():
    image = picture(40, 60)
    np.testing.assert_array_equal(transforms.decode_image(png(image)), image)
    assert error_of(transforms.decode_image(jpeg(image)), image) < 1.5
    assert error_of(transforms.decode_image(jpeg(image), fast=True), image) < 2
    grey = simplejpeg.encode_jpeg(image[..., :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    decoded = transforms.decode_image(grey)
    assert decoded.shape == (40, 60, 3)
    assert error_of(decoded, image[..., :1].repeat(3, -1)) < 2
    alpha = np.concatenate([image, np.full((40, 60, 1), 7, np.uint8)], -1)
    np.testing.assert_array_equal(transforms.decode_image(png(alpha)), image)


def test_decode_shrinks_while_decoding_but_not_below_what_is_asked():
    decoded = transforms.decode_image(jpeg(picture(400, 600)), min_height=90, min_width=100)
    assert decoded.shape == (100, 150, 3)
    for data in (jpeg(picture(112, 112)), png(picture(112, 112))):
        assert transforms.decode_image(data, min_height=224, min_width=224).shape == (112, 112, 3)


@pytest.mark.parametrize("encode", [png, jpeg])
def test_image_size_is_read_from_the_header(encode):
    assert transforms.image_size(encode(picture(31, 47))) == (31, 47)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + b"\0" * 40,
        b"\xff\xd8\xff\xe0 no image",
        jpeg(picture(64, 64))[:700],
        png(picture(64, 64))[:60],
    ],
    ids=["empty", "gif", "jpeg header only", "cut jpeg", "cut png"],
)
def test_damaged_images_are_input_errors_in_one_line(data, capfd):
    for make in (transforms.make_eval_transform, transforms.make_pretrain_transform):
        with pytest.raises(InputError, match=r"bytes cannot be decoded .*JPEG or PNG") as caught:
            make(32)(data, rng())
        assert "\n" not in str(caught.value)


def test_eval_transform_keeps_the_whole_image_at_the_asked_size():
    transform = transforms.make_eval_transform(56)
    for height, width in [(112, 112), (56, 56), (30, 40), (100, 40)]:
        out = transform(png(picture(height, width)))
        assert out.shape == (56, 56, 3) and out.dtype == np.uint8
        assert error_of(out, picture(56, 56)) < 3
    image = rng().integers(0, 256, (56, 56, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transform(png(image)), image)
    big = rng().integers(0, 256, (112, 112, 3), dtype=np.uint8)
    averaged = big.reshape(56, 2, 56, 2, 3).mean((1, 3))
    assert error_of(transform(png(big)), averaged) < 1, "shrinking averages areas"


def test_draw_box_lies_inside_and_covers_the_asked_share():
    generator = rng()
    boxes = np.array(
        [transforms.draw_box(generator, 200, 100, (0.2, 0.5), (0.75, 4 / 3)) for _ in range(500)]
    )
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all()
    assert (left + width <= 200).all() and (top + height <= 100).all()
    share = width * height / 20_000
    assert 0.19 < share.min() < 0.22 and share.max() < 0.51
    assert ((width / height > 0.73) & (width / height < 1.36)).all()
    assert len(np.unique(left)) > 50
    assert transforms.draw_box(generator, 10, 100, (1, 1), (1, 1)) == (0, 45, 10, 10)


def test_pretrain_transform_crops_and_flips():
    whole = transforms.make_pretrain_transform(64, scale=(1, 1), aspect=(1, 1), flip=0)
    image = picture(64, 64)
    np.testing.assert_array_equal(whole(png(image), rng()), image)
    mirrored = transforms.make_pretrain_transform(64, scale=(1, 1), aspect=(1, 1), flip=1)
    np.testing.assert_array_equal(mirrored(png(image), rng()), image[:, ::-1])
    usual = transforms.make_pretrain_transform(64)
    crops = [usual(png(image), rng(seed)) for seed in range(200)]
    red = np.array([crop[:, :, 0].astype(float) for crop in crops])
    rising = (red[:, :, -1].mean(1) > red[:, :, 0].mean(1)).mean()
    assert 0.4 < rising < 0.6, "half are flipped"
    spread = np.ptp(red.mean(1), axis=1)
    assert spread.min() < 140 < 200 < spread.max(), "small and large parts"


def test_crops_of_large_jpegs_agree_with_crops_of_the_full_decode():
    image = picture(800, 640)
    transform = transforms.make_pretrain_transform(64, scale=(0.5, 1))
    for seed in range(5):
        assert error_of(transform(jpeg(image), rng(seed)), transform(png(image), rng(seed))) < 2.5


def test_transforms_depend_on_the_generator_alone():
    data = jpeg(picture(80, 80))
    for make in (transforms.make_pretrain_transform, transforms.make_train_transform):
        transform = make(48)
        np.testing.assert_array_equal(transform(data, rng(3)), transform(data, rng(3)))
        assert error_of(transform(data, rng(3)), transform(data, rng(4))) > 0.5
        assert transform(data, rng(5)).shape == (48, 48, 3)


OFF = {
    "crop": (1, 1),
    "aspect": (1, 1),
    "rotation": 0,
    "flip": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "erase": 0,
}


def test_train_transform_with_everything_off_is_the_identity():
    image = picture(64, 64)
    out = transforms.make_train_transform(64, **OFF)(png(image), rng())
    np.testing.assert_array_equal(out, image)
    mirrored = transforms.make_train_transform(64, **{**OFF, "flip": 1})(png(image), rng())
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    for size in (32, 112, 200):
        resized = transforms.make_train_transform(size, **OFF)(png(picture(96, 96)), rng())
        assert error_of(resized[2:-2, 2:-2], picture(size, size)[2:-2, 2:-2]) < 2


def test_rotation_turns_about_the_centre():
    transform = transforms.make_train_transform(65, **{**OFF, "rotation": 90})
    image = np.full((65, 65, 3), 100, np.uint8)
    image[32, 32] = 255
    out = transform(png(image), rng(1))
    assert out[32, 32, 0] == 255
    ramp = transform(png(picture(65, 65)), rng(1))
    assert error_of(ramp, picture(65, 65)) > 10


def test_each_colour_option_changes_its_own_property():
    image = np.clip(picture(64, 64).astype(int) // 2 + 40, 0, 255).astype(np.uint8)
    data = png(image)

    def changed(**options):
        out = transforms.make_train_transform(64, **{**OFF, **options})(data, rng(6))
        return out.astype(float)

    grey = image @ [0.299, 0.587, 0.114]
    brighter = changed(brightness=0.3)
    factor = brighter.mean() / image.mean()
    assert abs(factor - 1) > 0.02 and error_of(brighter, image * factor) < 1
    contrasted = changed(contrast=0.5)
    assert abs(contrasted.std() / image.std() - 1) > 0.05
    assert abs((contrasted @ [0.299, 0.587, 0.114]).mean() - grey.mean()) < 1
    saturated = changed(saturation=0.9)
    assert np.abs(saturated @ [0.299, 0.587, 0.114] - grey).mean() < 1
    assert abs(np.ptp(saturated, axis=-1).mean() / np.ptp(image, axis=-1).mean() - 1) > 0.1


def test_erasing_overwrites_one_rectangle_of_the_asked_area():
    options = {**OFF, "erase": 1, "erase_area": (0.1, 0.2)}
    image = picture(64, 64)
    out = transforms.make_train_transform(64, **options)(png(image), rng())
    changed = (out != image).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert box.mean() > 0.95 and 0.08 < box.size / 64**2 < 0.22


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 8, "crop": (0, 1)},
        {"size": 8, "crop": (0.9, 0.5)},
        {"size": 8, "flip": 1.5},
        {"size": 8, "erase_area": (0.1, 2)},
        {"size": 8, "rotation": -1},
    ],
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError, match="expected"):
        transforms.make_train_transform(**options)
