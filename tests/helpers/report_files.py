"""A small data set of images, ground truth and submission in a folder, for tests of the report."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tests.helpers.annotation_files import circle, run_text, write_csv

# A name that is a legal file name and would do harm in a page that does not escape it.
EVIL_NAME = "<img src=x onerror=alert(1)>\"'&.jpg"


def marks(svg: str, kind: str) -> list[ElementTree.Element]:
    """Return the elements of a drawing that have the class."""
    return [node for node in ElementTree.fromstring(svg).iter() if node.get("class") == kind]


def make_data(folder: Path, images: int = 6, size_hw=(120, 80)) -> Path:
    """``train/*.jpg``, ``train.csv`` and ``submission.csv``; the first image has EVIL_NAME, later
    images are predicted better.
    """
    (folder / "train").mkdir(parents=True)
    generator = np.random.default_rng(0)
    ground_truth, submission = [], []
    for number in range(images):
        name = EVIL_NAME if number == 0 else f"{number:032x}.jpg"
        noise = generator.integers(0, 255, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "train" / name)
        shift = 0.05 * (images - 1 - number) / images
        for place, category in enumerate(("4", "31", "31", "23_9")):
            y, x, radius = 0.2 + 0.2 * place, 0.5, 0.09
            mask = circle(size_hw, y, x, radius)
            ground_truth.append((name, run_text(mask), *size_hw, category))
            if number or place:
                shifted = circle((512, 512), y + shift, x, radius)
                submission.append((name, run_text(shifted), category.split("_")[0]))
    write_csv(folder / "train.csv", "ImageId,EncodedPixels,Height,Width,ClassId", ground_truth)
    write_csv(folder / "submission.csv", "ImageId,EncodedPixels,ClassId", submission)
    return folder


SCORE, NMS, MASK = (f"postprocess.{key}_threshold" for key in ("score", "nms_iou", "mask"))


def write_sweep(folder: Path, *, scored: bool = True) -> None:
    """A job for each of 2 x 3 x 2 thresholds."""
    jobs = product([0.5, 0.3], [0.2, 0.3, 0.4], [0.45, 0.5])
    for number, (score, nms, mask) in enumerate(jobs):
        (folder / str(number)).mkdir(parents=True)
        value = 0.1 + score / 2 - abs(nms - 0.3) + mask / 10 if scored else None
        content = {
            "identity": {},
            "overrides": {"postprocess": "winner", SCORE: score, NMS: nms, MASK: mask},
            "result": {
                "competition_map": value,
                "low": value and value - 0.02,
                "high": value and value + 0.03,
                "averaging": "per_class",
                "scored_images": 40,
                "num_detections": 100 + number,
            },
        }
        (folder / str(number) / "result.json").write_text(json.dumps(content))
