"""The state between two steps of post-processing: the candidates left, and their masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from src.annotations.competition import raster_hw
from src.postprocess.raster import suppress_overlaps
from src.predictions.candidates import Candidates, Scores
from src.rle import Rle, RleBatch, resize_nearest, subtract, union
from src.rle.bitmasks import Bits, areas_px

Kept = npt.NDArray[np.bool_] | npt.NDArray[np.integer] | slice


class MaskSet(ABC):
    """The masks of K detections of an image, in one representation."""

    @abstractmethod
    def take(self, kept: Kept) -> Self:
        """Return the masks that a boolean mask, indices or a slice select."""

    @abstractmethod
    def areas_px(self, raster: str) -> npt.NDArray[np.integer]:
        """Return the number of pixels of each mask on a named raster. Shape (K,)."""

    @abstractmethod
    def without_overlaps(self, category_ids: npt.NDArray[np.integer]) -> Self:
        """Remove from each mask the pixels of all masks of its category that come before it."""


DrawMasks = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], MaskSet]
"""Draw the masks of candidates, given their indices and the mask threshold of each."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterMasks(MaskSet):
    """Bitmasks on one or more rasters."""

    on: Mapping[str, Bits]  # (K, B) by the name of the raster

    def take(self, kept: Kept) -> Self:
        """Return the masks of these positions."""
        if isinstance(kept, np.ndarray) and kept.dtype == bool and kept.all():
            return self  # on the raster of a large image a copy takes gigabytes
        return type(self)({raster: packed[kept] for raster, packed in self.on.items()})

    def areas_px(self, raster: str) -> npt.NDArray[np.integer]:
        """Return the number of pixels of each mask on a raster. Shape (K,)."""
        return areas_px(self.on[raster])

    def without_overlaps(self, category_ids: npt.NDArray[np.integer]) -> Self:
        """Remove from each mask the pixels of better masks of its category."""
        return type(self)(
            {raster: suppress_overlaps(category_ids, packed) for raster, packed in self.on.items()}
        )


@dataclass(frozen=True, slots=True, eq=False)
class ImageMasks(MaskSet):
    """Masks at the size of the image, as RLE."""

    rles: RleBatch  # K
    size_hw: tuple[int, int]

    def take(self, kept: Kept) -> Self:
        """Return the masks of these positions."""
        return type(self)(self.rles[kept], self.size_hw)

    def areas_px(self, raster: str) -> npt.NDArray[np.integer]:
        """Return the number of pixels of each mask on a raster. Shape (K,)."""
        return resize_nearest(self.rles, raster_hw(raster, self.size_hw)).areas_px()

    def without_overlaps(self, category_ids: npt.NDArray[np.integer]) -> Self:
        """Remove from each mask the pixels of better masks of its category."""
        covered: dict[int, Rle] = {}
        result = []
        for category, rle in zip(category_ids.tolist(), self.rles, strict=True):
            before = covered.get(category)
            result.append(rle if before is None else subtract(rle, before))
            covered[category] = rle if before is None else union(before, rle)
        return type(self)(RleBatch.of(result), self.size_hw)


def _draw_nothing(_indices: npt.NDArray[np.int64], _thresholds: npt.NDArray[np.float32]) -> MaskSet:
    raise RuntimeError("the steps before masks have no masks")


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The candidates of an image that the steps so far have left: K of N, by falling score."""

    candidates: Candidates  # N, of the image
    labels: npt.NDArray[np.integer]  # (N,) the model's class index of each candidate
    indices: npt.NDArray[np.int64]  # (K,) into the candidates
    scores: Scores  # (K,) as stored, or as soft-NMS has lowered them
    category_ids: npt.NDArray[np.int16]  # (K,)
    is_exact: bool  # see Detections
    draw: DrawMasks = _draw_nothing
    masks: MaskSet | None = None  # None: not drawn yet
    taken: Mapping[str, int] = field(default_factory=dict)  # see Detections

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float32]:
        """(K, 4) image pixels, as predicted."""
        return self.candidates.boxes_xyxy[self.indices]

    @property
    def drawn_masks(self) -> MaskSet:
        """The masks, for steps that come after ``masks``.

        Raises:
            RuntimeError: The step comes before ``masks``.
        """
        if self.masks is None:
            raise RuntimeError("this step needs masks, and comes before they are drawn")
        return self.masks

    def take(self, kept: Kept) -> Selection:
        """Return the candidates that a boolean mask, indices or a slice select."""
        return Selection(  # not replace(), which took 20% of the time to score many settings
            self.candidates,
            self.labels,
            self.indices[kept],
            self.scores[kept],
            self.category_ids[kept],
            self.is_exact,
            self.draw,
            None if self.masks is None else self.masks.take(kept),
            self.taken,
        )

    def exact_where(self, is_certain: bool) -> Selection:
        """Return the selection, marked as exact if ``is_certain``."""
        return replace(self, is_exact=True) if is_certain and not self.is_exact else self

    def after(self, step: str, left: Selection) -> Selection:
        """Return what ``step`` has left of this selection, with the number that it took."""
        num_taken = len(self) - len(left)
        return replace(left, taken={**self.taken, step: num_taken}) if num_taken else left


def select_all(candidates: Candidates, category_ids: Sequence[int] | None = None) -> Selection:
    """Return all candidates of an image, by falling score.

    Args:
        candidates: The candidates.
        category_ids: The category id of each of the model's labels, by which NMS numbers classes (a
            store's ``category_ids``). None: ids are labels.
    """
    by_score = np.argsort(-candidates.scores, kind="stable")
    labels: npt.NDArray[np.integer] = candidates.category_ids
    if category_ids is not None:
        label_of = np.zeros(max(category_ids) + 1, dtype=np.int64)
        label_of[list(category_ids)] = np.arange(len(category_ids))
        labels = label_of[labels]
    return Selection(
        candidates=candidates,
        labels=labels,
        indices=by_score,
        scores=candidates.scores[by_score],
        category_ids=candidates.category_ids[by_score],
        is_exact=candidates.complete_above_score <= 0,
    )


def by_category(
    category_ids: npt.NDArray[np.integer], everywhere: float, per_class: Mapping[int, float]
) -> npt.NDArray[np.float32]:
    """Return each detection's threshold: its category's, else ``everywhere``. Shape (K,)."""
    values = np.full(len(category_ids), everywhere, dtype=np.float32)
    for category, value in per_class.items():
        values[category_ids == category] = value
    return values
