"""Submissions: writing one, a row for each detection.

A valid submission by a competition's rules: every test image at least once; categories of the
competition; runs ascending, not overlapping, within the raster; no empty mask except the filler
row; masks of one image and class, or of one image, disjoint.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.annotations.competition import Competition
from src.annotations.rows import describe_ids
from src.errors import InputError
from src.io import atomic_path
from src.postprocess.detections import Detections
from src.postprocess.raster import has_overlaps
from src.rle import format_rle


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
    competition: Competition,
) -> SubmissionReport:
    """Write the detections of each image in the order given; the file appears whole or not at all.

    Args:
        path: The CSV file; its folder is created.
        detections: One of each image, with masks on the competition's raster. They are written as
            they are; where masks overlap that must not, the report counts the image, since the
            competition refuses such a file.
        competition: Columns, categories and filler row. Without one, an image without a detection
            has a row with its name only; see ``Competition.for_data``.

    Raises:
        InputError: A category is none of the competition's, or columns for it are lacking.
        WriteError: The file cannot be written.
    """
    report = SubmissionReport()
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(competition.columns)
        for found in detections:
            report.images += 1
            report.num_detections += len(found)
            report.empty_images += not len(found)
            report.overlapping_images += competition.disjoint != "none" and has_overlaps(
                np.zeros_like(found.category_ids)
                if competition.disjoint == "all"
                else found.category_ids,
                found.bitmasks.bits,
            )
            report.inexact_images += not found.is_exact
            rows.writerows(_rows(found, competition))
    return report


def write_coco_results(
    path: str | Path, detections: Iterable[Detections], numbers: Mapping[str, int]
) -> SubmissionReport:
    """Write the detections of each image as COCO's results; the file appears whole or not at all.

    Args:
        path: The JSON file; its folder is created.
        detections: One of each image, with masks on the image's own raster.
        numbers: COCO's id of each image.

    Raises:
        WriteError: The file cannot be written.
    """
    report = SubmissionReport()
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for found in detections:
            entries = found.to_coco(numbers[found.image_id]) if len(found) else []
            first = report.num_detections == 0
            file.write("".join(f",\n{json.dumps(e)}" for e in entries)[first if entries else 0 :])
            report.images += 1
            report.num_detections += len(found)
            report.empty_images += not len(found)
            report.inexact_images += not found.is_exact
        file.write("]\n")
    return report


def _rows(detections: Detections, competition: Competition) -> list[tuple[str, ...]]:
    name = competition.image_id(detections.image_id)
    if not len(detections):
        if (filler := competition.filler) is not None:
            return [_row(competition, name, filler.encoded_pixels, filler.category_id)]
        return [_row(competition, name, "", None)]
    categories = detections.category_ids.tolist()
    known = competition.category_names
    illegal = [category for category in categories if known and category not in known]
    if illegal:
        raise InputError(
            f"category must be {describe_ids(known)} in a submission, got {illegal[0]} "
            f"({detections.image_id})"
        )
    texts = format_rle(detections.bitmasks.to_rle())
    return [
        _row(competition, name, text, category)
        for text, category in zip(texts, categories, strict=True)
    ]


def _row(competition: Competition, name: str, mask: str, category: int | None) -> tuple[str, ...]:
    label = "" if category is None else str(category)
    values = {"ImageId": name, "EncodedPixels": mask, "ClassId": label, "CategoryId": label}
    return tuple(values.get(column, "") for column in competition.columns)
