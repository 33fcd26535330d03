"""Training step of the masked autoencoder on CPU, beside PyTorch: images a second, float32.

    python benchmarks/mae_step.py [--sizes Ti S B] [--steps 8] [--peer-python PYTHON]

A step is forward, backward and AdamW's update, at 224 pixels, patch 16, decoder 512 wide and 8
deep, mask ratio 0.75, normalised pixels. Ours is the package's own step (tasks.reconstruct,
training.step) on uint8 images, pixel normalisation and mask noise included. The peer is
transformers' `ViTMAEForPreTraining` with `torch.optim.AdamW` (its fused form) on ready float
images. `--small` times the sizes of the demo and the CPU recipes: 48 pixels, patch 8, batch 128.

Prints one JSON line a case. Both run by turns, each in its own process, on the same `--threads`
cores and under the same `GLIBC_TUNABLES`, which abaw_jax.main sets for itself. A process's figure
is the median step after two uncounted ones, the case's is the median of the repeats. `cpu_ms` is
processor time an image; where other work shares the cores, compare it with `--threads 1` (with
more, PyTorch's threads spend processor time waiting for one another). `--peer-python` names an
interpreter with torch and transformers where this one has none; without a peer, `peer` is null and
`reason` says why.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Iterator

import steps

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

# Of encoder and decoder width, depth, heads.
FIELDS = ("image", "patch", "batch_size", "encoder", "decoder")
CASES = {
    "Ti": (224, 16, 8, (192, 12, 3), (512, 8, 16)),
    "S": (224, 16, 8, (384, 12, 6), (512, 8, 16)),
    "B": (224, 16, 8, (768, 12, 12), (512, 8, 16)),
    "48px-128x4": (48, 8, 128, (128, 4, 4), (96, 2, 3)),
    "48px-192x6": (48, 8, 128, (192, 6, 3), (96, 2, 3)),
    "16px-16x1": (16, 8, 4, (16, 1, 2), (16, 1, 2)),  # for tests
}
SMALL = ("48px-128x4", "48px-192x6")
LR, BETAS, WEIGHT_DECAY = 1.5e-4, (0.9, 0.95), 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=CASES, default=["Ti", "S", "B"])
    parser.add_argument("--small", action="store_true", help=f"the sizes {', '.join(SMALL)}")
    workers = {"ours": time_ours, "peer": time_peer}
    steps.main(__file__, parser, make_cases, workers, steps=8, unit="images/s")


def make_cases(args: argparse.Namespace) -> Iterator[steps.Case]:
    peer = "transformers ViTMAEForPreTraining + torch.optim.AdamW"
    for size in SMALL if args.small else args.sizes:
        settings = dict(zip(FIELDS, CASES[size], strict=True))
        yield steps.Case(f"mae-step-{size}", peer, settings["batch_size"], settings)


def time_ours(settings: dict, count: int) -> dict:
    import numpy as np

    from abaw_jax.models.mae import MAE
    from abaw_jax.models.vit import ViT
    from abaw_jax.tasks.reconstruct import make_reconstruct_task
    from abaw_jax.tasks.task import normalise_by_channel
    from abaw_jax.training.optim import make_optimizer

    image, patch, batch_size, encoder, decoder = (settings[name] for name in FIELDS)
    model = MAE(ViT(image, patch, *encoder), *decoder)
    normalise = normalise_by_channel((0.5,) * 3, (0.25,) * 3)
    task = make_reconstruct_task(model, normalise=normalise)
    optimizer = make_optimizer(
        lr=LR, steps=1000, b1=BETAS[0], b2=BETAS[1], weight_decay=WEIGHT_DECAY
    )
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, image, image, 3), np.uint8)
    step, figures = steps.jax_step(task, optimizer, {"image": pixels})
    return steps.time_steps(step, batch_size, count) | figures


def time_peer(settings: dict, count: int) -> dict:
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    image, patch, batch_size, encoder, decoder = (settings[name] for name in FIELDS)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes = dict(zip(names, encoder, strict=True))
    sizes |= dict(zip([f"decoder_{name}" for name in names], decoder, strict=True))
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            **sizes,
            intermediate_size=4 * encoder[0],
            decoder_intermediate_size=4 * decoder[0],
            image_size=image,
            patch_size=patch,
            mask_ratio=0.75,
            norm_pix_loss=True,
            layer_norm_eps=1e-6,
        )
    )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LR, BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    pixels = torch.randn(batch_size, 3, image, image)

    def step():
        optimizer.zero_grad()
        model(pixels).loss.backward()
        optimizer.step()

    found = steps.time_steps(step, batch_size, count)
    return found | {"versions": steps.versions("torch", "transformers")}


if __name__ == "__main__":
    main()
