"""What a sequence model learns from: feature stores of the face, of sound, of words, of the user's.

Of the face and further views of it the stage `extract` makes what `views.py` says; of each other
modality that `sequence.modalities` names, extract/<name>/<split>. A store of these holds a row for
each annotation row, or one for all of them, whose last number is 1, or 0 where there is nothing at
that time; of a video in which nothing was heard, said or supplied it has no row. Readers see zeros
of both. Its settings hold mean and deviation of the training split, by which readers standardise
all numbers but the last.

A modality that `extract.steps` names has a time axis of its own: its store's rows are not those of
the face's frames, and at most so many. Of sound they are taken every 20 ms, and of a store with a
`rate` as they come; what is longer is averaged to so many. Of words there is one for each, the
first ones; of text, for each token. Of other stores, whose rows are of no known time, there may
not be more.

What is the same in all rows of a recording is taken of clips alone: where labels are of frames, a
model would know the recording by it.
"""

import functools
import pathlib
import re
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
from tqdm import tqdm

from abaw_jax.data.acoustics import HEARD, make_features
from abaw_jax.data.clips import average_rows
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.media import RATE, of_video, read_transcript, row_times
from abaw_jax.data.records import load_index
from abaw_jax.data.sound import HOP
from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.data.windows import nearest_before
from abaw_jax.data.words import fit_vocabulary, split_words, word_features
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import content_hash
from abaw_jax.recipe import Context
from abaw_jax.stages.parts import make_encoder
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.sources import (
    find_recordings,
    find_sources,
    listen_to,
    source_folders,
)
from abaw_jax.stages.text import NAME, check_text_encoder, make_text
from abaw_jax.stages.views import features_folder, tuning_folder

LATE = 0.1  # seconds behind a timed store's last row that are still its: a codec's padding
# (video, rows) -> values (rows or 1, width), the last number as above; None where there is nothing.
Make = Callable[[str, int], np.ndarray | None]


def check_modalities(config: Any) -> None:
    """Raise InputError for modalities that a recipe does not have."""
    names, supplied = list(config.sequence.modalities), list(config.extract.stores)
    made = _makers(config)
    known = [*config.finetune.views, *made, *supplied]
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        hint = "; config.extract.text names the encoder of text" if NAME in unknown else ""
        raise InputError(
            f"config.sequence.modalities: {tuple(names)}; expected one or more of "
            f"{', '.join(known)}, each once{hint}"
        )
    if taken := [name for name in supplied if name in made or re.fullmatch(TAKEN, name)]:
        raise InputError(f"config.extract.stores: {taken[0]!r} is taken; choose another name")
    if config.sequence.apart and len(names) < 2:
        raise InputError(
            f"config.sequence.apart: models of single modalities beside one of {names[0]} alone; "
            "name several in config.sequence.modalities, or set it to False"
        )
    _check_steps(config, set(known) - set(config.finetune.views))
    if config.corpus.root:
        for name in filter(made.__contains__, names):
            find_sources(config, pathlib.Path(config.corpus.root), name)
    check_text_encoder(config)
    for name in set(names) & set(supplied):
        folder = pathlib.Path(config.extract.stores[name])
        # Those beside the demo corpus are looked for where it is drawn; see `check_stores`.
        if config.corpus.root or folder.is_absolute():
            _require_store(pathlib.Path(config.corpus.root, folder), name)


def check_stores(context: Context, splits: Sequence[str]) -> None:
    """Raise InputError for a store of the user's, of the modalities that are learnt, which does
    not fit the prepared videos, before anything is trained: as `_open_supplied` and its function
    do, and where no training video is in it."""
    for name in filter(
        context.config.extract.stores.__contains__, context.config.sequence.modalities
    ):
        store, has = _open_supplied(context, name)
        for split in splits:
            index = load_index(context.folder("prepare") / "records", split)
            rows = np.diff(index.rows).tolist()
            found = [has(video, count) for video, count in zip(index.videos, rows, strict=True)]
            if split == "train" and not any(found):
                raise _without_any(store.folder, name)


def _require_store(folder: pathlib.Path, name: str) -> None:
    if not (folder / "features.json").is_file():
        raise InputError(
            f"config.extract.stores.{name}: {folder} has no features.json; name a folder that "
            "`python -m abaw_jax.supplied` or `abaw_jax.data.features` has written"
        )


def _without_any(folder: pathlib.Path, name: str) -> InputError:
    return InputError(
        f"{folder}: no training video has any {name}; leave it out of config.sequence.modalities"
    )


def _check_steps(config: Any, others: Set[str]) -> None:
    """Raise InputError unless `extract.steps` has a number for each modality that needs one, and
    for none that cannot have one; others: modalities that are not of the face's frames."""
    steps, model = config.extract.steps, config.sequence.model
    for name, count in steps.items():
        if name not in others:
            raise InputError(
                f"config.extract.steps.{name}: has no time axis of its own; expected one of "
                f"{', '.join(sorted(others))}"
            )
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"config.extract.steps.{name}: {count!r}; expected at least 1")
    for name in filter(others.__contains__, config.sequence.modalities):
        if model == "gru" and name not in steps:
            raise InputError(
                f"config.extract.steps: has no number of steps for {name}, which config.sequence."
                "model 'gru' reads on a time axis of its own"
            )
        if model != "gru" and name in steps:
            raise InputError(
                f"config.extract.steps.{name}: config.sequence.model {model!r} reads {name} at the "
                "face's frames; leave it out, or take the model 'gru'"
            )


