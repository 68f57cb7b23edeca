"""Report pages: of one result, and of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from src.annotations.categories import LabelDescriptions
from src.errors import InputError
from src.io import write_text
from src.metrics.competition import THRESHOLDS, CompetitionScore, split_key
from src.metrics.errors import BANDS, GROUPS, KINDS, POOR_MASK, SIZES, ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.reporting.charts import (
    best_scores,
    gain_chart,
    heat_map,
    interval_bar,
    score_histogram,
    threshold_curve,
)
from src.reporting.drawing import css_colour, draw_instances
from src.reporting.examples import Example, jpeg_data_uri
from src.tuning.sweeps import TABLE_NAMES, SweepResults

SHOWN_CLASSES = 20


def error_section(
    errors: ErrorReport, interval: Interval, labels: LabelDescriptions
) -> dict[str, Any]:
    """Return the values of the template's section on errors; gains get intervals as the score."""
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
    shown = [(*split_key(key), gains) for key, gains in by_class[:SHOWN_CLASSES]]
    return {
        "rows": rows,
        "chart": gain_chart(rows),
        "groups": GROUPS,
        "by_class": _gain_rows(
            [(str(number), names[number], attributes, gains) for number, attributes, gains in shown]
        ),
        "more_classes": max(0, len(by_class) - SHOWN_CLASSES),
        "by_size": _gain_rows([("", name, (), errors.by_size[name]) for name, _ in SIZES]),
    }


def _gain_rows(
    named: Sequence[tuple[str, str, Sequence[int], Mapping[str, float]]],
) -> list[dict[str, Any]]:
    """Return the rows of a table whose cells are the darker, the larger their gain."""
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
        totals={
            "truth": sum(result.num_ground_truth for result in score.classes.values()),
            "predicted": sum(result.num_detections for result in score.classes.values()),
        },
        example_groups=[
            ("Worst images", "lowest score first", [_card(example) for example in report.worst]),
            ("Best images", "highest score first", [_card(example) for example in report.best]),
        ],
    )


def template(name: str) -> Template:
    """Load a page's template; every text that it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("src.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_report(report: Report, path: str | Path) -> None:
    """Write the page whole or not at all."""
    write_text(path, render(report))


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
                "truth": result.num_ground_truth,
                "predicted": result.num_detections,
                "share": result.images / report.score.images,
                "value": result.value,
            }
        )
    return sorted(rows, key=lambda row: -row["truth"])


def _card(example: Example) -> dict[str, Any]:
    drawn = example.drawn
    ground_truth = _count(len(drawn.ground_truth), "ground-truth instance")
    prediction = f"{_count(len(drawn.prediction), 'detection')}, {drawn.matched} matched"
    images = [
        ("image" if example.image_problem is None else "no image", example.image),
        (ground_truth, draw_instances(example.image, drawn.ground_truth)),
        (prediction, draw_instances(example.image, drawn.prediction)),
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
                "truth": entry.num_ground_truth,
                "predicted": entry.num_detections,
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
        directory: The sweep's folder, as the reader should see it.

    Raises:
        InputError: No job has a score.
    """
    rows = [row for row in results.rows if row["competition_map"] is not None]
    if not rows:
        raise InputError(
            f"{directory}: none of its {len(results.rows)} jobs has a score; "
            "give the sweep annotations=..."
        )
    scored = SweepResults(results.overrides, tuple(rows))
    best, swept = rows[0], scored.swept
    has_interval = _has_interval(best)
    pairs: list[tuple[str, str | None]] = list(combinations(swept, 2))
    if len(swept) == 1:
        pairs = [(swept[0], None)]
    figures = [_figure(rows, x_key, y_key, swept) for x_key, y_key in pairs]
    fixed = [key for key in scored.overrides if key not in swept]
    return template("sweep.html").render(
        title=title,
        best=best,
        has_interval=has_interval,
        interval_bar=has_interval
        and interval_bar(best["low"], best["competition_map"], best["high"]),
        settings=[(_short(key), best[key]) for key in (*swept, *fixed)],
        directory=directory,
        tables=", ".join(TABLE_NAMES),
        jobs=len(results.rows),
        unscored=len(results.rows) - len(rows),
        not_worse=has_interval and sum(row["competition_map"] >= best["low"] for row in rows[1:]),
        columns=[_short(key) for key in swept],
        rows=[
            {
                "values": [row[key] for key in swept],
                "score": row["competition_map"],
                "interval": f"{row['low']:.4f} to {row['high']:.4f}" if _has_interval(row) else "",
                "detections": row.get("num_detections"),
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
    """Return whether a job has the interval of its score: a training's has none."""
    return row.get("low") is not None and row.get("high") is not None


def _short(key: str) -> str:
    return key.removeprefix("postprocess.")
