"""Stage `export`: models -> folders that can be published; makes export/frames, export/sequence.

The classifier of a further view of the face is export/frames_<view>; nothing is decided on it.
Of several members (`stages/members.py`) export/sequence is the one that saw all windows; the others
lie beside it by their names, with export/ensemble.json, which says how they were combined and
decided, and where there are scenes, scenes.csv and scenes.json. Each model is loaded again, from
the archive and from the program, and held against the trained one on validation data:
export/parity.json. A difference above the tolerance is an error.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from abaw_jax.data.pipeline import image_epoch
from abaw_jax.data.records import open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.views import BOXES, FACE, VIEWS
from abaw_jax.data.windows import window_epoch
from abaw_jax.files import atomic_write, read_json, write_json
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import (
    example_inputs,
    load_predict,
    load_program,
    make_task,
    save_export,
)
from abaw_jax.models.families import VIT
from abaw_jax.recipe import STEPS, Context
from abaw_jax.stages.encoder import frames_track
from abaw_jax.stages.ensemble import DECIDED, ENSEMBLE, FRAMES, SEQUENCE, read_decisions
from abaw_jax.stages.members import ALL, read_members
from abaw_jax.stages.sequence import split_windows
from abaw_jax.stages.views import further_views, tuning_folder

# What a model of clips is made of.
CLIPS = {
    "gru": "a recurrent network (two bidirectional layers) of each modality, then dense layers",
    "statistics": "a dense layer on statistics of each modality",
    "tokens": "a transformer over the rows of all modalities, then dense layers",
}
# Of probabilities, by what a model computes in: programs may fuse in another order.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


def run(context: Context) -> dict:
    """Export, load back, compare; the greatest differences are the stage's figures."""
    folder, track = context.folder("export"), context.track
    decisions = read_decisions(context)
    views = _views(context)
    metrics, samples = {}, 0
    for name, model in _models(context).items():
        variables, config = load_model(model)
        config |= {"crop": _crop(context, views.get(name))}
        if (decided := _decided(name, decisions)) in decisions and name not in views:
            config |= decisions[decided]
            results = read_json(context.folder("ensemble") / "results.json")["metrics"]
        else:
            config = {key: value for key, value in config.items() if key not in DECIDED}
            results = _tuning_score(context, views.get(name))
        card = _card(context, name, config, results)
        stablehlo = context.config.export.stablehlo
        save_export(folder / name, variables, config, card, stablehlo=stablehlo)
        inputs = _inputs(context, name, config)
        samples += len(next(iter(inputs.values())))
        task, _ = make_task(config, folder / name)
        state = {k: v for k, v in variables.items() if k != "params"}
        trained = jax.device_get(jax.jit(task.predict)(variables["params"], state, inputs))
        tolerance = TOLERANCES[config.get("encoder", {}).get("dtype", "float32")]
        loaders = {"archive": load_predict} | ({"program": load_program} if stablehlo else {})
        for way, load in loaders.items():
            difference = _difference(load(folder / name)(inputs), trained)
            metrics[f"{name}_{way}_difference"] = difference
            if not difference <= tolerance:
                raise RuntimeError(
                    f"{folder / name}: the {way} differs from the {track.name} model by "
                    f"{difference:.3g}, more than {tolerance:g}"
                )
    _write_combination(context)
    write_json(folder / "parity.json", metrics)
    return {"split": "validation", "metrics": metrics, "samples": samples}


def _models(context: Context) -> dict[str, pathlib.Path]:
    """Exported folder -> the model that it is made of."""
    stage = context.folder("sequence")
    # Without a head it predicts nothing, and is public as it was taken.
    models = {FRAMES: context.folder("finetune") / "model"} if frames_track(context) else {}
    models |= {n: tuning_folder(context, v) / "model" for n, v in _views(context).items()}
    for name in read_members(context):
        models |= {SEQUENCE: stage / "model"} if name == ALL else {name: stage / name / "model"}
    return models


def _views(context: Context) -> dict[str, str]:
    """Exported folder -> the further view of the face that its frame classifier sees."""
    return {f"{FRAMES}_{view}": view for view in further_views(context)}


def _decided(name: str, decisions: dict[str, Any]) -> str:
    """Whose decision an exported model's predictions belong to."""
    if name == FRAMES:
        return FRAMES
    return ENSEMBLE if ENSEMBLE in decisions else SEQUENCE


def _tuning_score(context: Context, view: str | None) -> dict[str, float]:
    """{FRAMES: score} of an encoder on which nothing is decided; {} of one not tuned here."""
    name = frames_track(context).score_name
    figures = read_json(context.folder("finetune") / "results.json")["metrics"]
    score = figures.get(f"{view}_{name}" if view else name)
    return {} if score is None else {FRAMES: score}


def _write_combination(context: Context) -> None:
    """Beside the models, what made them one: member -> its exported folder, null of others'."""
    source = context.folder("ensemble") / "ensemble.json"
    if not source.exists():
        return
    record, own = read_json(source), read_members(context)
    folders = {name: SEQUENCE if name == ALL else name for name in own} | {FRAMES: FRAMES}
    models = {name: folders.get(name) for name in record["members"]}
    write_json(context.folder("export") / "ensemble.json", {**record, "models": models})
    for name in ("scenes.csv", "scenes.json"):
        if (path := context.folder("sequence") / name).exists():
            with atomic_write(context.folder("export") / name) as file:
                file.write(path.read_bytes())


