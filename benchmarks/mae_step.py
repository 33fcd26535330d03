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
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

# image, patch, batch, (width, depth, heads) of encoder and decoder.
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
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker = {"ours": time_ours, "peer": time_peer}[args.worker]
        print(json.dumps(worker(CASES[args.sizes[0]], args.steps)))
        return
    for size in SMALL if args.small else args.sizes:
        print(json.dumps(compare(size, args)), flush=True)


def compare(size: str, args: argparse.Namespace) -> dict:
    """Time both by turns; the result line of one case."""
    ours, peer, reason = [], [], None
    for _ in range(args.repeats):
        ours.append(run_worker("ours", sys.executable, size, args))
        if reason is None:
            try:
                peer.append(run_worker("peer", args.peer_python, size, args))
            except RuntimeError as error:
                reason = str(error)

    def median(runs, key):
        return statistics.median(run[key] for run in runs) if runs else None

    def rounded(value, digits):
        return None if value is None else round(value, digits)

    rate, peer_rate = median(ours, "rate"), median(peer, "rate")
    line = {
        "case": f"mae-step-{size}",
        "ours": rounded(rate, 2),
        "unit": "images/s",
        "peer": rounded(peer_rate, 2),
        "ratio": rounded(rate / peer_rate, 2) if peer else None,
        "peer_name": "transformers ViTMAEForPreTraining + torch.optim.AdamW",
        "ours_all": [round(run["rate"], 2) for run in ours],
        "peer_all": [round(run["rate"], 2) for run in peer],
        "ours_cpu_ms": rounded(median(ours, "cpu_ms"), 2),
        "peer_cpu_ms": rounded(median(peer, "cpu_ms"), 2),
        "batch_size": CASES[size][2],
        "steps": args.steps,
        "threads": args.threads,
        "glibc_tunables": environment(args.threads).get("GLIBC_TUNABLES"),
        "versions": ours[0]["versions"] | (peer[0]["versions"] if peer else {}),
    }
    return line if reason is None else line | {"reason": reason}


def environment(threads: int) -> dict:
    from abaw_jax.memory import TUNABLES

    own = {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    return {"GLIBC_TUNABLES": TUNABLES, **os.environ, **own}


def run_worker(name: str, python: str, size: str, args: argparse.Namespace) -> dict:
    """Run one timing in its own process. Raises RuntimeError with the last line it printed."""
    command = [python, __file__, "--worker", name, "--sizes", size, "--steps", str(args.steps)]
    cores = sorted(os.sched_getaffinity(0))
    if args.threads > len(cores):
        sys.exit(f"benchmarks/mae_step.py: --threads {args.threads}, but {len(cores)} cores")
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment(args.threads),
            preexec_fn=lambda: os.sched_setaffinity(0, cores[: args.threads]),
        )
    except OSError as error:
        raise RuntimeError(f"{python}: {error.strerror}") from error
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        if name == "ours":
            sys.exit(f"benchmarks/mae_step.py: {size} failed: {last}")
        raise RuntimeError(f"{python}: {last}")
    return json.loads(run.stdout.splitlines()[-1])


def time_steps(step, batch_size: int, steps: int) -> dict:
    """Median images a second and processor milliseconds an image, after two uncounted steps."""
    wall, cpu = [], []
    for n in range(steps + 2):
        start = time.perf_counter(), time.process_time()
        step()
        if n >= 2:
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    return {
        "rate": batch_size / statistics.median(wall),
        "cpu_ms": 1e3 * statistics.median(cpu) / batch_size,
    }


def time_ours(case: tuple, steps: int) -> dict:
    import jax
    import numpy as np

    from abaw_jax.models.mae import MAE
    from abaw_jax.models.vit import ViT
    from abaw_jax.tasks.reconstruct import make_reconstruct_task
    from abaw_jax.tasks.task import normalise_by_channel
    from abaw_jax.training.optim import make_optimizer
    from abaw_jax.training.partition import make_mesh
    from abaw_jax.training.step import abstract_state, jit_train_step, make_train_step, put_batch

    image, patch, batch_size, encoder, decoder = case
    model = MAE(ViT(image, patch, *encoder), *decoder)
    normalise = normalise_by_channel((0.5,) * 3, (0.25,) * 3)
    task = make_reconstruct_task(model, normalise=normalise)
    optimizer = make_optimizer(
        lr=LR, steps=1000, b1=BETAS[0], b2=BETAS[1], weight_decay=WEIGHT_DECAY
    )
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, image, image, 3), np.uint8)
    mesh = make_mesh()
    init, abstract = abstract_state(task, optimizer, seed=0, batch={"image": pixels}, mesh=mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    train_step = jit_train_step(make_train_step(task, optimizer, seed=0), shardings, mesh)
    state = init()

    def step():
        nonlocal state
        state, metrics = train_step(state, put_batch({"image": pixels}, mesh))
        jax.block_until_ready((state, metrics))

    found = time_steps(step, batch_size, steps)
    names = ("jax", "jaxlib", "flax", "optax")
    versions = {name: importlib.metadata.version(name) for name in names}
    return found | {"versions": versions | {"python": sys.version.split()[0]}}


def time_peer(case: tuple, steps: int) -> dict:
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    image, patch, batch_size, encoder, decoder = case
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

    found = time_steps(step, batch_size, steps)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return found | {"versions": versions}


if __name__ == "__main__":
    main()
