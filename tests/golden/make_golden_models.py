"""Write the golden files of tests/models: what PyTorch computes from given weights and inputs.

    python tests/golden/make_golden_models.py [FOLDER]

needs torch and transformers (the package's `parity` extra) and not the package: the networks are
built here a second time, from torch.nn's own layers. The MAE is built twice, from torch.nn
(pre-norm `TransformerEncoderLayer`) and as transformers' `ViTMAEForPreTraining`: they must agree in
loss, prediction, mask and gradients before a file is written. transformers 5.23 makes a new model
with position tables of zeros (pre-trained weights hold the right ones), so they are set here; its
variance of the normalised pixel target is unbiased, as in the authors' code.

Each file is an .npz of float32 values, but for what is given (`weights/...` under the names and in
the shapes of the package's parameters, `inputs/...`): multiples of 1/128 kept as int8, exact in
float32 and small. `gradients/...` has a weight's name; losses and outputs have plain names.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_weights import (
    DEPTH,
    GRID,
    HEADS,
    IMAGE,
    PATCH,
    PIXELS,
    WIDTH,
    Bound,
    Draw,
    matrix,
    save_cases,
    temporal,
)
from transformers import ViTMAEConfig, ViTMAEForPreTraining

DECODER_WIDTH, DECODER_HEADS = 12, 2


def positions(width):
    """He et al.'s fixed table: column, then row, sines before cosines; row 0 is CLS's zeros."""
    table = np.zeros((1 + GRID**2, width))
    quarter = width // 4
    for row in range(GRID):
        for column in range(GRID):
            for k in range(quarter):
                frequency = 10000 ** (-k / quarter)
                place = table[1 + row * GRID + column]
                place[k] = np.sin(column * frequency)
                place[quarter + k] = np.cos(column * frequency)
                place[2 * quarter + k] = np.sin(row * frequency)
                place[3 * quarter + k] = np.cos(row * frequency)
    return torch.tensor(table, dtype=torch.float32)


def pre_norm(width, heads):
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, nn.functional.gelu, 1e-6, batch_first=True, norm_first=True
    )


class Encoder(nn.Module):
    def __init__(self, bound, name):
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.layers = nn.ModuleList([pre_norm(WIDTH, HEADS) for _ in range(DEPTH)])
        bound.linear(f"{name}/patch_embed", self.embed.weight, self.embed.bias)
        bound.token(f"{name}/cls_token", self.cls)
        for i, layer in enumerate(self.layers):
            bound.layer(f"{name}/blocks_{i}", layer)

    def forward(self, images, keep=None):
        x = self.embed(images).flatten(2).transpose(1, 2) + positions(WIDTH)[1:]
        if keep is not None:
            x = torch.gather(x, 1, keep[..., None].expand(-1, -1, WIDTH))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return x


class ReferenceMAE(nn.Module):
    """He et al. 2022, figure 1 and section 3, of torch.nn's layers; mask ratio 0.75."""

    def __init__(self, bound):
        super().__init__()
        self.encoder = Encoder(bound, "encoder")
        self.norm = nn.LayerNorm(WIDTH, 1e-6)
        self.embed = nn.Linear(WIDTH, DECODER_WIDTH)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DECODER_WIDTH))
        self.layer = pre_norm(DECODER_WIDTH, DECODER_HEADS)
        self.decoder_norm = nn.LayerNorm(DECODER_WIDTH, 1e-6)
        self.predict = nn.Linear(DECODER_WIDTH, PIXELS)
        bound.norm("norm", self.norm)
        bound.linear("decoder_embed", self.embed.weight, self.embed.bias)
        bound.token("mask_token", self.mask_token)
        bound.layer("decoder_blocks_0", self.layer)
        bound.norm("decoder_norm", self.decoder_norm)
        bound.linear("decoder_pred", self.predict.weight, self.predict.bias)

    def forward(self, images, noise, norm_pix_loss):
        order = noise.argsort(1)
        keep = order[:, : GRID**2 // 4]
        tokens = self.embed(self.norm(self.encoder(images, keep)))
        full = self.mask_token.expand(len(images), GRID**2, -1)
        index = keep[..., None].expand(-1, -1, DECODER_WIDTH)
        full = torch.scatter(full, 1, index, tokens[:, 1:])
        x = torch.cat([tokens[:, :1], full], 1) + positions(DECODER_WIDTH)
        prediction = self.predict(self.decoder_norm(self.layer(x)))[:, 1:]
        target = nn.functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
        target = target.unflatten(2, (3, PATCH**2)).transpose(2, 3).flatten(2)
        if norm_pix_loss:
            variance, mean = torch.var_mean(target, -1, keepdim=True, correction=1)
            target = (target - mean) / (variance + 1e-6).sqrt()
        mask = torch.ones(len(images), GRID**2).scatter(1, keep, 0.0)
        loss = ((prediction - target) ** 2).mean(-1)[mask.bool()].mean()
        return loss, prediction, mask


def transformers_mae(draw, images, noise, norm_pix_loss):
    """Loss, prediction, mask and gradients by transformers' ViTMAEForPreTraining.

    Its query, key and value are three layers: their gradients are left to the other network.
    """
    decoder_sizes = dict(hidden_size=DECODER_WIDTH, intermediate_size=4 * DECODER_WIDTH,
                         num_attention_heads=DECODER_HEADS, num_hidden_layers=1)  # fmt: skip
    config = ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, hidden_act="gelu", layer_norm_eps=1e-6,
        image_size=IMAGE, patch_size=PATCH, mask_ratio=0.75, norm_pix_loss=norm_pix_loss,
        **{f"decoder_{key}": value for key, value in decoder_sizes.items()},
    )  # fmt: skip
    model = ViTMAEForPreTraining(config)
    vit, decoder, bound = model.vit, model.decoder, Bound(draw)
    projection = vit.embeddings.patch_embeddings.projection
    bound.linear("encoder/patch_embed", projection.weight, projection.bias)
    bound.token("encoder/cls_token", vit.embeddings.cls_token)
    bound.norm("norm", vit.layernorm)
    bound.linear("decoder_embed", decoder.decoder_embed.weight, decoder.decoder_embed.bias)
    bound.token("mask_token", decoder.mask_token)
    bound.norm("decoder_norm", decoder.decoder_norm)
    bound.linear("decoder_pred", decoder.decoder_pred.weight, decoder.decoder_pred.bias)
    named = [(f"encoder/blocks_{i}", layer) for i, layer in enumerate(vit.layers)]
    for name, layer in [*named, ("decoder_blocks_0", decoder.decoder_layers[0])]:
        bound.norm(f"{name}/norm1", layer.layernorm_before)
        bound.norm(f"{name}/norm2", layer.layernorm_after)
        bound.linear(f"{name}/mlp/fc1", layer.mlp.fc1.weight, layer.mlp.fc1.bias)
        bound.linear(f"{name}/mlp/fc2", layer.mlp.fc2.weight, layer.mlp.fc2.bias)
        out = layer.attention.o_proj
        bound.linear(f"{name}/attn/proj", out.weight, out.bias)
        fused, bias = matrix(draw, f"{name}/attn/qkv", layer.attention.q_proj.in_features)
        parts = zip(fused.chunk(3), bias.chunk(3), strict=True)
        for part, (weight, offset) in zip("qkv", parts, strict=True):
            projection = getattr(layer.attention, f"{part}_proj")
            projection.weight.data.copy_(weight)
            projection.bias.data.copy_(offset)
    vit.embeddings.position_embeddings.data.copy_(positions(WIDTH))
    decoder.decoder_pos_embed.data.copy_(positions(DECODER_WIDTH))
    out = model(images, noise=noise)
    out.loss.backward()
    return out.loss, out.logits, out.mask, bound.gradients()


