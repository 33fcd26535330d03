"""Stage `pretrain`: images -> a masked autoencoder; makes pretrain/model.

The images are the training crops of the corpus and all of `pretrain.corpora`. With 0 epochs
nothing is trained and fine-tuning starts from random weights; nor is anything trained where
`finetune.encoder` names an encoder that is finished, or `finetune.start` weights to start from.
"""

from collections.abc import Sequence

import jax
import numpy as np

from abaw_jax.data.pipeline import image_batches
from abaw_jax.data.records import Records, open_records
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages.encoder import is_pretrained
from abaw_jax.stages.parts import (
    count_steps,
    make_pretrain_task,
    make_schedule_optimizer,
    make_transforms,
)
from abaw_jax.training.loop import train


class Chain(Sequence):
    """Records of several corpora behind one another."""

    def __init__(self, parts: Sequence[Records]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> bytes:
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - (int(self.ends[part - 1]) if part else 0)]


def run(context: Context) -> dict:
    """Train the autoencoder; there is no score, its loss is in metrics.jsonl."""
    config, folder = context.config, context.folder("pretrain")
    section = config.pretrain
    if not is_pretrained(config):
        return {"metrics": {}, "samples": 0}
    prepared = context.folder("prepare")
    records = Chain(
        [open_records(prepared / "records", "train")]
        + [open_records(prepared / "images" / name, "train") for name in section.corpora]
    )
    steps, epoch = count_steps(section, len(records))
    result = train(
        make_pretrain_task(config),
        make_batches=lambda start: image_batches(
            records,
            np.arange(len(records)),
            None,
            batch_size=section.batch_size,
            transform=make_transforms(config)["pretrain"],
            seed=config.seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
        ),
        optimizer=make_schedule_optimizer(section, len(records)),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=config.seed,
        accumulate=section.accumulate,
        save_every=max(round(epoch), 1),
        label="pretrain",
    )
    save_model(
        folder / "model",
        {"params": result.params},
        {"kind": "mae", **context.section("image", "encoder", "pretrain")},
    )
    return {
        "metrics": result.figures(),
        "samples": len(records),
        "content": content_hash(folder / "model"),
    }
