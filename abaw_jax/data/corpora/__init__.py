"""One module a corpus: its published layout on disk -> splits of videos for the records."""

import difflib
import inspect
from collections.abc import Mapping

from abaw_jax.data.corpora import (
    affectnet,
    affwild2,
    casia_webface,
    celeba,
    cexpr,
    fer2013,
    ferplus,
    image_folder,
    imdb_wiki,
    mtl,
    rafdb,
    rafdb_compound,
    vidmimic2,
)
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError

CORPORA = {
    "affwild2": affwild2.read,
    "image_folder": image_folder.read,
    "fer2013": fer2013.read,
    "rafdb": rafdb.read,
    "vidmimic2": vidmimic2.read,
    "rafdb_compound": rafdb_compound.read,
    "affectnet": affectnet.read,
    "ferplus": ferplus.read,
    "celeba": celeba.read,
    "casia_webface": casia_webface.read,
    "imdb_wiki": imdb_wiki.read,
    "mtl": mtl.read,
    "cexpr": cexpr.read,
}


def read_corpus(kind: str, **arguments) -> list[Split]:
    """Read a corpus by the name and the keys that a config gives.

    Args:
      kind: a key of `CORPORA`.
      **arguments: the arguments of that corpus's `read`.

    Raises:
      InputError: an unknown corpus or key (with the nearest known one), a missing key, and what
        the corpus's own `read` raises.
    """
    parameters = _parameters(kind)
    for key in arguments:
        if key not in parameters:
            raise InputError(f"corpus {kind}: unknown key {key!r}{_known(key, list(parameters))}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise InputError(f"corpus {kind}: key {key!r} is missing; give it a value")
    return CORPORA[kind](**arguments)


def takes(kind: str, key: str) -> bool:
    """Whether the reader of that name has such a key. Raises InputError for an unknown corpus."""
    return key in _parameters(kind)


def _parameters(kind: str) -> Mapping[str, inspect.Parameter]:
    if kind not in CORPORA:
        raise InputError(f"corpus kind {kind!r}: is unknown{_known(kind, list(CORPORA))}")
    return inspect.signature(CORPORA[kind]).parameters


def _known(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    return f"{f', nearest is {near[0]!r}' if near else ''}; known: {', '.join(known)}"
