"""Report pages: of a scored result, and of predictions without ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.annotations.categories import LabelDescriptions
from src.io import write_text
from src.metrics.competition import ClassKey, CompetitionScore, split_key
from src.metrics.errors import BANDS, GROUPS, KINDS, POOR_MASK, SIZES, ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.reporting import charts
from src.reporting.confusion import confusion_section
from src.reporting.examples import Example, describe_cards
from src.reporting.gallery import NONE, Gallery
from src.reporting.palette import category_colour
from src.reporting.template import template
from src.reporting.thumbnails import Drawings, json_for_page

SHOWN_CLASSES = 20
Names = Mapping[int, str]


def error_section(errors: ErrorReport, interval: Interval, names: Names) -> dict[str, Any]:
    """Return the values of the template's section on errors, gains with intervals."""
    kinds = [*KINDS[: -len(BANDS)], POOR_MASK, *BANDS]
    bands = _bands(np.stack([errors.gains[kind] for kind in kinds], axis=1), interval)
    rows = [
        {
            "error": kind,
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
    shown = [(*split_key(key), gains) for key, gains in by_class[:SHOWN_CLASSES]]
    named = [(str(number), names[number], attributes, gains) for number, attributes, gains in shown]
    return {
        "rows": rows,
        "chart": charts.gain_chart(rows),
        "groups": GROUPS,
        "by_class": _gain_rows(named),
        "more_classes": max(0, len(by_class) - SHOWN_CLASSES),
        "by_size": _gain_rows([("", name, (), errors.by_size[name]) for name, _ in SIZES]),
    }


def _gain_rows(
    named: Sequence[tuple[str, str, Sequence[int], Mapping[str, float]]],
) -> list[dict[str, Any]]:
    """Return the rows of a table; the larger a cell's gain, the darker it is."""
    largest = max([gain for *_, gains in named for gain in gains.values()], default=0.0)
    return [
        {
            "id": number,
            "name": name,
            "attributes": attributes,
            "colour": None if not number else category_colour(int(number)),
            "cells": [
                (gains[group], max(0.0, gains[group] / largest) if largest > 0 else 0.0)
                for group in GROUPS
            ],
        }
        for number, name, attributes, gains in named
    ]


@dataclass(frozen=True)
class Report:
    """Content of the page of a scored result."""

    title: str
    score: CompetitionScore
    errors: ErrorReport
    interval: Interval
    labels: LabelDescriptions
    notes: Sequence[str]  # sentences about the score
    settings: Sequence[tuple[str, str]]  # (name, value) as shown
    gallery: Gallery
    drawings: Drawings
    worst: Sequence[Example]
    best: Sequence[Example]

    @property
    def examples(self) -> list[Example]:
        """The images that are drawn whole."""
        return [*self.worst, *self.best]


@dataclass(frozen=True)
class PredictionReport:
    """Content of the page of predictions without ground truth."""

    title: str
    names: Names
    notes: Sequence[str]
    settings: Sequence[tuple[str, str]]
    gallery: Gallery
    drawings: Drawings
    examples: Sequence[Example]


def render(report: Report | PredictionReport) -> str:
    """Return the page as HTML with styles, script, figures and images inline; it fetches nothing.

    Every text is escaped, and the page's own policy allows its one script by its hash, and no
    connection.
    """
    if isinstance(report, PredictionReport):
        return _render_predictions(report)
    score, interval, names = report.score, report.interval, report.labels.category_names
    bands = _bands(score.values, interval)
    classes = sorted(score.classes.items(), key=lambda item: -item[1].num_ground_truth)
    scores = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
    return template("report.html", has_script=True).render(
        _image_values(report, scores),
        title=report.title,
        score=score,
        interval=interval,
        notes=report.notes,
        settings=report.settings,
        interval_bar=charts.interval_bar(interval.low, interval.estimate, interval.high),
        curve=charts.threshold_curve(score.rule.thresholds, score.per_threshold, bands),
        histogram=charts.share_histogram(
            score.per_image, axis="score of an image", noun="images", key="score"
        ),
        errors=error_section(report.errors, interval, names),
        confusion=confusion_section(report.gallery),
        classes=[(*split_key(key), result) for key, result in classes],
        names=names,
    )


def _render_predictions(report: PredictionReport) -> str:
    gallery = report.gallery
    counts = np.array([image.num_detections for image in gallery.images.values()])
    return template("predictions.html", has_script=True).render(
        _image_values(report, None),
        title=report.title,
        notes=report.notes,
        settings=report.settings,
        num_detections=int(counts.sum()),
        num_found=int(np.count_nonzero(counts)),
        count_chart=charts.count_histogram(counts, axis="detections of an image", noun="images"),
        confidence_chart=len(gallery.confidences)
        and charts.share_histogram(
            gallery.confidences, axis="confidence", noun="detections", key="confidence"
        ),
        categories=_category_rows(gallery, report.names),
    )


def _image_values(
    report: Report | PredictionReport, scores: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return the values of the template's section of images."""
    drawings = report.drawings
    index = report.gallery.describe(scores, drawings.place_of, drawings.problems)
    return {
        "has_truth": scores is not None,
        "index": index,
        "index_text": json_for_page(index),
        "drawings": drawings.texts,
        "limit": drawings.limit,
        "problems": drawings.problems,
        "cards": describe_cards(report.examples),
    }


def _category_rows(gallery: Gallery, names: Names) -> list[dict[str, Any]]:
    """Return the rows of the table of classes of predictions, the most frequent first."""
    detections, images = Counter[ClassKey](), Counter[ClassKey]()
    for image in gallery.images.values():
        found: Counter[ClassKey] = Counter()
        for (_, _, predicted, _), number in image.pairs.items():
            if predicted != NONE:
                found[gallery.class_keys[predicted]] += number
        detections.update(found)
        images.update(found.keys())
    rows = []
    for key, number in sorted(detections.items(), key=lambda item: (-item[1], split_key(item[0]))):
        category, attributes = split_key(key)
        rows.append(
            {
                "id": str(category),
                "name": names.get(category, str(category)),
                "attributes": attributes,
                "colour": category_colour(category),
                "num_detections": number,
                "num_images": images[key],
                "confidence": gallery.mean_confidence(key),
            }
        )
    return rows


def write_report(report: Report | PredictionReport, path: str | Path) -> None:
    """Write the page atomically."""
    write_text(path, render(report))


def _bands(values: npt.NDArray[np.float64], interval: Interval) -> npt.NDArray[np.float64]:
    """Return intervals of means over images like that of the score."""
    resamples, confidence = interval.resamples, interval.confidence
    return bootstrap_bands(values, num_resamples=resamples, confidence=confidence)
