"""Pictures as SVG text: bars, confusion matrix, classes and units over time; and what all pictures
are drawn with. No drawing library is needed.

Over time a picture has at most WIDTH columns: of a longer video each shows several frames.
Shapes: T frames, K classes or units.
"""

import html
import itertools
import re
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
INK, FAINT, GRID = "#1a1d21", "#5c6570", "#e3e6ea"


WIDTH = 720  # pixels that a video's frames are spread over


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}" '
        f'font-family="system-ui, sans-serif" font-size="13">\n{"".join(parts)}</svg>\n'
    )


def words(x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(text)}</text>\n"
    )


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{colour}"/>\n'


def name_width(names: Sequence[str]) -> float:
    return 7.5 * max(map(len, names)) + 20


def line(x: float, y: float, to_x: float, to_y: float, colour: str = GRID) -> str:
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{colour}"/>\n'


def turned(x: float, y: float, text: str) -> str:
    """Faint words read from below, their middle at (x, y)."""
    middle = words(0, 0, text, "middle", FAINT)
    return f'<g transform="translate({x:g} {y:g}) rotate(-90)">{middle}</g>\n'


def bars(rows: Sequence[Mapping[str, object]], figure: str) -> str:
    """Horizontal bars of `figure`, at most 1, one per row ({'name', figure, ...}), as SVG.

    The scale begins at 0, or at -1 where a figure lies below 0.
    """
    left, length, step = name_width([str(row["name"]) for row in rows]), 560, 28
    low = -1 if any(float(row[figure]) < 0 for row in rows) else 0
    unit = length / (1 - low)
    zero, height = left - low * unit, step * len(rows) + 26
    parts = []
    for tick in np.linspace(low, 1, 5):
        x = zero + tick * unit
        parts.append(line(x, 0, x, height - 20))
        parts.append(words(x, height - 5, f"{tick:g}", "middle", FAINT))
    for i, row in enumerate(rows):
        y, value = step * i, float(row[figure])
        end = zero + value * unit
        parts.append(words(left - 8, y + 18, str(row["name"]), "end"))
        parts.append(rect(min(zero, end), y + 4, abs(value) * unit, step - 9, "#0072b2"))
        parts.append(words(max(zero, end) + 6, y + 18, f"{value:.3f}", colour=FAINT))
    return svg(left + length + 60, height, f"{figure} of each class", parts)


