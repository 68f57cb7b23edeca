"""The report: one HTML file that carries everything it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from src.annotations.categories import LabelDescriptions
from src.io import write_text
from src.metrics.competition import CompetitionScore
from src.metrics.errors import ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.metrics.matching import THRESHOLDS, split_key
from src.reporting.charts import interval_bar, score_histogram, threshold_curve
from src.reporting.colours import css_colour
from src.reporting.drawing import draw_objects
from src.reporting.error_section import error_section
from src.reporting.pictures import Example, jpeg_data_uri


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
    """Return the page as HTML: styles, figures and pictures are in it, nothing is fetched.

    Every text is escaped, and the page's own policy forbids scripts and connections.
    """
    score, interval = report.score, report.interval
    bands = bootstrap_bands(
        score.values, resamples=interval.resamples, confidence=interval.confidence
    )
    missing = [
        (example.image_id, example.photo_problem)
        for example in (*report.worst, *report.best)
        if example.photo_problem
    ]
    return template("report.html").render(
        title=report.title,
        score=score,
        interval=interval,
        interval_bar=interval_bar(interval.low, interval.estimate, interval.high),
        settings=report.settings,
        notes=report.notes,
        missing_photos=missing,
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
    pictures = [
        ("photo" if example.photo_problem is None else "no photo", example.photo),
        (_count(len(drawn.truth), "true object"), draw_objects(example.photo, drawn.truth)),
        (
            f"{_count(len(drawn.prediction), 'predicted object')}, {drawn.matched} matched",
            draw_objects(example.photo, drawn.prediction),
        ),
    ]
    height, width = example.photo.shape[:2]
    return {
        "image_id": example.image_id,
        "score": example.score,
        "height": height,
        "width": width,
        "pictures": [(caption, jpeg_data_uri(picture)) for caption, picture in pictures],
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
