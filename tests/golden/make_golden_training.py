"""Write the golden files of training: the loss of PyTorch at each of twenty steps of a system.

    python tests/golden/make_golden_training.py [FOLDER]

needs torch (the package's `parity` extra) and not the package. The models are those of
make_golden_parts.py in small, in training mode: BatchNorm takes the statistics of the batch and
keeps the running ones; there is no dropout and no masking. Optimisers and schedules are torch's
own, set as the systems are published, but for the learning rates: LR_FACTOR times theirs, so that
twenty steps move the loss. An epoch is four batches, the same in every epoch.

Weight decay: torch's AdamW decays all parameters that it is given. Here it gets two groups, decay
for the kernels of dense layers and convolutions alone, none for biases, norms, and the lengths of
weight-normalised kernels. No paper says which of the two it means; this is the package's choice
(training/optim.py), and that of the masked autoencoder that the encoders come from.

The files are as those of make_golden_models.py; beside the losses they hold the learning rates, and
the head's running variance after the last step. Its running mean they do not: it follows the biases
before BatchNorm, which have gradients of rounding alone, and Adam makes steps of full length of
them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from make_golden_parts import (
    CTYUN_TCN,
    FUXI_WEIGHTS,
    PartsBound,
    concordance,
    draw_tcn,
    draw_transformer,
    make_head,
    make_tcn,
)
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch_weights import Draw, save_cases, temporal

BATCHES, EPOCHS, LR_FACTOR = 4, 5, 100


class TrainedBound(PartsBound):
    """PartsBound that has the parameters by their drawn names."""

    def __init__(self, draw):
        super().__init__(draw)
        self.parameters = {}

    def _set(self, name, parameter, value, invert):
        super()._set(name, parameter, value, invert)
        self.parameters[name] = parameter

    def groups(self, weight_decay):
        """Parameters in two groups, as torch's optimisers take them."""
        of = {True: [], False: []}
        for name, parameter in self.parameters.items():
            of[name.endswith("kernel")].append(parameter)
        return [
            {"params": of[decayed], "weight_decay": weight_decay if decayed else 0.0}
            for decayed in (True, False)
        ]


def losses_of(optimizer, schedule, loss, batches):
    """Loss and learning rate of each step: a batch is the arguments of `loss`."""
    losses, rates = [], []
    for _ in range(EPOCHS):
        for batch in zip(*batches, strict=True):
            optimizer.zero_grad()
            value = loss(*batch)
            value.backward()
            losses.append(value.item())
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule:
                schedule.step()
    return {"losses": np.float32(losses), "rates": np.float32(rates)}


def rows(given, lengths, time, unlabelled):
    """Which frames of a window there are, and which of them have a label."""
    mask = torch.arange(time)[None] < torch.tensor(lengths)[:, None]
    valid = mask & (torch.arange(time) != unlabelled)
    given.kept |= {"mask": mask.numpy(), "valid": valid.numpy()}
    return mask, valid


def classes(given, highest, shape):
    labels = given.rng.integers(0, highest, (BATCHES, *shape))
    given.kept["labels"] = labels.astype(np.int32)
    return torch.from_numpy(labels)


def warm_cosine(optimizer, warmup_lr, lr):
    """One epoch of linear warm-up, then a cosine to zero."""
    parts = [
        schedules.LinearLR(optimizer, warmup_lr / lr, 1.0, BATCHES),
        schedules.CosineAnnealingLR(optimizer, BATCHES * (EPOCHS - 1)),
    ]
    return schedules.SequentialLR(optimizer, parts, [BATCHES])


def ctyun_model(seed, tcn, width_in, outputs):
    """(weights drawn, bound, (features, mask) -> (B, T, 12), head): ctyun's, or without its TCN."""
    draw = Draw(seed)
    draw_tcn(draw, "tcn/", tcn)
    # Large, so that frames differ: see make_golden_parts.py.
    draw("project/kernel", (width_in, 12), 0.8)
    draw("project/bias", (12,), 0.1)
    draw_transformer(draw, 12, 2, 10, 12, 8, outputs)
    bound, project = TrainedBound(draw), nn.Conv1d(width_in, 12, 1)
    bound.linear("project", project.weight, project.bias)
    layers = nn.Sequential(make_tcn(bound, "tcn/", tcn), project)
    encoder = temporal(bound, "encoder/", 12, 2, 10, 2, "relu")

    def encode(x, mask):
        return encoder(layers(x.mT).mT, src_key_padding_mask=~mask)

    return draw, bound, encode, make_head(bound, 12, 8, outputs)


def ctyun_optimizer(bound):
    lr = 3e-5 * LR_FACTOR
    optimizer = torch.optim.AdamW(bound.groups(1e-5), lr)
    return optimizer, warm_cosine(optimizer, 1e-8 * LR_FACTOR, lr)


def ctyun_case():
    """VA: the sum of the two 1 - CCC over the valid frames of the batch."""
    draw, bound, encode, head = ctyun_model(51, CTYUN_TCN, 4, 2)
    given = Draw(52)
    x, labels = given("features", (4, 3, 12, 8), 0.8), given("labels", (4, 3, 12, 2), 0.3)
    mask, valid = rows(given, (12, 7, 10), 12, 4)

    def loss(x, labels):
        return (1 - concordance(head(encode(x, mask)[valid]), labels[valid])).sum()

    found = losses_of(*ctyun_optimizer(bound), loss, (x, labels))
    return draw, given, found | {"var": head[1].running_var.numpy()}


