"""Write a report: ``python -m src.report submission=a.csv annotations=train.csv images=train``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig
from pydantic import Field
from rich.progress import Progress

from src.annotations.image_names import match_ids
from src.cli.entry_point import entry_point, to_plain
from src.cli.scores import (
    check_metric,
    chosen_images,
    competition_of,
    ground_truth_of,
    interval_of,
    open_stored,
)
from src.console import PlainConsole, progress_bar, say
from src.errors import InputError
from src.io import check_writable, write_text
from src.metrics.competition import CompetitionScore, ImageInstances
from src.metrics.errors import ErrorAccumulator
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import compare, open_submission, score_comparison
from src.postprocess.category_names import CategoryNames, names_for
from src.postprocess.mask_source import check_fixed_masks
from src.postprocess.settings import SEARCHED_KEY, named_settings, plain_settings
from src.predictions.store import PredictionStore
from src.reporting.examples import Example, choose_examples, load_examples, write_drawings
from src.reporting.gallery import Gallery
from src.reporting.page import PredictionReport, Report, write_report
from src.reporting.page_images import ComparedImages, PredictedImages, open_alone
from src.reporting.sweep_page import render_sweep
from src.reporting.thumbnails import Drawings, Limits, PageImages, draw_images
from src.tuning.evaluated_image import StoredDetections
from src.tuning.search_results import find_in_sample, read_beside
from src.tuning.sweeps import describe_score, job_file, read_results
from src.validation import Count, Legal, Positive, check_values, shown

_Edge = Annotated[
    int, Field(strict=True, ge=16, le=2048), Legal("a whole number of pixels from 16 to 2048")
]


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
    if config.annotations is not None:
        settings.append(("Ground truth", config.annotations))
    if config.images is not None:
        settings.append(("Images", config.images))
    if config.split is not None:
        settings.append(("Images", f"validation part of {config.split}"))
    if config.annotations is None:
        return settings
    classes = "category and attributes" if config.use_attributes else "category"
    return [*settings, ("Averaging", config.averaging), ("Classes", classes)]


def check_config(config: DictConfig) -> None:
    """Check the configuration before anything is read."""
    if (config.submission is None) == (config.predictions is None):
        raise InputError(
            "one of submission and predictions must be given, got "
            f"submission={shown(config.submission)} predictions={shown(config.predictions)}"
        )
    plain_settings(to_plain(config.postprocess))
    check_metric(config)
    check_values(
        {"num_worst": Count, "num_best": Count, "max_images": Count}
        | {"max_size_mb": Positive, "image_px": _Edge},
        config,
    )
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
        names = comparison.labels.category_names
        errors, gallery = ErrorAccumulator(averaging=config.averaging), Gallery(names)
        score = score_comparison(
            comparison,
            averaging=config.averaging,
            progress=progress,
            errors=errors,
            on_errors=gallery.add,
        )
        images = ComparedImages(comparison)
        worst, best = (
            load_examples(images, chosen, config.images, names)
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
            gallery=gallery,
            drawings=drawings_of(
                config, _most_wanted(score, [*worst, *best]), images, gallery, progress
            ),
            worst=worst,
            best=best,
        )


def _most_wanted(score: CompetitionScore, examples: Sequence[Example]) -> list[str]:
    """Return all images: the examples, then the others from the lowest score up."""
    ranked, _ = choose_examples(score, worst=score.images, best=0)
    first = (example.image_id for example in examples)
    return list(dict.fromkeys([*first, *(image_id for image_id, _ in ranked)]))


def drawings_of(
    config: DictConfig,
    image_ids: Sequence[str],
    images: PageImages,
    gallery: Gallery,
    progress: Progress,
) -> Drawings:
    """Draw the images that the page shows, as many as its limits allow."""
    total = min(config.max_images, len(image_ids))
    return draw_images(
        progress.track(image_ids, total=total, description="drawing"),
        images,
        gallery,
        images_directory=config.images,
        limits=Limits(config.max_images, config.max_size_mb, config.image_px),
    )


@contextlib.contextmanager
def open_without_truth(
    config: DictConfig,
) -> Iterator[tuple[Mapping[str, ImageInstances], PredictedImages, CategoryNames]]:
    """Open the submission, or the prediction store under ``postprocess``, as it is."""
    competition = competition_of(config)
    if config.submission is not None:
        path = job_file(config.submission, "submission.csv")
        with open_alone(
            path,
            competition=competition,
            images_directory=config.images,
            label_descriptions=config.label_descriptions,
            exif=config.exif,
        ) as detections:
            records = {image_id: detections.record(image_id) for image_id in detections}
            directory = None if config.images is None else Path(config.images)
            names = CategoryNames(detections.store.labels.category_names, str(path))
            images = PredictedImages(detections, records, images_directory=directory)
            yield detections, images, names
        return
    store = PredictionStore(config.predictions)
    for note in store.check_whole(partial=config.partial):
        say(f"note: {note}")
    categories = names_for(store, None, "")
    settings = named_settings(to_plain(config.postprocess), categories)
    check_fixed_masks(settings, store, group="postprocess")
    stored = StoredDetections(
        store,
        settings,
        categories=categories,
        competition=competition.without_categories(),  # an image without a detection has none
        use_attributes=False,
        ids=(),
    )
    yield stored, PredictedImages(stored, store), categories


def make_prediction_report(config: DictConfig, progress: Progress) -> PredictionReport:
    """Collect the predictions of each image and draw them; there is no ground truth."""
    with open_without_truth(config) as (prediction, images, names):
        chosen = chosen_images(config)
        image_ids = sorted(prediction)
        if chosen is not None:
            wanted = set(match_ids(chosen, image_ids))
            image_ids = [image_id for image_id in image_ids if image_id in wanted]
        if not image_ids:
            raise InputError(
                f"{config.submission or config.predictions}: it has none of the images to be shown"
            )
        gallery = Gallery(names.names)
        for image_id in progress.track(image_ids, description="reading"):
            gallery.add_prediction(prediction[image_id])
        spread = image_ids[:: max(1, len(image_ids) // max(1, config.num_worst))]
        examples = [(image_id, None) for image_id in spread[: config.num_worst]]
        if isinstance(prediction, RasterInstances):
            notes = prediction.notes("detections")
        else:
            notes = prediction.step_warnings if isinstance(prediction, StoredDetections) else []
        return PredictionReport(
            title=config.title,
            names=names.names,
            notes=notes,
            settings=run_settings(config),
            gallery=gallery,
            drawings=drawings_of(config, image_ids, images, gallery, progress),
            examples=load_examples(images, examples, config.images, names.names),
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
    page = render_sweep(
        results,
        title=config.title,
        directory=config.sweep_dir,
        page_dir=Path(config.output).parent,
    )
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
    report: Report | PredictionReport
    with progress_bar() as progress:
        if config.annotations is None:
            report = make_prediction_report(config, progress)
        else:
            report = make_report(config, progress)
    write_report(report, config.output)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    for line in problem_lines(report, config):
        console.print(line, style="yellow")
    if config.drawings_dir is not None:
        files = write_drawings(report.examples, config.drawings_dir)
        console.print(f"wrote {len(files)} drawings to {config.drawings_dir}")
    size_mb = Path(config.output).stat().st_size / 1e6
    console.print(f"wrote {config.output} ({size_mb:.1f} MB): {describe_report(report)}")


def problem_lines(report: Report | PredictionReport, config: DictConfig) -> list[str]:
    """Return sentences on images that could not be read, and on those past a limit."""
    lines, drawings = [], report.drawings
    problems = {e.image_id: e.image_problem for e in report.examples if e.image_problem}
    if missing := len({**problems, **drawings.problems}):
        of = max(len(drawings.texts), len(report.examples))
        lines.append(f"{missing} of {of} images could not be read in images={config.images}")
    if drawings.limit is not None:
        lines.append(
            f"{len(drawings.texts)} of {len(report.gallery.images)} images have a drawing, as "
            f"{drawings.limit} allows; the others are listed with their numbers"
        )
    return lines


def describe_report(report: Report | PredictionReport) -> str:
    """Return the result in a line."""
    if isinstance(report, PredictionReport):
        found = [image.num_detections for image in report.gallery.images.values()]
        return f"{sum(found)} detections in {sum(map(bool, found))} of {len(found)} images"
    score = report.score
    return f"score {score.competition_map:.4f} ({score.averaging}, {score.images} images)"


if __name__ == "__main__":
    main()
