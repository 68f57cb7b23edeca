"""From the candidates of an image to its detections: the steps of the settings, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from src.postprocess.detections import EMPTY, CocoResult, Detections
from src.postprocess.raster import RASTERS, sample_masks
from src.postprocess.selection import (
    DrawMasks,
    MaskSet,
    RasterMasks,
    Selection,
    select_all,
)
from src.postprocess.settings import PostprocessSettings
from src.postprocess.step import run_steps
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.rle import Bitmasks
from src.rle.bitmasks import Bits

if TYPE_CHECKING:
    import pandas as pd

Sampler = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], str], Bits]
"""Bitmasks of some candidates, each with its mask threshold, on the raster of this name."""


def postprocess(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    category_ids: Sequence[int] | None = None,
    raster: str = "512x512",
) -> Detections:
    """Return the detections of one image under these settings.

    By default: score threshold, class-wise NMS, cap (as mmdet does them), removal of categories,
    cap for each class, masks on the raster, overlap suppression, minimum area. An empty mask is
    never a detection, whatever the steps.

    The result is what the model run with these settings would give where the store holds all
    candidates above the threshold, or where a cap is filled by candidates above those it lacks
    (then up to the class offset that NMS takes from the largest coordinate of all). ``is_exact``
    says so.

    Args:
        candidates: Before NMS, float16 or float32 masks.
        settings: Thresholds and rules.
        category_ids: See ``select_all``.
        raster: The name of the raster of the masks, one of ``RASTERS``.
    """
    selection = select(candidates, settings, category_ids=category_ids)
    return detect(selection, settings, sampler=sampler_of(candidates), raster=raster)


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
            category_ids=self.store.category_ids,
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
                category_ids=self.store.category_ids,
            )
        return results

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each detection, see ``Detections.to_frame``."""
        import pandas as pd

        frames = [found.to_frame() for found in self.values()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def select(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    category_ids: Sequence[int] | None = None,
) -> Selection:
    """Apply the steps before ``masks``. Arguments as for ``postprocess``."""
    return run_steps(select_all(candidates, category_ids), settings.before_masks)


def draw(selection: Selection, settings: PostprocessSettings, draw_masks: DrawMasks) -> Selection:
    """Apply the step ``masks`` and those after it.

    Args:
        selection: From ``select``, or the detections of one category of it where
            ``settings.is_per_category``.
        settings: Thresholds and rules.
        draw_masks: Draws the masks, on ``settings.rasters`` at least.
    """
    return run_steps(replace(selection, draw=draw_masks), settings.from_masks)


def draw_bitmasks(
    selection: Selection, settings: PostprocessSettings, *, sampler: Sampler, raster: str
) -> tuple[Selection, Bitmasks]:
    """Apply the step ``masks`` and those after it to bitmasks, and leave out empty ones.

    Returns:
        K detections, and their bitmasks on ``raster``, shape (K, B).
    """

    def on_rasters(indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32]) -> MaskSet:
        rasters = settings.rasters | {raster}
        return RasterMasks({name: sampler(indices, thresholds, name) for name in rasters})

    drawn = draw(selection, settings, on_rasters)
    left = drawn.after(EMPTY, drawn.take(drawn.drawn_masks.areas_px(raster) > 0))
    masks = left.drawn_masks
    assert isinstance(masks, RasterMasks)
    return left, Bitmasks(masks.on[raster], RASTERS[raster](left.candidates.size_hw))


def detect(
    selection: Selection, settings: PostprocessSettings, *, sampler: Sampler, raster: str
) -> Detections:
    """Return the detections that the steps from ``masks`` on make of a selection."""
    left, bitmasks = draw_bitmasks(selection, settings, sampler=sampler, raster=raster)
    return Detections(
        image_id=left.candidates.image_id,
        category_ids=left.category_ids,
        scores=left.scores,
        boxes_xyxy=left.boxes_xyxy,
        bitmasks=bitmasks,
        is_exact=left.is_exact,
        taken=left.taken,
        size_hw=left.candidates.size_hw,
    )


def sampler_of(candidates: Candidates) -> Sampler:
    """Return a sampler of an image's candidates."""

    def sample(
        indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32], raster: str
    ) -> Bits:
        return sample_masks(
            candidates.mask_probabilities[indices],
            candidates.boxes_xyxy[indices],
            candidates.size_hw,
            mask_threshold=thresholds,
            raster_hw=RASTERS[raster](candidates.size_hw),
        )

    return sample
