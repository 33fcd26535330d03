"""The convolutional encoders on CPU, beside PyTorch: images a second, float32.

    python benchmarks/cnn_step.py [--cases efficientnet_b0-1 ...] [--peer-python PYTHON]

Cases MODEL-N are inference with a batch of N, beside PyTorch eager; MODEL-N-onnx the same of our
ONNX file and of PyTorch's, both in ONNX Runtime, weights random and images scaled in the file;
MODEL-train is a training step: forward, backward and Adam's update, cross-entropy of 8 classes.
Random images of the size that the encoder was made for, as bytes, scaled in the step. Ours is
jitted, a training step the package's own (training.step); the peer (cnn_peer.py) is timm's model,
or one of torch.nn's layers, as PyTorch lays it out by itself; `--channels-last` gives it that
layout.

Prints one JSON line a case. Both run by turns, each in its own process, on the same `--threads`
cores, as in mae_step.py; an ONNX file is written once, in a process of its own, and a runtime's
`compile_seconds` is the time to open it. `--peer-python` names an interpreter with torch and timm
where this one has none; without a peer, `peer` is null and `reason` says why. ONNX cases need the
extra `onnx` and jax2onnx here (docs/weights.md), and onnx, onnxscript and onnxruntime there.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import steps

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

OUTPUTS, LR = 8, 1e-4
MODELS = ("efficientnet_b0", "efficientnet_b2", "mobilevit_s", "mobilefacenet", "ddamfn")
# Model, batch, what is timed.
CASES = {
    **{f"{model}-{batch}": (model, batch, "eager") for model in MODELS for batch in (1, 32)},
    **{f"{model}-{batch}-onnx": (model, batch, "onnx") for model in MODELS for batch in (1, 32)},
    **{f"{model}-train": (model, 16, "train") for model in ("efficientnet_b0", "mobilevit_s")},
    # For tests.
    "tiny-1": ("tiny", 1, "eager"),
    "tiny-1-onnx": ("tiny", 1, "onnx"),
    "tiny-train": ("tiny", 2, "train"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if not name.startswith("tiny")]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=cases)
    parser.add_argument("--channels-last", action="store_true", help="the peer's layout")
    workers = {"ours": time_ours, "peer": time_peer}
    steps.main(__file__, parser, make_cases, workers, steps=5, unit="images/s")


def make_cases(args: argparse.Namespace) -> Iterator[steps.Case]:
    """`settings` are the names of a case, its pixels, and of ONNX where the files lie."""
    for name in args.cases:
        model, batch_size, mode = CASES[name]
        _, pixels = make_encoder(model)
        settings = {
            "model": model,
            "batch_size": batch_size,
            "mode": mode,
            "channels_last": args.channels_last,
            "outputs": OUTPUTS,
            "lr": LR,
            **pixels._asdict(),
        }
        peer = "PyTorch's graph, ONNX Runtime" if mode == "onnx" else "PyTorch eager"
        peer += ", channels last" if args.channels_last and mode != "onnx" else ""
        with tempfile.TemporaryDirectory() as folder:
            yield steps.Case(f"cnn-{name}", peer, batch_size, settings | {"folder": folder})


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


def make_task(settings: dict):
    from abaw_jax.models.heads import FrameClassifier
    from abaw_jax.tasks.frames import make_frames_task
    from abaw_jax.tasks.task import normalise_by_channel
    from abaw_jax.tracks import TRACKS

    model = FrameClassifier(make_encoder(settings["model"])[0], settings["outputs"], "none")
    normalise = normalise_by_channel(settings["mean"], settings["std"])
    return make_frames_task(model, TRACKS["expr"], normalise=normalise)


def time_ours(settings: dict, count: int) -> dict:
    from abaw_jax.training.optim import make_optimizer

    batch = make_batch(settings)
    if settings["mode"] == "onnx":
        step, figures = onnx_inference(settings, batch["image"])
    elif settings["mode"] == "train":
        optimizer = make_optimizer(steps=100, name="adam", lr=settings["lr"], schedule="constant")
        step, figures = steps.jax_step(make_task(settings), optimizer, batch)
    else:
        step, figures = jax_inference(make_task(settings), batch["image"])
    return steps.time_steps(step, settings["batch_size"], count) | figures


def write_onnx(settings: dict, file: pathlib.Path) -> None:
    """Our model with random weights as an ONNX file, for any number of images."""
    import jax

    from abaw_jax.interop.export import make_prediction
    from abaw_jax.interop.onnx import make_onnx

    task, images = make_task(settings), make_batch(settings)["image"]
    params, model_state = jax.jit(task.init)(jax.random.key(0), {"image": images})

    def make_inputs(count):
        return {"image": jax.ShapeDtypeStruct((count, *images.shape[1:]), images.dtype)}

    variables = {"params": params, **model_state}
    made = make_onnx(make_prediction(task), variables, make_inputs, settings["model"])
    file.write_bytes(made.program)


def onnx_inference(settings: dict, images: np.ndarray):
    """(inference by our file in ONNX Runtime, what to add to its figures)."""
    from abaw_jax.interop.onnx import load_onnx

    file = steps.made_once(write_onnx, settings, "ours.onnx")
    start = time.perf_counter()
    predict = load_onnx(file, threads=len(os.sched_getaffinity(0)))
    seconds = time.perf_counter() - start
    names = steps.versions("onnxruntime", "jax2onnx") | {"python": sys.version.split()[0]}
    figures = {"compile_seconds": seconds, "versions": names}
    return lambda: predict({"image": images}), figures


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
    import cnn_peer

    batch, threads = make_batch(settings), len(os.sched_getaffinity(0))
    names = ["torch"]
    if settings["mode"] == "onnx":
        file = steps.made_once(cnn_peer.write_onnx, settings, "peer.onnx")
        step = cnn_peer.make_runtime_step(file, batch, threads)
        names.append("onnxruntime")
    else:
        step = cnn_peer.make_step(settings, batch, threads)
    if settings["model"].startswith(("efficientnet", "mobilevit")):
        names.append("timm")
    found = steps.time_steps(step, settings["batch_size"], count)
    return found | {"versions": steps.versions(*names)}


if __name__ == "__main__":
    main()
