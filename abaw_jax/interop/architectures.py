"""The architectures whose public weights are read and written: one entry of one dict for each.

Those that see images are entries of `images.py`. What an entry says is written in `forms.py`.

A **description** says all of a converted model that its arrays do not; it is the model's
config.json:

    kind          "converted"
    architecture  a key of `ARCHITECTURES`
    model         sizes, as the architecture's entry finds them
    image         of one that sees images: size, normalise, mean and std, as a recipe's config
    classes       names of its outputs in their order; [] without a classifier
    source        where it comes from; see `interop/convert.py`

Of a text encoder that was trained here there are only the first three.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax

from abaw_jax.errors import InputError, unknown_name
from abaw_jax.interop import inputs
from abaw_jax.interop.forms import Architecture, Form, Sizes
from abaw_jax.interop.images import IMAGES
from abaw_jax.interop.keys import bert, vggish, wav2vec2
from abaw_jax.models.bert import BertEncoder


def _bert_form(prefix: str, *, old: bool = False) -> Form:
    norm = f"{prefix}embeddings.LayerNorm.{'gamma' if old else 'weight'}"
    return Form(
        (f"{prefix}embeddings.word_embeddings.weight", norm),
        lambda sizes: bert.rules(prefix, old=old),
        bert.IGNORED,
        bert.transformers_files,
    )


def _wav2vec2_form(prefix: str, norm: tuple[str, str]) -> Form:
    """norm: one of `WEIGHT_NORMS`."""
    marks = (
        f"{prefix}feature_projection.projection.weight",
        *(f"{prefix}encoder.pos_conv_embed.conv.{part}" for part in norm),
    )
    rules = wav2vec2.rules(marks)
    return Form(marks, lambda sizes: rules, wav2vec2.IGNORED, wav2vec2.transformers_files)


# What is tried first stands first.
ARCHITECTURES = {
    **IMAGES,
    # config.json's model is read by `stages/text.py` too.
    "bert": Architecture(
        sizes=bert.sizes,
        module=lambda sizes: BertEncoder(**sizes),
        example=inputs.example_tokens,
        apply=inputs.encode_tokens,
        forms={
            "transformers": _bert_form(""),
            "transformers_bert": _bert_form("bert."),
            "transformers_roberta": _bert_form("roberta."),
            "transformers_old": _bert_form("", old=True),
            "transformers_bert_old": _bert_form("bert.", old=True),
        },
        head=bert.HEAD,
        inputs="tokens",
    ),
    "wav2vec2": Architecture(
        sizes=wav2vec2.sizes,
        module=wav2vec2.make_model,
        example=inputs.example_samples,
        apply=inputs.encode_samples,
        forms={
            f"transformers{prefix and f'_{prefix[:-1]}'}{names}": _wav2vec2_form(prefix, norm)
            for names, norm in zip(("", "_parametrized"), wav2vec2.WEIGHT_NORMS, strict=True)
            for prefix in ("", *wav2vec2.PREFIXES)
        },
        head="|".join(wav2vec2.IGNORED),
        inputs="samples",
    ),
    "vggish": Architecture(
        sizes=vggish.sizes,
        module=vggish.make_model,
        example=inputs.example_patches,
        apply=inputs.encode_patches,
        forms={
            "torchvggish": Form(
                (*vggish.WIDTHS, *vggish.DENSE), lambda sizes: vggish.RULES, vggish.IGNORED
            )
        },
        head=r"(?!)",
        inputs="patches",
    ),
}  # fmt: skip


def recognise(names: Sequence[str], kind: str | None, source: str) -> tuple[str, str]:
    """(key of `ARCHITECTURES`, key of its forms) of tensors with these names.

    kind: the architecture, if it is said. Raises InputError where none has such names.
    """
    if kind and kind not in ARCHITECTURES:
        raise unknown_name("--kind", kind, "an architecture", ARCHITECTURES)
    present = set(names)
    for key, architecture in ARCHITECTURES.items():
        if kind and key != kind:
            continue
        for form, known in architecture.forms.items():
            if present.issuperset(known.marks):
                return key, form
    some = ", ".join(sorted(present)[:4])
    raise InputError(
        f"{source}: tensors of no architecture that is known ({some}, ...); expected "
        f"{kind or 'one of ' + ', '.join(ARCHITECTURES)}"
    )


def make_shapes(architecture: Architecture, sizes: Sizes) -> dict[str, Any]:
    """The variables of the module as a tree of shapes; tables that it computes are none of them."""
    key = jax.random.key(0)
    return jax.eval_shape(architecture.module(sizes).init, key, *architecture.example(sizes))


def is_ignored(form: Form, name: str) -> bool:
    """Whether a tensor holds no weights of the model."""
    return any(re.fullmatch(pattern, name) for pattern in form.ignored)
