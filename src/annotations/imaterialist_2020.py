"""The CSV of iMaterialist (Fashion) 2020: as 2019, with a column ``AttributesIds`` of its own.

``ClassId`` is the category alone; ``AttributesIds`` are joined by commas in ascending order, empty
for none; ``ImageId`` is the file name of the picture without ``.jpg``. The categories are those of
2019. The attribute ids are not: 2020 has 294 with gaps, and converting keeps the numbers as they
are.
"""

from __future__ import annotations

from src.annotations.imaterialist_csv import CsvEdition


def _split_label(class_id: str, attributes_ids: str) -> tuple[str, list[str]]:
    attributes = attributes_ids.strip()
    return class_id.strip(), attributes.split(",") if attributes else []


def _join_label(category_id: int, attribute_ids: tuple[int, ...]) -> tuple[str, str]:
    return str(category_id), ",".join(map(str, sorted(attribute_ids)))


IMATERIALIST_2020 = CsvEdition(
    name="imaterialist_2020",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds"),
    label_columns=("ClassId", "AttributesIds"),
    split_label=_split_label,
    join_label=_join_label,
    image_id_of=lambda image: image.file_name.removesuffix(".jpg"),
)
