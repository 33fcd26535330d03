"""Eight CPU devices and checked annotations for every test: set before anything imports JAX."""

import os

from jaxtyping import install_import_hook

FLAG = "--xla_force_host_platform_device_count"
if FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The shapes and types that these modules declare are checked at each call, in this process alone.
# The tower: an int is accepted where a float is asked for, as by static checkers.
install_import_hook(
    ["abaw_jax.models", "abaw_jax.training.losses", "abaw_jax.evaluation.metrics"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