def _difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    names = [name for name in expected if name.startswith("probabilities")]
    return max(float(np.abs(found[name] - expected[name]).max()) for name in names)


def _inputs(context: Context, name: str, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """The first validation batch of a model; a number of examples the export was not made with."""
    view = {FRAMES: FACE, **_views(context)}.get(name)
    if view:
        records = open_records(context.folder("prepare") / "records", "validation")
        batches = image_epoch(
            records,
            np.arange(min(len(records), 37)),
            batch_size=min(len(records), 37),
            transform=make_eval_transform(context.config.image.size, VIEWS[view]),
            threads=0,
        )
        return {"image": next(batches)["image"]}
    windows, reader = split_windows(context, "validation", _only(context, name))
    batch = next(window_epoch(windows, reader, batch_size=min(len(windows), 5), threads=0))
    return {k: batch[k] for k in example_inputs(config, 1)}


def _crop(context: Context, view: str | None) -> dict[str, Any]:
    """How the pixels of a face, or of a further view of it, reach the model."""
    resize = "area average when shrinking, bicubic when enlarging"
    return {
        "source": "crops as the corpus publishes them (Aff-Wild2: cropped_aligned, 112 pixels)",
        "size": context.config.image.size,
        "resize": f"{f'view {view} of the' if view else 'whole'} crop; {resize}",
        **({"boxes": BOXES[view]} if view else {}),
    }


def _card(context: Context, name: str, config: dict[str, Any], results: dict[str, Any]) -> str:
    """The model card; results: the metrics of the stage `ensemble`."""
    views, family = _views(context), context.config.encoder.family
    encoder = "a vision transformer" if family == VIT else f"the convolutional network {family}"
    what = f"{encoder} on single face crops"
    if name in views:
        what += f", of which it sees the view `{views[name]}`"
    elif name != FRAMES:
        what = _sequence_model(context.config.sequence, _sources(context, name))
    of_frames = name == FRAMES or name in views
    corpus, track = context.config.corpus, frames_track(context) if of_frames else context.track
    data = pathlib.Path(corpus.root).name if corpus.root else f"demo corpus ({corpus.demo_size})"
    if name == FRAMES and context.config.finetune.encoder:
        data = "that of the run that it was taken from"
    decided = FRAMES if name in views else _decided(name, results)
    steps = [
        f"{results[decided + step]:.4f}{text}"
        for step, text in STEPS.items()
        if decided + step in results
    ]
    several = ""
    if decided == ENSEMBLE:
        member = ALL if name == SEQUENCE else name
        several = " This is of the members combined (ensemble.json)"
        if (alone := results.get(f"member_{member}")) is not None:
            several += f"; the model here, alone: {alone:.4f}"
        several += "."
        data += _part(member, **read_members(context)[member])
    return f"""# {context.config.name}: {name}

{what[0].upper() + what[1:]}, for {track.name}: {", ".join(config["classes"])}.

- Weights' licence: not chosen yet; whoever publishes them states it here.
- Training data: {data}.
- {track.score_name} on its validation set: {"; ".join(steps) or "not measured here"}.{several}
- Chosen on that set: {json.dumps({key: config[key] for key in DECIDED if key in config})}.
- Crop: {json.dumps(config["crop"])}.

`abaw_jax.interop.export.load_predict(folder)` gives the prediction as a function.
"""


def _sequence_model(section: Any, sources: str) -> str:
    """What a sequence model is made of and what goes in, as the card names it."""
    if section.model in CLIPS:
        return (
            f"{CLIPS[section.model]}, over whole clips: {sources}; of a row of features the last "
            "number is 1, or 0 where there is none"
        )
    layers = {"fusion of two views": section.fuse, "dense layers": section.join}
    layers |= {"causal convolutions": section.tcn}
    layers |= {"a transformer": section.depth}
    named = [layer for layer, present in layers.items() if present] or ["dense layers"]
    what = f"{', then '.join(named)} over windows of features: {sources}"
    if section.model == "frames":
        what = f"dense layers on single frames' features: {sources}"
    if section.head == "last":
        what += (
            f"; an input is the {section.length} rows that end at the predicted frame, a video's "
            "first row repeated before its start"
        )
    if section.collaborate.epochs:
        share = section.collaborate.share
        what += f"; two such models, whose logits are added, {share:g} and {1 - share:g} of them"
    return what


def _only(context: Context, name: str) -> str | None:
    """The only modality that an exported sequence model sees; None for all."""
    return read_members(context)[ALL if name == SEQUENCE else name]["modality"]


def _sources(context: Context, name: str) -> str:
    """What a sequence model's features are of, as the card names it."""
    only = _only(context, name)
    names = [only] if only else context.config.sequence.modalities
    models = {FACE: FRAMES} | {view: model for model, view in _views(context).items()}
    texts = {view: f"the `{model}` model's" for view, model in models.items()}
    if context.config.sequence.pixels:
        texts[FACE] = "those that its own vision transformer makes of face crops"
    return ", ".join(texts.get(name, name) for name in names)


def _part(member: str, scene: str | None, modality: str | None, **counts: int) -> str:
    """Which part of the training data a member saw, as the card goes on."""
    del counts
    if member == ALL or modality:
        return ""
    return f", the videos of scene {scene}" if scene else f", but for the recordings of {member}"
