"""Windows over videos: where they start, what fills them, batches of them, and merging back.

A video has R annotation rows; row i (from 0) belongs to frame i + 1. Frames without a crop exist
as rows: they take the features of the frame before, and their labels count. Where labels are of
whole clips, a window is a whole clip, thinned out where it is longer than a window.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from abaw_jax.data.features import FeatureStore, make_standardise
from abaw_jax.data.pipeline import Batch, ordered_batches, read_image, shuffled_batches
from abaw_jax.data.records import Index, decode_record
from abaw_jax.data.transforms import Transform
from abaw_jax.errors import InputError

# (video number, rows int64 (T,), rng or None) -> arrays (T, ...), as {"features": (T, D)}; besides,
# under names with a slash, what has another time axis than the rows.
Reader = Callable[[int, np.ndarray, np.random.Generator | None], Batch]


def window_starts(rows: int, length: int, stride: int) -> np.ndarray:
    """First row of each window over a video of `rows` rows, int64 (n,), rising.

    Windows follow each other by `stride`; where they leave a tail, one more ends at the last
    row. A video no longer than a window has the one window 0; a video of 0 rows has none.
    """
    if length < 1 or not 1 <= stride <= length:
        raise InputError(
            f"windows of {length} rows, stride {stride}: expected 1 <= stride <= length, or rows "
            "would be left out"
        )
    if rows <= length:
        return np.zeros(min(rows, 1), np.int64)
    starts = np.arange(0, rows - length + 1, stride, dtype=np.int64)
    return starts if starts[-1] + length == rows else np.append(starts, rows - length)


def nearest_before(frames: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For each row, the position in `frames` (rising, 1-based, not empty) that stands for it:
    the frame itself, else the last one before it, else the first. int64, the shape of `rows`."""
    return np.maximum(np.searchsorted(frames, rows + 1, side="right") - 1, 0)


