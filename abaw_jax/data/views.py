"""Views of an aligned face crop: parts of it that an encoder of their own looks at.

A view is a function from the pixels of a crop (height, width, 3) to those of the view, any size.
"""

import numpy as np

FACE = "face"  # the whole crop
# Left, top, right, bottom as shares of width and height: `emotic_mae` (arXiv 2403.13039).
EYES = (0.2, 0.35, 0.8, 0.55)
MOUTH = (0.2, 0.7, 0.8, 0.9)


def eyes_mouth(image: np.ndarray) -> np.ndarray:
    """The box of the eyes on top of that of the mouth: (h, w, 3) -> about (0.4 h, 0.6 w, 3).

    Edges lie at the nearest pixel (not published); of either box one row at least is kept.
    """
    return np.concatenate([_cut(image, EYES), _cut(image, MOUTH)])


def _cut(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    height, width = image.shape[:2]
    left, top, right, bottom = (
        round(share * side) for share, side in zip(box, (width, height) * 2, strict=True)
    )
    top, left = min(top, height - 1), min(left, width - 1)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


# View -> what makes it of a crop; None where that is the crop itself.
VIEWS = {FACE: None, "eyes_mouth": eyes_mouth}
# Of what a view is stacked, from the top, for those who make it themselves.
BOXES = {"eyes_mouth": {"eyes": EYES, "mouth": MOUTH}}
