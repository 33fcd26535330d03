"""Write the golden file of the sound encoders: what PyTorch computes of wav2vec 2.0 and HuBERT
(transformers) and of VGGish (built here, with its log-mel front end, from torch alone).

    python tests/golden/make_golden_sound.py [FOLDER]

needs torch and transformers (the package's `parity` extra) and not the package. Weights and sounds
are drawn by sound_weights.py and not stored.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from sound_weights import ENCODERS, LENGTHS, VGGISH, draw_samples, draw_sound, draw_weight
from torch import nn
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

CLASSES = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel)}


def fill(model):
    """Draw all parameters of a model by their names; returns their shapes."""
    shapes = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shapes[name] = tuple(parameter.shape)
            parameter.copy_(torch.from_numpy(draw_weight(name, shapes[name])))
    return shapes


@torch.no_grad()
def encoder_case(settings):
    """The states of each sound alone: what goes into the first layer, that layer's, the last."""
    make_config, make_model = CLASSES[settings["model_type"]]
    options = {key: value for key, value in settings.items() if key != "model_type"}
    model = make_model(make_config(**options)).eval()
    shapes, found, kept = fill(model), {}, {}
    first = model.encoder.layers[0]
    first.register_forward_pre_hook(lambda module, given: kept.update(layer_0=given[0]))
    first.register_forward_hook(lambda module, given, out: kept.update(layer_1=out))
    for i, length in enumerate(LENGTHS):
        last = model(torch.from_numpy(draw_sound(length, i))[None]).last_hidden_state
        found[f"last_{i}"] = last[0].numpy()
    found["layer_0"], found["layer_1"] = kept["layer_0"][0].numpy(), kept["layer_1"][0].numpy()
    config = json.dumps(model.config.to_dict())
    return found | {"names": np.array(json.dumps([shapes, config]))}


class VGGish(nn.Module):
    """Hershey et al. 2017, with the layer numbers of the public torch port."""

    def __init__(self, widths, hidden, embedding):
        super().__init__()
        layers, now = [], 1
        for width, several in zip(widths, (1, 1, 2, 2), strict=True):
            for _ in range(several):
                layers += [nn.Conv2d(now, width, 3, padding=1), nn.ReLU()]
                now = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * now, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, embedding), nn.ReLU(),
        )  # fmt: skip

    def forward(self, patches):
        x = self.features(patches[:, None]).permute(0, 2, 3, 1)
        return self.embeddings(x.flatten(1))


def mel_patches(sound):
    """VGGish's log-mel patches (n, 96, 64) of int16 samples."""
    frames = torch.from_numpy(sound / 32768).unfold(0, 400, 160)
    window = torch.hann_window(400, periodic=True, dtype=torch.double)
    spectrum = torch.fft.rfft(frames * window, n=512).abs()

    def mel(hertz):
        return 1127 * torch.log1p(hertz / 700)

    edges = torch.linspace(
        mel(torch.tensor(125.0).double()), mel(torch.tensor(7500.0).double()), 66,
        dtype=torch.double,
    )  # fmt: skip
    bins = mel(torch.linspace(0, 8000, 257, dtype=torch.double))
    bank = torch.zeros(257, 64, dtype=torch.double)
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        up, down = (bins - low) / (centre - low), (high - bins) / (high - centre)
        bank[:, band] = torch.minimum(up, down).clamp(min=0)
    bank[0] = 0
    log_mel = (spectrum @ bank + 0.01).log()
    count = len(log_mel) // 96
    return log_mel[: 96 * count].reshape(count, 96, 64).float()


@torch.no_grad()
def vggish_case():
    patches, model = mel_patches(draw_samples(40_000, 7)), VGGish(**VGGISH)
    shapes = fill(model)
    return {
        "patches": patches.numpy(),
        "embeddings": model(patches).numpy(),
        "names": np.array(json.dumps([shapes, ""])),
    }


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    cases = {name: encoder_case(settings) for name, settings in ENCODERS.items()}
    cases["vggish"] = vggish_case()
    arrays = {f"{case}/{n}": a for case, found in cases.items() for n, a in found.items()}
    np.savez_compressed(folder / "sound_encoders.npz", **arrays)
    size = (folder / "sound_encoders.npz").stat().st_size
    print(f"sound_encoders.npz: {len(arrays)} arrays, {size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
