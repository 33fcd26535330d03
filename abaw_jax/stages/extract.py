"""Stage `extract`: crops -> features and predictions of every frame.

Makes extract/features/<split> (a feature store) and extract/predictions/<split>, a file a video.
A video whose two files exist is not done again.
"""

import pathlib

import numpy as np
from tqdm import tqdm

from abaw_jax.data.features import save_feature_settings, save_features
from abaw_jax.data.pipeline import image_epoch
from abaw_jax.data.records import Index, load_index, open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.smoothing import Smoothing, search_smoothing
from abaw_jax.files import read_json
from abaw_jax.interop.archive import content_hash, load_model
from abaw_jax.recipe import Context
from abaw_jax.stages.parts import make_finetune_task
from abaw_jax.training.step import make_predict


def splits(context: Context) -> list[str]:
    """The splits that were prepared."""
    return list(read_json(context.folder("prepare") / "records" / "summary.json")["splits"])


def video_labels(index: Index, key: str) -> dict[str, np.ndarray]:
    """Label rows (rows, W) of each video of a split."""
    rows = index.rows
    return {v: index.labels[key][rows[i] : rows[i + 1]] for i, v in enumerate(index.videos)}


def run(context: Context) -> dict:
    """Extract every split; the score is that of single frames on validation, gaps filled."""
    folder, track = context.folder("extract"), context.track
    variables, _ = load_model(context.folder("finetune") / "model")
    predict = make_predict(make_finetune_task(context.config, track), context.mesh)
    encoder = content_hash(context.folder("finetune") / "model")
    count = 0
    for split in splits(context):
        count += _extract_split(context, folder, split, predict, variables, encoder)
    index = load_index(context.folder("prepare") / "records", "validation")
    search = search_smoothing(
        load_predictions(folder / "predictions" / "validation", track),
        video_labels(index, track.key),
        track,
        [Smoothing(gaps=context.config.ensemble.gaps)],
    )
    metrics = {k: v for k, v in search.table[0].items() if isinstance(v, float)}
    return {"split": "validation", "score": search.score, "metrics": metrics, "samples": count}


def _extract_split(context, folder: pathlib.Path, split, predict, variables, encoder) -> int:
    """One pass over the crops of the videos that are not done; returns the split's crops."""
    source, config, track = context.folder("prepare") / "records", context.config, context.track
    index = load_index(source, split)
    features, predictions = folder / "features" / split, folder / "predictions" / split
    spans = {
        name: np.arange(index.first[v], index.first[v + 1])
        for v, name in enumerate(index.videos)
        if not ((features / f"{name}.npz").exists() and (predictions / f"{name}.npz").exists())
    }
    outputs = iter(())
    if any(map(len, spans.values())):
        batches = image_epoch(
            open_records(source, split),
            np.concatenate(list(spans.values())),
            batch_size=config.extract.batch_size,
            transform=make_eval_transform(config.image.size),
            threads=config.threads,
        )
        state = {k: v for k, v in variables.items() if k != "params"}
        outputs = predict(variables["params"], state, batches)
    kept = {
        "features": np.zeros((0, config.encoder.width), np.float32),
        "probabilities": np.zeros((0, track.outputs), np.float32),
    }
    total = sum(map(len, spans.values()))
    with tqdm(total=total, desc=f"extract {split}", unit="images") as progress:
        for video, span in spans.items():
            while len(kept["features"]) < len(span):
                batch, output = next(outputs)
                real = batch["mask"]
                kept = {k: np.concatenate([v, output[k][real]]) for k, v in kept.items()}
            frames, taken = index.frames[span], {k: v[: len(span)] for k, v in kept.items()}
            kept = {k: v[len(span) :] for k, v in kept.items()}
            save_features(features, video, frames, taken["features"])
            save_prediction(predictions, video, frames, taken["probabilities"], track.classes)
            progress.update(len(span))
    save_feature_settings(
        features,
        encoder=encoder,
        width=config.encoder.width,
        source_hash=index.content_hash(),
    )
    return len(index.frames)
