"""Garments of the upper body that close around it: tops, shirts, sweaters, dresses, jumpsuits."""

from __future__ import annotations

from dataclasses import dataclass

from src.synthetic import trims
from src.synthetic.attributes import describe
from src.synthetic.body import CROTCH, HIP, WAIST
from src.synthetic.drawing import Mark, Piece
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure
from src.synthetic.kinds import Kind
from src.synthetic.palette import shade
from src.synthetic.tailoring import (
    NECKS,
    Cut,
    hem_line,
    shell,
    skirt_folds,
    torso_folds,
    trouser_leg,
    width_at,
)


@dataclass(frozen=True, slots=True)
class Worn:
    """A garment that has been drawn, for what is pinned to it later."""

    kind: Kind
    index: int
    piece: Piece
    """Its main piece, in front."""
    fabric: Fabric
    cut: Cut
    sleeve: str = "none"
    """Kind of its sleeves, which are drawn with the arms."""


def leg_height(figure: Figure, share: float) -> float:
    """Height of a hem: 0 is the crotch, 1 the ankle."""
    ankle = figure.body.shape.heads - 0.16
    return CROTCH + share * (ankle - CROTCH)


def draw_top(figure: Figure, index: int, tucked: bool) -> Worn:
    """A T-shirt, blouse-like top or sleeveless top."""
    neck = NECKS[figure.pick(["crew", "scoop", "v", "square", "boat"], [4, 2.2, 2, 1, 1])]
    sleeve = figure.pick(["none", "cap", "short", "elbow", "long"], [4.2, 0.8, 3.4, 0.7, 1.4])
    hem = 2.95 if tucked else figure.between(3.05, 3.45)
    if not tucked and figure.chance(0.12):
        hem = 2.45
    cut = Cut(neck, hem, ease=figure.between(0.02, 0.09), sleeveless=sleeve == "none")
    fabric = figure.fabric(Kind.TOP)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index)
    piece.folds += torso_folds(figure.body, figure.rng, hem)
    _finish_hem(figure, piece, cut, fabric)
    if figure.chance(0.92):
        trims.add_neckline(figure, piece, neck, fabric)
    describe(figure, index, fabric=fabric, hem=hem, opening=18, ease=cut.ease)
    return Worn(Kind.TOP, index, piece, fabric, cut, sleeve)


def draw_shirt(figure: Figure, index: int, tucked: bool) -> Worn:
    """A shirt or blouse with a placket; its collar is drawn with the neck."""
    sleeve = figure.pick(["short", "elbow", "long", "puff"], [1.4, 0.8, 5, 0.8])
    hem = 2.95 if tucked else figure.between(3.2, 3.55)
    cut = Cut(NECKS["crew"], hem, ease=figure.between(0.05, 0.11))
    fabric = figure.fabric(Kind.SHIRT)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index)
    piece.folds += torso_folds(figure.body, figure.rng, hem)
    body = figure.body
    strip = body.torso([(-0.07, 1.4), (0.07, 1.4), (0.07, hem + 0.1), (-0.07, hem + 0.1)])
    piece.marks.append(Mark(strip, shade(fabric.colour, 0.9)))
    for x in (-0.07, 0.07):
        trims.add_front_line(figure, piece, x, 1.4, hem + 0.1)
    trims.add_buttons(figure, piece, 0.0, 1.62, hem - 0.1)
    if figure.chance(0.30):
        trims.add_patch_pocket(figure, piece, (0.33, 1.98), fabric, size=0.85)
    describe(figure, index, fabric=fabric, hem=hem, opening=10, ease=cut.ease)
    return Worn(Kind.SHIRT, index, piece, fabric, cut, sleeve)


def draw_sweater(figure: Figure, index: int) -> Worn:
    """A knitted pullover with ribbed hem."""
    high = figure.chance(0.4)
    neck = NECKS["crew" if high else figure.pick(["crew", "v", "boat"], [3, 1.5, 0.6])]
    hem = figure.between(3.1, 3.4)
    cut = Cut(neck, hem, ease=figure.between(0.10, 0.18))
    fabric = figure.fabric(Kind.SWEATER)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index)
    piece.folds += torso_folds(figure.body, figure.rng, hem)
    rib_band(figure, piece, cut, fabric)
    if high:
        trims.add_turtleneck(figure, index, fabric)
    else:
        trims.add_neckline(figure, piece, neck, fabric)
    describe(figure, index, fabric=fabric, hem=hem, opening=18, ease=cut.ease)
    return Worn(Kind.SWEATER, index, piece, fabric, cut, "long")


