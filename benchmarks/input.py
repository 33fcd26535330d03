"""Input rate: augmented 224-pixel images a second on this machine, beside a PyTorch DataLoader.

    python benchmarks/input.py [--images 4000] [--threads 2] [--repeats 3] [--peer-python PYTHON]

Writes its own corpus into a temporary folder: noisy drawings as JPEGs of 112 pixels, the size of
Aff-Wild2's aligned crops, once as ArrayRecord and once as files. Prints one JSON line a case:

    pretrain   random resized crop (0.2 - 1.0) and flip
    train      mild crop, rotation, flip, colour jitter, erasing
    eval       the whole image resized

The peer is what one would write in PyTorch: a map-style Dataset over the JPEG files, Pillow for
decoding and augmentation (bicubic), shuffled, two worker processes. Both give uint8 batches of
the same shape; neither normalises. The two are timed by turns, each in its own process, one
uncounted batch first; a figure is the median of the repeats. `--peer-python` names an interpreter
with torch, numpy and Pillow where this one has none; without a peer, `peer` is null and `reason`
says why.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

SIZE = 224
CASES = ("pretrain", "train", "eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000, help="images in the corpus")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="our threads, the peer's workers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker = {"ours": time_ours, "peer": time_peer}[args.worker]
        print(json.dumps(worker(pathlib.Path(args.folder), args.cases[0], args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_images(pathlib.Path(folder), args.images)
        for case in args.cases:
            print(json.dumps(compare(folder, case, args)), flush=True)


def compare(folder: str, case: str, args: argparse.Namespace) -> dict:
    """Time both by turns; the result line of one case."""
    ours, peer, versions, reason = [], [], {}, None
    for _ in range(args.repeats):
        found = run_worker("ours", sys.executable, folder, case, args)
        ours.append(found["rate"])
        versions |= found["versions"]
        if reason is None:
            try:
                found = run_worker("peer", args.peer_python, folder, case, args)
            except RuntimeError as error:
                reason = str(error)
                continue
            peer.append(found["rate"])
            versions |= found["versions"]
    line = {
        "case": f"input-{case}-{SIZE}",
        "ours": round(statistics.median(ours), 1),
        "unit": "images/s",
        "peer": round(statistics.median(peer), 1) if peer else None,
        "ratio": round(statistics.median(ours) / statistics.median(peer), 2) if peer else None,
        "peer_name": "PyTorch DataLoader + Pillow",
        "ours_all": [round(rate, 1) for rate in ours],
        "peer_all": [round(rate, 1) for rate in peer],
        "images": args.images,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
    }
    return line if reason is None else line | {"reason": reason}


def run_worker(name: str, python: str, folder: str, case: str, args: argparse.Namespace) -> dict:
    """Run one timing in its own process. Raises RuntimeError with the last line it printed."""
    command = [python, __file__, "--worker", name, "--folder", folder, "--cases", case]
    command += ["--threads", str(args.threads), "--batch-size", str(args.batch_size)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise RuntimeError(f"{python}: {error.strerror}") from error
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        if name == "ours":
            sys.exit(f"benchmarks/input.py: {case} failed: {last}")
        raise RuntimeError(f"{python}: {last}")
    return json.loads(run.stdout.splitlines()[-1])


def write_images(folder: pathlib.Path, count: int) -> None:
    """Draw `count` JPEGs and store them as files and as records."""
    import cv2
    import numpy as np
    import simplejpeg

    from abaw_jax.data import records

    rng = np.random.default_rng(0)
    frames = []
    (folder / "files").mkdir()
    for n in range(1, count + 1):
        image = cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (112, 112))
        cv2.ellipse(image, (56, 60), (34, 44), 0, 0, 360, rng.integers(256, size=3).tolist(), -1)
        noise = rng.integers(-12, 13, image.shape, np.int16)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        data = simplejpeg.encode_jpeg(image, quality=90, colorsubsampling="420")
        (folder / "files" / f"{n:05d}.jpg").write_bytes(data)
        frames.append((n, data))
    split = records.Split("train", [records.Video("drawn", frames, 0)])
    records.write_corpus(folder / "records", "drawn", [split], progress=False)


def time_ours(folder: pathlib.Path, case: str, args: argparse.Namespace) -> dict:
    import importlib.metadata

    import numpy as np

    from abaw_jax.data import pipeline, records, transforms

    source = records.open_records(folder / "records", "train")
    transform = {
        "pretrain": transforms.make_pretrain_transform,
        "train": transforms.make_train_transform,
        "eval": transforms.make_eval_transform,
    }[case](SIZE)
    batches = pipeline.image_batches(
        source,
        np.arange(len(source)),
        None,
        batch_size=args.batch_size,
        transform=transform,
        seed=0,
        threads=args.threads,
    )
    rate = time_batches(batches, 2 * len(source), lambda batch: batch["image"].shape)
    batches.close()
    names = ("grain", "array_record", "simplejpeg", "opencv-python-headless", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"rate": rate, "versions": versions | {"python": sys.version.split()[0]}}


def time_batches(batches, count: int, shape) -> float:
    """Images a second over `count` images, after one batch that is not counted."""
    expected = shape(next(batches))
    seen, start = 0, time.perf_counter()
    while seen < count:
        found = shape(next(batches))
        if found != expected:
            raise SystemExit(f"a batch of shape {found}, expected {expected}")
        seen += found[0]
    return seen / (time.perf_counter() - start)


def time_peer(folder: pathlib.Path, case: str, args: argparse.Namespace) -> dict:
    import numpy
    import PIL
    import torch

    paths = sorted((folder / "files").glob("*.jpg"))
    loader = torch.utils.data.DataLoader(
        PeerDataset(
            paths, {"pretrain": peer_pretrain, "train": peer_train, "eval": peer_eval}[case]
        ),
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.threads,
        persistent_workers=args.threads > 0,
    )

    def endless():
        while True:
            yield from loader

    rate = time_batches(endless(), 2 * len(paths), lambda batch: tuple(batch.shape))
    versions = {"torch": torch.__version__, "pillow": PIL.__version__}
    return {"rate": rate, "versions": versions | {"peer numpy": numpy.__version__}}


class PeerDataset:
    """A map-style dataset over image files."""

    def __init__(self, paths, augment):
        self.paths, self.augment = paths, augment

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import numpy as np
        import torch
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            image = self.augment(image.convert("RGB"))
        return torch.from_numpy(np.array(image))


def peer_pretrain(image, scale=(0.2, 1.0), aspect=(3 / 4, 4 / 3)):
    import math
    import random

    from PIL import Image

    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def peer_train(image):
    import random

    import numpy as np
    from PIL import Image, ImageEnhance

    image = peer_pretrain(image, (0.8, 1.0), (0.9, 1.1))
    image = image.rotate(random.uniform(-10, 10), Image.Resampling.BILINEAR)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(0.8, 1.2))
    pixels = np.array(image)
    if random.random() < 0.25:
        side = random.randint(32, 100)
        left, top = random.randint(0, SIZE - side), random.randint(0, SIZE - side)
        noise = np.random.default_rng().integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[top : top + side, left : left + side] = noise
    return pixels


def peer_eval(image):
    from PIL import Image

    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
