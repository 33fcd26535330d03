"""A model for others to use: tensors with public names, the archive, or a program.

    python -m abaw_jax.export MODEL --to=DIR
        [--format=source|timm|mae|transformers|archive|stablehlo|onnx]

MODEL is a folder that `python -m abaw_jax.convert` or a stage of a recipe has written. `source`
gives converted weights the names, types and bytes that they came with; `timm`, `mae` and
`transformers` those libraries' names, with the config.json that they read; `archive` is
model.safetensors and config.json as this package has them, `stablehlo` that and a jax.export
program, `onnx` that and an ONNX file, each held against the model. Every folder has a model card,
README.md. docs/weights.md says what ONNX needs.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.tracks import Track


def _define_flags(define: command.Define) -> None:
    define("string", "to", None, "New folder to write to.")
    define("string", "format", "source", "Whose names, or which files.")


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track | None) -> dict[str, Any]:
    del track
    from abaw_jax.interop.publish import publish  # imports JAX, which --help does without

    if len(rest) != 1:
        raise InputError(f"{len(rest)} models; expected the folder of one; see --help")
    command.require(options, "to", "format")
    record = publish(pathlib.Path(rest[0]), pathlib.Path(options.to), options.format)
    print(f"{options.to}: {', '.join(record['files'])}")
    for row in record.get("parity", ()):
        (unit,) = {"images_per_second", "examples_per_second"} & row.keys()
        print(
            f"{row['backend']:>11}  max difference {row['difference']:.1e}  "
            f"{row[unit]:.1f} {unit.removesuffix('_per_second')}/s"
        )
    if record.get("examples"):
        print(f"model.onnx takes {record['examples']} example at a time: no other number could be")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, any_track=False)


if __name__ == "__main__":
    sys.exit(main())
