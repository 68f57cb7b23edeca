"""Thresholds by class, and cross-validated search results.

Thresholds of single classes, found one class after the other.
Where a class gets a threshold of its own, only this class's objects change, so what each class is
worth at each threshold is counted once, and any combination is put together from these counts. That
is exact as long as classes leave each other alone; where they do not (class-agnostic NMS, a cap on
an image's objects that bites) it is an approximation, which steers the choice and no more: what is
chosen is scored as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from src.annotations.imaterialist_csv import FILLER_CATEGORY
from src.metrics.competition import THRESHOLDS, Averaging, ClassKey, split_key
from src.postprocess.settings import PostprocessSettings
from src.tuning.settings_evaluator import SettingsEvaluator
from src.tuning.settings_search import SettingsSearch

_ROUNDS = 3
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ClassTable:
    """Scores of C classes of M images at V values of a threshold."""

    key: str  # score_threshold_per_class or mask_threshold_per_class
    values: tuple[float, ...]  # V, the first is the one of all classes
    categories: tuple[ClassKey, ...]  # C
    ground_truth: npt.NDArray[np.int16]  # (M, C)
    predicted: npt.NDArray[np.int16]  # (V, M, C)
    true_positives: npt.NDArray[np.int16]  # (V, M, C, 10)
    with_filler: bool  # whether an image without an object has the competition's filler row

    def scores(self, chosen: npt.NDArray[np.int64], averaging: Averaging) -> Scores:
        """Return the images' scores where class c has value number ``chosen[c]``. Shape (M,)."""
        classes = np.arange(len(self.categories))
        predicted = self.predicted[chosen, :, classes].T
        true_positives = self.true_positives[chosen, :, classes].swapaxes(0, 1)
        state = _State(self, predicted, true_positives, averaging)
        result: Scores = state.scores_without(None)[0]
        return result

    def tune(self, images: npt.NDArray[np.bool_], averaging: Averaging) -> dict[int, float]:
        """Return thresholds of single classes that raise the score of these images.

        Classes are gone through until none changes, three times at most. A class moves to the
        value that is best for it only where the gain is above its standard error over the images.

        Args:
            images: (M,) which ones.
            averaging: ``per_class`` or ``pooled``.

        Returns:
            Threshold by category of those that moved.
        """
        table = replace(
            self,
            ground_truth=self.ground_truth[images],
            predicted=self.predicted[:, images],
            true_positives=self.true_positives[:, images],
        )
        state = _State(table, table.predicted[0].copy(), table.true_positives[0].copy(), averaging)
        chosen = np.zeros(len(self.categories), dtype=np.int64)
        for _ in range(_ROUNDS):
            before = chosen.copy()
            for column in range(len(self.categories)):
                scores = state.scores_without(column)  # (V, M)
                gains = scores - scores[chosen[column]]
                best = int(np.argmax(gains.mean(axis=1)))
                error = gains[best].std() / np.sqrt(gains.shape[1])
                if gains[best].mean() > error:
                    chosen[column] = best
                    state.move(column, best)
            if np.array_equal(chosen, before):
                break
        moved = np.flatnonzero(chosen).tolist()
        return {split_key(self.categories[c])[0]: self.values[chosen[c]] for c in moved}


class _State:
    """Counts of images while the thresholds of classes change.

    Args:
        table: All values.
        predicted: (M, C) at the values that are chosen.
        hits: (M, C, 10) at the values that are chosen.
        averaging: ``per_class`` or ``pooled``.
    """

    def __init__(
        self,
        table: ClassTable,
        predicted: npt.NDArray[np.int16],
        true_positives: npt.NDArray[np.int16],
        averaging: Averaging,
    ) -> None:
        self._table = table
        self._predicted = predicted
        self._true_positives = true_positives
        self._averaging = averaging
        filler = [key == FILLER_CATEGORY for key in table.categories]
        # the filler adds a class to the mean where the ground truth has none of its objects
        self._filler_is_new = ~table.ground_truth[:, filler].any(axis=1)

    def move(self, column: int, value: int) -> None:
        """Give a class another value."""
        self._predicted[:, column] = self._table.predicted[value, :, column]
        self._true_positives[:, column] = self._table.true_positives[value, :, column]

    def scores_without(self, column: int | None) -> Scores:
        """Return the scores at each value of one class, the others unchanged; shape (V, M).

        Where None, the scores as all are; (1, M).
        """
        rest = np.arange(len(self._table.categories)) != (-1 if column is None else column)
        of_rest = self._sums(
            self._table.ground_truth[:, rest],
            self._predicted[:, rest],
            self._true_positives[:, rest],
        )
        if column is None:
            return self._score(*(part[None] for part in of_rest))
        own = [
            self._sums(
                self._table.ground_truth[:, [column]],
                predicted[:, [column]],
                true_positives[:, [column]],
            )
            for predicted, true_positives in zip(
                self._table.predicted, self._table.true_positives, strict=True
            )
        ]
        return self._score(
            *(
                of_rest[part][None] + np.stack([value[part] for value in own])
                for part in range(len(of_rest))
            )
        )

    def _sums(
        self,
        ground_truth: npt.NDArray[np.int16],
        predicted: npt.NDArray[np.int16],
        true_positives: npt.NDArray[np.int16],
    ) -> tuple[Scores, Scores, Scores]:
        """Return numerator and denominator (M, 10) and the detections (M,) of some classes."""
        either = (ground_truth + predicted)[..., None] - true_positives
        if self._averaging == "pooled":
            top, bottom = (
                true_positives.sum(axis=1, dtype=np.float64),
                either.sum(axis=1, dtype=np.float64),
            )
        else:
            there = either > 0
            value = np.divide(
                true_positives, either, out=np.zeros(true_positives.shape), where=there
            )
            top, bottom = value.sum(axis=1), there.sum(axis=1, dtype=np.float64)
        return top, bottom, predicted.sum(axis=1, dtype=np.float64)

    def _score(self, top: Scores, bottom: Scores, predicted: Scores) -> Scores:
        """Return scores (V, M) from sums (V, M, 10), (V, M, 10) and (V, M)."""
        if self._table.with_filler:
            adds = True if self._averaging == "pooled" else self._filler_is_new
            bottom = bottom + ((predicted == 0) & adds)[..., None]
        # an image with neither true nor detections scores 1
        values = np.divide(top, bottom, out=np.ones(bottom.shape), where=bottom > 0)
        mean: Scores = values.mean(axis=-1)
        return mean


