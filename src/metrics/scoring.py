"""Score files against ground-truth files, and keep the scores of images."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.progress import Progress

from src.annotations.categories import LabelDescriptions, write_label_descriptions
from src.annotations.coco import COCO
from src.annotations.coco_results import number_images_of
from src.annotations.competition import Averaging, Competition, raster_hw
from src.annotations.formats import ReadingOptions, detect_format
from src.annotations.image_files import AS_DISPLAYED, AUTO
from src.annotations.image_names import file_name_of, match_ids
from src.annotations.imaterialist_csv import (
    IMATERIALIST_2019,
    IMATERIALIST_2020,
    SIZE_COLUMNS,
    read_header,
)
from src.annotations.json_stream import starts_with_list
from src.annotations.mask_folders import MASK_IMAGES
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import ProgressCallback, SizeOf, describe_ids
from src.annotations.store import STORE, AnnotationStore, open_store
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.io import (
    printable,
    read_json_object,
    refuse_special_file,
    temporary_directory,
    user_cache_directory,
    write_json,
)
from src.metrics.competition import (
    CompetitionScore,
    ImageInstances,
    ImageMatches,
    ScoreAccumulator,
    no_instances,
)
from src.metrics.errors import ErrorAccumulator, ObjectError
from src.metrics.inputs import RasterInstances
from src.predictions.results import AUTO as AUTO_IDS
from src.predictions.results import ResultImages, ResultReader, write_as_annotations
from src.validation import shown

OnErrors = Callable[[ImageInstances, ImageInstances, ImageMatches, Sequence[ObjectError]], None]
LARGEST_HW = (1 << 14, 1 << 14)  # of an image of unknown size


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of images from a file."""

    averaging: str
    use_attributes: bool
    per_image: Mapping[str, float]  # by image id
    content: Mapping[str, Any]  # of the whole file


def write_scores(path: Path, summary: Mapping[str, Any], score: CompetitionScore) -> None:
    """Write a summary and the scores of the images, atomically.

    Args:
        path: The file.
        summary: Plain JSON values, including ``averaging`` and ``use_attributes``.
        score: The score whose images are written as ``per_image``.
    """
    per_image = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
    write_json(path, {**summary, "per_image": per_image}, sort_keys=False)


def is_score_file(path: Path) -> bool:
    """Return whether a file begins like one of ``write_scores``, without reading all of it."""
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
    """Read a file of ``write_scores``.

    Raises:
        InputError: The file is damaged, or ``per_image`` has no scores or something else.
    """
    again = "write it again with `python -m src.score output=...` or `python -m src.postprocess`"
    try:
        content = read_json_object(path)
    except InputError as error:
        raise InputError(f"{error}; {again}") from error
    per_image = content.get("per_image")
    if not isinstance(per_image, dict) or not per_image:
        raise InputError(
            f"per_image must be scores by image id, got {shown(per_image)} ({path}); {again}"
        )
    for image_id, value in per_image.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(
                f"per_image.{printable(image_id)} must be a number from 0 to 1, got "
                f"{shown(value)} ({path})"
            )
    return ImageScores(
        averaging=str(content.get("averaging")),
        use_attributes=bool(content.get("use_attributes")),
        per_image=per_image,
        content=content,
    )


