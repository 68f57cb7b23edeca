"""Settings of a small generated data set; its CSV read without the project's readers."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

csv.field_size_limit(sys.maxsize)

TRAIN_IMAGES, TEST_IMAGES = 26, 5
SETTINGS = {
    "seed": 5,
    "image_size": (150, 220),
    "grayscale_share": 0.2,
    "rotated_share": 0.3,
}


@dataclass
class Row:
    image_id: str
    numbers: list[int]
    size_hw: tuple[int, int]
    class_id: str

    @property
    def category(self) -> int:
        return int(self.class_id.split("_")[0])

    @property
    def runs(self) -> np.ndarray:
        """(R, 2), 0-based."""
        return np.array(self.numbers).reshape(-1, 2) - (1, 0)

    def mask(self, size_hw: tuple[int, int] | None = None) -> np.ndarray:
        """Decoded by the competition's rule: column-major, from 1."""
        height, width = size_hw or self.size_hw
        flat = np.zeros(height * width, dtype=bool)
        for start, length in self.runs:
            flat[start : start + length] = True
        return flat.reshape(width, height).T


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [
            Row(
                line["ImageId"],
                [int(text) for text in line["EncodedPixels"].split(" ")],
                (int(line["Height"]), int(line["Width"])),
                line["ClassId"],
            )
            for line in csv.DictReader(file)
        ]


def by_image(rows: list[Row]) -> dict[str, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row.image_id].append(row)
    return dict(groups)
