"""Thresholds per class, and settings chosen with cross-validation.

A threshold of one class changes the detections of this class only, so the detections and true
positives of each class are counted once for each value, and any combination of thresholds is scored
from these counts. This is exact when classes do not interact. With class-agnostic NMS or a
per-image cap it is a heuristic for the search only; the settings chosen are always re-scored
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from src.annotations.competition import Averaging
from src.metrics.competition import ClassKey, split_key
from src.postprocess.settings import PostprocessSettings
from src.tuning.search_results import FoundSettings
from src.tuning.settings_evaluator import Scores, SettingsEvaluator

if TYPE_CHECKING:
    from src.tuning.settings_search import SettingsSearch, Trial

_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class ClassTable:
    """Counts of C classes of M images at V values of a threshold."""

    values: tuple[float, ...]  # V, the first is the threshold of all classes
    categories: tuple[ClassKey, ...]  # C
    ground_truth: npt.NDArray[np.int16]  # (M, C)
    predicted: npt.NDArray[np.int16]  # (V, M, C)
    true_positives: npt.NDArray[np.int16]  # (V, M, C, T)
    filler_category: int | None  # of the row of an image without a detection; None: it has none

    def scores(self, chosen: npt.NDArray[np.int64], averaging: Averaging) -> Scores:
        """Return the images' scores where class c has value number ``chosen[c]``. Shape (M,)."""
        classes = np.arange(len(self.categories))
        predicted = self.predicted[chosen, :, classes].T
        true_positives = self.true_positives[chosen, :, classes].swapaxes(0, 1)
        sums = _sums(self.ground_truth, predicted, true_positives, averaging)
        return self._score(*sums, averaging)

    def tune(self, images: npt.NDArray[np.bool_], averaging: Averaging) -> dict[int, float]:
        """Return thresholds of single classes that raise the score of these images.

        The classes are visited in turn until none changes, three times at most. A class moves to
        its best value only where the gain is above its standard error over the images.

        Args:
            images: (M,) the images to use.
            averaging: ``per_class`` or ``pooled``.

        Returns:
            Threshold by category of the classes that moved.
        """
        table = replace(
            self,
            ground_truth=self.ground_truth[images],
            predicted=self.predicted[:, images],
            true_positives=self.true_positives[:, images],
        )
        # at the values chosen so far
        predicted, true_positives = table.predicted[0].copy(), table.true_positives[0].copy()
        chosen = np.zeros(len(self.categories), dtype=np.int64)
        for _ in range(_ROUNDS):
            before = chosen.copy()
            for column in range(len(self.categories)):
                others = np.arange(len(self.categories)) != column
                own = slice(column, column + 1)
                of_others = _sums(
                    table.ground_truth[:, others],
                    predicted[:, others],
                    true_positives[:, others],
                    averaging,
                )
                of_class = _sums(
                    table.ground_truth[:, own],
                    table.predicted[:, :, own],
                    table.true_positives[:, :, own],
                    averaging,
                )
                top, bottom, detections = map(np.add, of_others, of_class)
                scores = table._score(top, bottom, detections, averaging)  # (V, M)
                gains = scores - scores[chosen[column]]
                best = int(np.argmax(gains.mean(axis=1)))
                error = gains[best].std() / np.sqrt(gains.shape[1])
                if gains[best].mean() > error:
                    chosen[column] = best
                    predicted[:, column] = table.predicted[best, :, column]
                    true_positives[:, column] = table.true_positives[best, :, column]
            if np.array_equal(chosen, before):
                break
        moved = np.flatnonzero(chosen).tolist()
        return {split_key(self.categories[c])[0]: self.values[chosen[c]] for c in moved}

    def _score(
        self, top: Scores, bottom: Scores, detections: Scores, averaging: Averaging
    ) -> Scores:
        """Return scores (..., M) from the sums of all classes, as ``_sums`` gives them."""
        if self.filler_category is not None:
            is_filler = [key == self.filler_category for key in self.categories]
            # the filler's class counts already where the ground truth has an instance of it
            adds = averaging == "pooled" or ~self.ground_truth[:, is_filler].any(axis=1)
            bottom = bottom + ((detections == 0) & adds)[..., None]
        # an image with neither ground truth nor detections scores 1
        scores: Scores = np.divide(top, bottom, out=np.ones(bottom.shape), where=bottom > 0).mean(
            axis=-1
        )
        return scores


