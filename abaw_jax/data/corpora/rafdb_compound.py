"""RAF-DB, compound expressions: a folder per class, seven of whose eleven are those of CE.

Source: Li, Deng and Du, "Reliable crowdsourcing and deep locality-preserving learning for
expression recognition in the wild", CVPR 2017.
"""

import difflib
import os
import pathlib
import re

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError
from abaw_jax.tracks import CE
from abaw_jax.tracks.targets import BASIC, COMPOUNDS, pair_rows


def read(root: str | os.PathLike) -> list[Split]:
    """Read `{train,test}/<Class Name>/*.jpg`.

    A class folder is known by its words: neither their order nor what is between them matters.
    Labels: `compounds`, one of all eleven; `ce`, none for the four classes that CE lacks; `basic`,
    the two emotions of each.

    Raises:
      InputError: no such folder, no images, a folder with another name, two of the same class.
    """
    root = image_folder.check_folder(root, "RAF-DB's compound set")
    chosen = [name for name in ("train", "test") if (root / name).is_dir()]
    if not chosen:
        raise InputError(f"{root}: holds neither train nor test; name the folder that holds them")
    return [_read_split(root / name, name) for name in chosen]


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(filter(None, re.split(r"[\s_-]+", name.lower()))))


LABELS = {_words(name): label for label, name in enumerate(COMPOUNDS.classes)}


def _read_split(folder: pathlib.Path, name: str) -> Split:
    folders, loose, skipped = image_folder.list_folder(folder)
    skipped["images_outside_classes"] = len(loose)
    images, seen = [], {}
    for inner in folders:
        words = _words(inner.name)
        if words not in LABELS:
            known = [n.replace("_", " ") for n in sorted(COMPOUNDS.classes)]
            near = difflib.get_close_matches(inner.name.replace("_", " ").title(), known, 1)
            raise InputError(
                f"{inner}: {inner.name!r} is no compound expression"
                f"{f', nearest is {near[0]!r}' if near else ''}; expected folders named "
                f"{', '.join(known)}: rename it or move it away"
            )
        if words in seen:
            raise InputError(f"{inner}: and {seen[words]} are the same class; merge the two")
        seen[words] = inner.name
        found, more = image_folder.walk(inner)
        images += [(path, LABELS[words]) for path in found]
        image_folder.add_counts(skipped, more)
    if not images:
        raise InputError(f"{folder}: holds no images; expected <Class Name>/*.jpg in it")
    compounds = np.array([[label] for _, label in images], COMPOUNDS.label_type)
    labels = {
        COMPOUNDS.key: compounds,
        CE.key: np.where(compounds < CE.outputs, compounds, CE.invalid).astype(CE.label_type),
        BASIC.key: pair_rows(compounds),
    }
    return image_folder.labelled_set(name, [path for path, _ in images], labels, skipped)
