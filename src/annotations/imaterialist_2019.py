"""The CSV of iMaterialist (Fashion) 2019: ``ImageId,EncodedPixels,Height,Width,ClassId``.

``ClassId`` is a category and its attributes, joined by underscores in an order of their own
(``6_13_24``); ``ImageId`` is the file name of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from src.annotations.categories import IMATERIALIST_2019_LABELS
from src.annotations.imaterialist_csv import FILLER_CATEGORY, CsvEdition


def _split_label(class_id: str) -> tuple[str, list[str]]:
    category, *attributes = class_id.strip().split("_")
    return category, attributes


def _join_label(category_id: int, attribute_ids: tuple[int, ...]) -> tuple[str]:
    return ("_".join(map(str, (category_id, *attribute_ids))),)


IMATERIALIST_2019 = CsvEdition(
    name="imaterialist_2019",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId"),
    label_columns=("ClassId",),
    split_label=_split_label,
    join_label=_join_label,
    image_id_of=lambda image: image.file_name,
)


def is_competition(category_names: Mapping[int, str]) -> bool:
    """Return whether categories are the competition's: of its 46 ids, with 23 as the shoe.

    Only there is the filler row a prediction, and do the competition's rules for a submission hold.

    Args:
        category_names: Name by category id.
    """
    known = IMATERIALIST_2019_LABELS.category_names
    shoe = category_names.get(FILLER_CATEGORY, "")
    return (
        category_names.keys() <= known.keys()
        and shoe.strip().casefold() == known[FILLER_CATEGORY].casefold()
    )
