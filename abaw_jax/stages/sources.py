"""The user's files that modalities are made from: recordings and transcripts, found by video."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from abaw_jax.data.acoustics import HEARD
from abaw_jax.data.media import SOUND, TEXT, Sound, find_files, of_video, read_sound
from abaw_jax.data.supplied import SECONDS
from abaw_jax.data.transcripts import TIMED
from abaw_jax.errors import InputError
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root

# (video, rows) -> values (rows or 1, width), of which the last number is 1, or 0 where there is
# nothing at that time; None where there is nothing at all.
Make = Callable[[str, int], np.ndarray | None]
# Modality -> key of the section `extract` that names folders, endings of the files there, and what
# one of them is.
FILES = {
    **dict.fromkeys(HEARD, ("media", SOUND, "recording")),
    "words": ("transcripts", TEXT, "transcript"),
    "text": ("transcripts", TIMED, "transcript"),
}


def source_folders(config: Any, root: pathlib.Path, key: str) -> list[str]:
    """Folders that the section `extract` names, below the corpus."""
    return [str(root / path) for path in config.extract[key]]


def find_sources(config: Any, root: pathlib.Path, name: str) -> dict[str, str]:
    """The files that a modality is made from, by name; InputError where there is none."""
    key, endings, what = FILES[name]
    folders = source_folders(config, root, key)
    if not (files := find_files(folders, endings)):
        raise InputError(
            f"config.extract.{key}: no {what} in {', '.join(folders)}; name their folders, or "
            f"leave {name!r} out of config.sequence.modalities"
        )
    return files


def listen_to(context: Context, files: dict[str, str]) -> Callable[[str], Sound | None]:
    """video -> what is heard in its recording, None without one."""

    @functools.lru_cache(maxsize=2)  # two people in one recording
    def read(path: str) -> Sound:
        return read_sound(path, SECONDS if context.track.per_clip else None)

    return lambda video: read(path) if (path := of_video(files, video)) else None


def find_recordings(context: Context) -> dict[str, str]:
    """The recordings there are, by name."""
    return find_files(source_folders(context.config, corpus_root(context), "media"), SOUND)
