"""Forward passes: one model on a group of views of equal padded size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import Detector, mask_edge_px, preprocess
from src.mmdet_bridge.cascade.memory import Features, KeptFeatures, with_oom_split

MaskStages = Literal["all", "last"]
MASK_ROIS_AT_ONCE = 128  # bounds memory: logits of 128 RoIs and 46 classes take 18 MB a stage
LOW_SCORE = 0.1


@dataclass(frozen=True)
class ViewTransform:
    """Transform from an image to a view: resized by ``scale_wh``, then flipped if ``flipped``."""

    scale_wh: tuple[float, float] = (1.0, 1.0)  # view pixels per image pixel, across and down
    width_px: float = 0.0  # of the view; matters only where it is flipped
    flipped: bool = False  # left to right

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> ViewTransform:
        """Read it from a sample's ``scale_factor`` (w, h), ``img_shape`` (h, w) and ``flip``."""
        width_factor, height_factor = meta["scale_factor"]
        return cls(
            scale_wh=(width_factor, height_factor),
            width_px=meta["img_shape"][1],
            flipped=bool(meta.get("flip", False)),
        )

    def to_image(self, boxes: Tensor) -> Tensor:
        """Map (N, 4) xyxy boxes from view to image pixels, divided as mmdet does."""
        return self._flip(boxes) / self._factors(boxes)

    def to_view(self, boxes: Tensor) -> Tensor:
        """Map (N, 4) xyxy boxes from image to view pixels."""
        return self._flip(boxes * self._factors(boxes))

    def masks_to_image(self, masks: Tensor) -> Tensor:
        """Map (N, h, w) masks on boxes of the view to masks on the same boxes of the image."""
        return masks.flip(-1) if self.flipped else masks

    def _factors(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor(self.scale_wh).repeat(2)

    def _flip(self, boxes: Tensor) -> Tensor:
        if not self.flipped:
            return boxes
        x_min, y_min, x_max, y_max = boxes.unbind(-1)
        return torch.stack([self.width_px - x_max, y_min, self.width_px - x_min, y_max], dim=-1)


@dataclass(frozen=True)
class Pairs:
    """K (proposal, class) pairs of one image, in row-major order."""

    proposals: Tensor  # (K,) int64
    classes: Tensor  # (K,) int64
    complete_above_score: float  # every pair with a higher score is included


def select_candidates(
    scores: Tensor, *, min_score: float, max_pairs: int, max_low_score_candidates: int | None = None
) -> Pairs:
    """Return the pairs with a score above ``min_score``, at most the best ``max_pairs``.

    Args:
        scores: (P, C) class scores of P proposals, without the background.
        min_score: Pairs with a higher score are selected.
        max_pairs: Maximum number of pairs.
        max_low_score_candidates: Pairs with a score of 0.1 or less only fill up to this number:
            the store of a common image stays small and a crowded one loses nothing. None: no limit.
    """
    flat = scores.flatten()
    chosen = (flat > min_score).nonzero().squeeze(1)
    if max_low_score_candidates is not None:
        likely = int((flat > max(LOW_SCORE, min_score)).sum())
        max_pairs = min(max_pairs, max(max_low_score_candidates, likely))
    complete_above = min_score
    if len(chosen) > max_pairs:
        best = flat[chosen].sort(descending=True, stable=True)
        complete_above = float(best.values[max_pairs - 1])
        chosen = chosen[best.indices[:max_pairs]].sort().values
    classes = scores.shape[1]
    return Pairs(chosen // classes, chosen % classes, complete_above)


@dataclass(frozen=True)
class Views:
    """P views of one padded size, of any of the images and scales."""

    inputs: list[Tensor]  # P of (3, H_i, W_i) uint8, RGB
    samples: list[Any]  # P DetDataSample
    images: list[int]  # number of the image that each shows

    def __getitem__(self, numbers: range) -> Views:
        part = slice(numbers.start, numbers.stop)
        return Views(self.inputs[part], self.samples[part], self.images[part])


@dataclass(frozen=True)
class ForwardPass:
    """One model on P views, after its backbone and proposal head."""

    detector: Detector
    model: int  # position among the models
    weight: float  # of the model, in every average
    metas: list[dict[str, Any]]  # of each view
    images: list[int]  # number of the image that each view shows
    transforms: list[ViewTransform]  # of each view, from the shared frame
    proposals: list[InstanceData]  # of each view: boxes in its pixels, scores
    features: Callable[[], Features]
    make_room: Callable[[], bool]  # see with_oom_split


def group_by_padded_size(views: Sequence[Mapping[str, Any]], size_divisor: int) -> list[Views]:
    """Group the views that are padded to the same size, such as a view and its flip.

    Padding a view further than it is padded alone would change what the model predicts: the zeros
    meet convolutions with a bias, normalisation and the anchors of the proposals.

    Args:
        views: Batches of the same images, in the same order.
        size_divisor: Of the padded height and width, the preprocessor's ``pad_size_divisor``.
    """
    groups: dict[tuple[int, ...], Views] = {}
    for batch in views:
        pairs = zip(batch["inputs"], batch["data_samples"], strict=True)
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
) -> list[ForwardPass]:
    """Run a model's backbone and proposal head on views.

    Args:
        detector: The model.
        views: Its input.
        model: Its position among the models.
        weight: See ``ForwardPass``.
        in_view: Whether the shared frame is the view's own pixels, not the image's.
        kept: Keeps the features.

    Returns:
        One forward pass; more where the views do not fit into memory at once.
    """

    def start(numbers: range) -> ForwardPass:
        chosen = views[numbers]
        data = _preprocess(detector, chosen)
        features = tuple(detector.extract_feat(data["inputs"]))
        metas = [sample.metainfo for sample in data["data_samples"]]
        return ForwardPass(
            detector=detector,
            model=model,
            weight=weight,
            metas=metas,
            images=chosen.images,
            transforms=[ViewTransform() if in_view else ViewTransform.of(meta) for meta in metas],
            proposals=detector.rpn_head.predict(features, data["data_samples"], rescale=False),
            features=kept.keep(
                features,
                lambda: tuple(detector.extract_feat(_preprocess(detector, chosen)["inputs"])),
            ),
            make_room=kept.step_down,
        )

    numbers = range(len(views.inputs))
    return with_oom_split(start, numbers, what="views", make_room=kept.step_down)


def _preprocess(detector: Detector, views: Views) -> dict[str, Any]:
    batch = {"inputs": views.inputs, "data_samples": views.samples}
    return preprocess(detector, batch, training=False)


def run_box_stages(run: ForwardPass, proposals: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Run the box stages of one forward pass.

    Args:
        run: The forward pass.
        proposals: (R, 4) of each image, in the shared frame.

    Returns:
        For each view boxes (R, 4) in the shared frame, and scores (R, C + 1): the softmax of
        the logits' mean over the stages, as in mmdet. The background is the last class.
    """
    placed = [
        transform.to_view(proposals[image])
        for transform, image in zip(run.transforms, run.images, strict=True)
    ]
    rois = bbox2roi(placed)
    features = _features(run)

    def predict(numbers: range) -> Tensor:
        here = rois[numbers.start : numbers.stop]
        found = run.detector.roi_head.predict_bbox(
            x=features,
            batch_img_metas=run.metas,
            rpn_results_list=[
                InstanceData(bboxes=here[here[:, 0] == view, 1:]) for view in range(len(run.metas))
            ],
            rcnn_test_cfg=None,
            rescale=False,
            semantic_feat=None,
        )
        return torch.cat(
            [torch.cat([one.bboxes.float(), one.scores.float()], dim=1) for one in found]
        )

    parts = with_oom_split(predict, range(len(rois)), what="RoIs", make_room=run.make_room)
    views = torch.cat(parts).split([len(boxes) for boxes in placed])  # type: ignore[no-untyped-call]
    return [
        (transform.to_image(found[:, :4]), found[:, 4:])
        for transform, found in zip(run.transforms, views, strict=True)
    ]


def run_mask_stages(
    run: ForwardPass, boxes: Sequence[Tensor], pairs: Sequence[Pairs], stages: MaskStages
) -> list[Tensor]:
    """Run the mask stages of one forward pass; a proposal with several classes runs once.

    Args:
        run: The forward pass.
        boxes: (R, 4) of each image, in the shared frame.
        pairs: K (proposal, class) pairs of each image.
        stages: ``all``: the mean of the stages' probabilities; ``last``: the last stage's.

    Returns:
        For each view (K, h, w) float32 probabilities on the boxes, flipped back.
    """
    placed, rows, start = [], [], 0
    for transform, image in zip(run.transforms, run.images, strict=True):
        kept, row = pairs[image].proposals.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        placed.append(transform.to_view(boxes[image][kept]))
        rows.append(row + start)
        start += len(kept)
    classes = torch.cat([pairs[image].classes for image in run.images])
    masks = _masks_of_rois(run, bbox2roi(placed), torch.cat(rows), classes, stages)
    views = masks.split([len(row) for row in rows])  # type: ignore[no-untyped-call]
    return [
        transform.masks_to_image(view)
        for transform, view in zip(run.transforms, views, strict=True)
    ]


def _masks_of_rois(
    run: ForwardPass, rois: Tensor, rows: Tensor, classes: Tensor, stages: MaskStages
) -> Tensor:
    """Run the mask heads.

    Args:
        run: The forward pass.
        rois: (R, 5): view's number, xyxy in its pixels.
        rows: (K,) RoI of each pair, ascending.
        classes: (K,) class of each pair.
        stages: See ``run_mask_stages``.

    Returns:
        (K, h, w) float32 probabilities.
    """
    head = run.detector.roi_head
    extractor = head.mask_roi_extractor[-1]
    features = _features(run)[: extractor.num_inputs]

    def predict(numbers: range) -> Tensor:
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

    edge = mask_edge_px(run.detector)
    parts = [torch.zeros((0, edge, edge), device=rois.device)]
    for start in range(0, len(rois), MASK_ROIS_AT_ONCE):
        numbers = range(start, min(start + MASK_ROIS_AT_ONCE, len(rois)))
        parts += with_oom_split(predict, numbers, what="RoIs", make_room=run.make_room)
    return torch.cat(parts)


def _features(run: ForwardPass) -> Features:
    """Load the features, making room for them if necessary."""
    (features,) = with_oom_split(
        lambda _: run.features(), range(1), what="features", make_room=run.make_room
    )
    return features
