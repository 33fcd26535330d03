"""What converted encoders take that see no images, and what they give.

tokens   {'ids': int (B, N), 'mask': bool (B, N), False where a token is padding}
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.errors import InputError

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


# By what an architecture's `inputs` says: (arrays as they are given, sizes) -> as they are taken.
TAKE = {"tokens": take_tokens}
