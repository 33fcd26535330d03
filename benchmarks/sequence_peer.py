"""The sequence models in PyTorch, the peer of sequence_step.py; no benchmark itself.

Written from torch.nn's layers and with its fast forms where it has them.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class CausalBlock(nn.Module):
    """Twice weight-normalised convolution, PReLU and dropout, beside a residual: (B, D, T)."""

    def __init__(self, width_in, width, kernel, dilation, dropout):
        super().__init__()
        layers = []
        for width_of in (width_in, width):
            conv = nn.Conv1d(width_of, width, kernel, dilation=dilation)
            layers += [
                nn.ConstantPad1d(((kernel - 1) * dilation, 0), 0.0),
                parametrizations.weight_norm(conv),
                nn.PReLU(),
                nn.Dropout(dropout),
            ]
        self.branch, self.last = nn.Sequential(*layers), nn.PReLU()
        same = width_in == width
        self.residual = nn.Identity() if same else nn.Conv1d(width_in, width, 1)

    def forward(self, x):
        return self.last(self.branch(x) + self.residual(x))


class Views(nn.Module):
    """Attention over the scalar positions of two views: (B, 2 D) -> (B, N)."""

    def __init__(self, features, width):
        super().__init__()
        self.whole = nn.Linear(features // 2, width)
        self.composite = nn.Linear(features // 2, width)
        self.key = nn.Linear(2 * width, width)

    def forward(self, x):
        whole, composite = x.chunk(2, -1)
        x1, x2 = self.whole(whole), self.composite(composite)
        k = self.key(torch.cat([x1, x2], -1))
        q, k, v = (a[..., None] for a in (x2, k, x1))
        return x1 + functional.scaled_dot_product_attention(q, k, v)[..., 0]


class SequencePeer(nn.Module):
    """features (B, T, D), mask (B, T) -> logits of the labelled rows (R, C).

    section: config.sequence as a dict, of the values that the papers' systems take. counted: where
    there is a label; with the head "last" of each window's last frame.
    """

    def __init__(self, section, features, outputs):
        super().__init__()
        width, length = section["width"], section["length"]
        self.last, self.mask_rate = section["head"] == "last", section["mask_rate"]
        self.fuse = Views(features, section["fuse_width"]) if section["fuse"] else None
        before, now = [], section["fuse_width"] if section["fuse"] else features
        for i, wide in enumerate(section["join"]):
            before += [nn.LeakyReLU(section["join_slope"])] * (i > 0) + [nn.Conv1d(now, wide, 1)]
            now = wide
        for i, wide in enumerate(section["tcn"]):
            block = CausalBlock(now, wide, section["tcn_kernel"], 2**i, section["dropout"])
            before.append(block)
            now = wide
        if section["project"]:
            before.append(nn.Conv1d(now, width, 1))
        self.before = nn.Sequential(*before) if before else None
        angles = torch.arange(length)[:, None] * 1e4 ** (-torch.arange(width // 2) * 2 / width)
        table = torch.cat([angles.sin(), angles.cos()], 1)
        positions = {"none": None, "sincos": table}[section["positions"]]
        self.register_buffer("positions", positions)
        self.dropout, self.encoder = nn.Dropout(section["dropout"]), None
        if section["depth"]:
            layer = nn.TransformerEncoderLayer(
                width, section["heads"], section["mlp_width"], section["dropout"],
                section["activation"], batch_first=True,
            )  # fmt: skip
            self.encoder = nn.TransformerEncoder(
                layer, section["depth"], enable_nested_tensor=False
            )
        hidden = section["head_width"]
        between = {"norm": nn.BatchNorm1d(hidden), "relu": nn.ReLU()}[section["head_between"]]
        rows = width * length if self.last else width
        self.head = nn.Sequential(nn.Linear(rows, hidden), between, nn.Linear(hidden, outputs))

    def forward(self, x, mask):
        if self.mask_rate:
            x = x * (torch.rand(*x.shape[:2], 1) >= self.mask_rate)
        if self.fuse is not None:
            x = self.fuse(x)
        if self.before is not None:
            x = self.before(x.mT).mT
        if self.positions is not None:
            x = x + self.positions
        x = self.dropout(x)
        if self.encoder is not None:
            x = self.encoder(x, src_key_padding_mask=None if mask.all() else ~mask)
        return self.head(x.flatten(1) if self.last else x[mask])


def concordance_loss(x, y):
    """1 - CCC, the mean over valence and arousal: (R, 2), (R, 2)."""
    gap = (x.mean(0) - y.mean(0)) ** 2
    covariance = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    return (1 - 2 * covariance / (x.var(0, correction=0) + y.var(0, correction=0) + gap)).mean()


def make_step(settings, batch, threads):
    """The training step, () -> None: settings as of sequence_step.py, batch of NumPy arrays."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    section, optimizer = settings["section"], settings["section"]["optimizer"]
    model = SequencePeer(section, settings["features"], settings["outputs"]).train()
    make = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[optimizer["name"]]
    optimizer = make(
        model.parameters(), optimizer["lr"], (optimizer["b1"], optimizer["b2"]),
        weight_decay=optimizer["weight_decay"], fused=True,
    )  # fmt: skip
    x, mask = torch.from_numpy(batch["features"]), torch.from_numpy(batch["mask"])
    labels = torch.from_numpy(batch["label"])
    labels = labels[:, -1] if model.last else labels[mask]
    if settings["track"] == "va":
        squash = torch.tanh if section["output"] == "tanh" else lambda logits: logits

        def loss_of(logits):
            return concordance_loss(squash(logits), labels)
    else:
        targets = labels[:, 0].long()

        def loss_of(logits):
            return functional.cross_entropy(logits, targets)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(x, mask)).backward()
        optimizer.step()

    return step
