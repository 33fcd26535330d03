"""wav2vec 2.0, HuBERT and VGGish equal PyTorch's on the same weights, whole and in blocks.

The golden file is written by tests/golden/make_golden_sound.py.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from abaw_jax.data.acoustics import log_mel_patches
from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import read_tensors, write_tensors
from abaw_jax.interop.keys import vggish as vggish_keys
from abaw_jax.interop.keys import wav2vec2 as wav2vec2_keys
from abaw_jax.models import wav2vec2
from abaw_jax.models.vggish import VGGish
from abaw_jax.models.wav2vec2 import SIZES, Wav2Vec2, count_frames, encode_long
from tests.golden.sound_weights import (
    ENCODERS,
    LENGTHS,
    VGGISH,
    draw_samples,
    draw_sound,
    draw_weight,
)

with np.load(Path(__file__).parents[1] / "golden" / "sound_encoders.npz") as file:
    GOLDEN = {name: file[name] for name in file.files}


def shapes_of(model, x):
    initial = jax.eval_shape(model.init, jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten_dict(initial, sep="/").items()}


def tensors_of(case):
    """(torch's tensors by name, its config or None)."""
    shapes, config = json.loads(str(GOLDEN[f"{case}/names"]))
    return {n: draw_weight(n, tuple(shape)) for n, shape in shapes.items()}, config


@functools.cache
def read_encoder(case):
    """(model, params) of a case, by transformers' config and tensors."""
    tensors, config = tensors_of(case)
    model = Wav2Vec2(**wav2vec2_keys.settings(json.loads(config), tensors, "config.json"))
    shapes = shapes_of(model, np.zeros((1, 400), np.float32))
    arrays = read_tensors(tensors, wav2vec2_keys.rules(tensors), shapes, "a.safetensors")
    return model, unflatten_dict(arrays, sep="/")["params"]


def close(found, expected):
    """To 1e-5 of the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def padded():
    """(sounds (2, L) with what counts for nothing behind the shorter, lengths)."""
    sounds = np.full((2, max(LENGTHS) + 500), 3, np.float32)
    for i, length in enumerate(LENGTHS):
        sounds[i, :length] = draw_sound(length, i)
    return sounds, np.array(LENGTHS)


@pytest.mark.parametrize("case", ENCODERS)
def test_encoder_equals_transformers(case):
    """Each sound alone in torch, both in one padded batch here; so the layers before the last."""
    model, params = read_encoder(case)
    sounds, lengths = padded()
    layers = (None, 0, 1)

    @jax.jit
    def run(params):
        return [model.apply({"params": params}, sounds, lengths, layer=layer) for layer in layers]

    last, *others = run(params)
    for i, (length, states) in enumerate(zip(LENGTHS, last, strict=True)):
        expected = GOLDEN[f"{case}/last_{i}"]
        assert len(expected) == count_frames(length)
        close(states[: len(expected)], expected)
    for layer, states in zip(layers[1:], others, strict=True):
        expected = GOLDEN[f"{case}/layer_{layer}"]
        close(states[1, : len(expected)], expected)


def test_encoder_without_lengths():
    model, params = read_encoder("wav2vec2_base")
    states = jax.jit(model.apply)({"params": params}, draw_sound(LENGTHS[0], 0)[None])
    close(states[0], GOLDEN["wav2vec2_base/last_0"])


@pytest.mark.parametrize("prefix", ["", "wav2vec2.", "hubert."])
@pytest.mark.parametrize("norm", wav2vec2_keys.WEIGHT_NORMS)
def test_names_of_models_with_heads_and_of_both_weight_norms(prefix, norm):
    tensors, _ = tensors_of("hubert_large")
    new = wav2vec2_keys.WEIGHT_NORMS[1]
    renamed = {}
    for name, tensor in tensors.items():
        for before, after in zip(new, norm, strict=True):
            name = name.replace(before, after)
        renamed[prefix + name] = tensor
    _, params = read_encoder("hubert_large")
    paths = flatten_dict({"params": params}, sep="/")
    shapes = {path: a.shape for path, a in paths.items()}
    heads = {name: np.zeros(3) for name in ("lm_head.weight", "quantizer.codevectors")}
    rules = wav2vec2_keys.rules(renamed)
    arrays = read_tensors(renamed | heads, rules, shapes, "a.bin", wav2vec2_keys.IGNORED)
    assert all((arrays[path] == array).all() for path, array in paths.items())
    back = write_tensors(arrays, rules)
    assert back.keys() == renamed.keys()
    assert all(back[n].tobytes() == a.tobytes() for n, a in renamed.items())
    assert all(back[n].shape == a.shape for n, a in renamed.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "a: hidden_act is 'relu'; expected 'gelu'"),
        ({"conv_stride": [5, 2]}, "a: conv_stride is [5, 2]; expected [5, 2, 2, 2, 2, 2, 2]"),
        ({"add_adapter": True}, "a: add_adapter is True; expected False"),
        ({"model_type": "whisper"}, "a: model_type is 'whisper'; expected 'wav2vec2' or 'hubert'"),
        ({"conv_dim": [24, 48] * 4}, f"a: conv_dim is {[24, 48] * 4}; expected one width"),
    ],
)
def test_an_architecture_that_is_another_is_refused(change, message):
    tensors, config = tensors_of("wav2vec2_base")
    with pytest.raises(InputError) as caught:
        wav2vec2_keys.settings(json.loads(config) | change, tensors, "a")
    assert str(caught.value) == message


def test_a_config_without_a_value_is_refused():
    config = json.loads(tensors_of("wav2vec2_base")[1])
    del config["hidden_size"]
    with pytest.raises(InputError, match="a: has no hidden_size; expected transformers' config"):
        wav2vec2_keys.settings(config, {}, "a")


# Of transformers' Wav2Vec2Model and HubertModel.
@pytest.mark.parametrize(
    ("size", "count"),
    [("base", 94_371_712), ("large", 315_428_992), ("large_lv60", 315_438_720)],
)
def test_true_sizes(size, count):
    shapes = shapes_of(Wav2Vec2(**SIZES[size]), np.zeros((1, 400), np.float32))
    assert sum(np.prod(shape, dtype=int) for shape in shapes.values()) == count


def test_both_forms_of_the_grouped_convolution_agree():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 9, 12)), rng.normal(size=(6, 3, 12))
    results = [
        jax.jit(jax.value_and_grad(lambda x, k, form=form: jnp.square(
            wav2vec2.grouped_convolution(x, k, apart=form)).sum(), (0, 1)))(
            x.astype(np.float32), kernel.astype(np.float32))
        for form in (True, False)
    ]  # fmt: skip
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        close(one, np.asarray(other))


def test_masked_frames_are_the_learnt_vector():
    model, params = read_encoder("wav2vec2_base")
    masked = np.arange(count_frames(4000))[None] % 3 == 0
    run = jax.jit(lambda x, masked: model.apply({"params": params}, x, None, masked, layer=0))
    sounds = draw_sound(4000, 0), draw_sound(4000, 1)
    one, other = (run(sound[None], np.ones_like(masked)) for sound in sounds)
    np.testing.assert_array_equal(one, other)  # nothing of the sound is left
    assert np.abs(run(sounds[0][None], masked) - run(sounds[1][None], masked)).max() > 0.1


def test_what_cannot_be_encoded_is_named():
    model, params = read_encoder("wav2vec2_base")
    with pytest.raises(ValueError, match="399 samples; expected at least 400"):
        model.apply({"params": params}, np.zeros((1, 399), np.float32))
    with pytest.raises(ValueError, match="layer 3; expected 0 to 2"):
        model.apply({"params": params}, np.zeros((1, 400), np.float32), layer=3)
    with pytest.raises(ValueError, match="margin 8"):
        next(encode_long(model, params, np.zeros(400, np.int16), block=16, margin=8))


@pytest.fixture(scope="module", params=["wav2vec2_base", "hubert_large"])
def encoder(request):
    return read_encoder(request.param)


def whole_pass(encoder, samples, layer=None):
    """The states of normalised samples in one pass, without lengths."""
    model, params = encoder
    x = samples / 32768
    x = ((x - x.mean()) / np.sqrt(x.var() + 1e-7)).astype(np.float32)
    run = jax.jit(lambda x: model.apply({"params": params}, x, layer=layer))
    return np.asarray(run(x[None])[0])


BLOCK = dict(block=160, margin=64)  # of one shape in all tests: one program


@pytest.mark.parametrize("length", [160 * 320 + 399, 719])
def test_a_recording_of_one_block_is_the_whole_pass(encoder, length):
    samples = draw_samples(length, 3)
    (states,) = encode_long(*encoder, samples, **BLOCK)
    assert len(states) == count_frames(length)
    close(states, whole_pass(encoder, samples))


@pytest.mark.parametrize("length", [0, 1, 399])
def test_less_than_a_window_has_no_frames(encoder, length):
    assert count_frames(length) == 0
    assert not list(encode_long(*encoder, np.ones(length, np.int16), **BLOCK))


def test_samples_may_be_taken_as_they_are(encoder):
    samples = draw_samples(719, 3)
    floats = (samples / 32768).astype(np.float32)
    normalised = (floats - floats.mean()) / np.sqrt(floats.var() + 1e-7)
    (expected,) = encode_long(*encoder, samples, **BLOCK)
    (found,) = encode_long(*encoder, normalised, **BLOCK, normalise=False)
    close(found, expected)
    (found,) = encode_long(*encoder, samples, **BLOCK, normalise=False)
    (expected,) = encode_long(*encoder, floats, **BLOCK, normalise=False)
    close(found, expected)


def test_blocks_are_aligned_and_only_their_surroundings_differ():
    """Of layer norm's form what goes into the first layer is that of the whole pass."""
    encoder, frames = read_encoder("hubert_large"), 300
    samples = draw_samples(frames * 320 + 399, 5)
    parts = list(encode_long(*encoder, samples, **BLOCK, layer=0))
    assert [len(part) for part in parts] == [96, 32, 32, 32, 32, 76]
    close(np.concatenate(parts), whole_pass(encoder, samples, layer=0))
    states = np.concatenate(list(encode_long(*encoder, samples, **BLOCK)))
    whole = whole_pass(encoder, samples)
    assert states.shape == whole.shape
    difference = np.abs(states - whole).max(1) / np.abs(whole).max()
    assert 1e-4 < difference.max() < 0.5


def test_group_norm_of_blocks_keeps_frames_in_place():
    """Its statistics are a block's own: states differ, and are nearest to their own frame's."""
    encoder = read_encoder("wav2vec2_base")
    samples = draw_samples(300 * 320 + 399, 5)
    states = np.concatenate(list(encode_long(*encoder, samples, **BLOCK)))
    whole = whole_pass(encoder, samples)
    assert states.shape == whole.shape
    centred = [a - a.mean(0) for a in (states, whole)]
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in centred]
    np.testing.assert_array_equal((unit[0] @ unit[1].T).argmax(1), np.arange(300))


