"""Checks of the values that select a model's candidates; without torch."""

from __future__ import annotations

from src.errors import InputError
from src.validation import check_values, number, one_of, whole


def check_candidates(
    category_ids: list[int],
    num_classes: int,
    min_score: float,
    max_candidates: int,
    mask_stages: str,
) -> None:
    """Check the values that select a module's candidates.

    Raises:
        InputError: A value that is not legal; names its key.
    """
    different = len(set(category_ids))
    if len(category_ids) != num_classes or different != num_classes:
        raise InputError(
            f"module.category_ids must be {num_classes} different ids, as module.num_classes, got "
            f"{len(category_ids)}, {different} of them different"
        )
    kinds = {
        "min_score": number(least=0, below=1, legal="a number from 0, below 1"),
        "max_candidates": whole(1),
        "mask_stages": one_of("all", "last"),
    }
    check_values(kinds, locals(), prefix="module.")