def draw_dress(figure: Figure, index: int) -> Worn:
    """A dress: a bodice and a skirt of one of seven silhouettes."""
    form = figure.pick(
        ["a-line", "fit and flare", "pencil", "tent", "empire", "mermaid"],
        [3.5, 3.0, 1.6, 1.0, 1.0, 0.5],
    )
    neck = NECKS[figure.pick(["crew", "scoop", "v", "deep v", "square", "boat", "heart"])]
    sleeve = figure.pick(["none", "cap", "short", "puff", "elbow", "long", "bell"],
                         [5.5, 0.7, 1.2, 0.9, 0.6, 1.1, 0.5])  # fmt: skip
    if neck.form == "heart":
        sleeve = "none"
    length = figure.pick(["mini", "knee", "midi", "maxi"], [2.2, 3.2, 1.6, 1.3])
    share = {"mini": 0.30, "knee": 0.50, "midi": 0.70, "maxi": 0.98}[length]
    if form == "mermaid":
        share = 0.98
    hem = leg_height(figure, share + figure.between(-0.05, 0.03))
    slope, start, ease = {
        "a-line": (0.22, WAIST + 0.05, 0.03),
        "fit and flare": (0.40, WAIST, 0.03),
        "pencil": (-0.03, HIP, 0.03),
        "tent": (0.20, 2.0, 0.10),
        "empire": (0.22, 2.25, 0.04),
        "mermaid": (0.42, leg_height(figure, 0.45), 0.02),
    }[form]
    slope *= 0.75 if length == "maxi" and form != "mermaid" else 1.0
    wave = 0.05 if slope > 0.15 else 0.0
    cut = Cut(neck, hem, ease, slope, start, sleeveless=sleeve == "none", wave=wave)
    fabric = figure.fabric(Kind.DRESS)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index)
    piece.folds += torso_folds(figure.body, figure.rng, WAIST)
    if slope > 0:
        piece.folds += skirt_folds(figure.body, cut, max(start, WAIST), 7)
    if form in ("fit and flare", "empire"):
        seam(figure, piece, cut, start + 0.02)
    if figure.chance(0.92):
        trims.add_neckline(figure, piece, neck, fabric)
    if figure.chance(0.07):
        for sign in (-1, 1):
            trims.add_flap_pocket(figure, piece, (sign * 0.36, 3.1), fabric)
    if figure.chance(0.07):
        trims.add_zipper(figure, piece, 0.0, neck.top + neck.depth, WAIST)
    describe(figure, index, fabric=fabric, hem=hem, opening=18, ease=ease, form=form)
    return Worn(Kind.DRESS, index, piece, fabric, cut, sleeve)


def draw_jumpsuit(figure: Figure, index: int) -> Worn:
    """Bodice and trousers in one."""
    neck = NECKS[figure.pick(["crew", "v", "scoop", "square"])]
    sleeve = figure.pick(["none", "short", "long"], [2.5, 1.5, 1])
    cut = Cut(neck, 2.9, ease=0.06, sleeveless=sleeve == "none")
    fabric = figure.fabric(Kind.JUMPSUIT)
    stop, flare = (0.97, figure.between(0.04, 0.2)) if figure.chance(0.8) else (0.4, 0.08)
    legs = tuple(
        trouser_leg(figure.body, side, 2.55, stop, ease=0.07, flare=flare) for side in (0, 1)
    )
    figure.drawing.add(legs, fabric, index, shadow=0.2)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index, shadow=0.0, edge=0.0)
    piece.folds += torso_folds(figure.body, figure.rng, WAIST)
    seam(figure, piece, cut, WAIST)
    trims.add_neckline(figure, piece, neck, fabric)
    if figure.chance(0.5):
        trims.add_zipper(figure, piece, 0.0, neck.top + neck.depth, 2.85)
    describe(figure, index, fabric=fabric, hem=None, opening=14, ease=0.06)
    return Worn(Kind.JUMPSUIT, index, piece, fabric, cut, sleeve)


def seam(figure: Figure, piece: Piece, cut: Cut, y: float) -> None:
    """A seam around the waist."""
    line = hem_line(width_at(y, figure.body, cut) + 0.05, y, 0.0)
    piece.marks.append(Mark(figure.body.torso(line), piece.fabric.line_colour, width=0.024))


def _finish_hem(figure: Figure, piece: Piece, cut: Cut, fabric: Fabric) -> None:
    line = hem_line(width_at(cut.hem, figure.body, cut), cut.hem - 0.09, 0.0)
    piece.marks.append(Mark(figure.body.torso(line), shade(fabric.colour, 0.72), width=0.016))


def rib_band(figure: Figure, piece: Piece, cut: Cut, fabric: Fabric) -> None:
    """A ribbed hem; nobody annotates it."""
    body = figure.body
    half = width_at(cut.hem, body, cut) + 0.05
    top = hem_line(half, cut.hem - 0.17, 0.0)
    bottom = hem_line(half, cut.hem + 0.05, 0.0)
    tone = shade(fabric.colour, 0.78)
    for i in range(1, len(top) - 1):
        rib = body.torso([top[i], bottom[i]])
        piece.marks.append(Mark(rib, tone, width=0.022))
    piece.marks.append(Mark(body.torso(top), tone, width=0.022))
