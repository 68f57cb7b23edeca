"""Inference of Hybrid Task Cascade up to, and without, non-maximum suppression.

What comes out are the prediction store's candidates. Written for M models and V views of each
image (the winning solution's ensemble and test-time augmentation, S10 and S11); one model and one
view is mmdet's own prediction, to the bit up to its NMS. For each (model, view) the features are
computed once and serve the three parts of the scheme:

1. the proposals of all (model, view) are brought together;
2. each (model, view) runs its box stages on them; boxes and class scores are averaged;
3. the mask probabilities of the (proposal, class) pairs that are left are averaged over
   (model, view) and mask stages.

The parts meet in one frame: the photo's pixels, or with a single view that view's pixels, where
mmdet works, so that nothing is mapped and nothing rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmcv.ops import nms
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from src.mmdet_bridge.config import Detector
from src.mmdet_bridge.detectors import preprocess
from src.mmdet_bridge.placement import Placement
from src.postprocess.candidates import Candidates

MaskStages = Literal["all", "last"]
MASK_ROIS_AT_ONCE = 128  # bounds memory: logits of 128 RoIs and 46 classes take 18 MB a stage


@dataclass(frozen=True)
class Pairs:
    """(proposal, class) pairs of one image, K of them, in row-major order."""

    proposals: Tensor  # (K,) int64
    classes: Tensor  # (K,) int64
    exact_above_score: float  # every pair with a score above this one is here


def select_pairs(scores: Tensor, *, score_floor: float, max_pairs: int) -> Pairs:
    """The pairs with a score above the floor; of more than ``max_pairs``, the best.

    Args:
        scores: (P, C) class scores of P proposals, without the background.
    """
    flat = scores.flatten()
    chosen = (flat > score_floor).nonzero().squeeze(1)
    exact_above = score_floor
    if len(chosen) > max_pairs:
        best = flat[chosen].sort(descending=True, stable=True)
        exact_above = float(best.values[max_pairs - 1])
        chosen = chosen[best.indices[:max_pairs]].sort().values
    classes = scores.shape[1]
    return Pairs(chosen // classes, chosen % classes, exact_above)


@dataclass(frozen=True)
class _Pass:
    """One model on one view of N images."""

    detector: Detector
    features: Sequence[Tensor]
    metas: list[dict[str, Any]]
    proposals: list[InstanceData]  # of each image: boxes in the view's pixels, scores
    frames: list[Placement]  # of each image: how the view lies on the frame where the passes meet


@torch.no_grad()
def predict_candidates(
    members: Sequence[Detector],
    views: Sequence[Mapping[str, Any]],
    *,
    category_ids: Sequence[int],
    score_floor: float,
    max_candidates: int,
    mask_stages: MaskStages = "all",
) -> list[Candidates]:
    """Candidates of N images from M models and V views.

    Args:
        members: M detectors in evaluation mode with the same classes, accepted by ``check_member``.
        views: V batches (see ``preprocess``) of the same N images in the same order. What a view
            did to the photo is read from its samples' meta information (``Placement.of``);
            ``img_id`` and ``ori_shape`` are the photo's.
        category_ids: the data's id of each of the models' classes.
        score_floor: pairs with a score above it are candidates.
        max_candidates: an image keeps its best so many (of equal scores, the first).
        mask_stages: ``all``: probabilities are averaged over the mask stages (S10, and mmdetection
            up to version 2). ``last``: the last stage's alone, as mmdetection 3 does, whose
            ``HybridTaskCascadeRoIHead._mask_forward`` fills its list of stages after the loop.

    Returns:
        N Candidates in the order of the images; boxes in photo pixels, float32 mask probabilities.
        With one view, ``nms_boxes_xyxy`` are the boxes in its pixels, where mmdet suppresses.
    """
    alone = len(views) == 1
    passes = [_start(member, view, alone=alone) for member in members for view in views]
    boxes, scores = _boxes_and_scores(passes)
    pairs = [
        select_pairs(image_scores[:, :-1], score_floor=score_floor, max_pairs=max_candidates)
        for image_scores in scores
    ]
    masks = _mask_probabilities(passes, boxes, pairs, mask_stages)
    ids = torch.tensor(category_ids, dtype=torch.int16)
    results = []
    for image, (meta, chosen) in enumerate(zip(passes[0].metas, pairs, strict=True)):
        pair_boxes = boxes[image][chosen.proposals]
        photo_boxes = Placement.of(meta).to_photo(pair_boxes) if alone else pair_boxes
        results.append(
            Candidates(
                image_id=str(meta["img_id"]),
                size_hw=(int(meta["ori_shape"][0]), int(meta["ori_shape"][1])),
                boxes_xyxy=photo_boxes.cpu().numpy(),
                scores=scores[image][chosen.proposals, chosen.classes].cpu().numpy(),
                category_ids=ids[chosen.classes.cpu()].numpy(),
                mask_probabilities=masks[image].cpu().numpy(),
                exact_above_score=chosen.exact_above_score,
                nms_boxes_xyxy=pair_boxes.cpu().numpy() if alone else None,
            )
        )
    return results


def _start(detector: Detector, view: Mapping[str, Any], *, alone: bool) -> _Pass:
    """The one backbone pass of a (model, view), and its proposals."""
    data = preprocess(detector, view, training=False)
    samples = data["data_samples"]
    features = detector.extract_feat(data["inputs"])
    metas = [sample.metainfo for sample in samples]
    return _Pass(
        detector=detector,
        features=features,
        metas=metas,
        proposals=detector.rpn_head.predict(features, samples, rescale=False),
        frames=[Placement() if alone else Placement.of(meta) for meta in metas],
    )


def _shared_proposals(passes: Sequence[_Pass], image: int) -> Tensor:
    """Proposals of one image from all passes: (P, 4) in the shared frame.

    One list stays as it is: the RPN suppresses within pyramid levels only, so that a second NMS
    would thin it out.
    """
    boxes = [step.frames[image].to_photo(step.proposals[image].bboxes) for step in passes]
    if len(boxes) == 1:
        return boxes[0]
    rule = passes[0].detector.test_cfg.rpn
    merged, _ = nms(
        torch.cat(boxes),
        torch.cat([step.proposals[image].scores for step in passes]),
        iou_threshold=rule.nms.iou_threshold,
        max_num=rule.max_per_img,
    )
    return merged[:, :4]


def _boxes_and_scores(passes: Sequence[_Pass]) -> tuple[list[Tensor], list[Tensor]]:
    """Box stages: each image's boxes (P, 4) in the shared frame and scores (P, C + 1).

    The background is the last class.
    """
    images = range(len(passes[0].metas))
    proposals = [_shared_proposals(passes, image) for image in images]
    results = [
        step.detector.roi_head.predict_bbox(
            x=step.features,
            batch_img_metas=step.metas,
            rpn_results_list=[
                InstanceData(bboxes=step.frames[image].to_picture(proposals[image]))
                for image in images
            ],
            rcnn_test_cfg=None,
            rescale=False,
            semantic_feat=None,
        )
        for step in passes
    ]
    boxes = [
        _mean(
            step.frames[image].to_photo(found[image].bboxes)
            for step, found in zip(passes, results, strict=True)
        )
        for image in images
    ]
    return boxes, [_mean(found[image].scores for found in results) for image in images]


def _mask_probabilities(
    passes: Sequence[_Pass], boxes: list[Tensor], pairs: list[Pairs], stages: MaskStages
) -> list[Tensor]:
    """Each image's (K, h, w) float32: the pairs' masks on their boxes.

    A proposal with several classes runs once a pass.
    """
    kept = [chosen.proposals.unique(return_inverse=True) for chosen in pairs]
    starts = [0]
    for proposals, _ in kept:
        starts.append(starts[-1] + len(proposals))
    rows = torch.cat([row + start for (_, row), start in zip(kept, starts, strict=False)])
    classes = torch.cat([chosen.classes for chosen in pairs])
    per_pass = []
    for step in passes:
        rois = bbox2roi(
            [
                frame.to_picture(image_boxes[proposals])
                for frame, image_boxes, (proposals, _) in zip(step.frames, boxes, kept, strict=True)
            ]
        )
        masks = _masks_of_rois(step, rois, rows, classes, stages)
        split = masks.split([len(chosen.classes) for chosen in pairs])
        per_pass.append(
            [frame.masks_to_photo(image) for frame, image in zip(step.frames, split, strict=True)]
        )
    return [_mean(images) for images in zip(*per_pass, strict=True)]


def _masks_of_rois(
    step: _Pass, rois: Tensor, rows: Tensor, classes: Tensor, stages: MaskStages
) -> Tensor:
    """Mask heads of one pass.

    Args:
        rois: (R, 5): image's index, xyxy in the view's pixels.
        rows: (K,) RoI of each pair, ascending within an image.
        classes: (K,) class of each pair.

    Returns:
        (K, h, w) float32 probabilities.
    """
    head = step.detector.roi_head
    extractor = head.mask_roi_extractor[-1]
    edge = extractor.roi_layers[0].output_size[0] * head.mask_head[-1].scale_factor
    result = torch.zeros((len(rows), edge, edge), device=rois.device)
    for start in range(0, len(rois), MASK_ROIS_AT_ONCE):
        here = ((rows >= start) & (rows < start + MASK_ROIS_AT_ONCE)).nonzero().squeeze(1)
        features = extractor(
            step.features[: extractor.num_inputs], rois[start : start + MASK_ROIS_AT_ONCE]
        )
        carried = None
        probabilities = []
        for mask_head in head.mask_head:
            logits, carried = mask_head(features, carried if head.mask_info_flow else None)
            channels = 0 if mask_head.class_agnostic else classes[here]
            probabilities.append(logits[rows[here] - start, channels].float().sigmoid())
        result[here] = probabilities[-1] if stages == "last" else _mean(probabilities)
    return result


def _mean(tensors: Iterable[Tensor]) -> Tensor:
    """Mean in float32; of one tensor, that tensor."""
    return torch.stack([tensor.float() for tensor in tensors]).mean(dim=0)
