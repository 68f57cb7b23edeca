"""From candidates to detections: the steps of the settings, one by one, and what each took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from src.annotations.competition import raster_hw
from src.postprocess import mask_source
from src.postprocess.category_names import CategoryNames
from src.postprocess.detections import EMPTY, NMS_AND_CAP, CocoResult, Detections, coco_entries
from src.postprocess.selection import (
    DrawMasks,
    ImageMasks,
    MaskSet,
    RasterMasks,
    Selection,
    select_all,
)
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps import STEPS, run_steps
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.rle import Bitmasks
from src.rle.bitmasks import Bits

if TYPE_CHECKING:
    import pandas as pd

Sampler = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], str], Bits]
"""Bitmasks of some candidates, each with its mask threshold, on the raster of this name."""
# The step to which detections counted under another name belong.
_STEP_OF = {NMS_AND_CAP: "nms", EMPTY: "masks"}


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
        raster: The name of the raster of the masks, see ``raster_hw``.
    """
    selection = select(candidates, settings, category_ids=category_ids)
    return detect(selection, settings, sampler=sampler_of(candidates), raster=raster)


def coco_results(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    image_number: int,
    category_ids: Sequence[int] | None = None,
    steps: StepCounts | None = None,
) -> list[CocoResult]:
    """Return the detections of one image in COCO's results format, masks at the image's size.

    They are those of ``postprocess``, by falling score, except that a mask without a pixel is kept
    where ``min_area_px`` is 0: mmdet keeps it, and COCO's metric counts it as a false positive.
    Source: cocodataset.org, "Results Format"; pycocotools' ``loadRes`` reads it and mmdet's
    ``CocoMetric.results2json`` writes it.

    Args:
        candidates: Before NMS.
        settings: Thresholds and rules; ``min_area_px`` counts pixels of ``min_area_raster``.
        image_number: COCO's ``image_id``.
        category_ids: See ``select_all``.
        steps: Counts to which the image is added.
    """

    def draw_masks(indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32]) -> MaskSet:
        rles = mask_source.draw_rles(candidates, indices, mask_threshold=thresholds)
        return ImageMasks(rles, candidates.size_hw)

    left = draw(select(candidates, settings, category_ids=category_ids), settings, draw_masks)
    masks = left.drawn_masks
    assert isinstance(masks, ImageMasks)
    if steps is not None:
        steps.add(len(left), left.taken)
    columns = left.category_ids, left.boxes_xyxy, left.scores, masks.rles
    return coco_entries(image_number, *columns, candidates.size_hw)


class StoreDetections(Mapping[str, Detections]):
    """The detections of a prediction store by image id, post-processed when they are asked for.

    Args:
        store: Candidates before NMS.
        settings: Thresholds and rules.
        image_ids: Images of the store, in this order; None: all, by ascending id.
        raster: Name of the raster of the masks, see ``raster_hw``.

    Raises:
        InputError: The settings need mask probabilities, and the store's masks are fixed.
    """

    def __init__(
        self,
        store: PredictionStore,
        settings: PostprocessSettings,
        *,
        image_ids: Iterable[str] | None = None,
        raster: str = "512x512",
    ) -> None:
        mask_source.check_fixed_masks(settings, store)
        self.store = store
        self.settings = settings
        self.image_ids = store.image_ids if image_ids is None else tuple(image_ids)
        self.raster = raster
        self._index_of = {image_id: store.index_of(image_id) for image_id in self.image_ids}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index_of

    def __getitem__(self, image_id: str) -> Detections:
        candidates = self.store.candidates(self._index_of[image_id])
        ids = self.store.category_ids
        return postprocess(candidates, self.settings, category_ids=ids, raster=self.raster)

    def to_coco(self, image_numbers: Mapping[str, int] | None = None) -> list[CocoResult]:
        """Return COCO results with masks drawn at the size of each image; see ``coco_results``.

        Args:
            image_numbers: COCO's ``image_id`` of each image; None: by place in the store, from 1.
        """
        results = []
        for image_id in self.image_ids:
            index = self._index_of[image_id]
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
    """Apply the step ``masks`` and those after it to bitmasks, and drop empty ones.

    Returns:
        K detections, and their K bitmasks on ``raster``.
    """

    def on_rasters(indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32]) -> MaskSet:
        rasters = settings.rasters | {raster}
        return RasterMasks({name: sampler(indices, thresholds, name) for name in rasters})

    drawn = draw(selection, settings, on_rasters)
    left = drawn.after(EMPTY, drawn.take(drawn.drawn_masks.areas_px(raster) > 0))
    masks = left.drawn_masks
    assert isinstance(masks, RasterMasks)
    return left, Bitmasks(masks.on[raster], raster_hw(raster, left.candidates.size_hw))


