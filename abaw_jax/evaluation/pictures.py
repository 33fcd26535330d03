"""Pictures as SVG text: bars, confusion matrix, classes over time. No drawing library is needed."""

import html
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

# Okabe and Ito's colours, told apart by the colour-blind too; but grey, for Neutral, in place of
# black, and violet in place of a second orange, which thin strips blur with the first.
COLOURS = (
    "#b4bac2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#f0c419",
    "#0072b2",
    "#7b4fb5",
    "#56b4e9",
)
_INK, _FAINT = "#1a1d21", "#5c6570"


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}" '
        f'font-family="system-ui, sans-serif" font-size="13">\n{"".join(parts)}</svg>\n'
    )


def _words(x: float, y: float, text: str, anchor: str = "start", colour: str = _INK) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(text)}</text>\n"
    )


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{colour}"/>\n'


def _name_width(names: Sequence[str]) -> float:
    return 7.5 * max(map(len, names)) + 12


def bars(rows: Sequence[Mapping[str, object]], figure: str) -> str:
    """Horizontal bars of `figure`, 0 .. 1, one per row ({'name', figure, ...}), as SVG."""
    left, length, step = _name_width([str(row["name"]) for row in rows]), 560, 28
    height = step * len(rows) + 26
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * length
        parts.append(f'<path d="M{x:g} 0V{height - 20:g}" stroke="#e3e6ea"/>\n')
        parts.append(_words(x, height - 5, f"{tick:g}", "middle", _FAINT))
    for i, row in enumerate(rows):
        y, value = step * i, float(row[figure])
        parts.append(_words(left - 8, y + 18, str(row["name"]), "end"))
        parts.append(_rect(left, y + 4, value * length, step - 9, "#0072b2"))
        parts.append(_words(left + value * length + 6, y + 18, f"{value:.3f}", colour=_FAINT))
    return _svg(left + length + 60, height, f"{figure} of each class", parts)


def confusion(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Heat map of (K, K) counts, each row as percent of its sum, as SVG. Hovering shows counts."""
    left, top, cell_x, cell_y = _name_width(classes) + 20, 48, 82, 38
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    parts = [
        _words(left + cell_x * len(classes) / 2, 16, "predicted", "middle", _FAINT),
        f'<g transform="translate(14 {top + cell_y * len(classes) / 2:g}) rotate(-90)">'
        f"{_words(0, 0, 'true', 'middle', _FAINT)}</g>\n",
    ]
    for i, name in enumerate(classes):
        parts.append(_words(left + cell_x * (i + 0.5), top - 8, name, "middle"))
        parts.append(_words(left - 8, top + cell_y * (i + 0.5) + 5, name, "end"))
        for j, other in enumerate(classes):
            x, y, share = left + cell_x * j, top + cell_y * i, float(shares[i, j])
            # White to dark blue, in equal steps; the figure turns white where the ground is dark.
            ground = tuple(round(255 + share * (end - 255)) for end in (0, 66, 128))
            figure = f"{100 * share:.1f}" if total[i, 0] else "-"
            note = html.escape(f"{name} predicted as {other}: {int(counts[i, j])} of {total[i, 0]}")
            parts.append(f"<g><title>{note}</title>\n")
            parts.append(_rect(x + 1, y + 1, cell_x - 2, cell_y - 2, f"rgb{ground}"))
            ink = "#ffffff" if share > 0.45 else _INK if counts[i, j] else "#a5acb5"
            parts.append(_words(x + cell_x / 2, y + cell_y / 2 + 5, figure, "middle", ink))
            parts.append("</g>\n")
    width, height = left + cell_x * len(classes) + 4, top + cell_y * len(classes) + 4
    return _svg(width, height, "confusion matrix", parts)


def _commonest(classes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The commonest class of each span edges[i] .. edges[i + 1] of (T,) classes."""
    spans = itertools.pairwise(edges)
    return np.array([np.bincount(classes[a:b] + 1).argmax() - 1 for a, b in spans])


def strips(rows: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Classes over time as coloured strips, one per caption, as SVG.

    rows: caption -> int (T,), -1 where there is none (left white). A long video is drawn with the
    commonest class of each pixel's frames.
    """
    frames = {len(row) for row in rows.values()}
    if len(frames) != 1 or 0 in frames:
        raise ValueError(f"strips of {sorted(frames)} frames; expected one length above 0")
    (total,) = frames
    left, length, step, thick = _name_width(list(rows)), 720, 44, 32
    columns = min(total, length)
    edges = np.arange(columns + 1) * total // columns
    scale = length / columns
    parts = []
    for i, (caption, row) in enumerate(rows.items()):
        shown = _commonest(np.asarray(row), edges)
        starts = np.flatnonzero(np.diff(shown, prepend=-2))
        y = step * i
        parts.append(_words(left - 8, y + thick / 2 + 5, caption, "end"))
        for start, end in zip(starts, [*starts[1:], columns], strict=True):
            if shown[start] >= 0:
                colour = COLOURS[shown[start] % len(COLOURS)]
                x, wide = left + start * scale, (end - start) * scale
                parts.append(_rect(x, y, wide, thick, colour))
        frame = f'<rect x="{left:g}" y="{y}" width="{length}" height="{thick}"'
        parts.append(f'{frame} fill="none" stroke="#d3d8de"/>\n')
    bottom = step * len(rows)
    for share in (0, 0.25, 0.5, 0.75, 1):
        number = 1 + round(share * (total - 1))
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(_words(left + share * length, bottom + 6, f"{number:,}", anchor, _FAINT))
    legend, bottom = _legend(classes, left, bottom + 34, left + length)
    return _svg(left + length + 4, bottom + 10, "classes over time", [*parts, *legend])


def _legend(classes: Sequence[str], left: float, y: float, right: float) -> tuple[list[str], float]:
    """Colour keys from `left`, wrapped before `right`; and the last line's y."""
    parts, x = [], left
    for i, name in enumerate(classes):
        wide = 7.5 * len(name) + 38
        if x + wide > right and x > left:
            x, y = left, y + 22
        parts.append(_rect(x, y - 11, 13, 13, COLOURS[i % len(COLOURS)]))
        parts.append(_words(x + 19, y, name))
        x += wide
    return parts, y
