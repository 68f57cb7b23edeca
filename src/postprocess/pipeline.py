"""From the candidates of an image to its objects: the steps of the settings, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from src.postprocess.detections import EMPTY, NMS_AND_CAP, Detections
from src.postprocess.filters import (
    above_score,
    by_category,
    first_of_each_category,
    of_enough_pixels,
    of_other_categories,
)
from src.postprocess.non_maximum_suppression import suppress_boxes
from src.postprocess.overlaps import suppress_overlaps
from src.postprocess.raster import RASTERS, sample_masks
from src.postprocess.settings import PostprocessSettings
from src.postprocess.soft_nms import select_by_soft_nms
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore

if TYPE_CHECKING:
    import pandas as pd

    from src.postprocess.coco_results import CocoResult

Packed = npt.NDArray[np.uint8]
Sampler = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], str], Packed]
"""Packed masks of some pairs, each with its mask threshold, on the raster of this name."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What the steps so far have left of an image's pairs, K of them, by falling score."""

    pairs: npt.NDArray[np.int64]  # (K,) indices into the candidates
    scores: npt.NDArray[np.float32]  # (K,) as stored, or as soft-NMS has lowered them
    category_ids: npt.NDArray[np.int16]  # (K,)
    complete_above_score: np.float32  # see Candidates
    is_exact: bool  # see Detections
    masks: Mapping[str, Packed]  # (K, B) packed masks by the name of the raster; none yet: empty
    taken: Mapping[str, int] = field(default_factory=dict)  # see Detections

    def take(self, kept: npt.NDArray[np.bool_] | npt.NDArray[np.integer] | slice) -> Chosen:
        """Those that a mask, indices or a slice choose."""
        return Chosen(
            pairs=self.pairs[kept],
            scores=self.scores[kept],
            category_ids=self.category_ids[kept],
            complete_above_score=self.complete_above_score,
            is_exact=self.is_exact,
            masks={name: packed[kept] for name, packed in self.masks.items()},
            taken=self.taken,
        )

    def after(self, step: str, left: Chosen) -> Chosen:
        """What a step has left of these, with the number of those that it took."""
        return replace(left, taken={**self.taken, step: len(self.pairs) - len(left.pairs)})


def postprocess(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    label_category_ids: Sequence[int] | None = None,
    raster: str = "512x512",
) -> Detections:
    """The objects of one image under these settings.

    By default: score threshold, class-wise NMS, cap (as mmdet does them), removal of categories,
    cap for each class, masks on the raster, overlap suppression, minimum area. An empty mask is
    never an object, whatever the steps.

    The result is what the model run with these settings would give where the store holds all pairs
    above the threshold, or where a cap is filled by pairs above those it lacks (then up to the
    class offset that NMS takes from the largest coordinate of all pairs). ``is_exact`` says so.

    Args:
        candidates: Pre-NMS pairs, float16 or float32 masks.
        settings: Thresholds and rules.
        label_category_ids: The data's category id of each of the model's labels (a store's
            ``category_ids``); NMS numbers classes by label. None: ids are labels.
        raster: The name of the raster of the masks, one of ``RASTERS``.
    """
    chosen = select_pairs(candidates, settings, label_category_ids=label_category_ids)
    objects = draw_masks(chosen, settings, sampler=sampler_of(candidates), raster=raster)
    return to_detections(objects, candidates, raster)