def mae_transformer_case():
    """AU, without convolutions: plain binary cross-entropy."""
    draw, bound, encode, head = ctyun_model(53, (), 8, 12)
    given = Draw(54)
    x, labels = given("features", (4, 3, 12, 8), 0.8), classes(given, 2, (3, 12, 12))
    mask, valid = rows(given, (12, 7, 10), 12, 4)
    entropy = nn.BCEWithLogitsLoss()

    def loss(x, labels):
        return entropy(head(encode(x, mask)[valid]), labels[valid].float())

    found = losses_of(*ctyun_optimizer(bound), loss, (x, labels))
    return draw, given, found | {"var": head[1].running_var.numpy()}


def fuxi_case():
    """EXPR, the first stage: weighted cross-entropy; a cosine that restarts every two epochs."""
    draw, given = Draw(55), Draw(56)
    draw.dense("join/fc1", (10,), (9,))
    draw.dense("join/fc2", (9,), (8,))
    draw_transformer(draw, 8, 4, 8, 8, 6, 8)
    bound, layers = TrainedBound(draw), [nn.Conv1d(10, 9, 1), nn.Conv1d(9, 8, 1)]
    for i, layer in enumerate(layers):
        bound.linear(f"join/fc{i + 1}", layer.weight, layer.bias)
    join = nn.Sequential(layers[0], nn.LeakyReLU(0.1), layers[1])
    head, encoder = make_head(bound, 8, 6, 8), temporal(bound, "encoder/", 8, 4, 8, 2, "relu")
    x, labels = given("features", (4, 3, 9, 10), 0.4), classes(given, 8, (3, 9))
    mask, valid = rows(given, (9, 4, 7), 9, 2)
    entropy = nn.CrossEntropyLoss(torch.tensor(FUXI_WEIGHTS))

    def loss(x, labels):
        hidden = encoder(join(x.mT).mT, src_key_padding_mask=~mask)
        return entropy(head(hidden[valid]), labels[valid])

    optimizer = torch.optim.AdamW(bound.groups(0.05), 5e-5 * LR_FACTOR)
    schedule = schedules.CosineAnnealingWarmRestarts(
        optimizer, 2 * BATCHES, eta_min=1e-5 * LR_FACTOR
    )
    found = losses_of(optimizer, schedule, loss, (x, labels))
    return draw, given, found | {"var": head[1].running_var.numpy()}


def masked_vit_case():
    """AU, of each window's last frame: focal loss with class weights; the rate is constant."""
    draw, given = Draw(57), Draw(58)
    draw_transformer(draw, 8, 4, 12, 6 * 8, 7, 12)
    x, labels = given("features", (4, 5, 6, 8), 0.4), classes(given, 2, (5, 6, 12))
    bound = TrainedBound(draw)
    head, encoder = make_head(bound, 48, 7, 12), temporal(bound, "encoder/", 8, 4, 12, 2, "relu")
    angles = torch.arange(6.0)[:, None] * 10000 ** (-torch.arange(4.0) / 4)
    table = torch.cat([angles.sin(), angles.cos()], 1)
    counts = labels.sum((0, 1, 2))
    shares = 1 - counts / counts.sum()

    def loss(x, labels):
        logits, targets = head(encoder(x + table).flatten(1)), labels[:, -1].float()
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        weights = shares * torch.where(targets == 1, 0.25, 0.75)
        return (weights * (1 - torch.exp(-entropy)) ** 2 * entropy).mean()

    optimizer = torch.optim.AdamW(bound.groups(0.01), 5e-5 * LR_FACTOR)
    found = losses_of(optimizer, None, loss, (x, labels))
    return draw, given, found | {"var": head[1].running_var.numpy()}


def emotic_mae_case():
    """EXPR, the fusion of two views: weighted cross-entropy of single frames; Adam, constant."""
    draw, given = Draw(59), Draw(60)
    for name, width in (("whole", 10), ("composite", 10), ("key", 24)):
        draw.dense(f"fuse/{name}", (width,), (12,))
    draw.dense("head/fc1", (12,), (9,))
    draw.dense("head/fc2", (9,), (8,))
    x, labels = given("features", (4, 6, 1, 20), 0.8), classes(given, 8, (6, 1))
    bound = TrainedBound(draw)
    layers = {
        name: bound.dense(f"fuse/{name}", width, 12)
        for name, width in (("whole", 10), ("composite", 10), ("key", 24))
    }
    head = nn.Sequential(bound.dense("head/fc1", 12, 9), nn.ReLU(), bound.dense("head/fc2", 9, 8))
    counts = labels.flatten().bincount(minlength=8)
    weights = torch.where(counts > 0, labels.numel() / (counts > 0).sum() / counts, 0.0)
    entropy = nn.CrossEntropyLoss(weights)

    def loss(x, labels):
        x1, x2 = layers["whole"](x[..., :10]), layers["composite"](x[..., 10:])
        key = layers["key"](torch.cat([x1, x2], -1))
        q, k, v = (a[..., None] for a in (x2, key, x1))  # a head of width 1 a frame
        fused = x1 + nn.functional.scaled_dot_product_attention(q, k, v)[..., 0]
        return entropy(head(fused)[:, 0], labels[:, 0])

    optimizer = torch.optim.Adam(bound.parameters.values(), 1e-5 * LR_FACTOR)
    return draw, given, losses_of(optimizer, None, loss, (x, labels))


def main(folder):
    torch.backends.mha.set_fastpath_enabled(False)
    cases = {
        "training_ctyun": ctyun_case(),
        "training_mae_transformer": mae_transformer_case(),
        "training_fuxi": fuxi_case(),
        "training_masked_vit": masked_vit_case(),
        "training_emotic_mae": emotic_mae_case(),
    }
    save_cases(folder, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
