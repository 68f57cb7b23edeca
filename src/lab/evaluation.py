"""Scores of settings for the page: exact, one at a time, and dropped where a newer one is asked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.lab.workspace import Workspace, key_of
from src.metrics import coco_average_precision as coco
from src.metrics.competition import (
    CompetitionScore,
    ScoreAccumulator,
    match_instances,
    split_key,
)
from src.metrics.errors import GROUPS, KINDS, POOR_MASK, ErrorAccumulator
from src.metrics.intervals import bootstrap_interval, paired_bootstrap_interval
from src.postprocess.pipeline import StepCounts, coco_results
from src.postprocess.settings import PostprocessSettings
from src.tuning.evaluated_image import as_submitted
from src.validation import shown

MAX_KEPT = 256  # results of settings
MAX_KEPT_ERRORS = 16
MAX_GRID_VALUES = 200

_IDLE_S = 0.005  # between two looks whether somebody waits

T = TypeVar("T")
Check = Callable[[], None]
"""Raises where the work that it is called from is to stop."""


@dataclass(frozen=True, slots=True)
class Result:
    """The evaluation of one setting on all images."""

    score: CompetitionScore | None  # None without ground truth
    steps: StepCounts
    is_exact: bool


def _recall(known: OrderedDict[str, T], key: str, make: Callable[[], T], limit: int) -> T:
    """Return what is known under a key, or make it; the least recently used make room for it."""
    if key not in known:
        known[key] = make()
        while len(known) > limit:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


class Evaluation:
    """Evaluates settings on all images of a workspace, one thread at a time.

    Args:
        workspace: The opened inputs.
        pause: Called between two images; it may wait for work that is more urgent.
    """

    def __init__(self, workspace: Workspace, *, pause: Check = lambda: None) -> None:
        self._workspace, self._pause = workspace, pause
        self._evaluator = workspace.session.evaluator
        self._lock, self._num_waiting = threading.Lock(), 0
        self._count_lock = threading.Lock()
        self._known: OrderedDict[str, Result] = OrderedDict()
        self._known_errors: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the evaluator, before work that nobody waits for."""
        with self._count_lock:
            self._num_waiting += 1
        try:
            with self._lock:
                yield
        finally:
            with self._count_lock:
                self._num_waiting -= 1

    def warm(self, settings: PostprocessSettings, check: Check) -> None:
        """Evaluate some settings; then prepare, while nobody waits, for other mask thresholds.

        Raises:
            InputError: The store is damaged.
        """
        self.result(settings, check)
        if not self._workspace.has_scores:
            return
        images = self._evaluator.prepare_curves(settings)
        while True:
            check()
            while self._num_waiting:
                time.sleep(_IDLE_S)
                check()
            self._pause()
            with self._lock:
                if next(images, None) is None:
                    return

    def result(self, settings: PostprocessSettings, check: Check) -> Result:
        """Return the evaluation of some settings.

        Raises:
            InputError: The store is damaged.
        """
        key = key_of(settings)
        with self.at_work():
            check()
            return _recall(self._known, key, lambda: self._evaluate(settings, check), MAX_KEPT)

    def _evaluate(self, settings: PostprocessSettings, check: Check) -> Result:
        rules = self._evaluator.competition
        accumulator = ScoreAccumulator(
            self._workspace.options.averaging, rules.rule, rules.scored_on
        )
        steps, is_exact = StepCounts(), True
        for outcome in self._evaluator.outcomes(settings):
            check()
            self._pause()
            steps.add(outcome.num_detections, outcome.taken)
            is_exact = is_exact and outcome.is_exact
            if outcome.counts is not None:
                accumulator.add_counts(outcome.image_id, outcome.counts)
        score = accumulator.result() if self._workspace.has_scores else None
        return Result(score, steps, is_exact)

    def known_score(self, settings: PostprocessSettings) -> float | None:
        """Return the score of settings that were evaluated before; None for others."""
        known = self._known.get(key_of(settings))
        return None if known is None or known.score is None else known.score.competition_map

    def score(
        self,
        settings: PostprocessSettings,
        baseline: PostprocessSettings,
        *,
        known_baseline: Any,
        check: Check,
    ) -> dict[str, Any]:
        """Return the answer to ``/api/score``."""
        start = time.perf_counter()
        found = self.result(settings, check)
        milliseconds = 1e3 * (time.perf_counter() - start)
        before, baseline_key = self.result(baseline, check), key_of(baseline)
        session = self._workspace.session
        warnings = found.steps.warnings(settings, session.categories, session.store.category_ids)
        answer: dict[str, Any] = {
            "competition_map": None,
            "baseline_map": None,
            "difference": None,
            "per_threshold": None,
            "baseline_per_threshold": None,
            "per_image": [None] * len(self._workspace.image_ids),
            "baseline_key": baseline_key,
            "num_candidates": found.steps.num_candidates,
            "num_detections": found.steps.num_detections,
            "taken": dict(found.steps.taken),
            "per_category": [],
            "warnings": warnings,
            "is_exact": found.is_exact,
            "milliseconds": round(milliseconds, 1),
        }
        if found.score is not None and before.score is not None:
            answer |= self._numbers(found.score, before.score)
            in_sample = self._workspace.in_sample(settings)
            if in_sample is not None:
                sentence = in_sample.sentence("these settings", found.score.image_ids)
                answer["warnings"] = [*warnings, *filter(None, [sentence])]
        if known_baseline != baseline_key:
            answer["baseline_per_image"] = self._per_image(before.score)
        return answer

    def _numbers(self, score: CompetitionScore, before: CompetitionScore) -> dict[str, Any]:
        return {
            "competition_map": score.competition_map,
            "baseline_map": before.competition_map,
            "difference": score.competition_map - before.competition_map,
            "per_threshold": score.per_threshold.tolist(),
            "baseline_per_threshold": before.per_threshold.tolist(),
            "per_image": self._per_image(score),
            "per_category": [
                {
                    "id": split_key(key)[0],
                    "name": self._workspace.name_of(split_key(key)[0]),
                    "images": one.images,
                    "num_ground_truth": one.num_ground_truth,
                    "num_detections": one.num_detections,
                    "score": one.value,
                }
                for key, one in score.classes.items()
            ],
        }

    def _per_image(self, score: CompetitionScore | None) -> list[float | None]:
        """Return the scores of all images by their index; None where there is none."""
        if score is None:
            return [None] * len(self._workspace.image_ids)
        known = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
        return [known.get(image_id) for image_id in self._workspace.image_ids]

    def interval(
        self, settings: PostprocessSettings, baseline: PostprocessSettings, check: Check
    ) -> dict[str, Any]:
        """Return the answer to ``/api/interval``: numbers and words of ``src.compare``."""
        options = self._workspace.options
        b, a = self._scores(settings, check), self._scores(baseline, check)
        check()
        given = {
            "num_resamples": options.num_resamples,
            "confidence": options.confidence,
            "seed": options.seed,
        }
        interval = bootstrap_interval(b, **given)  # type: ignore[arg-type]
        check()
        paired = paired_bootstrap_interval(a, b, **given)  # type: ignore[arg-type]
        chosen = [self._workspace.in_sample(one) for one in (baseline, settings)]
        image_ids = self._evaluator.scored_image_ids
        is_in_sample = any(one is not None and one.sentence("", image_ids) for one in chosen)
        return {
            "interval": asdict(interval),
            "difference": asdict(paired.difference),
            "probability_better": paired.probability_better,
            "verdict": f"{paired.verdict}{', in-sample' if is_in_sample else ''}",
        }

    def _scores(self, settings: PostprocessSettings, check: Check) -> npt.NDArray[np.float64]:
        """Return the scores of the images in the order of the ground truth, as compare has them.

        Raises:
            InputError: There is no ground truth.
        """
        score, truth = self.result(settings, check).score, self._workspace.truth
        if score is None or truth is None:
            raise InputError("ground_truth must be given for scores, got null")
        known = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
        return np.array([known[image_id] for image_id in truth if image_id in known])

    def grid(
        self,
        settings: PostprocessSettings,
        axes: Mapping[str, tuple[str, Sequence[Any]]],
        make: Callable[[Mapping[str, Any]], PostprocessSettings],
        check: Check,
    ) -> dict[str, Any]:
        """Return the answer to ``/api/grid``: one row of the heat map.

        Args:
            settings: The settings whose keys are changed.
            axes: The key and the values of ``x``, and those of ``y``, which has one.
            make: Makes settings of values by key.
            check: Raises where the request is dropped.
        """
        (key, values), (other, (value,)) = axes["x"], axes["y"]
        if len(values) > MAX_GRID_VALUES:
            raise InputError(
                f"x.values must have at most {MAX_GRID_VALUES} values, got {len(values)}"
            )
        for name in (key, other):
            if name not in settings.to_dict():
                raise InputError(f"{name} must be a key of postprocess, got {shown(name)}")
        scores: list[float | None] = []
        errors: list[str | None] = []
        for one in values:
            try:
                cell = make({**settings.to_dict(), other: value, key: one})
                score = self.result(cell, check).score
                scores.append(None if score is None else score.competition_map)
                errors.append(None)
            except InputError as error:
                scores.append(None)
                errors.append(str(error))
        return {"scores": scores, "errors": errors}

    def errors(self, settings: PostprocessSettings, check: Check) -> dict[str, Any]:
        """Return the answer to ``/api/errors``: what each kind of error costs, and where it is.

        Raises:
            InputError: There is no ground truth.
        """
        key, truth = key_of(settings), self._workspace.session.ground_truth
        if not truth:
            raise InputError("ground_truth must be given for errors, got null")
        with self.at_work():
            check()
            return _recall(
                self._known_errors,
                key,
                lambda: self._find_errors(settings, check),
                MAX_KEPT_ERRORS,
            )

    def _find_errors(self, settings: PostprocessSettings, check: Check) -> dict[str, Any]:
        rules, truth = self._evaluator.competition, self._workspace.session.ground_truth
        accumulator = ErrorAccumulator(self._workspace.options.averaging)
        indices: dict[str, list[int]] = {group: [] for group in GROUPS}
        for index, detections in enumerate(self._evaluator.detections(settings)):
            check()
            self._pause()
            if detections.image_id not in truth:
                continue
            instances = truth[detections.image_id]
            submitted = as_submitted(detections, filler=rules.filler)
            matches = match_instances(instances, submitted, rules.rule)
            found = accumulator.add(instances, submitted, matches)
            for group in {error.group for error in found}:
                indices[group].append(index)
        report, name_of = accumulator.result(), self._workspace.name_of
        return {
            "rows": [
                {"kind": kind, "count": report.counts[kind], "gain": report.gain(kind)}
                for kind in (*KINDS, POOR_MASK)
            ],
            "by_category": [
                {"id": split_key(key)[0], "name": name_of(split_key(key)[0]), **gains}
                for key, gains in sorted(report.by_class.items(), key=lambda one: split_key(one[0]))
            ],
            "image_errors": indices,
            "sizes": [{"size": size, **gains} for size, gains in report.by_size.items()],
        }

    def coco(self, settings: PostprocessSettings, check: Check) -> dict[str, Any]:
        """Return the answer to ``/api/coco``: COCO's average precision of masks and boxes.

        Raises:
            InputError: There is no ground truth.
        """
        truth, session = self._workspace.truth, self._workspace.session
        if truth is None:
            raise InputError("ground_truth must be given for COCO AP, got null")
        images = []
        with self.at_work():
            for image_id in self._evaluator.scored_image_ids:
                check()
                self._pause()
                candidates = session.store.candidates(session.store.index_of(image_id))
                own = truth.record(image_id).image_id
                number, size_hw = coco.image_number(truth.store, own), candidates.size_hw
                results = coco_results(
                    candidates,
                    settings,
                    image_number=number,
                    category_ids=session.store.category_ids,
                )
                annotations = coco.coco_annotations(truth.store, own, size_hw=size_hw)
                images.append(coco.CocoImage(number, size_hw, annotations, results))
        # nothing here can be stopped, and it needs the evaluator no more
        score = coco.coco_score(images, category_ids=truth.store.category_ids)
        boxes = {f"box_{name}": value for name, value in score.boxes.values().items()}
        by_category = [
            {"id": id_, "name": self._workspace.name_of(id_), **one.values()}
            for id_, one in score.masks_by_class.items()
        ]
        return {**score.masks.values(), **boxes, "by_category": by_category}
