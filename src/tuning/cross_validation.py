"""How good found settings are on images that had no say in finding them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from src.metrics.competition import Averaging
from src.postprocess.settings import PostprocessSettings
from src.tuning.class_thresholds import ClassTable, count_classes
from src.tuning.settings_search import SettingsSearch
from src.tuning.threshold_lab import ThresholdLab

Scores = npt.NDArray[np.float64]


def make_folds(
    category_sets: Sequence[Collection[int]], folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Deal images into folds with nearly the same share of each class (iterative stratification,
    Sechidis et al. 2011).

    Args:
        category_sets: The classes in each image's truth.
        folds: How many.
        seed: Of the stratification.

    Returns:
        (M,) the fold of each image, from 0.
    """
    categories = sorted(set().union(*category_sets))
    # two columns of False: the stratifier refuses a single column
    membership = np.zeros((len(category_sets), len(categories) + 2), dtype=bool)
    for row, present in enumerate(category_sets):
        membership[row, np.searchsorted(categories, sorted(present))] = True
    stratifier = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(category_sets), dtype=np.int64)
    for fold, (_, held_out) in enumerate(stratifier.split(membership, membership)):
        fold_of[held_out] = fold
    return fold_of


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search found."""

    settings: PostprocessSettings  # chosen by all images
    in_sample: Scores  # (M,) their score on the images that chose them
    held_out: Scores  # (M,) each image under what was chosen without its fold
    held_out_common: Scores  # (M,) the same before classes got thresholds of their own


class Chooser:
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
        lab: ThresholdLab,
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
        """The settings that are best for these images.

        Args:
            candidates: Settings with their scores of all images, (M,).
            images: (M,) which ones choose.

        Returns:
            The best candidate, and the same with thresholds of single classes.
        """
        means = [scores[images].mean() for _, scores in candidates]
        common = settings = candidates[int(np.argmax(means))][0]
        for key, values in self._per_class.items():
            nothing: dict[str, Any] = {key: {}}
            settings = replace(settings, **nothing)
            own: dict[str, Any] = {
                key: self._table(settings, key, values).tune(images, self._averaging)
            }
            settings = replace(settings, **own)
            self._on_step()
        return common, settings

    def _table(
        self, settings: PostprocessSettings, key: str, values: Sequence[float]
    ) -> ClassTable:
        """Folds often choose the same candidate."""
        name = f"{key} {settings}"
        if name not in self._tables:
            self._tables[name] = count_classes(self._lab, settings, key, values)
        return self._tables[name]


def cross_validate(
    search: SettingsSearch,
    chooser: Chooser,
    *,
    baselines: Sequence[tuple[PostprocessSettings, Scores]],
    folds: npt.NDArray[np.int64],
    score: Callable[[PostprocessSettings], Scores],
) -> Found:
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
        common, settings = chooser.choose(candidates, ~own)
        held_out_common[own] = score(common)[own]
        held_out[own] = score(settings)[own]
    candidates = [*baselines, *((trial.settings, trial.per_image) for trial in search.trials)]
    _, settings = chooser.choose(candidates, np.ones(len(folds), dtype=bool))
    return Found(settings, score(settings), held_out, held_out_common)
