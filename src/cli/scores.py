"""Scores as the commands show them: tables for a terminal, and one line of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from src.annotations.categories import LabelDescriptions
from src.metrics.competition import THRESHOLDS, CompetitionScore
from src.metrics.inputs import class_key_name, class_key_text
from src.metrics.intervals import Interval


def score_summary(
    score: CompetitionScore, interval: Interval, use_attributes: bool
) -> dict[str, Any]:
    """Return the result as JSON takes it: numbers, lists, and classes by their ``ClassId``."""
    return {
        "competition_map": score.competition_map,
        "averaging": score.averaging,
        "use_attributes": use_attributes,
        "images": score.images,
        "interval": {
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "resamples": interval.resamples,
        },
        "thresholds": list(THRESHOLDS),
        "per_threshold": score.per_threshold.tolist(),
        "per_class": {class_key_text(key): value for key, value in score.per_class.items()},
    }


def score_tables(
    score: CompetitionScore,
    interval: Interval,
    labels: LabelDescriptions,
    notes: Sequence[str],
) -> RenderableType:
    """Lay out the result for a terminal."""
    classes = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    classes.add_column("class")
    for heading in ("images", "true", "predicted", "value"):
        classes.add_column(heading, justify="right")
    ordered = sorted(score.classes.items(), key=lambda item: -item[1].truth_objects)
    for key, result in ordered:
        classes.add_row(
            Text(class_key_name(key, labels)),
            str(result.images),
            str(result.truth_objects),
            str(result.predicted_objects),
            f"{result.value:.4f}",
        )
    thresholds = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for threshold in THRESHOLDS:
        thresholds.add_column(f"{threshold:.2f}", justify="right")
    thresholds.add_row(*(f"{value:.4f}" for value in score.per_threshold))
    headline = Text.assemble(
        ("competition score ", ""),
        (f"{score.competition_map:.5f}", "bold"),
        f"  ({score.averaging}, {score.images} images, "
        f"{interval.confidence:.0%} interval {interval.low:.4f} to {interval.high:.4f})",
    )
    parts: list[RenderableType] = [classes, "", Text("by IoU threshold", "dim"), thresholds, ""]
    parts += [Text(f"note: {note}", "yellow") for note in notes]
    return Group(*parts, headline)
