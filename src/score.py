"""Score a submission: ``python -m src.score submission=submission.csv ground_truth=train.csv``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Group, RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from src.annotations.categories import LabelDescriptions
from src.config import entry_point
from src.datamodules.split_file import read_split
from src.io import check_writable
from src.metrics.competition import CompetitionScore, check_averaging
from src.metrics.inputs import class_key_name, class_key_text
from src.metrics.intervals import Interval, bootstrap_interval, check_settings
from src.metrics.matching import THRESHOLDS
from src.metrics.score_file import write_scores
from src.metrics.scoring import compare, open_submission, open_truth, score_comparison
from src.terminal import PlainConsole
from src.tuning.sweep_results import job_file


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


@entry_point("score")
def main(config: DictConfig) -> None:
    """Hydra's task: score, show the tables, end with one line of JSON."""
    check_averaging(config.averaging)
    check_settings(resamples=config.resamples, confidence=config.confidence)
    if config.output is not None:
        check_writable(config.output)
    split = None if config.split is None else read_split(Path(config.split))
    with (
        Progress(console=PlainConsole(stderr=True), transient=True) as progress,
        open_truth(
            config.ground_truth,
            use_attributes=config.use_attributes,
            images_directory=config.images,
            exif=config.exif,
            duplicates=config.duplicates,
            label_descriptions=config.label_descriptions,
            cache_directory=config.cache_directory,
            progress=progress,
        ) as truth,
        open_submission(
            job_file(config.submission, "submission.csv"), truth, progress=progress
        ) as prediction,
    ):
        comparison = compare(
            truth,
            prediction,
            prediction_name=config.submission,
            image_ids=None if split is None else split.validation,
        )
        score = score_comparison(comparison, averaging=config.averaging, progress=progress)
        labels, notes = comparison.labels, comparison.notes
    interval = bootstrap_interval(
        score.per_image,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    PlainConsole(file=sys.stdout).print(score_tables(score, interval, labels, notes))
    summary = score_summary(score, interval, config.use_attributes)
    if config.output is not None:
        write_scores(Path(config.output), summary, score)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
