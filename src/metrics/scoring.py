"""Scoring a submission file against an annotation file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from src.annotations.categories import LabelDescriptions, write_label_descriptions
from src.annotations.errors import InputError
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import open_or_build
from src.annotations.text_lines import ProgressCallback
from src.metrics.competition import Averaging, CompetitionScore, ScoreAccumulator
from src.metrics.inputs import RASTER_HW, RasterObjects
from src.metrics.matching import ImageObjects, no_objects


@dataclass(frozen=True)
class Comparison:
    """A submission beside its truth."""

    truth: RasterObjects
    prediction: RasterObjects
    image_ids: tuple[str, ...]  # those that are compared, ascending
    coverage_notes: tuple[str, ...]  # which images are on one side only

    @property
    def labels(self) -> LabelDescriptions:
        """The categories and attributes of the truth."""
        return self.truth.store.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the score should know, a sentence each; complete after scoring."""
        notes = list(self.coverage_notes)
        for side, objects in (("true", self.truth), ("predicted", self.prediction)):
            if objects.vanished:
                notes.append(
                    f"{objects.vanished} {side} objects have no pixel left on the 512x512 raster "
                    "and were left out"
                )
        if self.truth.exchanged_sizes:
            notes.append(
                f"{len(self.truth.exchanged_sizes)} images of the truth have Height and Width "
                f"exchanged, which was repaired; the first is {self.truth.exchanged_sizes[0]}"
            )
        return tuple(notes)

    def pair(self, image_id: str) -> tuple[ImageObjects, ImageObjects]:
        """The true and the predicted objects of an image; none where the submission lacks it."""
        truth = self.truth[image_id]
        prediction = self.prediction.get(image_id)
        return truth, no_objects(truth) if prediction is None else prediction


@contextlib.contextmanager
def open_comparison(
    submission: str | Path,
    ground_truth: str | Path,
    *,
    use_attributes: bool = False,
    image_ids: Collection[str] | None = None,
    images_directory: str | Path | None = None,
    label_descriptions: str | Path | None = None,
    cache_directory: str | Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Comparison]:
    """Read a submission and its truth; both are there while the context lasts.

    Images of the truth that the submission lacks count as having no predicted object. Images of
    the submission that are not compared (the truth lacks them, or ``image_ids`` does) are not
    looked at, and a note says how many. The legal categories of the submission are the truth's.

    Args:
        submission: ``ImageId,EncodedPixels,ClassId`` on the 512x512 raster; or any annotation
            format with sizes, which is resized.
        ground_truth: any annotation format, or a store folder.
        use_attributes: see ``RasterObjects``.
        image_ids: which images of the truth to compare; all where None.
        images_directory: the photos, to repair exchanged sizes; see ``RasterObjects``.
        label_descriptions: the legal categories and attributes; where None, those that the truth
            carries, else those of 2019.
        cache_directory: where the store made of the truth is kept for the next time; where None,
            it is made in a temporary folder.
        progress: where reading shows how far it is.

    Raises:
        InputError: a file is wrong (it names file, row, image and value), an id of ``image_ids`` is
            not in the truth, or no image of the submission is compared.
    """
    with tempfile.TemporaryDirectory(prefix="score-") as temporary:
        truth_store = open_or_build(
            ground_truth,
            cache_directory or Path(temporary) / "truth",
            label_descriptions=label_descriptions,
            on_progress=_bytes_read(progress, ground_truth),
        )
        labels_file = Path(temporary) / "labels.json"
        write_label_descriptions(truth_store.labels, labels_file)
        prediction_store = open_or_build(
            submission,
            Path(temporary) / "prediction",
            label_descriptions=labels_file,
            size_hw=RASTER_HW,
            on_progress=_bytes_read(progress, submission),
        )
        compared = _compared_images(truth_store, Path(ground_truth), image_ids)
        truth, prediction = (
            RasterObjects(store, use_attributes=use_attributes, images_directory=images_directory)
            for store in (truth_store, prediction_store)
        )
        yield Comparison(
            truth=truth,
            prediction=prediction,
            image_ids=compared,
            coverage_notes=_coverage_notes(Path(submission), compared, prediction),
        )


def score_comparison(
    comparison: Comparison, averaging: Averaging = "per_class", progress: Progress | None = None
) -> CompetitionScore:
    """Score the compared images one by one; only one is on the raster at a time.

    Raises:
        InputError: unknown averaging.
    """
    accumulator = ScoreAccumulator(averaging=averaging)
    task = (
        None if progress is None else progress.add_task("scoring", total=len(comparison.image_ids))
    )
    for image_id in comparison.image_ids:
        accumulator.add(*comparison.pair(image_id))
        if progress is not None and task is not None:
            progress.advance(task)
    return accumulator.result()


def _compared_images(
    store: AnnotationStore, ground_truth: Path, image_ids: Collection[str] | None
) -> tuple[str, ...]:
    known = [record.image_id for record in store.images]
    if image_ids is None:
        return tuple(known)
    unknown = sorted(set(image_ids) - set(known))
    if unknown:
        raise InputError(
            f"{ground_truth}: no image has the id {unknown[0]!r}, nor has any that of "
            f"{len(unknown) - 1} others to be scored"
        )
    wanted = set(image_ids)
    return tuple(image_id for image_id in known if image_id in wanted)


def _coverage_notes(
    submission: Path, compared: tuple[str, ...], prediction: RasterObjects
) -> tuple[str, ...]:
    missing = [image_id for image_id in compared if image_id not in prediction]
    if len(missing) == len(compared):
        raise InputError(
            f"{submission}: it has none of the {len(compared)} images to be scored; its first is "
            f"{next(iter(prediction))!r}, the first to be scored {compared[0]!r}"
        )
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} of {len(compared)} images are not in {submission.name} and count as "
            f"having no predicted object; the first is {missing[0]}"
        )
    others = sorted(set(prediction) - set(compared))
    if others:
        notes.append(
            f"{len(others)} images of {submission.name} are not among those scored and were not "
            f"looked at; the first is {others[0]}"
        )
    return tuple(notes)


def _bytes_read(progress: Progress | None, path: str | Path) -> ProgressCallback | None:
    if progress is None:
        return None
    task = progress.add_task(f"reading {Path(path).name}", total=None)

    def show(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)

    return show
