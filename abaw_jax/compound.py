"""CE without labels: compound expressions from predictions of the eight expressions.

    python -m abaw_jax.compound --predictions EXPR_DIR --output CE_DIR

reads predictions of EXPR, gives each compound class a score by the sum or the product of its two
basic probabilities or by clustering, and writes predictions of CE to CE_DIR. Without --rule that
one is taken whose predicted classes come nearest (in KL divergence) to --prior, by default the
class frequencies published for C-EXPR-DB. Faces of one recording (NAME_left, NAME_right) become
one video with --merge, the largest score over the faces in each frame.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.evaluation.compound import (
    FREQUENCIES,
    RULES,
    class_shares,
    divergence,
    predict_compound,
)
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.report import text_table
from abaw_jax.tracks import CE, EXPR, Track


def _define_flags(define: command.Define) -> None:
    define("string", "predictions", None, "Folder of EXPR predictions.")
    define("string", "output", None, "Folder to write CE predictions to.")
    define("enum", "rule", None, list(RULES), "How two basic expressions make a compound one.")
    define("list", "prior", [str(n) for n in FREQUENCIES], "Expected count or share of each class.")
    define("bool", "merge", False, "Faces of one recording as one video.")


def _read_prior(given: Sequence[str]) -> tuple[float, ...]:
    """The numbers of --prior; `divergence` judges them."""
    try:
        return tuple(float(number) for number in given)
    except ValueError as error:
        raise InputError(f"--prior={','.join(given)}; expected {CE.outputs} numbers") from error


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    command.refuse_arguments(rest)
    command.require(options, "predictions", "output")
    output, prior = pathlib.Path(options.output), _read_prior(options.prior)
    expressions = load_predictions(options.predictions, EXPR)
    found = {rule: predict_compound(expressions, rule, merge=options.merge) for rule in RULES}
    shares = {rule: class_shares(predictions) for rule, predictions in found.items()}
    distance = {rule: divergence(share, prior) for rule, share in shares.items()}
    rule = options.rule or min(distance, key=distance.__getitem__)
    if output.is_dir():
        # A folder of predictions must never be a mixture of two runs.
        names = (path.stem for path in sorted(output.glob("[!.]*.npz")))
        if others := [name for name in names if name not in found[rule]]:
            raise InputError(f"{output}: holds {others[0]}.npz, of another run; name another")
    for video, prediction in found[rule].items():
        save_prediction(output, video, prediction.frames, prediction.values, CE.classes)
    rows = [
        {"rule": name, "KL": distance[name], **dict(zip(CE.classes, shares[name], strict=True))}
        for name in RULES
    ]
    print(text_table(rows))
    print(f"\n{rule}: {len(found[rule])} videos in {output}")
    return {
        "rule": rule,
        "divergence": distance,
        "shares": {name: np.round(share, 6).tolist() for name, share in shares.items()},
        "classes": list(CE.classes),
        "videos": len(found[rule]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, track=CE)


if __name__ == "__main__":
    sys.exit(main())
