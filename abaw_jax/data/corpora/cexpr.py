"""C-EXPR-DB, which has no labels, with the compound images of RAF-DB to learn from.

Source: Kollias, "Multi-label compound expression recognition: C-EXPR database and network", CVPR
2023, whose 56 videos are the CE track's test set; for the images see rafdb_compound.py and, of one
emotion each, rafdb.py. Trained on these and tested on the others as in system `fuxi` (arXiv
2403.10825).

Faces are not looked for here. Where a video comes as crops, `<root>/01/00001.jpg`, these are taken;
where it comes as the file `01.mp4` alone, its whole frames are, in which the face may be small.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder, rafdb, rafdb_compound, video_folders
from abaw_jax.data.images import Image, VideoFrame
from abaw_jax.data.records import Split, Video
from abaw_jax.data.video import count_frames
from abaw_jax.errors import InputError
from abaw_jax.evaluation.submission import read_example
from abaw_jax.tracks import CE, EXPR, Track
from abaw_jax.tracks.targets import BASIC, COMPOUNDS, SINGLES

ENDINGS = (".mp4", ".avi")
FRAME_SIDE = 400  # pixels: of 16:9 that leaves 225 rows, and models look at 224
# RAF-DB's split -> what it is here.
SPLITS = {"train": "train", "test": "validation"}


def read(
    images: str | os.PathLike,
    image_roots: Sequence[str | os.PathLike] = (),
    videos: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
    max_unmatched: int = 1000,
    singles: str | os.PathLike | None = None,
) -> list[Split]:
    """Read labelled images and unlabelled videos.

    Args:
      images: RAF-DB's compound set, `{train,test}/<Class Name>/*.jpg`: training and validation.
      image_roots: folders of video folders of crops, named by frame number; those that are there.
      videos: the folder of the files `01.mp4`, of which those without crops are decoded; None or
        '' without.
      test_example: the organisers' example submission, which says what videos and frames there
        are; None or '' for no test set.
      max_unmatched: how many frames without a row in the example a video may have, see
        `video_folders.match_rows`.
      singles: RAF-DB's basic set, whose training images are added to the training set, with labels
        of basic and single emotions alone; None or '' without.

    Returns:
      Splits train and validation, an image set each, and test. The example has one frame more than
      the decoder finds in some videos and one fewer in others: a video has the example's rows, and
      of its frames those beyond them are left out.

    Raises:
      InputError: anything missing, malformed or contradictory; a class without an image.
    """
    found = {split.name: split for split in rafdb_compound.read(images)}
    for raf, name in SPLITS.items():
        if raf not in found:
            raise InputError(f"{images}: has no folder {raf}, which is the {name} set; add it")
        _check_classes(f"{images}/{raf}", COMPOUNDS, found[raf].videos[0].labels[COMPOUNDS.key])
    if singles:
        found["train"] = _add_singles(found["train"], singles)
    splits = [dataclasses.replace(found[raf], name=name) for raf, name in SPLITS.items()]
    if test_example:
        splits.append(_read_test(image_roots, videos, test_example, max_unmatched))
    return splits


def _check_classes(where: str, track: Track, labels: np.ndarray) -> None:
    """Raise InputError for a class of the track that none of its labels (n, W) are of."""
    absent = np.flatnonzero(~track.encode(labels).any(axis=0))
    if len(absent):
        lacking = ", ".join(track.classes[k].replace("_", " ") for k in absent)
        raise InputError(
            f"{where}: has no image of {lacking}; {track.name} are {track.outputs}: unpack all of "
            "them"
        )


def _add_singles(split: Split, root: str | os.PathLike) -> Split:
    """The training images of RAF-DB's basic set behind those of a split, which is one video."""
    found = {part.name: part for part in rafdb.read(root)}
    if "train" not in found:
        raise InputError(f"{root}: its list names no train image; expected RAF-DB's basic set")
    (video,), (more,) = split.videos, found["train"].videos
    emotions = [EXPR.classes.index(name) for name in BASIC.classes]
    basic = (more.labels[EXPR.key] == emotions).astype(BASIC.label_type)
    _check_classes(str(root), BASIC, basic)
    none = np.full((more.rows, 1), CE.invalid, CE.label_type)
    own = {CE.key: none, COMPOUNDS.key: none, BASIC.key: basic, SINGLES.key: more.labels[EXPR.key]}
    pairs = video.labels | {SINGLES.key: np.full((video.rows, 1), SINGLES.invalid, np.int32)}
    labels = {key: np.concatenate([pairs[key], rows]) for key, rows in own.items()}
    paths = [path for part in (video, more) for _, path in part.frames]
    skipped = dict(split.skipped)
    image_folder.add_counts(skipped, found["train"].skipped)
    return image_folder.labelled_set(split.name, paths, labels, skipped)


def _read_test(
    image_roots: Sequence[str | os.PathLike],
    folder: str | os.PathLike | None,
    test_example: str | os.PathLike,
    max_unmatched: int,
) -> Split:
    """The example's videos, in its order."""
    roots = [root for root in map(pathlib.Path, image_roots) if root.is_dir()]
    places = video_folders.find_videos(roots)
    found, whole = [], 0
    for name, numbers in read_example(test_example, CE).frames.items():
        if any(image_folder.list_frames(place)[0] for place in places.get(name, ())):
            frames, skipped = video_folders.read_frames(name, places, roots, f"{test_example}: ")
        else:
            path = _find_file(name, folder, image_roots, test_example)
            frames, skipped = _whole_frames(path), {}
            whole += 1
        rows = int(numbers.max())
        kept = video_folders.match_rows(test_example, name, frames, rows, max_unmatched)
        skipped = image_folder.nonzero({**skipped, "surplus_images": len(frames) - len(kept)})
        found.append(Video(name, kept, rows, {}, skipped))
    if whole:
        print(
            f"{folder}: {whole} of {len(found)} videos have no crops of faces; their whole frames "
            f"are taken, at {FRAME_SIDE} pixels, for no face is looked for",
            flush=True,
        )
    return Split("test", found)


def _find_file(
    name: str,
    folder: str | os.PathLike | None,
    image_roots: Sequence[str | os.PathLike],
    test_example: str | os.PathLike,
) -> pathlib.Path:
    """The file of a video. InputError if there is none."""
    paths = [pathlib.Path(folder, name + ending) for ending in ENDINGS] if folder else []
    for path in paths:
        if path.is_file():
            return path
    searched = ", ".join(map(str, [*image_roots, *paths])) or "nothing"
    raise InputError(
        f"{test_example}: video {name} has neither images nor a file; searched {searched}: name "
        "the folders of its crops in image_roots, or that of its file in videos"
    )


def _whole_frames(path: pathlib.Path) -> list[tuple[int, Image]]:
    """A file's frames, which are read when they are written."""
    return [
        (number, VideoFrame(str(path), number, FRAME_SIDE))
        for number in range(1, count_frames(path) + 1)
    ]
