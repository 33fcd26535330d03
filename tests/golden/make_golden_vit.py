"""Write tests/golden/public_vit.npz: what public libraries compute from weights drawn by a rule.

    python tests/golden/make_golden_vit.py [FOLDER]

needs torch, transformers and timm (the package's `parity` extra) and not the package. Each case is
a model of a library at a reduced size, its weights drawn by `drawn` from their names and shapes,
which the file holds as the library writes them; then images uint8 (2, 16, 16, 3), normalised to
[-1, 1], and what is found. Cases of transformers are loaded from a file with the drawn tensors, but
for `modules`, whose names are those of its modules since release 5.
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

WIDTH, DEPTH, HEADS, IMAGE, PATCH, CLASSES = 16, 2, 2, 16, 4, 3
DECODER = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


def drawn(name, shape):
    """Normal numbers from the name's checksum; tests/interop/test_public_vit.py has the same."""
    numbers = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    scale, centre = (0.3, 0.0) if len(shape) > 1 or name.endswith("bias") else (0.1, 0.8)
    return (centre + scale * numbers).astype(np.float32)


def sincos(grid, width):
    """The fixed table of He et al.'s code, CLS first: column, then row, sines before cosines."""
    omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
    columns, rows = np.meshgrid(np.arange(grid), np.arange(grid))
    angles = [np.outer(places.ravel(), omega) for places in (columns, rows)]
    parts = [function(angle) for angle in angles for function in (np.sin, np.cos)]
    table = np.concatenate(parts, axis=1).astype(np.float32)
    return np.concatenate([np.zeros((1, width), np.float32), table])[None]


def weights(shapes):
    """Drawn tensors; of an autoencoder the tables of positions are the fixed ones."""
    fixed = any("decoder_pos_embed" in name for name in shapes)
    return {
        name: sincos(IMAGE // PATCH, shape[-1])
        if fixed and name.endswith(("position_embeddings", "pos_embed"))
        else drawn(name, shape)
        for name, shape in shapes.items()
    }


def from_file(model):
    """(the model with drawn weights, loaded from a file; names and shapes in the file)."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = {name: tuple(value.shape) for name, value in load_file(path).items()}
        given = {name: torch.tensor(array) for name, array in weights(shapes).items()}
        save_file(given, path, metadata={"format": "pt"})
        return type(model).from_pretrained(folder).eval(), shapes


def from_modules(model):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({n: torch.tensor(a) for n, a in weights(shapes).items()})
    return model.eval(), shapes


def main(folder):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, IMAGE, IMAGE, 3), np.uint8)
    pixels = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    common = dict(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, image_size=IMAGE, patch_size=PATCH,
    )  # fmt: skip
    vit = transformers.ViTConfig(**common, num_labels=CLASSES)
    mae = transformers.ViTMAEConfig(**common, **{f"decoder_{k}": v for k, v in DECODER.items()})
    sizes = dict(img_size=IMAGE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS)
    made, found = {}, {}
    for name, pool in (("timm", "token"), ("timm_mean", "avg")):
        model = timm.models.VisionTransformer(num_classes=CLASSES, global_pool=pool, **sizes)
        model, made[name] = from_modules(model)
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        found[name] = {"features": features, "logits": model(pixels)}
    for name, load in (("transformers", from_file), ("modules", from_modules)):
        model, made[name] = load(transformers.ViTForImageClassification(vit))
        found[name] = {"logits": model(pixels).logits}
    model, made["bare"] = from_file(transformers.ViTModel(vit))
    states = model(pixels).last_hidden_state
    found["bare"] = {"features": states[:, 0], "norm_mean": states[:, 1:].mean(1)}
    model, made["mae"] = from_file(transformers.ViTMAEForPreTraining(mae))
    noise = torch.tensor(rng.permuted(np.tile(np.arange(16), (2, 1)), axis=1), dtype=torch.float32)
    out = model(pixels, noise=noise)
    found["mae"] = {"prediction": out.logits, "mask": out.mask}
    table = torch.tensor(rng.normal(size=(1, 4, 3, 3)), dtype=torch.float32)
    for grid in (2, 5):
        found[f"positions_{grid}"] = {
            "table": torch.nn.functional.interpolate(
                table, size=(grid, grid), mode="bicubic", align_corners=False
            )
        }
    arrays = {f"{case}/{k}": v.detach().numpy() for case, v in found.items() for k, v in v.items()}
    arrays |= {"images": images, "noise": noise.numpy(), "table": table.numpy()}
    path = Path(folder) / "public_vit.npz"
    np.savez_compressed(path, shapes=json.dumps(made), **arrays)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB, {', '.join(made)}")


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
