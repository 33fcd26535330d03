"""The kinds of models that are exported, as small as they come."""

import jax
import numpy as np

from abaw_jax.interop.export import make_task
from abaw_jax.tracks.emi import EMI
from abaw_jax.tracks.expr import EXPR

SIZE, LENGTH, WIDTH = 16, 8, 16
FRAMES = {
    "kind": "frame_classifier",
    "track": "EXPR",
    "classes": list(EXPR.classes),
    "image": {
        "size": SIZE, "normalise": "channel", "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.3, 0.3],
    },
    "encoder": {
        "patch_size": 8, "width": WIDTH, "depth": 1, "heads": 2, "drop_path": 0.0,
        "dtype": "float32", "remat": False,
    },
    "finetune": {
        "pooling": "mean", "dropout": 0.1, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0,
    },
}  # fmt: skip
SEQUENCE = {
    "kind": "sequence_model",
    "track": "EXPR",
    "classes": list(EXPR.classes),
    "features": {"encoder": "0123456789abcdef", "width": WIDTH},
    "sequence": {
        "length": LENGTH, "width": 16, "depth": 1, "heads": 2, "mlp_width": 16, "head_width": 8,
        "dropout": 0.1, "activation": "relu", "positions": "alibi", "feature_dropout": 0.0,
        "label_smoothing": 0.0,
    },
}  # fmt: skip
LAST = SEQUENCE | {
    "sequence": SEQUENCE["sequence"]
    | {"head": "last", "join": [16, 8], "tcn": [8, 16], "project": False, "positions": "none"}
}
BRANCHES = SEQUENCE | {
    "kind": "two_branches",
    "sequence": SEQUENCE["sequence"]
    | {"collaborate": {"epochs": 1.0, "hard": 0.25, "beta": [5.0, 2.0], "share": 0.8}},
}
CLIPS = {
    "kind": "sequence_model",
    "track": "EMI",
    "classes": list(EMI.classes),
    "features": {
        "width": WIDTH + 4,
        "modalities": {
            "face": {"encoder": "0123456789abcdef", "width": WIDTH},
            "sound": {"encoder": "log_mel_2", "width": 4, "steps": 5},
        },
    },
    "sequence": {
        "model": "gru", "length": LENGTH, "width": 4, "mlp_width": 6, "head_width": 5,
        "dropout": 0.5, "feature_dropout": 0.0, "label_smoothing": 0.0,
    },
}  # fmt: skip
PIXELS = {
    **FRAMES,
    **SEQUENCE,
    "features": {"width": 3, "modalities": {"sound": {"width": 3}}},
    "sequence": SEQUENCE["sequence"] | {"pixels": True, "frozen_blocks": 0},
}
CONFIGS = {
    "frames": FRAMES,
    "sequence": SEQUENCE,
    "last": LAST,
    "branches": BRANCHES,
    "clips": CLIPS,
    "pixels": PIXELS,
}


def small_model(name):
    """(task, variables drawn at random, config)."""
    config, rng = CONFIGS[name], np.random.default_rng(0)
    task, shapes = make_task(config, name)
    # Above 0, as variances are.
    variables = jax.tree.map(lambda s: rng.uniform(0.01, 0.5, s.shape).astype(s.dtype), shapes)
    return task, variables, config


def small_inputs(name, count):
    """What the model is given, for `count` examples; windows end in padding."""
    rng = np.random.default_rng(count)
    if name == "frames":
        return {"image": rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)}
    if name == "clips":
        shapes = {"features": (LENGTH, WIDTH + 1), "features/sound": (5, 4)}
        inputs = {k: rng.standard_normal((count, *s), np.float32) for k, s in shapes.items()}
        for values in inputs.values():
            values[..., -1] = np.arange(values.shape[1]) < rng.integers(0, 6, (count, 1))
        return inputs
    lengths, width = rng.integers(1, LENGTH + 1, count), CONFIGS[name]["features"]["width"]
    inputs = {
        "features": rng.standard_normal((count, LENGTH, width), np.float32),
        "mask": np.arange(LENGTH) < lengths[:, None],
    }
    if name == "pixels":
        image = rng.integers(0, 256, (count, LENGTH, SIZE, SIZE, 3), np.uint8)
        inputs |= {"image": image, "seen": inputs["mask"]}
    return inputs
