"""State that the drawing functions of one figure share, and the choice of its fabrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from src.synthetic.body import Body
from src.synthetic.drawing import Drawing
from src.synthetic.fabrics import Fabric
from src.synthetic.kinds import Kind
from src.synthetic.palette import Colour, cloth_colour, contrast, mix, shade
from src.synthetic.person import Looks

_PATTERNS: dict[Kind, dict[str, float]] = {
    Kind.SHIRT: {"plain": 4, "pinstripe": 2, "check": 1.2, "tartan": 1.2, "dot": 0.6},
    Kind.TOP: {"plain": 4, "band": 2.2, "dot": 0.7, "leopard": 0.3, "camouflage": 0.3},
    Kind.SWEATER: {"knit": 5, "band": 1.2, "argyle": 1},
    Kind.CARDIGAN: {"knit": 4, "rib": 1},
    Kind.JACKET: {
        "plain": 4,
        "denim": 1.5,
        "herringbone": 0.8,
        "camouflage": 0.4,
        "pinstripe": 0.6,
    },
    Kind.COAT: {"plain": 4, "herringbone": 1.2, "tartan": 0.9, "leopard": 0.4},
    Kind.VEST: {"plain": 3, "denim": 1, "herringbone": 1},
    Kind.PANTS: {"plain": 3, "denim": 4, "pinstripe": 0.5, "tartan": 0.4},
    Kind.SHORTS: {"plain": 2, "denim": 3, "plant": 0.6},
    Kind.SKIRT: {"plain": 4, "tartan": 1.2, "dot": 0.8, "floral": 0.9, "stripe": 0.6},
    Kind.DRESS: {
        "plain": 3.5,
        "floral": 2.2,
        "dot": 1.2,
        "plant": 1,
        "stripe": 0.8,
        "leopard": 0.4,
    },
    Kind.JUMPSUIT: {"plain": 4, "dot": 0.8, "plant": 0.8},
    Kind.TIGHTS: {"plain": 8, "dot": 0.6},
    Kind.SOCK: {"plain": 2, "band": 2, "rib": 1},
    Kind.LEG_WARMER: {"rib": 1},
    Kind.SCARF: {"plain": 2, "tartan": 2, "knit": 1.5, "band": 1},
    Kind.TIE: {"plain": 2, "stripe": 2, "dot": 1},
    Kind.HEADBAND: {"plain": 3, "dot": 1, "floral": 0.7},
}
_PERIODS = {
    "stripe": 0.30,
    "band": 0.30,
    "pinstripe": 0.17,
    "check": 0.24,
    "tartan": 0.46,
    "dot": 0.34,
    "floral": 0.80,
    "plant": 0.85,
    "leopard": 0.60,
    "camouflage": 1.3,
    "herringbone": 0.32,
    "argyle": 0.50,
    "denim": 0.70,
    "knit": 0.60,
    "rib": 0.07,
    "glitter": 0.60,
}


@dataclass
class Figure:
    """Dressed person while it is drawn."""

    drawing: Drawing
    body: Body
    looks: Looks
    rng: np.random.Generator
    difficulty: float
    """0 keeps to usual colours and strong trims, 1 takes any."""
    seen: list[Colour] = field(default_factory=list)
    """Colours of the garments so far, which the next one should stand out from."""

    def chance(self, share: float) -> bool:
        """True with the probability ``share``."""
        return bool(self.rng.random() < share)

    def pick(self, options: Sequence[str], weights: Sequence[float] | None = None) -> str:
        """Choose one of the options."""
        if weights is None:
            return options[int(self.rng.integers(len(options)))]
        share = np.cumsum(np.asarray(weights, dtype=float))
        return options[int(np.searchsorted(share, self.rng.random() * share[-1], side="right"))]

    def between(self, low: float, high: float) -> float:
        """A uniform draw."""
        return float(self.rng.uniform(low, high))

    def fabric(self, kind: Kind, *, angle: float = 0.0) -> Fabric:
        """Choose colour and pattern for a garment, away from those it is worn with."""
        colour = cloth_colour(
            self.rng, kind, 0.08 + 0.72 * self.difficulty, (self.looks.skin, *self.seen[-3:])
        )
        self.seen.append(colour)
        options = _PATTERNS.get(kind, {"plain": 1.0})
        pattern = self.pick(list(options), list(options.values()))
        if pattern in ("plain", "denim", "knit", "rib"):
            accent = contrast(colour)
        else:
            accent = contrast(colour, self.between(0.35, 0.95))
            if self.chance(0.3):
                accent = mix(accent, cloth_colour(self.rng, kind, 1.0, (colour,)), 0.7)
        return Fabric(
            colour=colour,
            pattern=pattern,
            accent=accent,
            period=_PERIODS.get(pattern, 0.4) * self.between(0.8, 1.3),
            angle=angle,
            seed=int(self.rng.integers(1 << 30)),
        )

    def trim(self, fabric: Fabric) -> Fabric:
        """Cloth for a collar, band or pocket of a garment: its own, or one that stands out."""
        own = shade(fabric.colour, 0.80)
        loud = self.rng.random() >= 0.15 + 0.6 * self.difficulty
        colour = contrast(fabric.colour, 0.75) if loud else own
        return replace(fabric, colour=colour, pattern="plain", accent=fabric.colour)

    def turned(self, fabric: Fabric, side: int) -> Fabric:
        """The fabric as it lies on an arm of the figure: turned with it."""
        if fabric.pattern in ("plain", "camouflage", "leopard", "floral", "plant", "glitter"):
            return fabric
        return replace(fabric, angle=math.remainder(self.body.arms[side].angle(0.3), 2 * math.pi))


def metal(rng: np.random.Generator) -> Fabric:
    """Gold, silver or gunmetal, for zippers, buckles and rivets."""
    tones: tuple[Colour, ...] = ((226, 190, 92), (214, 218, 224), (168, 172, 182))
    return Fabric(tones[int(rng.integers(len(tones)))], relief=1.6)
