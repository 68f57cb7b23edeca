"""Late fusion: fuses several models' detections, each after its own NMS, by weighted boxes.

Source: Solovyev, Wang, Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object
detection models", Image and Vision Computing 107 (2021), section 3, and the authors' code where
the paper is not specific. The boxes of a class are visited by falling weight times score. Each
joins the cluster whose fused box it overlaps most, if the IoU is above the threshold, or starts a
new one; the fused box of a cluster is the mean of its boxes, weighted by weight times score, and is
updated at once. Finally a cluster of T boxes from N models has the score

    mean over its boxes of (weight x score)  x  min(T, N) / (sum of the weights)

so that a detection of one model alone counts less.

The paper has no masks. Here the fused mask is the mean of the cluster's mask probabilities with the
weights of its boxes, each sampled at the centres of the fused box's cells (bilinear, zero outside
its own box, as mmdet pastes masks). It remains probabilities on a box, so a fused store is
post-processed like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from src.errors import InputError
from src.postprocess.raster import Probabilities
from src.postprocess.selection import select_all
from src.postprocess.steps import Step, bind, run_steps
from src.postprocess.steps.cap import Cap
from src.postprocess.steps.nms import Nms
from src.postprocess.steps.score import Score
from src.predictions.candidates import Candidates
from src.validation import Cap as Limit
from src.validation import CheckedModel, Share

Floats = npt.NDArray[np.float64]


class LateFusion(CheckedModel):
    """Settings of fusion; the keys of ``fusion=late`` and of ``python -m src.fuse``."""

    score_threshold: Share  # detections need a score strictly above it
    nms_iou_threshold: Share  # of each model's own NMS
    max_per_image: Limit  # of each model's detections, the best
    iou_threshold: Share  # boxes that overlap more are fused

    @model_validator(mode="after")
    def _check_order(self) -> LateFusion:
        if self.iou_threshold < self.nms_iou_threshold:
            raise InputError(
                f"iou_threshold must be at least nms_iou_threshold={self.nms_iou_threshold}, got "
                f"{self.iou_threshold}: a model's own detections would be fused together"
            )
        return self

    @property
    def own_steps(self) -> tuple[Step, ...]:
        """Steps by which each model's candidates become its detections."""
        return bind(
            [
                Score(score_threshold=self.score_threshold),
                Nms(nms_iou_threshold=self.nms_iou_threshold),
                Cap(max_per_image=self.max_per_image),
            ]
        )


def fuse(
    models: Sequence[Candidates],
    settings: LateFusion,
    *,
    weights: Sequence[float] | None = None,
    category_ids: Sequence[int] | None = None,
) -> Candidates:
    """Fuse the detections of N models in one image to candidates for post-processing.

    Args:
        models: Candidates of one image from N models (or views), before NMS.
        settings: Thresholds.
        weights: N weights above 0; None: equal.
        category_ids: See ``select_all``.

    Returns:
        By falling score; float32 masks. ``complete_above_score`` is 0 if every model had all the
        candidates that its detections depend on, else 1: nothing is certain.

    Raises:
        ValueError: The models are of different images, or their masks of different sizes.
        InputError: The masks of a model are fixed: fusing averages probabilities.
    """
    _check_same_image(models)
    weights = [1.0] * len(models) if weights is None else weights
    parts, is_exact = [], True
    for model, weight in zip(models, weights, strict=True):
        detected = run_steps(select_all(model, category_ids), settings.own_steps)
        kept = detected.indices
        is_exact &= detected.is_exact
        parts.append(
            _Boxes(
                corners=model.boxes_xyxy[kept].astype(np.float64),
                weights=model.scores[kept].astype(np.float64) * weight,
                category_ids=model.category_ids[kept],
                masks=_probabilities(model)[kept].astype(np.float32),
            )
        )
    boxes = _Boxes.joined(parts)
    clusters = _cluster(boxes, settings.iou_threshold)
    fused = [_fused_box(boxes, cluster) for cluster in clusters]
    models_seen = [min(len(cluster), len(models)) for cluster in clusters]
    means = [boxes.weights[cluster].mean() for cluster in clusters]
    scores = np.array(means) * models_seen / sum(weights)
    order = np.argsort(-scores, kind="stable")
    masks = [_fused_mask(boxes, clusters[chosen], fused[chosen]) for chosen in order]
    mask_size_hw = _probabilities(models[0]).shape[1:]
    first = [clusters[chosen][0] for chosen in order]
    return Candidates(
        image_id=models[0].image_id,
        size_hw=models[0].size_hw,
        boxes_xyxy=np.array([fused[chosen] for chosen in order], np.float32).reshape(-1, 4),
        scores=scores[order].astype(np.float32),
        category_ids=boxes.category_ids[first],
        mask_probabilities=np.array(masks, np.float32).reshape(-1, *mask_size_hw),
        complete_above_score=0.0 if is_exact else 1.0,
    )


