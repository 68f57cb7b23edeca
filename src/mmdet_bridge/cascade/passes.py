"""Forward passes of one model on one view of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import Detector, mask_edge_px, preprocess
from src.mmdet_bridge.cascade.memory import Features, KeptFeatures, in_parts


@dataclass(frozen=True)
class Placement:
    """A view made of an image: resized by ``scale_wh``, then mirrored where ``flipped``."""

    scale_wh: tuple[float, float] = (1.0, 1.0)  # view pixels per image pixel, across and down
    width_px: float = 0.0  # of the view; matters where it is mirrored
    flipped: bool = False  # left and right exchanged

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Placement:
        """Read it from a sample's ``scale_factor`` (w, h), ``img_shape`` (h, w) and ``flip``."""
        width_factor, height_factor = meta["scale_factor"]
        return cls(
            scale_wh=(width_factor, height_factor),
            width_px=meta["img_shape"][1],
            flipped=bool(meta.get("flip", False)),
        )

    def to_image(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in the view's pixels to the image's, divided as mmdet does."""
        return self._mirrored(boxes) / self._factors(boxes)

    def to_view(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in the image's pixels to the view's."""
        return self._mirrored(boxes * self._factors(boxes))

    def masks_to_image(self, masks: Tensor) -> Tensor:
        """(N, h, w) masks on boxes of the view to masks on the same boxes of the image."""
        return masks.flip(-1) if self.flipped else masks

    def _factors(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor(self.scale_wh).repeat(2)

    def _mirrored(self, boxes: Tensor) -> Tensor:
        if not self.flipped:
            return boxes
        x_min, y_min, x_max, y_max = boxes.unbind(-1)
        return torch.stack([self.width_px - x_max, y_min, self.width_px - x_min, y_max], dim=-1)


UNLIKELY_SCORE = 0.1


@dataclass(frozen=True)
class Pairs:
    """(proposal, class) pairs of one image, K of them, in row-major order."""

    proposals: Tensor  # (K,) int64
    classes: Tensor  # (K,) int64
    complete_above_score: float  # every pair with a score above this one is here


def select_pairs(
    scores: Tensor,
    *,
    score_floor: float,
    max_pairs: int,
    max_low_score_candidates: int | None = None,
) -> Pairs:
    """The pairs with a score above the floor; of more than ``max_pairs``, the best.

    Args:
        scores: (P, C) class scores of P proposals, without the background.
        score_floor: pairs with a score above it are chosen.
        max_pairs: so many at most.
        max_low_score_candidates: pairs with a score of 0.1 and below only fill up to so many, so
            that what is stored of a common image is small and nothing is lost of a crowded one;
            None: they are as good as others.
    """
    flat = scores.flatten()
    chosen = (flat > score_floor).nonzero().squeeze(1)
    if max_low_score_candidates is not None:
        likely = int((flat > max(UNLIKELY_SCORE, score_floor)).sum())
        max_pairs = min(max_pairs, max(max_low_score_candidates, likely))
    exact_above = score_floor
    if len(chosen) > max_pairs:
        best = flat[chosen].sort(descending=True, stable=True)
        exact_above = float(best.values[max_pairs - 1])
        chosen = chosen[best.indices[:max_pairs]].sort().values
    classes = scores.shape[1]
    return Pairs(chosen // classes, chosen % classes, exact_above)


MaskStages = Literal["all", "last"]
MASK_ROIS_AT_ONCE = 128  # bounds memory: logits of 128 RoIs and 46 classes take 18 MB a stage


@dataclass(frozen=True)
class Views:
    """P views of one padded size, of one or several views."""

    inputs: list[Tensor]  # P of (3, H_i, W_i) uint8, RGB
    samples: list[Any]  # P DetDataSample
    images: list[int]  # number of the image that each shows

    def __getitem__(self, numbers: range) -> Views:
        part = slice(numbers.start, numbers.stop)
        return Views(self.inputs[part], self.samples[part], self.images[part])


@dataclass(frozen=True)
class Pass:
    """One model on P views, after its one backbone pass."""

    detector: Detector
    model: int  # position among the models
    weight: float  # of the model, in every average
    metas: list[dict[str, Any]]  # of each view
    images: list[int]  # number of the image that each view shows
    frames: list[Placement]  # of each view: how it lies on the frame where the passes meet
    proposals: list[InstanceData]  # of each view: boxes in its pixels, scores
    features: Callable[[], Features]
    make_room: Callable[[], bool]  # see in_parts


def group_by_padded_size(views: Sequence[Mapping[str, Any]], size_divisor: int) -> list[Views]:
    """Put what is padded to the same size into one batch, such as a view and its mirror.

    Zeros beyond that would change what the model predicts: they meet convolutions with a bias,
    normalisation and the anchors of the proposals. So each image is padded as it is alone.

    Args:
        views: batches of the same images, in the same order.
        size_divisor: of the padded height and width, the preprocessor's ``pad_size_divisor``.
    """
    groups: dict[tuple[int, ...], Views] = {}
    for view in views:
        pairs = zip(view["inputs"], view["data_samples"], strict=True)
        for image, (view, sample) in enumerate(pairs):
            padded_hw = tuple(-(-edge // size_divisor) for edge in view.shape[1:])
            group = groups.setdefault(padded_hw, Views([], [], []))
            group.inputs.append(view)
            group.samples.append(sample)
            group.images.append(image)
    return list(groups.values())


def start_passes(
    detector: Detector,
    views: Views,
    *,
    model: int,
    weight: float,
    in_view: bool,
    kept: KeptFeatures,
) -> list[Pass]:
    """The backbone pass of a model on views, and its proposals.

    Args:
        detector: the model.
        views: what it runs on.
        model: its position among the models.
        weight: see ``Pass``.
        in_view: passes meet in the view's own pixels, not in the image's.
        kept: takes the features.

    Returns:
        One pass; more where the views do not fit into memory at once.
    """

    def start(numbers: range) -> Pass:
        chosen = views[numbers]
        data = _preprocessed(detector, chosen)
        features = tuple(detector.extract_feat(data["inputs"]))
        metas = [sample.metainfo for sample in data["data_samples"]]
        proposals = detector.rpn_head.predict(features, data["data_samples"], rescale=False)
        return Pass(
            detector=detector,
            model=model,
            weight=weight,
            metas=metas,
            images=chosen.images,
            frames=[Placement() if in_view else Placement.of(meta) for meta in metas],
            proposals=proposals,
            features=kept.keep(
                features,
                lambda: tuple(detector.extract_feat(_preprocessed(detector, chosen)["inputs"])),
            ),
            make_room=kept.step_down,
        )

    numbers = range(len(views.inputs))
    return in_parts(start, numbers, what="views", make_room=kept.step_down)


def _preprocessed(detector: Detector, views: Views) -> dict[str, Any]:
    batch = {"inputs": views.inputs, "data_samples": views.samples}
    return preprocess(detector, batch, training=False)


def box_stages(step: Pass, proposals: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The box stages of one pass.

    Args:
        step: the pass.
        proposals: of each image, (R, 4) in the shared frame.

    Returns:
        For each view boxes (R, 4) in the shared frame, and scores (R, C + 1): the softmax of
        the logits' mean over the stages, as mmdet has it. The background is the last class.
    """
    placed = [
        frame.to_view(proposals[image])
        for frame, image in zip(step.frames, step.images, strict=True)
    ]
    rois = bbox2roi(placed)
    features = _features(step)

    def run(numbers: range) -> Tensor:
        here = rois[numbers.start : numbers.stop]
        found = step.detector.roi_head.predict_bbox(
            x=features,
            batch_img_metas=step.metas,
            rpn_results_list=[
                InstanceData(bboxes=here[here[:, 0] == view, 1:]) for view in range(len(step.metas))
            ],
            rcnn_test_cfg=None,
            rescale=False,
            semantic_feat=None,
        )
        return torch.cat(
            [torch.cat([one.bboxes.float(), one.scores.float()], dim=1) for one in found]
        )

    parts = in_parts(run, range(len(rois)), what="RoIs", make_room=step.make_room)
    views = torch.cat(parts).split([len(boxes) for boxes in placed])
    return [
        (frame.to_image(found[:, :4]), found[:, 4:])
        for frame, found in zip(step.frames, views, strict=True)
    ]


def mask_stages(
    step: Pass, boxes: Sequence[Tensor], pairs: Sequence[Pairs], stages: MaskStages
) -> list[Tensor]:
    """The mask stages of one pass; a proposal with several classes runs once.

    Args:
        step: the pass.
        boxes: of each image, (R, 4) in the shared frame.
        pairs: of each image, K (proposal, class) pairs.
        stages: ``all``: the mean of the stages' probabilities; ``last``: the last stage's.

    Returns:
        For each view (K, h, w) float32 probabilities on the boxes, not mirrored.
    """
    placed, rows, start = [], [], 0
    for frame, image in zip(step.frames, step.images, strict=True):
        kept, row = pairs[image].proposals.unique(return_inverse=True)
        placed.append(frame.to_view(boxes[image][kept]))
        rows.append(row + start)
        start += len(kept)
    masks = _masks_of_rois(
        step,
        bbox2roi(placed),
        torch.cat(rows),
        torch.cat([pairs[image].classes for image in step.images]),
        stages,
    )
    return [
        frame.masks_to_image(view)
        for frame, view in zip(step.frames, masks.split([len(r) for r in rows]), strict=True)
    ]


def _masks_of_rois(
    step: Pass, rois: Tensor, rows: Tensor, classes: Tensor, stages: MaskStages
) -> Tensor:
    """Mask heads of one pass.

    Args:
        rois: (R, 5): view's number, xyxy in its pixels.
        rows: (K,) RoI of each pair, ascending.
        classes: (K,) class of each pair.

    Returns:
        (K, h, w) float32 probabilities.
    """
    head = step.detector.roi_head
    extractor = head.mask_roi_extractor[-1]
    features = _features(step)[: extractor.num_inputs]

    def run(numbers: range) -> Tensor:
        here = (rows >= numbers.start) & (rows < numbers.stop)
        pooled = extractor(features, rois[numbers.start : numbers.stop])
        carried = None
        total = torch.zeros((), device=rois.device)
        for mask_head in head.mask_head:
            logits, carried = mask_head(pooled, carried if head.mask_info_flow else None)
            channels = 0 if mask_head.class_agnostic else classes[here]
            probabilities = logits[rows[here] - numbers.start, channels].float().sigmoid()
            total = total + probabilities
        return probabilities if stages == "last" else total / len(head.mask_head)

    edge = mask_edge_px(step.detector)
    parts = [torch.zeros((0, edge, edge), device=rois.device)]
    for start in range(0, len(rois), MASK_ROIS_AT_ONCE):
        numbers = range(start, min(start + MASK_ROIS_AT_ONCE, len(rois)))
        parts += in_parts(run, numbers, what="RoIs", make_room=step.make_room)
    return torch.cat(parts)


def _features(step: Pass) -> Features:
    """The features of a pass, with room made for them where there is none."""
    (features,) = in_parts(
        lambda _: step.features(), range(1), what="features", make_room=step.make_room
    )
    return features
