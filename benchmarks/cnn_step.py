"""The convolutional encoders on CPU, beside PyTorch eager: images a second, float32.

    python benchmarks/cnn_step.py [--cases efficientnet_b0-1 ...] [--peer-python PYTHON]

Cases MODEL-N are inference with a batch of N, MODEL-train a training step: forward, backward and
Adam's update, cross-entropy of 8 classes. Random images of the size that the encoder was made for,
as bytes, scaled in the step. Ours is jitted, a training step the package's own (training.step); the
peer (cnn_peer.py) is timm's model, or one of torch.nn's layers, as PyTorch lays it out by itself;
`--channels-last` gives it that layout.

Prints one JSON line a case. Both run by turns, each in its own process, on the same `--threads`
cores, as in mae_step.py. `--peer-python` names an interpreter with torch and timm where this one
has none; without a peer, `peer` is null and `reason` says why.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import steps

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

OUTPUTS, LR = 8, 1e-4
MODELS = ("efficientnet_b0", "efficientnet_b2", "mobilevit_s", "mobilefacenet", "ddamfn")
# Model, batch, whether it is trained.
CASES = {
    **{f"{model}-{batch}": (model, batch, False) for model in MODELS for batch in (1, 32)},
    **{f"{model}-train": (model, 16, True) for model in ("efficientnet_b0", "mobilevit_s")},
    "tiny-1": ("tiny", 1, False),  # for tests
    "tiny-train": ("tiny", 2, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if not name.startswith("tiny")]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=cases)
    parser.add_argument("--channels-last", action="store_true", help="the peer's layout")
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    steps.add_options(parser, steps=5)
    args = parser.parse_args()
    if args.worker:
        worker = {"ours": time_ours, "peer": time_peer}[args.worker]
        print(json.dumps(worker(json.loads(args.settings), args.steps)))
        return
    for name in args.cases:
        settings = make_settings(name, args.channels_last)
        line = steps.compare(
            __file__,
            f"cnn-{name}",
            "PyTorch eager" + (", channels last" if args.channels_last else ""),
            settings["batch_size"],
            ["--settings", json.dumps(settings)],
            args,
            unit="images/s",
        )
        print(json.dumps(line), flush=True)


def make_settings(name: str, channels_last: bool) -> dict:
    """What both workers are told of a case."""
    model, batch_size, train = CASES[name]
    _, pixels = make_encoder(model)
    return {
        "model": model,
        "batch_size": batch_size,
        "train": train,
        "channels_last": channels_last,
        "outputs": OUTPUTS,
        "lr": LR,
        **pixels._asdict(),
    }


def make_encoder(model: str):
    """(an encoder, the pixels it takes)."""
    from abaw_jax.models import ddamfn, efficientnet, mobilefacenet, mobilevit

    if model == "tiny":
        stages = (mobilefacenet.Stage(16, 16, 1, 16),)
        pixels = mobilefacenet.PIXELS["default"]._replace(size=16)
        return mobilefacenet.MobileFaceNet(stages=stages), pixels
    family, kind, size = {
        "efficientnet_b0": (efficientnet, efficientnet.EfficientNet, "B0"),
        "efficientnet_b2": (efficientnet, efficientnet.EfficientNet, "B2"),
        "mobilevit_s": (mobilevit, mobilevit.MobileViT, "S"),
        "mobilefacenet": (mobilefacenet, mobilefacenet.MobileFaceNet, "default"),
        "ddamfn": (ddamfn, ddamfn.DDAMFN, "default"),
    }[model]
    return kind(**family.SIZES[size]), family.PIXELS[size]


def make_batch(settings: dict) -> dict[str, np.ndarray]:
    rng, count, size = np.random.default_rng(0), settings["batch_size"], settings["size"]
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
        "label": rng.integers(0, settings["outputs"], (count, 1), np.int32),
    }


def time_ours(settings: dict, count: int) -> dict:
    from abaw_jax.models.heads import FrameClassifier
    from abaw_jax.tasks.frames import make_frames_task
    from abaw_jax.tasks.task import normalise_by_channel
    from abaw_jax.tracks import TRACKS
    from abaw_jax.training.optim import make_optimizer

    model = FrameClassifier(make_encoder(settings["model"])[0], settings["outputs"], "none")
    normalise = normalise_by_channel(settings["mean"], settings["std"])
    task = make_frames_task(model, TRACKS["expr"], normalise=normalise)
    batch = make_batch(settings)
    if settings["train"]:
        optimizer = make_optimizer(steps=100, name="adam", lr=settings["lr"], schedule="constant")
        step, figures = steps.jax_step(task, optimizer, batch)
    else:
        step, figures = jax_inference(task, batch["image"])
    return steps.time_steps(step, settings["batch_size"], count) | figures


def jax_inference(task, images: np.ndarray):
    """(inference on the images, what to add to its figures)."""
    import jax

    params, model_state = jax.jit(task.init)(jax.random.key(0), {"image": images})
    start = time.perf_counter()
    predict = jax.jit(lambda *state, image: task.predict(*state, {"image": image}))
    compiled = predict.lower(params, model_state, image=images).compile()
    seconds = time.perf_counter() - start

    def infer():
        jax.block_until_ready(compiled(params, model_state, image=images))

    names = steps.versions("jax", "jaxlib", "flax") | {"python": sys.version.split()[0]}
    return infer, {"compile_seconds": seconds, "versions": names}


def time_peer(settings: dict, count: int) -> dict:
    from cnn_peer import make_step

    step = make_step(settings, make_batch(settings), len(os.sched_getaffinity(0)))
    found = steps.time_steps(step, settings["batch_size"], count)
    timm = settings["model"].startswith(("efficientnet", "mobilevit"))
    return found | {"versions": steps.versions("torch", *(["timm"] if timm else []))}


if __name__ == "__main__":
    main()
