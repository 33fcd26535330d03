"""Results for people: tables as text and Markdown, and a page of HTML with its pictures inside.

The page is one file without scripts or outside parts: it can be mailed, and opens anywhere.
"""

import dataclasses
import html
import os
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.evaluation import pictures
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
"""


@dataclasses.dataclass(frozen=True)
class Timeline:
    """One video over time, for the report.

    video: its name. strips: caption -> class per frame int (T,), -1 where there is none; all of one
    length, drawn below one another in this order (labels, before, after smoothing).
    """

    video: str
    strips: Mapping[str, np.ndarray]


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
    """Mappings -> a table; the (first) row with the highest figure called `best` is marked."""
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


def write_report(
    path: str | os.PathLike,
    title: str,
    track: Track,
    summary: Summary,
    *,
    notes: Sequence[str] = (),
    stages: Sequence[Mapping[str, object]] = (),
    candidates: Sequence[Mapping[str, object]] = (),
    timeline: Timeline | None = None,
) -> None:
    """Write the page: score, stages, figures per class, confusions, one video over time.

    notes: lines under the title (split, counts, config). stages: rows such as {'stage', 'seconds',
    'score'}. candidates: rows of a search, such as `Search.table`. Whole or not at all.
    """
    parts = [f"<h1>{html.escape(title)}</h1>\n"]
    parts += [f'<p class="note">{html.escape(note)}</p>\n' for note in notes]
    parts.append(f'<p class="score">{summary.score:.4f}</p>\n')
    parts.append(f'<p class="note">{track.name} {html.escape(track.score_name)}')
    others = [f"{k} {v:.4f}" for k, v in summary.metrics.items() if k != track.score_name]
    parts.append("".join(f" · {html.escape(other)}" for other in others) + "</p>\n")
    if stages:
        parts += ["<h2>Stages</h2>\n", _html_table(stages)]
    parts += ["<h2>Classes</h2>\n", _html_table(summary.per_class)]
    if all("f1" in row for row in summary.per_class):
        parts += ["<h2>F1 of each class</h2>\n", pictures.bars(summary.per_class, "f1")]
    if summary.confusion is not None:
        parts += [
            "<h2>Confusion</h2>\n",
            '<p class="note">Share of each true class (row) that was predicted as each class '
            "(column), in percent.</p>\n",
            pictures.confusion(summary.confusion, track.classes),
        ]
    if timeline is not None:
        parts.append(f"<h2>{html.escape(timeline.video)} over time</h2>\n")
        parts.append(pictures.strips(timeline.strips, track.classes))
    if candidates:
        parts += [
            "<h2>Smoothing, tuned on validation</h2>\n",
            _html_table(candidates, track.score_name),
        ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(parts)}</body>\n</html>\n"
    )
    with atomic_write(path, "w") as file:
        file.write(page)
