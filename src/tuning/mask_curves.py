"""Areas and overlaps of an image's masks under all mask thresholds of a slider at once.

A pixel belongs to a mask if its probability is at least the threshold. So the probabilities,
counted once by the thresholds that they reach, give the area of the mask under each of them, and,
counted on the pixels of an instance, what the two share. Where better masks of the category take
pixels away, a pixel is lost under the thresholds that one of the better masks reaches there: those
are counted by the smaller of the two probabilities. All counts are of whole pixels, so the IoUs are
those of the drawn masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.annotations.competition import MatchRule, raster_hw
from src.metrics.competition import ImageInstances, match_pairs
from src.postprocess.detections import EMPTY
from src.postprocess.raster import sample_windows
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps.min_area import MinArea
from src.postprocess.steps.suppress_overlaps import SuppressOverlaps
from src.predictions.candidates import Candidates

STEPS_PER_UNIT = 100  # thresholds 0.01, 0.02, ..., 1
_COUNT = STEPS_PER_UNIT + 1
_THRESHOLDS = (np.arange(_COUNT) / STEPS_PER_UNIT).astype(np.float32)
_AFTER_LAST = np.append(_THRESHOLDS[1:], np.float32(np.inf))

Curve = npt.NDArray[np.int32]
"""Number of pixels by the number of a threshold. Shape (101,)."""


@dataclass(frozen=True, slots=True)
class CurveRules:
    """What the steps from ``masks`` on do, where curves can tell it."""

    disjoint: bool  # whether better masks of the category take pixels away
    min_area_px: int
    step: int | None  # number of the category's mask threshold; None: it is between two


def curve_rules(settings: PostprocessSettings, category: int, *, raster: str) -> CurveRules | None:
    """Return the rules of a category; None where the steps are others than curves can tell.

    Args:
        settings: Thresholds and rules.
        category: The category.
        raster: Name of the raster on which masks are scored.
    """
    disjoint, min_area_px, place = False, 0, 0
    for step in settings.from_masks[1:]:
        if isinstance(step, SuppressOverlaps) and place < 1 and step.suppress_overlaps != "all":
            disjoint, place = bool(step.suppress_overlaps), 1
        elif isinstance(step, MinArea) and place < 2:
            if step.min_area_px and step.min_area_raster != raster:
                return None
            min_area_px, place = step.min_area_px, 2
        else:
            return None
    threshold = settings.masks.threshold_of(category)
    number = round(threshold * STEPS_PER_UNIT)
    is_one = 1 <= number < _COUNT and float(_THRESHOLDS[number]) == threshold
    return CurveRules(disjoint, min_area_px, number if is_one else None)


@dataclass(frozen=True, slots=True, eq=False)
class CategoryCurves:
    """The masks of some candidates of one category, by falling score, under each threshold."""

    areas: npt.NDArray[np.int32]  # (N, 101)
    shared: npt.NDArray[np.int32]  # (N, T, 101) with each instance of the category
    true_px: npt.NDArray[np.int64]  # (T,)
    _tables: dict[int, MatchTable] = field(default_factory=dict)  # by minimum area

    def table(self, min_area_px: int, rule: MatchRule) -> MatchTable:
        """Return the matches under each threshold, of masks of this area at least."""
        if min_area_px not in self._tables:
            if len(self._tables) >= _REMEMBERED_TABLES:
                self._tables.clear()
            self._tables[min_area_px] = _match(self, max(min_area_px, 1), rule)
        return self._tables[min_area_px]

    def taken(self, min_area_px: int, step: int) -> Mapping[str, int]:
        """Return what the steps from ``masks`` on take under one threshold."""
        count = int(np.count_nonzero(self.areas[:, step] < max(min_area_px, 1)))
        if not count:
            return {}
        return {MinArea.name if min_area_px else EMPTY: count}


_REMEMBERED_TABLES = 64


@dataclass(frozen=True, slots=True, eq=False)
class MatchTable:
    """Match counts of one category by the number of the mask threshold."""

    num_detections: list[int]
    first: list[int]  # the first detection's place; -1: there is none
    true_positives: npt.NDArray[np.int64]  # (101, IoU thresholds)


def _match(curves: CategoryCurves, least_px: int, rule: MatchRule) -> MatchTable:
    """Match under each threshold; only where a mask has two partners it is done one by one."""
    left = curves.areas >= least_px  # (N, 101)
    num_detections = left.sum(axis=0)
    first = np.where(num_detections > 0, left.argmax(axis=0), -1)
    num_thresholds = len(rule.thresholds)
    true_positives = np.zeros((_COUNT, num_thresholds), dtype=np.int64)
    num_true = len(curves.true_px)
    if num_true:
        shared = np.where(left[:, None], curves.shared, 0)
        unions = curves.areas[:, None] + curves.true_px[None, :, None] - shared
        passed = rule.num_passed(shared / np.maximum(unions, 1))  # (N, T, 101)
        passed[~_is_possible(curves, rule)] = 0
        partners = passed > 0
        is_plain = (partners.sum(axis=0) < 2).all(axis=0) & (partners.sum(axis=1) < 2).all(axis=0)
        steps = np.arange(num_thresholds)
        counts = (passed[..., None] > steps).sum(axis=(0, 1))  # (101, IoU thresholds)
        true_positives[is_plain] = counts[is_plain]
        for step in np.flatnonzero(~is_plain).tolist():
            true_positives[step] = _match_one(curves, left[:, step], step, rule)
    return MatchTable(num_detections.tolist(), first.tolist(), true_positives)


def _is_possible(curves: CategoryCurves, rule: MatchRule) -> npt.NDArray[np.bool_]:
    """Return whether the areas allow a match, in the words of ``match_pairs``."""
    areas, true_px = curves.areas[:, None], curves.true_px[None, :, None]
    least, most = np.minimum(areas, true_px), np.maximum(areas, true_px)
    possible: npt.NDArray[np.bool_] = (least > 0) & (least >= rule.thresholds[0] * most)
    return possible


def _match_one(
    curves: CategoryCurves, left: npt.NDArray[np.bool_], step: int, rule: MatchRule
) -> npt.NDArray[np.int64]:
    """Match under one threshold, greedily by falling IoU. Shape (IoU thresholds,)."""
    areas, shared = curves.areas[left, step], curves.shared[left, :, step]
    rows, columns = np.nonzero(np.ones((len(curves.true_px), len(areas)), dtype=bool))
    _, ious, _ = match_pairs(
        rows,
        columns,
        true_px=curves.true_px,
        predicted_px=areas,
        shared_px=lambda rows, columns: shared[columns, rows],
        rule=rule,
    )
    counts: npt.NDArray[np.int64] = (
        rule.num_passed(ious)[:, None] > np.arange(len(rule.thresholds))
    ).sum(axis=0)
    return counts


class CurveMaker:
    """Makes the curves of one image's categories.

    Args:
        candidates: Before NMS, with probabilities.
        raster: Name of the raster of the masks.
    """

    def __init__(self, candidates: Candidates, *, raster: str) -> None:
        self._candidates = candidates
        self._raster_hw = raster_hw(raster, candidates.size_hw)

    def make(
        self,
        indices: npt.NDArray[np.int64],
        ground_truth: ImageInstances | None,
        *,
        disjoint: bool,
    ) -> CategoryCurves:
        """Return the curves of candidates of one category, by falling score.

        Args:
            indices: Of the candidates.
            ground_truth: The category's instances; None: there is none.
            disjoint: Whether better masks take pixels away.
        """
        instances = [] if ground_truth is None else self._unpack(ground_truth)
        areas = np.zeros((len(indices), _COUNT), dtype=np.int32)
        shared = np.zeros((len(indices), len(instances), _COUNT), dtype=np.int32)
        better: list[tuple[slice, slice, npt.NDArray[np.uint8]]] = []
        assert self._candidates.mask_probabilities is not None
        for place, columns, rows, probabilities in sample_windows(
            self._candidates.mask_probabilities[indices],
            self._candidates.boxes_xyxy[indices],
            self._candidates.size_hw,
            raster_hw=self._raster_hw,
        ):
            reached = _reached(probabilities)
            taken = _largest(better, columns, rows, reached.shape) if disjoint else None
            if taken is not None:
                np.minimum(taken, reached, out=taken)
            areas[place] = _count(reached, taken)
            for row, inside in enumerate(instances):
                here = inside[columns, rows]
                if here.any():
                    away = None if taken is None else taken[here]
                    shared[place, row] = _count(reached[here], away)
            better.append((columns, rows, reached))
        true_px = np.array([int(inside.sum()) for inside in instances], dtype=np.int64)
        return CategoryCurves(areas, shared, true_px)

    def _unpack(self, ground_truth: ImageInstances) -> list[npt.NDArray[np.bool_]]:
        """Return each instance by column and row."""
        height, width = self._raster_hw
        return [
            np.unpackbits(bits, count=height * width, bitorder="little")
            .view(np.bool_)
            .reshape(width, height)
            for bits in ground_truth.bitmasks.bits
        ]


def _reached(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the number of the last threshold that each probability reaches."""
    product = np.clip(probabilities * np.float32(STEPS_PER_UNIT), 0, STEPS_PER_UNIT)
    number: npt.NDArray[np.uint8] = product.astype(np.uint8)
    # the product is rounded: one step down or up
    number -= (probabilities < _THRESHOLDS[number]).view(np.uint8)
    number += (probabilities >= _AFTER_LAST[number]).view(np.uint8)
    return number


