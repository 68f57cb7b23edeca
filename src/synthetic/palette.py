"""Colours: skin, hair, cloth, and the ones each kind of garment tends to have."""

from __future__ import annotations

import numpy as np

from src.synthetic.kinds import Kind

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

SKIN: tuple[Colour, ...] = (
    (238, 200, 172),
    (230, 186, 154),
    (220, 172, 136),
    (212, 160, 122),
    (184, 130, 94),
    (150, 102, 72),
    (116, 78, 56),
    (88, 58, 44),
)
HAIR: tuple[Colour, ...] = (
    (34, 28, 30),
    (58, 40, 34),
    (92, 60, 42),
    (130, 84, 50),
    (176, 124, 66),
    (214, 172, 104),
    (232, 206, 156),
    (152, 62, 38),
    (150, 150, 154),
    (206, 204, 206),
    (120, 60, 96),
)

CLOTH: dict[str, Colour] = {
    "ivory": (244, 238, 224),
    "white": (248, 248, 246),
    "cream": (236, 220, 188),
    "sand": (214, 192, 154),
    "camel": (192, 150, 98),
    "tan": (172, 122, 76),
    "cognac": (148, 84, 44),
    "chocolate": (92, 58, 42),
    "mustard": (222, 172, 52),
    "lemon": (244, 220, 100),
    "apricot": (246, 178, 118),
    "orange": (232, 122, 50),
    "terracotta": (198, 98, 68),
    "coral": (240, 118, 104),
    "red": (206, 44, 48),
    "burgundy": (122, 30, 48),
    "blush": (240, 190, 190),
    "pink": (236, 130, 164),
    "fuchsia": (206, 46, 118),
    "plum": (104, 48, 92),
    "lilac": (190, 166, 218),
    "violet": (116, 84, 170),
    "navy": (34, 46, 84),
    "cobalt": (38, 84, 178),
    "denim": (72, 104, 152),
    "indigo": (46, 62, 104),
    "sky": (150, 194, 226),
    "powder": (194, 216, 230),
    "teal": (28, 122, 126),
    "turquoise": (82, 184, 184),
    "mint": (174, 220, 196),
    "sage": (148, 168, 136),
    "olive": (112, 112, 60),
    "forest": (36, 88, 62),
    "emerald": (28, 138, 92),
    "silver": (192, 196, 202),
    "grey": (136, 140, 146),
    "charcoal": (70, 72, 80),
    "black": (38, 36, 42),
}

_LEATHER = ("cognac", "chocolate", "black", "tan", "burgundy")
USUAL: dict[Kind, tuple[str, ...]] = {
    Kind.SHIRT: ("white", "sky", "powder", "ivory", "blush"),
    Kind.TOP: ("coral", "mint", "lemon", "pink", "white", "turquoise", "apricot"),
    Kind.SWEATER: ("cream", "sage", "mustard", "burgundy", "silver"),
    Kind.CARDIGAN: ("sage", "cream", "lilac", "mustard"),
    Kind.JACKET: ("charcoal", "navy", "black", "olive", "cognac"),
    Kind.VEST: ("olive", "chocolate", "charcoal", "tan"),
    Kind.PANTS: ("denim", "indigo", "black", "navy", "sand", "charcoal"),
    Kind.SHORTS: ("sand", "denim", "sky", "olive", "camel"),
    Kind.SKIRT: ("plum", "teal", "mustard", "burgundy", "blush", "forest"),
    Kind.COAT: ("camel", "sand", "grey", "chocolate", "tan"),
    Kind.DRESS: ("red", "emerald", "fuchsia", "cobalt", "violet", "lilac", "pink", "teal"),
    Kind.JUMPSUIT: ("terracotta", "forest", "navy", "olive"),
    Kind.CAPE: ("burgundy", "camel", "forest", "black"),
    Kind.GLASSES: ("black", "chocolate"),
    Kind.HAT: ("camel", "black", "cream", "burgundy", "mustard", "sand"),
    Kind.HEADBAND: ("red", "pink", "turquoise", "mustard", "white"),
    Kind.TIE: ("burgundy", "navy", "red", "emerald", "plum"),
    Kind.GLOVE: ("black", "chocolate", "burgundy", "cream"),
    Kind.WATCH: ("black", "cognac", "silver"),
    Kind.BELT: _LEATHER,
    Kind.LEG_WARMER: ("grey", "cream", "pink", "violet"),
    Kind.TIGHTS: ("black", "charcoal", "plum", "white"),
    Kind.SOCK: ("white", "mustard", "red", "grey", "mint"),
    Kind.SHOE: ("black", "white", "cognac", "red", "chocolate"),
    Kind.BAG: ("cognac", "tan", "black", "red", "mustard", "teal"),
    Kind.SCARF: ("mustard", "red", "cream", "grey", "teal", "plum"),
    Kind.UMBRELLA: ("red", "lemon", "cobalt", "black", "turquoise"),
}
"""The colours that a kind of garment has most often; an easy set keeps to them."""


def luminance(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """``share`` of ``other`` in ``one``."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (factor below 1) or lighter (above 1), at most white."""
    red, green, blue = (min(255, max(0, round(value * factor))) for value in colour)
    return red, green, blue


def distance(one: Colour, other: Colour) -> float:
    """Return how different two colours look: Euclidean, with brightness counted double."""
    step = [a - b for a, b in zip(one, other, strict=True)]
    return float(np.hypot(np.linalg.norm(step), 2 * (luminance(one) - luminance(other))))


def cloth_colour(
    rng: np.random.Generator, kind: Kind, variety: float, avoid: tuple[Colour, ...] = ()
) -> Colour:
    """A colour for a garment, away from its neighbours'.

    Args:
        rng: Source of randomness.
        kind: Garment; its usual colours are in ``USUAL``.
        variety: 0 keeps to the usual colours, 1 takes any.
        avoid: Colours of what it lies against; of six tries the first that stands out is taken.
    """
    best, best_gap = CLOTH["grey"], -1.0
    for _ in range(6):
        usual = rng.random() >= variety
        names = USUAL[kind] if usual else tuple(CLOTH)
        colour = jitter(rng, CLOTH[names[int(rng.integers(len(names)))]], 6)
        gap = min((distance(colour, other) for other in avoid), default=999.0)
        if gap > best_gap:
            best, best_gap = colour, gap
        if gap > 110:
            break
    return best


def contrast(colour: Colour, strength: float = 1.0) -> Colour:
    """A trim colour that stands out on ``colour``: pale on dark, deep on pale."""
    target = (250, 246, 236) if luminance(colour) < 120 else (44, 40, 56)
    return mix(colour, target, 0.30 + 0.45 * strength)


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """The colour with a little noise in each channel."""
    red, green, blue = (
        int(np.clip(value + step, 0, 255))
        for value, step in zip(colour, rng.normal(0, amount, 3), strict=True)
    )
    return red, green, blue
