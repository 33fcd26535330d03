"""Annotation files as the organisers write them, parsed as bytes, all rows at once.

Plain is a file whose rows are as wide as the track's, end in \\n or \\r\\n, and hold nothing but
numbers such as `3`, `-1`, `0`, `1.0`, `-0.25`: one digit, for real numbers with a fraction of up
to 14 more, and no space. Everything else is left to `annotations.parse_rows`, which reads what is
sound and says what is not; for plain files both come to the same bits, this some ten times as fast.
"""

import numpy as np

from abaw_jax.tracks.track import Track

_MINUS, _POINT, _ZERO = b"-.0"
_LONGEST = 16  # of a number without its sign: 15 digits are below 2^53


def parse_plain_rows(data: bytes, track: Track) -> np.ndarray | None:
    """Label rows (rows, W) of a whole file, its header line passed over; None if it is not plain.

    None as well for a file with a number that is no label of the track.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    body = data.rstrip().partition(b"\n")[2]
    if not body or b"\r" in data:
        return None
    parse = _parse_digits if track.label_type == "int32" else _parse_fractions
    values = parse(body + b"\n", track.label_width)
    if values is None or not is_label(values, track).all():
        return None
    return values.astype(track.label_type)


def is_label(values: np.ndarray, track: Track, *, allow_invalid: bool = True) -> np.ndarray:
    """Which numbers may stand in a label row: those in range and the mark for no label. bool."""
    low, high = track.label_range
    good = (values >= low) & (values <= high)  # False for NaN
    return good | (values == track.invalid) if allow_invalid else good


def _separated(found: np.ndarray, width: int) -> bool:
    """Whether these bytes are what follows each number of whole rows."""
    return found.tobytes() == (b"," * (width - 1) + b"\n") * (found.size // width)


def _parse_digits(body: bytes, width: int) -> np.ndarray | None:
    """Rows of one-digit integers and of -1: int32 (rows, W); other bytes become other integers."""
    if b"/" in body:
        return None
    # '/' comes before '0', as -1 before 0: so every number is one byte.
    text = np.frombuffer(body.replace(b"-1", b"/"), np.uint8)
    if len(text) % 2 or not _separated(text[1::2], width):
        return None
    return text[::2].reshape(-1, width).astype(np.int32) - _ZERO


def _parse_fractions(body: bytes, width: int) -> np.ndarray | None:
    """Rows of real numbers with one digit before the point: float64 (rows, W), as `float` has them.

    The digits make an integer and the places a power of ten, both exact in float64, so that their
    quotient is rounded once (Clinger, How to Read Floating Point Numbers Accurately, 1990).
    """
    text = np.frombuffer(body + b"0" * _LONGEST, np.uint8)
    ends = np.flatnonzero(text < _MINUS)  # separators; of what a number holds, nothing
    if not _separated(text[ends], width):
        return None
    starts = np.append(0, ends[:-1] + 1)
    negative = text[starts] == _MINUS
    starts += negative
    lengths = ends - starts
    longest = int(lengths.max())
    if lengths.min() < 1 or longest > _LONGEST:
        return None
    # All as long as the longest: what follows a number counts as zeros at its end. A row a place.
    numbers = np.ndarray(len(body), f"V{longest}", text, strides=(1,))[starts]
    digits = np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, longest).T) - np.uint8(_ZERO)
    digits *= np.arange(longest, dtype=np.uint8)[:, None] < lengths.astype(np.uint8)
    if longest > 1:
        if ((digits[1] != np.uint8(_POINT - _ZERO & 255)) & (lengths > 1)).any():
            return None
        digits[1] = 0
    if digits.max() > 9:
        return None
    values = digits[0].astype(np.float64)
    for place in digits[2:]:
        values *= 10
        values += place
    values /= 10.0 ** max(longest - 2, 0)
    return np.where(negative, -values, values).reshape(-1, width)
