"""Weighted boxes fusion as the paper words it, in loops, and members of a generated image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.postprocess.late_fusion import LateFusion
from src.postprocess.selection import select_all
from src.postprocess.steps import run_steps
from src.predictions.candidates import Candidates
from tests.helpers.candidates import make_candidates, make_masks

SETTINGS: dict[str, Any] = {
    "score_threshold": 0.05,
    "nms_iou_threshold": 0.5,
    "max_per_image": 100,
    "iou_threshold": 0.55,
}
SIZE_HW = (480, 360)


def make_fusion(**changes: Any) -> LateFusion:
    return LateFusion(**(SETTINGS | changes))


def make_members(seed: int, count: int = 3) -> list[Candidates]:
    """Models that see the same objects, each a little otherwise."""
    random = np.random.default_rng(seed)
    ground_truth = make_candidates(seed, count=60, categories=3, size_hw=SIZE_HW)
    members = []
    for _ in range(count):
        seen = np.flatnonzero(random.random(60) < 0.8)
        boxes = ground_truth.boxes_xyxy[seen] + random.normal(0, 4, (len(seen), 4))
        boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        members.append(
            Candidates(
                image_id="image.jpg",
                size_hw=SIZE_HW,
                boxes_xyxy=boxes.astype(np.float32),
                scores=random.uniform(0.02, 1, len(seen)).astype(np.float32),
                category_ids=ground_truth.category_ids[seen],
                mask_probabilities=make_masks(random, len(seen)),
                complete_above_score=0.02,
            )
        )
    return members


def plain_iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_sample(mask: np.ndarray, x: float, y: float) -> float:
    """Bilinear with zeros outside; ``x`` and ``y`` in cells, the first cell's centre at 0."""
    value = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * float(mask[row, column])
    return value


def plain_mask(cluster: list[dict[str, Any]], box: Sequence[float]) -> np.ndarray:
    fused = np.zeros((28, 28))
    for row in range(28):
        for column in range(28):
            x_px = box[0] + (column + 0.5) / 28 * (box[2] - box[0])
            y_px = box[1] + (row + 0.5) / 28 * (box[3] - box[1])
            for one in cluster:
                own = one["box"]
                x = (x_px - own[0]) / (own[2] - own[0]) * 28 - 0.5
                y = (y_px - own[1]) / (own[3] - own[1]) * 28 - 0.5
                fused[row, column] += one["c"] * plain_sample(one["mask"], x, y)
    return fused / sum(one["c"] for one in cluster)


def weighted_boxes_fusion(
    detections: list[list[dict[str, Any]]], weights: Sequence[float], threshold: float
) -> list[dict[str, Any]]:
    """Steps 1 to 6 of section 3 of the paper: one list B, clusters L, fused boxes F."""
    b = [
        {**one, "c": one["score"] * weight}
        for model, weight in zip(detections, weights, strict=True)
        for one in model
    ]
    b.sort(key=lambda one: -one["c"])
    clusters: list[list[dict[str, Any]]] = []
    f: list[dict[str, Any]] = []
    for one in b:
        best, best_iou = -1, threshold
        for place, fused in enumerate(f):
            iou = plain_iou(fused["box"], one["box"])
            if fused["category"] == one["category"] and iou > best_iou:
                best, best_iou = place, iou
        if best < 0:
            clusters.append([one])
            f.append({"category": one["category"], "box": one["box"]})
            continue
        clusters[best].append(one)
        total = sum(member["c"] for member in clusters[best])
        f[best]["box"] = [
            sum(member["c"] * member["box"][side] for member in clusters[best]) / total
            for side in range(4)
        ]
    for fused, cluster in zip(f, clusters, strict=True):
        mean = sum(member["c"] for member in cluster) / len(cluster)
        fused["score"] = mean * min(len(cluster), len(weights)) / sum(weights)
        fused["mask"] = plain_mask(cluster, fused["box"])
        fused["members"] = len(cluster)
    return sorted(f, key=lambda fused: -fused["score"])


def own_detections(member: Candidates, settings: LateFusion) -> list[dict[str, Any]]:
    kept = run_steps(select_all(member), settings.own_steps).indices
    return [
        {
            "box": member.boxes_xyxy[index].astype(float).tolist(),
            "score": float(member.scores[index]),
            "category": int(member.category_ids[index]),
            "mask": member.mask_probabilities[index],
        }
        for index in kept
    ]
