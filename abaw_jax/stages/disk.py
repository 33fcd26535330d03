"""What stages read beside the work of those before them, as it lies on disk: path -> its state.

A stage that was made from other files than lie there now has to be made again.
"""

from collections.abc import Callable, Mapping

from abaw_jax.files import disk_state
from abaw_jax.recipe import Context
from abaw_jax.stages import prepare


def _senses(context: Context) -> dict[str, str]:
    """Of the sound, the transcripts and the feature stores that the recipe learns from; {} of a
    demo corpus, which is always the same."""
    if not context.config.corpus.root:
        return {}
    names, section = context.config.sequence.modalities, context.config.extract
    root = prepare.corpus_root(context)
    state = {}
    if "sound" in names:
        state |= {path: disk_state(root / path, files=False) for path in section.media}
    if "words" in names:
        state |= {path: disk_state(root / path, files=True) for path in section.transcripts}
    for name, path in section.stores.items():
        if name in names:
            state[path] = disk_state(root / path, files=False)
    return state


def _scenes(context: Context) -> dict[str, str]:
    path = context.config.sequence.scene_file
    return {path: disk_state(path, files=True)} if path else {}


def _others(context: Context) -> dict[str, str]:
    others = context.config.ensemble.others
    return {path: disk_state(path, files=True) for path in others.values()}


FOUND: Mapping[str, Callable[[Context], dict[str, str]]] = {
    "prepare": prepare.inputs,
    "extract": _senses,
    "sequence": _scenes,
    "ensemble": _others,
}
