"""One image in the threshold lab, with what is remembered of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.metrics.competition import (
    THRESHOLDS,
    ClassKey,
    ImageCounts,
    ImageObjects,
    match_objects,
    no_objects,
)
from src.postprocess.detections import Detections
from src.postprocess.pipeline import Chosen, draw_masks, sampler_of, select_pairs, to_detections
from src.postprocess.raster import sample_masks_at
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.tuning.raster_cache import RasterCache
from src.tuning.submitted import as_submitted, filler

_REMEMBERED = 1024  # selections, and results of classes, of an image; beyond, it forgets them
SCORED_RASTER = "512x512"


class SettingsKeys:
    """Settings, and what of them decides about an image's pairs and about a class's masks."""

    def __init__(self, settings: PostprocessSettings) -> None:
        self.settings = settings
        masks_at = settings.steps.index("masks")
        before, after = settings.steps[:masks_at], settings.steps[masks_at + 1 :]
        score = (settings.score_threshold, *sorted(settings.score_threshold_per_class.items()))
        values = {
            "score": score,
            "nms": (
                settings.nms_kind,
                settings.nms_iou_threshold,
                settings.soft_nms_sigma,
                settings.soft_nms_min_score,
            ),
            "cap": settings.max_per_image,
            "remove": settings.removed_categories,
            "max_per_class": settings.max_per_class,
            "suppress_overlaps": settings.suppress_overlaps,
            "min_area": (settings.min_area_px, settings.min_area_raster),
        }
        self.of_pairs = tuple((step, values[step]) for step in before)
        self.after_masks = tuple((step, values[step]) for step in after)
        self.counts_scores = "score" in after
        # only a cap lets one class's masks decide about another's
        self.classes_are_apart = "cap" not in after

    def mask_threshold(self, category: int) -> float:
        """Of a class; as float32, in which masks compare it."""
        own = self.settings.mask_threshold_per_class
        return float(np.float32(own.get(category, self.settings.mask_threshold)))


@dataclass(frozen=True, slots=True, eq=False)
class ChosenClass:
    """The pairs of one class among those chosen of an image."""

    category: int
    places: npt.NDArray[np.int64]  # (K,) among the image's
    key: tuple[int, bytes, bytes]  # the class, its pairs, and their scores


@dataclass(frozen=True, slots=True, eq=False)
class ClassHits:
    """What the objects of one class of an image are worth."""

    objects: int
    first: int  # the first object's place among the class's pairs
    hits: npt.NDArray[np.int64]  # (10,) TP by threshold


_NOTHING = ClassHits(objects=0, first=-1, hits=np.zeros(len(THRESHOLDS), dtype=np.int64))


class LabImage:
    """Candidates and truth of one image.

    Args:
        candidates: Pre-NMS pairs.
        truth: True objects, class keys being categories; None where they are not known.
        label_category_ids: See ``postprocess``.
        rasters: Where masks are kept.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        truth: ImageObjects | None,
        label_category_ids: Sequence[int],
        rasters: RasterCache,
    ) -> None:
        self._candidates = candidates
        self._truth = truth
        self._label_category_ids = label_category_ids
        self._rasters = rasters
        self._sampler = rasters.sampler(candidates.image_id, sampler_of(candidates))
        self._truth_of_class = {} if truth is None else _by_class(truth)
        self._chosen: dict[tuple[Any, ...], tuple[Chosen, list[ChosenClass]]] = {}
        self._hits: dict[tuple[Any, ...], ClassHits] = {}
        self._filler_counts: ImageCounts | None = None

    @property
    def nbytes(self) -> int:
        """What the candidates take in memory, nearly."""
        return self._candidates.mask_probabilities.nbytes

    def detections(self, keys: SettingsKeys, raster: str) -> Detections:
        """As ``src.postprocess.pipeline.postprocess`` gives them."""
        chosen, _ = self._choose(keys)
        objects = draw_masks(chosen, keys.settings, sampler=self._sampler, raster=raster)
        return to_detections(objects, self._candidates, raster)

    def prepare(self, grid: Sequence[SettingsKeys]) -> None:
        """Make the masks that these settings will ask for, each probability computed once."""
        if not self._rasters.room_bytes:
            return
        wanted: dict[float, set[int]] = {}
        for keys in grid:
            chosen, classes = self._choose(keys)
            for of_class in classes:
                pairs = wanted.setdefault(keys.mask_threshold(of_class.category), set())
                pairs.update(chosen.pairs[of_class.places].tolist())
        name = self._candidates.image_id
        missing = {
            threshold: self._rasters.missing(name, SCORED_RASTER, sorted(pairs), threshold)
            for threshold, pairs in wanted.items()
        }
        together = sorted({pair for pairs in missing.values() for pair in pairs})
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

    def counts(self, keys: SettingsKeys, *, with_filler: bool) -> ImageCounts:
        """As matching the objects that are submitted with the truth gives them.

        Args:
            keys: Of the settings.
            with_filler: Whether an image without an object has the competition's filler row.

        Raises:
            ValueError: the truth is not known.
        """
        if self._truth is None:
            raise ValueError(f"{self._candidates.image_id}: its truth is not known")
        if not keys.classes_are_apart:
            objects = self.detections(keys, SCORED_RASTER)
            submitted = as_submitted(objects, with_filler=with_filler)
            return match_objects(self._truth, submitted).counts()
        chosen, classes = self._choose(keys)
        found: dict[ClassKey, ClassHits] = {}
        firsts: dict[ClassKey, int] = {}
        for of_class in classes:
            hits = self._hits_of(chosen, of_class, keys)
            if hits.objects:
                found[of_class.category] = hits
                firsts[of_class.category] = of_class.places[hits.first]
        if not found and with_filler:
            if self._filler_counts is None:
                submitted = filler(self._truth.image_id)
                self._filler_counts = match_objects(self._truth, submitted).counts()
            return self._filler_counts
        # the order of matching a whole image: classes of the truth, then those that are predicted
        predicted = sorted(found, key=firsts.__getitem__)
        class_keys = tuple(dict.fromkeys((*self._truth_of_class, *predicted)))
        of_keys = [found.get(key, _NOTHING) for key in class_keys]
        return ImageCounts(
            class_keys=class_keys,
            truth_objects=np.array(
                [len(self._truth_of_class.get(key, ())) for key in class_keys], dtype=np.int64
            ),
            predicted_objects=np.array([hits.objects for hits in of_keys], dtype=np.int64),
            # an image with neither side's objects has no class, and still ten thresholds
            hits=np.array([hits.hits for hits in of_keys], dtype=np.int64).reshape(
                -1, len(THRESHOLDS)
            ),
        )

    def _choose(self, keys: SettingsKeys) -> tuple[Chosen, list[ChosenClass]]:
        if keys.of_pairs not in self._chosen:
            chosen = select_pairs(
                self._candidates, keys.settings, label_category_ids=self._label_category_ids
            )
            classes = []
            for category in np.unique(chosen.category_ids).tolist():
                places = np.flatnonzero(chosen.category_ids == category)
                pairs, scores = chosen.pairs[places], chosen.scores[places]
                key = (category, pairs.tobytes(), scores.tobytes())
                classes.append(ChosenClass(category, places, key))
            if len(self._chosen) >= _REMEMBERED:
                self._chosen.clear()
            self._chosen[keys.of_pairs] = chosen, classes
        return self._chosen[keys.of_pairs]

    def _hits_of(self, chosen: Chosen, of_class: ChosenClass, keys: SettingsKeys) -> ClassHits:
        category = of_class.category
        key = (
            of_class.key if keys.counts_scores else of_class.key[:2],
            keys.mask_threshold(category),
            keys.after_masks,
        )
        if key not in self._hits:
            if len(self._hits) >= _REMEMBERED:
                self._hits.clear()
            pairs = chosen.take(of_class.places)
            objects = draw_masks(pairs, keys.settings, sampler=self._sampler)
            if not len(objects.pairs):
                self._hits[key] = _NOTHING
                return _NOTHING
            predicted = ImageObjects(
                image_id=self._candidates.image_id,
                class_keys=(category,) * len(objects.pairs),
                packed=objects.masks[SCORED_RASTER],
            )
            truth = self._truth_of_class.get(category, no_objects(predicted))
            self._hits[key] = ClassHits(
                objects=len(predicted),
                first=int(np.flatnonzero(pairs.pairs == objects.pairs[0])[0]),
                hits=match_objects(truth, predicted).hits()[0],
            )
        return self._hits[key]


def _by_class(objects: ImageObjects) -> dict[ClassKey, ImageObjects]:
    """The objects of each class, in the order of the first of each."""
    places: dict[ClassKey, list[int]] = {}
    for place, key in enumerate(objects.class_keys):
        places.setdefault(key, []).append(place)
    return {
        key: ImageObjects(objects.image_id, (key,) * len(at), objects.packed[at])
        for key, at in places.items()
    }
