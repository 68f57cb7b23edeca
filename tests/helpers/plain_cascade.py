"""The scheme of S10 and S11, slow and plain: three separate passes, a view at a time, nothing kept.

Written from the scheme. Of mmdet's it calls the networks (backbone, RPN, RoI extractors, heads) and
the RPN's own list of proposals; pixels, places, decoding, suppression and averages are done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PAD_PX = 32
RPN_NMS, CLIP = 0.7, abs(np.log(16 / 1000))
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


@dataclass
class PlainView:
    """A resized image, mirrored where ``flip``."""

    pixels: np.ndarray  # (H, W, 3) uint8
    image_hw: tuple[int, int]
    flip: bool

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def to_image(self, box: Tensor) -> Tensor:
        height, width = self.size_hw
        x_min, y_min, x_max, y_max = box.tolist()
        if self.flip:
            x_min, x_max = width - x_max, width - x_min
        across, down = self.image_hw[1] / width, self.image_hw[0] / height
        return torch.tensor([x_min * across, y_min * down, x_max * across, y_max * down])

    def to_view(self, box: Tensor) -> Tensor:
        height, width = self.size_hw
        across, down = width / self.image_hw[1], height / self.image_hw[0]
        x_min, y_min, x_max, y_max = box.tolist()
        x_min, y_min, x_max, y_max = x_min * across, y_min * down, x_max * across, y_max * down
        if self.flip:
            x_min, x_max = width - x_max, width - x_min
        return torch.tensor([x_min, y_min, x_max, y_max])


@dataclass
class PlainResult:
    proposals: Tensor  # (P, 4) image pixels
    boxes: Tensor  # (P, 4) image pixels
    scores: Tensor  # (P, C)
    pairs: list[tuple[int, int]]  # (proposal, class) with a score above the floor, row-major
    masks: Tensor  # (K, h, w) of the pairs


@torch.no_grad()
def predict_plainly(
    models: Sequence[Any],
    views: Sequence[PlainView],
    *,
    min_score: float,
    weights: Sequence[float] | None = None,
) -> PlainResult:
    weights = weights or [1.0] * len(models)
    proposals = merge([(m, v) for m in models for v in views])
    all_boxes, all_scores, total = [], [], 0.0
    for model, weight in zip(models, weights, strict=True):
        for view in views:
            boxes, scores = run_box_stages(model, view, proposals)
            all_boxes.append(boxes * weight)
            all_scores.append(scores * weight)
            total += weight
    boxes, scores = sum(all_boxes) / total, sum(all_scores) / total
    pairs = [
        (p, c)
        for p in range(scores.shape[0])
        for c in range(scores.shape[1] - 1)
        if scores[p, c] > min_score
    ]
    all_masks = []
    for model, weight in zip(models, weights, strict=True):
        for view in views:
            all_masks.append(weight * run_mask_stages(model, view, boxes, pairs))
    return PlainResult(proposals, boxes, scores[:, :-1], pairs, sum(all_masks) / total)


def features_of(model: Any, view: PlainView) -> Any:
    """One backbone pass: normalised, padded on the right and below, a batch of one."""
    height, width = view.size_hw
    pixels = (torch.from_numpy(view.pixels.copy()).float() - torch.tensor(MEAN)) / torch.tensor(STD)
    padded = torch.zeros(-(-height // PAD_PX) * PAD_PX, -(-width // PAD_PX) * PAD_PX, 3)
    padded[:height, :width] = pixels
    return model.neck(model.backbone(padded.permute(2, 0, 1)[None]))


def merge(steps: Sequence[tuple[Any, PlainView]]) -> Tensor:
    """First pass: proposals in the image's pixels; greedy suppression; the best."""
    found = []
    for model, view in steps:
        sample = DetDataSample(metainfo={"img_shape": view.size_hw, "scale_factor": (1.0, 1.0)})
        (proposals,) = model.rpn_head.predict(features_of(model, view), [sample], rescale=False)
        for box, score in zip(proposals.bboxes, proposals.scores.tolist(), strict=True):
            found.append((score, view.to_image(box)))
    found.sort(key=lambda one: -one[0])
    kept: list[Tensor] = []
    for _, box in found:
        if not any(iou(box, other) > RPN_NMS for other in kept):
            kept.append(box)
    return torch.stack(kept[: steps[0][0].test_cfg.rpn.max_per_img])


def iou(one: Tensor, other: Tensor) -> float:
    ax, ay, bx, by = one.tolist()
    cx, cy, dx, dy = other.tolist()
    shared = max(0.0, min(bx, dx) - max(ax, cx)) * max(0.0, min(by, dy) - max(ay, cy))
    return shared / ((bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared)


def run_box_stages(model: Any, view: PlainView, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """Second pass: boxes (P, 4) in the image's pixels, scores (P, C + 1)."""
    features, head = features_of(model, view), model.roi_head
    boxes = torch.stack([view.to_view(box) for box in proposals])
    logits = []
    for stage in range(3):
        extractor = head.bbox_roi_extractor[stage]
        pooled = extractor(features[: extractor.num_inputs], as_rois(boxes))
        stage_logits, deltas = head.bbox_head[stage](pooled)
        logits.append(stage_logits)
        boxes = torch.stack(
            [
                moved(box, delta * torch.tensor(STDS[stage]), view.size_hw)
                for box, delta in zip(boxes, deltas, strict=True)
            ]
        )
    scores = (sum(logits) / 3).softmax(dim=1)
    return torch.stack([view.to_image(box) for box in boxes]), scores


def moved(box: Tensor, delta: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Faster R-CNN, equation 2: the centre moves by a share of the edges, which grow."""
    centre, edges = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + delta[:2] * edges
    edges = edges * delta[2:].clamp(-CLIP, CLIP).exp()
    height, width = size_hw
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    return torch.cat([centre - edges / 2, centre + edges / 2]).clamp(min=0).minimum(limits)


def run_mask_stages(
    model: Any, view: PlainView, boxes: Tensor, pairs: Sequence[tuple[int, int]]
) -> Tensor:
    """Third pass: (K, h, w) probabilities, the mean of the stages, not mirrored."""
    features, head = features_of(model, view), model.roi_head
    placed = torch.stack([view.to_view(boxes[proposal]) for proposal, _ in pairs])
    extractor = head.mask_roi_extractor[-1]
    pooled = extractor(features[: extractor.num_inputs], as_rois(placed))
    carried, stages = None, []
    for mask_head in head.mask_head:
        logits, carried = mask_head(pooled, carried)
        stages.append(
            torch.stack([logits[k, label].sigmoid() for k, (_, label) in enumerate(pairs)])
        )
    masks = sum(stages) / 3
    return masks.flip(-1) if view.flip else masks


def as_rois(boxes: Tensor) -> Tensor:
    return torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)
