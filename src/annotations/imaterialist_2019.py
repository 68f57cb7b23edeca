"""The CSV of iMaterialist (Fashion) 2019: ``ImageId,EncodedPixels,Height,Width,ClassId``.

``ClassId`` is a category and its attributes, joined by underscores in an order of their own
(``6_13_24``); ``ImageId`` is the file name of the picture.
"""

from __future__ import annotations

from src.annotations.imaterialist_csv import CsvEdition


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
