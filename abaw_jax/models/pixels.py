"""Encoder and sequence model as one: windows of face crops in, logits of frames out."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.heads import pool_tokens
from abaw_jax.models.layers import AnyArray


class PixelSequenceModel(nn.Module):
    """A sequence model over what an encoder makes of each crop, the feature of `FrameClassifier`.

    inputs, a dict:

        image     (B, T, S, S, 3), scaled
        seen      bool (B, T); where it is False no crop stands for the row, and its feature is 0
        features  (B, T, D) of further modalities, which follow that of the crop; may be absent

    All else as the sequence model's (`models.sequence.SequenceModel`). Parameters: `encoder` and
    `fc_norm` as `FrameClassifier` has them, `sequence`.
    """

    encoder: nn.Module
    sequence: nn.Module
    pooling: str = "mean"

    @nn.compact
    def __call__(
        self,
        inputs: dict[str, Any],
        mask: Bool[AnyArray, "B T"],
        counted: Bool[AnyArray, "B R *G"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[jax.Array, "B R C"]:
        features = self._encode(inputs["image"], inputs["seen"], train)
        if "features" in inputs:
            features = jnp.concatenate([features, inputs["features"]], axis=-1)
        return self.sequence(features, mask, counted, train=train)

    def _encode(
        self, image: Float[AnyArray, "B T S S 3"], seen: Bool[AnyArray, "B T"], train: bool
    ) -> Float32[jax.Array, "B T D"]:
        tokens = self.encoder(image.reshape(-1, *image.shape[2:]), train=train)
        features = pool_tokens(tokens, self.pooling, self.encoder.epsilon).astype(jnp.float32)
        return jnp.where(seen[..., None], features.reshape(*seen.shape, -1), 0.0)
