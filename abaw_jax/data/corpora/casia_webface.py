"""CASIA-WebFace: faces for recognition, a folder per identity or MXNet's RecordIO; no labels.

Source: Yi, Lei, Liao and Li, "Learning face representation from scratch", 2014. The form of the
record file: dmlc-core's recordio.h and MXNet's image_recordio.h. MS1M and others share it.

A record, little-endian, at a multiple of 4 bytes:

    uint32 magic   uint32 part << 29 | length   length bytes, padded with zeros to 4

part 0 is a whole record. Where its bytes held the magic number at a multiple of 4, the record was
cut there, and the number left out: parts 1, 2 ..., 3. The bytes of a record are a header, `flag`
labels and the image:

    uint32 flag   float32 label   uint64 id   uint64 id2   float32[flag] labels   image

`train.idx` has a line `key<tab>offset` for each record. Records that hold the range of an
identity's keys, and the first, which says where those begin, are without an image.
"""

import array
import os
import pathlib
import struct
from collections.abc import Sequence
from typing import IO

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.images import Image, Span
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError

MAGIC = 0xCED7230A
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
FRAME, HEADER, LABEL = 8, 24, 4  # bytes
WHOLE, FIRST, MIDDLE, LAST = 0, 1, 2, 3


def read(root: str | os.PathLike) -> list[Split]:
    """Read `<identity>/*.jpg` or, where `root` holds `train.rec`, that file by its `train.idx`.

    Returns:
      One training split, without labels. Its images are read from the record file when they are
      asked for; of a record there are two numbers in memory. What the index does not list is not
      looked at, and neither is `property`.

    Raises:
      InputError: no images; an index that is missing or whose line (it is named) points at no
        record; a record that runs past the end of the file or is shorter than its header says.
    """
    root = image_folder.check_folder(root, "CASIA-WebFace's root")
    records = root / "train.rec"
    if not records.is_file():
        images, skipped = image_folder.walk(root)
        if not images:
            raise InputError(f"{root}: holds neither train.rec nor images in folders")
        return [image_folder.labelled_set("train", images, {}, skipped)]
    offsets = _read_index(root / "train.idx")
    starts, lengths, joined = _locate(records, root / "train.idx", offsets)
    kept = lengths > 0
    if not kept.any():
        raise InputError(f"{records}: holds no image in {len(offsets)} records; copy it again")
    places = np.cumsum(kept) - 1
    joined = {int(places[i]): image for i, image in joined.items() if image}
    frames = _Frames(str(records), starts[kept], lengths[kept], joined)
    skipped = image_folder.nonzero({"records_without_image": int((~kept).sum())})
    return [Split("train", [Video("", frames, len(frames))], skipped)]


class _Frames(Sequence[tuple[int, Image]]):
    """(number from 1, image) of each record; `joined` has those that lie in several parts."""

    def __init__(
        self, path: str, starts: np.ndarray, lengths: np.ndarray, joined: dict[int, bytes]
    ):
        self.path, self.starts, self.lengths, self.joined = path, starts, lengths, joined

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> tuple[int, Image]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if i in self.joined:
            return i + 1, self.joined[i]
        return i + 1, Span(self.path, int(self.starts[i]), int(self.lengths[i]))


def _read_index(path: pathlib.Path) -> np.ndarray:
    """The records' offsets in the order of the index's lines, int64 (n,)."""
    packed = array.array("q")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                offset = line.strip().rpartition(b"\t")[2]
                if not (0 < len(offset) <= 18 and offset.isdigit() and int(offset) % 4 == 0):
                    raise InputError(
                        f"{path}:{number}: {line[:80].decode(errors='replace').strip()!r}; "
                        "expected `key<tab>offset`, the offset a multiple of 4"
                    )
                packed.append(int(offset))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it belongs to train.rec, copy it too"
        ) from error
    if not packed:
        raise InputError(f"{path}: holds no rows; expected `key<tab>offset`")
    offsets = np.array(packed, np.int64)
    order = np.argsort(offsets, kind="stable")
    twins = np.flatnonzero(np.diff(offsets[order]) == 0)
    if len(twins):
        first, second = order[twins[0] : twins[0] + 2] + 1
        raise InputError(
            f"{path}:{second}: points at the same record as line {first}; copy it again"
        )
    return offsets


def _locate(
    path: pathlib.Path, index: pathlib.Path, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[int, bytes]]:
    """First byte and length of each record's image, int64 (n,), and the images in several parts.

    Length 0 where there is none. The headers are looked at as arrays: there may be millions.
    """

    def check(good: np.ndarray, what: str) -> None:
        if not good.all():
            raise _damaged(path, index, offsets, int(np.argmin(good)), what)

    size = path.stat().st_size
    check(offsets + FRAME + HEADER <= size, f"runs past its end, byte {size}")
    words, at = np.memmap(path, "<u4", "r", shape=(size // 4,)), offsets // 4
    check(words[at] == MAGIC, "does not begin with the magic number")
    parts, lengths = words[at + 1] >> LENGTH_BITS, words[at + 1] & LENGTH_MASK
    lengths, whole = lengths.astype(np.int64), parts == WHOLE
    check(whole | (parts == FIRST), "is no beginning of a record")
    check(offsets + FRAME + lengths <= size, f"runs past its end, byte {size}")
    heads = HEADER + LABEL * words[at + 2].astype(np.int64)
    check((heads <= lengths) | ~whole, "is shorter than its header says")
    lengths -= heads
    joined = {}
    with open(path, "rb") as file:
        for i in np.flatnonzero(~whole).tolist():
            file.seek(offsets[i])
            image = _join(file)
            if image is None:
                raise _damaged(path, index, offsets, i, "is cut in one of its parts")
            joined[i], lengths[i] = image, len(image)
    return offsets + FRAME + heads, lengths, joined


def _damaged(
    path: pathlib.Path, index: pathlib.Path, offsets: np.ndarray, i: int, what: str
) -> InputError:
    return InputError(
        f"{index}:{i + 1}: the record at byte {offsets[i]} of {path} {what}; the files do not "
        "belong together or one is cut: copy both again"
    )


def _join(file: IO[bytes]) -> bytes | None:
    """The image of a record in parts that begins here, None if it does not end as it should."""
    pieces, expected = [], (FIRST,)
    while True:
        frame = file.read(FRAME)
        if len(frame) < FRAME:
            return None
        magic, word = struct.unpack("<II", frame)
        part, length = word >> LENGTH_BITS, word & LENGTH_MASK
        piece = file.read(length)
        if magic != MAGIC or part not in expected or len(piece) < length:
            return None
        pieces.append(piece)
        file.seek(-length % 4, os.SEEK_CUR)
        expected = (MIDDLE, LAST)
        if part == LAST:
            break
    content = struct.pack("<I", MAGIC).join(pieces)
    if len(content) < HEADER:
        return None
    head = HEADER + LABEL * struct.unpack_from("<I", content)[0]
    return content[head:] if head <= len(content) else None
