"""Batches of images from records, by Grain: shuffled without end, or one pass in order.

The batch of step n is a function of (seed, n) alone. Number of processes, number of threads and
the step at which the run was resumed do not change it: shuffling and augmentation are seeded by
the position in the endless global sequence, and process p of P gets positions p, p + P, ... of
every global batch. Resuming is a jump, not a replay.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import grain
import numpy as np

from abaw_jax.data.records import decode_record
from abaw_jax.data.transforms import Transform
from abaw_jax.errors import InputError

Batch = dict[str, np.ndarray]


class Curriculum(NamedTuple):
    """Some examples first, others later.

    late: bool (n,), which of the examples come later; some of them and not all.
    steps: over how many, from 0, the chance that an example is a late one rises linearly from 0 to
        1, where it stays.
    """

    late: np.ndarray
    steps: int


def image_batches(
    records: Sequence[bytes],
    indices: np.ndarray,
    labels: np.ndarray | None,
    *,
    batch_size: int,
    transform: Transform,
    seed: int,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    decode: Callable[[bytes], dict] = decode_record,
    curriculum: Curriculum | None = None,
    classes: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Endless shuffled batches of augmented images; every epoch has its own order.

    Args:
        records: random access, `records[i]` gives the encoded record i.
        indices: (n,) records that take part. May be fewer than `batch_size`: they repeat.
        labels: (len(records), K) labels by record, or None for batches of images alone.
        batch_size: of all processes together, a multiple of their number.
        transform: `(image bytes, rng) -> uint8 (H, W, 3)`.
        seed: of order and augmentation.
        start_step: the step whose batch comes first.
        process: (index, count) of this process.
        threads: readers; 0 reads in the caller's thread.
        decode: encoded record -> dict with at least `image`; `video`, `frame` name it in errors.
        curriculum: which of `indices` come later, and when; None: all alike.
        classes: (n,) of what class each of `indices` is, of which then each comes equally often;
            None: each example does.

    Returns: an iterator of this process's part of each batch, b = batch_size / process count:
        image uint8 (b, H, W, 3), and with labels: label (b, K), mask bool (b,), all True.

    Raises: InputError at once for an argument that cannot be, and from `next` for a record that
    cannot be decoded, naming it.
    """
    indices = _check_indices(records, indices)
    if labels is not None and (labels.ndim != 2 or len(labels) != len(records)):
        raise InputError(
            f"labels of shape {labels.shape}: expected ({len(records)}, K), one row a record"
        )

    def make(position: int, rng: np.random.Generator) -> Batch:
        index = int(indices[position])
        batch = {"image": read_image(records, index, decode, transform, rng)}
        if labels is not None:
            batch |= {"label": labels[index], "mask": np.True_}
        return batch

    return shuffled_batches(
        len(indices),
        make,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        process=process,
        threads=threads,
        curriculum=curriculum,
        classes=classes,
    )


def image_epoch(
    records: Sequence[bytes],
    indices: np.ndarray,
    *,
    batch_size: int,
    transform: Transform,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    decode: Callable[[bytes], dict] = decode_record,
) -> Iterator[Batch]:
    """One pass over the records in the order of `indices`; arguments as in `image_batches`.

    Returns: an iterator of image uint8 (b, H, W, 3), index int64 (b,) into `indices`, mask bool
        (b,). The last batch is filled up with repeats of the last record, mask False.
    """
    indices = _check_indices(records, indices)

    def make(position: int, real: bool) -> Batch:
        image = read_image(records, int(indices[position]), decode, transform, None)
        return {"image": image, "index": np.int64(position), "mask": np.bool_(real)}

    return ordered_batches(
        len(indices), make, batch_size=batch_size, process=process, threads=threads
    )


