"""A store on which thresholds matter: what a model with calibrated scores gives, and its truth."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.postprocess.pipeline import coco_results, postprocess
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStoreWriter
from src.rle import format_rle
from tests.helpers.candidates import make_masks, make_settings

SIZE_HW = (60, 45)
CATEGORIES = (15, 23, 31)
# An object of a class is real above its own score: no one threshold suits all three.
REAL_ABOVE = {15: 0.25, 23: 0.5, 31: 0.75}


def make_image(number: int, objects: int = 6) -> tuple[Candidates, Candidates]:
    """Candidates of an image, and the true ones among them; each has a worse twin, for NMS."""
    random = np.random.default_rng(number)
    places = random.permutation(9)[:objects]  # of a 3 x 3 grid, so that objects are apart
    corners = np.stack([15 * (places % 3) + 1, 20 * (places // 3) + 1], axis=1)
    boxes = np.concatenate([corners, corners + np.array([12, 16])], axis=1).astype(np.float32)
    categories = random.choice(CATEGORIES, objects)
    scores = random.uniform(0.05, 1, objects)
    twins = boxes + np.array([0, 3, 0, 3], dtype=np.float32)  # IoU 0.68
    masks = make_masks(random, objects)
    candidates = Candidates(
        image_id=f"{number:03d}.jpg",
        size_hw=SIZE_HW,
        boxes_xyxy=np.concatenate([boxes, twins]),
        scores=np.concatenate([scores, 0.9 * scores]).astype(np.float32),
        category_ids=np.concatenate([categories, categories]).astype(np.int16),
        mask_probabilities=np.concatenate([masks, masks]).astype(np.float16),
        complete_above_score=0.0,
    )
    above = np.array([REAL_ABOVE[category] for category in categories.tolist()])
    real = np.flatnonzero(scores + random.normal(0, 0.06, objects) > above)
    return candidates, replace(
        candidates,
        boxes_xyxy=boxes[real],
        scores=candidates.scores[real],
        category_ids=candidates.category_ids[real],
        mask_probabilities=candidates.mask_probabilities[real],
    )


def write_lab_data(folder: Path, images: int) -> tuple[Path, Path]:
    """A store and its ground truth as a train.csv."""
    everything = make_settings(score_threshold=0.0, nms_iou_threshold=1.0)
    folder.mkdir(parents=True, exist_ok=True)
    store, ground_truth = folder / "store", folder / "train.csv"
    with (
        PredictionStoreWriter(store, category_ids=range(46), settings={}) as writer,
        ground_truth.open("w", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for number in range(images):
            candidates, real = make_image(number)
            writer.add(candidates)
            found = postprocess(real, everything)
            texts = format_rle(found.bitmasks.to_rle())
            for text, category in zip(texts, found.category_ids, strict=True):
                rows.writerow([real.image_id, text, 512, 512, int(category)])
            if not len(found):
                rows.writerow([real.image_id, "1 300", 512, 512, 31])
    return store, ground_truth


OWN_NAMES = {1: "cat", 5: "dog", 9: "wild dog"}
_OWN_IDS = dict(zip(CATEGORIES, OWN_NAMES, strict=True))


def write_own_data(folder: Path, images: int, empty: int = 0) -> tuple[Path, Path]:
    """A store of other data than the competition's and its ground truth as a COCO file.

    Args:
        folder: Of both.
        images: With ground-truth instances and candidates.
        empty: Further images with neither.
    """
    everything = make_settings(score_threshold=0.0, nms_iou_threshold=1.0)
    folder.mkdir(parents=True, exist_ok=True)
    annotations = []
    with PredictionStoreWriter(
        folder / "store", category_ids=list(OWN_NAMES), settings={}
    ) as writer:
        for number in range(images + empty):
            candidates, real = (
                replace(
                    made,
                    category_ids=np.array(
                        [_OWN_IDS[category] for category in made.category_ids.tolist()],
                        dtype=np.int16,
                    ),
                )
                for made in make_image(number, objects=6 if number < images else 0)
            )
            writer.add(candidates)
            found = coco_results(real, everything, image_number=number + 1)
            annotations += [{**one, "iscrowd": 0} for one in found]
    height, width = SIZE_HW
    ground_truth = {
        "images": [
            {"id": n + 1, "file_name": f"{n:03d}.jpg", "height": height, "width": width}
            for n in range(images + empty)
        ],
        "categories": [{"id": number, "name": name} for number, name in OWN_NAMES.items()],
        "annotations": [{"id": n, "area": 1, **one} for n, one in enumerate(annotations, start=1)],
    }
    (folder / "truth.json").write_text(json.dumps(ground_truth))
    return folder / "store", folder / "truth.json"
