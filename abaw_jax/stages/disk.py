"""What stages read beside the work of those before them, as it lies on disk: path -> its state.

A stage that was made from other files than lie there now has to be made again.
"""

from collections.abc import Callable, Mapping

from abaw_jax.errors import InputError
from abaw_jax.files import disk_state, read_json
from abaw_jax.interop.archive import content_hash
from abaw_jax.recipe import Context
from abaw_jax.stages import prepare
from abaw_jax.stages.hearing import learnt_encoders
from abaw_jax.stages.sources import FILES
from abaw_jax.stages.start import given_folder
from abaw_jax.stages.text import is_learnt
from abaw_jax.stages.text_training import SIZE


def _senses(context: Context) -> dict[str, str]:
    """Of the sound, the transcripts and the feature stores that the recipe learns from, and the
    encoders of text and sound. A demo corpus is always the same, and is not looked at."""
    names, section = context.config.sequence.modalities, context.config.extract
    root = prepare.corpus_root(context)
    stores = [path for name, path in section.stores.items() if name in names]
    paths = list(stores)
    if context.config.corpus.root:
        # Recordings tell at what time a store's rows lie.
        timed = any("rate" in read_json(root / path / "features.json") for path in stores)
        text = is_learnt(context.config)
        keys = {FILES[name][0] for name in names if name in FILES and name not in section.stores}
        keys |= {"media"} if timed or text else set()
        paths += [path for key in sorted(keys) for path in section[key]]
    found = {path: disk_state(root / path, files=True) for path in paths}
    encoders = list(learnt_encoders(context.config).values())
    if is_learnt(context.config) and section.text != SIZE:
        encoders.append(section.text)
    return found | {folder: disk_state(folder, files=True) for folder in encoders}


def _encoder(context: Context) -> dict[str, str]:
    """The weights of a given encoder, which may not be this run's own, or those it starts from."""
    section = context.config.finetune
    key = "start" if section.get("start") else "encoder"
    if not section[key]:
        return {}
    folder = given_folder(context.config, key)
    if folder.resolve().is_relative_to(context.workdir.resolve()):
        raise InputError(
            f"config.finetune.{key}: {folder} lies in this run's own folder, which is made anew; "
            "name another --workdir"
        )
    return {str(folder): content_hash(folder)}


def _scenes(context: Context) -> dict[str, str]:
    path = context.config.sequence.scene_file
    return {path: disk_state(path, files=True)} if path else {}


def _others(context: Context) -> dict[str, str]:
    others = context.config.ensemble.others
    return {path: disk_state(path, files=True) for path in others.values()}


FOUND: Mapping[str, Callable[[Context], dict[str, str]]] = {
    "prepare": prepare.inputs,
    "pretrain": _encoder,
    "finetune": _encoder,
    "extract": _senses,
    "sequence": _scenes,
    "ensemble": _others,
}