class StoreDetections(Mapping[str, Detections]):
    """The detections of a prediction store by image id, post-processed when they are asked for.

    Args:
        store: Candidates before NMS.
        settings: Thresholds and rules.
        image_ids: Images of the store, in this order; None: all, by ascending id.
        raster: Name of the raster of the masks, one of ``RASTERS``.
    """

    def __init__(
        self,
        store: PredictionStore,
        settings: PostprocessSettings,
        *,
        image_ids: Iterable[str] | None = None,
        raster: str = "512x512",
    ) -> None:
        self.store = store
        self.settings = settings
        self.image_ids = store.image_ids if image_ids is None else tuple(image_ids)
        self.raster = raster
        self._known = frozenset(self.image_ids)
        for image_id in self.image_ids:
            store.index_of(image_id)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._known

    def __getitem__(self, image_id: str) -> Detections:
        if image_id not in self._known:
            raise KeyError(image_id)
        return postprocess(
            self.store.candidates(self.store.index_of(image_id)),
            self.settings,
            label_category_ids=self.store.category_ids,
            raster=self.raster,
        )

    def to_coco(self, image_numbers: Mapping[str, int] | None = None) -> list[CocoResult]:
        """Return COCO results with masks drawn at the size of each image; see ``coco_results``.

        Args:
            image_numbers: COCO's ``image_id`` of each image; None: by place in the store, from 1.
        """
        from src.postprocess.coco_results import coco_results

        results = []
        for image_id in self.image_ids:
            index = self.store.index_of(image_id)
            results += coco_results(
                self.store.candidates(index),
                self.settings,
                image_number=index + 1 if image_numbers is None else image_numbers[image_id],
                label_category_ids=self.store.category_ids,
            )
        return results

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each detection, see ``Detections.to_frame``."""
        import pandas as pd

        return pd.concat([one.to_frame() for one in self.values()], ignore_index=True)


def select_pairs(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    label_category_ids: Sequence[int] | None = None,
) -> Chosen:
    """The steps before ``masks``: which pairs become masks. Arguments as for ``postprocess``."""
    by_score = np.argsort(-candidates.scores, kind="stable")
    chosen = Chosen(
        pairs=by_score,
        scores=candidates.scores[by_score],
        category_ids=candidates.category_ids[by_score],
        complete_above_score=np.float32(candidates.complete_above_score),
        is_exact=candidates.complete_above_score <= 0,
        masks={},
    )
    labels = _labels(candidates, label_category_ids)
    for step in settings.steps[: settings.steps.index("masks")]:
        if step == "nms":
            left = _suppress(chosen, settings, candidates.boxes_for_nms, labels)
            if len(left.pairs) == _cap_of_nms(settings):
                step = NMS_AND_CAP  # it stops at the cap, so that who took which is not known
        else:
            left = filter_pairs(step, chosen, settings)
        chosen = chosen.after(step, left)
    return chosen


def draw_masks(
    chosen: Chosen, settings: PostprocessSettings, *, sampler: Sampler, raster: str = "512x512"
) -> Chosen:
    """The step ``masks`` and those after it.

    What becomes of a mask depends on those of its class alone, unless a cap comes after ``masks``.

    Args:
        chosen: From ``select_pairs``.
        settings: Thresholds and rules.
        sampler: Makes the masks.
        raster: The raster of the masks, one of ``RASTERS``.

    Returns:
        Objects with masks on ``raster``, none of them empty.
    """
    thresholds = mask_thresholds(chosen, settings)
    rasters = {raster, settings.min_area_raster} if settings.min_area_px else {raster}
    chosen = replace(
        chosen, masks={name: sampler(chosen.pairs, thresholds, name) for name in rasters}
    )
    for step in settings.steps[settings.steps.index("masks") + 1 :]:
        if step == "suppress_overlaps":
            if settings.suppress_overlaps:
                disjoint = {
                    name: suppress_overlaps(chosen.category_ids, packed)
                    for name, packed in chosen.masks.items()
                }
                chosen = replace(chosen, masks=disjoint)
        elif step == "min_area":
            if settings.min_area_px:
                areas_of = chosen.masks[settings.min_area_raster]
                left = chosen.take(of_enough_pixels(areas_of, settings.min_area_px))
                chosen = chosen.after(step, left)
        else:
            chosen = chosen.after(step, filter_pairs(step, chosen, settings))
    left = chosen.take(of_enough_pixels(chosen.masks[raster], min_area_px=1))
    return chosen.after(EMPTY, left)


def mask_thresholds(chosen: Chosen, settings: PostprocessSettings) -> npt.NDArray[np.float32]:
    """The probability from which a pixel belongs to each mask. Shape (K,)."""
    return by_category(
        chosen.category_ids, settings.mask_threshold, settings.mask_threshold_per_class
    )


def to_detections(objects: Chosen, candidates: Candidates, raster: str) -> Detections:
    """What ``draw_masks`` has left of an image's candidates."""
    return Detections(
        image_id=candidates.image_id,
        category_ids=objects.category_ids,
        scores=objects.scores,
        boxes_xyxy=candidates.boxes_xyxy[objects.pairs],
        packed=objects.masks[raster],
        is_exact=objects.is_exact,
        raster_hw=RASTERS[raster](candidates.size_hw),
        taken=objects.taken,
        size_hw=candidates.size_hw,
    )


