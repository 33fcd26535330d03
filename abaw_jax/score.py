"""Score predictions against annotations, as the organisers do.

    python -m abaw_jax.score --track EXPR --predictions P --annotations A

P is a folder of <video>.npz predictions or a submission text file. A is a folder of <video>.txt
annotation files, the challenge's folder, or the folder of all annotations; for EMI, whose labels
are of clips, a csv table or the folder of train_split.csv and valid_split.csv. Every labelled frame
of every video in A counts, all videos together; P may hold more. A labelled frame that P lacks is
an error unless --gaps names a rule to fill it; only the row after the last frame, which the
organisers count and no image has, may be absent, and is then left out.

--intervals 1000 gives each figure with the interval that holds 95 % of so many resamples, in which
recordings, and with --persons persons, are drawn with replacement (`evaluation/confidence.py`).
--per_video scores each video by its own frames, worst first; clips are told apart by their error.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import labelled_rows
from abaw_jax.evaluation.confidence import (
    LEVEL,
    VideoStatistics,
    bootstrap,
    split_hash,
    video_table,
)
from abaw_jax.evaluation.folds import group_names, read_mapping
from abaw_jax.evaluation.predictions import Prediction, load_predictions
from abaw_jax.evaluation.report import class_table_text, text_table
from abaw_jax.evaluation.smoothing import GAP_RULES, Smoothing, smooth_prediction
from abaw_jax.evaluation.submission import decoder, read_submission
from abaw_jax.tracks import Summary, Track
from abaw_jax.tracks.annotations import read_labels


@dataclasses.dataclass(frozen=True)
class Scored:
    """A score and what it counts.

    statistics: of each scored video. filled: scored frames that P lacked. last_rows: labelled last
    rows left out because P has no frame for them.
    """

    summary: Summary
    statistics: VideoStatistics
    filled: int
    last_rows: int

    @property
    def frames(self) -> int:
        """How many were scored."""
        return int(self.statistics.frames.sum())

    @property
    def videos(self) -> int:
        """How many have a frame that was scored."""
        return len(self.statistics.videos)


def score_predictions(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    track: Track,
    *,
    gaps: str | None = None,
    thresholds: float | Sequence[float] | None = None,
    source: str = "predictions",
) -> Scored:
    """Score videos together. labels: video -> (rows, W), row i of frame i + 1.

    gaps: None, or a rule of `fill_gaps` for labelled frames without prediction. thresholds: in
    place of the track's, where it has such. `source` names the predictions in errors. Raises
    InputError as `labelled_rows` does.
    """
    known = {video: prediction.frames for video, prediction in predictions.items()}
    if gaps is not None:
        predictions = {
            video: smooth_prediction(prediction, len(labels[video]), Smoothing(gaps=gaps))
            for video, prediction in predictions.items()
            if video in labels and len(prediction.frames)
        }
    frames = {video: prediction.frames for video, prediction in predictions.items()}
    found, last_rows = labelled_rows(frames, labels, track, source)
    found = {video: part for video, part in found.items() if len(part[0])}
    decode = decoder(track, thresholds)
    parts, filled = [], 0
    for video, (index, rows) in found.items():
        parts.append(track.statistics(decode(predictions[video].values[index]), rows))
        if gaps is not None:
            filled += int((~np.isin(frames[video][index], known[video])).sum())
    counts = np.array([len(rows) for _, rows in found.values()], np.int64)
    statistics = VideoStatistics(tuple(found), np.stack(parts), counts)
    return Scored(track.summary(sum(parts)), statistics, filled, last_rows)


def read_predictions(path: str, track: Track, videos: Iterable[str]) -> dict[str, Prediction]:
    """What a prediction folder or a submission file has of `videos`, by video.

    A submission's rows become values that decode to them, so that gaps fill alike.
    """
    if pathlib.Path(path).is_dir():
        return load_predictions(path, track, videos)
    if pathlib.Path(path).suffix == ".npz":
        raise InputError(f"{path}: is one video's predictions; name the folder it lies in")
    rows = read_submission(path, track)
    return {v: Prediction(rows[v][0], track.encode(rows[v][1])) for v in videos if v in rows}


def _define_flags(define: command.Define) -> None:
    define("string", "predictions", None, "Folder of <video>.npz, or a submission file.")
    define("string", "annotations", None, "Folder of annotation files.")
    define("string", "split", "Validation_Set", "Which folder of the annotations.")
    define("enum", "gaps", None, GAP_RULES, "Fill labelled frames without prediction.")
    define("list", "thresholds", None, "AU: one number, or one for each unit.")
    define("integer", "intervals", 0, "Resamples to take intervals of; 0: none.", lower_bound=0)
    define("integer", "seed", 0, "Which resamples are drawn.", lower_bound=0)
    define("string", "persons", None, "csv video,person: persons that are drawn whole.")
    define("bool", "per_video", False, "Score each video by itself too.")


def _record(
    scored: Scored,
    labels: Mapping[str, np.ndarray],
    track: Track,
    options: flags.FlagValues,
    thresholds: Any,
    source: str,
) -> dict[str, Any]:
    summary = scored.summary
    return {
        "score": summary.score,
        "track": track.name,
        "metrics": dict(summary.metrics),
        "classes": list(track.classes),
        "per_class": list(summary.per_class),
        "confusion": None if summary.confusion is None else summary.confusion.tolist(),
        "frames": scored.frames,
        "videos": scored.videos,
        "filled": scored.filled,
        "last_rows": scored.last_rows,
        "gaps": options.gaps,
        "thresholds": track.thresholds if thresholds is None else thresholds,
        "predictions": options.predictions,
        "annotations": source,
        "split_hash": split_hash(labels, track),
    }


def _confidence(
    scored: Scored,
    persons: Mapping[str, str] | None,
    track: Track,
    options: flags.FlagValues,
) -> dict[str, Any]:
    """What --intervals and --per_video add to the record; {} without them."""
    record: dict[str, Any] = {}
    if options.per_video:
        record["per_video"] = video_table(scored.statistics, track)
    if options.intervals:
        groups = group_names(scored.statistics.videos, persons)
        found = bootstrap(
            scored.statistics,
            track,
            resamples=options.intervals,
            seed=options.seed,
            groups=groups,
        )
        record |= {
            "intervals": {name: dataclasses.asdict(interval) for name, interval in found.items()},
            "resamples": options.intervals,
            "seed": options.seed,
            "groups": len(set(groups.values())),
        }
    return record


def _show_confidence(record: Mapping[str, Any], what: str) -> None:
    """Print what `_confidence` found; `what` was drawn."""
    if "per_video" in record:
        print(f"\n{text_table(record['per_video'])}")
    if "intervals" in record:
        rows = [{"figure": name} | row for name, row in record["intervals"].items()]
        print(f"\n{text_table(rows)}")
        shown = f"{record['resamples']} resamples of {record['groups']} {what}"
        print(f"low and high: {100 * LEVEL:g} % of {shown}")


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    command.refuse_arguments(rest)
    command.require(options, "predictions", "annotations")
    for name in ("seed", "persons"):
        if options[name].present and not options.intervals:
            raise InputError(f"--{name} needs --intervals; see --help")
    thresholds = command.read_thresholds(options.thresholds, track)
    persons = read_mapping(options.persons, "person") if options.persons else None
    labels, source = read_labels(options.annotations, track, options.split)
    predictions = read_predictions(options.predictions, track, labels)
    scored = score_predictions(
        predictions,
        labels,
        track,
        gaps=options.gaps,
        thresholds=thresholds,
        source=options.predictions,
    )
    more = _confidence(scored, persons, track, options)
    print(class_table_text(scored.summary))
    _show_confidence(more, "persons" if persons else "clips" if track.per_clip else "recordings")
    clips = f"{scored.videos} labelled clips"
    frames = f"{scored.frames} labelled frames of {scored.videos} videos"
    print(f"\n{clips if track.per_clip else frames}")
    if scored.filled:
        print(f"{scored.filled} of these frames had no prediction: filled ({options.gaps})")
    if scored.last_rows:
        print(f"{scored.last_rows} labelled last rows have no frame: left out")
    for name, value in scored.summary.metrics.items():
        if name != track.score_name:
            print(f"{name} {value:.4f}")
    print(f"{track.name} {track.score_name} {scored.summary.score:.4f}")
    return _record(scored, labels, track, options, thresholds, str(source)) | more


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
