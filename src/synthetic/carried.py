"""Accessories that are carried, or tied around neck, wrist and hands."""

from __future__ import annotations

import itertools

import numpy as np

from src.synthetic.drawing import Fold, Mark
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure, metal
from src.synthetic.geometry import (
    Limb,
    Points,
    ellipse,
    flip,
    moved,
    rounded_box,
    spline,
)
from src.synthetic.kinds import Kind
from src.synthetic.palette import contrast, shade
from src.synthetic.person import hand_outline
from src.synthetic.tailoring import NECKS, Cut
from src.synthetic.upper import Worn

_NO_CUT = Cut(NECKS["crew"], 0.0)


def _ring(points: Points, width: float) -> Points:
    return Limb(points, [width / 2] * len(points), samples=5).outline()


def draw_bag(figure: Figure, style: str, side: int) -> Worn:
    """A tote or handbag hanging from a hand, or a bag on a strap across the body."""
    body, sign = figure.body, (-1, 1)[side]
    fabric = figure.fabric(Kind.BAG)
    index = figure.drawing.add_object(Kind.BAG)
    if style == "cross":
        at = body.torso([(sign * (body.half_width(3.2) - 0.02), 3.28)])[0]
        start = body.torso([(-sign * 0.48, 1.32)])[0]
        middle = body.torso([(sign * 0.05, 2.2)])[0]
        straps = [_ring(np.stack([start, middle, moved(at, -sign * 0.2, -0.2)]), 0.075)]
        width, height = 0.82, 0.62
    else:
        hand = moved(body.arms[side].point(1.0), 0.0, 0.20)
        width, height = (0.98, 0.98) if style == "tote" else (0.92, 0.62)
        drop = 0.34 if style == "tote" else 0.24
        at = moved(hand, sign * 0.06, drop + height / 2)
        loop = np.array([(-0.26, drop), (-0.19, 0.06), (0.0, -0.05), (0.19, 0.06), (0.26, drop)])
        straps = [_ring(moved(loop + hand, sign * 0.06, 0.02), 0.075)]
    if style == "tote":
        shape = np.array([(-0.5, -0.5), (0.5, -0.5), (0.44, 0.5), (-0.44, 0.5)]) * (width, height)
    elif style == "hand":
        form = [(-0.36, -0.5), (0.36, -0.5), (0.52, 0.3), (0.42, 0.5), (-0.42, 0.5), (-0.52, 0.3)]
        shape = spline(np.array(form) * (width, height), closed=True, samples=4)
    else:
        shape = rounded_box((0, 0), width, height, radius=0.14)
    piece = figure.drawing.add((*straps, shape + at), fabric, index, edge=1.2, shadow=0.35)
    ink, bright = fabric.line_colour, contrast(fabric.colour, 0.4)
    if style == "tote":
        piece.marks.append(Mark(at + np.array([(-0.49, -0.27), (0.48, -0.27)]), bright, 0.03))
        piece.marks.append(Mark(ellipse(moved(at, 0, 0.08), 0.16, 0.16), bright))
    else:
        flap = [(-0.5, -0.5), (0.5, -0.5), (0.44, -0.02), (0.0, 0.14), (-0.44, -0.02)]
        outline = np.array(flap) * (width, height) + at
        piece.marks.append(Mark(outline, shade(fabric.colour, 0.88)))
        piece.marks.append(Mark(outline, ink, 0.026, closed=True))
        piece.marks.append(Mark(ellipse(moved(at, 0, 0.06), 0.06, 0.06, count=12), (230, 198, 104)))
    return Worn(Kind.BAG, index, piece, fabric, _NO_CUT)


def draw_umbrella(figure: Figure, side: int) -> None:
    """An open umbrella held above the head, behind the figure."""
    fabric = figure.fabric(Kind.UMBRELLA)
    index = figure.drawing.add_object(Kind.UMBRELLA)
    hand = figure.body.arms[side].point(1.0)
    x, top = float(hand[0]) * 0.75, -0.95
    rim = [(1.55, 0.0), (0.93, -0.10), (0.31, -0.14), (-0.31, -0.14), (-0.93, -0.10), (-1.55, 0.0)]
    scallops = []
    for (x0, y0), (x1, y1) in itertools.pairwise(rim):
        scallops += [(x0, y0), ((x0 + x1) / 2, (y0 + y1) / 2 - 0.09)]
    dome = ellipse((0.0, 0.0), 1.55, 0.86, start=np.pi, stop=2 * np.pi, count=28)
    canopy = moved(np.concatenate([dome, scallops]), x, top + 0.95)
    pole = np.stack([hand, (x, top + 0.4)])
    shaft = Limb(np.stack([pole[0], pole.mean(axis=0), pole[1]]), [0.03] * 3).outline()
    piece = figure.drawing.add((canopy, shaft), fabric, index, edge=1.2, shadow=0.15)
    for tip in (-0.93, -0.31, 0.31, 0.93):
        rib = [(x + tip * 0.1, top + 0.12), (x + tip * 0.8, top + 0.42), (x + tip, top + 0.84)]
        piece.marks.append(Mark(spline(rib), fabric.line_colour, width=0.018))


