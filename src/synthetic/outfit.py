"""Outfits: which garments go together, and how often each occurs.

Shares come from the real data's instances for each category (``CATEGORY_INSTANCES``) over its
images, divided by how often a figure offers the occasion (a belt needs a visible waist).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from src.annotations.categories import CATEGORY_INSTANCES
from src.synthetic.kinds import Kind

IMAGES = 45_195  # in the version of train.csv that the counts are of

_ONE_PIECE = (Kind.DRESS, Kind.JUMPSUIT)
_INNER = (Kind.TOP, Kind.SHIRT, Kind.SWEATER)
_BOTTOMS = (Kind.PANTS, Kind.SKIRT, Kind.SHORTS)
_OUTER = (Kind.JACKET, Kind.COAT, Kind.CARDIGAN, Kind.VEST, Kind.CAPE)

OCCASION: dict[Kind, float] = {
    Kind.GLASSES: 0.99,
    Kind.HAT: 1.0,
    Kind.HEADBAND: 0.95,
    Kind.TIE: 0.157,
    Kind.GLOVE: 2.5,
    Kind.WATCH: 1.0,
    Kind.BELT: 0.58,
    Kind.LEG_WARMER: 0.38,
    Kind.TIGHTS: 0.36,
    Kind.SOCK: 0.57,
    Kind.BAG: 1.0,
    Kind.SCARF: 1.2,
    Kind.UMBRELLA: 0.6,
    Kind.EPAULETTE: 0.66,
    Kind.APPLIQUE: 2.3,
    Kind.BEAD: 4.7,
    Kind.BOW: 0.95,
    Kind.FLOWER: 2.5,
    Kind.FRINGE: 0.94,
    Kind.RIBBON: 0.85,
    Kind.RIVET: 5.9,
    Kind.RUFFLE: 1.25,
    Kind.SEQUIN: 0.9,
    Kind.TASSEL: 1.6,
}
"""Mean instances of a kind in an image if every figure that can wear it did; measured."""

_MOST: dict[Kind, int] = {
    Kind.APPLIQUE: 3,
    Kind.BEAD: 8,
    Kind.FLOWER: 5,
    Kind.RIVET: 12,
    Kind.RUFFLE: 2,
    Kind.TASSEL: 3,
}
"""Decorations that come in numbers: at most so many on a garment."""


def share(kind: Kind) -> float:
    """Probability that a figure with the occasion wears the kind."""
    return min(1.0, CATEGORY_INSTANCES[kind] / IMAGES / OCCASION.get(kind, 1.0))


def can_dress(worn: Collection[int]) -> bool:
    """Return whether categories hold a one-piece, or an upper garment and one for the legs."""
    return any(kind in worn for kind in _ONE_PIECE) or all(
        any(kind in worn for kind in group) for group in (_INNER, _BOTTOMS)
    )


@dataclass
class Outfit:
    """Clothes of one figure, before cut and colour."""

    framing: str
    """How much of the figure the image shows: ``full``, ``knee`` or ``hip``."""
    main: Kind
    """Dress, jumpsuit, or the upper garment of two."""
    bottom: Kind | None = None
    outer: Kind | None = None
    tucked: bool = False
    extras: set[Kind] = field(default_factory=set)
    """Accessories and decorations to be drawn."""
    numbers: dict[Kind, int] = field(default_factory=dict)
    """How many of each decoration."""


def choose_outfit(
    rng: np.random.Generator, upright: bool, worn: Collection[int] = tuple(Kind)
) -> Outfit:
    """Draw an outfit.

    Args:
        rng: Source of randomness.
        upright: Whether the image is higher than wide; wide ones show less of the figure.
        worn: Categories that garments and accessories are chosen from; they ``can_dress``.
    """
    weight = {kind: CATEGORY_INSTANCES[kind] / IMAGES * (kind in worn) for kind in Kind}
    one_piece = weight[Kind.DRESS] + weight[Kind.JUMPSUIT]
    in_two = all(any(weight[kind] for kind in group) for group in (_INNER, _BOTTOMS))
    if rng.random() < one_piece or not in_two:
        main = _one_of(rng, {kind: weight[kind] for kind in _ONE_PIECE})
        outfit = Outfit(_framing(rng, upright, (0.60, 0.40, 0.0)), main)
    else:
        main = _one_of(rng, {kind: weight[kind] for kind in _INNER})
        bottom = _one_of(rng, {kind: weight[kind] for kind in _BOTTOMS})
        outfit = Outfit(_framing(rng, upright, (0.52, 0.27, 0.21)), main, bottom)
        outfit.tucked = main is not Kind.SWEATER and bool(rng.random() < 0.45)
    worn_over = sum(weight[kind] for kind in _OUTER)
    inclined = 0.28 if outfit.bottom is None else 1.70  # a dress is seldom under a jacket
    if outfit.main is not Kind.SWEATER and rng.random() < worn_over * inclined:
        outfit.outer = _one_of(rng, {kind: weight[kind] for kind in _OUTER})
    _add_extras(rng, outfit)
    outfit.extras &= {Kind(category) for category in worn}
    return outfit


def _framing(rng: np.random.Generator, upright: bool, shares: tuple[float, float, float]) -> str:
    full, knee, hip = shares
    if not upright:
        full, knee, hip = full * 0.4, knee * 1.3, hip + 0.3 * (hip > 0)
    return ("full", "knee", "hip")[
        int(rng.choice(3, p=np.array([full, knee, hip]) / (full + knee + hip)))
    ]


def _one_of(rng: np.random.Generator, weights: dict[Kind, float]) -> Kind:
    kinds, shares = list(weights), np.array(list(weights.values()))
    return kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]


def _add_extras(rng: np.random.Generator, outfit: Outfit) -> None:
    legs_bare = outfit.bottom in (Kind.SKIRT, Kind.SHORTS) or outfit.main is Kind.DRESS
    possible = [
        Kind.GLASSES,
        Kind.GLOVE,
        Kind.WATCH,
        Kind.BAG,
        Kind.UMBRELLA,
        Kind.APPLIQUE,
        Kind.BEAD,
        Kind.BOW,
        Kind.FLOWER,
        Kind.FRINGE,
        Kind.RIBBON,
        Kind.RIVET,
        Kind.RUFFLE,
        Kind.SEQUIN,
        Kind.TASSEL,
        Kind.SCARF,
    ]
    if outfit.main is Kind.SHIRT:
        possible.append(Kind.TIE)
    if outfit.outer in (Kind.JACKET, Kind.COAT) or outfit.main is Kind.SHIRT:
        possible.append(Kind.EPAULETTE)
    if outfit.bottom is None or outfit.tucked or outfit.outer is Kind.COAT:
        possible.append(Kind.BELT)
    if legs_bare and outfit.framing != "hip":
        possible.append(Kind.TIGHTS)
    outfit.extras = {kind for kind in possible if rng.random() < share(kind)}
    if rng.random() < share(Kind.HAT):
        outfit.extras.add(Kind.HAT)
    elif rng.random() < share(Kind.HEADBAND):
        outfit.extras.add(Kind.HEADBAND)
    if legs_bare and outfit.framing == "full" and Kind.TIGHTS not in outfit.extras:
        outfit.extras |= {
            kind for kind in (Kind.SOCK, Kind.LEG_WARMER) if rng.random() < share(kind)
        }
    buckled = CATEGORY_INSTANCES[Kind.BUCKLE] / CATEGORY_INSTANCES[Kind.BELT]
    if Kind.BELT in outfit.extras and rng.random() < buckled:
        outfit.extras.add(Kind.BUCKLE)
    for kind, most in _MOST.items():
        if kind in outfit.extras:
            outfit.numbers[kind] = int(rng.integers(1, most + 1))
