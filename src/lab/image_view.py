"""One image under some settings: its detections, ground truth, and candidates that were dropped."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from src.annotations.competition import raster_hw
from src.lab.ghosts import Ghost, empty_reasons, find_ghosts
from src.lab.workspace import Workspace
from src.metrics.competition import ImageInstances, image_score, match_instances
from src.metrics.errors import find_errors
from src.metrics.inputs import RasterInstances
from src.postprocess.detections import EMPTY
from src.postprocess.pipeline import sampler_of
from src.postprocess.selection import MaskSet, RasterMasks, Selection, select_all
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.rle import Bitmasks, format_rle
from src.tuning.evaluated_image import or_filler
from src.tuning.raster_cache import RasterCache

MAX_GHOSTS = 100
_MAX_OPEN = 8  # images that stay in memory
_MAX_MASK_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of an image."""

    instances: ImageInstances  # on the raster of the score
    shown: Bitmasks  # the same on the raster of the submission
    boxes_xyxy: npt.NDArray[np.float64]  # (N, 4) pixels of the predicted image


@dataclass(frozen=True, slots=True)
class Labels:
    """How the detections and instances of an image match."""

    score: float
    detections: list[dict[str, Any]]  # iou, truth, error
    instances: list[dict[str, Any]]  # iou, detection (a position), error


