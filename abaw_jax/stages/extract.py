"""Stage `extract`: crops -> features and predictions of every frame; features of sound and words.

Makes extract/features/<split> (a feature store) and extract/predictions/<split>, a file a video;
of further views extract/<view> and extract/predictions_<view>, and of the other modalities that the
sequence model is to have, extract/<modality>/<split>; of these `scores.py` makes the scores.
Where labels are of clips, a prediction is one row, the mean over the clip's crops; a clip without
any takes the mean label of the training clips. Where the frame classifier is of another track than
the config's (`encoder.py`) there are features alone, and no score. An interrupted pass goes on at
the first video that lacks a file.
"""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from abaw_jax.data.features import save_feature_settings, save_features
from abaw_jax.data.pipeline import image_epoch
from abaw_jax.data.records import Index, load_index, open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.smoothing import Smoothing, search_smoothing
from abaw_jax.files import read_json
from abaw_jax.interop.archive import content_hash, load_model
from abaw_jax.interop.export import make_task
from abaw_jax.recipe import Context
from abaw_jax.stages.encoder import frames_track
from abaw_jax.stages.modalities import extract_modality
from abaw_jax.stages.parts import make_encoder
from abaw_jax.stages.scores import SCORES, extract_scores
from abaw_jax.stages.text import count_cut, is_learnt
from abaw_jax.stages.views import features_folder, predictions_folder, tuning_folder
from abaw_jax.tracks.track import Track
from abaw_jax.training.step import make_predict


def splits(context: Context) -> list[str]:
    """The splits that were prepared."""
    return list(read_json(context.folder("prepare") / "records" / "summary.json")["splits"])


def video_rows(index: Index, track: Track) -> dict[str, int]:
    """How many rows are predicted of each video of a split: its annotation rows, or 1 of a clip."""
    counts = np.diff(index.rows).tolist()
    return {v: 1 if track.per_clip else n for v, n in zip(index.videos, counts, strict=True)}


def video_labels(index: Index, track: Track) -> dict[str, np.ndarray]:
    """Label rows (rows, W) of each video of a split, (1, W) of a clip."""
    labels, first = index.labels[track.key], index.rows[:-1].tolist()
    rows = video_rows(index, track)
    return {v: labels[i : i + rows[v]] for v, i in zip(index.videos, first, strict=True)}


def mean_label(context: Context) -> np.ndarray:
    """Values (1, K) of the mean label of the training clips."""
    index = load_index(context.folder("prepare") / "records", "train")
    labels = np.concatenate(list(video_labels(index, context.track).values()))
    labels = labels[context.track.valid(labels)].astype(np.float64)
    return context.track.encode(labels.mean(axis=0, keepdims=True))


def run(context: Context) -> dict:
    """Extract every split; the score is that of single frames on validation, gaps filled, or of
    clips by the mean over their frames."""
    config, track = context.config, context.track
    face = tuning_folder(context, FACE) / "model"
    task, _ = make_task(read_json(face / "config.json"), face)  # those of further views are alike
    predict = make_predict(task, context.mesh)
    for view in config.finetune.views:
        model = tuning_folder(context, view) / "model"
        # Once, not with every batch.
        variables = jax.device_put(
            load_model(model)[0], NamedSharding(context.mesh, PartitionSpec())
        )
        counts = [
            _extract_split(context, view, split, predict, variables, content_hash(model))
            for split in splits(context)
        ]
    if SCORES in config.sequence.modalities:
        extract_scores(context, splits(context))
    others = set(config.sequence.modalities) - {*config.finetune.views, SCORES}
    without = {
        f"videos_without_{name}": extract_modality(context, name, splits(context))
        for name in config.sequence.modalities
        if name in others
    }
    if is_learnt(config) and track.per_clip:
        without["clips_with_cut_text"] = count_cut(context, splits(context))
    outcome = {"split": "validation", "metrics": without, "samples": sum(counts)}
    if frames_track(context) is not track:
        return outcome
    index = load_index(context.folder("prepare") / "records", "validation")
    search = search_smoothing(
        load_predictions(predictions_folder(context, FACE) / "validation", track),
        video_labels(index, track),
        track,
        [Smoothing()],
    )
    metrics = {k: v for k, v in search.table[0].items() if isinstance(v, float)}
    return outcome | {"score": search.score, "metrics": metrics | without}


def _extract_split(context: Context, view: str, split: str, predict, variables, encoder) -> int:
    """One pass over a view of the crops from the first video that is not done; returns how many
    crops the split has.

    The batches are those of a pass that was not interrupted: how a product is rounded may depend
    on where in its batch a crop lies, and so would all that is trained on the features.
    """
    source, config, track = context.folder("prepare") / "records", context.config, context.track
    index = load_index(source, split)
    features = features_folder(context, view) / split
    predictions = predictions_folder(context, view) / split
    predicted = frames_track(context) is track
    wanted = [features, predictions] if predicted else [features]
    done = [all((place / f"{name}.npz").exists() for place in wanted) for name in index.videos]
    first = [*done, False].index(False)
    size, total = config.extract.batch_size, len(index.frames)
    at = int(index.first[first]) // size * size  # the record that `kept` begins with
    outputs = iter(())
    if at < total:
        batches = image_epoch(
            open_records(source, split),
            np.arange(at, total),
            batch_size=size,
            transform=make_eval_transform(config.image.size, VIEWS[view]),
            threads=config.threads,
        )
        state = {k: v for k, v in variables.items() if k != "params"}
        outputs = predict(variables["params"], state, batches)
    unseen = mean_label(context) if track.per_clip and predicted else None
    width = make_encoder(config).width
    kept = {"features": np.zeros((0, width), np.float32)}
    if predicted:
        kept["probabilities"] = np.zeros((0, track.outputs), np.float32)
    with tqdm(
        initial=int(index.first[first]), total=total, desc=f"extract {view} {split}", unit="images"
    ) as progress:
        for v in range(first, len(index.videos)):
            video, begin, end = index.videos[v], int(index.first[v]), int(index.first[v + 1])
            parts, count = [kept], len(kept["features"])
            while count < end - at:  # joined once: an image set is one video of 400,000
                batch, output = next(outputs)
                parts.append({k: output[k][batch["mask"]] for k in kept})
                count += len(parts[-1]["features"])
            kept = {k: np.concatenate([part[k] for part in parts]) for k in kept}
            frames = index.frames[begin:end]
            taken = {k: a[begin - at : end - at] for k, a in kept.items()}
            kept, at = {k: a[end - at :] for k, a in kept.items()}, end
            save_features(features, video, frames, taken["features"])
            progress.update(end - begin)
            if not predicted:
                continue
            values = taken["probabilities"]
            if track.per_clip:
                frames, known = np.ones(1, np.int32), values if len(values) else unseen
                values = known.mean(axis=0, keepdims=True, dtype=np.float64)
            save_prediction(predictions, video, frames, values, track.classes)
    save_feature_settings(
        features,
        encoder=encoder,
        width=width,
        source_hash=index.content_hash(),
    )
    return total
