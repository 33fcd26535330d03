"""The frame classifier of a recipe, and so its encoder: whose labels it learns, or whose it is.

It learns the config's own track, or with `finetune.track` another of the same corpus. With
`finetune.encoder` nothing is tuned: the classifier of a finished run is taken, of any track and any
corpus, or an encoder of public weights (`start.py`). Where it is of another track than the
config's, or of none, there are no predictions of single frames.
"""

import pathlib
from typing import Any

from abaw_jax.data.records import load_index
from abaw_jax.data.views import FACE
from abaw_jax.errors import InputError, unknown_name
from abaw_jax.files import read_json
from abaw_jax.interop.convert import KIND as PUBLIC
from abaw_jax.interop.export import ENCODER, make_task
from abaw_jax.recipe import Context
from abaw_jax.stages.scores import SCORES
from abaw_jax.stages.start import CLASSIFIER, check_fit, find_tracks, given_folder
from abaw_jax.tasks.goals import check_tracks
from abaw_jax.tracks import EXPR, TRACKS
from abaw_jax.tracks.affectnet import AFFECTNET
from abaw_jax.tracks.track import Track


def is_pretrained(config: Any) -> bool:
    """Whether the run makes a masked autoencoder, with which its encoder starts."""
    section = config.finetune
    return bool(config.pretrain.epochs and not section.encoder and not section.get("start"))


def frames_track(context: Context) -> Track | None:
    """The track that single frames are predicted of; of a given encoder once it has been taken.
    None of one without a head."""
    section = context.config.finetune
    if not section.get("encoder"):
        return TRACKS[section.get("track") or context.track.key]
    found = read_json(context.folder("finetune") / "model" / "config.json")
    return None if found["kind"] == ENCODER else TRACKS[_key(found)]


def check_encoder(config: Any) -> None:
    """Raise InputError for a track that cannot be tuned on, an encoder that cannot be taken, and
    what would need predictions of single frames that there are not."""
    section, own = config.finetune, TRACKS[config.track]
    key, where = section.track, "encoder" if section.encoder else "track"
    if key and key not in TRACKS:
        raise unknown_name("config.finetune.track", key, "a track", TRACKS)
    tuned = TRACKS[key] if key else own
    if section.encoder:
        tuned = _check_given(config)
        if tuned is None and SCORES in config.sequence.modalities:
            raise InputError(
                f"config.sequence.modalities: {SCORES!r} of an encoder that has learnt no labels, "
                f"as config.finetune.encoder is {section.encoder}; leave it out, or name another"
            )
    elif tuned is not own:
        try:
            check_tracks([own, tuned])
        except InputError as error:
            raise InputError(f"config.finetune.track: {error}") from error
        if key not in (read := tuple(config.corpus.get("also", ()))):
            raise InputError(
                f"config.finetune.track: labels of {key} are not read; name it in "
                f"config.corpus.also, which is {read}"
            )
    if tuned is own:
        return
    name = tuned.name if tuned else "no track"
    if not config.sequence.epochs:
        raise InputError(
            f"config.finetune.{where}: single frames are predicted of {name}, and without a "
            f"sequence model nothing of {own.name}; take an encoder of {own.name}, or of "
            "videos set config.sequence.epochs above 0"
        )
    if "frames" in config.ensemble.members:
        raise InputError(
            f"config.ensemble.members: frames are predicted of {name}, as config.finetune."
            f"{where} says, not of {own.name}; leave 'frames' out"
        )


def check_labels(context: Context) -> None:
    """Raise InputError where no prepared crop has a label of another track that is to be learnt."""
    if context.config.finetune.encoder or (track := frames_track(context)) is context.track:
        return
    folder = context.folder("prepare") / "records"
    for split in ("train", "validation"):
        if not track.valid(load_index(folder, split).record_labels(track.key)).any():
            raise InputError(
                f"{folder}: no {split} crop has a valid {track.name} label, of which config."
                "finetune.track asks; add its label files, or name another track"
            )


def _check_given(config: Any) -> Track | None:
    """The track of the given encoder; InputError where it cannot be the recipe's."""
    section, folder = config.finetune, given_folder(config, "encoder")
    if tuple(section.views) != (FACE,):
        raise InputError(
            f"config.finetune.encoder: one of whole faces, and config.finetune.views are "
            f"{tuple(section.views)}; expected ({FACE!r},)"
        )
    found = read_json(folder / "config.json")
    if found.get("kind") == PUBLIC:
        return _check_public(config, folder, found)
    if found.get("kind") != CLASSIFIER or found.get("view"):
        view = f" of the view {found['view']!r}" if found.get("view") else ""
        raise InputError(
            f"config.finetune.encoder: {folder} holds a model of kind {found.get('kind')!r}{view}; "
            "expected a 'frame_classifier' of whole faces, as stage finetune makes it"
        )
    make_task(found, folder)
    check_fit(config, "encoder", folder, found)
    if section.track not in ("", _key(found)):
        raise InputError(
            f"config.finetune.encoder: {folder} is of {found['track']}, and config.finetune.track "
            f"asks for {section.track}; name another encoder, or set the track to ''"
        )
    return TRACKS[_key(found)]


def _check_public(config: Any, folder: pathlib.Path, found: dict[str, Any]) -> Track | None:
    """The same of converted weights."""
    check_fit(config, "encoder", folder, found)
    tracks = find_tracks(found.get("classes", []))
    track = EXPR if tracks[:1] == [AFFECTNET] else tracks[0] if tracks else None
    if config.finetune.track not in ("", track and track.key):
        raise InputError(
            f"config.finetune.encoder: {folder} is of {track.name if track else 'no track'}, and "
            f"config.finetune.track asks for {config.finetune.track}; set that to ''"
        )
    return track


def _key(description: dict[str, Any]) -> str:
    return str(description["track"]).lower()
