"""Pictures of numbers as SVG text: over time, in the plane, predicted against true, while learning.

Shapes: T frames, n rows, W numbers in a label row. NaN is nowhere drawn.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.evaluation.pictures import (
    COLOURS,
    FAINT,
    INK,
    WIDTH,
    frames_of,
    legend,
    line,
    name_width,
    spans,
    svg,
    time_axis,
    turned,
    words,
)

# Of the truth, of steps on the way, and of what is handed on.
_TRUTH, _BETWEEN, _LAST = INK, (COLOURS[4], COLOURS[7], COLOURS[3]), COLOURS[1]
# Of training, of validation, and of more models than these; on white, from those told apart best.
_LINES = (*(COLOURS[i] for i in (5, 1, 2, 6, 3, 7)), INK)
POINTS = 2000  # of a scatter
STEPS = 360  # of a trajectory
_AGES = 12  # shades of a trajectory, from its beginning to its end


def _path(x: np.ndarray, y: np.ndarray, colour: str, dashes: str = "", width: float = 1.6) -> str:
    """A line through points (n,), broken where one is NaN; a point alone is a dot."""
    known = np.isfinite(x) & np.isfinite(y)
    joined = known & np.concatenate([[False], known[:-1]])
    steps = [
        f"L{a:.1f} {b:.1f}" if on else f"M{a:.1f} {b:.1f}h0"
        for a, b, on in zip(x[known], y[known], joined[known], strict=True)
    ]
    broken = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
        f'stroke-linecap="round" stroke-linejoin="round"{broken}/>\n'
    )


def _means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of each span edges[i] .. edges[i + 1] of (T, ...), NaN left out; NaN of nothing."""
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges[:-1], axis=0)
    counts = np.add.reduceat(known.astype(np.int64), edges[:-1], axis=0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _grid(
    x: float, y: float, wide: float, high: float, low: float, top: float, ticks: int
) -> list[str]:
    """Lines across a panel and the values they stand for, low at its foot, top at its head."""
    parts = []
    for share in np.linspace(0, 1, ticks):
        at = y + high * (1 - share)
        parts.append(line(x, at, x + wide, at))
        parts.append(words(x - 8, at + 4, f"{low + share * (top - low):.3g}", "end", FAINT))
    return parts


def over_time(
    rows: Mapping[str, np.ndarray], names: Sequence[str], bounds: tuple[float, float]
) -> str:
    """Numbers over time, a panel for each name and a line in it for each caption, as SVG.

    rows: caption -> float (T, W), the truth first and what is handed on last. A column of several
    frames shows their mean.
    """
    first, last = next(iter(rows)), list(rows)[-1]
    colours = {c: _BETWEEN[i % len(_BETWEEN)] for i, c in enumerate(rows)}
    colours |= {last: _LAST, first: _TRUTH}
    total = frames_of(rows)
    left, high, step = name_width(names) + 34, 150, 176
    (low, top), edges = bounds, spans(total)
    columns = len(edges) - 1
    x = left + (np.arange(columns) + 0.5) * WIDTH / columns
    parts = []
    for k, name in enumerate(names):
        y = step * k + 8
        parts += _grid(left, y, WIDTH, high, low, top, 5)
        parts.append(words(4, y + high / 2 + 4, name))
        # The truth and what is handed on lie above the steps between.
        for caption in sorted(rows, key=lambda c: 1 if c == last else 2 if c == first else 0):
            shown = _means(np.asarray(rows[caption], np.float64)[:, k], edges)
            heights = y + high * (top - shown) / (top - low)
            wide = 1.9 if caption in (first, last) else 1.1
            parts.append(_path(x, heights, colours[caption], width=wide))
    bottom = step * len(names)
    parts += time_axis(left, bottom + 6, total)
    keys, bottom = legend(list(rows), [colours[c] for c in rows], left, bottom + 34, left + WIDTH)
    return svg(left + WIDTH + 4, bottom + 10, f"{', '.join(names)} over time", [*parts, *keys])


def plane(rows: Mapping[str, np.ndarray], names: Sequence[str], bounds: tuple[float, float]) -> str:
    """The way through the plane of two numbers, a square for each caption, light to dark, as SVG.

    rows: caption -> float (T, 2). Of a long video each point is the mean of some frames.
    """
    total = frames_of(rows)
    edges = np.arange(min(total, STEPS) + 1) * total // min(total, STEPS)
    (low, high), side, left, top, step = bounds, 300, 58, 30, 390
    parts = []
    for i, (caption, row) in enumerate(rows.items()):
        x = left + step * i
        parts.append(words(x + side / 2, 18, caption, "middle"))
        for value in np.linspace(low, high, 5):
            at = side * (value - low) / (high - low)
            parts.append(line(x + at, top, x + at, top + side))
            parts.append(line(x, top + side - at, x + side, top + side - at))
            foot = "end" if value == high else "start" if value == low else "middle"
            parts.append(words(x + at, top + side + 17, f"{value:g}", foot, FAINT))
            parts.append(words(x - 8, top + side - at + 4, f"{value:g}", "end", FAINT))
        parts.append(words(x + side / 2, top + side + 36, names[0], "middle", FAINT))
        parts.append(turned(x - 40, top + side / 2, names[1]))
        points = _means(np.asarray(row, np.float64), edges)
        across = x + side * (points[:, 0] - low) / (high - low)
        down = top + side * (high - points[:, 1]) / (high - low)
        for age in range(_AGES):
            # One point more, so that a piece ends where the next begins.
            part = slice(len(points) * age // _AGES, len(points) * (age + 1) // _AGES + 1)
            share = age / (_AGES - 1)
            shade = tuple(round(a + share * (b - a)) for a, b in ((190, 8), (212, 48), (235, 107)))
            parts.append(_path(across[part], down[part], f"rgb{shade}"))
    foot = words(left, top + side + 58, "light: the first frames; dark: the last", colour=FAINT)
    width = left + step * (len(rows) - 1) + side + 12
    return svg(max(width, 360), top + side + 66, f"plane of {' and '.join(names)}", [*parts, foot])


def scatter(
    predicted: np.ndarray, labels: np.ndarray, names: Sequence[str], bounds: tuple[float, float]
) -> str:
    """Predicted against true, a square for each name, as SVG.

    Both float (n, W). Of many rows POINTS are drawn, evenly spaced.
    """
    at = np.unique(np.linspace(0, max(len(labels) - 1, 0), POINTS).astype(int))[: len(labels)]
    (low, high), side, left, top = bounds, 220, 52, 26
    step_x, step_y, across = 304, 296, 3
    parts = []
    for k, name in enumerate(names):
        x, y = left + step_x * (k % across), top + step_y * (k // across)
        parts.append(words(x + side / 2, y - 10, name, "middle"))
        parts += _grid(x, y, side, side, low, high, 3)
        for value in np.linspace(low, high, 3):
            place = x + side * (value - low) / (high - low)
            parts.append(line(place, y, place, y + side))
            parts.append(words(place, y + side + 17, f"{value:g}", "middle", FAINT))
        parts.append(line(x, y + side, x + side, y, "#a5acb5"))
        parts.append(words(x + side / 2, y + side + 34, "true", "middle", FAINT))
        parts.append(turned(x - 36, y + side / 2, "predicted"))
        right = x + side * (labels[at, k].astype(np.float64) - low) / (high - low)
        down = y + side * (high - predicted[at, k].astype(np.float64)) / (high - low)
        dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(right, down, strict=True))
        parts.append(
            f'<path d="{dots}" stroke="#0072b2" stroke-width="3.4" stroke-opacity="0.5" '
            'stroke-linecap="round"/>\n'
        )
    columns, lines = min(len(names), across), -(-len(names) // across)
    width, height = step_x * columns - 20, step_y * lines
    return svg(width, height, "predicted against true", parts)


def curves(
    history: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], captions: Sequence[str]
) -> str:
    """Figures over steps, a panel for each, two a row, and a line in it for each caption, as SVG.

    history: figure -> caption -> (steps (n,), values (n,)). captions: all there may be, in the
    order of their colours. Of many steps a point is the mean of some.
    """
    left, wide, high, step_x, step_y = 76, 330, 130, 440, 200
    present = {caption for lines in history.values() for caption in lines}
    names = [caption for caption in captions if caption in present]
    styles = {caption: _style(i) for i, caption in enumerate(captions)}
    colours, dashes = zip(*(styles[name] for name in names), strict=True)
    parts, top_y = legend(names, colours, left, 14, left + step_x + wide, dashes)
    top_y += 38
    last = max(float(steps.max()) for lines in history.values() for steps, _ in lines.values())
    for i, (figure, found) in enumerate(history.items()):
        x, y = left + step_x * (i % 2), top_y + step_y * (i // 2)
        lines = {caption: _thinned(*points, wide // 2) for caption, points in found.items()}
        values = np.concatenate([values for _, values in lines.values()])
        values = values[np.isfinite(values)]
        low, top = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        if low == top:  # a level line in the middle
            low, top = low - 0.5 * (abs(low) or 1), top + 0.5 * (abs(top) or 1)
        parts.append(words(x, y - 10, figure))
        parts += _grid(x, y, wide, high, float(low), float(top), 3)
        parts.append(words(x, y + high + 17, "0", "start", FAINT))
        parts.append(words(x + wide, y + high + 17, f"step {last:,.0f}", "end", FAINT))
        for caption in (name for name in names if name in lines):
            steps, numbers = lines[caption]
            across = x + wide * steps / max(last, 1)
            down = y + high * (top - numbers) / (top - low)
            # Thick where it is but a dot; thinner where there are many.
            width = 6 if np.isfinite(numbers).sum() == 1 else 1.8 if len(captions) < 3 else 1.3
            parts.append(_path(across, down, *styles[caption], width=width))
    height = top_y + step_y * (-(-len(history) // 2)) - 36
    return svg(left + step_x + wide + 12, height, "figures while learning", parts)


def _style(number: int) -> tuple[str, str]:
    """Colour and dashes of one line of many: of those after the colours, broken ones."""
    return _LINES[number % len(_LINES)], ("", "5 4", "1 4")[number // len(_LINES) % 3]


def _thinned(steps: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a line, each the mean of as many."""
    if len(steps) <= most:
        return steps, values
    edges = np.arange(most + 1) * len(steps) // most
    return _means(steps, edges), _means(values, edges)