def sampler_of(candidates: Candidates) -> Sampler:
    """Masks made from an image's candidates."""

    def sample(
        pairs: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32], raster: str
    ) -> Packed:
        return sample_masks(
            candidates.mask_probabilities[pairs],
            candidates.boxes_xyxy[pairs],
            candidates.size_hw,
            mask_threshold=thresholds,
            raster_hw=RASTERS[raster](candidates.size_hw),
        )

    return sample


def _suppress(
    chosen: Chosen,
    settings: PostprocessSettings,
    boxes_xyxy: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
) -> Chosen:
    # mmdet breaks ties of score by the order of the pairs, so they are handed over in it
    order = np.argsort(chosen.pairs)
    pairs = chosen.pairs[order]
    cap = _cap_of_nms(settings)
    if settings.nms_kind == "soft_linear" or settings.nms_kind == "soft_gaussian":
        kept, scores = select_by_soft_nms(
            boxes_xyxy[pairs],
            chosen.scores[order],
            labels[pairs],
            kind=settings.nms_kind,
            iou_threshold=settings.nms_iou_threshold,
            sigma=settings.soft_nms_sigma,
            min_score=settings.soft_nms_min_score,
            max_selected=cap,
        )
        return replace(chosen.take(order[kept]), scores=scores)
    kept = suppress_boxes(
        boxes_xyxy[pairs],
        chosen.scores[order],
        labels[pairs],
        iou_threshold=settings.nms_iou_threshold,
        max_selected=cap,
        class_agnostic=settings.nms_kind == "class_agnostic",
    )
    return chosen.take(order[kept])


def _cap_of_nms(settings: PostprocessSettings) -> int | None:
    """The cap that NMS may stop at: that of the step after it."""
    after = settings.steps[settings.steps.index("nms") + 1]
    return settings.max_per_image if after == "cap" else None


def filter_pairs(step: str, chosen: Chosen, settings: PostprocessSettings) -> Chosen:
    """The steps that need no mask; they may come before or after the masks."""
    if step == "score":
        thresholds = by_category(
            chosen.category_ids, settings.score_threshold, settings.score_threshold_per_class
        )
        chosen = chosen.take(above_score(chosen.scores, thresholds))
        lowest = min(settings.score_threshold, *settings.score_threshold_per_class.values(), 1.0)
        if np.float32(lowest) >= chosen.complete_above_score:
            chosen = replace(chosen, is_exact=True)
    elif step == "cap" and settings.max_per_image is not None:
        chosen = chosen.take(slice(settings.max_per_image))
        is_filled = len(chosen.pairs) == settings.max_per_image
        if is_filled and chosen.scores[-1] > chosen.complete_above_score:
            chosen = replace(chosen, is_exact=True)
    elif step == "remove":
        kept = of_other_categories(chosen.category_ids, settings.removed_categories)
        chosen = chosen.take(kept)
    elif step == "max_per_class" and settings.max_per_class is not None:
        chosen = chosen.take(first_of_each_category(chosen.category_ids, settings.max_per_class))
    return chosen


def _labels(
    candidates: Candidates, label_category_ids: Sequence[int] | None
) -> npt.NDArray[np.integer]:
    """The model's class index of each pair."""
    if label_category_ids is None:
        return candidates.category_ids
    labels = np.zeros(max(label_category_ids) + 1, dtype=np.int64)
    labels[list(label_category_ids)] = np.arange(len(label_category_ids))
    return labels[candidates.category_ids]