@dataclass(frozen=True, slots=True)
class _Boxes:
    """The detections of all models, D of them."""

    corners: Floats  # (D, 4) xyxy image pixels
    weights: Floats  # (D,) weight of the model times score
    category_ids: npt.NDArray[np.int16]  # (D,)
    masks: npt.NDArray[np.float32]  # (D, h, w) in [0, 1]

    @classmethod
    def joined(cls, parts: Sequence[_Boxes]) -> _Boxes:
        """Join parts by falling weight, ties in an order that does not depend on their order."""
        corners = np.concatenate([part.corners for part in parts])
        weights = np.concatenate([part.weights for part in parts])
        category_ids = np.concatenate([part.category_ids for part in parts])
        order = np.lexsort((*corners.T, category_ids, -weights))
        masks = np.concatenate([part.masks for part in parts])
        return cls(corners[order], weights[order], category_ids[order], masks[order])


def _check_same_image(models: Sequence[Candidates]) -> None:
    first = models[0]
    for other in models[1:]:
        for name, of_first, of_other in (
            ("image_id", first.image_id, other.image_id),
            ("size_hw", tuple(first.size_hw), tuple(other.size_hw)),
            ("masks", _probabilities(first).shape[1:], _probabilities(other).shape[1:]),
        ):
            if of_first != of_other:
                raise ValueError(
                    f"{first.image_id}: models differ in {name}: {of_first} and {of_other}"
                )


def _probabilities(model: Candidates) -> Probabilities:
    if model.mask_probabilities is None:
        raise InputError(
            f"models must have mask probabilities to be fused, got fixed masks ({model.image_id})"
        )
    return model.mask_probabilities


def _cluster(boxes: _Boxes, iou_threshold: float) -> list[list[int]]:
    """Return the indices of the boxes of each cluster, clusters in the order of their start."""
    clusters: list[list[int]] = []
    fused = np.zeros((len(boxes.weights), 4))
    category_ids = np.zeros(len(boxes.weights), dtype=np.int64)
    for index, category in enumerate(boxes.category_ids.tolist()):
        started = len(clusters)
        same = np.flatnonzero(category_ids[:started] == category)
        ious = _ious(fused[same], boxes.corners[index])
        if len(same) and ious.max() > iou_threshold:
            chosen = int(same[ious.argmax()])
            clusters[chosen].append(index)
            fused[chosen] = _fused_box(boxes, clusters[chosen])
        else:
            clusters.append([index])
            fused[started] = boxes.corners[index]
            category_ids[started] = category
    return clusters


def _ious(boxes_xyxy: Floats, box_xyxy: Floats) -> Floats:
    """Return the IoU of each box with one; 1 for equal boxes, even without area."""
    low = np.maximum(boxes_xyxy[:, :2], box_xyxy[:2])
    high = np.minimum(boxes_xyxy[:, 2:], box_xyxy[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    union = areas + np.prod(box_xyxy[2:] - box_xyxy[:2]) - shared
    equal = (boxes_xyxy == box_xyxy).all(axis=1)
    ious: Floats = np.divide(shared, union, out=equal.astype(np.float64), where=union > 0)
    return ious


def _fused_box(boxes: _Boxes, cluster: list[int]) -> Floats:
    """Return the mean of the cluster's boxes. Shape (4,)."""
    weights = boxes.weights[cluster]
    mean: Floats = weights @ boxes.corners[cluster] / weights.sum()
    return mean


def _fused_mask(boxes: _Boxes, cluster: list[int], fused_xyxy: Floats) -> Floats:
    """Return the mean of the cluster's masks on the fused box. Shape (h, w)."""
    total = 0.0
    for index in cluster:
        mask = boxes.masks[index].astype(np.float64)
        height, width = mask.shape
        box = boxes.corners[index]
        across = _cell_weights(fused_xyxy[0], fused_xyxy[2], box[0], box[2], width)
        down = _cell_weights(fused_xyxy[1], fused_xyxy[3], box[1], box[3], height)
        total = total + boxes.weights[index] * (down @ mask @ across.T)
    mean: Floats = total / boxes.weights[cluster].sum()
    return mean


def _cell_weights(low: float, high: float, own_low: float, own_high: float, cells: int) -> Floats:
    """Return the weights of a box's cells in the fused box's, on one axis. Shape (cells, cells)."""
    if own_high <= own_low:  # without extent, as the fused box is then, or nearly
        return np.eye(cells)
    centres = low + (np.arange(cells) + 0.5) * (high - low) / cells
    # rounded, so that a model whose box is the fused box keeps its mask bit for bit
    places = np.round((centres - own_low) / (own_high - own_low) * cells - 0.5, 9)
    weights: Floats = np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0)
    return weights
