"""One image whose detections are evaluated under many settings, with what is remembered of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.metrics.competition import (
    THRESHOLDS,
    ClassKey,
    ImageCounts,
    ImageInstances,
    match_instances,
    no_instances,
)
from src.postprocess.detections import Detections
from src.postprocess.pipeline import Sampler, detect, draw_bitmasks, sampler_of, select
from src.postprocess.raster import sample_masks_at
from src.postprocess.selection import Selection
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.rle.bitmasks import Bits
from src.tuning.submitted import as_submitted, filler

_REMEMBERED = 1024  # selections, and results of categories, of an image; beyond, it forgets them
SCORED_RASTER = "512x512"
Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """The part of a bitmask that is not zero."""

    first: int  # byte
    content: Bits
    row_bytes: int  # of the whole mask


@dataclass(slots=True)
class RasterCache:
    """Bitmasks by (image, raster, index, threshold), the bytes from the first that is not zero.

    Those that were not asked for longest make room for new ones.

    Args:
        room_bytes: What all masks together may take.
    """

    room_bytes: int
    used_bytes: int = 0
    _windows: OrderedDict[Key, _Window] = field(default_factory=OrderedDict)

    def sampler(self, image_id: str, make: Sampler) -> Sampler:
        """Return a sampler that makes only what is missing; ``make`` is that of the image."""

        def sample(
            indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32], raster: str
        ) -> Bits:
            keys: list[Key] = [
                (image_id, raster, index, threshold)
                for index, threshold in zip(indices.tolist(), thresholds.tolist(), strict=True)
            ]
            there = [self._windows.get(key) for key in keys]
            missing = np.array([window is None for window in there], dtype=bool)
            if missing.any() or not keys:
                made = make(indices[missing], thresholds[missing], raster)
                packed = np.zeros((len(keys), made.shape[1]), dtype=np.uint8)
                packed[missing] = made
            else:
                assert there[0] is not None
                packed = np.zeros((len(keys), there[0].row_bytes), dtype=np.uint8)
            for key, row, window in zip(keys, packed, there, strict=True):
                if window is None:
                    self._keep(key, row)
                    continue
                row[window.first : window.first + len(window.content)] = window.content
                if key in self._windows:  # it may have made room just now
                    self._windows.move_to_end(key)
            return packed

        return sample

    def missing(
        self, image_id: str, raster: str, indices: Sequence[int], threshold: float
    ) -> list[int]:
        """Return the candidates whose masks at this threshold are not there."""
        return [
            index for index in indices if (image_id, raster, index, threshold) not in self._windows
        ]

    def add(
        self, image_id: str, raster: str, indices: Sequence[int], threshold: float, packed: Bits
    ) -> None:
        """Keep the masks of these candidates. Shape (N, B)."""
        for index, mask in zip(indices, packed, strict=True):
            self._keep((image_id, raster, index, threshold), mask)

    def _keep(self, key: Key, mask: Bits) -> None:
        words = np.flatnonzero(mask.view(np.uint64))  # rasters are whole numbers of words
        first, last = (8 * int(words[0]), 8 * int(words[-1]) + 8) if len(words) else (0, 0)
        window = _Window(first, mask[first:last].copy(), len(mask))
        if key in self._windows:
            self.used_bytes -= self._windows[key].content.nbytes
        self._windows[key] = window
        self.used_bytes += window.content.nbytes
        while self.used_bytes > self.room_bytes:
            _, dropped = self._windows.popitem(last=False)
            self.used_bytes -= dropped.content.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class CategorySelection:
    """The candidates of one category in an image's selection."""

    category: int
    places: npt.NDArray[np.int64]  # (K,) in the selection
    key: tuple[int, bytes, bytes]  # the category, its candidates, and their scores


@dataclass(frozen=True, slots=True, eq=False)
class CategoryMatches:
    """How the detections of one category of an image match its ground truth."""

    detections: int
    first: int  # the first detection's place in the category's selection
    true_positives: npt.NDArray[np.int64]  # (10,) by threshold


_NOTHING = CategoryMatches(
    detections=0, first=-1, true_positives=np.zeros(len(THRESHOLDS), dtype=np.int64)
)


