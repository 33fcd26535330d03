"""Optimisers: Adam and AdamW with schedule, layer-wise decay, clipping and frozen parameters."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from abaw_jax.errors import InputError
from abaw_jax.training.state import map_named, named_leaves

BLOCK = re.compile(r"(?:^|/)blocks_(\d+)(?:/|$)")
STEM = re.compile(r"(?:^|/)(patch_embed|cls_token|pos_embed|mask_token|stem)(?:/|$)")
UNDECAYED = re.compile(r"(?:^|/)(bias|scale|[a-z_]*token|pos_embed)$")


class Optimizer(NamedTuple):
    """An optax transformation (init, update) with its learning rate and what it leaves alone.

    learning_rate: step -> float. frozen: parameter path -> bool; such parameters get no update, no
    optimiser state and no gradient. twice: update takes `grad_fn` besides, (params, _) -> gradient
    of the same batch, which it asks for at other parameters.
    """

    init: Callable
    update: Callable
    learning_rate: Callable[[Any], jax.Array]
    frozen: Callable[[str], bool]
    twice: bool = False


def make_schedule(
    *,
    lr: float,
    steps: int,
    warmup_steps: int = 0,
    schedule: str = "cosine",
    warmup_lr: float = 0.0,
    final_lr: float = 0.0,
    period_steps: int | None = None,
    step_factor: float = 0.1,
) -> Callable[[Any], jax.Array]:
    """Learning rate at a step: linear from warmup_lr to lr, then `schedule`.

    "cosine": final_lr + (lr - final_lr) (1 + cos(pi t)) / 2 (Loshchilov and Hutter 2017, eq. 5),
    t running from 0 to 1 over the rest of the steps, or over each `period_steps`, after which it
    restarts. "step": lr, times step_factor after each `period_steps`. "constant": lr. Raises
    InputError for any other name and for impossible lengths.
    """
    if schedule not in ("cosine", "step", "constant"):
        raise InputError(f"schedule: '{schedule}'; expected 'cosine', 'step' or 'constant'")
    if schedule == "step" and not (period_steps and 0 < step_factor <= 1):
        raise InputError(
            f"schedule 'step' with a period of {period_steps} steps, factor {step_factor}; expected"
            " a period above 0 and a factor from above 0 to 1"
        )
    if not 0 <= warmup_steps <= steps:
        raise InputError(
            f"warmup_steps: {warmup_steps} of {steps} steps; expected 0 to {steps}: warm up for "
            "fewer steps or train for more"
        )
    length = period_steps or max(steps - warmup_steps, 1)

    def learning_rate(step):
        step = jnp.asarray(step, jnp.float32)
        warm = warmup_lr + (lr - warmup_lr) * step / max(warmup_steps, 1)
        after = jnp.maximum(step - warmup_steps, 0)
        phase = after % length if period_steps else jnp.minimum(after, length)
        rate = lr
        if schedule == "cosine":
            rate = final_lr + (lr - final_lr) * (1 + jnp.cos(math.pi * phase / length)) / 2
        elif schedule == "step":
            rate = lr * step_factor ** (after // length)
        return jnp.where(step < warmup_steps, warm, rate)

    return learning_rate


def decay_mask(params: Any) -> Any:
    """True for what weight decay acts on: no biases, norms, tokens, positions, 1-D parameters.

    Of weight-normalised convolutions the kernel is decayed, whose length is not in the function, so
    that decay only keeps its direction from freezing; the scale and slopes of PReLUs are not.
    """
    return map_named(lambda path, leaf: leaf.ndim > 1 and not UNDECAYED.search(path), params)


def layer_of(path: str) -> int | None:
    """Layer of a parameter: 0 below the blocks, i + 1 for block i, None above them."""
    block = BLOCK.search(path)
    return int(block[1]) + 1 if block else 0 if STEM.search(path) else None


def layer_scales(params: Any, layer_decay: float) -> Any:
    """Factor of each parameter's learning rate: layer_decay ** (depth + 1 - layer).

    Layers as in BEiT's and MAE's fine-tuning (Bao et al. 2021, appendix): those of `layer_of`, and
    depth + 1, with factor 1, for everything after the blocks.
    """
    last = max((layer_of(path) or 0 for path in named_leaves(params)), default=0) + 1

    def scale(path, _):
        layer = layer_of(path)
        return layer_decay ** (last - (last if layer is None else layer))

    return map_named(scale, params)


def freeze_blocks(count: int) -> Callable[[str], bool] | None:
    """What `make_optimizer` takes as `frozen`, so that the first `count` blocks and all below them
    (patches, tokens, positions, a stem) stay as they are; None for 0."""
    if not count:
        return None

    def frozen(path: str) -> bool:
        layer = layer_of(path)
        return layer is not None and layer <= count

    return frozen


def make_optimizer(
    *,
    lr: float,
    steps: int,
    name: str = "adamw",
    warmup_steps: int = 0,
    schedule: str = "cosine",
    warmup_lr: float = 0.0,
    final_lr: float = 0.0,
    period_steps: int | None = None,
    step_factor: float = 0.1,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float | None = None,
    layer_decay: float | None = None,
    sam_rho: float = 0.0,
    frozen: Callable[[str], bool] | None = None,
) -> Optimizer:
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) as the systems use them.

    The order: clip by the global norm, Adam, decay, layer factors, learning rate. For "adamw" the
    decay is decoupled, for "adam" it is added to the gradient (L2), as in torch. `frozen` takes a
    parameter's path ('encoder/blocks_0/mlp/fc1/kernel'). sam_rho: above 0 the gradient that all of
    them are given is that at params + sam_rho * gradient / its norm (`_sharpness_aware`). Schedule:
    see `make_schedule`.
    """
    if not 0 <= sam_rho < math.inf:
        raise InputError(f"optimizer: sam_rho {sam_rho}; expected a number of at least 0")
    if name not in ("adamw", "adam"):
        raise InputError(f"optimizer: '{name}'; expected 'adamw' or 'adam'")
    learning_rate = make_schedule(
        lr=lr, steps=steps, warmup_steps=warmup_steps, schedule=schedule, warmup_lr=warmup_lr,
        final_lr=final_lr, period_steps=period_steps, step_factor=step_factor,
    )  # fmt: skip
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    decay = [optax.add_decayed_weights(weight_decay, decay_mask)] if weight_decay else []
    adam = [optax.scale_by_adam(b1, b2, eps)]
    parts += adam + decay if name == "adamw" else decay + adam
    if layer_decay is not None and layer_decay != 1.0:
        parts.append(_scale_layers(layer_decay))
    parts.append(optax.scale_by_learning_rate(learning_rate))
    update = optax.chain(*parts)
    if frozen is not None:
        update = optax.partition(
            {"trained": update, "frozen": optax.set_to_zero()},
            lambda params: map_named(lambda p, _: "frozen" if frozen(p) else "trained", params),
        )
    if sam_rho:
        update = _sharpness_aware(update, sam_rho)
    return Optimizer(
        update.init, update.update, learning_rate, frozen or (lambda path: False), bool(sam_rho)
    )


def _sharpness_aware(
    update: optax.GradientTransformation, rho: float
) -> optax.GradientTransformationExtraArgs:
    """SAM (Foret et al. 2021, algorithm 1, with p = 2): `update` of the gradient at the worst of
    the parameters that are `rho` away, as far as the gradient tells."""

    def ascend(gradient, params):
        # A batch of no weight has gradient 0, on which optax.contrib.normalize would divide by 0.
        scale = -rho / (optax.tree.norm(gradient) + 1e-12)  # `sam` goes the other way
        return jax.tree.map(lambda g: scale * g, gradient)

    return optax.contrib.sam(update, optax.stateless(ascend), opaque_mode=True)


def _scale_layers(layer_decay: float) -> optax.GradientTransformation:
    """Multiply updates by their layer's factor, which is known from the path alone."""

    def update(updates, state, params=None):
        scales = layer_scales(updates, layer_decay)
        return jax.tree.map(lambda u, s: u * s, updates, scales), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
