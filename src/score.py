"""Score a submission: ``python -m src.score submission=submission.csv annotations=train.csv``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import Progress

from src.cli.entry_point import entry_point
from src.cli.scores import score_summary, score_tables
from src.console import PlainConsole
from src.datamodules.split import read_split
from src.io import check_writable
from src.metrics.competition import check_averaging
from src.metrics.intervals import bootstrap_interval, check_settings
from src.metrics.scoring import compare, open_submission, open_truth, score_comparison, write_scores
from src.tuning.sweeps import job_file


@entry_point("score")
def main(config: DictConfig) -> None:
    """Hydra's task: score, show the tables, end with one line of JSON."""
    check_averaging(config.averaging)
    check_settings(num_resamples=config.num_resamples, confidence=config.confidence)
    if config.output is not None:
        check_writable(config.output)
    split = None if config.split is None else read_split(Path(config.split))
    with (
        Progress(console=PlainConsole(stderr=True), transient=True) as progress,
        open_truth(
            config.annotations,
            use_attributes=config.use_attributes,
            images_directory=config.images,
            exif=config.exif,
            duplicates=config.duplicates,
            label_descriptions=config.label_descriptions,
            cache_dir=config.cache_dir,
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
        num_resamples=config.num_resamples,
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