def fill(frames: np.ndarray, values: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Spread values of the frames that exist over all rows of a video.

    Args: frames (n,) 1-based and rising; values (n, ...); rows: number of rows R.
    Returns: values (R, ...): a missing frame repeats the previous, before the first the first,
        zeros where n = 0; present bool (R,): whether the row's own frame exists.
    """
    present = np.zeros(rows, bool)
    present[frames[frames <= rows] - 1] = True
    if not len(frames):
        return np.zeros((rows, *values.shape[1:]), values.dtype), present
    return values[nearest_before(frames, np.arange(rows))], present


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Windows of `length` rows over the videos of a split. V videos, N rows, M windows.

    Attributes:
        videos: V names. rows: int64 (V + 1,), rows rows[v] .. rows[v+1]-1 are video v's.
        labels: (N, K), or None. invalid: the label that stands for "none", or the row (K,).
        video, start: int64 (M,), video number and first row, counted in its video, of each.
        length: T. causal: `start` may be negative; rows before the first repeat the first.
        whole: each window stands for its whole video, see `make_clip_windows`. every: of which
            only every so many-th row is seen.
    """

    videos: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray | None
    video: np.ndarray
    start: np.ndarray
    length: int
    causal: bool
    invalid: float | np.ndarray
    whole: bool = False
    every: int = 1

    def __len__(self) -> int:
        return len(self.start)


def make_windows(
    videos: Sequence[str],
    rows: np.ndarray,
    labels: np.ndarray | None,
    *,
    length: int,
    stride: int,
    causal: bool = False,
    invalid: float = -1,
) -> Windows:
    """Cut videos into windows; arguments as in `Windows` (an Index's `videos`, `rows`, labels).

    With `causal`, the windows are "the `length` rows that end at row i" for every stride-th i,
    counted back from the last; else those of `window_starts`.
    Raises InputError for lengths that do not fit and where there is no row at all.
    """
    rows = _check_rows(videos, rows, labels)
    counts = np.diff(rows)
    if causal:
        if length < 1 or stride < 1:
            raise InputError(f"windows of {length} rows, stride {stride}: expected at least 1")
        starts = [np.arange(n - 1, -1, -stride, np.int64)[::-1] + 1 - length for n in counts]
    else:
        starts = [window_starts(int(n), length, stride) for n in counts]
    if not sum(map(len, starts)):
        raise InputError(f"windows: {len(videos)} videos have 0 rows together; expected some")
    video = np.repeat(np.arange(len(videos)), [len(s) for s in starts])
    start = np.concatenate(starts)
    return Windows(tuple(videos), rows, labels, video, start, length, causal, invalid)


def thin_windows(windows: Windows, stride: int) -> Windows:
    """Of causal windows those that end at every stride-th row, counted back from a video's last."""
    ends = windows.start + windows.length
    kept = (np.diff(windows.rows)[windows.video] - ends) % stride == 0
    return dataclasses.replace(windows, video=windows.video[kept], start=windows.start[kept])


def make_clip_windows(
    videos: Sequence[str],
    rows: np.ndarray,
    labels: np.ndarray | None,
    *,
    length: int,
    every: int = 1,
    invalid: float = -1,
) -> Windows:
    """One window for each video, which stands for all of it; arguments as in `Windows`.

    Of a video every `every`-th row is seen, from the first. At most `length` of these it gives all.
    More are divided into `length` parts of equal length (to a row), and it gives a row of each: a
    random one in training, the middle one otherwise (`fuxi`'s sampling of clips, arXiv 2403.10825).
    Raises InputError as `make_windows`.
    """
    rows = _check_rows(videos, rows, labels)
    if length < 1:
        raise InputError(f"windows of {length} rows: expected at least 1")
    video = np.flatnonzero(np.diff(rows))
    if not len(video):
        raise InputError(f"windows: {len(videos)} videos have 0 rows together; expected some")
    start = np.zeros(len(video), np.int64)
    return Windows(
        tuple(videos), rows, labels, video, start, length, False, invalid, whole=True, every=every
    )


def _check_rows(videos: Sequence[str], rows: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    rows = np.asarray(rows, np.int64)
    if len(rows) != len(videos) + 1 or (labels is not None and len(labels) != rows[-1]):
        found = None if labels is None else len(labels)
        raise InputError(
            f"windows: {len(videos)} videos, {len(rows)} row limits, {found} labels, last limit "
            f"{rows[-1]}: expected one limit more than videos and as many labels as the last"
        )
    return rows


def _part_rows(count: int, length: int, rng: np.random.Generator | None) -> np.ndarray:
    """A row of each of `length` equal parts of `count` > `length` rows, int64 (length,), rising."""
    ends = np.arange(length + 1) * count // length
    sizes = np.diff(ends)
    return ends[:-1] + (sizes // 2 if rng is None else rng.integers(sizes))


def read_window(
    windows: Windows, reader: Reader, video: int, start: int, rng: np.random.Generator | None
) -> Batch:
    """One window as arrays: the reader's (T, ...), mask bool (T,), label (T, K), video, start.

    mask is False and everything else zero (labels invalid) where a short video has ended, but for
    what the reader gives on another time axis. The rows that a causal window repeats before the
    first are seen (mask True), not learnt (invalid).
    """
    count = int(windows.rows[video + 1] - windows.rows[video])
    seen = -(-count // windows.every)
    if windows.whole and seen > windows.length:
        rows = _part_rows(seen, windows.length, rng) * windows.every
    else:
        rows = start + np.arange(windows.length) * windows.every
    mask = rows < count
    example = reader(video, np.clip(rows, 0, count - 1), rng)
    for name, values in example.items():
        if "/" not in name:
            values[~mask] = 0
    example |= {"mask": mask, "video": np.int32(video), "start": np.int32(start)}
    if windows.labels is not None:
        own = mask & (rows >= 0)
        label = np.full((windows.length, windows.labels.shape[1]), windows.invalid)
        label = label.astype(windows.labels.dtype)
        label[own] = windows.labels[windows.rows[video] + rows[own]]
        example["label"] = label
    return example


def window_batches(
    windows: Windows,
    reader: Reader,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    shift: int = 0,
) -> Iterator[Batch]:
    """Endless shuffled batches of windows, as certain in (seed, step) as `image_batches`.

    `shift` moves each window by a random number of rows up to it, either way, anew every time
    but never past the ends of its video. The arrays of `read_window` with a leading axis.
    Raises InputError for a shift of windows that are whole clips.
    """
    if shift and windows.whole:
        raise InputError(f"shift {shift}: a window is a whole clip; expected 0")

    def make(i: int, rng: np.random.Generator) -> Batch:
        video, start = int(windows.video[i]), int(windows.start[i])
        if shift:
            low = 1 - windows.length if windows.causal else 0
            high = max(windows.rows[video + 1] - windows.rows[video] - windows.length, low)
            start = int(np.clip(start + rng.integers(-shift, shift, endpoint=True), low, high))
        return read_window(windows, reader, video, start, rng)

    return shuffled_batches(
        len(windows),
        make,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        process=process,
        threads=threads,
    )


def window_epoch(
    windows: Windows,
    reader: Reader,
    *,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Iterator[Batch]:
    """One pass over the windows in order. The last batch is filled up with repeats of the last
    window whose mask is False throughout (and labels invalid)."""

    def make(i: int, real: bool) -> Batch:
        example = read_window(windows, reader, int(windows.video[i]), int(windows.start[i]), None)
        if not real:
            example["mask"] = np.zeros_like(example["mask"])
            if "label" in example:
                example["label"] = np.full_like(example["label"], windows.invalid)
        return example

    return ordered_batches(
        len(windows), make, batch_size=batch_size, process=process, threads=threads
    )


def draw_absent(rng: np.random.Generator | None, rate: float, count: int) -> np.ndarray:
    """Which of `count` modalities an example is to do without, each with probability `rate`; none
    where that would be all, and none out of training, where there is no `rng`. bool (count,)."""
    if rng is None or not rate:
        return np.zeros(count, bool)
    absent = rng.random(count) < rate
    return absent & ~absent.all()


def make_feature_reader(
    videos: Sequence[str], stores: Sequence[FeatureStore], absent_rate: float = 0.0
) -> Reader:
    """Read windows from feature stores, side by side: {"features": float32 (T, sum of widths)}.

    Values are standardised (`make_standardise`). Raises InputError at once, naming them, for videos
    that a store lacks. A video whose store holds no frame at all gives zeros, and so does a store
    that a training window is to do without (`draw_absent`, with `absent_rate`); it is not read.
    """
    for store in stores:
        store.require(videos)
    standardise = [make_standardise(store) for store in stores]

    def read(video: int, rows: np.ndarray, rng: np.random.Generator | None) -> Batch:
        parts = []
        absent = draw_absent(rng, absent_rate, len(stores)).tolist()
        for store, standardised, without in zip(stores, standardise, absent, strict=True):
            frames = store.frames(videos[video])
            if len(frames) and not without:
                at = nearest_before(frames, rows)
                values = store.read(videos[video], int(at.min()), int(at.max()) + 1)
                parts.append(standardised(values)[at - at.min()])
            else:
                parts.append(np.zeros((len(rows), store.width), np.float32))
        return {"features": np.concatenate(parts, axis=1)}

    return read


def make_frame_reader(
    records: Sequence[bytes],
    index: Index,
    transform: Transform,
    decode: Callable[[bytes], dict] = decode_record,
) -> Reader:
    """Read windows of crops: {"image": uint8 (T, H, W, 3), "seen": bool (T,)}, gaps filled as in
    `fill`. Of a video without a single crop images are zeros and `seen`, elsewhere True, is False.

    One window gets one augmentation: each of its frames draws from the same generator state.
    Raises InputError at once where no video has a crop.
    """
    if not len(index.frames):
        raise InputError(
            f"records: no crop of {len(index.videos)} videos; prepare the corpus again"
        )

    def read(video: int, rows: np.ndarray, rng: np.random.Generator | None) -> Batch:
        first, stop = index.first[video], index.first[video + 1]
        if first == stop:  # some image tells the size
            black = np.zeros_like(read_image(records, 0, decode, transform, rng))
            images = np.repeat(black[None], len(rows), axis=0)
            return {"image": images, "seen": np.zeros(len(rows), bool)}
        wanted = first + nearest_before(index.frames[first:stop], rows)
        key = None if rng is None else rng.integers(2**64, size=2, dtype=np.uint64)
        record, place = np.unique(wanted, return_inverse=True)
        images = []
        for i in record.tolist():
            draw = None if key is None else np.random.Generator(np.random.Philox(key=key))
            images.append(read_image(records, i, decode, transform, draw))
        stacked = np.stack(images)
        image = stacked if len(images) == len(rows) else stacked[place]
        return {"image": image, "seen": np.ones(len(rows), bool)}

    return read


def join_readers(*readers: Reader) -> Reader:
    """Read what each of them does, side by side, in this order."""

    def read(video: int, rows: np.ndarray, rng: np.random.Generator | None) -> Batch:
        return {name: a for reader in readers for name, a in reader(video, rows, rng).items()}

    return read


def merge_windows(
    predictions: np.ndarray,
    video: np.ndarray,
    start: np.ndarray,
    mask: np.ndarray,
    rows: np.ndarray,
) -> list[np.ndarray]:
    """Average what overlapping windows say of each row, so that every frame counts once.

    Args: predictions (M, T, K); video, start (M,); mask (M, T), False is left out, as are the
        rows that a causal window repeats before the first; rows (V,): number of each video's.
        A model that predicts the last row alone passes T = 1 and the row as `start`.
    Returns: per video float32 (rows, K). Averages are exact under any order and batching but for
        rounding in float64.
    Raises: ValueError where a row is in no window: a fault of the windows.
    """
    ends = np.concatenate([[0], np.cumsum(rows)])
    row = np.asarray(start)[:, None] + np.arange(predictions.shape[1])
    used = np.asarray(mask, bool) & (row >= 0) & (row < np.asarray(rows)[video][:, None])
    place = (ends[video][:, None] + row)[used]
    counts = np.bincount(place, minlength=ends[-1])
    if (counts == 0).any():
        at = int(np.flatnonzero(counts == 0)[0])
        v = int(np.searchsorted(ends, at, side="right")) - 1
        raise ValueError(f"video {v}, row {at - ends[v]}: in no window; expected every row in one")
    values = predictions[used].astype(np.float64)
    sums = [np.bincount(place, values[:, k], ends[-1]) for k in range(values.shape[1])]
    merged = (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32)
    return np.split(merged, ends[1:-1])
