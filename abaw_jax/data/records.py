"""Corpora as records: TFDS-readable ArrayRecord shards plus an index of each split.

One folder a corpus:

    features.json  dataset_info.json             what TFDS needs to read the shards
    <name>-<split>.array_record-00000-of-0000N   records in video order, frames in number order
    index-<split>.npz                            where each video lies, and its annotation rows
    summary.json                                 what was read, skipped and why; written last

A record is one frame: `image` (the JPEG or PNG file as found), `video`, `frame` (1-based) and one
vector per annotated track. Videos, rows and labels are in the index, so that no image has to be
read to know them: rows without an image exist in the index alone.
"""

import bisect
import dataclasses
import hashlib
import io
import itertools
import operator
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from array_record.python import array_record_module

from abaw_jax.data.cleaning import NO_CLEANING, Cleaning
from abaw_jax.data.examples import decode_record, encode_record, image_fault
from abaw_jax.data.images import Image
from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json

__all__ = [
    "IMAGE_SET",
    "Index",
    "Records",
    "Split",
    "Video",
    "decode_record",
    "encode_record",
    "image_fault",
    "index_of",
    "invalid_value",
    "load_index",
    "open_records",
    "write_corpus",
]


# The video of an image set whose predictions are kept, in files that bear the video's name.
IMAGE_SET = "images"


@dataclasses.dataclass(frozen=True)
class Video:
    """One person's sequence of crops as it lies on disk; an image set is one video named ''
    (or IMAGE_SET).

    Attributes:
      name: the folder's name.
      frames: (1-based frame number, image) in ascending order; an image is a path or, where the
        corpus does not keep its images as files, another of `images.Image`. A list, or a sequence
        that makes its items when asked, for corpora of millions of images.
      rows: number of annotation (or template) rows; row i, from 0, belongs to frame i + 1.
      labels: track key -> (rows, K); {} where there are none.
      skipped: reason -> count of what was seen and left out.
    """

    name: str
    frames: Sequence[tuple[int, Image]]
    rows: int
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Split:
    """The videos of 'train', 'validation' or 'test', and what was left out beside them."""

    name: str
    videos: list[Video]
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


