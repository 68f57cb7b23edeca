"""Forward passes: one model on a group of views of equal padded size, within the memory there is.

Features are kept within a budget, and work that runs out of memory is split.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, TypeVar

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import Detector, mask_edge_px, preprocess
from src.mmdet_bridge.options import VIEW_CHANGES

log = logging.getLogger(__name__)

MaskStages = Literal["all", "last"]
MASK_ROIS_AT_ONCE = 128  # bounds memory: logits of 128 RoIs and 46 classes take 18 MB a stage
LOW_SCORE = 0.1
Features = tuple[Tensor, ...]
"""A pyramid's levels of N views, each (N, C, H_l, W_l)."""

Part = TypeVar("Part")


class FeatureStorage(IntEnum):
    """Storage of features, fastest first; the last takes no memory."""

    DEVICE = 0
    HALF = 1
    CPU = 2
    RECOMPUTED = 3


_IN_WORDS = (
    "on the device, as they are computed",
    "on the device, in half precision",
    "in the memory of the CPU, in half precision",
    "not at all: the backbone runs again for the box and for the mask stages",
)


class KeptFeatures:
    """Features of all forward passes over one batch of images, within a budget.

    Features stay on the device while they fit; once the budget is exceeded all of them move to the
    next cheaper storage: half precision (float16, rounded by at most 1 in 2,048), CPU memory, and
    finally recomputation, which is exact. The storage in use is logged once.

    Args:
        device_gb: Budget on the device, in GB (10^9 bytes).
        cpu_gb: Budget in CPU memory, in GB.
    """

    def __init__(self, *, device_gb: float, cpu_gb: float) -> None:
        self.storage = FeatureStorage.DEVICE
        self._budgets_gb = (device_gb, device_gb, cpu_gb, math.inf)  # by storage
        self._kept: list[Features] = []

    def keep(self, features: Features, recompute: Callable[[], Features]) -> Callable[[], Features]:
        """Store features; the function returned loads them, on their device and in their dtype."""
        number, device, dtype = len(self._kept), features[0].device, features[0].dtype
        self._kept.append(self._stored(features))
        while self._size_gb() > self._budgets_gb[self.storage]:
            self.step_down()

        def load() -> Features:
            log_once(logging.INFO, f"features are kept {_IN_WORDS[self.storage]}")
            if self.storage is FeatureStorage.RECOMPUTED:
                return recompute()
            return tuple(level.to(device=device, dtype=dtype) for level in self._kept[number])

        return load

    def step_down(self) -> bool:
        """Move all features to the next cheaper storage; return False where there is none."""
        if self.storage is FeatureStorage.RECOMPUTED:
            return False
        self.storage = FeatureStorage(self.storage + 1)
        for number, features in enumerate(self._kept):  # one by one, so that both need not fit
            self._kept[number] = self._stored(features)
        return True

    def _stored(self, features: Features) -> Features:
        if self.storage is FeatureStorage.DEVICE:
            return features
        if self.storage is FeatureStorage.RECOMPUTED:
            return ()
        halved = tuple(level.half() if level.element_size() > 2 else level for level in features)
        on_cpu = self.storage is FeatureStorage.CPU
        return tuple(level.cpu() for level in halved) if on_cpu else halved

    def _size_gb(self) -> float:
        return sum(level.nbytes for features in self._kept for level in features) / 1e9


def with_oom_split(
    run: Callable[[range], Part], items: range, *, what: str, make_room: Callable[[], bool]
) -> list[Part]:
    """Run on all items at once or, if the device runs out of memory, in parts.

    A part that fails is halved; one item that fails is tried again as long as room can be made.
    Each half is first tried whole, so one OOM does not split everything into tiny batches.

    Args:
        run: Processes some of the items.
        items: Numbers of the items.
        what: Name of the items, for the log.
        make_room: Frees memory; returns False if nothing is left to free.

    Returns:
        The results of the parts, in the order of the items.

    Raises:
        torch.OutOfMemoryError: One item does not fit and nothing is left to free.
    """
    try:
        return [run(items)]
    except torch.OutOfMemoryError as error:
        shortage = error.with_traceback(None)  # its frames hold on to the tensors of the attempt
    torch.cuda.empty_cache()
    if len(items) > 1:
        log_once(logging.WARNING, f"out of memory: {what} are split, with the same result")
        middle = len(items) // 2
        return [
            part
            for half in (items[:middle], items[middle:])
            for part in with_oom_split(run, half, what=what, make_room=make_room)
        ]
    if make_room():
        log_once(logging.WARNING, f"out of memory: kept features make room for {what}")
        return with_oom_split(run, items, what=what, make_room=make_room)
    raise shortage


@functools.cache
def log_once(level: int, message: str) -> None:
    """Log a message the first time it comes up in this process."""
    log.log(level, message)


