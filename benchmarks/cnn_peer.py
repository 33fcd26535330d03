"""The convolutional encoders in PyTorch, the peer of cnn_step.py; no benchmark itself.

EfficientNet and MobileViT are timm's. MobileFaceNet and DDAMFN are written from torch.nn's layers,
under the names that their public code gives them; tests/golden/make_golden_cnns.py takes them too.
"""

from functools import partial

import torch
from torch import nn

DDAMFN_STAGES = (
    (64, (64, 32, 32), 9, (96, 32)),
    (128, (128, 64, 64), 16, (192, 64)),
    (256, (256, 256, 256, 256), 6, (172, 170, 170)),
)
MOBILEFACENET_STAGES = ((128, 128, 4, 128), (256, 256, 6, 256), (256, 512, 2, 256))


class Named(nn.Module):
    """Layers one after the other, under the names given."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Layers(Named):
    """Layers numbered within `layers`, as insightface has them; residual: beside their input."""

    def __init__(self, *layers, residual=False):
        super().__init__(layers=nn.Sequential(*layers))
        self.residual = residual

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


def convolve(inputs, outputs, kernel=(1, 1), stride=1, groups=1, whole=False):
    padding = (0, 0) if whole else tuple(side // 2 for side in kernel)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def numbered(inputs, outputs, *of_conv, prelu=True, **options):
    conv = convolve(inputs, outputs, *of_conv, **options)
    return Layers(conv, nn.BatchNorm2d(outputs), *([nn.PReLU(outputs)] if prelu else []))


def bottleneck(inputs, outputs, hidden, stride, residual=False):
    return Layers(
        numbered(inputs, hidden),
        numbered(hidden, hidden, (3, 3), stride, hidden),
        numbered(hidden, outputs, prelu=False),
        residual=residual,
    )


class MobileFaceNet(nn.Module):
    """stages: (width, hidden, blocks, hidden of these); size: of the images."""

    def __init__(self, stages, size):
        super().__init__()
        blocks = [numbered(3, 128, (3, 3), 2), numbered(128, 128, (3, 3), 1, 64)]
        now, size = 128, size // 2
        for width, hidden, count, inside in stages:
            blocks.append(bottleneck(now, width, hidden, 2))
            rest = (bottleneck(width, width, inside, 1, residual=True) for _ in range(count))
            blocks.append(Layers(*rest))
            now, size = width, size // 2
        self.layers = nn.Sequential(*blocks)
        self.conv_sep = numbered(now, 512)
        pool = numbered(512, 512, (size, size), 1, 512, whole=True, prelu=False)
        embed = nn.Linear(512, 512, bias=False)
        self.features = Layers(pool, nn.Flatten(), embed, nn.BatchNorm1d(512))

    def forward(self, x):
        return self.features(self.conv_sep(self.layers(x)))


def named(inputs, outputs, *of_conv, prelu=True, **options):
    layers = dict(conv=convolve(inputs, outputs, *of_conv, **options), bn=nn.BatchNorm2d(outputs))
    return Named(**layers, **(dict(prelu=nn.PReLU(outputs)) if prelu else {}))


class Attention(nn.Module):
    """Gates by rows and columns; side: of a map whose rows are summed up by convolutions."""

    def __init__(self, width, side=None):
        super().__init__()
        if side:
            whole = partial(named, width, width, groups=width, whole=True, prelu=False)
            self.Linear_h, self.Linear_w = whole((1, side)), whole((side, 1))
            self.Linear = whole((side, side))
        else:
            self.Linear_h, self.Linear_w = (
                partial(torch.mean, dim=d, keepdim=True) for d in (3, 2)
            )
        between = max(8, width // 32)
        self.conv1, self.bn1 = nn.Conv2d(width, between, 1), nn.BatchNorm2d(between)
        self.conv2, self.conv3 = nn.Conv2d(between, width, 1), nn.Conv2d(between, width, 1)

    def forward(self, x):
        both = torch.cat([self.Linear_h(x), self.Linear_w(x).mT], 2)
        both = nn.functional.hardswish(self.bn1(self.conv1(both)))
        rows, columns = both.split([x.shape[2], x.shape[3]], 2)
        return self.conv2(rows).sigmoid() * self.conv3(columns).mT.sigmoid()


class MixedConv(nn.Module):
    """Depthwise convolutions of 3, 5, 7, ... pixels; a norm and a PReLU that nothing calls."""

    def __init__(self, channels, stride):
        super().__init__()
        sides = ((width, 3 + 2 * i) for i, width in enumerate(channels))
        convs = (convolve(w, w, (side, side), stride, w) for w, side in sides)
        self.channels, self.mixed_depthwise_conv = channels, nn.ModuleList(convs)
        self.bn, self.prelu = nn.BatchNorm2d(sum(channels)), nn.PReLU(sum(channels))

    def forward(self, x):
        parts = zip(self.mixed_depthwise_conv, x.split(self.channels, 1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], 1)


class Mixed(nn.Module):
    def __init__(self, inputs, outputs, channels, stride, residual=False):
        super().__init__()
        self.conv = named(inputs, sum(channels))
        self.conv_dw = MixedConv(channels, stride)
        self.CA = Attention(sum(channels))
        self.project = named(sum(channels), outputs, prelu=False)
        self.residual = residual

    def forward(self, x):
        h = self.conv_dw(self.conv(x))
        h = self.project(h * self.CA(h))
        return x + h if self.residual else h


class DDAMFN(nn.Module):
    """stages: (width, channels, blocks, channels of these); size: of the images."""

    def __init__(self, stages, size, outputs, width=512):
        super().__init__()
        blocks, now, size = [named(3, 64, (3, 3), 2), named(64, 64, (3, 3), 1, 64)], 64, size // 2
        for wide, channels, count, inside in stages:
            blocks.append(Mixed(now, wide, channels, 2))
            rest = (Mixed(wide, wide, inside, 1, residual=True) for _ in range(count))
            blocks.append(Named(model=nn.Sequential(*rest)))
            now, size = wide, size // 2
        self.features = nn.Sequential(*blocks, named(now, width))
        self.cat_head0 = Named(CoordAtt=Attention(width, size))
        self.cat_head1 = Named(CoordAtt=Attention(width, size))
        self.Linear = named(width, width, (size, size), groups=width, whole=True, prelu=False)
        self.fc, self.bn = nn.Linear(width, outputs), nn.BatchNorm1d(outputs)

    def forward(self, x):
        x = self.features(x)
        gate = torch.maximum(self.cat_head0(x), self.cat_head1(x))
        return self.fc(self.Linear(x * gate).flatten(1))


def make_model(name, outputs):
    """The model of a case of cnn_step.py, with a classifier."""
    if name in ("efficientnet_b0", "efficientnet_b2", "mobilevit_s"):
        import timm

        return timm.create_model(name, num_classes=outputs)
    if name == "ddamfn":
        return DDAMFN(DDAMFN_STAGES, 112, outputs)
    small = name == "tiny"
    stages = ((32, 16, 1, 16),) if small else MOBILEFACENET_STAGES
    return nn.Sequential(MobileFaceNet(stages, 16 if small else 112), nn.Linear(512, outputs))


class Scaled(nn.Module):
    """Bytes (B, S, S, 3), as ours are given, through a model."""

    def __init__(self, model, mean, std):
        super().__init__()
        self.model = model
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image):
        return self.model((image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)


def write_onnx(settings, file):
    """The model as torch.onnx.export has it by default, for any number of images."""
    torch.manual_seed(0)
    model = make_model(settings["model"], settings["outputs"])
    scaled = Scaled(model, settings["mean"], settings["std"]).eval()
    images = torch.zeros(2, settings["size"], settings["size"], 3, dtype=torch.uint8)
    torch.onnx.export(
        scaled,
        (images,),
        file,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        input_names=["image"],
        external_data=False,
        verbose=False,
    )


def make_runtime_step(file, batch, threads):
    """() -> None: inference on a batch of NumPy arrays by a file, in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": batch["image"]})


def make_step(settings, batch, threads):
    """() -> None: inference or a training step on a batch of NumPy arrays; settings of cnn_step.py.

    Images travel as bytes and are scaled in the step, as ours are.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    model = make_model(settings["model"], settings["outputs"]).to(memory_format=layout)
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("mean", "std"))
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(batch["label"][:, 0]).long()

    def forward():
        scaled = (images.float() / 255 - mean) / std
        return model(scaled.contiguous(memory_format=layout))

    if settings["mode"] != "train":
        model.eval()

        def infer():
            with torch.inference_mode():
                forward()

        return infer
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), settings["lr"], fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(forward(), labels).backward()
        optimizer.step()

    return step
