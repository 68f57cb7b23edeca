"""Charts as SVG: bars, lines, heat maps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 16, 42  # margins of a chart, in px
_GAIN_LEFT, _GAIN_RIGHT, _GAIN_TOP, _GAIN_BOTTOM, _GAIN_ROW = 140, 46, 6, 40, 30
_MAP_TOP, _MAP_BOTTOM, _CELL_WIDTH, _CELL_HEIGHT = 8, 44, 64, 34
_CHARACTER = 6.6  # approximate width of a character of the tick labels
_PALEST = 0.08  # opacity of the lowest score
_SHARES = (0, 0.25, 0.5, 0.75, 1)


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear scale from values to pixels of the drawing."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def threshold_curve(
    thresholds: Sequence[float],
    per_threshold: npt.NDArray[np.float64],
    bands: npt.NDArray[np.float64],
) -> Markup:
    """Draw the score at each of T ascending IoU thresholds with its interval.

    Args:
        per_threshold: (T,) scores in [0, 1].
        bands: (T, 2) lower and upper end of each score's interval.
    """
    margin = 0.05 if len(thresholds) == 1 else 0.0
    x = _Axis(thresholds[0] - margin, thresholds[-1] + margin, _LEFT + 10, WIDTH - _RIGHT - 10)
    y = _Axis(0, 1, HEIGHT - _BOTTOM, _TOP)
    parts = _grid(y, _SHARES)
    parts += [_text(x(t), HEIGHT - _BOTTOM + 18, f"{t:.2f}", "middle") for t in thresholds]
    parts.append(_name("IoU threshold", (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5))
    lower, line, upper = (
        [f"{x(t)},{y(value)}" for t, value in zip(thresholds, values, strict=True)]
        for values in (bands[:, 0], per_threshold, bands[:, 1])
    )
    band = " ".join(upper + lower[::-1])
    parts.append(Markup('<polygon class="band" points="{}"/>').format(band))
    parts.append(Markup('<polyline class="line" points="{}"/>').format(" ".join(line)))
    dot = Markup('<circle class="dot" cx="{}" cy="{}" r="3.4"><title>{}</title></circle>')
    for t, value, (low, high) in zip(thresholds, per_threshold, bands, strict=True):
        title = f"IoU > {t:.2f}: {value:.4f} ({low:.4f} to {high:.4f})"
        parts.append(dot.format(x(t), y(value), title))
    # The curve never rises, so there is room above its first point and below its last one.
    first, last = y(per_threshold[0]), y(per_threshold[-1])
    first += 22 if first < _TOP + 20 else -12
    last += 20 if last < HEIGHT - _BOTTOM - 24 else -12
    parts.append(_text(x(thresholds[0]), first, f"{per_threshold[0]:.3f}", "start", "value"))
    parts.append(_text(x(thresholds[-1]) + 6, last, f"{per_threshold[-1]:.3f}", "end", "value"))
    return _svg(parts, f"Score by IoU threshold, {per_threshold[0]:.3f} to {per_threshold[-1]:.3f}")


def share_histogram(
    values: npt.NDArray[np.floating[Any]],
    *,
    axis: str,
    noun: str,
    key: str,
    bins: int = 20,
) -> Markup:
    """Draw a histogram of N values in [0, 1]; the last bin includes 1. A bar is a link.

    Args:
        axis: Name of the values.
        noun: What is counted, in the plural.
        key: Key of the page's fragment that a bar sets to its range.
    """
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    ticks = [(share, str(share)) for share in _SHARES]
    starts, ends = (side.round(6).tolist() for side in (edges[:-1], edges[1:]))
    bars = [
        (low, high, count, f"{low:.2f} to {high:.2f}: {count} {noun}", f"{key}={low:g}-{high:g}")
        for count, low, high in zip(counts.tolist(), starts, ends, strict=True)
    ]
    mean = float(values.mean())
    x, parts = _bars(bars, (0.0, 1.0), ticks, axis)
    parts.append(_line("mark", (x(mean), x(mean)), (_TOP - 4, HEIGHT - _BOTTOM)))
    anchor, offset = ("start", 6) if mean < 0.7 else ("end", -6)
    parts.append(_text(x(mean) + offset, _TOP + 6, f"mean {mean:.3f}", anchor, "value"))
    return _svg(parts, f"{noun.capitalize()} by {axis}, mean {mean:.3f}", is_group=True)


def count_histogram(counts: npt.NDArray[np.integer[Any]], *, axis: str, noun: str) -> Markup:
    """Draw how often each count occurs; many counts share a bar.

    Args:
        counts: (N,) at least 0.
        axis: Name of the counts.
        noun: What has them, in the plural.
    """
    largest = int(counts.max())
    width = -(-(largest + 1) // 20)
    starts = range(0, largest + 1, width)
    bars = []
    for start in starts:
        end = start + width - 1
        number = int(np.count_nonzero((counts >= start) & (counts <= end)))
        of = str(start) if width == 1 else f"{start} to {end}"
        bars.append((start, start + width, number, f"{of}: {number} {noun}", ""))
    step = _tick_step(largest)
    ticks = [(tick + width / 2, str(tick)) for tick in range(0, largest + 1, max(step, width))]
    _, parts = _bars(bars, (0, starts[-1] + width), ticks, axis)
    return _svg(parts, f"{noun.capitalize()} by {axis}")


def _bars(
    bars: Sequence[tuple[float, float, int, str, str]],
    ends: tuple[float, float],
    ticks: Iterable[tuple[float, str]],
    axis: str,
) -> tuple[_Axis, list[Markup]]:
    """Draw bars: from, to, height, title and fragment of the link ("": none)."""
    tallest = max(1, *(height for _, _, height, _, _ in bars))
    step = _tick_step(tallest)
    top = step * -(-tallest // step)
    x = _Axis(*ends, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0, top, HEIGHT - _BOTTOM, _TOP)
    parts = _grid(y, range(0, top + 1, step))
    parts += [_text(x(at), HEIGHT - _BOTTOM + 18, text, "middle") for at, text in ticks]
    parts.append(_name(axis, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5))
    for low, high, height, title, fragment in bars:
        if not height:
            continue
        left, width = x(low) + 1, max(0.5, round(x(high) - x(low) - 2, 2))
        bar = _rect("bar", (left, y(height), width, round(y(0) - y(height), 2)), title)
        if fragment:
            whole = (left, _TOP, width, HEIGHT - _BOTTOM - _TOP)
            bar = _link(fragment, title, bar + _rect("hit", whole, title))
        parts.append(bar)
    return x, parts


def interval_bar(low: float, estimate: float, high: float) -> Markup:
    """Draw a score with its interval on a scale from 0 to 1."""
    x = _Axis(0, 1, 4, 316)
    return Markup(
        '<svg class="scale" viewBox="0 0 320 30" role="img" aria-label="{}">'
        '<line class="track" x1="4" x2="316" y1="9" y2="9"/>'
        '<line class="span" x1="{}" x2="{}" y1="9" y2="9"/>'
        '<circle class="dot" cx="{}" cy="9" r="5"/>'
        '<text x="4" y="27">0</text><text x="316" y="27" text-anchor="end">1</text></svg>'
    ).format(f"{estimate:.4f}, from {low:.4f} to {high:.4f}", x(low), x(high), x(estimate))


def _grid(y: _Axis, ticks: Iterable[float]) -> list[Markup]:
    parts: list[Markup] = []
    for tick in ticks:
        parts.append(_line("grid", (_LEFT, WIDTH - _RIGHT), (y(tick), y(tick))))
        parts.append(_text(_LEFT - 8, y(tick) + 4, str(tick), "end"))
    return parts


def _name(text: str, x: float, y: float) -> Markup:
    """Return the name of the horizontal axis."""
    return _text(x, y, text, "middle", "name")


def _tick_step(largest: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that gives at most five ticks."""
    steps = (number * 10**power for power in itertools.count() for number in (1, 2, 5))
    return int(next(step for step in steps if largest <= 5 * step))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Best scores over two keys; other keys may vary within a cell."""

    x_key: str
    y_key: str | None  # None: one row
    x_values: tuple[str, ...]  # ascending, as shown
    y_values: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]  # [y][x]; None if no job ran


def best_scores(rows: Sequence[Mapping[str, Any]], x_key: str, y_key: str | None) -> HeatMap:
    """Return the best ``competition_map`` of the jobs at each pair of two overrides' values."""
    x_values, y_values = (
        tuple(map(_shown, _ordered([None if key is None else row[key] for row in rows])))
        for key in (x_key, y_key)
    )
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        cell = _shown(row[x_key]), _shown(None if y_key is None else row[y_key])
        best[cell] = max(best.get(cell, 0.0), row["competition_map"])
    scores = tuple(tuple(best.get((x, y)) for x in x_values) for y in y_values)
    return HeatMap(x_key, y_key, x_values, y_values, scores)


