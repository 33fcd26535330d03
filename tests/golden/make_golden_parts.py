"""Write the golden files of the published systems' parts: what PyTorch computes of them.

    python tests/golden/make_golden_parts.py [FOLDER]

needs torch (the package's `parity` extra) and not the package: every part is built here a second
time, from torch.nn's own layers, `nn.utils.parametrizations.weight_norm` and packed sequences.
The files are as those of make_golden_models.py.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_weights import Bound, Draw, save_cases


class PartsBound(Bound):
    """Bound, for the parameters that only these parts have."""

    def dense(self, name, width_in, width_out):
        layer = nn.Linear(width_in, width_out)
        self.linear(name, layer.weight, layer.bias)
        return layer

    def convolution(self, name, parameter):
        """A kernel (K, in, out) as torch's (out, in, K)."""
        self._set(name, parameter, self.draw[name].permute(2, 1, 0), lambda g: g.permute(2, 1, 0))

    def directions(self, name, parameters, axis=0):
        """One array with an axis of directions as the two parameters of torch.nn.GRU.

        Its last axes are gate and width, which are torch's first.
        """
        values = self.draw[name].unbind(axis)
        for parameter, value in zip(parameters, values, strict=True):
            with torch.no_grad():
                parameter.copy_(value.flatten(-2).movedim(-1, 0))

        def invert():
            gradients = [p.grad.movedim(0, -1).reshape(values[0].shape) for p in parameters]
            return torch.stack(gradients, axis).numpy()

        self.back[name] = invert


def results(bound, **values):
    found = {name: value.detach().numpy() for name, value in values.items()}
    return found | {f"gradients/{name}": g for name, g in bound.gradients().items()}


TCN = ((8, 8), (8, 5))  # widths in and out of each block


class Block(nn.Module):
    def __init__(self, bound, name, width_in, width_out, dilation):
        super().__init__()
        layers, self.residual, self.last = [], nn.Identity(), nn.PReLU()
        for i, width in ((1, width_in), (2, width_out)):
            bare = nn.Conv1d(width, width_out, 5, padding=4 * dilation, dilation=dilation)
            conv, prelu = parametrizations.weight_norm(bare), nn.PReLU()
            bound.token(f"{name}/conv{i}/scale", conv.parametrizations.weight.original0)
            bound.convolution(f"{name}/conv{i}/kernel", conv.parametrizations.weight.original1)
            bound.token(f"{name}/conv{i}/bias", conv.bias)
            bound.token(f"{name}/prelu{i}/negative_slope", prelu.weight)
            layers += [conv, nn.ConstantPad1d((0, -4 * dilation), 0.0), prelu]
        if width_in != width_out:
            self.residual = nn.Conv1d(width_in, width_out, 1)
            bound.linear(f"{name}/residual", self.residual.weight, self.residual.bias)
        self.branch = nn.Sequential(*layers)
        bound.token(f"{name}/prelu/negative_slope", self.last.weight)

    def forward(self, x):
        return self.last(self.branch(x) + self.residual(x))


def tcn_case():
    draw, given = Draw(21), Draw(22)
    for n, (width_in, width_out) in enumerate(TCN):
        for i, width in ((1, width_in), (2, width_out)):
            draw(f"layers_{n}/conv{i}/kernel", (5, width, width_out))
            draw(f"layers_{n}/conv{i}/scale", (width_out,), 0.1, 0.8)
            draw(f"layers_{n}/conv{i}/bias", (width_out,), 0.1)
            draw(f"layers_{n}/prelu{i}/negative_slope", (), 0.05, 0.25)
        if width_in != width_out:
            draw.dense(f"layers_{n}/residual", (width_in,), (width_out,))
        draw(f"layers_{n}/prelu/negative_slope", (), 0.05, 0.25)
    x = given("features", (2, 16, 8), 0.4).requires_grad_()
    probe = given("probe", (2, 16, 5), 0.4)
    bound = PartsBound(draw)
    net = nn.Sequential(
        *(Block(bound, f"layers_{n}", *widths, 2**n) for n, widths in enumerate(TCN))
    )
    out = net(x.mT).mT
    (out * probe).sum().backward()
    return draw, given, results(bound, output=out, input_gradient=x.grad)


