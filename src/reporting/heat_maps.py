"""The scores of a sweep over two of its keys, as inline SVG in the page's own colours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

_CELL_WIDTH, _CELL_HEIGHT = 64, 34
_CHARACTER = 6.6  # width of one in the tick labels, nearly
_PALEST = 0.08  # opacity of the lowest score
_TOP, _BOTTOM = 8, 44


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Best scores over two keys; others may vary within a cell."""

    x_key: str
    y_key: str | None  # None: one row
    x_values: tuple[str, ...]  # ascending, as they are shown
    y_values: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]  # [y][x]; None where no job ran


def best_scores(rows: Sequence[Mapping[str, Any]], x_key: str, y_key: str | None) -> HeatMap:
    """The best score of the jobs at each pair of values.

    Args:
        rows: Jobs with their overrides and ``competition_map``.
        x_key: An override.
        y_key: Another one; None where there is no other.
    """
    x_values = _ordered([row[x_key] for row in rows])
    y_values = [None] if y_key is None else _ordered([row[y_key] for row in rows])
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        cell = _shown(row[x_key]), _shown(None if y_key is None else row[y_key])
        best[cell] = max(best.get(cell, 0.0), row["competition_map"])
    return HeatMap(
        x_key=x_key,
        y_key=y_key,
        x_values=tuple(map(_shown, x_values)),
        y_values=tuple(map(_shown, y_values)),
        scores=tuple(tuple(best.get((_shown(x), _shown(y))) for x in x_values) for y in y_values),
    )


def heat_map(data: HeatMap) -> Markup:
    """Draw it: the darker, the better; the best cell is framed."""
    known = [score for line in data.scores for score in line if score is not None]
    low, high = min(known), max(known)
    left = 12 + _CHARACTER * max(len(value) for value in data.y_values) if data.y_key else 8
    width = left + _CELL_WIDTH * len(data.x_values) + 8
    bottom = _TOP + _CELL_HEIGHT * len(data.y_values)
    height = bottom + _BOTTOM
    parts: list[Markup] = []
    frame = Markup("")
    for row, line in enumerate(data.scores):
        y = _TOP + _CELL_HEIGHT * row
        if data.y_key:
            parts.append(_text(left - 8, y + 22, data.y_values[row], "end"))
        for column, score in enumerate(line):
            x = left + _CELL_WIDTH * column
            place = (round(x + 1, 2), y + 1, _CELL_WIDTH - 2, _CELL_HEIGHT - 2)
            if score is None:
                parts.append(_rect("empty", place, "no job", 1))
                continue
            share = 1.0 if high == low else (score - low) / (high - low)
            at = f"{data.x_key}={data.x_values[column]}"
            at += f", {data.y_key}={data.y_values[row]}" if data.y_key else ""
            opacity = round(_PALEST + (1 - _PALEST) * share, 3)
            parts.append(_rect("cell", place, f"{at}: {score:.5f}", opacity))
            parts.append(_text(x + _CELL_WIDTH / 2, y + 22, f"{score:.4f}", "middle", "value"))
            if score == high and not frame:
                frame = _rect("best", place, f"best: {at}", 1)
    parts.append(frame)
    for column, value in enumerate(data.x_values):
        parts.append(_text(left + _CELL_WIDTH * (column + 0.5), bottom + 16, value, "middle"))
    parts.append(_text((left + width) / 2, bottom + 36, data.x_key, "middle", "name"))
    label = f"Best score by {data.x_key}" + (f" and {data.y_key}" if data.y_key else "")
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" style="max-width: {}px" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(round(width, 1), height, round(1.6 * width), label, Markup("").join(parts))


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: null, then numbers ascending, then texts and lists."""
    once = list({json.dumps(value): value for value in values}.values())
    return sorted(
        once,
        key=lambda value: (
            (0, 0.0, "")
            if value is None
            else (1, float(value), "")
            if isinstance(value, int | float) and not isinstance(value, bool)
            else (2, 0.0, json.dumps(value))
        ),
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _rect(kind: str, place: tuple[float, ...], title: str, opacity: float) -> Markup:
    return Markup(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="3" fill-opacity="{}">'
        "<title>{}</title></rect>"
    ).format(kind, *place, opacity, title)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, round(x, 2), round(y, 2), anchor, text
    )
