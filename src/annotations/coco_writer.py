"""Writing COCO JSON with compressed run lengths, as every COCO tool reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np

from src.annotations.categories import LabelDescriptions, label_descriptions_to_json
from src.annotations.coco_runs import to_coco_compressed_batch
from src.annotations.instances import ImageRecord
from src.annotations.store_blocks import StoredBlock


def write_coco(
    images: Sequence[ImageRecord],
    blocks: Iterable[StoredBlock],
    *,
    labels: LabelDescriptions,
    file: IO[bytes],
) -> None:
    """Write a COCO JSON file: images numbered from 1 in their order, annotations in theirs.

    Args:
        images: all images, those without objects included.
        blocks: the objects, ``image_indices`` counting in ``images``.
        labels: the categories and attributes.
        file: where to.
    """
    descriptions = label_descriptions_to_json(labels)
    file.write(b'{"info": {"description": "converted annotations", "version": "1.0"},\n"images": [')
    entries = (
        json.dumps(
            {
                "id": number,
                "file_name": image.file_name,
                "height": image.height_px,
                "width": image.width_px,
            },
            ensure_ascii=False,
        )
        for number, image in enumerate(images, start=1)
    )
    file.write(("\n" + ",\n".join(entries)).encode())
    for name, value in descriptions.items():
        file.write(f'],\n"{name}": [\n'.encode())
        file.write(",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value).encode())
    file.write(b'],\n"annotations": [')
    number = 0
    for block in blocks:
        lines = _annotations(block, first_number=number + 1)
        file.write((",\n" if number else "\n").encode() + ",\n".join(lines).encode())
        number += len(lines)
    file.write(b"\n]}\n")


def _annotations(block: StoredBlock, first_number: int) -> list[str]:
    sizes = [image.size_hw for image in block.images]
    counts = to_coco_compressed_batch(
        block.runs, block.offsets, np.array(sizes, dtype=np.int64).reshape(-1, 2)
    )
    boxes_xywh = block.boxes_xyxy.copy()
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return [
        f'{{"id": {number}, "image_id": {image + 1}, "category_id": {category}, '
        f'"attribute_ids": {list(attributes)}, "segmentation": {{"size": [{height}, {width}], '
        # The backslash is the one character of the counts that JSON escapes.
        f'"counts": "{text.replace(_BACKSLASH, _BACKSLASH * 2)}"}}, "area": {area}, '
        f'"bbox": {box}, "iscrowd": {int(crowd)}}}'
        for number, (
            image,
            category,
            attributes,
            (height, width),
            text,
            area,
            box,
            crowd,
        ) in enumerate(
            zip(
                block.image_indices,
                block.category_ids,
                block.attribute_ids,
                sizes,
                counts,
                block.areas_px.tolist(),
                boxes_xywh.tolist(),
                block.is_crowd,
                strict=True,
            ),
            start=first_number,
        )
    ]


_BACKSLASH = "\\"
