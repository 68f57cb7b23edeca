"""A small data set of images, truth and submission in a folder, for tests of the report."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

# A name that is a legal file name and would do harm in a page that does not escape it.
EVIL_NAME = "<img src=x onerror=alert(1)>\"'&.jpg"


def disc(size_hw, y, x, radius):
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return (
        ((rows + 0.5) / size_hw[0] - y) ** 2 + ((columns + 0.5) / size_hw[1] - x) ** 2
    ) < radius**2


def run_text(mask):
    pixels = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(pixels))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return " ".join(f"{start + 1} {end - start}" for start, end in pairs)


def write_csv(path: Path, header: str, rows) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def make_data(folder: Path, images: int = 6, size_hw=(120, 80)) -> Path:
    """``train/*.jpg``, ``train.csv`` and ``submission.csv``; the first image has EVIL_NAME, later
    images are predicted better.
    """
    (folder / "train").mkdir(parents=True)
    generator = np.random.default_rng(0)
    truth, submission = [], []
    for number in range(images):
        name = EVIL_NAME if number == 0 else f"{number:032x}.jpg"
        noise = generator.integers(0, 255, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "train" / name)
        shift = 0.05 * (images - 1 - number) / images
        for place, category in enumerate(("4", "31", "31", "23_9")):
            y, x, radius = 0.2 + 0.2 * place, 0.5, 0.09
            mask = disc(size_hw, y, x, radius)
            truth.append((name, run_text(mask), *size_hw, category))
            if number or place:
                shifted = disc((512, 512), y + shift, x, radius)
                submission.append((name, run_text(shifted), category.split("_")[0]))
    write_csv(folder / "train.csv", "ImageId,EncodedPixels,Height,Width,ClassId", truth)
    write_csv(folder / "submission.csv", "ImageId,EncodedPixels,ClassId", submission)
    return folder
