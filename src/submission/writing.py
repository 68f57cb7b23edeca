"""Submissions: the formats of the two competitions, and writing one, a row for each detection.

A valid submission by the competition's rules: every test image at least once; categories 0 to 45;
runs ascending, not overlapping, within the raster; no empty mask except the filler row; masks of
one image and class disjoint.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from src.annotations.imaterialist_csv import (
    FILLER_CATEGORY,
    FILLER_TEXT,
    IMATERIALIST_2019,
    IMATERIALIST_2020,
    SIZE_COLUMNS,
    CsvEdition,
)
from src.errors import InputError
from src.io import atomic_path
from src.postprocess.detections import Detections
from src.postprocess.raster import has_overlaps
from src.rle import format_rle
from src.validation import check_value, one_of

LEGAL_CATEGORIES = range(46)


@dataclass(frozen=True, slots=True)
class SubmissionFormat:
    """The file of one year: an annotation file of that year without the size columns."""

    edition: CsvEdition
    raster: str  # name of the raster of its masks, one of RASTERS
    id_suffix: str  # suffix of the store's image ids that the file's lack
    sorts_attributes: bool  # whether a row's attributes must ascend

    @property
    def name(self) -> str:
        """The name in configurations."""
        return self.edition.name

    @property
    def header(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(name for name in self.edition.columns if name not in SIZE_COLUMNS)

    def image_id(self, image_id: str) -> str:
        """Return an image id as the file spells it."""
        return image_id.removesuffix(self.id_suffix)

    def label(self, category: int) -> tuple[str, ...]:
        """Return the label columns of a detection without attributes."""
        return self.edition.join_label(category, ())


FORMATS: Mapping[str, SubmissionFormat] = {
    edition.name: SubmissionFormat(edition, raster, id_suffix, sorts_attributes)
    for edition, raster, id_suffix, sorts_attributes in (
        (IMATERIALIST_2019, "512x512", "", False),
        (IMATERIALIST_2020, "long_edge_1024", ".jpg", True),
    )
}


def format_named(name: str) -> SubmissionFormat:
    """Return the format of this name.

    Raises:
        InputError: There is none.
    """
    check_value("format", name, one_of(*FORMATS))
    return FORMATS[name]


@dataclass(slots=True)
class SubmissionReport:
    """Counts of what was written."""

    images: int = 0
    num_detections: int = 0
    empty_images: int = 0  # without a detection
    overlapping_images: int = 0  # with masks of one class that overlap: not valid
    inexact_images: int = 0  # see Detections.is_exact


def write_submission(
    path: str | Path,
    detections: Iterable[Detections],
    *,
    submission_format: SubmissionFormat = FORMATS[IMATERIALIST_2019.name],
    competition: bool = True,
) -> SubmissionReport:
    """Write the detections of each image in the order given; the file appears whole or not at all.

    Args:
        path: The CSV file; its folder is created.
        detections: One of each image, with masks on the format's raster. Masks are written as they
            are; where masks of one class overlap, the report counts the image, since the
            competition refuses such a file.
        submission_format: Columns and spelling of image ids.
        competition: Whether it is the competition's submission, where an image without a detection
            has the filler row and categories are 0 to 45. Of other data any category is written,
            and an image without a detection has a row with its name only.

    Raises:
        InputError: A category outside 0 to 45 in the competition's submission.
        WriteError: The file cannot be written.
    """
    report = SubmissionReport()
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(submission_format.header)
        for found in detections:
            report.images += 1
            report.num_detections += len(found)
            report.empty_images += not len(found)
            report.overlapping_images += has_overlaps(found.category_ids, found.bitmasks.bits)
            report.inexact_images += not found.is_exact
            rows.writerows(_rows(found, submission_format, competition))
    return report


def _rows(
    detections: Detections, submission_format: SubmissionFormat, competition: bool
) -> list[tuple[str, ...]]:
    name = submission_format.image_id(detections.image_id)
    if not len(detections):
        if competition:
            return [(name, FILLER_TEXT, *submission_format.label(FILLER_CATEGORY))]
        return [(name, "", *("" for _ in submission_format.edition.label_columns))]
    categories = detections.category_ids.tolist()
    illegal = [category for category in categories if category not in LEGAL_CATEGORIES]
    if competition and illegal:
        raise InputError(
            f"category must be 0 to 45 in a submission, got {illegal[0]} ({detections.image_id})"
        )
    return [
        (name, text, *submission_format.label(category))
        for text, category in zip(format_rle(detections.bitmasks.to_rle()), categories, strict=True)
    ]