@dataclass(frozen=True)
class Comparison:
    """Predictions with their ground truth."""

    ground_truth: RasterInstances
    prediction: Mapping[str, ImageInstances]
    image_ids: tuple[str, ...]  # of the compared images, ascending
    coverage_notes: tuple[str, ...]  # on images of one side only

    @property
    def labels(self) -> LabelDescriptions:
        """The categories and attributes of the ground truth."""
        return self.ground_truth.store.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """What readers of the score should know, a sentence each; complete after scoring."""
        notes = [*self.coverage_notes, *self.ground_truth.notes("ground-truth instances")]
        if isinstance(self.prediction, RasterInstances):
            notes += self.prediction.notes("detections")
        compared = set(self.image_ids)
        exchanged = [name for name in self.ground_truth.exchanged_sizes if name in compared]
        if exchanged:
            notes.append(
                "images of the ground truth with Height and Width exchanged, repaired: "
                f"{len(exchanged)} (the first: {exchanged[0]})"
            )
        return tuple(notes)

    def pair(self, image_id: str) -> tuple[ImageInstances, ImageInstances]:
        """Return the ground truth and the detections of an image, none if it has no prediction."""
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
    mask_images: MaskImageSettings | None = None,
    cache_dir: str | Path | None = None,
    ids: Mapping[str, str] | None = None,
    competition: Competition | None = None,
    progress: Progress | None = None,
) -> Iterator[RasterInstances]:
    """Open the ground truth for the duration of the context.

    Args:
        annotations: Any annotation format, a store folder, or a folder of mask images.
        use_attributes: See ``RasterInstances``.
        images_directory: The images, used as in ``build_store``; missing ones are ignored.
        exif: As for ``build_store``, like the next.
        duplicates: ``keep`` or ``drop``.
        label_descriptions: The legal categories and attributes; None: those of the ground truth,
            else those of 2019.
        mask_images: How a folder of mask images is read; None: the defaults.
        cache_dir: Folder in which the store of the ground truth is kept; None: a temporary folder.
        ids: See ``RasterInstances``.
        progress: Shows the progress of reading.

    Raises:
        InputError: The file is wrong; names the file, row, image and value.
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
                mask_images=mask_images,
            ),
            fallback_directory=user_cache_directory(),
            on_progress=_bytes_read(progress, annotations),
            sync=cache_dir is not None,
        )
        yield RasterInstances(
            store,
            use_attributes=use_attributes,
            ids=ids,
            images_directory=images_directory,
            exif=exif,
            competition=competition,
        )


@contextlib.contextmanager
def open_submission(
    submission: str | Path, ground_truth: RasterInstances, *, progress: Progress | None = None
) -> Iterator[RasterInstances]:
    """Open a submission for the duration of the context, as the ground truth is opened.

    Args:
        submission: A CSV with the columns and on the raster of the ground truth's competition (of
            the two years of iMaterialist, that which its columns say); COCO results; or any
            annotation format with sizes.
        ground_truth: Defines the legal categories and attributes, and the spelling of image ids.
        progress: Shows the progress of reading.

    Raises:
        InputError: The file is wrong; names the file, row, image and value.
    """
    with temporary_directory("submission") as temporary:
        labels_file = temporary / "labels.json"
        labels = ground_truth.store.labels
        write_label_descriptions(labels, labels_file)
        ids = {record.file_name: record.image_id for record in ground_truth.store.images}
        # a submission may name images without their suffix, whatever that is, or by its own rule
        stems = {name: str(PurePosixPath(name).with_suffix("")) for name in ids}
        for short in (stems, {name: ground_truth.competition.image_id(name) for name in stems}):
            counts = Counter(short.values())
            for name, shorter in short.items():
                if counts[shorter] == 1:
                    ids.setdefault(file_name_of(shorter), ids[name])
        kind = detect_format(submission)
        if kind == MASK_IMAGES:
            raise InputError(
                "submission must be a file or an annotation store, got a folder without "
                f"store.json ({submission})"
            )
        if kind == COCO and starts_with_list(Path(submission)):
            submission = _results_as_annotations(
                Path(submission), temporary / "results.json", ground_truth
            )
        directory = Path(submission)
        if kind != STORE:
            directory = temporary / "store"
            sized = kind == COCO or set(SIZE_COLUMNS) <= set(read_header(Path(submission)))
            build_store(
                submission,
                directory,
                ReadingOptions(
                    # masks on a raster are those of the displayed image, like a model's
                    images_directory=ground_truth.images_directory if sized else None,
                    exif_undecided=AS_DISPLAYED if ground_truth.exif == AUTO else ground_truth.exif,
                    missing_images="keep",
                    label_descriptions=labels_file,
                    size_hw=_raster_of(kind, ground_truth, ids),
                ),
                on_progress=_bytes_read(progress, submission),
                sync=False,
            )
        detections = RasterInstances(
            open_store(directory) if kind == STORE else AnnotationStore(directory),
            use_attributes=ground_truth.use_attributes,
            ids=ids,
            ground_truth=ground_truth,
        )
        if kind == STORE:  # which has labels of its own
            _check_categories(detections, labels)
        yield detections


def images_of_results(ground_truth: RasterInstances, *, image_ids: str = AUTO_IDS) -> ResultImages:
    """Return the images that COCO results may name, by the ids that their annotations have.

    Annotations that are no COCO file number their images by name from 1, as ``src.export_coco``
    does. A store of a COCO file that is gone has no ids: its images go by name.
    """
    store = ground_truth.store
    places = {image.image_id: place for place, image in enumerate(store.images)}
    is_lost = (
        store.description.get("source_kind") == COCO and not Path(ground_truth.source).exists()
    )
    numbers = {} if is_lost else number_images_of(ground_truth.source, list(places))
    return ResultImages(
        store.images,
        {number: places[image_id] for image_id, number in numbers.items()},
        source=ground_truth.source,
        kind=image_ids,
    )


def _results_as_annotations(path: Path, output: Path, ground_truth: RasterInstances) -> Path:
    """Write COCO results as annotations of the same images; return the new file."""
    store = ground_truth.store
    known = images_of_results(ground_truth)
    reader = ResultReader(path, known, store.labels, needs_score=False)
    write_as_annotations(reader, store.images, output)
    return output


def compare(
    ground_truth: RasterInstances,
    prediction: Mapping[str, ImageInstances],
    *,
    prediction_name: str,
    image_ids: Collection[str] | None = None,
) -> Comparison:
    """Pair predictions with their ground truth.

    Images of the ground truth without a prediction have no detections. Predicted images that are
    not in the ground truth or not in ``image_ids`` do not count. Notes give the numbers of both.

    Args:
        ground_truth: Ground-truth instances.
        prediction: Detections by image id.
        prediction_name: Name of the prediction in messages.
        image_ids: Images of the ground truth to compare; None: all.

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
    on_errors: OnErrors | None = None,
) -> CompetitionScore:
    """Score the compared images one by one; only one is on the raster at a time.

    Args:
        comparison: Predictions with their ground truth.
        averaging: ``per_class`` or ``pooled``.
        progress: Shows the progress of scoring.
        errors: Accumulates the errors of the images.
        on_errors: Called with each image's ground truth, detections, matches and errors; needs
            ``errors``.

    Raises:
        InputError: Unknown averaging.
    """
    rules = comparison.ground_truth.competition
    accumulator = ScoreAccumulator(averaging, rules.rule, rules.scored_on)
    image_ids: Iterable[str] = comparison.image_ids
    if progress is not None:
        image_ids = progress.track(comparison.image_ids, description="scoring")
    for image_id in image_ids:
        ground_truth, prediction = comparison.pair(image_id)
        matches = accumulator.add(ground_truth, prediction)
        if errors is not None:
            found = errors.add(ground_truth, prediction, matches)
            if on_errors is not None:
                on_errors(ground_truth, prediction, matches, found)
    return accumulator.result()


def _raster_of(kind: str, ground_truth: RasterInstances, ids: Mapping[str, str]) -> SizeOf:
    """Return a function from an image id to height and width of the raster of a submission.

    The submissions of 2019 and 2020 are told apart by their columns. An image that the ground truth
    lacks is not scored, so its raster holds any mask.
    """
    rules = ground_truth.competition
    years = (IMATERIALIST_2019.name, IMATERIALIST_2020.name)
    if rules.name in years and kind in years:
        rules = Competition.preset(kind)

    def size_of(image_id: str) -> tuple[int, int]:
        known = ids.get(file_name_of(image_id))
        size_hw = LARGEST_HW if known is None else ground_truth.record(known).size_hw
        return raster_hw(rules.raster, size_hw)

    return size_of


def _check_categories(prediction: RasterInstances, labels: LabelDescriptions) -> None:
    """Refuse categories that the ground truth lacks, naming the first image with one."""
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
