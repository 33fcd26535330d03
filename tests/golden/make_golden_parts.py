"""Write the golden files of the published systems' parts, and of their whole models with their
losses: what PyTorch computes of them.

    python tests/golden/make_golden_parts.py [FOLDER]

needs torch (the package's `parity` extra) and not the package: every part is built here a second
time, from torch.nn's own layers, `nn.utils.parametrizations.weight_norm` and packed sequences.
The files are as those of make_golden_models.py.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_weights import Bound, Draw, save_cases, temporal


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
    draw_tcn(draw, "", TCN)
    x = given("features", (2, 16, 8), 0.4).requires_grad_()
    probe = given("probe", (2, 16, 5), 0.4)
    bound = PartsBound(draw)
    out = make_tcn(bound, "", TCN)(x.mT).mT
    (out * probe).sum().backward()
    return draw, given, results(bound, output=out, input_gradient=x.grad)


LENGTHS = (7, 4, 1)
GRU_WIDTH = 5


def draw_tcn(draw, name, widths):
    for n, (width_in, width_out) in enumerate(widths):
        for i, width in ((1, width_in), (2, width_out)):
            draw(f"{name}layers_{n}/conv{i}/kernel", (5, width, width_out))
            draw(f"{name}layers_{n}/conv{i}/scale", (width_out,), 0.1, 0.8)
            draw(f"{name}layers_{n}/conv{i}/bias", (width_out,), 0.1)
            draw(f"{name}layers_{n}/prelu{i}/negative_slope", (), 0.05, 0.25)
        if width_in != width_out:
            draw.dense(f"{name}layers_{n}/residual", (width_in,), (width_out,))
        draw(f"{name}layers_{n}/prelu/negative_slope", (), 0.05, 0.25)


def make_tcn(bound, name, widths):
    blocks = (Block(bound, f"{name}layers_{n}", *of, 2**n) for n, of in enumerate(widths))
    return nn.Sequential(*blocks)


def draw_gru(draw, name, width_in, width, outputs):
    for n, inputs in enumerate((width_in, 2 * width)):
        draw.dense(f"{name}layers_{n}/input", (inputs,), (2, 3, width))
        draw(f"{name}layers_{n}/kernel", (2, width, 3, width))
        draw(f"{name}layers_{n}/bias", (2, 3, width), 0.1)
    draw.norm(f"{name}norm", 2 * width)
    draw.dense(f"{name}project", (2 * width,), (outputs,))


class GRU(nn.Module):
    """Two bidirectional layers over packed sequences, LayerNorm between; both final states of the
    second, Linear, LeakyReLU."""

    def __init__(self, bound, name, width_in, width, outputs):
        super().__init__()
        layers = []
        for n, inputs in enumerate((width_in, 2 * width)):
            gru = nn.GRU(inputs, width, batch_first=True, bidirectional=True)
            of = f"{name}layers_{n}"
            weights = (gru.weight_ih_l0, gru.weight_ih_l0_reverse)
            bound.directions(f"{of}/input/kernel", weights, 1)
            bound.directions(f"{of}/kernel", (gru.weight_hh_l0, gru.weight_hh_l0_reverse))
            bound.directions(f"{of}/input/bias", (gru.bias_ih_l0, gru.bias_ih_l0_reverse))
            bound.directions(f"{of}/bias", (gru.bias_hh_l0, gru.bias_hh_l0_reverse))
            layers.append(gru)
        self.layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(2 * width)
        self.project = bound.dense(f"{name}project", 2 * width, outputs)
        bound.norm(f"{name}norm", self.norm)

    def forward(self, x, lengths):
        pack = {"batch_first": True, "enforce_sorted": False}
        states, _ = self.layers[0](pack_padded_sequence(x, lengths, **pack))
        states = self.norm(pad_packed_sequence(states, batch_first=True)[0])
        _, final = self.layers[1](pack_padded_sequence(states, lengths, **pack))
        return nn.LeakyReLU()(self.project(torch.cat([final[0], final[1]], 1)))


def gru_case():
    draw, given = Draw(23), Draw(24)
    draw_gru(draw, "", 6, GRU_WIDTH, 4)
    x = given("features", (3, 7, 6), 0.4).requires_grad_()
    probe = given("probe", (3, 4), 0.4)
    lengths = torch.tensor(LENGTHS)
    given.kept["mask"] = (torch.arange(7)[None] < lengths[:, None]).numpy()
    bound = PartsBound(draw)
    out = GRU(bound, "", 6, GRU_WIDTH, 4)(x, lengths)
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


def draw_transformer(draw, width, heads, mlp_width, rows, head_width, outputs):
    """Two layers of the encoder, and the head on `rows` numbers."""
    for i in range(2):
        draw.block(f"encoder/layers_{i}", width, heads, mlp_width)
    draw.dense("head/fc1", (rows,), (head_width,))
    draw.norm("head/norm", head_width)
    draw.dense("head/fc2", (head_width,), (outputs,))


def make_head(bound, rows, head_width, outputs):
    """Linear, BatchNorm1d, Linear over the rows that count."""
    norm = nn.BatchNorm1d(head_width)
    bound.norm("head/norm", norm)
    first = bound.dense("head/fc1", rows, head_width)
    return nn.Sequential(first, norm, bound.dense("head/fc2", head_width, outputs))


def concordance(x, y):
    gap = (x.mean(0) - y.mean(0)) ** 2
    covariance = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    return 2 * covariance / (x.var(0, correction=0) + y.var(0, correction=0) + gap)


def system(bound, head, logits, loss):
    loss.backward()
    norm = head[1]
    return results(bound, logits=logits, loss=loss, mean=norm.running_mean, var=norm.running_var)


CTYUN_TCN = ((8, 8), (8, 6), (6, 4))


def ctyun_case():
    """TCN, 1x1 convolution, encoder without positions, head a frame; VA: the sum of 1 - CCC."""
    draw, given = Draw(31), Draw(32)
    draw_tcn(draw, "tcn/", CTYUN_TCN)
    # Large, so that frames differ: BatchNorm would blow up the rounding of rows that are alike.
    draw("project/kernel", (4, 12), 0.8)
    draw("project/bias", (12,), 0.1)
    draw_transformer(draw, 12, 2, 10, 12, 8, 2)
    x, labels = given("features", (3, 12, 8), 0.8), given("labels", (3, 12, 2), 0.3)
    mask = torch.arange(12)[None] < torch.tensor([[12], [7], [10]])
    valid = mask & (torch.arange(12) != 4)  # every window's fifth frame has no label
    given.kept |= {"mask": mask.numpy(), "valid": valid.numpy()}
    bound, project = PartsBound(draw), nn.Conv1d(4, 12, 1)
    bound.linear("project", project.weight, project.bias)
    tcn, head = make_tcn(bound, "tcn/", CTYUN_TCN), make_head(bound, 12, 8, 2)
    encoder = temporal(bound, "encoder/", 12, 2, 10, 2, "relu")
    h = encoder(project(tcn(x.mT)).mT, src_key_padding_mask=~mask)
    logits = head(h[valid])
    return draw, given, system(bound, head, logits, (1 - concordance(logits, labels[valid])).sum())


FUXI_WEIGHTS = (1, 10.40, 16.23, 19.61, 1.856, 2.225, 5.611, 1.059)


def fuxi_model(seed):
    """(weights drawn, bound, (features, mask) -> (3, 9, 8), head)."""
    draw = Draw(seed)
    draw.dense("join/fc1", (10,), (9,))
    draw.dense("join/fc2", (9,), (8,))
    draw_transformer(draw, 8, 4, 8, 8, 6, 8)
    bound, layers = PartsBound(draw), [nn.Conv1d(10, 9, 1), nn.Conv1d(9, 8, 1)]
    for i, layer in enumerate(layers):
        bound.linear(f"join/fc{i + 1}", layer.weight, layer.bias)
    join = nn.Sequential(layers[0], nn.LeakyReLU(0.1), layers[1])
    head, encoder = make_head(bound, 8, 6, 8), temporal(bound, "encoder/", 8, 4, 8, 2, "relu")
    return draw, bound, lambda x, mask: encoder(join(x.mT).mT, src_key_padding_mask=~mask), head


def fuxi_inputs(given, lengths):
    """Features of two modalities, mask, labels, and which frames have one."""
    face, sound = given("face", (3, 9, 6), 0.4), given("sound", (3, 9, 4), 0.4)
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    labels = torch.from_numpy(given.rng.integers(0, 8, (3, 9)))
    valid = mask & (torch.arange(9) != 2)
    given.kept |= {"mask": mask.numpy(), "valid": valid.numpy()}
    given.kept["labels"] = labels.numpy().astype(np.int32)
    return torch.cat([face, sound], -1), mask, labels, valid


def fuxi_case():
    """Two modalities, 1x1 convolutions, encoder without positions, head a frame; EXPR: weighted
    cross-entropy."""
    (draw, bound, encode, head), given = fuxi_model(33), Draw(34)
    x, mask, labels, valid = fuxi_inputs(given, (9, 4, 7))
    logits = head(encode(x, mask)[valid])
    entropy = nn.CrossEntropyLoss(torch.tensor(FUXI_WEIGHTS))
    return draw, given, system(bound, head, logits, entropy(logits, labels[valid]))


def fuxi_second_case():
    """Two such models, the first as in prediction: the trained one sees, for every window, that
    which is hardest for the frozen one. Logits and losses are mixed."""
    (frozen, _, encode_1, head_1), (trained, bound, encode_2, head_2) = map(fuxi_model, (39, 40))
    draw, given, a = Draw(0), Draw(41), 0.7
    for name, of in (("frozen", frozen), ("trained", trained)):
        draw.kept |= {f"{name}/{key}": value for key, value in of.kept.items()}
    x, mask, labels, valid = fuxi_inputs(given, (9, 6, 7))
    entropy = nn.CrossEntropyLoss(torch.tensor(FUXI_WEIGHTS))
    head_1.eval()
    with torch.no_grad():
        first = head_1(encode_1(x, mask).flatten(0, 1)).unflatten(0, (3, 9))
    difficulty = torch.stack([entropy(first[i][valid[i]], labels[i][valid[i]]) for i in range(3)])
    chosen = difficulty.argmax().expand(3)
    both = valid & valid[chosen]
    second = head_2(encode_2(x[chosen], mask[chosen])[both])
    logits = a * first[both] + (1 - a) * second
    weights, loss, weight = torch.tensor(FUXI_WEIGHTS), 0, 0
    for share, of in ((a, labels[both]), (1 - a, labels[chosen][both])):
        loss += share * nn.CrossEntropyLoss(weights, reduction="sum")(logits, of)
        weight += share * weights[of].sum()
    found = system(bound, head_2, logits, loss / weight)
    return draw, given, found | {"difficulty": difficulty.numpy(), "a": np.float32(a)}


FUXI_CLIPS = {  # modality -> width, and how many rows each of four clips has of it
    "frames": (6, (8, 8, 3, 1)),
    "sound": (5, (11, 2, 11, 0)),
    "words": (3, (2, 5, 1, 3)),
}


def fuxi_emi_case():
    """A GRU a modality, each over its own rows; side by side, Linear, LeakyReLU, Linear; EMI: MSE.

    The fourth clip has no sound, of which the states are zeros, and the second no label.
    """
    draw, given, parts = Draw(42), Draw(43), []
    for name, (width, _) in FUXI_CLIPS.items():
        draw_gru(draw, f"encoder_{name}/", width, 4, 5)
    draw.dense("head/fc1", (15,), (7,))
    draw.dense("head/fc2", (7,), (6,))
    bound = PartsBound(draw)
    for name, (width, counts) in FUXI_CLIPS.items():
        x, lengths = given(name, (4, max(counts), width), 0.4), torch.tensor(counts)
        given.kept[f"mask/{name}"] = (torch.arange(max(counts)) < lengths[:, None]).numpy()
        encoder, some = GRU(bound, f"encoder_{name}/", width, 4, 5), lengths > 0
        absent = nn.LeakyReLU()(encoder.project(torch.zeros(8)))
        vectors = absent.repeat(4, 1).index_put((some,), encoder(x[some], lengths[some]))
        parts.append(vectors)
    fc1, fc2 = bound.dense("head/fc1", 15, 7), bound.dense("head/fc2", 7, 6)
    logits = fc2(nn.LeakyReLU()(fc1(torch.cat(parts, 1))))
    valid = torch.tensor([True, False, True, True])
    given.kept["valid"] = valid.numpy()
    loss = nn.functional.mse_loss(logits[valid], given("labels", (4, 6), 0.1, 0.5)[valid])
    loss.backward()
    return draw, given, results(bound, logits=logits, loss=loss)


def masked_vit_case():
    """Sin-cos positions, encoder, all frames into one head; AU: focal loss with class weights. The
    last window's last frame has no label."""
    draw, given = Draw(35), Draw(36)
    draw_transformer(draw, 8, 4, 12, 6 * 8, 7, 12)
    x = given("features", (4, 6, 8), 0.4)
    labels = torch.from_numpy(given.rng.integers(0, 2, (4, 6, 12)))
    given.kept["labels"] = labels.numpy().astype(np.int32)
    bound = PartsBound(draw)
    head, encoder = make_head(bound, 48, 7, 12), temporal(bound, "encoder/", 8, 4, 12, 2, "relu")
    angles = torch.arange(6.0)[:, None] * 10000 ** (-torch.arange(4.0) / 4)
    h = encoder(x + torch.cat([angles.sin(), angles.cos()], 1))
    logits, targets = head(h.flatten(1)[:3]), labels[:3, -1].float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weights = torch.linspace(0.5, 1.0, 12) * torch.where(targets == 1, 0.25, 0.75)
    loss = (weights * (1 - torch.exp(-entropy)) ** 2 * entropy).mean()
    return draw, given, system(bound, head, logits, loss)


