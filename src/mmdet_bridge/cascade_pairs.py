"""Which (proposal, class) pairs of an image become candidates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """(proposal, class) pairs of one image, K of them, in row-major order."""

    proposals: Tensor  # (K,) int64
    classes: Tensor  # (K,) int64
    exact_above_score: float  # every pair with a score above this one is here


def select_pairs(scores: Tensor, *, score_floor: float, max_pairs: int) -> Pairs:
    """The pairs with a score above the floor; of more than ``max_pairs``, the best.

    Args:
        scores: (P, C) class scores of P proposals, without the background.
    """
    flat = scores.flatten()
    chosen = (flat > score_floor).nonzero().squeeze(1)
    exact_above = score_floor
    if len(chosen) > max_pairs:
        best = flat[chosen].sort(descending=True, stable=True)
        exact_above = float(best.values[max_pairs - 1])
        chosen = chosen[best.indices[:max_pairs]].sort().values
    classes = scores.shape[1]
    return Pairs(chosen // classes, chosen % classes, exact_above)
