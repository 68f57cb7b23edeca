"""Hybrid Task Cascade inference up to, and without, non-maximum suppression.

The results are the prediction store's candidates. Written once for M models and V views of each
image (the winning solution's ensemble and test-time augmentation, S10 and S11); with one model and
one view it equals mmdet's prediction to the bit up to its NMS. Features are computed once for each
(model, view) and serve three parts:

1. the proposals of all (model, view) are merged;
2. each (model, view) runs its box stages on them; boxes and class scores are averaged;
3. the mask probabilities of the remaining (proposal, class) pairs are averaged over (model, view)
   and mask stages.

The parts share one frame: the image's pixels or, with a single view, that view's, where mmdet
works, so that nothing is mapped and nothing rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmcv.ops import nms
from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import Detector
from src.mmdet_bridge.cascade.passes import (
    ForwardPass,
    KeptFeatures,
    MaskStages,
    ViewTransform,
    group_by_padded_size,
    run_box_stages,
    run_mask_stages,
    select_candidates,
    start_passes,
)
from src.mmdet_bridge.options import VIEW_CHANGES
from src.predictions.candidates import Candidates

SeedProposals = Literal["all", "first_view"]
FEATURE_MEMORY_GB = 8.0  # the ensemble of S11 takes 3.4 GB for an image of 3:2
FEATURE_MEMORY_CPU_GB = 16.0


@torch.no_grad()
def predict_candidates(
    models: Sequence[Detector],
    views: Sequence[Mapping[str, Any]],
    *,
    category_ids: Sequence[int],
    min_score: float,
    max_candidates: int,
    mask_stages: MaskStages = "all",
    model_weights: Sequence[float] | None = None,
    seed_proposals: SeedProposals = "all",
    feature_memory_gb: float = FEATURE_MEMORY_GB,
    feature_memory_cpu_gb: float = FEATURE_MEMORY_CPU_GB,
    max_low_score_candidates: int | None = None,
) -> list[Candidates]:
    """Predict the candidates of N images from M models and V views.

    Args:
        models: M detectors in evaluation mode that fit together, see ``check_ensemble``.
        views: V batches (see ``preprocess``) of the same N images in the same order. A view's
            transform is read from its samples' meta information (``ViewTransform.of``);
            ``img_id`` and ``ori_shape`` are the image's.
        category_ids: Category id of each of the models' classes.
        min_score: Pairs with a higher score are candidates.
        max_candidates: Maximum number of candidates of an image, the best (of equal scores, the
            first).
        mask_stages: ``all``: probabilities are averaged over the mask stages (S10, and mmdetection
            up to version 2). ``last``: the last stage's alone, as mmdetection 3 does, whose
            ``HybridTaskCascadeRoIHead._mask_forward`` fills its list of stages after the loop.
        model_weights: M weights of the averages of boxes, scores and masks; None: equal.
        seed_proposals: ``all``: the proposals of every model and view. ``first_view``: only the
            first model's on the smallest view that is as the image is, the winning code's mistake.
        feature_memory_gb: Budget for kept features on the device, see ``KeptFeatures``.
        feature_memory_cpu_gb: Budget for them in CPU memory.
        max_low_score_candidates: See ``select_candidates``.

    Returns:
        N Candidates in the order of the images; boxes in image pixels, float32 mask probabilities.
        With one view, ``nms_boxes_xyxy`` are the boxes in its pixels, where mmdet suppresses.

    Raises:
        InputError: An image does not fit into the device's memory, not even one view at a time.
    """
    weights = [1.0] * len(models) if model_weights is None else model_weights
    kept = KeptFeatures(device_gb=feature_memory_gb, cpu_gb=feature_memory_cpu_gb)
    alone = len(views) == 1
    with _explained_shortage(views):
        passes = [
            run
            for model, (detector, weight) in enumerate(zip(models, weights, strict=True))
            for group in group_by_padded_size(views, detector.data_preprocessor.pad_size_divisor)
            for run in start_passes(
                detector, group, model=model, weight=weight, in_view=alone, kept=kept
            )
        ]
        samples = views[0]["data_samples"]
        proposals = [
            merged_proposals(passes, image, seed_proposals) for image in range(len(samples))
        ]
        found = [run_box_stages(run, proposals) for run in passes]
        boxes = _means_by_image(passes, [[boxes for boxes, _ in of_pass] for of_pass in found])
        scores = _means_by_image(passes, [[scores for _, scores in of_pass] for of_pass in found])
        pairs = [
            select_candidates(
                of_image[:, :-1],
                min_score=min_score,
                max_pairs=max_candidates,
                max_low_score_candidates=max_low_score_candidates,
            )
            for of_image in scores
        ]
        masks = _means_by_image(
            passes, (run_mask_stages(run, boxes, pairs, mask_stages) for run in passes)
        )
        ids = torch.tensor(category_ids, dtype=torch.int16)
        results = []
        for image, (sample, chosen) in enumerate(zip(samples, pairs, strict=True)):
            in_frame = boxes[image][chosen.proposals]
            in_image = ViewTransform.of(sample.metainfo).to_image(in_frame) if alone else in_frame
            results.append(
                Candidates(
                    image_id=str(sample.img_id),
                    size_hw=(int(sample.ori_shape[0]), int(sample.ori_shape[1])),
                    boxes_xyxy=in_image.cpu().numpy(),
                    scores=scores[image][chosen.proposals, chosen.classes].cpu().numpy(),
                    category_ids=ids[chosen.classes.cpu()].numpy(),
                    mask_probabilities=masks[image].cpu().numpy(),
                    complete_above_score=chosen.complete_above_score,
                    nms_boxes_xyxy=in_frame.cpu().numpy() if alone else None,
                )
            )
        return results


@contextmanager
def _explained_shortage(views: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Name the images whose views do not fit into the device's memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        images = ", ".join(str(sample.img_id) for sample in views[0]["data_samples"])
        sizes = ", ".join(str(tuple(view.shape[1:])) for of in views for view in of["inputs"])
        raise InputError(
            f"{images}: views of {sizes} px do not fit into the device's memory, not even one by "
            "one; give smaller scales"
        ) from error


def merged_proposals(
    passes: Sequence[ForwardPass], image: int, seed_proposals: SeedProposals = "all"
) -> Tensor:
    """Merge one image's proposals of all passes: NMS, then the best, (P, 4) in the shared frame.

    A single list stays as it is: the RPN suppresses within pyramid levels only, so a second NMS
    would thin it out.
    """
    shown = [(run, view) for run in passes for view, of in enumerate(run.images) if of == image]
    alone = len(shown) == 1
    if seed_proposals == "first_view":
        shown = [min(shown, key=_seeds_first_view)]
    boxes = torch.cat(
        [run.transforms[view].to_image(run.proposals[view].bboxes) for run, view in shown]
    )
    if alone:
        return boxes
    scores = torch.cat([run.proposals[view].scores for run, view in shown])
    order = _descending(boxes, scores)
    rule = passes[0].detector.test_cfg.rpn
    merged, _ = nms(
        boxes[order], scores[order], iou_threshold=rule.nms.iou_threshold, max_num=rule.max_per_img
    )
    result: Tensor = merged[:, :4]
    return result


def _seeds_first_view(shown: tuple[ForwardPass, int]) -> tuple[int, bool, int]:
    """Return the sort key of (forward pass, view): first model, unchanged, smallest."""
    run, view = shown
    height, width = run.metas[view]["img_shape"][:2]
    changed = any(run.metas[view].get(change) for change in VIEW_CHANGES)
    return run.model, changed, height * width


def _descending(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the order by descending score, then by box.

    NMS goes by score; saturated ones are equal, and models and views have no order of their own.
    """
    order = torch.arange(len(scores), device=scores.device)
    for key in (*boxes.unbind(1), -scores):
        order = order[key[order].sort(stable=True).indices]
    return order


def _means_by_image(
    passes: Sequence[ForwardPass], found: Iterable[Sequence[Tensor]]
) -> list[Tensor]:
    """Return each image's float32 mean over its views, weighted by model, of a tensor a view."""
    sums: dict[int, Tensor] = {}
    weights: dict[int, float] = {}
    for run, views in zip(passes, found, strict=True):
        for image, tensor in zip(run.images, views, strict=True):
            term = tensor.float() * run.weight
            sums[image] = sums[image] + term if image in sums else term
            weights[image] = weights.get(image, 0.0) + run.weight
    return [sums[image] / weights[image] for image in sorted(sums)]
