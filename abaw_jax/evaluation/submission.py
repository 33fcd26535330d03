"""Submission files: the example's lines in its order, every one of them, and their reader.

A line is `<video>/<number>.jpg,<label row>`; the header is the track's, in the example's spelling.
Lines exist for frames that have no crop: they are filled from their neighbours. Where labels are of
clips, a line names the clip by its number; a clip is a video whose only frame is 1. What is read
may have its cells in quotes, as some programs write csv; what is written has none.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import check_values
from abaw_jax.evaluation.predictions import Prediction, load_predictions
from abaw_jax.evaluation.smoothing import Smoothing, smooth_prediction
from abaw_jax.evaluation.stacking import is_choice
from abaw_jax.files import atomic_write
from abaw_jax.tracks.annotations import clip_name, parse_rows, read_lines, split_cells
from abaw_jax.tracks.track import Track


@dataclasses.dataclass(frozen=True)
class Locations:
    """The first column of a submission or example file, in file order.

    header: the first line, names without spaces round them. text: as written, `video/00001.jpg`.
    lines: video -> line indices (0-based, below the header) int64 (n,). frames: video -> int32
    (n,), the frame of each of these lines.
    """

    header: str
    text: list[str]
    lines: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


def decoder(
    track: Track, thresholds: float | Sequence[float] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """`track.decode` with these thresholds, or with the track's own."""
    if thresholds is None:
        return track.decode
    return functools.partial(track.decode, thresholds=thresholds)


def _read_lines(path: str | os.PathLike, track: Track) -> tuple[str, list[str]]:
    """The header, whose names must be the track's in any case, and the lines below it, without
    quotes."""
    lines = read_lines(path)
    for index, line in enumerate(lines):
        if '"' in line:
            lines[index] = _unquote(line, f"{path}:{index + 1}")
    header = ",".join(name.strip() for name in lines[0].split(","))
    if header.lower() != track.header.lower():
        raise InputError(
            f"{path}:1: header {lines[0].strip()[:120]!r}; {track.name} has {track.header!r}"
        )
    if len(lines) == 1:
        raise InputError(f"{path}: has no line below its header")
    return header, lines[1:]


def _unquote(line: str, where: str) -> str:
    """The line as it would stand without quotes; InputError for a comma that needs them."""
    cells = split_cells(line, where)
    if len(cells) != line.count(",") + 1:
        raise InputError(f"{where}: {line.strip()[:80]!r} has a comma in quotes; take it out")
    return ",".join(cells)


def _place(text: str, track: Track) -> tuple[str, int] | None:
    """(video, frame) of a location, None if it is none."""
    if track.per_clip:
        clip = clip_name(text)
        return clip and (clip, 1)
    # Video names hold digits, '_' and '-' themselves: only the last '/' and '.' divide.
    video, _, image = text.rpartition("/")
    number = image.rpartition(".")[0]
    if not (video and number.isascii() and number.isdigit() and 1 <= int(number) < 2**31):
        return None
    return video, int(number)


def _locations(header: str, texts: list[str], path: str | os.PathLike, track: Track) -> Locations:
    """Parse the locations; InputError as file:line if one does not parse or stands twice."""
    lines: dict[str, list[int]] = {}
    frames: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        place = _place(text, track)
        if place is None:
            expected = "a clip's number" if track.per_clip else "<video>/<number>.jpg"
            raise InputError(f"{path}:{index + 2}: {text[:80]!r}; expected {expected}")
        video, number = place
        lines.setdefault(video, []).append(index)
        frames.setdefault(video, []).append(number)
    found = Locations(
        header=header,
        text=texts,
        lines={video: np.array(rows, np.int64) for video, rows in lines.items()},
        frames={video: np.array(rows, np.int32) for video, rows in frames.items()},
    )
    for video, numbers in found.frames.items():
        order = np.argsort(numbers, kind="stable")
        twice = np.flatnonzero(np.diff(numbers[order]) == 0)
        if len(twice):
            first, second = found.lines[video][order[twice[0] : twice[0] + 2]]
            raise InputError(
                f"{path}:{second + 2}: {texts[second]} stands in line {first + 2} already"
            )
    return found


def read_example(path: str | os.PathLike, track: Track) -> Locations:
    """The locations an example file asks for; what stands after them is not looked at.

    Raises InputError as file:line for another track's header, a location that is not
    `<video>/<number>.jpg`, or one that stands twice.
    """
    header, lines = _read_lines(path, track)
    return _locations(header, [line.split(",", 1)[0].strip() for line in lines], path, track)


def _parse(path: str | os.PathLike, track: Track) -> tuple[Locations, np.ndarray]:
    """The locations of a submission and its label rows (lines, W), in file order."""
    header, lines = _read_lines(path, track)
    texts, rows = [], []
    for number, line in enumerate(lines, start=2):
        text, comma, row = line.partition(",")
        if not comma:
            raise InputError(f"{path}:{number}: {line.strip()[:80]!r} has no label")
        texts.append(text.strip())
        rows.append(row)
    values = parse_rows(rows, track, path, first_line=2, allow_invalid=False)
    return _locations(header, texts, path, track), values