class EvaluatedImage:
    """Candidates and ground truth of one image.

    Args:
        candidates: Before NMS.
        ground_truth: Ground-truth instances, class keys being categories; None where they are not
        known.
        category_ids: See ``postprocess``.
        rasters: Where masks are kept.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        ground_truth: ImageInstances | None,
        category_ids: Sequence[int],
        rasters: RasterCache,
    ) -> None:
        self._candidates = candidates
        self._ground_truth = ground_truth
        self._category_ids = category_ids
        self._rasters = rasters
        self._sampler = rasters.sampler(candidates.image_id, sampler_of(candidates))
        self._truth_of_category = {} if ground_truth is None else _by_category(ground_truth)
        self._selections: dict[Hashable, tuple[Selection, list[CategorySelection]]] = {}
        self._matches: dict[Hashable, CategoryMatches] = {}
        self._filler_counts: ImageCounts | None = None

    @property
    def nbytes(self) -> int:
        """What the candidates take in memory, nearly."""
        return self._candidates.mask_probabilities.nbytes

    def detections(self, settings: PostprocessSettings, raster: str) -> Detections:
        """Return the detections that ``src.postprocess.pipeline.postprocess`` gives."""
        selection, _ = self._select(settings)
        return detect(selection, settings, sampler=self._sampler, raster=raster)

    def prepare(self, grid: Sequence[PostprocessSettings]) -> None:
        """Draw the masks that these settings will ask for, each probability computed once."""
        if not self._rasters.room_bytes:
            return
        wanted: dict[float, set[int]] = {}
        for settings in grid:
            selection, categories = self._select(settings)
            for own in categories:
                indices = wanted.setdefault(settings.masks.threshold_of(own.category), set())
                indices.update(selection.indices[own.places].tolist())
        name = self._candidates.image_id
        missing = {
            threshold: self._rasters.missing(name, SCORED_RASTER, sorted(indices), threshold)
            for threshold, indices in wanted.items()
        }
        together = sorted({index for indices in missing.values() for index in indices})
        if not together:
            return
        masks = sample_masks_at(
            self._candidates.mask_probabilities[together],
            self._candidates.boxes_xyxy[together],
            self._candidates.size_hw,
            mask_thresholds=list(missing),
        )
        for packed, threshold in zip(masks, missing, strict=True):
            self._rasters.add(name, SCORED_RASTER, together, threshold, packed)

    def counts(self, settings: PostprocessSettings, *, with_filler: bool) -> ImageCounts:
        """Return the counts of matching the submitted detections with the ground truth.

        Args:
            settings: Thresholds and rules.
            with_filler: Whether an image without a detection has the competition's filler row.

        Raises:
            ValueError: The ground truth is not known.
        """
        if self._ground_truth is None:
            raise ValueError(f"{self._candidates.image_id}: its ground truth is not known")
        if not settings.is_per_category:
            detections = self.detections(settings, SCORED_RASTER)
            submitted = as_submitted(detections, with_filler=with_filler)
            return match_instances(self._ground_truth, submitted).counts()
        selection, categories = self._select(settings)
        found: dict[ClassKey, CategoryMatches] = {}
        firsts: dict[ClassKey, int] = {}
        for own in categories:
            matches = self._match(selection, own, settings)
            if matches.detections:
                found[own.category] = matches
                firsts[own.category] = own.places[matches.first]
        if not found and with_filler:
            if self._filler_counts is None:
                submitted = filler(self._ground_truth.image_id)
                self._filler_counts = match_instances(self._ground_truth, submitted).counts()
            return self._filler_counts
        # the order of matching a whole image: classes of the ground truth, then those that are
        # predicted
        predicted = sorted(found, key=firsts.__getitem__)
        class_keys = tuple(dict.fromkeys((*self._truth_of_category, *predicted)))
        of_keys = [found.get(key, _NOTHING) for key in class_keys]
        return ImageCounts(
            class_keys=class_keys,
            num_ground_truth=np.array(
                [len(self._truth_of_category.get(key, ())) for key in class_keys], dtype=np.int64
            ),
            num_detections=np.array([own.detections for own in of_keys], dtype=np.int64),
            # an image with neither side's instances has no class, and still ten thresholds
            true_positives=np.array(
                [own.true_positives for own in of_keys], dtype=np.int64
            ).reshape(-1, len(THRESHOLDS)),
        )

    def _select(self, settings: PostprocessSettings) -> tuple[Selection, list[CategorySelection]]:
        key = settings.selection_key
        if key not in self._selections:
            selection = select(self._candidates, settings, category_ids=self._category_ids)
            categories = []
            for category in np.unique(selection.category_ids).tolist():
                places = np.flatnonzero(selection.category_ids == category)
                indices, scores = selection.indices[places], selection.scores[places]
                own = (category, indices.tobytes(), scores.tobytes())
                categories.append(CategorySelection(category, places, own))
            if len(self._selections) >= _REMEMBERED:
                self._selections.clear()
            self._selections[key] = selection, categories
        return self._selections[key]

    def _match(
        self, selection: Selection, own: CategorySelection, settings: PostprocessSettings
    ) -> CategoryMatches:
        category = own.category
        key = (
            own.key if settings.uses_scores else own.key[:2],
            settings.category_key(category),
        )
        if key not in self._matches:
            if len(self._matches) >= _REMEMBERED:
                self._matches.clear()
            selected = selection.take(own.places)
            left, bitmasks = draw_bitmasks(
                selected, settings, sampler=self._sampler, raster=SCORED_RASTER
            )
            if not len(left):
                self._matches[key] = _NOTHING
                return _NOTHING
            predicted = ImageInstances(
                image_id=self._candidates.image_id,
                class_keys=(category,) * len(left),
                bitmasks=bitmasks,
            )
            ground_truth = self._truth_of_category.get(category, no_instances(predicted))
            self._matches[key] = CategoryMatches(
                detections=len(predicted),
                first=int(np.flatnonzero(selected.indices == left.indices[0])[0]),
                true_positives=match_instances(ground_truth, predicted).true_positives()[0],
            )
        return self._matches[key]


def _by_category(objects: ImageInstances) -> dict[ClassKey, ImageInstances]:
    """Return the instances of each category, in the order of the first of each."""
    places: dict[ClassKey, list[int]] = {}
    for place, key in enumerate(objects.class_keys):
        places.setdefault(key, []).append(place)
    return {
        key: ImageInstances(objects.image_id, (key,) * len(at), objects.bitmasks[at])
        for key, at in places.items()
    }
