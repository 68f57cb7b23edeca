"""A small data set drawn here: ellipses whose colour says their class, on clouds."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.datamodules.datamodule import CompetitionDataModule
from tests.helpers.annotation_files import run_text

COLOURS = {3: (255, 0, 0), 6: (0, 255, 0), 23: (0, 0, 255), 31: (255, 255, 0)}
ORIENTATION_TAG = 0x0112


def ellipse(
    size_hw: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int]
) -> np.ndarray:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


@dataclass
class DrawnImage:
    """An image as it is displayed, with its objects."""

    image_id: str
    image: np.ndarray
    objects: list[tuple[int, np.ndarray]] = field(default_factory=list)


def draw_image(
    image_id: str, size_hw: tuple[int, int], generator: np.random.Generator
) -> DrawnImage:
    """Clouds of gray 90 to 160 with one to three ellipses in different thirds."""
    height, width = size_hw
    coarse = generator.integers(90, 160, size=(height // 8, width // 8), dtype=np.uint8)
    gray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = DrawnImage(image_id, np.repeat(gray[:, :, None], 3, axis=2))
    categories = generator.permutation(list(COLOURS))[: generator.integers(1, 4)]
    for number, category in enumerate(categories.tolist()):
        centre = (int(height * (0.2 + 0.3 * number)), int(width * generator.uniform(0.3, 0.7)))
        radii = (max(2, height // 9), max(2, int(width * generator.uniform(0.1, 0.25))))
        mask = ellipse(size_hw, centre, radii)
        image.image[mask] = COLOURS[category]
        image.objects.append((category, mask))
    return image


def save_image(drawn: DrawnImage, path: Path, *, orientation: int = 1, gray: bool = False) -> None:
    """Save so that the image is displayed as given, through an EXIF rotation where asked."""
    undo = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(drawn.image)
    if undo[orientation] is not None:
        image = image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image = image.convert("L") if gray else image
    image.save(path, quality=100, subsampling=0, exif=exif)


def write_rows(images: list[DrawnImage], path: Path, *, transposed: tuple[str, ...] = ()) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for image in images:
            height, width = image.image.shape[:2]
            if image.image_id in transposed:
                height, width = width, height
            for category, mask in image.objects:
                rows.writerow([image.image_id, run_text(mask), height, width, category])


@dataclass
class Data:
    directory: Path
    images: dict[str, DrawnImage]

    def datamodule(self, **changes) -> CompetitionDataModule:
        values = {
            "annotations": str(self.directory / "train.csv"),
            "images": str(self.directory / "train"),
            "split_file": str(self.directory / "split.json"),
            "num_validation_images": 4,
            "split_seed": 777,
            "cache_dir": str(self.directory / "cache"),
            "test_images": str(self.directory / "test"),
            "train_short_edge_px": (40, 60),
            "train_long_edge_px": 100,
            "predict_short_edge_px": 48,
            "predict_long_edge_px": 80,
            "batch_size": 2,
        }
        return CompetitionDataModule(**(values | changes))


def draw_data(directory: Path) -> Data:
    """16 annotated images, one gray, three EXIF-rotated, one of them with transposed rows; 3 test
    images, one EXIF-rotated.
    """
    generator = np.random.default_rng(5)
    sizes = [tuple(generator.integers(60, 140, size=2).tolist()) for _ in range(16)]
    images = [draw_image(f"{n:04x}.jpg", size, generator) for n, size in enumerate(sizes)]
    (directory / "train").mkdir()
    (directory / "test").mkdir()
    for number, image in enumerate(images):
        save_image(
            image,
            directory / "train" / image.image_id,
            orientation={1: 6, 2: 8, 3: 3}.get(number, 1),
            gray=number == 4,
        )
    write_rows(images, directory / "train.csv", transposed=("0002.jpg",))
    for number in range(3):
        image = draw_image(f"t{number}.jpg", (70 + number, 90), generator)
        save_image(image, directory / "test" / image.image_id, orientation=6 if number == 2 else 1)
    return Data(directory, {image.image_id: image for image in images})
