"""Write a submission from predictions, or check one against the organisers' example.

    python -m abaw_jax.submission --track VA --predictions DIR --example EXAMPLE --out FILE
    python -m abaw_jax.submission --track VA --check FILE --example EXAMPLE

DIR is a folder of <video>.npz predictions (for EMI <clip>.npz, the clip in five digits at least).
EXAMPLE is the file that the organisers hand out: FILE gets its header and every line of it, in its
order and spelling. Frames without prediction are filled by --gaps; before the first and after the
last predicted frame of a video, that one holds. --smooth filters over time first. A video without
any prediction is refused unless --fallback is named. What is written is checked at once.

--check accepts a file with exactly the example's lines, each with a valid row, or names the first
line that is wrong and exits with status 2.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.evaluation.smoothing import FILTERS, GAP_RULES, Smoothing
from abaw_jax.evaluation.submission import check_submission, write_submission
from abaw_jax.tracks import Track

# What has no meaning where a file is only checked.
_WRITING = ("predictions", "out", "smooth", "width", "gaps", "thresholds", "fallback")


def _define_flags(define: command.Define) -> None:
    define("string", "example", None, "The organisers' example of a submission.")
    define("string", "check", None, "Submission file to check.")
    define("string", "predictions", None, "Folder of <video>.npz to write a submission from.")
    define("string", "out", None, "File to write.")
    define("enum", "smooth", "none", ("none", *FILTERS), "Filter over the frames of a video.")
    define("float", "width", 0.0, "Frames in its window; of a Gaussian its sigma, in frames.")
    define("enum", "gaps", "linear", GAP_RULES, "Fill frames without prediction.")
    define("list", "thresholds", None, "AU: one number, or one for each unit.")
    define("string", "fallback", None, "For videos without prediction: mean, or a class of one.")


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    command.refuse_arguments(rest)
    if options.check is None:
        return _write(options, track)
    if given := [name for name in _WRITING if options[name].present]:
        raise InputError(f"--check does not go with --{given[0]}; give one of them")
    command.require(options, "check", "example")
    checked = check_submission(options.check, options.example, track)
    print(f"{options.check}: {_counts(checked, track)}, as in the example")
    return {"track": track.name, "submission": options.check, "example": options.example} | checked


def _write(options: flags.FlagValues, track: Track) -> dict[str, Any]:
    command.require(options, "predictions", "example", "out")
    smoothing = Smoothing(options.smooth, options.width, options.gaps)
    thresholds = command.read_thresholds(options.thresholds, track)
    written = write_submission(
        options.out,
        options.example,
        options.predictions,
        track,
        smoothing=smoothing,
        thresholds=thresholds,
        fallback=options.fallback,
    )
    checked = check_submission(options.out, options.example, track)
    print(f"{options.out}: {_counts(checked, track)} written")
    if written.filled:
        print(f"{written.filled} lines had no prediction: filled ({smoothing.gaps})")
    if written.fallback_videos:
        print(f"{len(written.fallback_videos)} videos had none at all: {options.fallback}")
    return {
        "track": track.name,
        "submission": options.out,
        "example": options.example,
        "predictions": options.predictions,
        **checked,
        "filled": written.filled,
        "fallback": options.fallback,
        "fallback_videos": list(written.fallback_videos),
        "smoothing": {"kind": smoothing.kind, "width": smoothing.width, "gaps": smoothing.gaps},
        "thresholds": track.thresholds if thresholds is None else thresholds,
    }


def _counts(checked: dict[str, int], track: Track) -> str:
    if track.per_clip:
        return f"{checked['lines']} clips"
    return f"{checked['lines']} lines of {checked['videos']} videos"


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
