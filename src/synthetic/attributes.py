"""Attributes (0 to 91) that a garment has by the way it was drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.synthetic.body import CROTCH

if TYPE_CHECKING:
    from src.synthetic.fabrics import Fabric
    from src.synthetic.figure import Figure

_PATTERN = {
    "plain": 61,
    "denim": 61,
    "knit": 61,
    "rib": 61,
    "glitter": 61,
    "stripe": 72,
    "band": 72,
    "pinstripe": 72,
    "check": 66,
    "tartan": 66,
    "dot": 67,
    "floral": 69,
    "plant": 84,
    "leopard": 77,
    "camouflage": 65,
    "herringbone": 74,
    "argyle": 76,
}
_FORM = {
    "a-line": (34, 88),
    "fit and flare": (24, 88),
    "pencil": (32, 88),
    "tent": (35, 91),
    "empire": (34, 85),
    "mermaid": (26, 88),
    "circle": (22, 88),
    "flare": (23, 88),
    "bell bottom": (29, 88),
    "wide leg": (37, 88),
    "straight": (33, 88),
    "pleated": (34, 52),
}
_LENGTHS = ((0.08, 2), (0.33, 3), (0.44, 4), (0.53, 5), (0.66, 6), (0.82, 7), (0.94, 8), (9.0, 9))


def describe(
    figure: Figure,
    index: int,
    *,
    fabric: Fabric,
    hem: float | None,
    opening: int,
    ease: float,
    form: str = "",
) -> None:
    """Note the attributes of an object: length, opening, silhouette, fit, pattern, waistline.

    Args:
        figure: Whose garment it is.
        index: Object in the figure's drawing.
        fabric: Gives the pattern.
        hem: Height of the hem in torso space, None where length does not apply.
        opening: Attribute id of the kind of opening (10 to 18).
        ease: Room in the garment in head heights; gives the fit.
        form: Name of the silhouette; none is ``symmetrical``.
    """
    silhouette, waist = _FORM.get(form, (20, 88))
    found = {opening, silhouette, waist, _PATTERN[fabric.pattern], 60}
    found.add(40 if ease < 0.04 else 42 if ease > 0.09 else 41)
    if hem is not None:
        found.add(_length(hem, figure.body.shape.heads))
    if fabric.pattern == "denim" and figure.chance(0.5):
        found = found - {60} | {46}
    figure.drawing.objects[index].attributes = tuple(sorted(found))


def _length(hem: float, heads: float) -> int:
    if hem < 3.0:
        return 0
    if hem < CROTCH:
        return 1
    share = (hem - CROTCH) / (heads - 0.16 - CROTCH)
    return next(attribute for bound, attribute in _LENGTHS if share < bound)
