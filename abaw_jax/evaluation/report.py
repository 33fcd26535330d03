"""Results for people: tables as text and Markdown, and a page of HTML with its pictures inside.

The page is one file without scripts or outside parts: it can be mailed, and opens anywhere.
"""

import dataclasses
import html
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation import pictures, plots
from abaw_jax.evaluation.confidence import LEVEL, Interval
from abaw_jax.evaluation.stacking import is_choice
from abaw_jax.files import atomic_write
from abaw_jax.tracks.track import Summary, Track

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1d21; background: #fff;
       max-width: 960px; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p.note { color: #5c6570; margin: .3rem 0; }
p.score { font-size: 2.4rem; font-weight: 600; margin: .6rem 0 0; line-height: 1.2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e3e6ea; }
th { color: #5c6570; font-weight: 500; } td.n, th.n { text-align: right; padding-left: .9rem; }
tr.best td { font-weight: 600; background: #eaf3fb; }
svg { display: block; max-width: 100%; height: auto; }
pre { font-size: 13px; line-height: 1.4; overflow-x: auto; }
"""


@dataclasses.dataclass(frozen=True)
class Timeline:
    """One video over time, for the report.

    video: its name. rows: caption -> label rows (n, W) of frames 1 .. n, with the track's mark
    where a row has no label; all of one length. The first caption is the truth, the last what is
    handed on; those between are steps on the way (frames, sequence). note: a line above it.
    """

    video: str
    rows: Mapping[str, np.ndarray]
    note: str = ""


def _column(rows: Sequence[Mapping[str, object]], column: str) -> list[str]:
    """The cells of one column: scores with 4 digits, a column of larger figures (seconds) with 1,
    counts with separators, the rest as it is; nothing where a row has none."""
    values = [row.get(column) for row in rows]
    large = any(isinstance(value, float) and abs(value) >= 10 for value in values)

    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.1f}" if large else f"{value:.4f}"
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        return "" if value is None else str(value)

    return [text(value) for value in values]


def _cells(rows: Sequence[Mapping[str, object]]) -> list[list[str]]:
    """The header and the rows of a table, as text."""
    columns = _columns(rows)
    body = zip(*(_column(rows, column) for column in columns), strict=True)
    return [columns, *(list(line) for line in body)]


def _columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The keys of all rows, in the order met."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _numeric(rows: Sequence[Mapping[str, object]], column: str) -> bool:
    return all(isinstance(row.get(column), int | float | None) for row in rows)


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Mappings -> aligned columns under a header, numbers to the right; '' without rows."""
    if not rows:
        return ""
    columns = _columns(rows)
    cells = _cells(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [_numeric(rows, column) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Mappings -> a Markdown table, numbers to the right; '' without rows."""
    if not rows:
        return ""
    head, *body = _cells(rows)
    cells = [head, ["---:" if _numeric(rows, column) else "---" for column in head], *body]
    # A '|' of a name would begin another column.
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells
    )


def class_table_text(summary: Summary) -> str:
    """The per-class figures as an aligned text table."""
    return text_table(summary.per_class)


def _html_table(rows: Sequence[Mapping[str, object]], best: str | None = None) -> str:
    """Mappings -> a table; the (first) row with the highest figure called `best` is marked; ''
    without rows."""
    if not rows:
        return ""
    mark = max(range(len(rows)), key=lambda i: rows[i][best]) if best else None
    head, *body = _cells(rows)
    kind = [' class="n"' if _numeric(rows, column) else "" for column in head]

    def line(tag: str, cells: Sequence[str]) -> str:
        texts = zip(kind, cells, strict=True)
        return "".join(f"<{tag}{k}>{html.escape(cell)}</{tag}>" for k, cell in texts)

    lines = "".join(
        ('<tr class="best">' if i == mark else "<tr>") + line("td", cells) + "</tr>\n"
        for i, cells in enumerate(body)
    )
    return f"<table><thead><tr>{line('th', head)}</tr></thead>\n<tbody>{lines}</tbody></table>\n"


def read_history(path: str | os.PathLike) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A stage's metrics.jsonl: figure -> 'training' or 'validation' -> (steps (n,), values (n,)).

    Figures of speed and time are left out; null becomes NaN. Raises InputError as file:line for a
    line that is no JSON object with a step.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); name a stage's metrics.jsonl"
        ) from error
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, text in enumerate(lines, start=1):
        try:
            figures = {key: _number(value) for key, value in json.loads(text).items()}
            step = figures.pop("step")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}:{number}: {text[:80]!r}; expected a JSON object of numbers with a step"
            ) from error
        for key, value in figures.items():
            figure = key.removeprefix("evaluation/")
            caption = "training" if key == figure else "validation"
            if not figure.endswith(("seconds", "_per_second", "_share")):
                found.setdefault(figure, {}).setdefault(caption, []).append((step, value))
    return {
        figure: {caption: tuple(np.array(points).T) for caption, points in lines.items()}
        for figure, lines in found.items()
    }


def _number(value: object) -> float:
    return float("nan") if value is None else float(value)


FIGURES = {"f1": "F1", "ccc": "CCC", "pearson": "Pearson's r"}  # of one class, as headings say it
WORST = 10  # videos shown
OTHER_VIDEOS = (
    "A model of a fold is judged on the training videos that it leaves out, one of a scene on that "
    "scene's: their lines are not of the same videos."
)


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>\n'


def _headline(
    title: str,
    track: Track,
    summary: Summary,
    notes: Sequence[str],
    intervals: Mapping[str, Interval],
) -> str:
    """Title, notes, the score and what else there is of the whole."""
    others = [f"{k} {v:.4f}" for k, v in summary.metrics.items() if k != track.score_name]
    parts = [f"<h1>{html.escape(title)}</h1>\n", *map(_note, notes)]
    parts.append(f'<p class="score">{summary.score:.4f}</p>\n')
    parts.append(_note(" · ".join([f"{track.name} {track.score_name}", *others])))
    if found := intervals.get("score"):
        parts.append(
            _note(
                f"{100 * LEVEL:g} % of resamples of the videos lie between {found.low:.4f} and "
                f"{found.high:.4f}"
            )
        )
    return "".join(parts)


def _interval_table(intervals: Mapping[str, Interval]) -> str:
    rows = [
        {"figure": name, "value": found.value, "low": found.low, "high": found.high}
        for name, found in intervals.items()
        if name != "score"
    ]
    return _html_table(rows)


def _class_bars(track: Track, summary: Summary) -> tuple[str, str]:
    """(heading, bars) of what the score is the mean of."""
    figure = track.score_name.partition("_")[2]
    heading = f"{FIGURES.get(figure, figure)} of each class"
    return heading, pictures.bars(summary.per_class, figure)


def _confusion(track: Track, summary: Summary) -> str:
    if summary.confusion is None:
        return ""
    note = "Share of each true class (row) that was predicted as each class (column), in percent."
    return _note(note) + pictures.confusion(summary.confusion, track.classes)


def _scatter(track: Track, pairs: tuple[np.ndarray, np.ndarray] | None) -> str:
    """Predicted against true values of the rows that have a label."""
    if pairs is None:
        return ""
    predicted, labels = (np.asarray(rows)[track.valid(pairs[1])] for rows in pairs)
    note = f"{len(labels):,} labelled {'clips' if track.per_clip else 'frames'}"
    if len(labels) > plots.POINTS:
        note += f", of which {plots.POINTS:,} are drawn, evenly spaced"
    picture = plots.scatter(predicted, labels, track.classes, track.label_range)
    return _note(note + ".") + picture


def _over_time(track: Track, timeline: Timeline) -> str:
    """Its note, and classes as bands, units as thin strips, numbers as lines."""
    return (_note(timeline.note) if timeline.note else "") + _timeline_picture(track, timeline)


def _timeline_picture(track: Track, timeline: Timeline) -> str:
    rows = {caption: np.asarray(found) for caption, found in timeline.rows.items()}
    if is_choice(track):
        return pictures.strips({c: found[:, 0] for c, found in rows.items()}, track.classes)
    first, last = next(iter(rows)), list(rows)[-1]
    ends = {last: rows[last], first: rows[first]}
    if track.label_type == "int32":
        return pictures.units(ends, track.classes)
    rows = {c: np.where(track.valid(found)[:, None], found, np.nan) for c, found in rows.items()}
    picture = plots.over_time(rows, track.classes, track.label_range)
    if track.label_width == 2:
        ends = {first: rows[first], last: rows[last]}
        picture += plots.plane(ends, track.classes, track.label_range)
    return picture


def _worst(track: Track, videos: Sequence[Mapping[str, object]]) -> str:
    if not videos:
        return ""
    if track.per_clip:  # one row has no correlation: the error tells clips apart
        videos = sorted(videos, key=lambda row: -row["mean_rmse"])
        rows = [{"clip": row["video"], "mean_rmse": row["mean_rmse"]} for row in videos]
        return _note(f"Of {len(videos)} clips, by their error.") + _html_table(rows[:WORST])
    note = f"Of {len(videos)} videos, each scored by its own frames."
    # The score is one of the metrics, and says so there.
    twice = {"score"} if track.score_name in videos[0] else set()
    rows = [{k: v for k, v in row.items() if k not in twice} for row in videos[:WORST]]
    return _note(note) + _html_table(rows)


def _curves(models: Mapping[str, str | os.PathLike]) -> str:
    """Of one model training beside validation, of several a line each."""
    found = {name: read_history(path) for name, path in models.items()}
    if len(found) == 1:
        (history,), captions = found.values(), ("training", "validation")
    else:
        history, captions = {}, tuple(found)
        for name, figures in found.items():
            for figure, lines in figures.items():
                for caption, points in lines.items():
                    history.setdefault(f"{figure}, {caption}", {})[name] = points
    if not history:
        return _note("No figure was recorded.")
    other_videos = any(name.startswith(("fold", "scene")) for name in found)
    return (_note(OTHER_VIDEOS) if other_videos else "") + plots.curves(history, captions)


def _settings(config: Mapping[str, object]) -> str:
    if not config:
        return ""
    text = html.escape(json.dumps(config, indent=2, default=str))
    return f"<details><summary>all values</summary>\n<pre>{text}</pre></details>\n"


def write_report(
    path: str | os.PathLike,
    title: str,
    track: Track,
    summary: Summary,
    *,
    notes: Sequence[str] = (),
    intervals: Mapping[str, Interval] | None = None,
    stages: Sequence[Mapping[str, object]] = (),
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
    timelines: Sequence[Timeline] = (),
    videos: Sequence[Mapping[str, object]] = (),
    members: Sequence[Mapping[str, object]] = (),
    scenes: Sequence[Mapping[str, object]] = (),
    candidates: Sequence[Mapping[str, object]] = (),
    histories: Mapping[str, Mapping[str, str | os.PathLike]] | None = None,
    config: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the page, whole or not at all; what is not given is left out.

    notes: lines under the title (split, counts). intervals: of `confidence.bootstrap`. stages: rows
    such as {'stage', 'seconds', 'score'}. pairs: predicted and true label rows (n, W), of numbers,
    to be drawn against each other. timelines: a picture a video. videos: of
    `confidence.video_table`, worst first. members, scenes, candidates: rows of weights, of scenes,
    and of a search such as `Search.table`. histories: stage -> model -> its metrics.jsonl. config:
    JSON values. versions: package -> version. Raises InputError as `read_history` does.
    """
    package_rows = [{"package": name, "version": v} for name, v in (versions or {}).items()]
    sections = [
        ("Stages", _html_table(stages)),
        ("Intervals over videos", _interval_table(intervals or {})),
        ("Classes", _html_table(summary.per_class)),
        _class_bars(track, summary),
        ("Confusion", _confusion(track, summary)),
        ("Predicted against true", _scatter(track, pairs)),
        *((f"{found.video} over time", _over_time(track, found)) for found in timelines),
        ("Worst clips" if track.per_clip else "Worst videos", _worst(track, videos)),
        ("Members", _html_table(members)),
        ("Scenes", _html_table(scenes)),
        ("Smoothing, tuned on validation", _html_table(candidates, track.score_name)),
        *((f"Learning: {name}", _curves(files)) for name, files in (histories or {}).items()),
        ("Configuration", _settings(config or {})),
        ("Versions", _html_table(package_rows)),
    ]
    body = "".join(f"<h2>{html.escape(name)}</h2>\n{text}" for name, text in sections if text)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{_headline(title, track, summary, notes, intervals or {})}{body}</body>\n</html>\n"
    )
    with atomic_write(path, "w") as file:
        file.write(page)
