"""Features that organisers supply, a pickle a clip -> a feature store, once.

Hume-Vidmimic2 comes with `wav2vec2/<clip>.pkl`, (T, 768) at about 50 rows a second, and
`vit/<clip>.pkl`, (n, 384), a row a face image. A pickle can run code: these are read by
`data.pickles`, which runs none, and what is read from then on are the arrays of the store. The
command is `abaw_jax.supplied`.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from abaw_jax.data.features import save_feature_settings, save_features
from abaw_jax.data.pickles import load_array
from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.tracks.annotations import clip_name

# 95 % of the clips are shorter; the longest lasts 1,250 s.
SECONDS = 12.0


def convert_features(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    folder: str | os.PathLike,
    *,
    encoder: str,
    rate: float | None = None,
    frames: Mapping[str, np.ndarray] | None = None,
    progress: bool = True,
) -> dict:
    """Write the pickles of `sources` as the feature store `folder`; return its settings.

    The same files again: nothing is done. Interrupted: all is converted again.

    Args:
      sources: a folder of `<clip>.pkl`, or several, each with other clips.
      folder: is made; see `data.features`.
      encoder: what made them, 'wav2vec2'.
      rate: rows a second, of sound: rows behind the first 12 seconds are cut off. None: no cut.
      frames: clip -> the frame numbers (n,) that its rows are of; clips that it lacks are left out.
        None: rows are numbered from 1.
      progress: draw a progress bar.

    Raises:
      InputError: a rate that is none; a folder without pickles, a pickle that is refused
        (`load_array`), that is not of (n, width), of one width in all, of finite numbers, or of as
        many rows as there are frames; a store that other pickles were written to.
    """
    folder = pathlib.Path(folder)
    sources = [sources] if isinstance(sources, str | os.PathLike) else sources
    files = find_pickles(sources)
    if frames is not None:
        files = {clip: path for clip, path in files.items() if clip in frames}
    if not files:
        raise InputError(
            f"{', '.join(map(str, sources))}: no pickle is of a clip that has images; name the "
            "folder of the clips' image folders"
        )
    if rate is not None and not 1 / SECONDS <= rate < np.inf:
        raise InputError(f"rate {rate:g}; expected rows a second, 1 in {SECONDS:g} at least")
    source_hash = _hash(files, rate, frames)
    settings = folder / "features.json"
    if settings.exists():
        if (found := read_json(settings)).get("source_hash") == source_hash:
            return found
        raise InputError(
            f"{settings}: holds features of other files; remove the folder, or name another"
        )
    # What an interrupted run of other pickles has left would be read with what this one writes.
    if others := [path for path in sorted(folder.glob("[!.]*.npz")) if path.stem not in files]:
        raise InputError(f"{others[0]}: is of other files; remove the folder, or name another")
    width = None
    for clip, path in tqdm.tqdm(files.items(), desc=encoder, unit="clip", disable=not progress):
        values = load_array(path)
        if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise InputError(
                f"{path}: holds {values.dtype} of shape {values.shape}; expected finite floats "
                "(rows, width)"
            )
        width = width or values.shape[1]
        if values.shape[1] != width:
            raise InputError(f"{path}: rows of {values.shape[1]} numbers, {width} in the others")
        numbers = np.arange(1, len(values) + 1) if frames is None else frames[clip]
        if len(numbers) != len(values):
            raise InputError(
                f"{path}: {len(values)} rows for {len(numbers)} images of the clip; expected a row "
                "an image: unpack them all, or move the pickle away"
            )
        kept = len(values) if rate is None else int(SECONDS * rate)
        save_features(folder, clip, numbers[:kept], values[:kept])
    more = {} if rate is None else {"rate": rate, "seconds": SECONDS}
    save_feature_settings(folder, encoder=encoder, width=width, source_hash=source_hash, **more)
    return read_json(settings)


def find_pickles(sources: Sequence[str | os.PathLike]) -> dict[str, pathlib.Path]:
    """Clip name -> its pickle, sorted; hidden files are left. InputError for a folder without."""
    files: dict[str, pathlib.Path] = {}
    for source in map(pathlib.Path, sources):
        try:
            names = sorted(os.listdir(source))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror})") from error
        names = [name for name in names if name.endswith(".pkl") and not name.startswith(".")]
        if not names:
            raise InputError(f"{source}: no <clip>.pkl to convert; name the folder of the pickles")
        for name in names:
            clip = clip_name(name.removesuffix(".pkl"))
            if clip is None or clip in files:
                what = "is no clip's number" if clip is None else f"is clip {clip} of {files[clip]}"
                raise InputError(f"{source / name}: {what}; rename it or move it away")
            files[clip] = source / name
    return dict(sorted(files.items()))


def _hash(
    files: Mapping[str, pathlib.Path], rate: float | None, frames: Mapping[str, np.ndarray] | None
) -> str:
    """Hash of names, sizes and times of the files, and of how their rows are numbered and cut."""
    digest = hashlib.sha256(f"{rate} {SECONDS}".encode())
    for clip, path in files.items():
        found = path.stat()
        digest.update(f"\n{clip} {found.st_size} {found.st_mtime_ns}".encode())
        if frames is not None:
            digest.update(np.asarray(frames[clip], np.int64).tobytes())
    return digest.hexdigest()
