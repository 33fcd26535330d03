"""IMDB-WIKI: crops around the faces of film people, unlabelled here; those with one clear face.

Source: Rothe, Timofte and Van Gool, "Deep expectation of real and apparent age from a single image
without facial landmarks", IJCV 2018. `imdb.mat` holds one struct of columns, among them the
detector's score of the face (-Inf: none found) and of a second one (NaN: none found).
"""

import os
import pathlib

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError

SETS = ("imdb", "wiki")


def read(root: str | os.PathLike, max_missing: int = 1000) -> list[Split]:
    """Read `imdb_crop/NN/*.jpg` by `imdb.mat`, and `wiki_crop` by `wiki.mat` where it is there.

    Args:
      root: holds `imdb_crop`, and `imdb.mat` beside or in it; likewise for `wiki`.
      max_missing: how many images that a .mat file names may be missing.

    Returns:
      One training split, without labels, of the images with a finite `face_score` and no
      `second_face_score`.

    Raises:
      InputError: neither set; a .mat file that is missing, damaged or of other columns; a path
        that leads out of the folder; too many images that are not there.
    """
    root = image_folder.check_folder(root, "IMDB-WIKI's root")
    chosen = [name for name in SETS if (root / f"{name}_crop").is_dir()]
    if not chosen:
        raise InputError(f"{root}: holds neither imdb_crop nor wiki_crop; name the folder above")
    images, skipped = [], {}
    for name in chosen:
        folder = root / f"{name}_crop"
        table = image_folder.first_of(
            [root / f"{name}.mat", folder / f"{name}.mat"], root, f"{name}.mat"
        )
        images += _read_set(folder, table, name, max_missing, skipped)
    if not images:
        raise InputError(f"{root}: holds no image with one clear face; unpack IMDB-WIKI again")
    return [image_folder.labelled_set("train", images, {}, skipped)]


def _read_set(
    folder: pathlib.Path, table: pathlib.Path, name: str, max_missing: int, skipped: dict[str, int]
) -> list[str]:
    paths, scores, seconds = _columns(table, name)
    clear, alone = np.isfinite(scores), np.isnan(seconds)
    counts = {"images_without_face": (~clear).sum(), "images_of_several_faces": (clear & ~alone)}
    image_folder.add_counts(skipped, {key: int(np.sum(count)) for key, count in counts.items()})
    images, missing = [], {}
    for i in np.flatnonzero(clear & alone):
        where = f"{table}: full_path {i + 1}"
        path = image_folder.below(folder, str(paths[i]), where)
        if os.path.isfile(path):
            images.append(path)
        else:
            image_folder.count_missing(missing, max_missing, where, path)
    image_folder.add_counts(skipped, missing)
    return images


def _columns(table: pathlib.Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """full_path (n,) of text, face_score and second_face_score (n,) of numbers."""
    import scipy.io  # takes a while, and only this reader needs it

    try:
        with open(table, "rb") as file:
            content = scipy.io.loadmat(file, variable_names=[name], squeeze_me=True)
        row = content[name]
        paths = np.atleast_1d(row["full_path"].item())
        scores, seconds = (
            np.atleast_1d(np.asarray(row[column].item(), np.float64))
            for column in ("face_score", "second_face_score")
        )
        if not len(paths) == len(scores) == len(seconds) or paths.ndim > 1:
            raise ValueError(f"columns of {len(paths)}, {len(scores)} and {len(seconds)} rows")
    except Exception as error:  # SciPy lets what zlib and struct raise on a damaged file through
        reason = " ".join(str(error).split())
        raise InputError(
            f"{table}: is no readable {name}.mat ({reason}); expected a struct {name!r} of "
            "full_path, face_score, second_face_score in MATLAB's format 5: copy it again"
        ) from error
    return paths, scores, seconds
