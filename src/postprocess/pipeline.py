"""From the candidates of an image to its objects: thresholds, NMS, masks, overlaps, filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from src.postprocess.candidates import Candidates
from src.postprocess.detections import Detections
from src.postprocess.filters import of_enough_pixels, of_other_categories
from src.postprocess.non_maximum_suppression import select_by_nms
from src.postprocess.overlaps import suppress_overlaps
from src.postprocess.prediction_store import PredictionStore
from src.postprocess.raster import sample_masks
from src.postprocess.settings import PostprocessSettings


def postprocess(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    label_category_ids: Sequence[int] | None = None,
) -> Detections:
    """The objects of one image under these settings.

    Score threshold, class-wise NMS, cap (as mmdet does them), removal of categories, masks on the
    512 x 512 raster, overlap suppression, minimum area; an empty mask is never an object.

    The result is what the model run with these settings would give where the store holds all pairs
    above the threshold, or where the cap is filled by pairs above those it lacks (then up to the
    class offset that NMS takes from the largest coordinate of all pairs). ``is_exact`` says so.

    Args:
        candidates: Pre-NMS pairs, float16 or float32 masks.
        settings: Thresholds and rules.
        label_category_ids: The data's category id of each of the model's labels (a store's
            ``category_ids``); NMS numbers classes by label. None: ids are labels.
    """
    kept, is_exact = select_pairs(candidates, settings, label_category_ids=label_category_ids)
    packed = sample_masks(
        candidates.mask_probabilities[kept],
        candidates.boxes_xyxy[kept],
        candidates.size_hw,
        mask_threshold=settings.mask_threshold,
    )
    category_ids = candidates.category_ids[kept]
    if settings.suppress_overlaps:
        packed = suppress_overlaps(category_ids, packed)
    objects = Detections(
        image_id=candidates.image_id,
        category_ids=category_ids,
        scores=candidates.scores[kept],
        boxes_xyxy=candidates.boxes_xyxy[kept],
        packed=packed,
        is_exact=is_exact,
    )
    return objects.take(of_enough_pixels(packed, settings.min_area_px))


def select_pairs(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    label_category_ids: Sequence[int] | None = None,
) -> tuple[npt.NDArray[np.int64], bool]:
    """What can be decided without masks: score threshold, NMS, cap, removal of categories.

    Returns:
        Shape (K,) int64, the pairs that are kept, by falling score; and whether they are those that
        the model would give with these settings (``Detections.is_exact``).
    """
    kept = select_by_nms(
        candidates.boxes_for_nms,
        candidates.scores,
        _labels(candidates, label_category_ids),
        score_threshold=settings.score_threshold,
        iou_threshold=settings.nms_iou_threshold,
        max_per_image=settings.max_per_image,
    )
    lowest_exact = np.float32(candidates.exact_above_score)
    cap_filled = (
        settings.max_per_image is not None
        and len(kept) == settings.max_per_image
        and candidates.scores[kept[-1]] > lowest_exact
    )
    is_exact = bool(np.float32(settings.score_threshold) >= lowest_exact or cap_filled)
    # before the masks are made, which are the work; the result is the same
    others = of_other_categories(candidates.category_ids[kept], settings.remove_categories)
    return kept[others], is_exact


def postprocess_store(
    store: PredictionStore, settings: PostprocessSettings, image_ids: Iterable[str]
) -> Iterator[Detections]:
    """The objects of these images of a store, one image at a time, in this order.

    Raises:
        InputError: the store lacks an image, or is damaged.
    """
    for image_id in image_ids:
        yield postprocess(
            store.candidates(store.index_of(image_id)),
            settings,
            label_category_ids=store.category_ids,
        )


def _labels(
    candidates: Candidates, label_category_ids: Sequence[int] | None
) -> npt.NDArray[np.integer]:
    """The model's class index of each pair."""
    if label_category_ids is None:
        return candidates.category_ids
    labels = np.zeros(max(label_category_ids) + 1, dtype=np.int64)
    labels[list(label_category_ids)] = np.arange(len(label_category_ids))
    return labels[candidates.category_ids]