@dataclass(frozen=True)
class ViewTransform:
    """Transform from an image to a view: resized, turned, then flipped down and across."""

    scale_wh: tuple[float, float] = (1.0, 1.0)  # resized pixels per image pixel, across and down
    size_hw: tuple[float, float] = (0.0, 0.0)  # of the view; matters where it is turned or flipped
    quarter_turn: bool = False  # by 90 degrees counter-clockwise
    vertical_flip: bool = False  # upside down
    flip: bool = False  # left to right

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> ViewTransform:
        """Read it from a sample's ``scale_factor`` (w, h), ``img_shape`` (h, w) and changes."""
        width_factor, height_factor = meta["scale_factor"]
        changes = {name: bool(meta.get(name)) for name in VIEW_CHANGES}
        return cls((width_factor, height_factor), tuple(meta["img_shape"][:2]), **changes)

    def to_image(self, boxes: Tensor) -> Tensor:
        """Map (N, 4) xyxy boxes from view to image pixels, divided as mmdet does."""
        boxes = self._flip(boxes)
        if self.quarter_turn:  # the width before the turn is the height after it
            x_min, y_min, x_max, y_max = boxes.unbind(-1)
            width_px = self.size_hw[0]
            boxes = torch.stack([width_px - y_max, x_min, width_px - y_min, x_max], dim=-1)
        return boxes / boxes.new_tensor(self.scale_wh).repeat(2)

    def to_view(self, boxes: Tensor) -> Tensor:
        """Map (N, 4) xyxy boxes from image to view pixels."""
        boxes = boxes * boxes.new_tensor(self.scale_wh).repeat(2)
        if self.quarter_turn:
            x_min, y_min, x_max, y_max = boxes.unbind(-1)
            width_px = self.size_hw[0]
            boxes = torch.stack([y_min, width_px - x_max, y_max, width_px - x_min], dim=-1)
        return self._flip(boxes)

    def masks_to_image(self, masks: Tensor) -> Tensor:
        """Map (N, h, w) masks on boxes of the view to masks on the same boxes of the image."""
        flipped = [dim for dim, flip in ((-2, self.vertical_flip), (-1, self.flip)) if flip]
        masks = masks.flip(flipped) if flipped else masks
        return masks.rot90(-1, (-2, -1)) if self.quarter_turn else masks

    def _flip(self, boxes: Tensor) -> Tensor:
        if not (self.flip or self.vertical_flip):
            return boxes
        x_min, y_min, x_max, y_max = boxes.unbind(-1)
        height_px, width_px = self.size_hw
        if self.flip:
            x_min, x_max = width_px - x_max, width_px - x_min
        if self.vertical_flip:
            y_min, y_max = height_px - y_max, height_px - y_min
        return torch.stack([x_min, y_min, x_max, y_max], dim=-1)


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
        size_divisor: The preprocessor's ``pad_size_divisor``.
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
        model: See ``ForwardPass``, like ``weight``.
        weight: See ``model``.
        in_view: Whether the shared frame is the view's own pixels, not the image's.
        kept: Keeps the features.

    Returns:
        One forward pass; more if the views do not fit into memory at once.
    """

    def start(numbers: range) -> ForwardPass:
        chosen = views[numbers]

        def preprocessed() -> dict[str, Any]:
            batch = {"inputs": chosen.inputs, "data_samples": chosen.samples}
            return preprocess(detector, batch, training=False)

        data = preprocessed()
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
                features, lambda: tuple(detector.extract_feat(preprocessed()["inputs"]))
            ),
            make_room=kept.step_down,
        )

    numbers = range(len(views.inputs))
    return with_oom_split(start, numbers, what="views", make_room=kept.step_down)


def run_box_stages(run: ForwardPass, proposals: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Run the box stages of one forward pass.

    Args:
        run: The forward pass.
        proposals: (R, 4) of each image, in the shared frame.

    Returns:
        For each view boxes (R, 4) in the shared frame, and scores (R, C + 1): the softmax of
        the logits' mean over the stages, as in mmdet. The background is the last class.
    """
    images = zip(run.transforms, run.images, strict=True)
    placed = [transform.to_view(proposals[image]) for transform, image in images]
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
        columns = [torch.cat([one.bboxes.float(), one.scores.float()], dim=1) for one in found]
        return torch.cat(columns)

    parts = with_oom_split(predict, range(len(rois)), what="RoIs", make_room=run.make_room)
    views = torch.cat(parts).split([len(boxes) for boxes in placed])  # type: ignore[no-untyped-call]
    pairs = zip(run.transforms, views, strict=True)
    return [(transform.to_image(found[:, :4]), found[:, 4:]) for transform, found in pairs]


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
        For each view (K, h, w) float32 probabilities on the boxes, flipped and turned back.
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
    pairs_of_views = zip(run.transforms, views, strict=True)
    return [transform.masks_to_image(view) for transform, view in pairs_of_views]


def _masks_of_rois(
    run: ForwardPass, rois: Tensor, rows: Tensor, classes: Tensor, stages: MaskStages
) -> Tensor:
    """Return (K, h, w) float32 probabilities of K pairs.

    RoIs are (R, 5): the view's number, xyxy in its pixels. ``rows`` (K,) holds the RoI of each
    pair, ascending, ``classes`` (K,) its class.
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
