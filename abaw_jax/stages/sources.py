"""The user's files that modalities are made from: recordings and transcripts, found by video, and
converted encoders."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.data.acoustics import HEARD
from abaw_jax.data.media import SOUND, TEXT, Sound, find_files, of_video, read_sound
from abaw_jax.data.supplied import SECONDS
from abaw_jax.data.transcripts import TIMED
from abaw_jax.errors import InputError
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import check_variables, load_model
from abaw_jax.interop.convert import KIND
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root

# (video, rows) -> values (rows or 1, width), of which the last number is 1, or 0 where there is
# nothing at that time; None where there is nothing at all.
Make = Callable[[str, int], np.ndarray | None]
# Modalities that are made from recordings by converted weights: keys of `extract` that name their
# folders, and of `ARCHITECTURES`.
SOUND_ENCODERS = ("wav2vec2", "vggish")
# Modality -> key of the section `extract` that names folders, endings of the files there, and what
# one of them is.
FILES = {
    **dict.fromkeys((*HEARD, *SOUND_ENCODERS), ("media", SOUND, "recording")),
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


def load_encoder(
    folder: str | os.PathLike, key: str, architecture: str
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """(module, variables, sizes) of converted weights.

    key: of `extract`, which names the folder. Raises InputError for a folder that holds none,
    damaged files, and weights of another architecture, or another than config.json says.
    """
    folder = pathlib.Path(folder)
    if not (path := folder / "config.json").is_file():
        raise InputError(
            f"config.extract.{key}: {folder} has no config.json; name a folder with a converted "
            f"{key} encoder, as `python -m abaw_jax.convert` writes it"
        )
    variables, config = load_model(folder)
    wanted = {"kind": KIND, "architecture": architecture}
    if (found := {name: config.get(name) for name in wanted}) != wanted:
        raise InputError(f"{path}: {found}; expected a {key} encoder, {wanted}")
    try:
        module = ARCHITECTURES[architecture].module(config["model"])
        expected = make_shapes(ARCHITECTURES[architecture], config["model"])
    except Exception as error:  # absent keys and impossible values have no one type
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: no {key} encoder can be made of it ({reason}); convert the model again"
        ) from error
    check_variables(variables, expected, folder)
    return module, jax.tree.map(jnp.asarray, variables), config["model"]