def _heard(context: Context, name: str) -> tuple[Make, dict[str, Any]]:
    clip, steps = context.track.per_clip, context.config.extract.steps.get(name)
    listen = listen_to(context, find_sources(context.config, corpus_root(context), name))
    compute, settings = make_features(name, whole=clip)

    def make(video: str, rows: int) -> np.ndarray | None:
        sound = listen(video)
        if sound is None or sound.silent:
            return None
        if steps:
            times = (np.arange(max(len(sound.samples) // HOP, 1)) + 0.5) * HOP / RATE
            return average_rows(compute(sound.samples, times), steps)
        return compute(sound.samples, row_times(sound, rows, clip=clip))

    return make, settings


def _words(context: Context) -> tuple[Make, dict[str, Any]]:
    files = find_sources(context.config, corpus_root(context), "words")

    def read(video: str) -> str:
        path = of_video(files, video)
        return read_transcript(path) if path else ""

    index = load_index(context.folder("prepare") / "records", "train")
    vocabulary = fit_vocabulary(map(read, index.videos))
    if not vocabulary:
        folders = source_folders(context.config, corpus_root(context), "transcripts")
        raise InputError(
            "config.extract.transcripts: no word is said in several training videos by the files "
            f"in {', '.join(folders)}; name the folders of <video>.txt, or leave "
            "'words' out of config.sequence.modalities"
        )

    steps = context.config.extract.steps.get("words")

    def make(video: str, rows: int) -> np.ndarray | None:
        text, rows = read(video), 0 if context.track.per_clip else rows
        if steps:
            words = split_words(text)[:steps]
            text, rows = " ".join(words), len(words)
        values = word_features(text, vocabulary, rows)
        return values if values[0, -1] else None

    # Lists: in a model's config a word could not be a key.
    lists = {"words": list(vocabulary), "weights": list(vocabulary.values())}
    return make, {"encoder": "tf_idf", "width": len(vocabulary) + 1, "vocabulary": lists}


MAKERS = {
    **{name: functools.partial(_heard, name=name) for name in HEARD},
    "words": _words,
    NAME: make_text,
}
# Names that a store cannot have: others' folders, and members of the sequence stage.
TAKEN = (
    f"{'|'.join((*VIEWS, *HEARD))}|words|all|sequence|features|model|checkpoints|tensorboard|"
    r"collaborate|(frames|predictions|members)(_.*)?|fold\d+|scene(\d+|_.*)"
)


def _makers(config: Any) -> dict[str, Callable[[Context], tuple[Make, dict[str, Any]]]]:
    """What makes modalities by name; text is a name for stores where no encoder of it is given."""
    return {name: make for name, make in MAKERS.items() if name != NAME or config.extract.text}


def _supplied(context: Context, name: str) -> tuple[Make, dict[str, Any]]:
    """A store that the user has, of all splits. One with a `rate` has rows a second, from time 0:
    it covers a video as far as they reach, or is shared out evenly where no recording tells how
    long that lasts."""
    store, has = _open_supplied(context, name)
    steps, rate = context.config.extract.steps.get(name), store.settings.get("rate")
    place = _place_by_time(context, rate) if rate else None

    def make(video: str, rows: int) -> np.ndarray | None:
        if not has(video, rows):
            return None
        values = store.read(video)
        if steps:
            values = average_rows(values, steps)
            return np.column_stack([values, np.ones(len(values), np.float32)])
        if place:
            at, there = place(video, rows, len(values))
        else:
            at, there = nearest_before(store.frames(video), np.arange(rows)), np.ones(rows, bool)
        values = np.where(there[:, None], values[at], 0)
        return np.column_stack([values, there]) if there.any() else None

    return make, {"encoder": store.settings["encoder"], "width": store.width + 1}


def _open_supplied(context: Context, name: str) -> tuple[FeatureStore, Callable[[str, int], bool]]:
    """A store that the user has, and (video, rows) -> whether it holds anything of the video.

    Raises InputError for a folder that is no store, and a rate that is none; the function for a
    file that is none of it, that is of other frames, or has more rows than it may.
    """
    folder = corpus_root(context) / context.config.extract.stores[name]
    _require_store(folder, name)
    store, steps = FeatureStore(folder), context.config.extract.steps.get(name)
    rate = store.settings.get("rate")
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < np.inf):
        raise InputError(
            f"{folder / 'features.json'}: rate is {rate!r}; expected rows a second, above 0"
        )

    def has(video: str, rows: int) -> bool:
        path = folder / f"{video}.npz"
        if not path.is_file() or not (count := len(store.frames(video))):
            return False
        if rate is None and not steps:
            _check_reach(context, store, video, rows)
        if rate is None and steps and count > steps:
            raise InputError(
                f"{path}: {count} rows, of no known `rate` a second; expected at most "
                f"config.extract.steps.{name} = {steps}: raise it, or store the first rows alone"
            )
        return True

    return store, has


def _check_reach(context: Context, store: FeatureStore, video: str, rows: int) -> None:
    """Raise InputError where a video's features end far from its rows, by what the corpus allows
    of its images: they are of other frames."""
    last = int(store.frames(video)[-1])
    if abs(last - rows) > max(context.config.corpus.get("max_unmatched", 1000), rows // 2):
        raise InputError(
            f"{store.folder / video}.npz: its last frame is {last}, and the video has {rows} rows; "
            "number its frames as the rows, from 1, or give features.json a `rate`"
        )


def _place_by_time(
    context: Context, rate: float
) -> Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]:
    """(video, rows, count) -> of each row the one of `count`, `rate` a second, at its time, and
    whether they reach so far: int (rows,), bool (rows,)."""
    clip = context.track.per_clip
    listen = listen_to(context, find_recordings(context))

    def place(video: str, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        sound = listen(video)
        if sound is None or not (sound.seconds or (not clip and len(sound.times) > 1)):
            return (np.arange(rows) * 2 + 1) * count // (2 * rows), np.ones(rows, bool)
        times = row_times(sound, rows, clip=clip)
        return (times * rate).astype(int).clip(0, count - 1), times < count / rate + LATE

    return place


def extract_modality(context: Context, name: str, splits: list[str]) -> int:
    """Write a modality's stores; returns how many videos have nothing in it.

    What was written before an interruption is kept: a video's values are of its own files alone.
    """
    makers = _makers(context.config)
    make, settings = makers[name](context) if name in makers else _supplied(context, name)
    if steps := context.config.extract.steps.get(name):
        settings |= {"steps": steps}
    scale, without = None, 0
    for split in sorted(splits, key="train".__ne__):  # first the one whose statistics all take
        index = load_index(context.folder("prepare") / "records", split)
        folder = context.folder("extract") / name / split
        counts = dict(zip(index.videos, np.diff(index.rows).tolist(), strict=True))
        for video, rows in tqdm(counts.items(), desc=f"extract {name} {split}", unit="videos"):
            if not (folder / f"{video}.npz").exists():
                values = make(video, rows)
                values = np.zeros((0, settings["width"]), np.float32) if values is None else values
                save_features(folder, video, np.arange(1, len(values) + 1), values)
        settings |= {"source_hash": index.content_hash()}
        save_feature_settings(folder, **settings)
        store = FeatureStore(folder)
        without += sum(not len(store.frames(video)) for video in index.videos)
        scale = scale or _scale(store, index.videos, name)
        save_feature_settings(folder, **settings, **scale)
    return without


def _scale(store: FeatureStore, videos: Sequence[str], name: str) -> dict[str, list[float]]:
    """Mean and standard deviation of the rows that are not absent; 0 and 1 of the last number."""
    total, squares, count = np.zeros(store.width), np.zeros(store.width), 0
    for video in videos:
        values = store.read(video).astype(np.float64)
        values = values[values[:, -1] > 0]
        total, squares, count = (
            total + values.sum(0),
            squares + (values**2).sum(0),
            count + len(values),
        )
    if not count:
        raise _without_any(store.folder, name)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-6] = 1  # a number that is always the same
    mean[-1], deviation[-1] = 0, 1
    return {"mean": mean.tolist(), "deviation": deviation.tolist()}


def stored(context: Context, only: str | None = None) -> list[str]:
    """The modalities that a sequence model reads from stores, in that order: those that
    `sequence.modalities` names, or one of them, but for a face of which it sees the pixels."""
    section = context.config.sequence
    names = [only] if only else section.modalities
    return [name for name in names if not (section.pixels and name == FACE)]


def open_stores(context: Context, split: str, only: str | None = None) -> dict[str, FeatureStore]:
    """The stores of a split of the modalities that are `stored`, in that order."""
    source = load_index(context.folder("prepare") / "records", split).content_hash()
    folder, stores = context.folder("extract"), {}
    for name in stored(context, only):
        if name in context.config.finetune.views:
            encoder = content_hash(tuning_folder(context, name) / "model")
            wanted = {"encoder": encoder, "width": make_encoder(context.config).width}
            place = features_folder(context, name) / split
            stores[name] = FeatureStore(place, **wanted, source_hash=source)
        else:
            stores[name] = FeatureStore(folder / name / split, source_hash=source)
    return stores


def describe_features(context: Context, only: str | None = None) -> dict[str, Any]:
    """What a model must be told of the features it takes: their width, and where several stand
    side by side, or one that is not the face, each one's settings by its name, in that order.

    only: the modality of a model that sees no other."""
    settings = {n: store.settings for n, store in open_stores(context, "train", only).items()}
    if list(settings) == [FACE]:
        return {key: settings[FACE][key] for key in ("encoder", "width")}
    parts = {n: {k: v for k, v in s.items() if k != "source_hash"} for n, s in settings.items()}
    return {"width": sum(part["width"] for part in parts.values()), "modalities": parts}
