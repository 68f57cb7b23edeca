"""From the prediction store to a submission: ``python -m src.postprocess predictions=STORE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from src.annotations.errors import InputError
from src.annotations.packed_masks import pack_runs
from src.annotations.store_builder import open_or_build
from src.config import entry_point, to_plain
from src.metrics.competition import ScoreAccumulator, check_averaging
from src.metrics.inputs import RasterObjects
from src.metrics.intervals import bootstrap_interval, check_settings
from src.metrics.matching import ImageObjects
from src.postprocess.detections import Detections
from src.postprocess.pipeline import postprocess_store
from src.postprocess.prediction_meta import write_json
from src.postprocess.prediction_store import PredictionStore
from src.postprocess.raster import RASTER_HW
from src.postprocess.settings import PostprocessSettings, settings_from
from src.postprocess.submission import (
    FILLER_CATEGORY,
    FILLER_RUNS,
    SubmissionReport,
    read_sample_image_ids,
    write_submission,
)
from src.score import score_summary, score_tables


def output_path(output: str, output_dir: str) -> Path:
    """Where the submission goes.

    Raises:
        InputError: a multirun whose jobs would all write one file.
    """
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if multirun and Path(output).is_absolute():
        raise InputError(
            f"output={output}: in a multirun each job writes its own file; give a relative path"
        )
    return Path(output_dir) / output


def as_submitted(objects: Detections) -> ImageObjects:
    """What the competition sees of an image: its objects, or the filler row."""
    if not len(objects):
        return ImageObjects(
            objects.image_id, (FILLER_CATEGORY,), pack_runs([FILLER_RUNS], RASTER_HW)
        )
    return ImageObjects(objects.image_id, tuple(objects.category_ids.tolist()), objects.packed)


def score_on_the_way(
    detections: Iterable[Detections], truth: RasterObjects, accumulator: ScoreAccumulator
) -> Iterator[Detections]:
    """Pass detections through, and score those whose truth is known."""
    for objects in detections:
        if objects.image_id in truth:
            accumulator.add(truth[objects.image_id], as_submitted(objects))
        yield objects


def open_truth(
    ground_truth: str, image_ids: Sequence[str], *, cache_directory: str, images: str | None
) -> RasterObjects:
    """The truth.

    Raises:
        InputError: it has none of the images, or cannot be read.
    """
    truth = RasterObjects(open_or_build(ground_truth, cache_directory), images_directory=images)
    if not any(image_id in truth for image_id in image_ids):
        raise InputError(
            f"{ground_truth}: has none of the {len(image_ids)} images that are written; its first "
            f"is {next(iter(truth), None)!r}, the first written {image_ids[0]!r}"
        )
    return truth


def coverage_notes(truth: RasterObjects, image_ids: Sequence[str]) -> list[str]:
    """Which images are on one side only, a sentence each."""
    known = sum(image_id in truth for image_id in image_ids)
    notes = []
    if known < len(image_ids):
        notes.append(f"{len(image_ids) - known} written images are not in the truth: not scored")
    if known < len(truth):
        notes.append(f"{len(truth) - known} images of the truth are not written: not scored")
    return notes


def notes_of(report: SubmissionReport, settings: PostprocessSettings) -> list[str]:
    """What the user should know about the file, a sentence each."""
    notes = []
    if report.overlapping_images:
        notes.append(
            f"in {report.overlapping_images} of {report.images} images masks of one class overlap, "
            "and the competition refuses such a file; postprocess.suppress_overlaps=true takes the "
            "overlaps away"
        )
    if report.inexact_images:
        notes.append(
            f"in {report.inexact_images} of {report.images} images the store lacks (box, class) "
            f"pairs above score_threshold={settings.score_threshold:g}, so that the model itself "
            "may give other objects; raise the threshold, or predict with a lower "
            "module.score_floor or a higher module.max_candidates"
        )
    return notes


@entry_point("postprocess")
def main(config: DictConfig) -> None:
    """Hydra's task: write the submission, and where the truth is known show its score."""
    settings = settings_from(to_plain(config.postprocess))
    check_averaging(config.averaging)
    check_settings(resamples=config.resamples, confidence=config.confidence)
    output = output_path(config.output, config.output_dir)
    store = PredictionStore(config.predictions)
    image_ids: Sequence[str] = store.image_ids
    if config.sample_submission is not None:
        image_ids = read_sample_image_ids(config.sample_submission)
        store.check_image_ids(image_ids, source=config.sample_submission)
    if not image_ids:
        raise InputError(f"{config.predictions}: holds no predictions")
    truth = None
    accumulator = ScoreAccumulator(averaging=config.averaging)
    if config.ground_truth is not None:
        truth = open_truth(
            config.ground_truth,
            image_ids,
            cache_directory=config.cache_directory,
            images=config.images,
        )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        detections: Iterable[Detections] = progress.track(
            postprocess_store(store, settings, image_ids), total=len(image_ids)
        )
        if truth is not None:
            detections = score_on_the_way(detections, truth, accumulator)
        report = write_submission(output, detections)
    notes = notes_of(report, settings)
    console = Console(file=sys.stdout, highlight=False)
    console.print(
        f"{output}: {report.objects} objects in {report.images - report.filler_images} of "
        f"{report.images} images",
        markup=False,
        soft_wrap=True,
    )
    if truth is None:
        for note in notes:
            console.print(Text(f"note: {note}", "yellow"))
        return
    score = accumulator.result()
    interval = bootstrap_interval(
        score.per_image,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    summary = score_summary(score, interval, use_attributes=False)
    write_json(output.with_name("score.json"), summary)
    notes += coverage_notes(truth, image_ids)
    console.print(score_tables(score, interval, truth.store.labels, notes))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
