"""Images of one drawn garment under each EXIF orientation, annotated in each form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.rle import Rle, RleBatch, decode, encode, format_rle, to_coco
from src.rle.coco import from_polygons
from tests.helpers.masks import coco_counts

DISPLAYED_HW = (120, 72)
Bitmap = npt.NDArray[np.bool_]
Points = tuple[tuple[int, int], ...]

# a garment without symmetry, x and y on the displayed image; it fits into 72 x 72 px
GARMENT = ((10, 12), (50, 8), (64, 30), (48, 36), (56, 66), (30, 60), (34, 40), (14, 34))
LONG_GARMENT = tuple((x, y + y // 2) for x, y in GARMENT)  # it does not

# to the stored rows and columns: what the orientation's turn takes back
_BACK = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[::-1],
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: image.swapaxes(0, 1)[:, ::-1],
}


def stored(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return the rows and columns that a viewer turns into ``image``."""
    return np.ascontiguousarray(_BACK[orientation](image))


def drawn(points: Points = GARMENT) -> Bitmap:
    """Return the garment as drawn on the displayed image."""
    return decode(from_polygons([np.ravel(points).tolist()], DISPLAYED_HW))


def save_image(path: Path, mask: Bitmap, orientation: int) -> None:
    """Save an image of the garment that is displayed upright, in red on gray."""
    pixels = np.where(mask[:, :, None], [200, 30, 30], [120, 120, 120]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored(pixels, orientation))
    image.save(path, exif=exif, quality=95, subsampling=0)


def polygon_of(orientation: int, made_on: str, points: Points = GARMENT) -> list[float]:
    """Return the garment's outline in the coordinates of the image that it was drawn on."""
    height, width = DISPLAYED_HW
    back = {
        1: lambda x, y: (x, y),
        2: lambda x, y: (width - x, y),
        3: lambda x, y: (width - x, height - y),
        4: lambda x, y: (x, height - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (y, width - x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (height - y, x),
    }[orientation if made_on == "as_stored" else 1]
    return [float(value) for point in points for value in back(*point)]


def sizes_hw(orientation: int, made_on: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of the grid that masks lie on, and the size that the file names."""
    stored_hw = DISPLAYED_HW[::-1] if orientation > 4 else DISPLAYED_HW
    if made_on == "as_stored":
        return stored_hw, stored_hw
    return DISPLAYED_HW, DISPLAYED_HW if made_on == "as_displayed" else DISPLAYED_HW[::-1]


def write_annotations(
    path: Path,
    images: dict[str, int],
    *,
    form: str,
    made_on: str,
    points: Points = GARMENT,
    with_boxes: bool = False,
) -> Path:
    """Write an annotation file.

    Args:
        path: without suffix.
        images: EXIF orientation by file name.
        form: ``polygon``, ``counts``, ``rle`` (compressed) or ``csv``.
        made_on: ``as_displayed``, ``as_stored``, or ``exchanged``: as displayed, with the size
            exchanged.
        points: the garment.
        with_boxes: COCO's ``bbox`` and ``area`` stand beside each mask, on the image that it was
            made on.
    """
    entries, annotations, lines = [], [], ["ImageId,EncodedPixels,Height,Width,ClassId"]
    for number, (name, orientation) in enumerate(images.items()):
        _, named_hw = sizes_hw(orientation, made_on)
        mask = drawn(points)
        encoded = encode(stored(mask, orientation) if made_on == "as_stored" else mask)
        named = Rle(encoded.runs, named_hw)
        lines.append(f"{name},{format_rle([encoded])[0]},{named_hw[0]},{named_hw[1]},6")
        size = list(named_hw)
        segmentation: Any = {
            "polygon": lambda o=orientation: [polygon_of(o, made_on, points)],
            "counts": lambda m=named, s=size: {"size": s, "counts": coco_counts(m)},
            "rle": lambda m=named, s=size: {"size": s, "counts": to_coco([m])[0]},
            "csv": lambda: None,
        }[form]()
        entries.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 6, "segmentation": segmentation}
        )
        if with_boxes:
            grid_hw = sizes_hw(orientation, made_on)[0]
            on_grid = RleBatch.of([Rle(encoded.runs, grid_hw)])
            left, top, right, bottom = on_grid.boxes_xyxy()[0].tolist()
            box_xywh = [left, top, right - left, bottom - top]
            annotations[-1] |= {"bbox": box_xywh, "area": int(mask.sum())}
    if form == "csv":
        path = path.with_suffix(".csv")
        path.write_text("\n".join(lines) + "\n")
        return path
    path = path.with_suffix(".json")
    categories = [{"id": 6, "name": "pants"}]
    path.write_text(
        json.dumps({"images": entries, "annotations": annotations, "categories": categories})
    )
    return path
