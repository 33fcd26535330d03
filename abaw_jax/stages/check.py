"""Values of a config that no model, optimiser or batch can be made of, found before any work."""

import difflib
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from abaw_jax.data.records import IMAGE_SET, load_index
from abaw_jax.errors import InputError, unknown_name, within
from abaw_jax.evaluation.combination import METHODS
from abaw_jax.evaluation.scenes import read_scenes
from abaw_jax.evaluation.smoothing import smoothing_grid
from abaw_jax.evaluation.stacking import is_choice
from abaw_jax.models.families import FAMILIES, VIT
from abaw_jax.models.vit import POSITIONS
from abaw_jax.recipe import Context
from abaw_jax.stages.check_encoder import check_balance, check_family, check_frozen
from abaw_jax.stages.check_sequence import check_sequence
from abaw_jax.stages.class_weights import WEIGHT_RULES, parse_weight_rule
from abaw_jax.stages.encoder import check_encoder, check_labels
from abaw_jax.stages.extract import splits
from abaw_jax.stages.finetune import late_examples
from abaw_jax.stages.modalities import check_modalities
from abaw_jax.stages.parts import (
    DTYPES,
    NORMALISATIONS,
    make_finetune_task,
    make_schedule_optimizer,
    make_sequence_task,
    make_transforms,
    section_tracks,
)
from abaw_jax.stages.pixels import check_pixels
from abaw_jax.stages.prepare import make_cleaning
from abaw_jax.stages.start import check_start
from abaw_jax.stages.stores import check_stores
from abaw_jax.stages.text import check_texts
from abaw_jax.stages.views import check_views
from abaw_jax.tasks.goals import check_tracks
from abaw_jax.tracks import TRACKS, Track
from abaw_jax.tracks.targets import find_target
from abaw_jax.training.partition import check_batch

TRAINED = ("pretrain", "finetune", "sequence")
MOST_VIDEOS = 12  # that a report shows over time
CHOICES = {
    "image.normalise": NORMALISATIONS,
    "encoder.dtype": DTYPES,
    "encoder.family": (VIT, *FAMILIES),
    "encoder.positions": POSITIONS,
}
COUNTS = (
    "image.size",
    "encoder.patch_size",
    "extract.batch_size",
    "sequence.length",
    "sequence.stride",
    "sequence.tcn_kernel",
    "sequence.mlp_width",
    "sequence.fuse_width",
    *(f"{section}.{key}" for section in TRAINED for key in ("batch_size", "accumulate")),
    *(f"{section}.evaluations" for section in ("finetune", "sequence")),
)
RATES = (
    "pretrain.mask_ratio",
    "encoder.drop_path",
    "finetune.dropout",
    "sequence.dropout",
    "sequence.feature_dropout",
    "sequence.mask_rate",
    "sequence.modality_dropout",
)
# Of a track in `also`; all may be left out.
LOSS_KEYS = (
    "weight", "loss", "output", "loss_options", "label_smoothing", "class_weights",
    "positive_weights",
)  # fmt: skip
# What must be a multiple of what; sin-cos positions take a width in two parts an axis.
OF_VIT = (
    ("image.size", "encoder.patch_size"),
    ("encoder.width", "encoder.heads"),
    ("encoder.width", 4),
)
MULTIPLES = (
    ("pretrain.decoder_width", "pretrain.decoder_heads"),
    ("pretrain.decoder_width", 4),
)