def count_classes(
    lab: SettingsEvaluator, settings: PostprocessSettings, key: str, values: Sequence[float]
) -> ClassTable:
    """Count what each class is worth at each value of a threshold.

    Args:
        lab: The images.
        settings: All else; no class has a threshold of its own for ``key``.
        key: ``score_threshold_per_class`` or ``mask_threshold_per_class``.
        values: To be tried beside the one that all classes have.
    """
    common = key.removesuffix("_per_class")
    own = getattr(settings, common)
    tried = (own, *(value for value in values if value != own))
    grid = [settings.replace(**{common: value}) for value in tried]
    images = [counts for _, counts in lab.counts(grid, with_filler=False)]
    categories = sorted({key for image in images for counts in image for key in counts.class_keys})
    column = {category: number for number, category in enumerate(categories)}
    shape = (len(tried), len(images), len(categories))
    ground_truth = np.zeros(shape[1:], dtype=np.int16)
    predicted = np.zeros(shape, dtype=np.int16)
    true_positives = np.zeros((*shape, len(THRESHOLDS)), dtype=np.int16)
    for row, image in enumerate(images):
        for number, counts in enumerate(image):
            columns = [column[key] for key in counts.class_keys]
            ground_truth[row, columns] = counts.num_ground_truth
            predicted[number, row, columns] = counts.num_detections
            true_positives[number, row, columns] = counts.true_positives
    return ClassTable(
        key, tried, tuple(categories), ground_truth, predicted, true_positives, lab.with_filler
    )


@dataclass(frozen=True, slots=True, eq=False)
class FoundSettings:
    """Settings that a search found."""

    settings: PostprocessSettings  # chosen by all images
    in_sample: Scores  # (M,) their score on the images that chose them
    held_out: Scores  # (M,) each image under what was chosen without its fold
    held_out_common: Scores  # (M,) the same before classes got thresholds of their own


class Selector:
    """Chooses settings by some of the images: the best candidate, then thresholds of classes.

    Args:
        lab: The images.
        score: Gives (M,) the score of each image.
        per_class: Values to try by key, ``score_threshold_per_class`` say.
        averaging: ``per_class`` or ``pooled``.
        on_step: Called after each piece of work, one for each key of ``per_class`` a choice.
    """

    def __init__(
        self,
        lab: SettingsEvaluator,
        *,
        score: Callable[[PostprocessSettings], Scores],
        per_class: Mapping[str, Sequence[float]],
        averaging: Averaging,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._lab = lab
        self._score = score
        self._per_class = per_class
        self._averaging = averaging
        self._on_step = on_step
        self._tables: dict[str, ClassTable] = {}

    def choose(
        self,
        candidates: Sequence[tuple[PostprocessSettings, Scores]],
        images: npt.NDArray[np.bool_],
    ) -> tuple[PostprocessSettings, PostprocessSettings]:
        """Choose the settings that are best for these images.

        Args:
            candidates: Settings with their scores of all images, (M,).
            images: (M,) which ones choose.

        Returns:
            The best candidate, and the same with thresholds of single classes.
        """
        means = [scores[images].mean() for _, scores in candidates]
        common = settings = candidates[int(np.argmax(means))][0]
        for key, values in self._per_class.items():
            settings = settings.replace(**{key: {}})
            own = self._table(settings, key, values).tune(images, self._averaging)
            settings = settings.replace(**{key: own})
            self._on_step()
        return common, settings

    def _table(
        self, settings: PostprocessSettings, key: str, values: Sequence[float]
    ) -> ClassTable:
        """Build a candidate's table once: folds often choose the same one."""
        name = f"{key} {settings}"
        if name not in self._tables:
            self._tables[name] = count_classes(self._lab, settings, key, values)
        return self._tables[name]


def cross_validate(
    search: SettingsSearch,
    selector: Selector,
    *,
    baselines: Sequence[tuple[PostprocessSettings, Scores]],
    folds: npt.NDArray[np.int64],
    score: Callable[[PostprocessSettings], Scores],
) -> FoundSettings:
    """Choose for each fold by the images outside it, and at last by all images.

    Args:
        search: Finished trials.
        chooser: Chooses among them.
        baselines: Further candidates, not made of these images.
        folds: (M,) the fold of each image.
        score: Gives (M,) the score of each image.
    """
    held_out, held_out_common = np.zeros(len(folds)), np.zeros(len(folds))
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        trials = search.choices_of(fold)
        candidates = [*baselines, *((trial.settings, trial.per_image) for trial in trials)]
        common, settings = selector.choose(candidates, ~own)
        held_out_common[own] = score(common)[own]
        held_out[own] = score(settings)[own]
    candidates = [*baselines, *((trial.settings, trial.per_image) for trial in search.trials)]
    _, settings = selector.choose(candidates, np.ones(len(folds), dtype=bool))
    return FoundSettings(settings, score(settings), held_out, held_out_common)
