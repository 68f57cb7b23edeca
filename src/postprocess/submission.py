"""The submission file of the 2019 competition: ``ImageId,EncodedPixels,ClassId``, a row an object.

A valid one (the competition's rules): every test image at least once; categories 0 to 45; runs
ascending, not overlapping, within 512 x 512; no empty mask but the filler row; masks of the same
image and class disjoint.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.annotations.errors import InputError
from src.annotations.instances import RASTER_HW
from src.annotations.packed_masks import to_runs
from src.annotations.run_lengths import format_runs
from src.postprocess.detections import Detections
from src.postprocess.overlaps import has_overlaps

HEADER = ("ImageId", "EncodedPixels", "ClassId")
FILLER_CATEGORY = 23  # of the row of an image without objects, as in sample_submission.csv (S12)
FILLER_RUNS = np.array([[0, 1]], dtype=np.int32)
LEGAL_CATEGORIES = range(46)


@dataclass(slots=True)
class SubmissionReport:
    """What was written, and what to tell the user about it."""

    images: int = 0
    objects: int = 0
    filler_images: int = 0  # images without an object
    overlapping_images: int = 0  # with masks of one class that overlap: not valid
    inexact_images: int = 0  # see Detections.is_exact


def write_submission(path: str | Path, detections: Iterable[Detections]) -> SubmissionReport:
    """Write the objects of each image, in the order given; the file appears whole or not at all.

    Args:
        path: The CSV file; its folder is made.
        detections: One of each image. Masks are written as they are; where some of one class
            overlap, the report counts the image, since the competition refuses such a file.

    Raises:
        InputError: a category outside 0 to 45, or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    report = SubmissionReport()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{path}: the submission cannot be written there ({error})") from error
    try:
        with file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(HEADER)
            for objects in detections:
                _add(report, objects)
                rows.writerows(_rows(objects))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _rows(objects: Detections) -> list[tuple[str, str, int]]:
    if not len(objects):
        return [(objects.image_id, format_runs(FILLER_RUNS), FILLER_CATEGORY)]
    illegal = [
        int(category) for category in objects.category_ids if category not in LEGAL_CATEGORIES
    ]
    if illegal:
        raise InputError(
            f"{objects.image_id}: category {illegal[0]} in a submission, where 0 to 45 are legal"
        )
    return [
        (objects.image_id, format_runs(to_runs(packed, RASTER_HW)), int(category))
        for packed, category in zip(objects.packed, objects.category_ids, strict=True)
    ]


def _add(report: SubmissionReport, objects: Detections) -> None:
    report.images += 1
    report.objects += len(objects)
    report.filler_images += not len(objects)
    report.overlapping_images += has_overlaps(objects.category_ids, objects.packed)
    report.inexact_images += not objects.is_exact


def read_sample_image_ids(path: str | Path) -> Sequence[str]:
    """The image ids of ``sample_submission.csv``, each once, in the file's order.

    Raises:
        InputError: the file is missing, not a text, lacks the column ``ImageId``, or has no row.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if "ImageId" not in (rows.fieldnames or ()):
                raise InputError(
                    f"{path}: no column ImageId, found {', '.join(rows.fieldnames or ()) or 'none'}"
                )
            image_ids = tuple(dict.fromkeys(row["ImageId"] for row in rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as a CSV file ({error})") from error
    if not image_ids:
        raise InputError(f"{path}: no image in it")
    return image_ids