def _sums(
    ground_truth: npt.NDArray[np.int16],
    predicted: npt.NDArray[np.int16],
    true_positives: npt.NDArray[np.int16],
    averaging: Averaging,
) -> tuple[Scores, Scores, Scores]:
    """Return numerators and denominators (..., M, T) and detections (..., M) of C classes.

    Shapes of the arguments: (M, C), (..., M, C) and (..., M, C, T).
    """
    either = (ground_truth + predicted)[..., None] - true_positives
    top: npt.NDArray[Any] = true_positives
    bottom: npt.NDArray[Any] = either
    if averaging == "per_class":
        bottom = either > 0
        top = np.divide(true_positives, either, out=np.zeros(either.shape), where=bottom)
    return (
        top.sum(axis=-2, dtype=np.float64),
        bottom.sum(axis=-2, dtype=np.float64),
        predicted.sum(axis=-1, dtype=np.float64),
    )


def count_classes(
    evaluator: SettingsEvaluator,
    settings: PostprocessSettings,
    key: str,
    values: Sequence[float],
) -> ClassTable:
    """Count the detections and true positives of each class at each value of a threshold.

    Args:
        evaluator: The images.
        settings: All other settings; no class has a threshold of its own for ``key``.
        key: ``score_threshold_per_class`` or ``mask_threshold_per_class``.
        values: Tried beside the threshold of all classes.
    """
    common = key.removesuffix("_per_class")
    own = getattr(settings, common)
    tried = (own, *(value for value in values if value != own))
    grid = [settings.replace(**{common: value}) for value in tried]
    images = [counts for _, counts in evaluator.counts(grid, with_filler=False)]
    categories = sorted({key for image in images for counts in image for key in counts.class_keys})
    column = {category: number for number, category in enumerate(categories)}
    shape = (len(tried), len(images), len(categories))
    ground_truth = np.zeros(shape[1:], dtype=np.int16)
    predicted = np.zeros(shape, dtype=np.int16)
    true_positives = np.zeros((*shape, len(evaluator.competition.thresholds)), dtype=np.int16)
    for row, image in enumerate(images):
        for number, counts in enumerate(image):
            columns = [column[category] for category in counts.class_keys]
            ground_truth[row, columns] = counts.num_ground_truth
            predicted[number, row, columns] = counts.num_detections
            true_positives[number, row, columns] = counts.true_positives
    counts_of = (ground_truth, predicted, true_positives)
    filler = evaluator.competition.filler
    filler_category = None if filler is None else filler.category_id
    return ClassTable(tried, tuple(categories), *counts_of, filler_category)


def cross_validate(
    search: SettingsSearch,
    evaluator: SettingsEvaluator,
    *,
    score: Callable[[PostprocessSettings], Scores],
    baselines: Sequence[PostprocessSettings],
    per_class: Mapping[str, Sequence[float]],
    averaging: Averaging,
    folds: npt.NDArray[np.int64],
    on_step: Callable[[], None] = lambda: None,
) -> FoundSettings:
    """Select settings for each fold on the images outside it, and finally on all images.

    Each selection takes the best candidate, and then tunes its thresholds per class.

    Args:
        search: Finished trials, the candidates.
        evaluator: The images.
        score: Returns the score of each image, shape (M,).
        baselines: Further candidates, which these images have not shaped.
        per_class: Values to try by key, such as ``score_threshold_per_class``.
        averaging: ``per_class`` or ``pooled``.
        folds: (M,) the fold of each image.
        on_step: Called after each key of ``per_class`` in each selection.
    """
    tables: dict[str, ClassTable] = {}

    def select(
        trials: Sequence[Trial], images: npt.NDArray[np.bool_]
    ) -> tuple[PostprocessSettings, PostprocessSettings]:
        """Return the best settings for these images, without and with thresholds per class."""
        candidates = [(settings, score(settings)) for settings in baselines]
        candidates += [(trial.settings, trial.per_image) for trial in trials]
        means = [scores[images].mean() for _, scores in candidates]
        common = settings = candidates[int(np.argmax(means))][0]
        for key, values in per_class.items():
            settings = settings.replace(**{key: {}})
            name = f"{key} {settings}"
            if name not in tables:  # folds often select the same candidate
                tables[name] = count_classes(evaluator, settings, key, values)
            settings = settings.replace(**{key: tables[name].tune(images, averaging)})
            on_step()
        return common, settings

    held_out, held_out_common = np.zeros(len(folds)), np.zeros(len(folds))
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        common, settings = select(search.choices_of(fold), ~own)
        held_out_common[own] = score(common)[own]
        held_out[own] = score(settings)[own]
    _, settings = select(search.trials, np.ones(len(folds), dtype=bool))
    return FoundSettings(settings, score(settings), held_out, held_out_common)
