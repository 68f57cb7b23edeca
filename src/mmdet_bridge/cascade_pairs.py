"""Which (proposal, class) pairs of an image become candidates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

UNLIKELY_SCORE = 0.1


@dataclass(frozen=True)
class Pairs:
    """(proposal, class) pairs of one image, K of them, in row-major order."""

    proposals: Tensor  # (K,) int64
    classes: Tensor  # (K,) int64
    exact_above_score: float  # every pair with a score above this one is here


def select_pairs(
    scores: Tensor, *, score_floor: float, max_pairs: int, max_unlikely: int | None = None
) -> Pairs:
    """The pairs with a score above the floor; of more than ``max_pairs``, the best.

    Args:
        scores: (P, C) class scores of P proposals, without the background.
        score_floor: pairs with a score above it are chosen.
        max_pairs: so many at most.
        max_unlikely: pairs with a score of 0.1 and below only fill up to so many, so that what is
            stored of a common photo is small and nothing is lost of a crowded one; None: they are
            as good as others.
    """
    flat = scores.flatten()
    chosen = (flat > score_floor).nonzero().squeeze(1)
    if max_unlikely is not None:
        likely = int((flat > max(UNLIKELY_SCORE, score_floor)).sum())
        max_pairs = min(max_pairs, max(max_unlikely, likely))
    exact_above = score_floor
    if len(chosen) > max_pairs:
        best = flat[chosen].sort(descending=True, stable=True)
        exact_above = float(best.values[max_pairs - 1])
        chosen = chosen[best.indices[:max_pairs]].sort().values
    classes = scores.shape[1]
    return Pairs(chosen // classes, chosen % classes, exact_above)