def _largest(
    better: Sequence[tuple[slice, slice, npt.NDArray[np.uint8]]],
    columns: slice,
    rows: slice,
    shape: tuple[int, ...],
) -> npt.NDArray[np.uint8] | None:
    """Return the largest value of the better masks on a window; None where none reaches it."""
    found: npt.NDArray[np.uint8] | None = None
    for other_columns, other_rows, values in better:
        first_column = max(columns.start, other_columns.start)
        last_column = min(columns.stop, other_columns.stop)
        first_row = max(rows.start, other_rows.start)
        last_row = min(rows.stop, other_rows.stop)
        if first_column >= last_column or first_row >= last_row:
            continue
        if found is None:
            found = np.zeros(shape, dtype=np.uint8)
        own = found[
            first_column - columns.start : last_column - columns.start,
            first_row - rows.start : last_row - rows.start,
        ]
        others = values[
            first_column - other_columns.start : last_column - other_columns.start,
            first_row - other_rows.start : last_row - other_rows.start,
        ]
        np.maximum(own, others, out=own)
    return found


def _count(
    reached: npt.NDArray[np.uint8], taken: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.int64]:
    """Return the number of pixels under each threshold, those taken away left out. Shape (101,)."""
    counts = np.bincount(reached.ravel(), minlength=_COUNT)
    if taken is not None:
        counts -= np.bincount(taken.ravel(), minlength=_COUNT)
    result: npt.NDArray[np.int64] = counts[::-1].cumsum()[::-1]
    return result
