"""The images of a page: compared with their ground truth, or predicted alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from src.annotations.coco import COCO
from src.annotations.competition import Competition, MatchRule, raster_hw
from src.annotations.formats import ReadingOptions, detect_format
from src.annotations.image_files import AS_DISPLAYED, AUTO
from src.annotations.image_names import file_name_of
from src.annotations.imaterialist_csv import SIZE_COLUMNS, SizesOfFiles, read_header
from src.annotations.instances import ImageRecord
from src.annotations.json_stream import starts_with_list
from src.annotations.mask_folders import MASK_IMAGES
from src.annotations.rows import GivenSize, RowError
from src.annotations.store import STORE, AnnotationStore, open_store
from src.annotations.store_builder import build_store
from src.errors import InputError
from src.io import temporary_directory
from src.metrics.competition import ImageInstances
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import Comparison
from src.predictions.store import PredictionStore

_SIZES = ((512, 300), (7, 9))  # of two images; a raster that is the same for both is one of all


@dataclass(frozen=True)
class ComparedImages:
    """Images with their ground truth."""

    comparison: Comparison

    @property
    def rule(self) -> MatchRule:
        """When a detection is a true positive."""
        return self.comparison.ground_truth.competition.rule

    def record(self, image_id: str) -> ImageRecord:
        """Return the file's name and the size of an image."""
        return self.comparison.ground_truth.record(image_id)

    def pair(self, image_id: str) -> tuple[ImageInstances | None, ImageInstances]:
        """Return the ground truth of an image and its detections."""
        return self.comparison.pair(image_id)


@dataclass(frozen=True)
class PredictedImages:
    """Images without ground truth."""

    prediction: Mapping[str, ImageInstances]
    records: Mapping[str, ImageRecord] | PredictionStore  # of a submission, or the store itself
    rule: MatchRule = field(default_factory=MatchRule)
    images_directory: Path | None = None

    def record(self, image_id: str) -> ImageRecord:
        """Return the file's name and the size of an image, the file's own where there is one."""
        if isinstance(self.records, PredictionStore):
            store = self.records
            size_hw = store.candidates(store.index_of(image_id)).size_hw
            return ImageRecord(image_id, file_name_of(image_id), *size_hw)
        record = self.records[image_id]
        if self._files is None:
            return record
        try:
            name = self._files.file_of(str(Path(record.file_name).with_suffix("")))
            return ImageRecord(image_id, name, *self._files(name))
        except RowError:
            return record

    def pair(self, image_id: str) -> tuple[ImageInstances | None, ImageInstances]:
        """Return None, for there is no ground truth, and the detections of an image."""
        return None, self.prediction[image_id]

    @cached_property
    def _files(self) -> SizesOfFiles | None:
        return None if self.images_directory is None else SizesOfFiles(self.images_directory)


@contextlib.contextmanager
def open_alone(
    submission: str | Path,
    *,
    competition: Competition,
    images_directory: str | Path | None,
    label_descriptions: str | Path | None,
    exif: str = AUTO,
) -> Iterator[RasterInstances]:
    """Open a submission without ground truth for the duration of the context.

    Filler rows, which stand for an image without a detection, are left out.

    Args:
        submission: A CSV on the competition's raster, or any annotation format with sizes.
        competition: Raster and categories.
        images_directory: The images, whose sizes some rasters depend on; None: there are none.
        label_descriptions: The legal categories; None: those of the file, else of its competition.
        exif: As for ``build_store``.

    Raises:
        InputError: The file is wrong, or cannot be read without annotations.
    """
    kind = detect_format(submission)
    if kind == MASK_IMAGES or (kind == COCO and starts_with_list(Path(submission))):
        raise InputError(
            "annotations must be given for COCO results and folders, which do not say what their "
            f"images are, got null ({submission})"
        )
    with temporary_directory("submission") as temporary:
        store = (
            open_store(Path(submission))
            if kind == STORE
            else _built(
                submission,
                temporary / "store",
                ReadingOptions(
                    exif_undecided=AS_DISPLAYED if exif == AUTO else exif,
                    missing_images="keep",
                    label_descriptions=label_descriptions,
                    size_hw=_size_of(submission, kind, competition, images_directory),
                ),
            )
        )
        detections = RasterInstances(store, competition=competition)
        detections.without_filler = True
        yield detections


def _built(submission: str | Path, directory: Path, options: ReadingOptions) -> AnnotationStore:
    build_store(submission, directory, options, sync=False)
    return AnnotationStore(directory)


def _size_of(
    submission: str | Path,
    kind: str,
    competition: Competition,
    images_directory: str | Path | None,
) -> GivenSize:
    """Return height and width of the raster of an image's masks; None: the file has sizes."""
    if kind == COCO or set(SIZE_COLUMNS) <= set(read_header(Path(submission))):
        return None
    one, other = (raster_hw(competition.raster, size_hw) for size_hw in _SIZES)
    if one == other:
        return one
    if images_directory is None:
        raise InputError(
            "images must be the folder of the images, whose sizes masks on the raster "
            f"{competition.raster} depend on, got null ({submission})"
        )
    sizes = SizesOfFiles(Path(images_directory))
    return lambda image_id: raster_hw(competition.raster, sizes(image_id))