def draw_scarf(figure: Figure) -> Worn:
    """A scarf wound around the neck, with a hanging end."""
    fabric = figure.fabric(Kind.SCARF)
    index = figure.drawing.add_object(Kind.SCARF)
    body, sign = figure.body, 1 if figure.chance(0.5) else -1
    tail = np.array(
        [(0.02, 1.45), (0.34, 1.42), (0.44, 2.1), (0.40, 2.62), (0.06, 2.62), (0.08, 2.0)]
    )
    roll = [(0.0, 1.00), (0.30, 1.02), (0.46, 1.22), (0.34, 1.50), (0.0, 1.62)]
    side = spline(roll, samples=4)
    outlines = (
        body.torso(tail * (sign, 1)),
        body.torso(np.concatenate([side, flip(side)])),
    )
    piece = figure.drawing.add(outlines, fabric, index, shadow=0.4)
    for y in (1.18, 1.34):
        crease = [(-0.40, y - 0.06), (0.0, y + 0.06), (0.40, y - 0.06)]
        piece.folds.append(Fold(body.torso(spline(crease)), 0.06, -0.35))
    for x in np.linspace(0.09, 0.38, 6):
        end = body.torso([(sign * x, 2.50), (sign * x, 2.66)])
        piece.marks.append(Mark(end, fabric.line_colour, width=0.018))
    return Worn(Kind.SCARF, index, piece, fabric, _NO_CUT)


def draw_tie(figure: Figure) -> None:
    """A necktie down the front of a shirt."""
    fabric = figure.fabric(Kind.TIE, angle=0.7)
    index = figure.drawing.add_object(Kind.TIE)
    body = figure.body
    knot = body.torso([(-0.12, 1.34), (0.12, 1.34), (0.075, 1.55), (-0.075, 1.55)])
    blade = body.torso([(-0.07, 1.55), (0.07, 1.55), (0.17, 2.52), (0.0, 2.72), (-0.17, 2.52)])
    figure.drawing.add((blade, knot), fabric, index, edge=1.2)


def draw_watch(figure: Figure, side: int) -> None:
    """A wrist watch with a round face."""
    fabric = figure.fabric(Kind.WATCH)
    index = figure.drawing.add_object(Kind.WATCH)
    arm = figure.body.arms[side]
    band = arm.outline(0.86, 0.98, grow=0.04)
    face = ellipse(arm.point(0.92), 0.13, 0.13)
    piece = figure.drawing.add((band, face), fabric, index, edge=1.0, shadow=0.2)
    piece.marks.append(Mark(ellipse(arm.point(0.92), 0.10, 0.10), metal(figure.rng).colour))
    piece.marks.append(Mark(ellipse(arm.point(0.92), 0.075, 0.075), (246, 246, 242)))
    hand = np.stack([arm.point(0.92), moved(arm.point(0.92), 0.04, -0.04)])
    piece.marks.append(Mark(hand, (40, 40, 46), width=0.02))


def draw_glove(figure: Figure, side: int, fabric: Fabric) -> Worn:
    """A glove up to the middle of the forearm."""
    index = figure.drawing.add_object(Kind.GLOVE)
    arm = figure.body.arms[side]
    cuff = arm.outline(0.76, 1.02, grow=(0.075, 0.04))
    outlines = (cuff, hand_outline(figure.body, side, grow=0.15))
    piece = figure.drawing.add(outlines, fabric, index, edge=1.1)
    line = np.stack([arm.point(0.82, 1.8), arm.point(0.82, -1.8)])
    piece.marks.append(Mark(line, contrast(fabric.colour, 0.4), width=0.03))
    return Worn(Kind.GLOVE, index, piece, fabric, _NO_CUT)
