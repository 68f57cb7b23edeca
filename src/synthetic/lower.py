"""Garments of the lower body, what is worn on legs and feet, and belts."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from src.synthetic import trims
from src.synthetic.attributes import describe
from src.synthetic.body import HIP, WAIST
from src.synthetic.drawing import Fold, Mark, Piece
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure, metal
from src.synthetic.geometry import Points, moved, rounded_box, spline
from src.synthetic.kinds import Kind
from src.synthetic.palette import contrast, shade
from src.synthetic.tailoring import (
    NECKS,
    Cut,
    hem_line,
    skirt,
    skirt_folds,
    trouser_leg,
    width_at,
)
from src.synthetic.upper import Worn, leg_height

WAISTBAND = 2.68
"""Height of the upper edge of trousers and skirts."""


def draw_pants(figure: Figure, index: int, shorts: bool) -> Worn:
    """Trousers or shorts."""
    body = figure.body
    kind = Kind.SHORTS if shorts else Kind.PANTS
    form = figure.pick(["straight", "wide leg", "bell bottom"], [6, 1.2, 0.8])
    ease, flare = {
        "straight": (figure.between(0.015, 0.06), 0.03),
        "wide leg": (0.09, 0.16),
        "bell bottom": (0.03, 0.22),
    }[form]
    stop = figure.between(0.22, 0.46) if shorts else figure.between(0.90, 0.99)
    if shorts:
        ease, flare = figure.between(0.04, 0.10), 0.04
    fabric = figure.fabric(kind)
    legs = tuple(trouser_leg(body, side, WAISTBAND, stop, ease, flare) for side in (0, 1))
    piece = figure.drawing.add(legs, fabric, index)
    for side, leg in enumerate(body.legs):
        sign = (-1, 1)[side]
        for t, strength in ((0.47, -0.22), (0.53, -0.2), (0.50, 0.13), (0.12, -0.2), (0.86, -0.15)):
            if t < stop:
                start, end = leg.point(t, 0.9 * sign), leg.point(t + 0.03, -0.4 * sign)
                piece.folds.append(Fold(np.stack([start, end]), 0.06, strength))
        cuff = leg.outline(stop - 0.035, stop, grow=ease + flare + 0.1)
        piece.marks.append(Mark(cuff, shade(fabric.colour, 0.84)))
    cut = Cut(NECKS["crew"], HIP, ease=ease)
    _waistband(figure, piece, cut, fabric)
    line = body.torso(spline([(0.09, 2.85), (0.09, 3.15), (0.0, 3.36)]))
    piece.marks.append(Mark(line, fabric.line_colour, width=0.016))
    if figure.chance(0.60):
        trims.add_hip_pockets(figure, piece, ease, WAISTBAND, fabric)
    if figure.chance(0.16):
        trims.add_zipper(figure, piece, 0.0, 2.86, 3.34, width=0.12)
    describe(figure, index, fabric=fabric, hem=None, opening=15, ease=ease, form=form)
    return Worn(kind, index, piece, fabric, cut)


def draw_skirt(figure: Figure, index: int) -> Worn:
    """A skirt of one of four silhouettes."""
    form = figure.pick(["a-line", "circle", "pencil", "pleated"], [3, 1.6, 1.8, 1.6])
    share = figure.pick(["0.26", "0.46", "0.66", "0.95"], [3, 3, 1.6, 0.7])
    hem = leg_height(figure, float(share) + figure.between(-0.04, 0.04))
    slope = {"a-line": 0.24, "circle": 0.46, "pencil": -0.03, "pleated": 0.27}[form]
    wave = {"a-line": 0.03, "circle": 0.06, "pencil": 0.0, "pleated": 0.02}[form]
    cut = Cut(NECKS["crew"], hem, 0.03, slope, WAIST, wave=wave)
    fabric = figure.fabric(Kind.SKIRT)
    piece = figure.drawing.add(skirt(figure.body, cut, WAISTBAND - 0.06), fabric, index)
    if slope > 0:
        count = 12 if form == "pleated" else 7
        piece.folds += skirt_folds(figure.body, cut, WAISTBAND, count)
    _waistband(figure, piece, cut, fabric)
    if figure.chance(0.12):
        trims.add_patch_pocket(figure, piece, (0.34, 3.15), fabric)
    if figure.chance(0.10):
        trims.add_zipper(figure, piece, -0.15, 2.80, 3.4, width=0.12)
    describe(figure, index, fabric=fabric, hem=hem, opening=18, ease=0.03, form=form)
    return Worn(Kind.SKIRT, index, piece, fabric, cut)


def _waistband(figure: Figure, piece: Piece, cut: Cut, fabric: Fabric) -> None:
    line = hem_line(width_at(2.82, figure.body, cut) + 0.08, 2.80, 0.0)
    piece.marks.append(Mark(figure.body.torso(line), fabric.line_colour, width=0.02))


def draw_belt(figure: Figure, cut: Cut, y: float, buckle: bool) -> Worn:
    """A belt around a garment, with or without its buckle."""
    body = figure.body
    thickness = 0.21 if buckle else figure.between(0.16, 0.24)
    top = hem_line(width_at(y, body, cut) + 0.03, y - thickness / 2, 0.0)
    bottom = hem_line(width_at(y + 0.1, body, cut) + 0.03, y + thickness / 2, 0.0)
    fabric = figure.fabric(Kind.BELT)
    index = figure.drawing.add_object(Kind.BELT)
    outline = body.torso(np.concatenate([top, bottom[::-1]]))
    piece = figure.drawing.add(outline, fabric, index, edge=1.2)
    for line, drop in ((top, 0.04), (bottom, -0.04)):
        stitch = body.torso(moved(line, 0, drop))
        piece.marks.append(Mark(stitch, contrast(fabric.colour, 0.2), width=0.012))
    if buckle:
        frame = rounded_box((0.0, y + 0.055), 0.30, thickness * 0.98, radius=0.04)
        hole = rounded_box((0.0, y + 0.055), 0.16, thickness * 0.5, radius=0.02)
        part = figure.drawing.add_part(piece, Kind.BUCKLE, body.torso(frame), metal(figure.rng))
        part.marks.append(Mark(body.torso(hole), shade(fabric.colour, 0.8)))
    return Worn(Kind.BELT, index, piece, fabric, cut)


def draw_hosiery(figure: Figure, kind: Kind) -> None:
    """Tights (one object), or socks or leg warmers (one on each leg)."""
    fabric = figure.fabric(kind)
    body = figure.body
    if kind is Kind.TIGHTS:
        index = figure.drawing.add_object(kind)
        legs = tuple(leg.outline(0.0, 1.0, grow=0.012, round_stop=True) for leg in body.legs)
        figure.drawing.add(legs, fabric, index, edge=0.9, shadow=0.2)
        return
    start, grow = (figure.between(0.70, 0.80), 0.03) if kind is Kind.SOCK else (0.58, 0.09)
    for leg in body.legs:
        index = figure.drawing.add_object(kind)
        stop = 1.0 if kind is Kind.SOCK else 0.95
        piece = figure.drawing.add(leg.outline(start, stop, grow=grow), fabric, index, shadow=0.2)
        for t in (start + 0.03, start + 0.05):
            line = np.stack([leg.point(t, 1.5), leg.point(t, -1.5)])
            piece.marks.append(Mark(line, contrast(fabric.colour, 0.6), width=0.02))


_SOLES: dict[str, list[tuple[float, float]]] = {
    # outlines of a right shoe, ankle at the origin, toes to the right
    "sneaker": [(-0.17, -0.16), (0.14, -0.18), (0.20, 0.0), (0.42, 0.10), (0.52, 0.22),
                (0.50, 0.33), (-0.19, 0.33), (-0.22, 0.10)],
    "loafer": [(-0.17, -0.05), (0.12, -0.04), (0.22, 0.04), (0.44, 0.13), (0.54, 0.24),
               (0.52, 0.32), (-0.19, 0.32), (-0.22, 0.10)],
    "pump": [(-0.17, -0.06), (-0.05, 0.02), (0.14, 0.04), (0.30, 0.15), (0.52, 0.26),
             (0.54, 0.33), (0.26, 0.33), (0.02, 0.20), (-0.09, 0.16), (-0.11, 0.33),
             (-0.19, 0.33), (-0.21, 0.06)],
    "boot": [(-0.19, -0.16), (0.16, -0.16), (0.20, 0.02), (0.42, 0.11), (0.53, 0.22),
             (0.51, 0.33), (-0.20, 0.33), (-0.23, 0.10)],
}  # fmt: skip


def _on_foot(points: list[tuple[float, float]], ankle: Points, width: float) -> Points:
    return np.asarray(points) * (width, 1.0) + ankle


def draw_shoes(figure: Figure, style: str) -> list[Worn]:
    """A pair of shoes: two objects."""
    fabric = figure.fabric(Kind.SHOE)
    sole_tone = (246, 244, 238) if style == "sneaker" else shade(fabric.colour, 0.5)
    cut = Cut(NECKS["crew"], 0.0)
    worn = []
    for side, leg in enumerate(figure.body.legs):
        sign = (-1, 1)[side]
        place = functools.partial(_on_foot, ankle=leg.point(1.0), width=sign * 0.92)
        upper = spline(place(_SOLES[style]), closed=True, samples=3)
        if style == "boot":
            shaft = leg.outline(0.66, 1.0, grow=(0.07, 0.05))
            outlines: tuple[Points, ...] = (shaft, upper)
        else:
            outlines = (upper,)
        index = figure.drawing.add_object(Kind.SHOE)
        piece = figure.drawing.add(outlines, fabric, index, edge=1.2, shadow=0.25)
        if style != "pump":
            sole = place([(-0.3, 0.25), (0.6, 0.25), (0.6, 0.4), (-0.3, 0.4)])
            piece.marks.append(Mark(sole, sole_tone))
        if style == "sneaker":
            for x, y in ((0.10, -0.06), (0.17, 0.02), (0.25, 0.08)):
                lace = place([(x - 0.09, y + 0.03), (x + 0.05, y - 0.03)])
                piece.marks.append(Mark(lace, contrast(fabric.colour, 0.9), width=0.026))
        if style == "loafer":
            strap = spline(place([(0.10, 0.0), (0.20, 0.10), (0.22, 0.2)]))
            piece.marks.append(Mark(strap, contrast(fabric.colour, 0.4), width=0.035))
        if style == "boot":
            piece.folds.append(
                Fold(np.stack([leg.point(0.93, 1), leg.point(0.96, -1)]), 0.05, -0.3)
            )
        worn.append(Worn(Kind.SHOE, index, piece, replace(fabric, period=0.3), cut))
    return worn