def read_image(
    records: Sequence[bytes],
    index: int,
    decode: Callable[[bytes], dict],
    transform: Transform,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """The transformed image of one record. Raises InputError naming video and frame."""
    fields = decode(records[index])
    try:
        return transform(fields["image"], rng)
    except (InputError, cv2.error) as error:
        raise InputError(
            f"record {index} (video {str(fields.get('video', '?'))!r}, frame "
            f"{fields.get('frame', '?')}): image: {error}; replace the file and prepare again"
        ) from error


def shuffled_batches(
    count: int,
    make: Callable[[int, np.random.Generator], Batch],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    curriculum: Curriculum | None = None,
    classes: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Endless batches of `make(i, rng)`, i a shuffled 0 .. count-1, anew in every epoch.

    `rng` is seeded by the position in the global sequence. The remaining arguments are those of
    `image_batches`. With a curriculum each of the two parts has an order of its own, whose places
    pass as positions do, whichever part they take: so a position's example follows from it alone.
    With classes every turn of positions takes one of each class, in an order drawn for the turn,
    and all examples of a class before it takes any of them again.
    """
    local = _local_size(count, batch_size, process, threads)
    parts = _parts(count, curriculum, classes)
    if seed < 0 or start_step < 0:
        raise InputError(f"seed {seed}, start_step {start_step}: expected numbers from 0 up")
    order_key, draw_key = (
        int(x) for x in np.random.SeedSequence(seed).generate_state(2, np.uint64)
    )

    # Threads may stand on both sides of an epoch's end.
    @functools.lru_cache(maxsize=4 * len(parts))
    def order(part: int, epoch: int) -> np.ndarray:
        return _generator(order_key, epoch).permutation(parts[part])

    turn_key = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0])

    def example(position: int) -> Batch:
        rng, part, number = _generator(draw_key, position), 0, position
        if curriculum is not None:
            part = int(rng.random() < position // batch_size / curriculum.steps)
        if classes is not None:
            number, at = divmod(position, len(parts))
            part = int(_generator(turn_key, number).permutation(len(parts))[at])
        epoch, place = divmod(number, len(parts[part]))
        return make(int(order(part, epoch)[place]), rng)

    def read(step: int) -> Batch:
        first = step * batch_size
        positions = range(first + process[0], first + batch_size, process[1])
        return _collect(map(example, positions), local)

    # Grain's own shuffle and random_map do the same element by element, at a third more processor
    # time an image; its shuffle takes 2.5 us for one of 600,000, but 19 us for one of 1,000 and
    # 5 ms for one of 3.
    return _iterate(grain.MapDataset.range(start_step, sys.maxsize).map(read), threads)


def _parts(
    count: int, curriculum: Curriculum | None, classes: np.ndarray | None
) -> list[np.ndarray]:
    """Numbers of the examples of each part that has an order of its own."""
    if classes is None:
        return [np.arange(count)] if curriculum is None else _split(count, curriculum)
    classes = np.asarray(classes)
    if curriculum is not None or classes.shape != (count,):
        raise InputError(
            f"classes of {classes.shape} examples{' and a curriculum' if curriculum else ''}; "
            f"expected one each of {count}, and one of the two"
        )
    return [np.flatnonzero(classes == number) for number in np.unique(classes)]


def _split(count: int, curriculum: Curriculum) -> list[np.ndarray]:
    """Numbers of the examples that come first, and of those that come later."""
    late, steps = np.asarray(curriculum.late, bool), curriculum.steps
    if late.shape != (count,) or late.all() or not late.any() or steps < 1:
        raise InputError(
            f"curriculum of {late.sum()} late ones among {late.size} examples over {steps} steps; "
            f"expected some of {count}, not all, and at least 1 step"
        )
    return [np.flatnonzero(~late), np.flatnonzero(late)]


def _generator(key: int, number: int) -> np.random.Generator:
    """A random stream of its own for every (key, number); cheap to make."""
    return np.random.Generator(np.random.Philox(key=np.array([key, number], np.uint64)))


def ordered_batches(
    count: int,
    make: Callable[[int, bool], Batch],
    *,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Iterator[Batch]:
    """One pass of `make(i, real)`, i = 0 .. count-1; padding is `make(count - 1, False)`."""
    local = _local_size(count, batch_size, process, threads)

    def read(step: int) -> Batch:
        first = step * batch_size
        positions = range(first + process[0], first + batch_size, process[1])
        return _collect((make(min(i, count - 1), i < count) for i in positions), local)

    return _iterate(grain.MapDataset.range(-(-count // batch_size)).map(read), threads)


def _collect(examples: Iterable[Batch], size: int) -> Batch:
    """Stack `size` examples. Each goes to its place at once: the memory of the one before is
    still in the cache and used again, while a list of them would go through main memory twice."""
    batch = {}
    for i, example in enumerate(examples):
        for name, value in example.items():
            if i == 0:
                batch[name] = np.empty((size, *np.shape(value)), np.asarray(value).dtype)
            batch[name][i] = value
    return batch


def _iterate(data: grain.MapDataset, threads: int) -> Iterator[Batch]:
    # A thread makes a whole batch. Two more batches than threads, so that none of them waits
    # while the device works.
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=threads + 2 if threads else 0
    )
    iterator = iter(data.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _local_size(count: int, batch_size: int, process: tuple[int, int], threads: int) -> int:
    """Batch size of one process, after checking the arguments."""
    index, processes = process
    if count < 1:
        raise InputError("0 examples to read: expected at least 1; look at the split's labels")
    if not 0 <= index < processes:
        raise InputError(f"process {process}: expected (index, count) with 0 <= index < count")
    if batch_size < 1 or batch_size % processes:
        raise InputError(
            f"batch_size {batch_size}: expected a positive multiple of {processes} processes"
        )
    if threads < 0:
        raise InputError(f"threads {threads}: expected 0 (no reader threads) or more")
    return batch_size // processes


def _check_indices(records: Sequence[bytes], indices: np.ndarray) -> np.ndarray:
    indices = np.asarray(indices)
    if indices.ndim != 1 or (len(indices) and indices.dtype.kind not in "iu"):
        raise InputError(
            f"indices of shape {indices.shape}, {indices.dtype}: expected whole numbers (n,)"
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(records):
        raise InputError(
            f"indices {indices.min()} .. {indices.max()}: expected 0 .. {len(records) - 1}, the "
            "records of the split; prepare the corpus again"
        )
    return indices.astype(np.int64)
