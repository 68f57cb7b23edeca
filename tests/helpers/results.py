"""COCO annotations, and results near them in random order, written to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed RLE, by pycocotools."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def make_truth_and_results(
    seed: int, *, num_images: int = 6, per_image: int = 12, num_categories: int = 3
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images of different sizes whose ids are no positions; float64 scores, some equal."""
    random = np.random.default_rng(seed)
    images = [
        {"id": 500 - 7 * n, "file_name": f"{n:06d}.jpg", "height": 60 + n, "width": 80 - n}
        for n in range(num_images)
    ]
    categories = [{"id": 2 * n + 1, "name": f"kind {n}"} for n in range(num_categories)]
    annotations, results = [], []
    for image in images:
        size_hw = image["height"], image["width"]
        for number in range(per_image):
            y, x = random.integers(0, size_hw[0] - 12), random.integers(0, size_hw[1] - 14)
            mask = np.zeros(size_hw, dtype=bool)
            mask[y : y + random.integers(6, 12), x : x + random.integers(6, 12)] = True
            mask &= random.random(size_hw) < 0.95
            common = {"image_id": image["id"], "category_id": int(random.choice([1, 3, 5]))}
            if number % 2 == 0:
                annotations.append(
                    {**common, "id": len(annotations) + 1, "segmentation": encode(mask)}
                    | {"area": int(mask.sum()), "iscrowd": int(number == 2)}
                    | {"bbox": coco_mask.toBbox(encode(mask)).tolist()}
                )
            moved = np.roll(mask, int(random.integers(0, 4)), axis=1)
            score = float(random.choice([0.0, 0.5, random.random(), random.random()]))
            results.append(
                {**common, "score": score, "segmentation": encode(moved)}
                | {"bbox": coco_mask.toBbox(encode(moved)).tolist()}
            )
    random.shuffle(results)
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, results


def write_truth_and_results(folder: Path, seed: int = 0, **changes: Any) -> tuple[Path, Path]:
    """Write both, and return the files of the annotations and of the results."""
    truth, results = make_truth_and_results(seed, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "truth.json", folder / "results.json"