def check_config(config: Any, mesh: Mesh) -> None:
    """Raise InputError naming the first key whose value cannot be, and what it can be."""

    def value(path: str) -> Any:
        section, key = path.split(".")
        return config[section][key]

    for path, known in CHOICES.items():
        if value(path) not in known:
            raise InputError(f"config.{path}: {value(path)!r}; expected one of {', '.join(known)}")
    for path in COUNTS:
        if value(path) < 1:
            raise InputError(f"config.{path}: {value(path)}; expected at least 1")
    for path, of in (*(OF_VIT if config.encoder.family == VIT else ()), *MULTIPLES):
        divisor, name = (value(of), f"config.{of} = {value(of)}") if of != 4 else (4, "4")
        if value(path) < 1 or divisor < 1 or value(path) % divisor:
            raise InputError(f"config.{path}: {value(path)}; expected a multiple of {name}")
    for key in ("mean", "std"):
        if len(config.image[key]) != 3:
            raise InputError(f"config.image.{key}: {config.image[key]}; expected 3 numbers")
    for path in RATES:
        if not 0 <= value(path) < 1:
            raise InputError(f"config.{path}: {value(path)}; expected 0 up to below 1")
    with within("config.corpus"):
        make_cleaning(config.corpus)
    check_family(config)
    check_frozen(config)
    check_views(config)
    check_encoder(config)
    check_start(config)
    check_modalities(config)
    check_pixels(config)
    check_sequence(config)
    for key in ("folds", "scenes"):
        if config.sequence[key] == 1 or config.sequence[key] < 0:
            raise InputError(
                f"config.sequence.{key}: {config.sequence[key]}; expected 0, or 2 and up"
            )
    if config.sequence.scene_file:
        if config.sequence.scenes:
            raise InputError("config.sequence: scenes and scene_file; expected one of the two")
        with within("config.sequence.scene_file"):
            read_scenes(config.sequence.scene_file)
    for name in TRAINED:
        section = config[name]
        with within(f"config.{name}"):
            check_batch(section.batch_size, mesh, section.accumulate)
            make_schedule_optimizer(section, 10 * section.batch_size)
    _check_target(config)
    _check_tracks(config)
    for name, make_task in (("finetune", make_finetune_task), ("sequence", make_sequence_task)):
        with within(f"config.{name}"):
            _check_loss(config, name, make_task)
    with within("config.extract"):
        check_batch(config.extract.batch_size, mesh)
    make_transforms(config)
    with within("config.ensemble"):
        found = config.ensemble
        smoothing_grid(found.kinds, found.gaps, found.widths)
        _check_decision(config.ensemble, TRACKS[config.track])
        _check_combination(config.ensemble, config.sequence, TRACKS[config.track])


def check_prepared(context: Context) -> None:
    """Raise InputError for labels, or a video, that the config names and the prepared sets lack,
    for feature stores and transcripts that do not fit them, and for what it asks of images that
    only videos have.
    """
    check_labels(context)
    check_stores(context, splits(context))
    check_texts(context, splits(context))
    late_examples(context)
    _check_report_videos(context)
    _check_images(context)


def _check_report_videos(context: Context) -> None:
    """Raise InputError for a video to be shown that the validation set lacks."""
    named = tuple(context.config.ensemble.report_videos)
    if not named:
        return
    videos = load_index(context.folder("prepare") / "records", "validation").videos
    if context.track.per_clip or IMAGE_SET in videos:
        raise InputError(
            "config.ensemble.report_videos: nothing runs over time in a set of clips or images; "
            "set it to ()"
        )
    for name in named:
        if name not in videos:
            near = difflib.get_close_matches(str(name), videos, n=3) or videos[:3]
            raise InputError(
                f"config.ensemble.report_videos: {name!r} is no validation video; of the "
                f"{len(videos)} there are, name such as {', '.join(near)}"
            )


def _check_images(context: Context) -> None:
    """Raise InputError for what looks at neighbours in a set of images: they are no time, and lie
    in the order of their classes."""
    config, folder = context.config, context.folder("prepare") / "records"
    if IMAGE_SET not in load_index(folder, "validation").videos:
        return
    if config.sequence.epochs:
        raise InputError(
            f"config.sequence.epochs: {config.sequence.epochs}; images do not follow on one "
            "another: expected 0"
        )
    if config.ensemble.kinds:
        raise InputError(
            f"config.ensemble.kinds: {tuple(config.ensemble.kinds)}; images do not follow on one "
            "another: expected ()"
        )


def _check_target(config: Any) -> None:
    """Raise InputError for a target that the track lacks, or a curriculum of what has no order."""
    name, share = config.finetune.get("target"), config.finetune.get("curriculum", 0.0)
    main = _main_track(config, "finetune")
    with within("config.finetune"):
        target = find_target(main, name)
    check_balance(config.finetune, target.track if target else main)
    if not 0 <= share <= 1:
        raise InputError(f"config.finetune.curriculum: {share}; expected a share from 0 to 1")
    if share and not (target and target.late):
        raise InputError(
            f"config.finetune.curriculum: {share} with target {name!r}, of which no images come "
            "before others; expected 0, or target 'basic'"
        )