LENGTHS = (7, 4, 1)
GRU_WIDTH = 5


def gru_case():
    draw, given = Draw(23), Draw(24)
    for n, width in enumerate((6, 2 * GRU_WIDTH)):
        draw.dense(f"layers_{n}/input", (width,), (2, 3, GRU_WIDTH))
        draw(f"layers_{n}/kernel", (2, GRU_WIDTH, 3, GRU_WIDTH))
        draw(f"layers_{n}/bias", (2, 3, GRU_WIDTH), 0.1)
    draw.norm("norm", 2 * GRU_WIDTH)
    draw.dense("project", (2 * GRU_WIDTH,), (4,))
    x = given("features", (3, 7, 6), 0.4).requires_grad_()
    probe = given("probe", (3, 4), 0.4)
    lengths = torch.tensor(LENGTHS)
    given.kept["mask"] = (torch.arange(7)[None] < lengths[:, None]).numpy()
    bound, layers = PartsBound(draw), []
    for n, width in enumerate((6, 2 * GRU_WIDTH)):
        gru = nn.GRU(width, GRU_WIDTH, batch_first=True, bidirectional=True)
        name = f"layers_{n}"
        bound.directions(f"{name}/input/kernel", (gru.weight_ih_l0, gru.weight_ih_l0_reverse), 1)
        bound.directions(f"{name}/kernel", (gru.weight_hh_l0, gru.weight_hh_l0_reverse))
        bound.directions(f"{name}/input/bias", (gru.bias_ih_l0, gru.bias_ih_l0_reverse))
        bound.directions(f"{name}/bias", (gru.bias_hh_l0, gru.bias_hh_l0_reverse))
        layers.append(gru)
    norm, project = nn.LayerNorm(2 * GRU_WIDTH), bound.dense("project", 2 * GRU_WIDTH, 4)
    bound.norm("norm", norm)
    pack = {"batch_first": True, "enforce_sorted": False}
    states, _ = layers[0](pack_padded_sequence(x, lengths, **pack))
    states = norm(pad_packed_sequence(states, batch_first=True)[0])
    _, final = layers[1](pack_padded_sequence(states, lengths, **pack))
    out = nn.LeakyReLU()(project(torch.cat([final[0], final[1]], 1)))
    (out * probe).sum().backward()
    return draw, given, results(bound, output=out, input_gradient=x.grad)


def last_frame_case():
    """Flatten, Linear, BatchNorm1d, Linear; the last of four windows is not counted."""
    draw, given = Draw(25), Draw(26)
    draw.dense("fc1", (30,), (8,))
    draw.norm("norm", 8)
    draw.dense("fc2", (8,), (3,))
    x = given("features", (4, 5, 6), 0.4)
    probe = given("probe", (3, 3), 0.4)
    bound, norm = PartsBound(draw), nn.BatchNorm1d(8)
    bound.norm("norm", norm)
    net = nn.Sequential(nn.Flatten(), bound.dense("fc1", 30, 8), norm, bound.dense("fc2", 8, 3))
    out = net(x[:3])
    (out * probe).sum().backward()
    found = results(bound, output=out, mean=norm.running_mean, var=norm.running_var)
    return draw, given, found | {"evaluated": net.eval()(x).detach().numpy()}


