"""VGGish in its public torch port: features.{0,3,6,8,11,13}, embeddings.{0,2,4}."""

from abaw_jax.interop.keymap import Rule

RULES = (
    Rule("features.{i}.weight", "params/conv_{i}/kernel", "conv"),
    Rule("features.{i}.bias", "params/conv_{i}/bias"),
    Rule("embeddings.{i}.weight", "params/dense_{i}/kernel", "dense"),
    Rule("embeddings.{i}.bias", "params/dense_{i}/bias"),
)
IGNORED = (r"pproc\..*",)  # the PCA behind the network
