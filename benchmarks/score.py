"""The competition's score of a submission file: beside brute force on bitmaps, and its interval.

    python -m benchmarks.score

Both ways start from the same two CSV files, images of 12 megapixels with seven objects, and must
give the same score. Brute force draws every mask at its own size, takes the raster's rows and
columns, and intersects and unites the bitmaps of the pairs of a class.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.annotations.competition import THRESHOLDS
from src.metrics.intervals import bootstrap_interval
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison
from src.rle import encode, format_rle

IMAGE_HW = (4000, 3000)
RASTER_HW = (512, 512)
OBJECTS_PER_IMAGE = 7
CATEGORIES = 5

Objects = dict[str, list[tuple[str, npt.NDArray[np.bool_]]]]


def ellipse(size_hw: tuple[int, int], place: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """A mask from y, x and radius in shares of the frame. Shape ``size_hw``."""
    y, x, radius = place
    rows = ((np.arange(size_hw[0]) + 0.5) / size_hw[0] - y) ** 2
    columns = ((np.arange(size_hw[1]) + 0.5) / size_hw[1] - x) ** 2
    return rows[:, None] + columns[None] < radius**2


def write_files(folder: Path, images: int) -> tuple[Path, Path]:
    """A ground truth at image size, and a submission that finds most of it more or less well."""
    generator = np.random.default_rng(0)
    ground_truth, submission = folder / "train.csv", folder / "submission.csv"
    with ground_truth.open("w") as true_file, submission.open("w") as predicted_file:
        true_file.write("ImageId,EncodedPixels,Height,Width,ClassId\n")
        predicted_file.write("ImageId,EncodedPixels,ClassId\n")
        for number in range(images):
            name = f"{number:032x}.jpg"
            for _ in range(OBJECTS_PER_IMAGE):
                place = generator.uniform([0.1, 0.1, 0.02], [0.9, 0.9, 0.12])
                category = generator.integers(CATEGORIES)
                text = format_rle([encode(ellipse(IMAGE_HW, place))])[0]
                true_file.write(f"{name},{text},{IMAGE_HW[0]},{IMAGE_HW[1]},{category}\n")
                found = place * generator.normal(1, [0.02, 0.02, 0.05])
                text = format_rle([encode(ellipse(RASTER_HW, found))])[0]
                predicted_file.write(f"{name},{text},{category}\n")
    return submission, ground_truth


def score_files(submission: Path, truth_file: Path) -> float:
    """This project's way."""
    with (
        open_ground_truth(truth_file) as ground_truth,
        open_submission(submission, ground_truth) as prediction,
    ):
        comparison = compare(ground_truth, prediction, prediction_name=submission.name)
        return score_comparison(comparison).competition_map


def brute_force(submission: Path, truth_file: Path) -> float:
    """The plain way, mean over classes."""
    ground_truth, prediction = _bitmaps(truth_file), _bitmaps(submission)
    scores = []
    for image_id, ground_truth_instances in ground_truth.items():
        num_detections = prediction.get(image_id, [])
        categories = {name for name, _ in ground_truth_instances + num_detections}
        values = [
            class_value(
                [mask for name, mask in ground_truth_instances if name == category],
                [mask for name, mask in num_detections if name == category],
            )
            for category in categories
        ]
        scores.append(np.mean(values))
    return float(np.mean(scores))


def _bitmaps(path: Path) -> Objects:
    csv.field_size_limit(1 << 30)
    objects: Objects = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            height, width = int(row.get("Height") or 512), int(row.get("Width") or 512)
            values = np.array(row["EncodedPixels"].split(), dtype=np.int64)
            pixels = np.zeros(height * width, dtype=bool)
            for start, length in zip(values[::2] - 1, values[1::2], strict=True):
                pixels[start : start + length] = True
            mask = pixels.reshape(width, height).T
            rows = np.arange(RASTER_HW[0]) * height // RASTER_HW[0]
            columns = np.arange(RASTER_HW[1]) * width // RASTER_HW[1]
            objects.setdefault(row["ImageId"], []).append(
                (row["ClassId"], mask[rows[:, None], columns[None]])
            )
    return objects


def class_value(
    ground_truth: list[npt.NDArray[np.bool_]], prediction: list[npt.NDArray[np.bool_]]
) -> float:
    """Mean over thresholds of TP / (TP + FP + FN)."""
    pairs = []
    for i, true_mask in enumerate(ground_truth):
        for j, predicted_mask in enumerate(prediction):
            either = np.logical_or(true_mask, predicted_mask).sum()
            iou = np.logical_and(true_mask, predicted_mask).sum() / either if either else 0.0
            pairs.append((-iou, i, j))
    values = []
    for threshold in THRESHOLDS:
        used_truth: set[int] = set()
        used_prediction: set[int] = set()
        for negative_iou, i, j in sorted(pairs):
            if -negative_iou > threshold and i not in used_truth and j not in used_prediction:
                used_truth.add(i)
                used_prediction.add(j)
        true_positives = len(used_truth)
        values.append(true_positives / (len(ground_truth) + len(prediction) - true_positives))
    return float(np.mean(values))


def run(images: int = 300, rounds: int = 5) -> dict[str, Any]:
    """Score the same files both ways and time the interval.

    Raises:
        AssertionError: the two ways disagree.
    """
    with tempfile.TemporaryDirectory() as folder:
        submission, ground_truth = write_files(Path(folder), images)
        start = time.process_time()
        expected = brute_force(submission, ground_truth)
        brute_seconds = time.process_time() - start
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            score = score_files(submission, ground_truth)
            seconds.append(time.process_time() - start)
    if abs(score - expected) > 1e-12:
        raise AssertionError(f"the two ways disagree: {score} and {expected}")
    per_image = np.random.default_rng(0).random(450)
    start = time.process_time()
    bootstrap_interval(per_image, num_resamples=10_000)
    return {
        "images": images,
        "brute_force_ms_an_image": round(1000 * brute_seconds / images, 2),
        "ours_ms_an_image": round(1000 * min(seconds) / images, 3),
        "times_faster": round(brute_seconds / min(seconds), 1),
        "interval_of_450_images_s": round(time.process_time() - start, 3),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
