"""Views of a face crop: the boxes, and a view in the transforms."""

import cv2
import numpy as np
import pytest

from abaw_jax.data import transforms
from abaw_jax.data.views import VIEWS, eyes_mouth

# Drawn by hand, 10 x 10: eyes (E) in columns 2 .. 7 of rows 4 and 5 (of 3.5 to 5.5, the nearest
# edges), mouth (M) in the same columns of rows 7 and 8.
FACE = """
..........
..........
..........
..........
..EEEEEF..
..EEEEEF..
..........
..MMMMMN..
..MMMMMN..
..........
""".split()
EYES_MOUTH = ["EEEEEF", "EEEEEF", "MMMMMN", "MMMMMN"]


def pixels(rows):
    image = np.array([[ord(letter) for letter in row] for row in rows], np.uint8)
    return np.repeat(image[..., None], 3, axis=-1)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_the_composite_is_the_eyes_on_the_mouth():
    np.testing.assert_array_equal(eyes_mouth(pixels(FACE)), pixels(EYES_MOUTH))
    # Aff-Wild2's crops: columns 22 .. 89, rows 39 .. 61 and 78 .. 100.
    y, x = np.mgrid[0:112, 0:112]
    crop = np.stack([x, y, x + y], -1).astype(np.uint8)
    view = eyes_mouth(crop)
    assert view.shape == (23 + 23, 68, 3)
    assert view[0, 0].tolist() == [22, 39, 61] and view[22, -1].tolist() == [89, 61, 150]
    assert view[23, 0].tolist() == [22, 78, 100] and view[-1, -1].tolist() == [89, 100, 189]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 1), (1, 40)])
def test_crops_of_a_few_pixels_have_a_view_too(shape):
    view = eyes_mouth(np.full((*shape, 3), 9, np.uint8))
    assert len(view) >= 2 and view.shape[1] >= 1 and (view == 9).all()


def test_transforms_resize_the_view_and_augment_that():
    view, data = VIEWS["eyes_mouth"], png(pixels(FACE))
    seen = transforms.make_eval_transform(12, view)(data)
    # 4 x 6 to 12 x 12. Bicubic: what is near another letter is a mixture.
    assert seen.shape == (12, 12, 3)
    assert (seen[:2, :7] == ord("E")).all() and (seen[-2:, :7] == ord("M")).all()
    still = dict(crop=(1, 1), aspect=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0,
                 erase=0, view=view)  # fmt: skip
    for flip, expected in ((0, seen), (1, seen[:, ::-1])):
        transform = transforms.make_train_transform(12, flip=flip, **still)
        np.testing.assert_array_equal(transform(data, np.random.default_rng(0)), expected)


def test_the_whole_face_is_seen_by_no_view_at_all():
    assert list(VIEWS) == ["face", "eyes_mouth"] and VIEWS["face"] is None