def emotic_mae_case():
    """Attention over two views, head with ReLU; EXPR: weighted cross-entropy of single frames, the
    last of them without a label."""
    draw, given = Draw(37), Draw(38)
    for name, width in (("whole", 10), ("composite", 10), ("key", 24)):
        draw.dense(f"fuse/{name}", (width,), (12,))
    draw.dense("head/fc1", (12,), (9,))
    draw.dense("head/fc2", (9,), (8,))
    whole, composite = given("whole", (6, 1, 10), 0.8), given("composite", (6, 1, 10), 0.8)
    labels = torch.from_numpy(given.rng.integers(0, 8, (6, 1)))
    given.kept["labels"] = labels.numpy().astype(np.int32)
    bound = PartsBound(draw)
    x1 = bound.dense("fuse/whole", 10, 12)(whole)
    x2 = bound.dense("fuse/composite", 10, 12)(composite)
    key = bound.dense("fuse/key", 24, 12)(torch.cat([x1, x2], -1))
    q, k, v = (a[..., None] for a in (x2, key, x1))  # a head of width 1 a frame
    fused = x1 + nn.functional.scaled_dot_product_attention(q, k, v)[..., 0]
    logits = bound.dense("head/fc2", 9, 8)(bound.dense("head/fc1", 12, 9)(fused).relu())[:5, 0]
    weights = torch.linspace(0.5, 4.0, 8)
    loss = nn.CrossEntropyLoss(weights)(logits, labels[:5, 0])
    loss.backward()
    return draw, given, results(bound, logits=logits, loss=loss)


def main(folder):
    torch.backends.mha.set_fastpath_enabled(False)
    cases = {
        "parts_tcn": tcn_case(),
        "parts_gru": gru_case(),
        "parts_last_frame": last_frame_case(),
        "parts_modalities": modalities_case(),
        **{f"parts_views_{method}": views_case(method) for method in METHODS},
        "system_ctyun": ctyun_case(),
        "system_fuxi": fuxi_case(),
        "system_fuxi_second": fuxi_second_case(),
        "system_fuxi_emi": fuxi_emi_case(),
        "system_masked_vit": masked_vit_case(),
        "system_emotic_mae": emotic_mae_case(),
    }
    save_cases(folder, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
