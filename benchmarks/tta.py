"""Flip test-time augmentation inside the cascade beside the three-pass way, with the same result.

    python -m benchmarks.tta

The three-pass way is the winning solution's: the backbone runs for the proposals, again for the
boxes and again for the masks of each view, one view at a time. Everything else is the same work in
both: proposals, box stages on all of them, mask stages on the 100 best (box, class) pairs, which is
mmdetection's limit on an image. Times are CPU time; the weights are random, which costs the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import timed
from src.mmdet_bridge.cascade.detectors import (
    Batch,
    Detector,
    build_detector,
    change_batch,
    collate,
    make_sample,
    preprocess,
)
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.mmdet_bridge.cascade.passes import ViewTransform, select_candidates
from tests.helpers.cascades import detector_config, spread_scores

# After src.mmdet_bridge, which gives mmcv its operators.
from mmcv.ops import nms  # isort: skip
from mmdet.structures.bbox import bbox2roi  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

CANDIDATES = 100
TOLERANCE = 1e-4  # of scores and mask probabilities; of boxes in shares of the image's edge


def run(
    *,
    module: str = "htc_x101_dcn",
    overrides: Sequence[str] = (),
    size_hw: tuple[int, int] = (640, 480),
    seed: int = 0,
    rounds: int = 2,
) -> dict[str, Any]:
    """Measure both ways on one image, in turn; the fastest round of each counts.

    Args:
        module: file below conf/module.
        overrides: of its configuration.
        size_hw: of the image and of both views.
        seed: of weights and image.
        rounds: of both ways.

    Returns:
        CPU seconds and backbone passes of each way, how many times faster ours is, and the largest
        differences of scores, boxes and masks.

    Raises:
        RuntimeError: the two ways give different candidates.
    """
    detector = make_detector(module, overrides, seed=seed)
    image = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    plain = view_of(image)
    views = [plain, change_batch(plain, "flip")]
    passes: list[int] = []
    hook = detector.backbone.register_forward_pre_hook(
        lambda _, inputs: passes.append(len(inputs[0]))
    )
    ways = (three_passes, one_pass)
    results: list[Result] = []
    seconds, counts = [float("inf")] * len(ways), [0] * len(ways)
    try:
        for _ in range(rounds):
            results.clear()
            for number, way in enumerate(ways):
                passes.clear()
                result, spent = timed(lambda: way(detector, views))  # noqa: B023
                results.append(result)
                seconds[number] = min(seconds[number], spent)
                counts[number] = sum(passes)
    finally:
        hook.remove()
    differences = _differences(*results, edge_px=max(size_hw))
    return {
        "module": module,
        "image_px": f"{size_hw[0]}x{size_hw[1]}",
        "candidates": len(results[0][1]),
        "three_passes_cpu_s": round(seconds[0], 2),
        "ours_cpu_s": round(seconds[1], 2),
        "times_faster": round(seconds[0] / seconds[1], 2),
        "three_passes_backbone_passes": counts[0],
        "our_backbone_passes": counts[1],
        **differences,
    }


def make_detector(module: str, overrides: Sequence[str], *, seed: int) -> Detector:
    """A detector of random weights with scores that differ by class and proposal."""
    torch.manual_seed(seed)
    detector = build_detector(detector_config(module, *overrides), init_weights=False)
    spread_scores(detector, seed=seed)
    return detector.eval()


def view_of(image: np.ndarray, *, image_hw: tuple[int, int] | None = None) -> Batch:
    """A batch of one image, (H, W, 3) uint8, of an image that is as large where not said."""
    sample = make_sample(
        image=image,
        image_id="image",
        image_path="image.jpg",
        original_hw=image_hw or (image.shape[0], image.shape[1]),
    )
    return collate([sample])


Result = tuple[Tensor, Tensor, Tensor]
"""Boxes (K, 4) of the candidates, their scores (K,), their masks (K, h, w)."""


def one_pass(detector: Detector, views: Sequence[Batch]) -> Result:
    """This project's way."""
    head = detector.roi_head.bbox_head[-1]
    (found,) = predict_candidates(
        [detector],
        views,
        category_ids=range(head.num_classes),
        min_score=0.0,
        max_candidates=CANDIDATES,
    )
    boxes, scores, masks = found.boxes_xyxy, found.scores, found.mask_probabilities
    return torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(masks)


@torch.no_grad()
def three_passes(detector: Detector, views: Sequence[Batch]) -> Result:
    """The backbone for each part of each view anew."""
    head, rule = detector.roi_head, detector.test_cfg.rpn
    transforms = [ViewTransform.of(view["data_samples"][0].metainfo) for view in views]
    boxes, scores = [], []
    for view, transform in zip(views, transforms, strict=True):
        data = preprocess(detector, view, training=False)
        (found,) = detector.rpn_head.predict(
            detector.extract_feat(data["inputs"]), data["data_samples"], rescale=False
        )
        boxes.append(transform.to_image(found.bboxes))
        scores.append(found.scores)
    proposals, _ = nms(
        torch.cat(boxes),
        torch.cat(scores),
        iou_threshold=rule.nms.iou_threshold,
        max_num=rule.max_per_img,
    )
    boxes, scores = [], []
    for view, transform in zip(views, transforms, strict=True):
        data = preprocess(detector, view, training=False)
        (found,) = head.predict_bbox(
            x=detector.extract_feat(data["inputs"]),
            batch_img_metas=[data["data_samples"][0].metainfo],
            rpn_results_list=[InstanceData(bboxes=transform.to_image(proposals[:, :4]))],
            rcnn_test_cfg=None,
            semantic_feat=None,
        )
        boxes.append(transform.to_image(found.bboxes))
        scores.append(found.scores)
    mean_boxes, mean_scores = sum(boxes) / len(views), sum(scores) / len(views)
    pairs = select_candidates(mean_scores[:, :-1], min_score=0.0, max_pairs=CANDIDATES)
    kept, rows = pairs.proposals.unique(return_inverse=True)
    masks = []
    for view, transform in zip(views, transforms, strict=True):
        data = preprocess(detector, view, training=False)
        features = detector.extract_feat(data["inputs"])
        extractor, carried = head.mask_roi_extractor[-1], None
        rois = bbox2roi([transform.to_image(mean_boxes[kept])])
        pooled = extractor(features[: extractor.num_inputs], rois)
        for mask_head in head.mask_head:
            logits, carried = mask_head(pooled, carried)
            masks.append(transform.masks_to_image(logits[rows, pairs.classes].sigmoid()))
    return (
        mean_boxes[pairs.proposals],
        mean_scores[pairs.proposals, pairs.classes],
        sum(masks) / len(masks),
    )


def _differences(expected: Result, found: Result, *, edge_px: int) -> dict[str, float]:
    if any(one.shape != other.shape for one, other in zip(expected, found, strict=True)):
        raise RuntimeError("the two ways give different numbers of candidates")
    scales = {"boxes": edge_px, "scores": 1, "masks": 1}
    differences = {
        f"{name}_apart": float((one - other).abs().max()) / scale
        for (name, scale), one, other in zip(scales.items(), expected, found, strict=True)
    }
    for name, difference in differences.items():
        if difference > TOLERANCE:
            raise RuntimeError(f"the two ways differ: {name} by {difference:.2g}")
    return {name: float(f"{difference:.1e}") for name, difference in differences.items()}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
