"""transformers' BertModel and RobertaModel: names of their tensors, keys of their config.json.

Names stand alone or after `bert.` or `roberta.`, as models with a head on top have them; weights
published before 2019 call a norm's scale and shift `gamma` and `beta`. Heads are no part of the
encoder and are passed over.
"""

from collections.abc import Mapping
from typing import Any

from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import Rule, Shape

# Heads of pre-training and of tasks.
HEAD = r"(cls|lm_head|classifier|qa_outputs)\..*"
# These, and buffers.
IGNORED = (r"(bert\.|roberta\.)?embeddings\.(position_ids|token_type_ids)", HEAD)
_NORMS = {False: ("weight", "bias"), True: ("gamma", "beta")}


def rules(prefix: str = "", *, old: bool = False) -> tuple[Rule, ...]:
    """Of tensors after `prefix`; old: norms with gamma and beta."""
    scale, shift = _NORMS[old]
    layer, ours = f"{prefix}encoder.layer.{{i}}.", "params/layers_{i}/"

    def norm(theirs: str, name: str) -> tuple[Rule, ...]:
        return Rule(f"{theirs}.{scale}", f"{name}/scale"), Rule(f"{theirs}.{shift}", f"{name}/bias")

    def dense(
        theirs: str | tuple[str, ...], name: str, kernel: str, bias: str = "same"
    ) -> tuple[Rule, ...]:
        several = (theirs,) if isinstance(theirs, str) else theirs
        weights, biases = (tuple(f"{t}.{end}" for t in several) for end in ("weight", "bias"))
        return Rule(weights, f"{name}/kernel", kernel), Rule(biases, f"{name}/bias", bias)

    qkv = tuple(f"{layer}attention.self.{part}" for part in ("query", "key", "value"))
    return (
        Rule(f"{prefix}embeddings.word_embeddings.weight", "params/words/embedding"),
        Rule(f"{prefix}embeddings.position_embeddings.weight", "params/places/embedding"),
        Rule(f"{prefix}embeddings.token_type_embeddings.weight", "params/types/embedding"),
        *norm(f"{prefix}embeddings.LayerNorm", "params/norm"),
        *dense(qkv, f"{ours}attn/qkv", "dense", "flat"),
        *dense(f"{layer}attention.output.dense", f"{ours}attn/proj", "dense_heads"),
        *norm(f"{layer}attention.output.LayerNorm", f"{ours}norm1"),
        *dense(f"{layer}intermediate.dense", f"{ours}mlp/fc1", "dense"),
        *dense(f"{layer}output.dense", f"{ours}mlp/fc2", "dense"),
        *norm(f"{layer}output.LayerNorm", f"{ours}norm2"),
        *dense(f"{prefix}pooler.dense", "params/pooler", "dense"),
    )


# Their key -> our field.
_FIELDS = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "max_position_embeddings": "positions",
    "type_vocab_size": "types",
    "layer_norm_eps": "epsilon",
}
# What a key must be, if it is there, for `BertEncoder` to be the same network.
_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


def sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: object
) -> dict[str, Any]:
    """Fields of `models.bert.BertEncoder`: by config.json, and a pooler where its tensors are."""
    del form
    pooler = any(name.endswith("pooler.dense.weight") for name in shapes)
    return read_architecture(config, source) | {"pooler": pooler}


def read_architecture(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Fields of `models.bert.BertEncoder`, but for `pooler`, from transformers' config.json.

    Raises InputError, naming `source`, for another kind of model, or one that lacks a key.
    """
    kind = config.get("model_type")
    if kind not in ("bert", "roberta"):
        raise InputError(f"{source}: model_type {kind!r}; expected 'bert' or 'roberta'")
    for key, value in _ONLY.items():
        if config.get(key, value) != value:
            raise InputError(f"{source}: {key} {config[key]!r}; expected {value!r}")
    config = {"layer_norm_eps": 1e-12, **config}  # BERT's first configs lack it
    needed = [*_FIELDS, *(["pad_token_id"] if kind == "roberta" else [])]
    if absent := [key for key in needed if key not in config]:
        raise InputError(f"{source}: lacks {', '.join(absent)}; name the model's config.json")
    first = config["pad_token_id"] + 1 if kind == "roberta" else 0
    return {ours: config[key] for key, ours in _FIELDS.items()} | {"first_position": first}


def transformers_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, of which `read_architecture` makes the same."""
    sizes, first = description["model"], description["model"]["first_position"]
    config = {
        "architectures": ["RobertaModel" if first else "BertModel"],
        "model_type": "roberta" if first else "bert",
        **{key: sizes[ours] for key, ours in _FIELDS.items()},
        **_ONLY,
    }
    return {"config.json": config | ({"pad_token_id": first - 1} if first else {})}
