"""The report's section on errors: what each kind costs, in all, by class and by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from src.annotations.categories import LabelDescriptions
from src.metrics.errors import BANDS, GROUPS, KINDS, POOR_MASK, SIZES, ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.metrics.matching import split_key

SHOWN_CLASSES = 20
_WIDTH, _ROW = 460, 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 140, 46, 6, 40


def error_section(
    errors: ErrorReport, interval: Interval, labels: LabelDescriptions
) -> dict[str, Any]:
    """What the template shows.

    Args:
        errors: of the images.
        interval: of their score; gains get one of the same coverage.
        labels: names of the classes.
    """
    kinds = [*KINDS[: -len(BANDS)], POOR_MASK, *BANDS]
    bands = bootstrap_bands(
        np.stack([errors.gains[kind] for kind in kinds], axis=1),
        resamples=interval.resamples,
        confidence=interval.confidence,
    )
    rows = [
        {
            "kind": kind.removeprefix(f"{POOR_MASK}, "),
            "is_band": kind in BANDS,
            "count": errors.counts[kind],
            "gain": errors.gain(kind),
            "low": low,
            "high": high,
        }
        for kind, (low, high) in zip(kinds, bands.tolist(), strict=True)
    ]
    by_class = sorted(errors.by_class.items(), key=lambda item: -sum(item[1].values()))
    names = labels.category_names
    return {
        "rows": rows,
        "chart": gain_chart(rows),
        "groups": GROUPS,
        "by_class": _gain_rows(
            [
                (f"{split_key(key)[0]}", names[split_key(key)[0]], split_key(key)[1], gains)
                for key, gains in by_class[:SHOWN_CLASSES]
            ]
        ),
        "more_classes": max(0, len(by_class) - SHOWN_CLASSES),
        "by_size": _gain_rows([("", name, (), errors.by_size[name]) for name, _ in SIZES]),
    }


def gain_chart(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw what putting each kind right would give, with its interval.

    Args:
        rows: of ``error_section``: kind, count, gain, low and high.
    """
    top = max(0.01, *(row["high"] for row in rows))
    scale = (_WIDTH - _LEFT - _RIGHT) / top
    bottom = _TOP + _ROW * len(rows)
    parts: list[Markup] = []
    for tick in _ticks(top):
        x = round(_LEFT + scale * tick, 2)
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                x, _TOP, bottom
            )
        )
        parts.append(_text(x, bottom + 18, f"{tick:g}", "middle", "tick"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        parts.append(_text(_LEFT - 8, y + 19, row["kind"], "end", "tick"))
        shown = f"{row['kind']}: {row['gain']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        parts.append(
            Markup(
                '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1.5">'
                "<title>{}</title></rect>"
            ).format(
                "bar part" if row["is_band"] else "bar",
                _LEFT,
                y + 6,
                round(scale * max(0.0, row["gain"]), 2),
                _ROW - 12,
                shown,
            )
        )
        low, high = (round(_LEFT + scale * max(0.0, row[end]), 2) for end in ("low", "high"))
        parts.append(
            Markup('<line class="whisker" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
                low, high, y + _ROW / 2
            )
        )
        parts.append(_text(high + 6, y + 19, f"{row['gain']:.3f}", "start", "value"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "gain", "middle", "name"))
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, bottom + _BOTTOM, "Gain of the score by kind of error", Markup("").join(parts))


def _gain_rows(
    named: Sequence[tuple[str, str, Sequence[int], Mapping[str, float]]],
) -> list[dict[str, Any]]:
    """Rows of a table: the larger a gain beside the largest of all, the darker its cell."""
    largest = max([gain for *_, gains in named for gain in gains.values()], default=0.0)
    return [
        {
            "id": number,
            "name": name,
            "attributes": ", ".join(map(str, attributes)),
            "cells": [
                (gains[group], max(0.0, gains[group] / largest) if largest > 0 else 0.0)
                for group in GROUPS
            ],
        }
        for number, name, attributes, gains in named
    ]


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to ``top``, at most six."""
    magnitude = 10.0 ** np.floor(np.log10(top))
    step = next(m * magnitude for m in (0.2, 0.5, 1.0, 2.0) if top / (m * magnitude) <= 5)
    return [round(step * number, 6) for number in range(int(top / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, round(x, 2), round(y, 2), anchor, text
    )
