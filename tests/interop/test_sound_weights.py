"""Published encoders of sound, called with samples; what is refused."""

import json

import numpy as np
import pytest
from small_sources import GIVEN, SIZES, small_source

import abaw_jax
from abaw_jax.data.acoustics import log_mel_patches
from abaw_jax.errors import InputError
from abaw_jax.interop.architectures import ARCHITECTURES
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.convert import convert
from abaw_jax.interop.inputs import take_patches, take_samples
from abaw_jax.interop.publish import publish
from abaw_jax.interop.tensors import save_tensors
from abaw_jax.models.wav2vec2 import encode_long

SOUND = np.random.default_rng(0).normal(100, 3000, (2, 3000)).astype(np.int16)
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path):
    """A folder as transformers writes it."""
    save_tensors(tmp_path / "hub" / WEIGHTS, small_source("wav2vec2", "transformers"))
    (tmp_path / "hub/config.json").write_text(json.dumps(GIVEN["wav2vec2"]))
    return tmp_path / "hub"


def test_states_of_whole_recordings(tmp_path, hub):
    """Those that `encode_long` gives of one that fits into a block, of both types of samples."""
    folder = tmp_path / "model"
    convert(hub, folder)
    model = abaw_jax.load(folder)
    found = model(SOUND)
    module = ARCHITECTURES["wav2vec2"].module(SIZES["wav2vec2"])
    (expected,) = encode_long(module, load_model(folder)[0]["params"], SOUND[1], block=9, margin=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["states"][1], expected, atol=1e-5 * scale)
    np.testing.assert_allclose(found["features"], found["states"].mean(1), atol=1e-5 * scale)
    floats = model(SOUND.astype(np.float32) / 32768)
    np.testing.assert_allclose(floats["states"], found["states"], atol=1e-5 * scale)


def test_what_is_written_for_transformers_is_read_again(tmp_path, hub):
    (hub / "preprocessor_config.json").write_text('{"do_normalize": false}')
    convert(hub, tmp_path / "model")
    publish(tmp_path / "model", tmp_path / "out", "transformers")
    again = convert(tmp_path / "out", tmp_path / "again")
    assert again["model"] == SIZES["wav2vec2"] | {"normalise": False}
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (
        tmp_path / "model" / WEIGHTS
    ).read_bytes()


def test_samples_are_normalised_where_the_source_says_so():
    found = take_samples(SOUND, {"normalise": True})
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(1), 1, rtol=1e-4)
    assert found.dtype == np.float32
    plain = take_samples(SOUND, {"normalise": False})
    np.testing.assert_array_equal(plain, SOUND.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    "samples", [SOUND[0], SOUND[:, :399], SOUND.astype(np.float64), SOUND[..., None]]
)
def test_samples_that_the_encoder_does_not_take(samples):
    with pytest.raises(InputError, match=r"expected int16 or float32 \(recordings, at least 400"):
        take_samples(samples, {"normalise": True})


def test_patches_of_sound_and_the_last_activation(tmp_path):
    """The port's, or as those have it who took it off."""
    save_tensors(tmp_path / "a.safetensors", small_source("vggish", "torchvggish"))
    patches = log_mel_patches(np.tile(SOUND[0], 6))
    found = {}
    for activate in (True, False):
        convert(tmp_path / "a.safetensors", tmp_path / "model", activate=activate)
        found[activate] = abaw_jax.load(tmp_path / "model")(patches)["features"]
    assert found[True].shape == (1, 7) and found[False].min() < 0
    np.testing.assert_allclose(found[True], np.maximum(found[False], 0), rtol=1e-5)
    with pytest.raises(InputError, match=r"patches: .*expected float32 \(any number, 96, 64\)"):
        take_patches(patches[0], {})


def test_what_does_not_belong_together(tmp_path, hub):
    def refused(**given):
        with pytest.raises(InputError) as caught:
            convert(hub, tmp_path / "model", **given)
        assert not (tmp_path / "model").exists()
        return str(caught.value)

    message = refused(hidden_size=32)
    assert "feature_projection.projection.weight (16, 4), expected (32, 4)" in message
    assert "no such model can be made" in refused(num_attention_heads=3)
    assert "model_type is 'wavlm'" in refused(model_type="wavlm")
    assert "8000 samples a second; expected 16000" in refused(preprocessor={"sampling_rate": 8000})