def confusion(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Heat map of (K, K) counts, each row as percent of its sum, as SVG. Hovering shows counts."""
    # Above its column a name has its words one below another: Fearfully_ Surprised.
    heads = [re.findall("[^_ ]+[_ ]?", name) for name in classes]
    lines = max(map(len, heads))
    left, top, cell_y = name_width(classes) + 20, 32 + 16 * lines, 38
    cell_x = max(82, name_width([word for head in heads for word in head]) - 12)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    parts = [
        words(left + cell_x * len(classes) / 2, 16, "predicted", "middle", FAINT),
        turned(14, top + cell_y * len(classes) / 2, "true"),
    ]
    for i, name in enumerate(classes):
        for k, word in enumerate(reversed(heads[i])):
            parts.append(words(left + cell_x * (i + 0.5), top - 8 - 16 * k, word, "middle"))
        parts.append(words(left - 8, top + cell_y * (i + 0.5) + 5, name, "end"))
        for j, other in enumerate(classes):
            x, y, share = left + cell_x * j, top + cell_y * i, float(shares[i, j])
            # White to dark blue, in equal steps; the figure turns white where the ground is dark.
            ground = tuple(round(255 + share * (end - 255)) for end in (0, 66, 128))
            figure = f"{100 * share:.1f}" if total[i, 0] else "-"
            note = html.escape(f"{name} predicted as {other}: {int(counts[i, j])} of {total[i, 0]}")
            parts.append(f"<g><title>{note}</title>\n")
            parts.append(rect(x + 1, y + 1, cell_x - 2, cell_y - 2, f"rgb{ground}"))
            ink = "#ffffff" if share > 0.45 else INK if counts[i, j] else "#a5acb5"
            parts.append(words(x + cell_x / 2, y + cell_y / 2 + 5, figure, "middle", ink))
            parts.append("</g>\n")
    width, height = left + cell_x * len(classes) + 4, top + cell_y * len(classes) + 4
    return svg(width, height, "confusion matrix", parts)


def spans(frames: int) -> np.ndarray:
    """Edges of the columns that so many frames are drawn in: column i has edges[i] .. [i + 1]."""
    columns = min(frames, WIDTH)
    return np.arange(columns + 1) * frames // columns


def frames_of(rows: Mapping[str, np.ndarray]) -> int:
    """The one length of all rows. Raises ValueError if it is not one, or 0."""
    frames = {len(row) for row in rows.values()}
    if len(frames) != 1 or 0 in frames:
        raise ValueError(f"rows of {sorted(frames)} frames; expected one length above 0")
    return frames.pop()


def time_axis(left: float, y: float, frames: int) -> list[str]:
    """Frame numbers 1 .. frames below a picture over time, their feet at y."""
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        number = f"{1 + round(share * (frames - 1)):,}"
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        text = f"frame {number}" if share == 0 else number
        parts.append(words(left + share * WIDTH, y, text, anchor, FAINT))
    return parts


def _band(row: np.ndarray, colours: Sequence[str], left: float, y: float, thick: float) -> str:
    """Numbers (T,) as one strip in their colours; -1 is left white.

    A column takes the commonest number of its frames.
    """
    edges = spans(len(row))
    columns = len(edges) - 1
    pairs = itertools.pairwise(edges)
    shown = np.array([np.bincount(row[a:b] + 1).argmax() - 1 for a, b in pairs])
    starts = np.flatnonzero(np.diff(shown, prepend=-2))
    scale, parts = WIDTH / columns, []
    for start, end in zip(starts, [*starts[1:], columns], strict=True):
        if shown[start] >= 0:
            colour = colours[shown[start] % len(colours)]
            parts.append(rect(left + start * scale, y, (end - start) * scale, thick, colour))
    frame = f'<rect x="{left:g}" y="{y:g}" width="{WIDTH}" height="{thick:g}"'
    parts.append(f'{frame} fill="none" stroke="#d3d8de"/>\n')
    return "".join(parts)


def strips(rows: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Classes over time as coloured strips, one per caption, as SVG.

    rows: caption -> int (T,), -1 where there is none (left white).
    """
    total = frames_of(rows)
    left, step, thick = name_width(list(rows)), 44, 32
    parts = []
    for i, (caption, row) in enumerate(rows.items()):
        parts.append(words(left - 8, step * i + thick / 2 + 5, caption, "end"))
        parts.append(_band(np.asarray(row), COLOURS, left, step * i, thick))
    bottom = step * len(rows)
    parts += time_axis(left, bottom + 6, total)
    keys, bottom = legend(classes, COLOURS, left, bottom + 34, left + WIDTH)
    keys.append(words(left, bottom + 22, "white: no label", colour=FAINT))
    return svg(left + WIDTH + 4, bottom + 30, "classes over time", [*parts, *keys])


def units(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    """Units that are on or off over time: of each a strip of what was predicted above one of what
    is true, as SVG.

    rows: caption -> int (T, K), the predicted first; -1 where there is none (left white).
    """
    colours = (COLOURS[5], FAINT)
    total = frames_of(rows)
    left, thick = name_width(names), 11
    step = thick * len(rows) + 9
    parts = []
    for k, name in enumerate(names):
        parts.append(words(left - 8, step * k + thick * len(rows) / 2 + 5, name, "end"))
        for i, row in enumerate(rows.values()):
            shades = ("#f1f3f5", colours[i])
            parts.append(_band(np.asarray(row)[:, k], shades, left, step * k + thick * i, thick))
    bottom = step * len(names)
    parts += time_axis(left, bottom + 9, total)
    keys, bottom = legend([f"{c}: on" for c in rows], colours, left, bottom + 36, left + WIDTH)
    keys.append(words(left, bottom + 22, "pale: off; white: no label", colour=FAINT))
    return svg(left + WIDTH + 4, bottom + 30, "units over time", [*parts, *keys])


def legend(
    names: Sequence[str],
    colours: Sequence[str],
    left: float,
    y: float,
    right: float,
    dashes: Sequence[str] | None = None,
) -> tuple[list[str], float]:
    """Colour keys from `left`, wrapped before `right`; and the last line's y.

    dashes: of lines, whose keys are lines as well.
    """
    parts, x = [], left
    for i, name in enumerate(names):
        wide = 7.5 * len(name) + 38
        if x + wide > right and x > left:
            x, y = left, y + 22
        if dashes is None:
            parts.append(rect(x, y - 11, 13, 13, colours[i % len(colours)]))
        else:
            broken = f' stroke-dasharray="{dashes[i]}"' if dashes[i] else ""
            parts.append(
                f'<path d="M{x - 4:g} {y - 4:g}h18" stroke="{colours[i]}" stroke-width="2.5" '
                f'stroke-linecap="round"{broken}/>\n'
            )
        parts.append(words(x + 19, y, name))
        x += wide
    return parts, y
