"""Score files against ground-truth files, and keep the scores of images."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from src.annotations.categories import LabelDescriptions, write_label_descriptions
from src.annotations.coco import COCO
from src.annotations.formats import ReadingOptions, detect_format
from src.annotations.image_files import AS_DISPLAYED, AUTO
from src.annotations.image_names import file_name_of, match_ids
from src.annotations.imaterialist_csv import (
    IMATERIALIST_2020,
    SIZE_COLUMNS,
    describe_fillers,
    is_competition,
    read_header,
)
from src.annotations.instances import LONG_EDGE_PX, RASTER_HW, long_edge_1024
from src.annotations.rows import ProgressCallback, SizeOf, describe_ids
from src.annotations.store import STORE, AnnotationStore, open_store
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.io import (
    read_json_object,
    refuse_special_file,
    temporary_directory,
    user_cache_directory,
    write_json,
)
from src.metrics.competition import (
    Averaging,
    CompetitionScore,
    ImageInstances,
    ScoreAccumulator,
    no_instances,
)
from src.metrics.errors import ErrorAccumulator
from src.metrics.inputs import RasterInstances


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The scores of images, and how they were made."""

    averaging: str
    use_attributes: bool
    per_image: Mapping[str, float]  # by image id
    content: Mapping[str, Any]  # all that the file has


def write_scores(path: Path, summary: Mapping[str, Any], score: CompetitionScore) -> None:
    """Write a summary and the scores of the images, the file whole or not at all.

    Args:
        path: The file.
        summary: Plain JSON values; ``averaging`` and ``use_attributes`` among them.
        score: Whose images' scores are written as ``per_image``.
    """
    per_image = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
    write_json(path, {**summary, "per_image": per_image}, sort_keys=False)


def is_score_file(path: Path) -> bool:
    """Return whether a file begins as ``write_scores`` writes it, without reading it whole."""
    if path.suffix != ".json":
        return False
    refuse_special_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return start.lstrip()[:1] == b"{" and b'"competition_map"' in start


def read_scores(path: Path) -> ImageScores:
    """Read what ``write_scores`` has written.

    Raises:
        InputError: The file is damaged, has no scores of images, or one is no number.
    """
    try:
        content = read_json_object(path)
    except InputError as error:
        raise InputError(f"{error}; a damaged score file, make it anew") from error
    per_image = content.get("per_image")
    if not isinstance(per_image, dict) or not per_image:
        raise InputError(
            f"{path}: has no scores of single images (per_image); python -m src.score output=... "
            "and python -m src.postprocess write them"
        )
    for image_id, value in per_image.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{path}: per_image: {image_id}: {value!r} is no score from 0 to 1")
    return ImageScores(
        averaging=str(content.get("averaging")),
        use_attributes=bool(content.get("use_attributes")),
        per_image=per_image,
        content=content,
    )