class ImageViews:
    """Answers ``/api/image``; its files and masks are its own, so that no score has to wait."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        session = workspace.session
        self._store: PredictionStore = copy.copy(session.store)  # with file handles of its own
        self._truth: RasterInstances | None = None
        if workspace.truth is not None:
            self._truth = copy.copy(workspace.truth)
            self._truth.store = copy.copy(workspace.truth.store)
        self._rules = session.evaluator.competition
        self._rasters = RasterCache(max_bytes=_MAX_MASK_BYTES)
        self._open: OrderedDict[str, tuple[Candidates, Truth | None]] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, settings: PostprocessSettings, index: int, *, ghosts: bool) -> dict[str, Any]:
        """Return the image as plain JSON values.

        Raises:
            InputError: The store is damaged.
        """
        with self._lock:
            return self._view(settings, index, ghosts=ghosts)

    def _view(self, settings: PostprocessSettings, index: int, *, ghosts: bool) -> dict[str, Any]:
        image_id = self._workspace.image_ids[index]
        candidates, truth = self._load(image_id)
        sample = self._rasters.sampler(image_id, sampler_of(candidates))
        rasters = settings.rasters | {self._rules.raster, self._rules.scored_on}

        def draw(indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32]) -> MaskSet:
            return RasterMasks({name: sample(indices, thresholds, name) for name in rasters})

        start = replace(select_all(candidates, self._store.category_ids), draw=draw)
        dropped, last = find_ghosts(start, settings, self._workspace.session.categories)
        areas_px = last.drawn_masks.areas_px(self._rules.raster)
        left = last.take(areas_px > 0)
        labels = None if truth is None else self._label(left, truth)
        shown = _bitmasks(left, self._rules.raster)
        answer = {
            "index": index,
            "image_id": image_id,
            "height": candidates.size_hw[0],
            "width": candidates.size_hw[1],
            "raster_hw": list(shown.raster_hw),
            "detections": _describe_detections(left, shown, labels),
            "ground_truth": [] if truth is None else _describe_truth(truth, left, labels),
            "score": None if labels is None else labels.score,
        }
        if ghosts:
            dropped += self._empty(last.take(areas_px == 0), left, settings, draw)
            answer["ghosts"] = self._describe_ghosts(dropped, candidates, settings, draw)
        return answer

    def _load(self, image_id: str) -> tuple[Candidates, Truth | None]:
        """Return the candidates and the ground truth of an image."""
        if image_id not in self._open:
            candidates = self._store.candidates(self._store.index_of(image_id))
            has_truth = self._truth is not None and image_id in self._truth
            truth = self._load_truth(image_id, candidates.size_hw) if has_truth else None
            self._open[image_id] = candidates, truth
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(image_id)
        return self._open[image_id]

    def _load_truth(self, image_id: str, size_hw: tuple[int, int]) -> Truth:
        assert self._truth is not None
        instances, record = self._truth[image_id], self._truth.record(image_id)
        store = self._truth.store
        annotated = store.instances(store.index_of(record.image_id))
        scored = Bitmasks.of(annotated.masks, self._rules.scored_hw(record.size_hw))
        kept = np.flatnonzero(scored.areas_px() > 0)  # as RasterInstances keeps them
        shown = Bitmasks.of(annotated.masks[kept], raster_hw(self._rules.raster, size_hw))
        scale = np.array([a / b for a, b in zip(size_hw, record.size_hw, strict=True)])[::-1]
        return Truth(instances, shown, annotated.boxes_xyxy[kept] * np.tile(scale, 2))

    def _label(self, left: Selection, truth: Truth) -> Labels:
        """Match detections and instances on the raster of the score."""
        on_raster = _bitmasks(left, self._rules.scored_on)
        scored = np.flatnonzero(on_raster.areas_px() > 0)
        predicted = ImageInstances(
            truth.instances.image_id,
            tuple(left.category_ids[scored].tolist()),
            on_raster[scored],
        )
        detections: list[dict[str, Any]] = [_unmatched("truth") for _ in range(len(left))]
        instances: list[dict[str, Any]] = [
            _unmatched("detection") for _ in range(len(truth.instances))
        ]
        matches = match_instances(truth.instances, predicted, self._rules.rule)
        for row, column in matches.pairs:
            iou, place = float(matches.ground_truth_iou[row]), int(scored[column])
            detections[place] |= {"iou": iou, "truth": row}
            instances[row] |= {"iou": iou, "detection": place}
        for error in find_errors(truth.instances, predicted, matches):
            found = {"error": error.group, "iou": error.iou or None}
            partner, instance = error.detection, error.ground_truth
            detection = None if partner is None else int(scored[partner])
            if detection is not None:
                detections[detection] |= {**found, "truth": instance}
            if instance is not None:
                instances[instance] |= {**found, "detection": detection}
        _add_best_ious(detections, truth.instances, predicted, scored)
        submitted = or_filler(predicted, self._rules.filler)
        counts = match_instances(truth.instances, submitted, self._rules.rule).counts()
        score = image_score(counts, self._workspace.options.averaging)
        return Labels(score, detections, instances)

    def _empty(
        self, empty: Selection, left: Selection, settings: PostprocessSettings, draw: Any
    ) -> list[Ghost]:
        """Return the ghosts of detections whose mask has no pixel in the end."""
        if not len(empty):
            return []
        raster = self._rules.raster
        drawn = Bitmasks(
            draw(empty.indices, _thresholds(empty.category_ids, settings)).on[raster],
            _bitmasks(left, raster).raster_hw,
        )
        better = Bitmasks(
            draw(left.indices, _thresholds(left.category_ids, settings)).on[raster],
            drawn.raster_hw,
        )
        shared = drawn.intersections_px(better)
        if settings.suppress_overlaps != "all":
            shared[empty.category_ids[:, None] != left.category_ids[None]] = 0
        covered_by = {
            index: int(left.indices[row.argmax()])
            for index, row in zip(empty.indices.tolist(), shared, strict=True)
            if row.any()
        }
        areas = dict(zip(empty.indices.tolist(), drawn.areas_px().tolist(), strict=True))
        reasons = empty_reasons(settings, areas, covered_by)
        return [Ghost(index, EMPTY, reason, by) for index, (reason, by) in reasons.items()]

    def _describe_ghosts(
        self,
        dropped: Sequence[Ghost],
        candidates: Candidates,
        settings: PostprocessSettings,
        draw: Any,
    ) -> list[dict[str, Any]]:
        """Return the best of the dropped candidates, with the masks that they would have had."""
        best = sorted(dropped, key=lambda ghost: (-candidates.scores[ghost.index], ghost.index))
        best = best[:MAX_GHOSTS]
        indices = np.array([ghost.index for ghost in best], dtype=np.int64)
        categories = candidates.category_ids[indices]
        masks = draw(indices, _thresholds(categories, settings)).on[self._rules.raster]
        hw = raster_hw(self._rules.raster, candidates.size_hw)
        texts = format_rle(Bitmasks(masks, hw).to_rle())
        columns = (
            categories.tolist(),
            candidates.scores[indices].tolist(),
            candidates.boxes_xyxy[indices].tolist(),
            texts,
        )
        return [
            {
                "id": ghost.index,
                "category_id": category,
                "score": score,
                "box_xyxy": box,
                "mask": text,
                "step": ghost.step,
                "reason": ghost.reason,
                "by": ghost.by,
            }
            for ghost, category, score, box, text in zip(best, *columns, strict=True)
        ]


def _thresholds(
    category_ids: npt.NDArray[np.int16], settings: PostprocessSettings
) -> npt.NDArray[np.float32]:
    """Return the mask threshold of each candidate."""
    found = [settings.masks.threshold_of(category) for category in category_ids.tolist()]
    return np.array(found, dtype=np.float32)


def _bitmasks(selection: Selection, raster: str) -> Bitmasks:
    masks = selection.drawn_masks
    assert isinstance(masks, RasterMasks)
    return Bitmasks(masks.on[raster], raster_hw(raster, selection.candidates.size_hw))


def _unmatched(other: str) -> dict[str, Any]:
    return {"iou": None, other: None, "error": None}


def _add_best_ious(
    detections: Sequence[dict[str, Any]],
    truth: ImageInstances,
    predicted: ImageInstances,
    scored: npt.NDArray[np.intp],
) -> None:
    """Add, to detections without a partner, the IoU with the nearest instance of their category."""
    if not len(truth):
        return
    shared = predicted.bitmasks.intersections_px(truth.bitmasks)
    areas = predicted.bitmasks.areas_px()[:, None] + truth.bitmasks.areas_px()[None]
    ious = shared / np.maximum(areas - shared, 1)
    same = np.array([[own == other for other in truth.class_keys] for own in predicted.class_keys])
    for place, row, is_same in zip(scored.tolist(), ious, same, strict=True):
        if detections[place]["iou"] is None and (best := float((row * is_same).max())) > 0:
            detections[place]["iou"] = best


def _describe_detections(
    left: Selection, shown: Bitmasks, labels: Labels | None
) -> list[dict[str, Any]]:
    columns = (
        left.indices.tolist(),
        left.category_ids.tolist(),
        left.scores.tolist(),
        left.boxes_xyxy.tolist(),
        shown.areas_px().tolist(),
        format_rle(shown.to_rle()),
        [_unmatched("truth")] * len(left) if labels is None else labels.detections,
    )
    return [
        {
            "id": index,
            "category_id": category,
            "score": score,
            "box_xyxy": box,
            "area_px": area,
            "mask": text,
            **label,
        }
        for index, category, score, box, area, text, label in zip(*columns, strict=True)
    ]


def _describe_truth(truth: Truth, left: Selection, labels: Labels | None) -> list[dict[str, Any]]:
    assert labels is not None
    columns = (
        truth.instances.class_keys,
        truth.boxes_xyxy.tolist(),
        truth.shown.areas_px().tolist(),
        format_rle(truth.shown.to_rle()),
        labels.instances,
    )
    described = []
    for place, (category, box, area, text, label) in enumerate(zip(*columns, strict=True)):
        detection = label["detection"]
        known: Mapping[str, Any] = label | {
            "detection": None if detection is None else int(left.indices[detection])
        }
        described.append(
            {
                "id": place,
                "category_id": category,
                "mask": text,
                "box_xyxy": box,
                "area_px": area,
                **known,
            }
        )
    return described
