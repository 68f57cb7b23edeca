"""Generated inputs of ``python -m benchmarks load``: as large as real data, hardly drawn."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.measuring import link_or_copy
from benchmarks.postprocess import make_image
from benchmarks.threshold_grid import RULES, TRUE_SETTINGS
from src.annotations.instances import RASTER_HW
from src.postprocess.pipeline import postprocess
from src.predictions.store import PredictionStoreWriter
from src.rle import format_rle
from src.synthetic.image import draw_image
from src.tuning.evaluated_image import as_submitted

COCO_SIZES_HW = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (640, 640))
COCO_CATEGORIES = 80
_SHAPES = 4096  # distinct outlines, which are moved and scaled
_POINTS = (8, 44)  # of an outline: 26 on average, as in COCO
_CROWD_SHARE = 0.01


def write_plain_images(folder: Path, sizes_hw: Sequence[tuple[str, int, int]]) -> None:
    """Give each image (name, height, width) a file: one gray JPEG for each size, by links."""
    folder.mkdir(parents=True)
    first: dict[tuple[int, int], Path] = {}
    for name, height, width in sizes_hw:
        path = folder / name
        if (height, width) in first:
            link_or_copy(first[height, width], path)
            continue
        Image.new("RGB", (width, height), (128, 128, 128)).save(path, quality=75)
        first[height, width] = path


def sizes_in_csv(path: Path) -> list[tuple[str, int, int]]:
    """Read name, height and width of each image of a train.csv, whose rows lie together."""
    found: dict[bytes, tuple[bytes, bytes]] = {}
    with path.open("rb") as file:
        next(file)
        for line in file:
            height, width = line.rsplit(b",", 3)[1:3]
            found[line[: line.index(b",")]] = (height, width)
    return [(name.decode(), int(height), int(width)) for name, (height, width) in found.items()]


def write_coco(
    path: Path,
    images: int,
    instances: int,
    *,
    sizes_hw: Sequence[tuple[int, int]] = COCO_SIZES_HW,
    suffix: str = ".jpg",
    seed: int = 0,
) -> list[tuple[str, int, int]]:
    """Write a COCO JSON with polygons, and a share of crowd regions as RLE.

    Returns:
        Name, height and width of each image.
    """
    random = np.random.default_rng(seed)
    names = [
        (f"{number:012d}{suffix}", *sizes_hw[number % len(sizes_hw)]) for number in range(images)
    ]
    shapes = [_shape(random) for _ in range(_SHAPES)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        file.write(
            ",\n".join(
                json.dumps({"id": n, "file_name": name, "height": height, "width": width})
                for n, (name, height, width) in enumerate(names)
            )
        )
        categories = [{"id": n + 1, "name": f"class {n + 1}"} for n in range(COCO_CATEGORIES)]
        file.write(f'],\n"categories": {json.dumps(categories)},\n"annotations": [\n')
        lines = _annotations(random, names, shapes, instances)
        file.write(next(lines))
        file.writelines(f",\n{line}" for line in lines)
        file.write("\n]}\n")
    return names


def _shape(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return an outline around 0 within -1 to 1, shape (N, 2)."""
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(*_POINTS, endpoint=True)))
    radii = random.uniform(0.5, 1, len(angles))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _annotations(
    random: np.random.Generator,
    names: Sequence[tuple[str, int, int]],
    shapes: Sequence[npt.NDArray[np.float64]],
    instances: int,
) -> Iterator[str]:
    owner = np.sort(random.integers(0, len(names), instances))
    owner[: len(names)] = np.arange(min(len(names), instances))  # no image is without
    chosen = random.integers(0, len(shapes), instances).tolist()
    category = (random.zipf(1.4, instances) % COCO_CATEGORIES + 1).tolist()
    place = random.uniform(0.1, 0.9, (instances, 2))
    radius = np.exp(random.uniform(np.log(0.02), np.log(0.4), instances))
    is_crowd = random.random(instances) < _CROWD_SHARE
    for number, image in enumerate(owner.tolist()):
        _, height, width = names[image]
        points = (place[number] + radius[number] * shapes[chosen[number]]) * (width, height)
        points = np.clip(points, 0, (width, height)).round(2)
        low, high = points.min(axis=0), points.max(axis=0)
        if is_crowd[number]:
            size = int(radius[number] * height * width / 2)
            segmentation: Any = {
                "size": [height, width],
                "counts": [100, size, height * width - size - 100],
            }
        else:
            segmentation = [points.ravel().tolist()]
        yield json.dumps(
            {
                "id": number + 1,
                "image_id": image,
                "category_id": category[number],
                "segmentation": segmentation,
                "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
                "area": round(float(_area(points)), 2),
                "iscrowd": int(is_crowd[number]),
            }
        )


def _area(points: npt.NDArray[np.float64]) -> float:
    x, y = points.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def write_predictions(folder: Path, images: int, candidates: int) -> None:
    """Write ``store``, ``sample.csv`` and, as ``truth.csv``, what moved candidates give."""
    with (
        PredictionStoreWriter(folder / "store", category_ids=range(46), settings={}) as writer,
        (folder / "truth.csv").open("w") as truth,
        (folder / "sample.csv").open("w") as sample,
    ):
        truth.write("ImageId,EncodedPixels,Height,Width,ClassId\n")
        sample.write("ImageId,EncodedPixels,ClassId\n")
        for number in range(images):
            name = f"{number:05d}.jpg"
            image = make_image(number, objects=10, candidates=candidates)
            image = replace(image, image_id=name)
            writer.add(image)
            shift = np.random.default_rng(number).normal(0, 25, (candidates, 4))
            moved = replace(image, boxes_xyxy=(image.boxes_xyxy + shift).astype(np.float32))
            found = as_submitted(postprocess(moved, TRUE_SETTINGS), filler=RULES.filler)
            texts = format_rle(found.bitmasks.to_rle())
            for text, category in zip(texts, found.class_keys, strict=True):
                truth.write(f"{name},{text},{RASTER_HW[0]},{RASTER_HW[1]},{category}\n")
            sample.write(f"{name},1 1,23\n")


def write_drawn_images(
    folder: Path, images: int, *, size_hw: tuple[int, int], distinct: int = 8
) -> None:
    """Write JPEG files of generated scenes, enlarged; the first ones have many names."""
    folder.mkdir(parents=True)
    names = (folder / f"{number:05d}.jpg" for number in range(images))
    first = list(itertools.islice(names, distinct))
    for number, path in enumerate(first):
        Image.fromarray(draw_large(number, size_hw)).save(path, quality=90)
    for number, path in enumerate(names):
        link_or_copy(first[number % distinct], path)


def draw_large(seed: int, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return a generated scene, enlarged, (H, W, 3) uint8 RGB."""
    drawn = draw_image(np.random.default_rng(seed), 800, 0.5, 0.5)
    enlarged = cv2.resize(drawn.image, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged, dtype=np.uint8)
