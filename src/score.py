"""Score a submission: ``python -m src.score submission=submission.csv annotations=train.csv``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig

from src.cli.entry_point import entry_point
from src.cli.scores import (
    check_metric,
    chosen_images,
    ground_truth_of,
    interval_of,
    score_summary,
    score_tables,
)
from src.console import PlainConsole, progress_bar
from src.io import check_writable
from src.metrics.scoring import compare, open_submission, score_comparison, write_scores
from src.tuning.sweeps import job_file


@entry_point("score")
def main(config: DictConfig) -> None:
    """Score a submission, show the tables, and end with one line of JSON."""
    check_metric(config)
    if config.output is not None:
        check_writable(config.output)
    image_ids, submission = chosen_images(config), job_file(config.submission, "submission.csv")
    with (
        progress_bar() as progress,
        ground_truth_of(config, progress) as ground_truth,
        open_submission(submission, ground_truth, progress=progress) as prediction,
    ):
        comparison = compare(
            ground_truth, prediction, prediction_name=config.submission, image_ids=image_ids
        )
        score = score_comparison(comparison, averaging=config.averaging, progress=progress)
        labels, notes = comparison.labels, comparison.notes
    interval = interval_of(score.per_image, config)
    PlainConsole(file=sys.stdout).print(score_tables(score, interval, labels, notes))
    summary = score_summary(score, interval, config.use_attributes)
    if config.output is not None:
        write_scores(Path(config.output), summary, score)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
