"""Data cleaning: which crops had better not be learnt from.

`emotic_mae` (arXiv 2403.13039) removes corrupted, non-face and low-resolution crops; how it finds
them is not published. What cannot be decoded is left out of records anyway (`data/write.py`). The
rest is chosen here, from pixels alone: there is no face detector in this package, and a sharp crop
of something else passes.
"""

import collections
import csv
import dataclasses
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from abaw_jax.data.transforms import decode_image
from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write

REASONS = ("small", "blank", "blurred")
CLEANED = "cleaned.csv"  # beside the records: which images were left out, and why


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """The least that a crop must have; 0 asks nothing.

    min_side: of the shorter side, in pixels. min_contrast: standard deviation of grey, of 0 .. 255;
    below it nothing is to be seen, no face either. min_sharpness: standard deviation of grey's
    Laplacian; a crop that was enlarged to the size of all others falls below it.

    Raises InputError for a number below 0.
    """

    min_side: int = 0
    min_contrast: float = 0.0
    min_sharpness: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0:
                raise InputError(f"clean.{name}: {value}; expected 0 (asks nothing) or more")

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))

    def faults(self, content: bytes) -> Sequence[str]:
        """Those of REASONS for which an encoded crop is to be left out; () for none."""
        if not self:
            return ()
        grey = cv2.cvtColor(decode_image(content), cv2.COLOR_RGB2GRAY)
        found = (
            min(grey.shape) < self.min_side,
            np.std(grey) < self.min_contrast,
            np.std(cv2.Laplacian(grey, cv2.CV_32F)) < self.min_sharpness,
        )
        return tuple(reason for reason, is_so in zip(REASONS, found, strict=True) if is_so)


NO_CLEANING = Cleaning()


def list_cleaned(folder: pathlib.Path, cleaned: Sequence[Sequence]) -> dict[str, int]:
    """Write CLEANED of the images left out, each (.., .., file, reasons), and count them: in all,
    and for each reason, of which one image may have several."""
    with atomic_write(folder / CLEANED, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "reasons"])
        rows.writerows([name, reasons] for _, _, name, reasons in cleaned)
    counts = collections.Counter(reason for *_, reasons in cleaned for reason in reasons.split())
    return {"all": len(cleaned), **{reason: counts[reason] for reason in REASONS}}