def modalities_case():
    """Sigmoid gates of two modalities, concatenation, 1x1 convolutions with LeakyReLU(0.1)."""
    draw, given = Draw(27), Draw(28)
    widths = (5, 3)
    for m, width in enumerate(widths):
        draw.dense(f"gates/gate_{m}", (width + 2,), (1,))
    draw.dense("fuse/fc1", (8,), (6,))
    draw.dense("fuse/fc2", (6,), (4,))
    parts = [given(f"part_{m}", (2, 4, width), 0.6) for m, width in enumerate(widths)]
    probe = given("probe", (2, 4, 4), 0.4)
    presence = torch.tensor([[[1, 1], [1, 0], [0, 1], [0, 0]], [[1, 1], [1, 1], [0, 1], [1, 0]]])
    given.kept["presence"] = presence.bool().numpy()
    bound = PartsBound(draw)
    parts = [part.requires_grad_() for part in parts]
    gates = [bound.dense(f"gates/gate_{m}", w + 2, 1) for m, w in enumerate(widths)]
    convolutions = [nn.Conv1d(8, 6, 1), nn.Conv1d(6, 4, 1)]
    for i, convolution in enumerate(convolutions):
        bound.linear(f"fuse/fc{i + 1}", convolution.weight, convolution.bias)
    fuse = nn.Sequential(convolutions[0], nn.LeakyReLU(0.1), convolutions[1])
    here = [part * presence[..., m : m + 1] for m, part in enumerate(parts)]
    gated = [
        part * gate(torch.cat([part, presence], -1)).sigmoid()
        for part, gate in zip(here, gates, strict=True)
    ]
    out = fuse(torch.cat(gated, -1).mT).mT
    (out * probe).sum().backward()
    fixed = fuse(torch.cat([0.5 * here[0], 2.0 * here[1]], -1).mT).mT
    gradients = {f"part_{m}_gradient": part.grad for m, part in enumerate(parts)}
    return draw, given, results(bound, output=out, fixed=fixed, **gradients)


def views_case(method):
    """`emotic_mae`'s fusion of two views, with torch's own dot-product attention."""
    draw, given = Draw(29), Draw(30)
    draw.dense("whole", (10,), (12,))
    draw.dense("composite", (10,), (12,))
    draw.dense("head/fc1", (24 if method == "concatenation" else 12,), (8,))
    draw.dense("head/fc2", (8,), (5,))
    if method.startswith("attention"):
        draw.dense("key", (24,), (12,))
    if method == "attention_local":
        draw("local/kernel", (7, 3, 1))
        draw("local/bias", (1,), 0.1)
    views = [given(name, (3, 10), 0.8).requires_grad_() for name in ("whole", "composite")]
    probe = given("probe", (3, 5), 0.4)
    bound = PartsBound(draw)
    x1, x2 = bound.dense("whole", 10, 12)(views[0]), bound.dense("composite", 10, 12)(views[1])
    fused = {"mean": (x1 + x2) / 2, "concatenation": torch.cat([x1, x2], 1)}.get(method)
    if fused is None:
        key = bound.dense("key", 24, 12)(torch.cat([x1, x2], 1))
        q, k, v = (a[:, None, :, None] for a in (x2, key, x1))  # one head of width 1
        fused = x1 + nn.functional.scaled_dot_product_attention(q, k, v)[:, 0, :, 0]
    if method == "attention_local":
        convolution = nn.Conv1d(3, 1, 7, padding=3)
        bound.convolution("local/kernel", convolution.weight)
        bound.token("local/bias", convolution.bias)
        fused = fused + x1 * convolution(torch.stack([x1, x2, key], 1))[:, 0].sigmoid()
    width = fused.shape[1]
    out = bound.dense("head/fc2", 8, 5)(bound.dense("head/fc1", width, 8)(fused).relu())
    (out * probe).sum().backward()
    gradients = dict(
        zip(("whole_gradient", "composite_gradient"), (v.grad for v in views), strict=True)
    )
    return draw, given, results(bound, output=out, **gradients)


METHODS = ("attention", "attention_local", "mean", "concatenation")


def main(folder):
    cases = {
        "parts_tcn": tcn_case(),
        "parts_gru": gru_case(),
        "parts_last_frame": last_frame_case(),
        "parts_modalities": modalities_case(),
        **{f"parts_views_{method}": views_case(method) for method in METHODS},
    }
    save_cases(folder, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
