"""CE without labels: compound expressions from predictions of the eight, and which to trust.

    python -m abaw_jax.compound --predictions EXPR_DIR --output CE_DIR
    python -m abaw_jax.compound --predictions EXPR_DIR --candidates head=DIR b=DIR --output CE_DIR

reads predictions of EXPR and gives each compound class a score by the sum or the product of its two
basic probabilities or by clustering (the mean of the two is the sum by another name: it makes the
same predictions). --candidates adds predictions of CE from elsewhere, such as a model's that was
trained on compound images; they do without --predictions too.

Of all these the one is written to CE_DIR whose predicted classes, on the frames that all of them
have, come nearest (in KL divergence) to --prior, by default the class frequencies published for
C-EXPR-DB; of equals the first in the table. --rule takes a rule by name instead. Faces of one
recording (NAME_left, NAME_right) become one video with --merge, the largest score over the faces in
each frame.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
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
    merge_faces,
    predict_compound,
    shared_frames,
)
from abaw_jax.evaluation.predictions import Prediction, load_predictions, save_prediction
from abaw_jax.evaluation.report import text_table
from abaw_jax.tracks import CE, EXPR, Track


def _define_flags(define: command.Define) -> None:
    define("string", "predictions", None, "Folder of EXPR predictions.")
    define("multi_string", "candidates", [], "NAME=DIR of CE predictions; more may follow it.")
    define("string", "output", None, "Folder to write CE predictions to.")
    define("enum", "rule", None, list(RULES), "How two basic expressions make a compound one.")
    define("list", "prior", [str(n) for n in FREQUENCIES], "Expected count or share of each class.")
    define("bool", "merge", False, "Faces of one recording as one video.")


def _read_options(options: flags.FlagValues, rest: Sequence[str]) -> dict[str, str]:
    """Candidate name -> folder; InputError where the flags do not go together."""
    command.refuse_arguments([text for text in rest if "=" not in text or not options.candidates])
    folders = command.read_pairs([*options.candidates, *rest], "candidates", "DIR")
    if options.rule or not folders:
        command.require(options, "predictions")
    command.require(options, "output")
    if taken := [name for name in folders if name in RULES]:
        raise InputError(f"--candidates: {taken[0]} is the name of a rule; give it another")
    output = pathlib.Path(options.output).resolve()
    for folder in filter(None, (options.predictions, *folders.values())):
        if pathlib.Path(folder).resolve() == output:
            raise InputError(f"--output: {folder} is read from; name another folder")
    return folders


def _read_prior(given: Sequence[str]) -> tuple[float, ...]:
    """The numbers of --prior; `divergence` judges them."""
    try:
        return tuple(float(number) for number in given)
    except ValueError as error:
        raise InputError(f"--prior={','.join(given)}; expected {CE.outputs} numbers") from error


def _read_found(
    options: flags.FlagValues, folders: Mapping[str, str]
) -> dict[str, dict[str, Prediction]]:
    """Predictions of CE by rule or candidate."""
    found = {}
    if options.predictions:
        expressions = load_predictions(options.predictions, EXPR)
        found = {rule: predict_compound(expressions, rule, merge=options.merge) for rule in RULES}
    for name, folder in folders.items():
        videos = load_predictions(folder, CE)
        found[name] = merge_faces(videos) if options.merge else videos
    return found


def _write(folder: pathlib.Path, videos: Mapping[str, Prediction]) -> None:
    if folder.is_dir():
        # A folder of predictions must never be a mixture of two runs.
        names = (path.stem for path in sorted(folder.glob("[!.]*.npz")))
        if others := [name for name in names if name not in videos]:
            raise InputError(f"{folder}: holds {others[0]}.npz, of another run; name another")
    for video, prediction in videos.items():
        save_prediction(folder, video, prediction.frames, prediction.values, CE.classes)


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    folders, prior = _read_options(options, rest), _read_prior(options.prior)
    found = _read_found(options, folders)
    compared = shared_frames(found)
    shares = {name: class_shares(videos) for name, videos in compared.items()}
    distance = {name: divergence(share, prior) for name, share in shares.items()}
    chosen = options.rule or min(distance, key=distance.__getitem__)
    output = pathlib.Path(options.output)
    _write(output, found[chosen])
    frames = {name: sum(len(p.frames) for p in videos.values()) for name, videos in found.items()}
    common = sum(len(prediction.frames) for prediction in compared[chosen].values())
    rows = [
        {
            "by": name,
            "frames": frames[name],
            "KL": distance[name],
            **dict(zip(CE.classes, shares[name], strict=True)),
        }
        for name in found
    ]
    print(text_table(rows))
    print(f"\nKL and shares of the {common} frames of {len(compared[chosen])} videos that all have")
    print(f"{chosen}: {len(found[chosen])} videos in {output}")
    return {
        "chosen": chosen,
        "divergence": distance,
        "shares": {name: np.round(share, 6).tolist() for name, share in shares.items()},
        "classes": list(CE.classes),
        "frames": frames,
        "compared": {"videos": len(compared[chosen]), "frames": common},
        "candidates": folders,
        "videos": len(found[chosen]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, track=CE)


if __name__ == "__main__":
    sys.exit(main())
