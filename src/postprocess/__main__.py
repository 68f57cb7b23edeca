"""From the prediction store to a submission: ``python -m src.postprocess predictions=STORE``."""

from __future__ import annotations

import contextlib
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
from src.annotations.instances import RASTER_HW
from src.annotations.packed_masks import pack_runs
from src.config import entry_point, to_plain
from src.metrics.competition import ScoreAccumulator, check_averaging
from src.metrics.inputs import RasterObjects
from src.metrics.intervals import bootstrap_interval, check_settings
from src.metrics.matching import ImageObjects
from src.metrics.scoring import Comparison, open_truth
from src.postprocess.detections import Detections
from src.postprocess.pipeline import postprocess_store
from src.postprocess.prediction_meta import write_json
from src.postprocess.prediction_store import PredictionStore
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


def beside_truth(truth: RasterObjects, image_ids: Sequence[str]) -> Comparison:
    """The written images whose truth is known, with notes on those of one side only.

    Raises:
        InputError: there is none.
    """
    known = tuple(image_id for image_id in image_ids if image_id in truth)
    if not known:
        raise InputError(
            f"{truth.source}: has none of the {len(image_ids)} images that are written; its first "
            f"is {next(iter(truth), None)!r}, the first written {image_ids[0]!r}"
        )
    notes = []
    if len(known) < len(image_ids):
        notes.append(f"{len(image_ids) - len(known)} written images have no truth: not scored")
    if len(known) < len(truth):
        notes.append(f"{len(truth) - len(known)} images of the truth are not written: not scored")
    return Comparison(truth=truth, prediction={}, image_ids=known, coverage_notes=tuple(notes))


def in_words(output: Path, report: SubmissionReport, settings: PostprocessSettings) -> Text:
    """What was written, and what the user should know about it, a line each."""
    text = Text(
        f"{output}: {report.objects} objects in {report.images - report.filler_images} of "
        f"{report.images} images"
    )
    if report.overlapping_images:
        text.append(
            f"\nnote: in {report.overlapping_images} images masks of one class overlap, and the "
            "competition refuses such a file; postprocess.suppress_overlaps=true takes the "
            "overlaps away",
            "yellow",
        )
    if report.inexact_images:
        text.append(
            f"\nnote: in {report.inexact_images} images the store lacks (box, class) pairs above "
            f"score_threshold={settings.score_threshold:g}, so the model itself may give other "
            "objects; raise the threshold, or predict with a lower module.score_floor or a higher "
            "module.max_candidates",
            "yellow",
        )
    return text


def chosen_images(store: PredictionStore, sample_submission: str | None) -> Sequence[str]:
    """The images to write, in the order of the file.

    Raises:
        InputError: there is none, or the store lacks one of the sample.
    """
    if sample_submission is None:
        if not len(store):
            raise InputError(f"{store.directory}: holds no predictions")
        return store.image_ids
    image_ids = read_sample_image_ids(sample_submission)
    store.check_image_ids(image_ids, source=sample_submission)
    return image_ids


@entry_point("postprocess")
def main(config: DictConfig) -> None:
    """Hydra's task: write the submission, and where the truth is known show its score."""
    settings = settings_from(to_plain(config.postprocess))
    check_averaging(config.averaging)
    check_settings(resamples=config.resamples, confidence=config.confidence)
    output = output_path(config.output, config.output_dir)
    store = PredictionStore(config.predictions)
    image_ids = chosen_images(store, config.sample_submission)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        contextlib.ExitStack() as opened,
    ):
        objects: Iterable[Detections] = postprocess_store(store, settings, image_ids)
        if config.ground_truth is None:
            report = write_submission(output, progress.track(objects, total=len(image_ids)))
            console.print(in_words(output, report, settings))
            return
        truth = opened.enter_context(
            open_truth(
                config.ground_truth,
                images_directory=config.images,
                cache_directory=config.cache_directory,
                progress=progress,
            )
        )
        comparison = beside_truth(truth, image_ids)
        accumulator = ScoreAccumulator(averaging=config.averaging)
        objects = score_on_the_way(objects, truth, accumulator)
        report = write_submission(output, progress.track(objects, total=len(image_ids)))
        labels, notes = comparison.labels, comparison.notes
    score = accumulator.result()
    interval = bootstrap_interval(
        score.per_image,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    summary = score_summary(score, interval, use_attributes=False)
    write_json(output.with_name("score.json"), summary)
    console.print(in_words(output, report, settings))
    console.print(score_tables(score, interval, labels, notes))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