def _check_loss(config: Any, name: str, make_task: Callable[..., Any]) -> None:
    """Raise InputError for a loss that the track lacks, or options and rules that it cannot take.

    The labels are not known yet: weights of 1 stand for those that a rule will find in them.
    """
    section, weights, main = config[name], {}, _main_track(config, name)
    for number, track in enumerate(section_tracks(section, main)):
        part = section.also[track.key] if number else section
        if part.get("loss") == "ccc_sequence" and section.get("head") == "last":
            raise InputError(
                "loss ccc_sequence: of one frame, as config.sequence.head is 'last'; expected ccc"
            )
        weights[track.key] = {}
        for option in WEIGHT_RULES:
            rule = part.get(option)
            found = "none" if rule is None else parse_weight_rule(rule, track.outputs, option)[0]
            if found == "none":
                continue
            if isinstance(found, str) and track.label_type != "int32":
                raise InputError(f"{option} {rule!r}: {track.name} has no classes to count")
            weights[track.key][option] = (1.0,) * track.outputs
    make_task(config, main, weights)


def _main_track(config: Any, name: str) -> Track:
    """The first of the tracks that a training section learns."""
    return TRACKS[config[name].get("track") or config.track]


def _check_tracks(config: Any) -> None:
    """Raise InputError for further tracks that cannot be learnt, or not from this corpus."""
    read = tuple(config.corpus.get("also", ()))
    for key in read:
        if key not in TRACKS:
            raise unknown_name("config.corpus.also", key, "a track", TRACKS)
    for name in ("finetune", "sequence"):
        for key, part in (config[name].get("also") or {}).items():
            where = f"config.{name}.also.{key}"
            if key not in TRACKS:
                raise unknown_name(f"config.{name}.also", key, "a track", TRACKS)
            if not hasattr(part, "items"):
                raise InputError(f"{where}: {part!r}; expected {{'weight': ..., 'loss': ...}}")
            for unknown in sorted(set(part) - set(LOSS_KEYS)):
                raise unknown_name(where, unknown, "a key of a further track", LOSS_KEYS)
            weight = part.get("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
                raise InputError(f"{where}.weight: {weight!r}; expected a number above 0")
            with within(where):
                check_tracks([_main_track(config, name), TRACKS[key]])
            if key not in (config.track, *read):
                raise InputError(
                    f"{where}: labels of {key} are not read; name it in config.corpus.also, which "
                    f"is {read}"
                )


def _check_decision(section: Any, track: Track) -> None:
    """Raise InputError for what the track's predictions cannot be put through."""
    if "majority" in section.kinds and not is_choice(track):
        raise InputError(f"kinds: majority counts votes for one class; {track.name} has no such")
    if section.get("match") and track.label_type != "float32":
        raise InputError(f"match: {track.name} predicts classes, whose labels have no mean")
    if len(set(section.report_videos)) > MOST_VIDEOS:
        raise InputError(
            f"report_videos: {len(set(section.report_videos))} videos; expected {MOST_VIDEOS} at "
            "most, or the report is too large to mail"
        )
    if section.get("search_thresholds") and track.thresholds is None:
        raise InputError(f"search_thresholds: {track.name} is not decided by thresholds")


def _check_combination(section: Any, sequence: Any, track: Track) -> None:
    """Raise InputError for a method that has nothing to work on, and for members that are not
    there; those that the stages make are known later."""
    scenes = sequence.epochs and (sequence.scenes or sequence.scene_file)
    own = scenes or (sequence.epochs and (sequence.folds or sequence.apart))
    named = set(section.members)
    several = section.others or len(named) > 1 or (own and not named)
    if not sequence.epochs and named - {"frames"}:
        raise InputError("members: there is no sequence model, as config.sequence.epochs is 0")
    if named and not several and (own or named != ({"all"} if sequence.epochs else {"frames"})):
        raise InputError(f"members: {min(named)} alone; name two at least, or none for all")
    if section.method and section.method not in METHODS:
        raise InputError(f"method: {section.method!r}; expected one of {', '.join(METHODS)}")
    if section.method not in ("", "average") and not several:
        raise InputError(
            f"method: {section.method} of a single member; set config.sequence.folds, scenes or "
            "apart, or name more in members or others"
        )
    if section.method == "vote" and track.label_type != "int32":
        raise InputError(f"method: {track.name} predicts numbers, on which nobody can vote")
    if section.method == "scenes" and not scenes:
        raise InputError("method: scenes needs config.sequence.scenes or scene_file")
    for name, folder in section.others.items():
        if not (pathlib.Path(folder) / "validation").is_dir():
            raise InputError(
                f"others.{name}: {folder} has no folder validation; name one that holds "
                "validation/ and test/"
            )