def detect(
    selection: Selection, settings: PostprocessSettings, *, sampler: Sampler, raster: str
) -> Detections:
    """Return the detections that a selection becomes by the steps from ``masks`` on."""
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
        grid_hw = raster_hw(raster, candidates.size_hw)
        return mask_source.draw_bitmasks(
            candidates, indices, mask_threshold=thresholds, raster_hw=grid_hw
        )

    return sample


@dataclass(slots=True)
class StepCounts:
    """Counts of candidates, of what each step took of them, and of the detections left."""

    num_candidates: int = 0
    num_detections: int = 0
    taken: dict[str, int] = field(default_factory=dict)  # by step, in the order of the steps

    def add(self, num_detections: int, taken: Mapping[str, int]) -> None:
        """Count one image, given its detections and what each step took, see ``Detections``."""
        self.num_candidates += num_detections + sum(taken.values())
        self.num_detections += num_detections
        for step, count in taken.items():
            self.taken[step] = self.taken.get(step, 0) + count

    def __str__(self) -> str:
        """``1,234 candidates: score took 1,000, nms 34; 200 detections are left``."""
        counts = [(step, f"{count:,}") for step, count in self.taken.items() if count]
        if not counts:
            return f"{self.num_candidates:,} candidates: no step took any"
        took = ", ".join([" took ".join(counts[0]), *map(" ".join, counts[1:])])
        left = f"{self.num_detections:,} detections are left"
        return f"{self.num_candidates:,} candidates: {took}; {left}"

    @property
    def took_most(self) -> dict[str, int]:
        """Number that reached each step that took all or most of them; see ``warnings``."""
        found, reached = {}, self.num_candidates
        for step, count in self.taken.items():
            takes_most = STEPS[_STEP_OF.get(step, step)].takes_most
            if count == reached > 0 or (2 * count > reached and not takes_most):
                found[step] = reached
            reached -= count
        return found

    def warnings(
        self,
        settings: PostprocessSettings,
        categories: CategoryNames,
        category_ids: Sequence[int],
    ) -> list[str]:
        """Return a sentence for each step that took all or most of what reached it.

        The score threshold and NMS are meant to take most, so they appear only if they took all.

        Args:
            settings: Thresholds and rules.
            categories: Names of the categories.
            category_ids: Of the predictions.
        """
        sentences = []
        for step, reached in self.took_most.items():
            count = self.taken[step]
            share = f"all {count:,}" if count == reached else f"{count:,} of the {reached:,}"
            acting = settings.step(_STEP_OF.get(step, step))
            why = acting.reason
            if acting.removed_categories:
                why = _describe_removal(acting.removed_categories, categories, category_ids)
            sentences.append(f"{step} took {share} detections that reached it: {why}")
        if not self.num_candidates:
            sentences.append("the store has no candidates of these images")
        return sentences


def _describe_removal(
    category_ids: frozenset[int], categories: CategoryNames, predicted: Sequence[int]
) -> str:
    removed = sorted(category_ids & set(predicted))
    kept = sorted(set(predicted) - category_ids)
    return (
        f"postprocess.remove_categories removes {categories.describe(removed)}; of the "
        f"predictions' categories {categories.describe(kept) or 'none'} "
        f"{'is' if len(kept) < 2 else 'are'} kept (postprocess=winner_all_classes keeps all)"
    )
