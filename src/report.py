"""Write a report: ``python -m src.report submission=a.csv annotations=train.csv images=train``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import Progress

from src.cli.entry_point import entry_point, to_plain
from src.cli.scores import check_metric, chosen_images, ground_truth_of, interval_of, open_stored
from src.console import PlainConsole, progress_bar
from src.errors import InputError
from src.io import check_writable, write_text
from src.metrics.competition import ImageInstances
from src.metrics.errors import ErrorAccumulator
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import compare, open_submission, score_comparison
from src.postprocess.settings import SEARCHED_KEY, plain_settings
from src.reporting.page import (
    Report,
    choose_examples,
    load_examples,
    render_sweep,
    write_drawings,
    write_report,
)
from src.tuning.evaluated_image import StoredDetections
from src.tuning.search_results import find_in_sample, read_beside
from src.tuning.sweeps import describe_score, job_file, read_results
from src.validation import Count, check_values, shown


def run_settings(config: DictConfig) -> list[tuple[str, str]]:
    """Return labels and texts of the settings, for the page."""
    settings = []
    if config.submission is not None:
        settings.append(("Submission", config.submission))
    else:
        rules = ", ".join(
            f"{key} {value}" for key, value in config.postprocess.items() if key != SEARCHED_KEY
        )
        settings += [("Predictions", config.predictions), ("Post-processing", rules)]
    settings.append(("Ground truth", config.annotations))
    if config.images is not None:
        settings.append(("Images", config.images))
    if config.split is not None:
        settings.append(("Images", f"validation part of {config.split}"))
    classes = "category and attributes" if config.use_attributes else "category"
    return [*settings, ("Averaging", config.averaging), ("Classes", classes)]


def check_config(config: DictConfig) -> None:
    """Check the configuration before anything is read."""
    if config.annotations is None:
        raise InputError(
            "annotations must be the ground truth, got null; sweep= stands in place of everything"
        )
    if (config.submission is None) == (config.predictions is None):
        raise InputError(
            "one of submission and predictions must be given, got "
            f"submission={shown(config.submission)} predictions={shown(config.predictions)}"
        )
    plain_settings(to_plain(config.postprocess))
    check_metric(config)
    check_values({"num_worst": Count, "num_best": Count}, config)
    if config.images is not None and not Path(config.images).is_dir():
        raise InputError(f"images must be a folder, got {config.images}: no such folder")


@contextlib.contextmanager
def open_predictions(
    config: DictConfig, ground_truth: RasterInstances, progress: Progress
) -> Iterator[Mapping[str, ImageInstances]]:
    """Open the submission, or the prediction store under ``postprocess``."""
    if config.submission is not None:
        path = job_file(config.submission, "submission.csv")
        with open_submission(path, ground_truth, progress=progress) as submission:
            yield submission
    else:
        predictions = config.predictions
        yield open_stored(config, ground_truth, predictions=predictions, postprocess="postprocess")


def make_report(config: DictConfig, progress: Progress) -> Report:
    """Score, choose the images and draw them."""
    image_ids = chosen_images(config)
    with (
        ground_truth_of(config, progress) as ground_truth,
        open_predictions(config, ground_truth, progress) as prediction,
    ):
        if config.submission is None and image_ids is None:  # as postprocess and search do
            image_ids = tuple(one for one in ground_truth if one in prediction) or None
        comparison = compare(
            ground_truth,
            prediction,
            prediction_name=config.submission or config.predictions,
            image_ids=image_ids,
        )
        errors = ErrorAccumulator(averaging=config.averaging)
        score = score_comparison(
            comparison, averaging=config.averaging, progress=progress, errors=errors
        )
        worst, best = (
            load_examples(comparison, chosen, config.images)
            for chosen in choose_examples(score, worst=config.num_worst, best=config.num_best)
        )
        return Report(
            title=config.title,
            score=score,
            errors=errors.result(),
            interval=interval_of(score.per_image, config),
            labels=comparison.labels,
            notes=(
                *comparison.notes,
                *(prediction.step_warnings if isinstance(prediction, StoredDetections) else ()),
                *in_sample_notes(config, ground_truth, score.image_ids),
            ),
            settings=run_settings(config),
            worst=worst,
            best=best,
        )


def in_sample_notes(
    config: DictConfig, ground_truth: RasterInstances, image_ids: Sequence[str]
) -> list[str]:
    """Return a sentence if the settings were searched on images of the report."""
    found = (
        find_in_sample(to_plain(config.postprocess), ground_truth, image_ids, where="postprocess")
        if config.submission is None
        else read_beside(job_file(config.submission, "submission.csv"))
    )
    sentence = "" if found is None else found.sentence("the settings", image_ids)
    return [sentence] if sentence else []


def report_sweep(config: DictConfig) -> None:
    """Write the page of a sweep.

    Raises:
        InputError: The folder holds no sweep, or a submission or predictions are given as well.
    """
    for key in ("submission", "predictions"):
        if config[key] is not None:
            raise InputError(
                f"one of sweep and {key} must be given, got sweep={config.sweep_dir} "
                f"{key}={config[key]}"
            )
    results = read_results(config.sweep_dir)
    page = render_sweep(results, title=config.title, directory=config.sweep_dir)
    write_text(config.output, page)
    best = results.rows[0]
    print(
        f"wrote {config.output}: best of {len(results.rows)} jobs {describe_score(best)}, "
        f"{best['folder']}"
    )


@entry_point("report", renamed={"sweep": "sweep_dir"})
def main(config: DictConfig) -> None:
    """Make the report, and write the page and the drawings."""
    check_writable(config.output)
    if config.sweep_dir is not None:
        report_sweep(config)
        return
    check_config(config)
    if config.drawings_dir is not None:
        check_writable(Path(config.drawings_dir) / "drawing.jpg")
    with progress_bar() as progress:
        report = make_report(config, progress)
    write_report(report, config.output)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    examples = [*report.worst, *report.best]
    if missing := sum(example.image_problem is not None for example in examples):
        text = f"{missing} of {len(examples)} images could not be read in images={config.images}"
        console.print(text, style="yellow")
    if config.drawings_dir is not None:
        files = write_drawings(examples, config.drawings_dir)
        console.print(f"wrote {len(files)} drawings to {config.drawings_dir}")
    size_mb = Path(config.output).stat().st_size / 1e6
    console.print(
        f"wrote {config.output} ({size_mb:.1f} MB): score {report.score.competition_map:.4f} "
        f"({report.score.averaging}, {report.score.images} images)"
    )


if __name__ == "__main__":
    main()
