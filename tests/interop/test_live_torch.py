"""Weights against the installed PyTorch libraries: `python -m pytest -m torch`, extra `parity`."""

import argparse

import numpy as np
import pytest

import abaw_jax
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.convert import convert
from abaw_jax.interop.publish import publish
from abaw_jax.interop.tensors import BFLOAT16, read_source

# torch and its friends warn of much that is not ours.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def pixels(torch):
    return (torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def make_timm(torch, **options):
    """timm's ViT-Ti of 32 pixels, its biases and norms not those it starts with."""
    timm = pytest.importorskip("timm")
    sizes = dict(img_size=32, patch_size=8, embed_dim=192, depth=12, num_heads=3)
    model = timm.models.VisionTransformer(num_classes=3, **sizes, **options)
    return shaken(torch, model)


def shaken(torch, model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def close(found, expected):
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_timm(torch, tmp_path, pool):
    """A checkpoint in, the outputs of the library, and a file out that it loads."""
    model = make_timm(torch, global_pool=pool)
    arguments = argparse.Namespace(epochs=1)
    torch.save({"model": model.state_dict(), "args": arguments}, tmp_path / "vit.pth")
    convert(tmp_path / "vit.pth", tmp_path / "model", normalise="half", classes=CLASSES)
    with torch.no_grad():
        close(abaw_jax.load(tmp_path / "model")(IMAGES)["logits"], model(pixels(torch)))
    publish(tmp_path / "model", tmp_path / "out", "timm")
    load_file = pytest.importorskip("safetensors.torch").load_file
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTMAEForPreTraining"])
def test_transformers(torch, tmp_path, kind):
    """What the library saves is read without a flag, and it loads what is written."""
    library = pytest.importorskip("transformers")
    sizes = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
                 image_size=32, patch_size=8)  # fmt: skip
    if kind.startswith("ViTMAE"):
        config = library.ViTMAEConfig(
            **sizes, decoder_hidden_size=32, decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4, decoder_intermediate_size=128,
        )  # fmt: skip
    else:
        config = library.ViTConfig(**sizes, id2label=dict(enumerate(CLASSES)))
    model = shaken(torch, getattr(library, kind)(config))
    model.save_pretrained(tmp_path / "hub")
    processor = library.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "hub")
    mae = kind.startswith("ViTMAE")
    convert(tmp_path / "hub", tmp_path / "model", drop_head=mae)
    assert load_model(tmp_path / "model")[1]["image"]["mean"] == [0.5, 0.5, 0.5]
    found = abaw_jax.load(tmp_path / "model")(IMAGES)
    with torch.no_grad():
        if mae:
            encoder = model.vit
            encoder.config.mask_ratio = 0.0
            noise = torch.arange(16.0).expand(2, 16)
            state = encoder(pixels(torch), noise=noise).last_hidden_state
            close(found["features"], state[:, 0])
            return
        close(found["logits"], model(pixels(torch)).logits)
        publish(tmp_path / "model", tmp_path / "out", "transformers")
        again = type(model).from_pretrained(tmp_path / "out").eval()
        close(found["logits"], again(pixels(torch)).logits)
    assert again.config.id2label == dict(enumerate(CLASSES))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch(torch, tmp_path, zipped):
    """Both layouts, short types and tensors that share or skip memory."""
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "module.turned": whole.T, "module.part": whole[1:, ::2], "module.half": whole.half(),
        "module.brain": whole.bfloat16() / 3, "module.count": torch.tensor(7),
    }  # fmt: skip
    path = tmp_path / "a.pt"
    torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=zipped)
    source = read_source(path)
    assert source.prefix == "module."
    for name, tensor in tensors.items():
        found = source.tensors[name.removeprefix("module.")]
        np.testing.assert_array_equal(found.astype(np.float32), tensor.float().numpy())
    assert source.tensors["brain"].dtype == BFLOAT16


def test_a_whole_model_is_refused(torch, tmp_path):
    """Loading it would run its class's code."""
    torch.save(make_timm(torch), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"names timm.models.vision_transformer.VisionTransformer"):
        read_source(tmp_path / "model.pt")
    torch.save({"a": torch.zeros(1), "b": "text"}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="b are no tensors; expected tensors by name"):
        read_source(tmp_path / "odd.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list; expected tensors by name"):
        read_source(tmp_path / "list.pt")
