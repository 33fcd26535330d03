"""What a sequence model learns from: feature stores of the face, of sound, of words, of the user's.

Of the face and further views of it the stage `extract` makes what `views.py` says, and of the
scores, which are the face's too, what `scores.py` says; of each other modality that
`sequence.modalities` names, extract/<name>/<split>. A store of these holds a row for each
annotation row, or one for all of them, whose last number is 1, or 0 where there is nothing at that
time; of a video in which nothing was heard, said or supplied it has no row. Readers see zeros
of both. Its settings hold mean and deviation of the training split, by which readers standardise
all numbers but the last.

A modality that `extract.steps` names has a time axis of its own: its store's rows are not those of
the face's frames, and at most so many. Of sound they are taken every 20 ms (of VGGish every
0.96 s), and of a store with a `rate` as they come; what is longer is averaged to so many. Of words
there is one for each, the first ones; of text, for each token. Of other stores, whose rows are of
no known time, there may not be more.

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

from abaw_jax.data.acoustics import HEARD
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.media import of_video, read_transcript
from abaw_jax.data.records import load_index
from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.data.words import fit_vocabulary, split_words, word_features
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import content_hash
from abaw_jax.recipe import Context
from abaw_jax.stages.hearing import check_sound_encoders, make_heard
from abaw_jax.stages.parts import CLIP_MODELS, make_encoder
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.scores import SCORES
from abaw_jax.stages.sources import SOUND_ENCODERS, Make, find_sources, source_folders
from abaw_jax.stages.stores import make_supplied, require_store, without_any
from abaw_jax.stages.text import NAME, check_text_encoder, make_text
from abaw_jax.stages.views import features_folder, tuning_folder


def check_modalities(config: Any) -> None:
    """Raise InputError for modalities that a recipe does not have."""
    names, supplied = list(config.sequence.modalities), list(config.extract.stores)
    made = _makers(config)
    known = [*config.finetune.views, SCORES, *made, *supplied]
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        hints = [
            f"; config.extract.{name} names the encoder of {name}"
            for name in GIVEN
            if name in unknown
        ]
        raise InputError(
            f"config.sequence.modalities: {tuple(names)}; expected one or more of "
            f"{', '.join(known)}, each once{''.join(hints)}"
        )
    if taken := [name for name in supplied if name in made or re.fullmatch(TAKEN, name)]:
        raise InputError(f"config.extract.stores: {taken[0]!r} is taken; choose another name")
    if config.sequence.apart and len(names) < 2:
        raise InputError(
            f"config.sequence.apart: models of single modalities beside one of {names[0]} alone; "
            "name several in config.sequence.modalities, or set it to False"
        )
    _check_steps(config, set(known) - {*config.finetune.views, SCORES})
    if config.corpus.root:
        for name in filter(made.__contains__, names):
            find_sources(config, pathlib.Path(config.corpus.root), name)
    check_text_encoder(config)
    check_sound_encoders(config)
    for name in set(names) & set(supplied):
        folder = pathlib.Path(config.extract.stores[name])
        # Those beside the demo corpus are looked for where it is drawn; see `check_stores`.
        if config.corpus.root or folder.is_absolute():
            require_store(pathlib.Path(config.corpus.root, folder), name)


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
        if model in CLIP_MODELS and name not in steps:
            raise InputError(
                f"config.extract.steps: has no number of steps for {name}, which config.sequence."
                f"model {model!r} reads on a time axis of its own"
            )
        if model not in CLIP_MODELS and name in steps:
            raise InputError(
                f"config.extract.steps.{name}: config.sequence.model {model!r} reads {name} at the "
                f"face's frames; leave it out, or take one of {', '.join(CLIP_MODELS)}"
            )


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


ROWS = 2**14  # of a video that are looked at at once: a long one's would fill the memory
MAKERS = {
    **{name: functools.partial(make_heard, name=name) for name in (*HEARD, *SOUND_ENCODERS)},
    "words": _words,
    NAME: make_text,
}
GIVEN = (NAME, *SOUND_ENCODERS)  # those whose encoder the key of the same name of `extract` gives
# Names that a store cannot have: others' folders, and members of the sequence stage.
TAKEN = (
    f"{'|'.join((*VIEWS, SCORES, *HEARD))}|words|all|sequence|features|model|checkpoints|"
    r"tensorboard|collaborate|(frames|predictions|members)(_.*)?|fold\d+|scene(\d+|_.*)"
)


def _makers(config: Any) -> dict[str, Callable[[Context], tuple[Make, dict[str, Any]]]]:
    """What makes modalities by name; those of `GIVEN` are names for stores without an encoder."""
    given = {name: bool(config.extract[name]) for name in GIVEN}
    return {name: make for name, make in MAKERS.items() if given.get(name, True)}


def extract_modality(context: Context, name: str, splits: list[str]) -> int:
    """Write a modality's stores; returns how many videos have nothing in it.

    What was written before an interruption is kept: a video's values are of its own files alone.
    """
    makers = _makers(context.config)
    make, settings = makers[name](context) if name in makers else make_supplied(context, name)
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
    parts = (
        (video, first, min(first + ROWS, len(store.frames(video))))
        for video in videos
        for first in range(0, len(store.frames(video)), ROWS)
    )
    for part in parts:
        values = store.read(*part).astype(np.float64)
        values = values[values[:, -1] > 0]
        total, squares, count = (
            total + values.sum(0),
            squares + (values**2).sum(0),
            count + len(values),
        )
    if not count:
        raise without_any(store.folder, name)
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
