"""Stage `export`: models -> folders that can be published; makes export/frames, export/sequence.

Each is loaded again, from the archive and from the program, and held against the trained model on
validation data: export/parity.json. A difference above the tolerance is an error.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from abaw_jax.data.pipeline import image_epoch
from abaw_jax.data.records import open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.windows import window_epoch
from abaw_jax.files import read_json, write_json
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import load_predict, load_program, make_task, save_export
from abaw_jax.recipe import STEPS, Context
from abaw_jax.stages.ensemble import DECIDED, read_decisions
from abaw_jax.stages.sequence import split_windows

MODELS = {"frames": "finetune", "sequence": "sequence"}  # exported folder -> stage
# Of probabilities, by what a model computes in: programs may fuse in another order.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


def run(context: Context) -> dict:
    """Export, load back, compare; the greatest differences are the stage's figures."""
    folder, track = context.folder("export"), context.track
    decisions = read_decisions(context)
    metrics, samples = {}, 0
    for name, stage in MODELS.items():
        variables, config = load_model(context.folder(stage) / "model")
        config |= {"crop": _crop(context), **decisions[name]}
        results = read_json(context.folder("ensemble") / "results.json")["metrics"]
        card = _card(context, name, config, results)
        stablehlo = context.config.export.stablehlo
        save_export(folder / name, variables, config, card, stablehlo=stablehlo)
        inputs = _inputs(context, name)
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
    write_json(folder / "parity.json", metrics)
    return {"split": "validation", "metrics": metrics, "samples": samples}


def _difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    names = [name for name in expected if name.startswith("probabilities")]
    return max(float(np.abs(found[name] - expected[name]).max()) for name in names)


def _inputs(context: Context, name: str) -> dict[str, np.ndarray]:
    """The first validation batch of a model; a number of examples the export was not made with."""
    if name == "frames":
        records = open_records(context.folder("prepare") / "records", "validation")
        batches = image_epoch(
            records,
            np.arange(min(len(records), 37)),
            batch_size=min(len(records), 37),
            transform=make_eval_transform(context.config.image.size),
            threads=0,
        )
        return {"image": next(batches)["image"]}
    windows, reader = split_windows(context, "validation")
    batch = next(window_epoch(windows, reader, batch_size=min(len(windows), 5), threads=0))
    return {k: batch[k] for k in ("features", "mask")}


def _crop(context: Context) -> dict[str, Any]:
    """How the pixels of a face reach the model."""
    return {
        "source": "crops as the corpus publishes them (Aff-Wild2: cropped_aligned, 112 pixels)",
        "size": context.config.image.size,
        "resize": "whole crop; area average when shrinking, bicubic when enlarging",
    }


def _card(context: Context, name: str, config: dict[str, Any], results: dict[str, Any]) -> str:
    """The model card."""
    what = {
        "frames": "a vision transformer on single face crops",
        "sequence": "a transformer over windows of the `frames` model's features",
    }[name]
    corpus = context.config.corpus
    data = pathlib.Path(corpus.root).name if corpus.root else f"demo corpus ({corpus.demo_size})"
    track = context.track
    steps = [
        f"{results[name + step]:.4f}{text}"
        for step, text in STEPS.items()
        if name + step in results
    ]
    several = ""
    if name == "sequence" and context.config.sequence.folds:
        single = read_json(context.folder("sequence") / "results.json")["metrics"]["single"]
        several = f" This is of the mean of all members; the model here, alone: {single:.4f}."
    return f"""# {context.config.name}: {name}

{what[0].upper() + what[1:]}, for {track.name}: {", ".join(config["classes"])}.

- Weights' licence: not chosen yet; whoever publishes them states it here.
- Training data: {data}.
- {track.score_name} on its validation set: {"; ".join(steps)}.{several}
- Chosen on that set: {json.dumps({key: config[key] for key in DECIDED if key in config})}.
- Crop: {json.dumps(config["crop"])}.

`abaw_jax.interop.export.load_predict(folder)` gives the prediction as a function.
"""
