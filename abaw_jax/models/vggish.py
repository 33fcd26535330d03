"""VGGish (Hershey et al. 2017): a patch of 0.96 s of sound as 128 numbers.

Its patches are made by abaw_jax/data/acoustics.py. What AudioSet's release does to the embeddings
behind the network, a PCA and a quantisation to 8 bits, is left out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Float

from abaw_jax.models.layers import AnyArray, Dense

PATCH = (96, 64)  # frames of 10 ms, mel bands
DEPTHS = (1, 1, 2, 2)  # convolutions before each pooling: VGG's configuration A without the last


class VGGish(nn.Module):
    """Log-mel patches (B, 96, 64) -> embeddings (B, `embedding`).

    Convolutions 3 x 3 with ReLU, 2 x 2 maxima, and three dense layers, of which the last has its
    ReLU only with `activate`: so in the public torch port, from which others took it off. Layers
    are numbered as in that port.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    hidden: int = 4096
    embedding: int = 128
    activate: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, patches: Float[AnyArray, "B 96 64"]) -> Float[jax.Array, "B _"]:
        x, number = patches[..., None], 0
        for width, depth in zip(self.widths, DEPTHS, strict=True):
            for _ in range(depth):
                conv = nn.Conv(width, (3, 3), padding=1, dtype=self.dtype, name=f"conv_{number}")
                x, number = jax.nn.relu(conv(x)), number + 2
            x, number = nn.max_pool(x, (2, 2), (2, 2)), number + 1
        x = rearrange(x, "b t f c -> b (t f c)")
        for number, width in ((0, self.hidden), (2, self.hidden), (4, self.embedding)):
            x = Dense(width, dtype=self.dtype, name=f"dense_{number}")(x)
            if number < 4 or self.activate:
                x = jax.nn.relu(x)
        return x
