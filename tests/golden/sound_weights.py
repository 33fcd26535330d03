"""Weights and sounds of the golden sound encoders, drawn by their names alone, here and there."""

import zlib

import numpy as np

# transformers' config of each case; the rest as published.
SMALL = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
    conv_dim=[24] * 7,
)  # fmt: skip
STABLE = dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
ENCODERS = {
    "wav2vec2_base": dict(model_type="wav2vec2", **SMALL),
    "wav2vec2_large_lv60": dict(model_type="wav2vec2", **SMALL, **STABLE),
    "hubert_base": dict(model_type="hubert", **SMALL, mask_time_prob=0.0),
    "hubert_large": dict(model_type="hubert", **SMALL, **STABLE),
}
LENGTHS = 9000, 6123  # samples
VGGISH = dict(widths=(8, 12, 16, 24), hidden=40, embedding=20)


def draw_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 `shape`: a torch parameter of this name, so scaled that activations stay near 1."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("bias"):
        drawn *= 0.1
    elif len(shape) < 2 or name.endswith(("weight_g", "original0")):
        drawn = 1 + 0.1 * drawn
    else:
        drawn *= np.prod(shape[1:]) ** -0.5
    return drawn.astype(np.float32)


def draw_sound(length: int, seed: int) -> np.ndarray:
    """float32 (length,) of about -0.5 to 0.5: three tones that come and go, in noise."""
    rng, at = np.random.default_rng(seed), np.arange(length) / 16000
    sound = 0.02 * rng.standard_normal(length)
    for pitch, rate in rng.uniform((80, 1), (3000, 6), (3, 2)):
        sound += 0.1 * np.sin(2 * np.pi * pitch * at) * (1 + np.sin(2 * np.pi * rate * at))
    return sound.astype(np.float32)


def draw_samples(length: int, seed: int) -> np.ndarray:
    """`draw_sound` as int16."""
    return np.round(draw_sound(length, seed) * 32768).clip(-32768, 32767).astype(np.int16)