def test_one_program_serves_recordings_of_any_length(encoder):
    before = wav2vec2._encode_block._cache_size()
    for length in (500, 70_000, 123_457):
        parts = list(encode_long(*encoder, draw_samples(length, 1), block=160, margin=60))
        assert sum(map(len, parts)) == count_frames(length)
    assert wav2vec2._encode_block._cache_size() <= before + 1


def test_vggish_and_its_patches_equal_torch():
    patches = log_mel_patches(draw_samples(40_000, 7))
    close(patches, GOLDEN["vggish/patches"])
    tensors, model = tensors_of("vggish")[0], VGGish(**VGGISH)
    shapes = shapes_of(model, patches)
    tensors |= {"pproc.pca_means": np.zeros(128)}
    arrays = read_tensors(tensors, vggish_keys.RULES, shapes, "a.pth", vggish_keys.IGNORED)
    variables = unflatten_dict(arrays, sep="/")
    embeddings = jax.jit(model.apply)(variables, patches)
    close(embeddings, GOLDEN["vggish/embeddings"])
    before = jax.jit(model.clone(activate=False).apply)(variables, patches)
    close(np.maximum(before, 0), GOLDEN["vggish/embeddings"])
    assert np.asarray(before).min() < 0
    back = write_tensors(arrays, vggish_keys.RULES)
    assert all(back[name].tobytes() == tensors[name].tobytes() for name in back)
    assert len(back) == len(tensors) - 1 == 18


def test_vggish_has_its_true_size():
    shapes = shapes_of(VGGish(), np.zeros((1, 96, 64), np.float32))
    assert sum(np.prod(shape, dtype=int) for shape in shapes.values()) == 72_141_184
