"""The modality `scores`: what the heads of the frame classifier say of each crop, as logits.

Those of its own track, then of the further ones, as their order in its `config.json` has it:
`hsemotion` (arXiv 2403.11590) takes the 8 expressions, valence and arousal of encoders that learnt
them. They are an affine function of the features that the stage `extract` keeps, and are made of
these: extract/scores/<split>, a feature store.
"""

import numpy as np

from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.records import load_index
from abaw_jax.data.views import FACE
from abaw_jax.interop.archive import content_hash, load_model
from abaw_jax.recipe import Context
from abaw_jax.stages.views import features_folder, tuning_folder

SCORES = "scores"


def extract_scores(context: Context, splits: list[str]) -> None:
    """Write the stores of all splits, from those of the face's features."""
    model = tuning_folder(context, FACE) / "model"
    variables, config = load_model(model)
    names = ["head", *(f"head_{key}" for key in config.get("also", {}))]
    heads = [variables["params"][name] for name in names]
    kernel = np.concatenate([head["kernel"] for head in heads], axis=1)
    bias = np.concatenate([head["bias"] for head in heads])
    for split in splits:
        source = features_folder(context, FACE) / split
        folder = context.folder("extract") / SCORES / split
        store = FeatureStore(source, encoder=content_hash(model))
        for video in load_index(context.folder("prepare") / "records", split).videos:
            save_features(folder, video, store.frames(video), store.read(video) @ kernel + bias)
        save_feature_settings(
            folder,
            encoder=store.settings["encoder"],
            width=len(bias),
            source_hash=store.settings["source_hash"],
        )
