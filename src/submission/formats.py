"""Submission formats of the two competitions.

A valid one (the competition's rules): every test image at least once; categories 0 to 45; runs
ascending, not overlapping, within the raster; no empty mask but the filler row; masks of the same
image and class disjoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from src.annotations.imaterialist_csv import (
    IMATERIALIST_2019,
    IMATERIALIST_2020,
    SIZE_COLUMNS,
    CsvEdition,
)
from src.validation import check_value, one_of

LEGAL_CATEGORIES = range(46)


@dataclass(frozen=True, slots=True)
class SubmissionFormat:
    """One year's file: an annotation file of that year without the columns of sizes."""

    edition: CsvEdition
    raster: str  # name of the raster of its masks, one of RASTERS
    id_suffix: str  # what an image id of the store has behind the file's
    sorts_attributes: bool  # whether an object's attributes must ascend

    @property
    def name(self) -> str:
        """Return the name that configurations use."""
        return self.edition.name

    @property
    def header(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(name for name in self.edition.columns if name not in SIZE_COLUMNS)

    def image_id(self, image_id: str) -> str:
        """Return the image id as the file spells it."""
        return image_id.removesuffix(self.id_suffix)

    def label(self, category: int) -> tuple[str, ...]:
        """Return the label columns of a detection without attributes."""
        return self.edition.join_label(category, ())


FORMATS: Mapping[str, SubmissionFormat] = {
    made.name: made
    for made in (
        SubmissionFormat(
            edition=IMATERIALIST_2019, raster="512x512", id_suffix="", sorts_attributes=False
        ),
        SubmissionFormat(
            edition=IMATERIALIST_2020,
            raster="long_edge_1024",
            id_suffix=".jpg",
            sorts_attributes=True,
        ),
    )
}


def format_named(name: str) -> SubmissionFormat:
    """Return the format of this name.

    Raises:
        InputError: There is none.
    """
    check_value("format", name, one_of(*FORMATS))
    return FORMATS[name]
