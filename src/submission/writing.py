"""Writing submissions: ``ImageId,EncodedPixels,ClassId`` (2019), a row an object; 2020 likewise."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from src.annotations.imaterialist_csv import FILLER_CATEGORY, FILLER_TEXT, IMATERIALIST_2019
from src.errors import InputError
from src.io import atomic_path
from src.postprocess.detections import Detections
from src.postprocess.raster import has_overlaps
from src.rle import format_rle
from src.submission.formats import FORMATS, LEGAL_CATEGORIES, SubmissionFormat


@dataclass(slots=True)
class SubmissionReport:
    """Summary of what was written, and notes for the user."""

    images: int = 0
    objects: int = 0
    empty_images: int = 0  # without an object
    overlapping_images: int = 0  # with masks of one class that overlap: not valid
    inexact_images: int = 0  # see Detections.is_exact


def write_submission(
    path: str | Path,
    detections: Iterable[Detections],
    *,
    submission_format: SubmissionFormat = FORMATS[IMATERIALIST_2019.name],
    competition: bool = True,
) -> SubmissionReport:
    """Write the objects of each image, in the order given; the file appears whole or not at all.

    Args:
        path: The CSV file; its folder is made.
        detections: One of each image, with masks on the format's raster. Masks are written as they
            are; where some of one class overlap, the report counts the image, since the competition
            refuses such a file.
        submission_format: Columns and spelling of image ids.
        competition: Whether it is the competition's submission, where an image without an object
            has the filler row and categories are 0 to 45. Of other data any category is written,
            and an image without an object has a row that names it and nothing else.

    Raises:
        InputError: A category outside 0 to 45 in the competition's submission.
        WriteError: The file cannot be written.
    """
    report = SubmissionReport()
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(submission_format.header)
        for objects in detections:
            _add(report, objects)
            rows.writerows(_rows(objects, submission_format, competition))
    return report


def _rows(
    objects: Detections, submission_format: SubmissionFormat, competition: bool
) -> list[tuple[str, ...]]:
    name = submission_format.image_id(objects.image_id)
    if not len(objects):
        if competition:
            return [(name, FILLER_TEXT, *submission_format.label(FILLER_CATEGORY))]
        return [(name, "", *("" for _ in submission_format.edition.label_columns))]
    categories = objects.category_ids.tolist()
    illegal = [category for category in categories if category not in LEGAL_CATEGORIES]
    if competition and illegal:
        raise InputError(
            f"{objects.image_id}: category {illegal[0]} in a submission, where 0 to 45 are legal"
        )
    texts = format_rle(objects.bitmasks.to_rle())
    return [
        (name, text, *submission_format.label(category))
        for text, category in zip(texts, categories, strict=True)
    ]


def _add(report: SubmissionReport, objects: Detections) -> None:
    report.images += 1
    report.objects += len(objects)
    report.empty_images += not len(objects)
    report.overlapping_images += has_overlaps(objects.category_ids, objects.bitmasks.bits)
    report.inexact_images += not objects.is_exact
