"""The state of a training run, and the names of its arrays."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
    """Everything a step changes. No random key: randomness follows from (seed, step).

    step: int32 scalar, the number of steps done. ema: moving average of params, or None.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any = None


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path: {'encoder/blocks_0/attn/qkv/kernel': array, ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def map_named(function: Any, tree: Any) -> Any:
    """`tree` with each leaf replaced by function(path, leaf)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf),
        tree,
    )
