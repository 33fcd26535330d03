"""What describes a corpus's records: the counts of the summary, and the files that TFDS reads."""

import collections
import pathlib
import tempfile

import numpy as np

from abaw_jax.data.records import Index, Split, invalid_value
from abaw_jax.files import atomic_write

METADATA = ".metadata-"  # how the folder begins in which TFDS writes before the files are renamed


def summarise(split: Split, index: Index) -> dict:
    """Count what a split holds and what was left out of it.

    `labels` counts, per track, the valid and invalid rows, valid rows without an image
    (`label_only_rows`), images with a valid label, and for one-class tracks the rows a class.
    """
    skipped = collections.Counter(split.skipped)
    for video in split.videos:
        skipped.update(video.skipped)
    tracks = {}
    for key, labels in index.labels.items():
        valid = (labels != invalid_value(labels.dtype)).all(axis=1)
        images = int((index.record_labels(key) != invalid_value(labels.dtype)).all(axis=1).sum())
        tracks[key] = {
            "valid_rows": int(valid.sum()),
            "invalid_rows": int((~valid).sum()),
            "label_only_rows": int(valid.sum()) - images,
            "labelled_images": images,
        }
        if labels.shape[1] == 1:
            tracks[key]["rows_per_class"] = np.bincount(labels[valid, 0]).tolist()
    return {
        "videos": len(index.videos),
        "images": len(index.frames),
        "rows": int(index.rows[-1]),
        "labels": tracks,
        "skipped": {key: skipped[key] for key in sorted(skipped)},
    }


def write_metadata(
    folder: pathlib.Path, corpus: str, splits: list[Split], parts: dict[str, dict]
) -> None:
    """Write features.json and dataset_info.json, by TFDS itself."""
    import tensorflow_datasets as tfds  # costs half a second that readers need not pay

    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "video": tfds.features.Text(),
        "frame": np.int32,
    }
    for split in splits:
        for video in split.videos:
            for key, array in video.labels.items():
                features[key] = tfds.features.Tensor(shape=array.shape[1:], dtype=array.dtype)
    with tempfile.TemporaryDirectory(prefix=METADATA, dir=folder) as beside:
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=corpus, version=tfds.core.Version("1.0.0"), data_dir=beside, module_name=""
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            features=tfds.features.FeaturesDict(features),
            description=f"{corpus}: frames and labels in video order.",
        )
        info.set_file_format("array_record")
        template = tfds.core.ShardedFileTemplate(
            dataset_name=corpus, data_dir=beside, filetype_suffix="array_record"
        )
        infos = [
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=part["shards"],
                num_bytes=part["bytes"],
                filename_template=template.replace(split=name),
            )
            for name, part in parts.items()
        ]
        info.set_splits(tfds.core.splits.SplitDict(infos))
        info.write_to_directory(beside)
        for name in ("features.json", "dataset_info.json"):
            with atomic_write(folder / name) as file:
                file.write((pathlib.Path(beside) / name).read_bytes())
