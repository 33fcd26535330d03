"""Write the golden files of the convolutional encoders: what PyTorch computes of them.

    python tests/golden/make_golden_cnns.py [FOLDER]

needs torch and timm (the package's `parity` extra) and not the package. EfficientNet and MobileViT
are timm's; MobileFaceNet and DDAMFN are the benchmark's peers, of torch.nn's own layers under the
names that their public code gives them (benchmarks/cnn_peer.py). Weights are drawn by
tests/models/named_weights.py. A file holds the model's tensor names and its outputs on random
images; of the small models also the outputs in training, the running statistics after, and
gradients of a weighted sum of these outputs, of large tensors samples.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.byobnet import ByobNet, ByoModelCfg
from timm.models.efficientnet import EfficientNet
from timm.models.mobilevit import _inverted_residual_block, _mobilevit_block
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "models"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from cnn_peer import DDAMFN, DDAMFN_STAGES, MOBILEFACENET_STAGES, MobileFaceNet
from named_weights import draw_images, draw_weights, sample

OUTPUTS = 10


def small_efficientnet():
    """Two stages at a quarter of B0's widths, MobileViT's likewise."""
    stages = [["ds_r1_k3_s1_e1_c32_se0.25"], ["ir_r2_k5_s2_e6_c64_se0.25"]]
    return EfficientNet(
        decode_arch_def(stages),
        num_classes=OUTPUTS,
        num_features=320,
        round_chs_fn=partial(round_channels, multiplier=0.25),
        act_layer=nn.SiLU,
    )


def small_mobilevit():
    config = ByoModelCfg(
        blocks=(
            _inverted_residual_block(d=2, c=8, s=1),
            _mobilevit_block(1, 16, 2, transformer_dim=8, transformer_depth=1, patch_size=2),
        ),
        stem_chs=16,
        stem_type="3x3",
        stem_pool="",
        downsample="",
        act_layer="silu",
        num_features=32,
    )
    return ByobNet(config, num_classes=OUTPUTS)


# Of the published 9, 16 and 6 residual bottlenecks one each: a test compiles them.
SHALLOW = tuple((*stage[:2], 1, stage[3]) for stage in DDAMFN_STAGES)
# Name: model, size of the images, gain of the weights: with much more, rounding grows on its way.
WHOLE = {
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0", num_classes=OUTPUTS), 64, 3.0),
    "efficientnet_b2": (lambda: timm.create_model("efficientnet_b2", num_classes=OUTPUTS), 64, 2.7),
    # Maps of 12, 6 and 3 pixels: the last is resized for patches of 2.
    "mobilevit_s": (lambda: timm.create_model("mobilevit_s", num_classes=OUTPUTS), 96, 3.0),
    "mobilefacenet": (lambda: MobileFaceNet(MOBILEFACENET_STAGES, 112), 112, 1.2),
    "ddamfn": (lambda: DDAMFN(SHALLOW, 112, OUTPUTS), 112, 1.7),
}
SMALL = {
    "efficientnet": (small_efficientnet, 16, 3.0),
    "mobilevit": (small_mobilevit, 20, 3.0),
    "mobilefacenet": (lambda: MobileFaceNet(((32, 16, 1, 16),), 16), 16, 1.2),
    "ddamfn": (lambda: DDAMFN(((8, (16, 8, 8), 1, (16, 16)),), 16, OUTPUTS, 32), 16, 2.0),
}


def load_drawn(model, gain):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = {name: draw_weights(name, shape, gain) for name, shape in shapes.items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in drawn.items()})
    return sorted(drawn)


def whole_case(make, size, gain):
    model = make().eval()
    names = load_drawn(model, gain)
    with torch.no_grad():
        out = model(torch.from_numpy(draw_images(size)).permute(0, 3, 1, 2))
    return {"gain": np.float64(gain), "names": np.array(names), "output": out.numpy()}


def small_case(make, size, gain):
    found = whole_case(make, size, gain)
    model = make().train()
    load_drawn(model, gain)
    # Two of a batch would make the last norms' outputs all but signs.
    out = model(torch.from_numpy(draw_images(size, 8)).permute(0, 3, 1, 2))
    probe = np.random.default_rng(1).normal(size=out.shape).astype(np.float32)
    (out * torch.from_numpy(probe)).sum().backward()
    found |= {"trained": out.detach().numpy(), "probe": probe}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradients/{name}"] = sample(parameter.grad.numpy())
            found[f"largest/{name}"] = parameter.grad.abs().max().numpy()
    statistics = {n: t for n, t in model.state_dict().items() if ".running_" in n}
    return found | {f"statistics/{name}": sample(t.numpy()) for name, t in statistics.items()}


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    cases = {name: whole_case(*case) for name, case in WHOLE.items()}
    cases |= {f"small_{name}": small_case(*case) for name, case in SMALL.items()}
    for name, found in cases.items():
        path = folder / f"cnn_{name}.npz"
        np.savez_compressed(path, **found)
        spread = found["output"].std(), found["output"].std(0).mean()
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB, outputs' spread {spread}")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