def invalid_value(dtype: np.dtype) -> int:
    """The label that marks a frame as not annotated: -1 for classes and AUs, -5 for VA."""
    return -5 if np.issubdtype(dtype, np.floating) else -1


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Where the videos of one split lie among its records, and their annotation rows.

    V videos, R records, N rows, K numbers a label.

    Attributes:
      videos: V names.
      first: int64 (V+1,); records first[v] .. first[v+1]-1 are video v's, in frame order.
      frames: int32 (R,), 1-based frame number of each record.
      rows: int64 (V+1,); rows rows[v] .. rows[v+1]-1 are video v's; row i belongs to frame i + 1.
      labels: track key -> (N, K), int32 with -1 or float32 with -5 where invalid; {} without.
    """

    videos: tuple[str, ...]
    first: np.ndarray
    frames: np.ndarray
    rows: np.ndarray
    labels: Mapping[str, np.ndarray]

    def __post_init__(self):
        ends = len(self.videos) + 1
        if not (
            self.first.shape == self.rows.shape == (ends,)
            and self.first[0] == self.rows[0] == 0
            and self.first[-1] == len(self.frames)
            and (np.diff(self.first) >= 0).all()
            and (np.diff(self.rows) >= 0).all()
            and all(len(labels) == self.rows[-1] for labels in self.labels.values())
        ):
            raise ValueError("index: videos, records and rows do not fit each other")

    def record_videos(self) -> np.ndarray:
        """The video number of each record, int64 (R,)."""
        return np.repeat(np.arange(len(self.videos)), np.diff(self.first))

    def record_labels(self, track: str) -> np.ndarray:
        """The labels of the records' own frames, (R, K); invalid for frames beyond the rows."""
        if track not in self.labels:
            raise InputError(
                f"index: no labels of track {track!r}; it has {sorted(self.labels) or 'none'}: "
                "name an annotated split"
            )
        labels, video = self.labels[track], self.record_videos()
        inside = self.frames <= np.diff(self.rows)[video]
        out = np.full((len(self.frames), labels.shape[1]), invalid_value(labels.dtype))
        out = out.astype(labels.dtype)
        out[inside] = labels[(self.rows[video] + self.frames - 1)[inside]]
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """The index as plain arrays, by the names they have in its file."""
        labels = {f"labels/{key}": self.labels[key] for key in sorted(self.labels)}
        return {
            "videos": np.array(self.videos, dtype=np.str_),
            "first": self.first,
            "frames": self.frames,
            "rows": self.rows,
            **labels,
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write the index as one .npz file, whole or not at all; equal indices, equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays())
        with atomic_write(path) as file:
            file.write(buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Index":
        """Read an index. Raises InputError where the file is absent, cut or of another kind."""
        try:
            # Opened here: np.load leaves the file open where it finds no archive in it.
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            return cls(
                tuple(arrays["videos"].tolist()),
                *(arrays[key] for key in ("first", "frames", "rows")),
                {k.removeprefix("labels/"): v for k, v in arrays.items() if k[:7] == "labels/"},
            )
        except Exception as error:  # np.load lets zipfile, zlib, OSError and ValueError through
            raise InputError(
                f"{path}: no readable index ({' '.join(str(error).split())}); "
                "prepare the corpus anew"
            ) from error

    def content_hash(self) -> str:
        """SHA-256 of names, frame numbers, rows and labels, as hexadecimal text."""
        digest = hashlib.sha256()
        for key, array in self.arrays().items():
            if key == "videos":  # NumPy pads text to the longest name
                array = np.frombuffer("\0".join(self.videos).encode(), np.uint8)
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def index_of(split: Split, damaged: set[tuple[int, int]] = frozenset()) -> Index:
    """Build a split's index; `damaged` holds (video number, frame number) of left-out images."""
    frames = [
        [n for n, _ in video.frames if (v, n) not in damaged]
        for v, video in enumerate(split.videos)
    ]
    keys = sorted({key for video in split.videos for key in video.labels})
    return Index(
        videos=tuple(video.name for video in split.videos),
        first=np.cumsum([0, *map(len, frames)], dtype=np.int64),
        frames=np.array(list(itertools.chain.from_iterable(frames)), np.int32),
        rows=np.cumsum([0, *(video.rows for video in split.videos)], dtype=np.int64),
        labels={key: np.concatenate([v.labels[key] for v in split.videos]) for key in keys},
    )


class Records:
    """The records of one split: `len(records)`, `records[i]` -> bytes for `decode_record`.

    Shards are opened when first read, once per process and shared by its threads; a pickle holds
    the file names alone. An index out of range raises IndexError, a damaged shard InputError.
    """

    def __init__(self, paths: list[str], lengths: list[int]):
        self.paths, self.lengths = list(paths), list(lengths)
        self._ends = list(itertools.accumulate(self.lengths))
        self._open_in(os.getpid())

    def _open_in(self, process: int) -> None:
        self._process, self._lock = process, threading.Lock()
        self._readers = [None] * len(self.paths)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index) -> bytes:
        index = operator.index(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        if self._process != os.getpid():  # a forked child must not share file positions
            self._open_in(os.getpid())
        reader = self._readers[shard] or self._reader(shard)
        try:
            return reader.read([index - self._ends[shard] + self.lengths[shard]])[0]
        except (RuntimeError, IndexError) as error:
            raise _damaged_shard(self.paths[shard], error) from error

    def _reader(self, shard: int):
        with self._lock:
            if self._readers[shard] is None:
                try:
                    reader = array_record_module.ArrayRecordReader(
                        self.paths[shard],
                        "readahead_buffer_size:0,max_parallelism:0",
                        file_reader_buffer_size=32768,
                    )
                    found = reader.num_records()
                except RuntimeError as error:
                    raise _damaged_shard(self.paths[shard], error) from error
                if found != self.lengths[shard]:
                    raise _damaged_shard(
                        self.paths[shard], f"{found} records, expected {self.lengths[shard]}"
                    )
                self._readers[shard] = reader
            return self._readers[shard]

    def __getstate__(self):
        return self.paths, self.lengths

    def __setstate__(self, state):
        self.__init__(*state)

    def __repr__(self) -> str:
        first = pathlib.Path(self.paths[0]).name if self.paths else "none"
        return f"Records({first}, {len(self.paths)} shards, {len(self)} records)"


def _damaged_shard(path: str, reason: object) -> InputError:
    reason = " ".join(str(reason).split())
    return InputError(f"{path}: damaged records ({reason}); remove the folder and prepare it anew")


def shard_name(corpus: str, split: str, shard: int, shards: int) -> str:
    """A shard's file name, as TFDS composes it."""
    return f"{corpus}-{split}.array_record-{shard:05d}-of-{shards:05d}"


def open_records(folder: str | os.PathLike, split: str) -> Records:
    """Open a split for random access, in the order of its index.

    Raises InputError where the folder is no finished corpus or has no such split.
    """
    folder = pathlib.Path(folder)
    summary = _finished(folder, split)
    lengths = summary["splits"][split]["shards"]
    names = (shard_name(summary["corpus"], split, i, len(lengths)) for i in range(len(lengths)))
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: is missing; remove the folder and prepare the corpus anew")
    return Records([str(path) for path in paths], lengths)


def load_index(folder: str | os.PathLike, split: str) -> Index:
    """Read a split's index. Raises InputError as `open_records` does."""
    _finished(pathlib.Path(folder), split)
    return Index.load(pathlib.Path(folder) / f"index-{split}.npz")


def _finished(folder: pathlib.Path, split: str) -> dict:
    if not (folder / "summary.json").is_file():
        raise InputError(
            f"{folder}: holds no finished records (no summary.json); run the prepare stage on it"
        )
    summary = read_json(folder / "summary.json")
    if split not in summary.get("splits", {}):
        raise InputError(
            f"{folder}: has no split {split!r}; it has {', '.join(summary.get('splits', {}))}"
        )
    return summary


def write_corpus(
    folder: str | os.PathLike,
    corpus: str,
    splits: list[Split],
    *,
    workers: int | None = None,
    max_damaged: int | float = 0.01,
    clean: Cleaning = NO_CLEANING,
    progress: bool = True,
) -> dict:
    """Write a corpus's splits as records and return the summary.

    The same inputs again: nothing is done. Interrupted: finished shards are kept, and the files
    come out byte for byte as from one run. Other inputs in the same folder: InputError.

    Args:
      folder: is made; holds one corpus.
      corpus: its name, small letters, digits and `_`.
      splits: as a reader in `abaw_jax.data.corpora` gives them.
      workers: threads, None for one a core.
      max_damaged: how many images may be damaged before it is an error: a count (int) or a share
        of all images (float below 1). They are left out and listed in the summary.
      clean: what a training image must have besides. Those without it are left out, counted in the
        summary and listed in `cleaned.csv`; their rows stay.
      progress: draw a progress bar.

    Raises:
      InputError: too many damaged images, other inputs, a folder that cannot be written.
    """
    from abaw_jax.data import write  # what writes needs TFDS; readers do without

    return write.write_corpus(
        folder,
        corpus,
        splits,
        workers=workers,
        max_damaged=max_damaged,
        clean=clean,
        progress=progress,
    )