def close(name, ours, theirs, tolerance=2e-6):
    difference = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
    if difference > tolerance * max(1.0, np.abs(np.asarray(theirs)).max()):
        raise SystemExit(f"{name}: the two PyTorch networks differ by {difference}")


def mae_case():
    draw = Draw(1)
    draw.vit("encoder")
    draw.norm("norm", WIDTH)
    draw.dense("decoder_embed", (WIDTH,), (DECODER_WIDTH,))
    draw("mask_token", (1, 1, DECODER_WIDTH))
    draw.block("decoder_blocks_0", DECODER_WIDTH, DECODER_HEADS, 4 * DECODER_WIDTH)
    draw.norm("decoder_norm", DECODER_WIDTH)
    draw.dense("decoder_pred", (DECODER_WIDTH,), (PIXELS,))
    given = Draw(2)
    images = given("images", (3, IMAGE, IMAGE, 3), 0.5).permute(0, 3, 1, 2)
    ranks = np.stack([given.rng.permutation(GRID**2) for _ in range(3)])
    given.kept["noise"] = ranks.astype(np.int8)
    found = {}
    for norm_pix_loss, key in ((False, "raw"), (True, "normed")):
        bound = Bound(draw)
        model = ReferenceMAE(bound)
        loss, prediction, mask = model(images, given["noise"], norm_pix_loss)
        loss.backward()
        gradients = bound.gradients()
        other = transformers_mae(draw, images, given["noise"], norm_pix_loss)
        for name, a, b in zip(
            ("loss", "prediction", "mask"), (loss, prediction, mask), other[:3], strict=True
        ):
            close(f"{key} {name}", a.detach(), b.detach())
        for name, gradient in other[3].items():
            close(f"{key} {name}", gradients[name], gradient)
        found |= {f"gradients/{key}/{n}": g for n, g in gradients.items()}
        found[f"loss/{key}"] = loss.detach().numpy()
    found |= {"prediction": prediction.detach().numpy(), "mask": mask.numpy()}
    return draw, given, found


