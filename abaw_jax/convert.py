"""Public weights as a model of this package.

    python -m abaw_jax.convert SOURCE --to=DIR [--drop_head] [--image_size=N] [--classes=A,B,...]
        [--normalise=imagenet|half|unit|face_mae] [--licence=TEXT]

SOURCE is a .safetensors file, the index of several, a file of torch.save (torch must be installed;
one that could run code is refused), or the folder of one. What it is is found from its tensors:
ViT and masked autoencoders as timm, facebookresearch/mae and transformers name them, and what
docs/weights.md lists besides. What tensors do not show is read from the config.json beside them,
or asked for by a flag's name. `abaw_jax.load(DIR)` gives the model as a function.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.tracks import Track

# Of what tensors do not show.
SIZES = ("heads", "decoder_heads", "epsilon", "pooling", "activate")


def _define_flags(define: command.Define) -> None:
    define("string", "to", None, "Folder to write to.")
    define("string", "kind", None, "The architecture, where its tensors do not tell.")
    define("bool", "drop_head", False, "Leave the classifier, or an autoencoder's decoder, out.")
    define("integer", "image_size", None, "Side in pixels; positions are resized to it.")
    define("list", "classes", [], "Names of the outputs in their order, or of a known order.")
    define(
        "string", "normalise", None, "How pixels are normalised: imagenet, half, unit or face_mae."
    )
    define("string", "licence", None, "The weights' licence, as their source states it.")
    define("integer", "heads", None, "Attention heads of the encoder.")
    define("integer", "decoder_heads", None, "Attention heads of the decoder.")
    define("float", "epsilon", None, "That of the layer norms.")
    define("string", "pooling", None, "What the feature is: cls, norm_mean or mean.")
    define("bool", "activate", None, "Whether VGGish's last layer has its ReLU.")


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track | None) -> dict[str, Any]:
    del track
    from abaw_jax.interop.convert import convert  # imports JAX, which --help does without

    if len(rest) != 1:
        raise InputError(f"{len(rest)} sources; expected one file or folder of weights; see --help")
    command.require(options, "to")
    description = convert(
        rest[0],
        options.to,
        kind=options.kind,
        drop_head=options.drop_head,
        image_size=options.image_size,
        classes=options.classes,
        normalise=options.normalise,
        licence=options.licence,
        **{name: options[name].value for name in SIZES},
    )
    sizes = ", ".join(f"{key} {value}" for key, value in description["model"].items())
    print(f"{options.to}: {description['architecture']} ({sizes})")
    print(f"outputs: {', '.join(description['classes']) or 'features alone'}")
    print(f"licence: {description['source']['licence']}")
    if "tokenizer" in description["source"]:
        found = ", ".join(description["source"]["tokenizer"])
        print(f"tokenizer: {found or f'none beside {rest[0]}; copy its files to {options.to}'}")
    return description


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, any_track=False)


if __name__ == "__main__":
    sys.exit(main())
