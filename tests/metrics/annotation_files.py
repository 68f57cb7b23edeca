"""Annotation files for tests, written by hand from bitmaps; nothing of src."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

CIRCLES_SEED = 20190601


def run_text(mask: np.ndarray) -> str:
    """Column-major, 1-based run lengths of a bitmap."""
    pixels = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(pixels))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{s + 1} {e - s}" for s, e in zip(starts, ends, strict=True))


def write_csv(path: Path, header: str, rows: list[tuple[object, ...]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def write_truth(path: Path, objects: list[tuple[str, np.ndarray, str]]) -> Path:
    """2019 format, of (image id, bitmap at image size, ClassId)."""
    rows = [
        (image_id, run_text(mask), *mask.shape, class_id) for image_id, mask, class_id in objects
    ]
    return write_csv(path, "ImageId,EncodedPixels,Height,Width,ClassId", rows)


def write_submission(path: Path, objects: list[tuple[str, np.ndarray, str]]) -> Path:
    """Of (image id, bitmap on the raster, ClassId)."""
    rows = [(image_id, run_text(mask), class_id) for image_id, mask, class_id in objects]
    return write_csv(path, "ImageId,EncodedPixels,ClassId", rows)


def circle(size_hw: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    """An ellipse in the frame's own proportions; y, x and radius are shares of the frame."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return (
        ((rows + 0.5) / size_hw[0] - y) ** 2 + ((columns + 0.5) / size_hw[1] - x) ** 2
    ) < radius**2


def circles(
    images: int, sizes_hw: list[tuple[int, int]], objects: int = 7, seed: int = CIRCLES_SEED
) -> tuple[list[tuple[str, np.ndarray, str]], list[tuple[str, np.ndarray, str]]]:
    """Truth at image size and a submission that finds it more or less well."""
    generator = np.random.default_rng(seed)
    truth, prediction = [], []
    for number in range(images):
        image_id = f"{number:032x}.jpg"
        for _ in range(objects):
            y, x = generator.uniform(0.1, 0.9, 2)
            radius = generator.uniform(0.02, 0.12)
            category = str(generator.integers(0, 5))
            truth.append(
                (image_id, circle(sizes_hw[number % len(sizes_hw)], y, x, radius), category)
            )
            if generator.random() < 0.9:
                y, x, radius = (
                    y + generator.normal(0, 0.01),
                    x,
                    radius * generator.uniform(0.9, 1.1),
                )
                prediction.append((image_id, circle((512, 512), y, x, radius), category))
    return truth, prediction
