"""Report pages: of one result, and of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from src.annotations.categories import LabelDescriptions
from src.errors import InputError
from src.io import write_text
from src.metrics.competition import THRESHOLDS, CompetitionScore, split_key
from src.metrics.errors import BANDS, GROUPS, KINDS, POOR_MASK, SIZES, ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.reporting.charts import (
    best_scores,
    heat_map,
    interval_bar,
    score_histogram,
    threshold_curve,
)
from src.reporting.drawing import css_colour, draw_objects
from src.reporting.examples import Example, jpeg_data_uri
from src.tuning.sweeps import TABLE_NAMES, SweepResults

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
        num_resamples=interval.resamples,
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


@dataclass(frozen=True)
class Report:
    """Everything the page shows."""

    title: str
    score: CompetitionScore
    errors: ErrorReport
    interval: Interval
    labels: LabelDescriptions
    notes: Sequence[str]  # what a reader of the score should know, a sentence each
    settings: Sequence[tuple[str, str]]  # (what, value), as the reader should see them
    worst: Sequence[Example]
    best: Sequence[Example]


def render(report: Report) -> str:
    """Return the page as HTML: styles, figures and images are in it, nothing is fetched.

    Every text is escaped, and the page's own policy forbids scripts and connections.
    """
    score, interval = report.score, report.interval
    bands = bootstrap_bands(
        score.values, num_resamples=interval.resamples, confidence=interval.confidence
    )
    missing = [
        (example.image_id, example.image_problem)
        for example in (*report.worst, *report.best)
        if example.image_problem
    ]
    return template("report.html").render(
        title=report.title,
        score=score,
        interval=interval,
        interval_bar=interval_bar(interval.low, interval.estimate, interval.high),
        settings=report.settings,
        notes=report.notes,
        missing_images=missing,
        curve=threshold_curve(THRESHOLDS, score.per_threshold, bands),
        histogram=score_histogram(score.per_image),
        errors=error_section(report.errors, interval, report.labels),
        classes=_class_rows(report),
        totals=_totals(score),
        example_groups=[
            ("Worst images", "lowest score first", [_card(example) for example in report.worst]),
            ("Best images", "highest score first", [_card(example) for example in report.best]),
        ],
    )


def template(name: str) -> Template:
    """A page's template; every text that it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("src.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_page(html: str, path: str | Path) -> None:
    """Write a page whole or not at all."""
    write_text(path, html)


def write_report(report: Report, path: str | Path) -> None:
    """Write the page whole or not at all."""
    write_page(render(report), path)


def _class_rows(report: Report) -> list[dict[str, Any]]:
    names = report.labels.category_names
    rows = []
    for key, result in report.score.classes.items():
        category, attributes = split_key(key)
        rows.append(
            {
                "id": category,
                "name": names[category],
                "attributes": ", ".join(map(str, attributes)),
                "truth": result.truth_objects,
                "predicted": result.predicted_objects,
                "share": result.images / report.score.images,
                "value": result.value,
            }
        )
    return sorted(rows, key=lambda row: -row["truth"])


def _totals(score: CompetitionScore) -> dict[str, int]:
    return {
        "truth": sum(result.truth_objects for result in score.classes.values()),
        "predicted": sum(result.predicted_objects for result in score.classes.values()),
    }


def _card(example: Example) -> dict[str, Any]:
    drawn = example.drawn
    images = [
        ("image" if example.image_problem is None else "no image", example.image),
        (_count(len(drawn.truth), "true object"), draw_objects(example.image, drawn.truth)),
        (
            f"{_count(len(drawn.prediction), 'predicted object')}, {drawn.matched} matched",
            draw_objects(example.image, drawn.prediction),
        ),
    ]
    height, width = example.image.shape[:2]
    return {
        "image_id": example.image_id,
        "score": example.score,
        "height": height,
        "width": width,
        "images": [(caption, jpeg_data_uri(image)) for caption, image in images],
        "classes": [
            {
                "colour": css_colour(entry.colour),
                "name": entry.name,
                "attributes": ", ".join(map(str, entry.attributes)),
                "truth": entry.truth_objects,
                "predicted": entry.predicted_objects,
                "value": entry.value,
            }
            for entry in drawn.classes
        ],
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


SHOWN_JOBS = 25


def render_sweep(results: SweepResults, *, title: str, directory: str) -> str:
    """Return the page as HTML; everything is in it, nothing is fetched.

    Args:
        results: Jobs of a sweep.
        title: The heading.
        directory: Where the sweep lies, as the reader should see it.

    Raises:
        InputError: no job has a score.
    """
    rows = [row for row in results.rows if row["competition_map"] is not None]
    if not rows:
        raise InputError(
            f"{directory}: none of its {len(results.rows)} jobs has a score; "
            "give the sweep annotations=..."
        )
    scored = SweepResults(results.overrides, tuple(rows))
    best, swept = rows[0], scored.swept
    pairs: list[tuple[str, str | None]] = list(combinations(swept, 2))
    if len(swept) == 1:
        pairs = [(swept[0], None)]
    figures = [_figure(rows, x_key, y_key, swept) for x_key, y_key in pairs]
    fixed = [key for key in scored.overrides if key not in swept]
    return template("sweep.html").render(
        title=title,
        best=best,
        has_interval=_has_interval(best),
        interval_bar=(
            interval_bar(best["low"], best["competition_map"], best["high"])
            if _has_interval(best)
            else ""
        ),
        settings=[(_short(key), best[key]) for key in (*swept, *fixed)],
        directory=directory,
        tables=", ".join(TABLE_NAMES),
        jobs=len(results.rows),
        unscored=len(results.rows) - len(rows),
        not_worse=(
            sum(row["competition_map"] >= best["low"] for row in rows[1:])
            if _has_interval(best)
            else None
        ),
        columns=[_short(key) for key in swept],
        rows=[
            {
                "values": [row[key] for key in swept],
                "score": row["competition_map"],
                "interval": (
                    f"{row['low']:.4f} to {row['high']:.4f}" if _has_interval(row) else ""
                ),
                "objects": row.get("objects"),
            }
            for row in rows[:SHOWN_JOBS]
        ],
        figures=figures,
    )


def _figure(
    rows: list[Any], x_key: str, y_key: str | None, swept: tuple[str, ...]
) -> dict[str, Any]:
    others = [_short(key) for key in swept if key not in (x_key, y_key)]
    heading = _short(x_key) if y_key is None else f"{_short(y_key)} by {_short(x_key)}"
    return {
        "heading": heading,
        "image": heat_map(best_scores(rows, x_key, y_key)),
        "caption": f"Each cell is the best over {', '.join(others)}." if others else "",
    }


def _has_interval(row: Mapping[str, Any]) -> bool:
    """Whether a job has the interval of its score: a training's has none."""
    return row.get("low") is not None and row.get("high") is not None


def _short(key: str) -> str:
    return key.removeprefix("postprocess.")
