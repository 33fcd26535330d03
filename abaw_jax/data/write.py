"""Write a corpus's records: planned shards, made by threads, each whole or absent.

The plan (which frames go to which shard) depends on the inputs alone, so a shard that an
interrupted run finished is the shard that the next run would write. Beside each finished shard a
note in `.finished-shards/` keeps what was left out of it; the notes go after `summary.json` came.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tqdm
from array_record.python import array_record_module

from abaw_jax.data.cleaning import CLEANED, NO_CLEANING, Cleaning, list_cleaned
from abaw_jax.data.examples import encode_record, image_fault
from abaw_jax.data.images import Image, identity, location, read_image
from abaw_jax.data.metadata import METADATA, summarise, write_metadata
from abaw_jax.data.records import Split, index_of, invalid_value, shard_name
from abaw_jax.errors import InputError
from abaw_jax.files import read_json, write_json

FORMAT = 1  # of everything in the folder; another number means other bytes for the same inputs
SHARD_IMAGES = 8192
MAX_SHARDS = 256  # of one split: every one is an open file in every reading process
NOTES = ".finished-shards"
CLEANED_SPLIT = "train"  # every other crop is predicted, and scored
# Random access wants one record a group; JPEG and PNG do not shrink, and zstd costs 2x the time.
WRITER_OPTIONS = "group_size:1,uncompressed"


class _Stopped(Exception):
    """Another shard failed."""


@dataclasses.dataclass(frozen=True)
class _Shard:
    split: Split
    name: str
    start: int  # of the split's frames, in order
    stop: int
    clean: Cleaning

    def __len__(self) -> int:
        return self.stop - self.start

    def frames(self) -> Iterator[tuple[int, int, Image]]:
        """Video number, frame number and image of each."""
        before = 0
        for v, video in enumerate(self.split.videos):
            first, last = max(self.start - before, 0), min(self.stop - before, len(video.frames))
            for i in range(first, last):
                yield v, *video.frames[i]
            before += len(video.frames)


class _Counter:
    """Images done and damaged over all threads."""

    def __init__(self, total: int, max_damaged: int | float, bar: tqdm.tqdm):
        share = isinstance(max_damaged, float)
        if max_damaged < 0 or (share and max_damaged > 1):
            raise InputError(
                f"max_damaged: {max_damaged} given; expected a count (0, 1, 2, ...) or a share "
                "from 0.0 to 1.0"
            )
        self.limit = int(max_damaged * total) if share else max_damaged
        self.stop, self.bar = threading.Event(), bar
        self.damaged: list[str] = []
        self._lock = threading.Lock()

    def advance(self, images: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self._lock:
            self.bar.update(images)

    def add_damaged(self, path: str, reason: str) -> None:
        with self._lock:
            self.damaged.append(f"{path} ({reason})")
            if len(self.damaged) > self.limit:
                listed = ", ".join(self.damaged[:5])
                more = len(self.damaged) - 5
                raise InputError(
                    f"{listed}{f' and {more} more' if more > 0 else ''}: {len(self.damaged)} "
                    f"damaged images, at most {self.limit} allowed; unpack them again or raise "
                    "max_damaged"
                )


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
    """See `abaw_jax.data.records.write_corpus`."""
    folder = pathlib.Path(folder)
    _check(corpus, splits)
    inputs = fingerprint(corpus, splits, clean)
    if finished := _read_finished(folder, corpus, inputs):
        return finished
    shards = [shard for split in splits for shard in _plan(corpus, split, clean)]
    _make_room(folder, corpus, {shard.name for shard in shards})
    extra = _missing_labels(splits)
    total = sum(map(len, shards))
    with tqdm.tqdm(
        total=total, desc=f"{corpus} records", unit="image", unit_scale=True, disable=not progress
    ) as bar:
        counter = _Counter(total, max_damaged, bar)
        notes = _run(
            lambda shard: _ensure_shard(folder, shard, inputs["all"], extra, counter),
            shards,
            counter,
            workers or os.cpu_count() or 1,
        )
    summary = _finish(folder, corpus, splits, shards, notes, inputs, clean)
    shutil.rmtree(folder / NOTES)
    return summary


def fingerprint(corpus: str, splits: list[Split], clean: Cleaning = NO_CLEANING) -> dict:
    """Hash the inputs: per split, names and sizes of images, all labels; 'all' of these and clean.

    A file whose content changed under the same name and size is not noticed.
    """
    whole = hashlib.sha256(f"{FORMAT} {SHARD_IMAGES} {MAX_SHARDS} {corpus}".encode())
    if clean:
        whole.update(f"{clean}".encode())
    out = {}
    for split in splits:
        images, labels = hashlib.sha256(), hashlib.sha256()
        for video in split.videos:
            images.update(f"\n/{video.name}".encode())
            for number, image in video.frames:
                images.update(f"\n{number} {_identity(image)}".encode())
            labels.update(f"{video.name} {video.rows}\n".encode())
            for key, array in sorted(video.labels.items()):
                labels.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
                labels.update(np.ascontiguousarray(array).tobytes())
        out[split.name] = {"images": images.hexdigest(), "labels": labels.hexdigest()}
        whole.update(f"{split.name} {out[split.name]}".encode())
    return {**out, "all": whole.hexdigest()}


def _identity(image: Image) -> str:
    try:
        return identity(image)
    except OSError as error:
        where = location(image)
        raise InputError(f"{where}: cannot be read ({error.strerror}); restore it") from error


def _check(corpus: str, splits: list[Split]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", corpus):
        raise InputError(
            f"corpus name {corpus!r}: expected small letters, digits and '_', a letter first"
        )
    if not splits:
        raise InputError(f"corpus {corpus}: no split to write; give at least one")
    names = [split.name for split in splits]
    for split in splits:
        if split.name not in ("train", "validation", "test") or names.count(split.name) > 1:
            raise InputError(
                f"corpus {corpus}: split {split.name!r}; expected train, validation or test, "
                "each once"
            )
        if not any(video.frames for video in split.videos):
            raise InputError(f"corpus {corpus}: split {split.name!r} has no images; add some")


def _read_finished(folder: pathlib.Path, corpus: str, inputs: dict) -> dict | None:
    """The summary of a finished folder with these inputs, None if there is work to do."""
    if not (folder / "summary.json").exists():
        return None
    summary = read_json(folder / "summary.json")
    if summary.get("fingerprint") != inputs:
        raise InputError(
            f"{folder}: holds records of other inputs ({_difference(summary, corpus, inputs)}); "
            "remove this folder to prepare anew, or name another"
        )
    for name, size in summary["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            (folder / "summary.json").unlink()
            return None
    return summary


def _difference(summary: dict, corpus: str, inputs: dict) -> str:
    if summary.get("corpus") != corpus:
        return f"corpus {summary.get('corpus')!r} there, {corpus!r} given"
    before = {key: value for key, value in summary.get("fingerprint", {}).items() if key != "all"}
    now = {key: value for key, value in inputs.items() if key != "all"}
    if list(before) != list(now):
        return f"splits {', '.join(before)} there, {', '.join(now)} given"
    changed = [f"{s} {part}" for s in now for part in now[s] if now[s][part] != before[s][part]]
    return f"changed: {', '.join(changed) or 'the cleaning, or the format'}"


def _plan(corpus: str, split: Split, clean: Cleaning) -> list[_Shard]:
    """Cut a split's frames, in order, into shards of nearly equal length."""
    frames = sum(len(video.frames) for video in split.videos)
    count = min(MAX_SHARDS, -(-frames // SHARD_IMAGES))
    cuts = [frames * i // count for i in range(count + 1)]
    clean = clean if split.name == CLEANED_SPLIT else NO_CLEANING
    return [
        _Shard(split, shard_name(corpus, split.name, i, count), cuts[i], cuts[i + 1], clean)
        for i in range(count)
    ]


def _make_room(folder: pathlib.Path, corpus: str, planned: set[str]) -> None:
    """Make the folder; remove what an interrupted run of other inputs, or a kill, left in it."""
    shards = re.compile(rf"\.?{corpus}-(train|validation|test)\.array_record-.*")
    beside = re.compile(r"\.(index-.*\.npz|(summary|features|dataset_info)\.json|cleaned\.csv)\..*")
    try:
        (folder / NOTES).mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name.startswith(METADATA):
                shutil.rmtree(path)
            elif beside.fullmatch(path.name):
                path.unlink()
            elif shards.fullmatch(path.name) and path.name not in planned:
                path.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name a folder that can be"
        ) from error


def _missing_labels(splits: list[Split]) -> dict[str, dict[str, np.ndarray]]:
    """Split name -> the invalid vectors its records carry: TFDS has one schema for all splits."""
    shapes = {
        key: array[:1]
        for split in splits
        for video in split.videos
        for key, array in video.labels.items()
    }
    out = {}
    for split in splits:
        have = {key for video in split.videos for key in video.labels}
        out[split.name] = {
            key: np.full(row.shape[1], invalid_value(row.dtype), row.dtype)
            for key, row in shapes.items()
            if key not in have
        }
    return out


def _run(make: Callable, shards: list[_Shard], counter: _Counter, workers: int) -> list[dict]:
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(make, shard) for shard in shards]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:  # an interrupt too: the threads must end before it is passed on
            counter.stop.set()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _ensure_shard(
    folder: pathlib.Path, shard: _Shard, inputs: str, extra: dict, counter: _Counter
) -> dict:
    """Write a shard unless it is there; return its note: size, records, images left out."""
    path, note_path = folder / shard.name, folder / NOTES / f"{shard.name}.json"
    if note_path.exists() and path.exists():
        note = read_json(note_path)
        if note["inputs"] == inputs and note["size"] == path.stat().st_size:
            for _, _, file, reason in note["damaged"]:
                counter.add_damaged(file, reason)
            counter.advance(len(shard))
            return note
    damaged, cleaned = [], []
    with _atomic_shard(path) as writer:
        for done, (v, number, image) in enumerate(shard.frames()):
            if done % 64 == 0:
                counter.advance(min(64, len(shard) - done))
            video = shard.split.videos[v]
            file = location(image) or f"{video.name}/{number}"
            content, reason = _read_image(image)
            if reason:
                damaged.append([v, number, file, reason])
                counter.add_damaged(file, reason)
            elif faults := shard.clean.faults(content):
                cleaned.append([v, number, file, " ".join(faults)])
            else:
                labels = {key: _row(array, number) for key, array in video.labels.items()}
                labels.update(extra[shard.split.name])
                writer.write(encode_record(content, video.name, number, labels))
    note = {
        "inputs": inputs,
        "size": path.stat().st_size,
        "records": len(shard) - len(damaged) - len(cleaned),
        "damaged": damaged,
        "cleaned": cleaned,
    }
    write_json(note_path, note)
    return note


def _read_image(image: Image) -> tuple[bytes, str | None]:
    try:
        content = read_image(image)
    except OSError as error:
        return b"", error.strerror
    except ValueError as error:
        return b"", " ".join(str(error).split())
    return content, image_fault(content)


def _row(labels: np.ndarray, number: int) -> np.ndarray:
    if number <= len(labels):
        return labels[number - 1]
    return np.full(labels.shape[1], invalid_value(labels.dtype), labels.dtype)


@contextlib.contextmanager
def _atomic_shard(path: pathlib.Path):
    """An ArrayRecord writer to a file beside `path`, renamed to it once closed and synced."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writer = array_record_module.ArrayRecordWriter(str(beside), WRITER_OPTIONS)
        try:
            yield writer
        finally:
            writer.close()
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError | RuntimeError):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise InputError(
                f"{path}: cannot be written ({reason}); free space or name another folder"
            ) from error
        raise


def _finish(
    folder: pathlib.Path,
    corpus: str,
    splits: list[Split],
    shards: list[_Shard],
    notes: list[dict],
    inputs: dict,
    clean: Cleaning,
) -> dict:
    """Write indices, TFDS metadata and, last, the summary."""
    parts, listed, names = {}, [], []
    for split in splits:
        own = [note for shard, note in zip(shards, notes, strict=True) if shard.split is split]
        damaged = [image for note in own for image in note["damaged"]]
        cleaned = [image for note in own for image in note.get("cleaned", ())]
        index = index_of(split, {(v, number) for v, number, _, _ in damaged + cleaned})
        index.save(folder / f"index-{split.name}.npz")
        parts[split.name] = {
            **summarise(split, index),
            "damaged_images": len(damaged),
            "bytes": sum(note["size"] for note in own),
            "shards": [note["records"] for note in own],
        }
        if cleaned and not len(index.frames):
            raise InputError(
                f"{folder}: none of {len(cleaned)} {split.name} images passes {clean}; ask for less"
            )
        if clean and split.name == CLEANED_SPLIT:
            parts[split.name]["cleaned_images"] = list_cleaned(folder, cleaned)
            names.append(CLEANED)
        listed += [{"file": file, "reason": reason} for _, _, file, reason in damaged]
    write_metadata(folder, corpus, splits, parts)
    names += [f"index-{split.name}.npz" for split in splits]
    names += ["dataset_info.json", "features.json", *(shard.name for shard in shards)]
    summary = {
        "corpus": corpus,
        "splits": parts,
        "damaged": listed,
        "files": {name: (folder / name).stat().st_size for name in names},
        "fingerprint": inputs,
    }
    write_json(folder / "summary.json", summary)
    return summary
