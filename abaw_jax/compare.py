"""Compare two sets of predictions on the same labelled frames.

    python -m abaw_jax.compare --track VA --a P --b Q --annotations A

P and Q are folders of <video>.npz predictions or submission files, A is what abaw_jax.score takes.
Recordings are drawn with replacement, the same for both (`evaluation/confidence.py`): the scores
and their difference a - b each come with the interval that holds 95 % of the resamples. Where
that of the difference leaves out 0, chance in which videos were filmed does not explain it. With
--persons all videos of a person are drawn together. Then the videos in which a and b differ most.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from abaw_jax import command
from abaw_jax.evaluation.confidence import (
    LEVEL,
    VideoStatistics,
    bootstrap,
    compare,
    split_hash,
    video_table,
)
from abaw_jax.evaluation.folds import group_names, read_mapping
from abaw_jax.evaluation.report import text_table
from abaw_jax.evaluation.smoothing import GAP_RULES
from abaw_jax.score import read_predictions, score_predictions
from abaw_jax.tracks import Track
from abaw_jax.tracks.annotations import read_labels

SHOWN = 10  # videos


def _define_flags(define: command.Define) -> None:
    define("string", "a", None, "Folder of <video>.npz, or a submission file.")
    define("string", "b", None, "The same of what it is compared with.")
    define("string", "annotations", None, "Folder of annotation files.")
    define("string", "split", "Validation_Set", "Which folder of the annotations.")
    define("string", "persons", None, "csv video,person: persons that are drawn whole.")
    define("enum", "gaps", None, GAP_RULES, "Fill labelled frames without prediction.")
    define("list", "thresholds", None, "AU: one number, or one for each unit; of both.")


def _videos(a: VideoStatistics, b: VideoStatistics, track: Track) -> list[dict[str, Any]]:
    """A row for each video, with both scores: first those in which they differ most."""
    of_b = {row["video"]: row["score"] for row in video_table(b, track)}
    videos = [
        {"video": row["video"], "frames": row["frames"], "a": row["score"], "b": of_b[row["video"]]}
        for row in video_table(a, track)
    ]
    return sorted(videos, key=lambda row: (-abs(row["a"] - row["b"]), row["video"]))


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    command.refuse_arguments(rest)
    command.require(options, "a", "b", "annotations")
    thresholds = command.read_thresholds(options.thresholds, track)
    labels, _ = read_labels(options.annotations, track, options.split)
    persons = read_mapping(options.persons, "person") if options.persons else None
    groups = group_names(list(labels), persons)
    a, b = (
        score_predictions(
            read_predictions(path, track, labels),
            labels,
            track,
            gaps=options.gaps,
            thresholds=thresholds,
            source=path,
        ).statistics
        for path in (options.a, options.b)
    )
    found = compare(a, b, track, groups=groups)
    scores = {
        name: bootstrap(statistics, track, groups=groups)["score"]
        for name, statistics in (("a", a), ("b", b))
    }
    videos = [] if track.per_clip else _videos(a, b, track)  # one row has no score of its own
    intervals = {**scores, "a - b": found.difference}
    print(text_table([{"": name} | dataclasses.asdict(i) for name, i in intervals.items()]))
    print(f"\n{track.name} {track.score_name}; low and high: {100 * LEVEL:g} % of resamples")
    print(
        f"a scores higher in {100 * found.a_better:.1f} % of the resamples, b in "
        f"{100 * found.b_better:.1f} %"
    )
    if videos:
        print(f"\n{text_table(videos[:SHOWN])}")
    return {
        "track": track.name,
        "score_name": track.score_name,
        **{name: dataclasses.asdict(interval) for name, interval in scores.items()},
        "difference": dataclasses.asdict(found.difference),
        "a_better": found.a_better,
        "b_better": found.b_better,
        "groups": len({groups[video] for video in a.videos}),
        "frames": int(a.frames.sum()),
        "split_hash": split_hash(labels, track),
        "videos": videos,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
