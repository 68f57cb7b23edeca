"""Annotation files for tests, written row by row, and an independent reading of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from src.annotations.store import AnnotationStore

HEADER_2019 = "ImageId,EncodedPixels,Height,Width,ClassId"
HEADER_2020 = "ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds"
REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_lines(path: Path, *lines: str | bytes) -> Path:
    """Write lines, each ended by a line feed."""
    data = (line if isinstance(line, bytes) else line.encode() for line in lines)
    path.write_bytes(b"".join(line + b"\n" for line in data))
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV as Python's own module reads them, sorted by what they hold."""
    csv.field_size_limit(1 << 30)
    with open(path, newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda row: sorted(row.items()))


def bitmap_of(text: str, height: int, width: int) -> np.ndarray:
    """Decode run lengths pixel by pixel, by the competition's definition."""
    pixels = np.zeros(height * width, dtype=bool)
    values = [int(value) for value in text.split()]
    for start, length in zip(values[::2], values[1::2], strict=True):
        for pixel in range(start, start + length):
            pixels[pixel - 1] = True
    return pixels.reshape(width, height).T


def objects_of(store: AnnotationStore) -> list[tuple]:
    """Everything in a store as plain values, an object a tuple."""
    found = []
    for index, image in enumerate(store.images):
        objects = store.instances(index)
        for at in range(len(objects)):
            found.append(
                (
                    image.image_id,
                    image.size_hw,
                    int(objects.category_ids[at]),
                    objects.attribute_ids[at],
                    objects.runs[at].tolist(),
                    objects.boxes_xyxy[at].tolist(),
                    int(objects.areas_px[at]),
                )
            )
    return found