def heat_map(data: HeatMap) -> Markup:
    """Draw scores as cells, the better the darker; the best cell is framed."""
    known = [score for line in data.scores for score in line if score is not None]
    low, high = min(known), max(known)
    left = 12 + _CHARACTER * max(len(value) for value in data.y_values) if data.y_key else 8
    width = left + _CELL_WIDTH * len(data.x_values) + 8
    bottom = _MAP_TOP + _CELL_HEIGHT * len(data.y_values)
    height = bottom + _MAP_BOTTOM
    parts: list[Markup] = []
    frame = Markup("")
    for row, line in enumerate(data.scores):
        y = _MAP_TOP + _CELL_HEIGHT * row
        if data.y_key:
            parts.append(_text(left - 8, y + 22, data.y_values[row], "end"))
        for column, score in enumerate(line):
            x = left + _CELL_WIDTH * column
            place = (round(x + 1, 2), y + 1, _CELL_WIDTH - 2, _CELL_HEIGHT - 2)
            if score is None:
                parts.append(_rect("empty", place, "no job", 3))
                continue
            share = 1.0 if high == low else (score - low) / (high - low)
            at = f"{data.x_key}={data.x_values[column]}"
            at += f", {data.y_key}={data.y_values[row]}" if data.y_key else ""
            opacity = round(_PALEST + (1 - _PALEST) * share, 3)
            parts.append(_rect("cell", place, f"{at}: {score:.5f}", 3, opacity))
            parts.append(_text(x + _CELL_WIDTH / 2, y + 22, f"{score:.4f}", "middle", "value"))
            if score == high and not frame:
                frame = _rect("best", place, f"best: {at}", 3)
    parts.append(frame)
    for column, value in enumerate(data.x_values):
        parts.append(_text(left + _CELL_WIDTH * (column + 0.5), bottom + 16, value, "middle"))
    parts.append(_name(data.x_key, (left + width) / 2, bottom + 36))
    label = f"Best score by {data.x_key}" + (f" and {data.y_key}" if data.y_key else "")
    return _svg(parts, label, (round(width, 1), height), shown_px=round(1.6 * width))