@dataclass(frozen=True)
class Comparison:
    """Predictions beside their truth."""

    ground_truth: RasterInstances
    prediction: Mapping[str, ImageInstances]
    image_ids: tuple[str, ...]  # those that are compared, ascending
    coverage_notes: tuple[str, ...]  # which images are on one side only

    @property
    def labels(self) -> LabelDescriptions:
        """The categories and attributes of the ground truth."""
        return self.ground_truth.store.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the score should know, a sentence each, after scoring."""
        notes = list(self.coverage_notes)
        for side, objects in (
            ("ground-truth instances", self.ground_truth),
            ("detections", self.prediction),
        ):
            if not isinstance(objects, RasterInstances):
                continue
            notes += [f"{Path(objects.source).name}: {note}" for note in objects.store.notes]
            if objects.empty:
                notes.append(f"{side} whose mask has no pixel, left out: {objects.empty}")
            if objects.vanished:
                notes.append(
                    f"{side} without a pixel left on the 512x512 raster, left out: "
                    f"{objects.vanished}"
                )
        if isinstance(self.prediction, RasterInstances) and self.prediction.fillers:
            notes.append(describe_fillers(self.prediction.fillers))
        compared = set(self.image_ids)
        exchanged = [name for name in self.ground_truth.exchanged_sizes if name in compared]
        if exchanged:
            notes.append(
                "images of the ground truth with Height and Width exchanged, repaired: "
                f"{len(exchanged)} (the first: {exchanged[0]})"
            )
        return tuple(notes)

    def pair(self, image_id: str) -> tuple[ImageInstances, ImageInstances]:
        """Return ground truth and detections of an image; none where it has no prediction."""
        ground_truth = self.ground_truth[image_id]
        prediction = self.prediction.get(image_id)
        return ground_truth, no_instances(ground_truth) if prediction is None else prediction


@contextlib.contextmanager
def open_ground_truth(
    annotations: str | Path,
    *,
    use_attributes: bool = False,
    images_directory: str | Path | None = None,
    exif: str = AUTO,
    duplicates: str = "keep",
    label_descriptions: str | Path | None = None,
    cache_dir: str | Path | None = None,
    ids: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[RasterInstances]:
    """Read the ground truth; it is there while the context lasts.

    Args:
        annotations: Any annotation format, or a store folder.
        use_attributes: See ``RasterInstances``.
        images_directory: The images, to read masks as ``build_store`` does; one that is missing
            changes nothing.
        exif: As for ``build_store``, like the next.
        duplicates: ``keep`` or ``drop``.
        label_descriptions: The legal categories and attributes; None: those of the
            ground truth, else those of 2019.
        cache_dir: Where the store made of the ground truth is kept for the next time; where None,
            it is made in a temporary folder.
        ids: Image ids by file name that count instead of the ground truth's; see
            ``RasterInstances``.
        progress: Where reading shows how far it is.

    Raises:
        InputError: The file is wrong; it names file, row, image and value.
    """
    with temporary_directory("truth") as temporary:
        store = open_or_build(
            annotations,
            cache_dir or temporary,
            ReadingOptions(
                images_directory=images_directory,
                exif=exif,
                missing_images="keep",
                duplicates=duplicates,
                label_descriptions=label_descriptions,
            ),
            fallback_directory=user_cache_directory(),
            on_progress=_bytes_read(progress, annotations),
        )
        yield RasterInstances(
            store,
            use_attributes=use_attributes,
            ids=ids,
            images_directory=images_directory,
            exif=exif,
        )


@contextlib.contextmanager
def open_submission(
    submission: str | Path, ground_truth: RasterInstances, *, progress: Progress | None = None
) -> Iterator[RasterInstances]:
    """Read a submission as the ground truth is read; it is there while the context lasts.

    Args:
        submission: ``ImageId,EncodedPixels,ClassId`` on the 512x512 raster; with the column
            ``AttributesIds`` (2020) on the raster whose long edge has 1024 pixels, of the shape of
            the ground truth's image; or any annotation format with sizes.
        ground_truth: Whose categories and attributes are the legal ones. Images go by its ids:
        ``a`` is
            ``a.jpg`` where the ground truth says so.
        progress: Where reading shows how far it is.

    Raises:
        InputError: The file is wrong; it names file, row, image and value.
    """
    with temporary_directory("submission") as temporary:
        labels_file = temporary / "labels.json"
        labels = ground_truth.store.labels
        write_label_descriptions(labels, labels_file)
        ids = {record.file_name: record.image_id for record in ground_truth.store.images}
        kind = detect_format(submission)
        directory = Path(submission)
        if kind != STORE:
            directory = temporary / "store"
            sized = kind == COCO or set(SIZE_COLUMNS) <= set(read_header(Path(submission)))
            build_store(
                submission,
                directory,
                ReadingOptions(
                    # masks on a raster are of the image as displayed, as those of a model are
                    images_directory=ground_truth.images_directory if sized else None,
                    exif_undecided=AS_DISPLAYED if ground_truth.exif == AUTO else ground_truth.exif,
                    missing_images="keep",
                    label_descriptions=labels_file,
                    size_hw=_long_edge(ground_truth, ids)
                    if kind == IMATERIALIST_2020.name
                    else RASTER_HW,
                ),
                on_progress=_bytes_read(progress, submission),
            )
        objects = RasterInstances(
            open_store(directory) if kind == STORE else AnnotationStore(directory),
            use_attributes=ground_truth.use_attributes,
            ids=ids,
            without_filler=not is_competition(labels.category_names),
            ground_truth=ground_truth,
        )
        if kind == STORE:  # whose labels are its own
            _check_categories(objects, labels)
        yield objects


def compare(
    ground_truth: RasterInstances,
    prediction: Mapping[str, ImageInstances],
    *,
    prediction_name: str,
    image_ids: Collection[str] | None = None,
) -> Comparison:
    """Put predictions beside their ground truth.

    Images of the ground truth without a prediction count as having no detection. Predicted images
    that are not compared (not in the ground truth, or not in ``image_ids``) do not count. Notes say
    how many there are of both.

    Args:
        ground_truth: Ground-truth instances.
        prediction: Detections by image id.
        prediction_name: What messages call the prediction.
        image_ids: Which images of the ground truth to compare; all where None.

    Raises:
        InputError: An id of ``image_ids`` is unknown, or no predicted image is compared.
    """
    compared = tuple(ground_truth)
    if image_ids is not None:
        wanted = set(match_ids(image_ids, compared))
        unknown = sorted(wanted - set(compared))
        if unknown:
            raise InputError(
                f"{ground_truth.source}: no image has the id {unknown[0]!r}, nor has any that of "
                f"{len(unknown) - 1} others to be scored"
            )
        compared = tuple(image_id for image_id in compared if image_id in wanted)
    return Comparison(
        ground_truth=ground_truth,
        prediction=prediction,
        image_ids=compared,
        coverage_notes=_coverage_notes(compared, prediction, prediction_name),
    )


def score_comparison(
    comparison: Comparison,
    averaging: Averaging = "per_class",
    progress: Progress | None = None,
    errors: ErrorAccumulator | None = None,
) -> CompetitionScore:
    """Score the compared images one by one; only one is on the raster at a time.

    Args:
        comparison: Predictions beside their truth.
        averaging: ``per_class`` or ``pooled``.
        progress: Where it shows how far it is.
        errors: Takes each image as well.

    Raises:
        InputError: Unknown averaging.
    """
    accumulator = ScoreAccumulator(averaging=averaging)
    task = (
        None if progress is None else progress.add_task("scoring", total=len(comparison.image_ids))
    )
    for image_id in comparison.image_ids:
        ground_truth, prediction = comparison.pair(image_id)
        matches = accumulator.add(ground_truth, prediction)
        if errors is not None:
            errors.add(ground_truth, prediction, matches)
        if progress is not None and task is not None:
            progress.advance(task)
    return accumulator.result()


def _long_edge(ground_truth: RasterInstances, ids: Mapping[str, str]) -> SizeOf:
    """Return the raster of the 2020 competition for each image.

    One that the ground truth lacks is not scored, so it gets the largest raster.
    """

    def size_of(image_id: str) -> tuple[int, int]:
        known = ids.get(file_name_of(image_id))
        return (
            (LONG_EDGE_PX,) * 2
            if known is None
            else long_edge_1024(ground_truth.record(known).size_hw)
        )

    return size_of


def _check_categories(prediction: RasterInstances, labels: LabelDescriptions) -> None:
    """Refuse objects of categories that the ground truth lacks.

    Raises:
        InputError: Names the first image that has one.
    """
    known = labels.category_names
    for image_id in prediction:
        if unknown := prediction.category_ids(image_id) - known.keys():
            raise InputError(
                f"category must be {describe_ids(known)}, got {min(unknown)} "
                f"({prediction.store.directory}, image {image_id})"
            )


def _coverage_notes(
    compared: tuple[str, ...], prediction: Mapping[str, ImageInstances], name: str
) -> tuple[str, ...]:
    missing = [image_id for image_id in compared if image_id not in prediction]
    if len(missing) == len(compared):
        raise InputError(
            f"{name}: it has none of the {len(compared)} images to be scored; its first is "
            f"{next(iter(prediction), None)!r}, the first to be scored {compared[0]!r}"
        )
    notes = []
    if missing:
        notes.append(
            f"images not in {name}, which count as having no detection: {len(missing)} of "
            f"{len(compared)} (the first: {missing[0]})"
        )
    others = sorted(set(prediction) - set(compared))
    if others:
        notes.append(
            f"images of {name} that are not among those scored: {len(others)} "
            f"(the first: {others[0]})"
        )
    return tuple(notes)


def _bytes_read(progress: Progress | None, path: str | Path) -> ProgressCallback | None:
    if progress is None:
        return None
    task = progress.add_task(f"reading {Path(path).name}", total=None)

    def show(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)

    return show