def classifier_case():
    """ViT, mean of the patch tokens, LayerNorm, Linear, cross-entropy: MAE's fine-tuning form."""
    draw = Draw(3)
    draw.vit("encoder")
    draw.norm("fc_norm", WIDTH)
    draw.dense("head", (WIDTH,), (5,))
    given = Draw(4)
    images = given("images", (3, IMAGE, IMAGE, 3), 0.5).permute(0, 3, 1, 2)
    bound = Bound(draw)
    encoder, norm, head = Encoder(bound, "encoder"), nn.LayerNorm(WIDTH, 1e-6), nn.Linear(WIDTH, 5)
    bound.norm("fc_norm", norm)
    bound.linear("head", head.weight, head.bias)
    tokens = encoder(images)
    features = norm(tokens[:, 1:].mean(1))
    logits = head(features)
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 3, 4]))
    loss.backward()
    found = {"tokens": tokens, "features": features, "logits": logits, "loss": loss}
    found = {name: value.detach().numpy() for name, value in found.items()}
    return draw, given, found | {f"gradients/{n}": g for n, g in bound.gradients().items()}


LENGTHS = (7, 4, 1)


def padding():
    """(3, 7) bool, True where a frame is."""
    return torch.arange(7)[None] < torch.tensor(LENGTHS)[:, None]


def transformer_case(activation):
    draw, given = Draw(5), Draw(6)
    for i in range(2):
        draw.block(f"layers_{i}", 16, 2, 24)
    x = given("features", (3, 7, 16), 0.4).requires_grad_()
    probe = given("probe", (3, 7, 16), 0.4)
    given.kept["mask"] = padding().numpy()
    bound = Bound(draw)
    out = temporal(bound, "", 16, 2, 24, 2, activation)(x, src_key_padding_mask=~padding())
    (out * probe * padding()[..., None]).sum().backward()
    found = {"output": out.detach().numpy(), "input_gradient": x.grad.numpy()}
    return draw, given, found | {f"gradients/{n}": g for n, g in bound.gradients().items()}


def batch_norm_case():
    """Two training steps of torch.nn.BatchNorm1d on the valid rows alone, then evaluation."""
    draw, given = Draw(7), Draw(8)
    draw.norm("norm", 6)
    bound, norm = Bound(draw), nn.BatchNorm1d(6)
    bound.norm("norm", norm)
    given.kept["mask"] = padding().numpy()
    found = {}
    for step in range(2):
        x = given(f"features_{step}", (3, 7, 6), 0.4, 0.3).requires_grad_()
        probe = given(f"probe_{step}", (3, 7, 6), 0.4)
        norm.zero_grad()
        out = norm(x[padding()])
        (out * probe[padding()]).sum().backward()
        found |= {f"{n}_{step}": g for n, g in bound.gradients().items()}
        found |= {
            f"output_{step}": out.detach().numpy(),
            f"input_gradient_{step}": x.grad.numpy(),
            f"mean_{step}": norm.running_mean.numpy().copy(),
            f"var_{step}": norm.running_var.numpy().copy(),
        }
    norm.eval()
    found["evaluated"] = norm(x.detach().reshape(-1, 6)).detach().reshape(3, 7, 6).numpy()
    return draw, given, found


def sequence_case():
    """1x1 convolution, sin-cos positions, post-norm encoder, Linear, BatchNorm1d, Linear."""
    draw, given = Draw(9), Draw(10)
    draw.dense("project", (10,), (16,))
    for i in range(2):
        draw.block(f"encoder/layers_{i}", 16, 2, 24)
    draw.dense("head/fc1", (16,), (8,))
    draw.norm("head/norm", 8)
    draw.dense("head/fc2", (8,), (3,))
    bound = Bound(draw)
    project, fc1 = nn.Conv1d(10, 16, 1), nn.Linear(16, 8)
    norm, fc2 = nn.BatchNorm1d(8), nn.Linear(8, 3)
    bound.linear("project", project.weight, project.bias)
    encoder = temporal(bound, "encoder/", 16, 2, 24, 2, "relu")
    bound.linear("head/fc1", fc1.weight, fc1.bias)
    bound.norm("head/norm", norm)
    bound.linear("head/fc2", fc2.weight, fc2.bias)
    features, mask = given("features", (3, 7, 10), 0.4), padding()
    probe = given("probe", (3, 7, 3), 0.4)
    given.kept["mask"] = mask.numpy()
    angles = torch.arange(7.0)[:, None] * 10000 ** (-torch.arange(8.0) / 8)
    table = torch.cat([angles.sin(), angles.cos()], 1)
    x = encoder(project(features.mT).mT + table, src_key_padding_mask=~mask)
    logits = fc2(norm(fc1(x[mask])))
    (logits * probe[mask]).sum().backward()
    found = {
        "logits": logits.detach().numpy(),
        "mean": norm.running_mean.numpy(),
        "var": norm.running_var.numpy(),
    }
    return draw, given, found | {f"gradients/{n}": g for n, g in bound.gradients().items()}


def main(folder):
    torch.backends.mha.set_fastpath_enabled(False)
    cases = {
        "mae_small": mae_case(),
        "vit_classifier": classifier_case(),
        "transformer_relu": transformer_case("relu"),
        "transformer_gelu": transformer_case("gelu"),
        "transformer_batch_norm": batch_norm_case(),
        "transformer_sequence": sequence_case(),
    }
    save_cases(folder, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
