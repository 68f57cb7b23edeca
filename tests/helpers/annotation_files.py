"""Annotation files written row by row or from bitmaps, and an independent reading of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.annotations.store import AnnotationStore

HEADER_2019 = "ImageId,EncodedPixels,Height,Width,ClassId"
HEADER_2020 = "ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds"


def write_lines(path: Path, *lines: str | bytes) -> Path:
    """Write lines, each ended by a line feed."""
    data = (line if isinstance(line, bytes) else line.encode() for line in lines)
    path.write_bytes(b"".join(line + b"\n" for line in data))
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV as Python's own module reads them, sorted by what they hold."""
    csv.field_size_limit(1 << 30)
    with path.open(newline="", encoding="utf-8") as file:
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
                    objects.masks[at].runs.tolist(),
                    objects.boxes_xyxy[at].tolist(),
                    int(objects.areas_px[at]),
                )
            )
    return found


CIRCLES_SEED = 20190601


def run_text(mask: np.ndarray) -> str:
    """Column-major, 1-based run lengths of a bitmap."""
    pixels = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(pixels))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{s + 1} {e - s}" for s, e in zip(starts, ends, strict=True))


def write_csv(path: Path, header: str, rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
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
    ground_truth, prediction = [], []
    for number in range(images):
        image_id = f"{number:032x}.jpg"
        for _ in range(objects):
            y, x = generator.uniform(0.1, 0.9, 2)
            radius = generator.uniform(0.02, 0.12)
            category = str(generator.integers(0, 5))
            ground_truth.append(
                (image_id, circle(sizes_hw[number % len(sizes_hw)], y, x, radius), category)
            )
            if generator.random() < 0.9:
                y, x, radius = (
                    y + generator.normal(0, 0.01),
                    x,
                    radius * generator.uniform(0.9, 1.1),
                )
                prediction.append((image_id, circle((512, 512), y, x, radius), category))
    return ground_truth, prediction


def write_data(
    folder: Path, categories: dict[int, str], instances: list[int], images: int = 6
) -> Path:
    """A COCO file with an instance of each of these categories on every image, and the images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    content: dict[str, list[Any]] = {
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        "images": [],
        "annotations": [],
    }
    for number in range(images):
        name = f"{number}.png"
        Image.fromarray(np.full((48, 40, 3), 20 * number, np.uint8)).save(folder / "images" / name)
        content["images"].append({"id": number, "file_name": name, "height": 48, "width": 40})
        content["annotations"] += [
            {
                "id": len(content["annotations"]) + place,
                "image_id": number,
                "category_id": category,
                "segmentation": [[2, 2, 30, 2, 30, 20 + place, 2, 20 + place]],
                "bbox": [2, 2, 28, 18 + place],
                "area": 28 * (18 + place),
                "iscrowd": 0,
            }
            for place, category in enumerate(instances)
        ]
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"
