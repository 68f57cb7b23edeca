"""A grid of score x NMS x mask threshold on a validation store, beside the plain way.

    python -m benchmarks.threshold_grid

450 images of 12 megapixels with 100 candidates each, 100 settings, scored against their truth. The
plain way post-processes and scores each image anew for each setting, with masks at image size and
bitmaps (benchmarks/postprocess.py, benchmarks/score.py). It would take days, so it is measured on a
few images and settings, where both ways must give the same scores, and multiplied. CPU time, all on
one core; the wall time of the grid is given beside it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.postprocess import SETTINGS, make_image, plain_objects
from benchmarks.score import class_value
from src.annotations.competition import Competition
from src.annotations.imaterialist_csv import FILLER_CATEGORY
from src.annotations.instances import RASTER_HW
from src.metrics.competition import ImageInstances
from src.postprocess.pipeline import postprocess
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.tuning.evaluated_image import as_submitted
from src.tuning.settings_evaluator import SettingsEvaluator

RULES = Competition.preset("imaterialist_2019")

GRID = [
    SETTINGS.replace(score_threshold=score, nms_iou_threshold=iou, mask_threshold=mask)
    for score, iou, mask in product(
        (0.3, 0.4, 0.5, 0.6, 0.7), (0.2, 0.3, 0.4, 0.5), (0.35, 0.4, 0.45, 0.5, 0.55)
    )
]
TRUE_SETTINGS = SETTINGS.replace(score_threshold=0.6, mask_threshold=0.55)


def make_store(folder: Path, images: int, candidates: int) -> tuple[PredictionStore, list[Any]]:
    """Candidates in a store; the ground truth is what other settings make of shifted ones."""
    ground_truth = []
    with PredictionStoreWriter(folder, category_ids=range(46), settings={}) as writer:
        for number in range(images):
            image = make_image(number, objects=10, candidates=candidates)
            image = replace(image, image_id=f"{number:05d}.jpg")
            writer.add(image)
            shift = np.random.default_rng(number).normal(0, 25, (candidates, 4))
            moved = replace(image, boxes_xyxy=(image.boxes_xyxy + shift).astype(np.float32))
            ground_truth.append(
                as_submitted(
                    postprocess(moved, TRUE_SETTINGS),
                    filler=RULES.filler,
                )
            )
    return PredictionStore(folder), ground_truth


def plain_score(
    image: Candidates, ground_truth: ImageInstances, settings: PostprocessSettings
) -> float:
    """An image's score, mean over classes, from bitmaps."""
    found = plain_objects(image, settings)
    if not found:
        corner = np.zeros(RASTER_HW, dtype=bool)
        corner[0, 0] = True
        found = [(corner, FILLER_CATEGORY)]
    true_masks = ground_truth.bitmasks.unpack()
    categories = {category for _, category in found} | set(ground_truth.class_keys)
    return float(
        np.mean(
            [
                class_value(
                    _of(category, zip(true_masks, ground_truth.class_keys, strict=True)),
                    _of(category, found),
                )
                for category in categories
            ]
        )
    )


def _of(category: Any, objects: Any) -> list[npt.NDArray[np.bool_]]:
    return [mask for mask, key in objects if key == category]


def run(
    *, images: int = 450, candidates: int = 100, plain_images: int = 2, plain_every: int = 17
) -> dict[str, Any]:
    """Score the grid; score some images under some of its settings the plain way.

    Args:
        images: In the store.
        candidates: Of each image.
        plain_images: That the plain way scores.
        plain_every: It takes every so manieth of the settings.

    Raises:
        AssertionError: the two ways disagree.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store, ground_truth_instances = make_store(Path(folder) / "store", images, candidates)
        ground_truth = {objects.image_id: objects for objects in ground_truth_instances}
        wall, cpu = time.perf_counter(), time.process_time()
        scores = SettingsEvaluator(
            store,
            ground_truth,
            store.image_ids,
            competition=RULES,
        ).score_grid(GRID)
        seconds, wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
        chosen: Sequence[int] = range(0, len(GRID), plain_every)
        cpu = time.process_time()
        for number in range(plain_images):
            image = store.candidates(number)
            for setting in chosen:
                plain = plain_score(image, ground_truth_instances[number], GRID[setting])
                ours = scores[setting].per_image[number]
                if abs(plain - ours) > 1e-12:
                    raise AssertionError(f"the two ways disagree: {ours} and {plain}")
        plain_seconds = (time.process_time() - cpu) / (plain_images * len(chosen))
    best = max(scores, key=lambda score: score.competition_map)
    return {
        "images": images,
        "candidates_an_image": candidates,
        "settings": len(GRID),
        "cpu_s": seconds,
        "wall_s": wall_seconds,
        "plain_cpu_s_an_image_and_setting": plain_seconds,
        "plain_cpu_s_multiplied": plain_seconds * images * len(GRID),
        "times_faster": plain_seconds * images * len(GRID) / seconds,
        "scores_compared": plain_images * len(chosen),
        "best_score": best.competition_map,
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