def gain_chart(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the gain from fixing each type of error, given the rows of ``error_section``."""
    top = max(0.01, *(row["high"] for row in rows))
    x = _Axis(0, top, _GAIN_LEFT, WIDTH - _GAIN_RIGHT)
    bottom = _GAIN_TOP + _GAIN_ROW * len(rows)
    parts: list[Markup] = []
    magnitude = 10.0 ** np.floor(np.log10(top))
    step = next(m * magnitude for m in (0.2, 0.5, 1.0, 2.0) if top / (m * magnitude) <= 5)
    for tick in (round(step * number, 6) for number in range(int(top / step) + 1)):
        parts.append(_line("grid", (x(tick), x(tick)), (_GAIN_TOP, bottom)))
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}", "middle"))
    for number, row in enumerate(rows):
        y = _GAIN_TOP + _GAIN_ROW * number
        parts.append(_text(_GAIN_LEFT - 8, y + 19, row["kind"], "end"))
        low, gain, high = (x(max(0.0, row[end])) for end in ("low", "gain", "high"))
        place = (_GAIN_LEFT, y + 6, round(gain - _GAIN_LEFT, 2), _GAIN_ROW - 12)
        title = f"{row['kind']}: {row['gain']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        bar = _rect("bar part" if row["is_band"] else "bar", place, title)
        whole = (_GAIN_LEFT, y + 2, WIDTH - _GAIN_RIGHT - _GAIN_LEFT, _GAIN_ROW - 4)
        fragment = f"error={quote(row['error'])}"
        parts.append(_link(fragment, title, bar + _rect("hit", whole, title)))
        parts.append(_line("whisker", (low, high), (y + _GAIN_ROW / 2, y + _GAIN_ROW / 2)))
        parts.append(_text(high + 6, y + 19, f"{row['gain']:.3f}", "start", "value"))
    parts.append(_name("gain", (_GAIN_LEFT + WIDTH - _GAIN_RIGHT) / 2, bottom + 36))
    return _svg(
        parts, "Gain of the score by type of error", (WIDTH, bottom + _GAIN_BOTTOM), is_group=True
    )


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Return each value once: null, then numbers ascending, then texts and lists."""

    def rank(value: Any) -> tuple[int, float, str]:
        if value is None:
            return 0, 0.0, ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return 1, float(value), ""
        return 2, 0.0, json.dumps(value)

    return sorted({json.dumps(value): value for value in values}.values(), key=rank)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _line(kind: str, xs: tuple[float, float], ys: tuple[float, float]) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, *xs, *ys)


def _rect(
    kind: str, place: tuple[float, ...], title: str, radius: float = 1.5, opacity: float = -1
) -> Markup:
    """Return a rectangle at ``place``: x, y, width and height in px; opacity -1: the style's."""
    shade = "" if opacity < 0 else Markup(' fill-opacity="{}"').format(opacity)
    return Markup(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="{}"{}><title>{}</title></rect>'
    ).format(kind, *place, radius, shade, title)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, round(x, 2), round(y, 2), anchor, text
    )


def _link(fragment: str, label: str, content: Markup) -> Markup:
    """Return a link to the page's images that ``fragment`` chooses."""
    return Markup('<a href="#{}" aria-label="{}">{}</a>').format(fragment, label, content)


def _svg(
    parts: list[Markup],
    label: str,
    size_wh: tuple[float, float] = (WIDTH, HEIGHT),
    *,
    shown_px: int | None = None,
    is_group: bool = False,
) -> Markup:
    """Return the drawing.

    Args:
        shown_px: Largest width on the page; None: as wide as there is room.
        is_group: Whether it has links, which a drawing with the role ``img`` would hide.
    """
    kind = Markup("chart") if shown_px is None else Markup('chart map" width="{}').format(shown_px)
    role = "group" if is_group else "img"
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="{}" aria-label="{}">{}</svg>').format(
        kind, *size_wh, role, label, Markup("").join(parts)
    )