def read_submission(
    path: str | os.PathLike, track: Track
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A submission by video: frames int32 (n,) ascending, label rows (n, W) of the track's type.

    Raises InputError as file:line for what `read_example` refuses and for a row that is not a valid
    one of the track.
    """
    locations, values = _parse(path, track)
    found = {}
    for video, lines in locations.lines.items():
        order = np.argsort(locations.frames[video])
        found[video] = (locations.frames[video][order], values[lines[order]])
    return found


@dataclasses.dataclass(frozen=True)
class Written:
    """What a submission was made of: lines, videos, lines filled because their frame had no
    prediction, and the videos that took the fallback."""

    lines: int
    videos: int
    filled: int
    fallback_videos: tuple[str, ...]


def write_submission(
    path: str | os.PathLike,
    example: str | os.PathLike,
    predictions: Mapping[str, Prediction] | str | os.PathLike,
    track: Track,
    *,
    smoothing: Smoothing | None = None,
    thresholds: float | Sequence[float] | None = None,
    fallback: str | None = None,
) -> Written:
    """Write the example's header and one line for each of its lines, in its order and spelling,
    whole or not at all.

    predictions: by video, or a prediction folder. smoothing: filter and gap rule (none, linear).
    thresholds: in place of the track's, where it has such. fallback: what a video without any
    predicted frame takes: None refuses it; 'mean', the mean of all predictions; or, where a row is
    one class, a class name. Videos the example does not name are ignored. Raises InputError for a
    video without prediction, for values that are not finite, and as `read_example` does.
    """
    wanted = read_example(example, track)
    smoothing, decode = smoothing or Smoothing(), decoder(track, thresholds)
    if not isinstance(predictions, Mapping):
        predictions = load_predictions(predictions, track, wanted.lines)
    absent = [v for v in wanted.lines if v not in predictions or not len(predictions[v].frames)]
    if absent and fallback is None:
        raise InputError(
            f"{example}: names {absent[0]}, of which no frame is predicted ({len(absent)} of "
            f"{len(wanted.lines)} videos); predict them, or name a fallback: "
            f"{' or '.join(_fallbacks(track))}"
        )
    substitute = decode(_fallback(predictions, track, fallback)) if absent else None
    labels = np.empty((len(wanted.text), track.label_width), track.label_type)
    filled = 0
    for video, lines in wanted.lines.items():
        frames = wanted.frames[video]
        if video in absent:
            labels[lines] = substitute
            filled += len(lines)
            continue
        prediction = predictions[video]
        check_values("predictions", video, prediction, track)
        smooth = smooth_prediction(prediction, int(frames.max()), smoothing)
        labels[lines] = decode(smooth.values[frames - 1])
        filled += int((~np.isin(frames, prediction.frames)).sum())
    with atomic_write(path, "w") as file:
        file.write(wanted.header + "\n")
        file.writelines(
            f"{text},{track.format_row(row)}\n"
            for text, row in zip(wanted.text, labels.tolist(), strict=True)
        )
    return Written(len(wanted.text), len(wanted.lines), filled, tuple(absent))


def _fallbacks(track: Track) -> tuple[str, ...]:
    """The fallbacks there are: of switches and of numbers no class says a whole row."""
    return ("mean", *track.classes) if is_choice(track) else ("mean",)


def _fallback(predictions: Mapping[str, Prediction], track: Track, rule: str) -> np.ndarray:
    """Values (1, K) for a video of which nothing is known."""
    if rule not in _fallbacks(track):
        raise InputError(f"fallback {rule!r}; expected {' or '.join(_fallbacks(track))}")
    if rule != "mean":
        return (np.array([track.classes]) == rule).astype(np.float32)
    values = [p.values for p in predictions.values() if len(p.values)]
    if not values:
        raise InputError("fallback 'mean': no frame of any video is predicted")
    return np.concatenate(values).mean(axis=0, keepdims=True)


def check_submission(
    path: str | os.PathLike, example: str | os.PathLike, track: Track
) -> dict[str, int]:
    """Whether `path` holds the example's header and exactly its lines in its order, each with a
    valid row.

    Returns {'lines', 'videos'}. Raises InputError naming the first line that differs.
    """
    found, _ = _parse(path, track)
    wanted = read_example(example, track)
    if found.header != wanted.header:
        raise InputError(f"{path}:1: header {found.header!r}; the example has {wanted.header!r}")
    # An end is a line too: what stands beyond the shorter file's is named as any other.
    for index, (have, want) in enumerate(itertools.zip_longest(found.text, wanted.text)):
        if have != want:
            here = "ends here" if have is None else have
            there = "ends before it" if want is None else f"has {want} here"
            raise InputError(
                f"{path}:{index + 2}: {here}; the example {there} ({len(found.text)} lines below "
                f"the header, of {len(wanted.text)})"
            )
    return {"lines": len(found.text), "videos": len(wanted.lines)}
