"""What converted encoders take that see no images, and what they give.

tokens   {'ids': int (B, N), 'mask': bool (B, N), False where a token is padding}
samples  int16 or float32 (B, L) of sound at 16 kHz, one channel
patches  float32 (B, 96, 64), as `data.acoustics.log_mel_patches` makes them of samples
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.models.vggish import PATCH
from abaw_jax.models.wav2vec2 import WINDOW

Sizes = Mapping[str, Any]


def take_tokens(inputs: Any, sizes: Sizes) -> dict[str, np.ndarray]:
    """Checked ids, int32, and mask; InputError for others, for more of them than the encoder has
    positions, and for ids that are not of its vocabulary."""
    if not isinstance(inputs, Mapping) or inputs.keys() != {"ids", "mask"}:
        raise InputError(
            "tokens: expected {'ids': int (texts, tokens), 'mask': bool (texts, tokens)}, of each "
            "text what `abaw_jax.data.tokens.Tokenizer.wrap` gives"
        )
    ids, mask = np.asarray(inputs["ids"]), np.asarray(inputs["mask"])
    whole = np.issubdtype(ids.dtype, np.integer) and mask.dtype == bool
    if not whole or ids.ndim != 2 or ids.shape != mask.shape:
        raise InputError(
            f"tokens: ids {ids.dtype} {ids.shape}, mask {mask.dtype} {mask.shape}; expected "
            "integers and bool, both (texts, tokens)"
        )
    most, rows = sizes["positions"] - sizes["first_position"], sizes["vocabulary"]
    if not 0 < ids.shape[1] <= most:
        raise InputError(f"tokens: {ids.shape[1]} a text; expected 1 to {most}")
    if ids.size and not 0 <= ids.min() <= ids.max() < rows:
        raise InputError(f"tokens: ids from {ids.min()} to {ids.max()}; expected 0 to {rows - 1}")
    return {"ids": ids.astype(np.int32), "mask": mask}


def example_tokens(sizes: Sizes) -> tuple[jax.ShapeDtypeStruct, ...]:
    del sizes
    return tuple(jax.ShapeDtypeStruct((1, 1), kind) for kind in (jnp.int32, jnp.bool_))


def encode_tokens(
    module: nn.Module, variables: Any, inputs: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """`states` (B, N, D), the last ones, `features` their means where there is no padding, and of
    an encoder with a pooler `pooled` (B, D)."""
    (*_, states), pooled = module.apply(variables, inputs["ids"], inputs["mask"])
    seen = inputs["mask"][..., None]
    means = (states * seen).sum(1) / jnp.maximum(seen.sum(1), 1)
    found = {"features": means, "states": states}
    return found if pooled is None else found | {"pooled": pooled}


def take_samples(inputs: Any, sizes: Sizes) -> np.ndarray:
    """float32 (B, L), each recording with mean 0 and variance 1 where the weights' source says so,
    as `models.wav2vec2.encode_long` has it; InputError for others, and for less than a frame."""
    samples = np.asarray(inputs)
    known = samples.dtype in (np.int16, np.float32)
    if not known or samples.ndim != 2 or samples.shape[1] < WINDOW:
        raise InputError(
            f"samples: {samples.dtype} {samples.shape}; expected int16 or float32 (recordings, at "
            f"least {WINDOW}), of one channel at 16 kHz"
        )
    values = samples.astype(np.float64) / (32768 if samples.dtype == np.int16 else 1)
    if sizes["normalise"]:
        values -= values.mean(axis=1, keepdims=True)
        values /= np.sqrt(np.square(values).mean(axis=1, keepdims=True) + 1e-7)
    return values.astype(np.float32)


def example_samples(sizes: Sizes) -> tuple[jax.ShapeDtypeStruct, ...]:
    del sizes
    return (jax.ShapeDtypeStruct((1, WINDOW), jnp.float32),)


def encode_samples(module: nn.Module, variables: Any, samples: jax.Array) -> dict[str, jax.Array]:
    """`states` (B, N, D), the last ones, 50 a second, and `features` their means."""
    states = module.apply(variables, samples)
    return {"features": states.mean(1), "states": states}


def take_patches(inputs: Any, sizes: Sizes) -> np.ndarray:
    """The patches; InputError for other arrays."""
    del sizes
    patches = np.asarray(inputs)
    if patches.dtype != np.float32 or patches.ndim != 3 or patches.shape[1:] != PATCH:
        raise InputError(
            f"patches: {patches.dtype} {patches.shape}; expected float32 (any number, "
            f"{', '.join(map(str, PATCH))}), as `abaw_jax.data.acoustics.log_mel_patches` gives"
        )
    return patches


def example_patches(sizes: Sizes) -> tuple[jax.ShapeDtypeStruct, ...]:
    del sizes
    return (jax.ShapeDtypeStruct((1, *PATCH), jnp.float32),)


def encode_patches(module: nn.Module, variables: Any, patches: jax.Array) -> dict[str, jax.Array]:
    """`features`, (B, D)."""
    return {"features": module.apply(variables, patches)}


# By what an architecture's `inputs` says: (arrays as they are given, sizes) -> as they are taken.
TAKE = {"tokens": take_tokens, "samples": take_samples, "patches": take_patches}
