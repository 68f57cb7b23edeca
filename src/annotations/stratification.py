"""Iterative stratification of images by their classes (Sechidis et al. 2011)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold


def class_membership(category_sets: Sequence[Collection[int]]) -> npt.NDArray[np.bool_]:
    """Return which of N images carries which of C classes, shape (N, C), classes ascending."""
    categories = sorted(set().union(*category_sets))
    membership = np.zeros((len(category_sets), len(categories)), dtype=bool)
    for row, present in enumerate(category_sets):
        membership[row, np.searchsorted(categories, sorted(present))] = True
    return membership


def stratified_folds(
    category_sets: Sequence[Collection[int]], *, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Deal images into folds with nearly the same share of each class.

    Args:
        category_sets: The category ids of each of N images.
        folds: Number of folds, 2 or more.
        seed: Seed of the stratifier.

    Returns:
        Shape (N,), int64, the fold of each image, from 0.
    """
    # Two columns of False: the stratifier takes a single column for a binary target and refuses it.
    membership = np.pad(class_membership(category_sets), ((0, 0), (0, 2)))
    stratifier = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(membership), dtype=np.int64)
    for fold, (_, held_out) in enumerate(stratifier.split(membership, membership)):
        fold_of[held_out] = fold
    return fold_of
