"""Headwear: glasses, hats, headbands and hair accessories."""

from __future__ import annotations

import math

import numpy as np

from src.synthetic.drawing import Fold, Mark
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure
from src.synthetic.geometry import ellipse, flip, moved, rounded_box, spline
from src.synthetic.kinds import Kind
from src.synthetic.palette import contrast, shade
from src.synthetic.tailoring import NECKS, Cut
from src.synthetic.upper import Worn

_NO_CUT = Cut(NECKS["crew"], 0.0)


def draw_glasses(figure: Figure) -> None:
    """Sunglasses: two lenses, bridge and temples."""
    fabric = figure.fabric(Kind.GLASSES)
    turn = 0.10 * figure.body.pose.turn
    index = figure.drawing.add_object(Kind.GLASSES)
    form = figure.pick(["round", "square", "cat"])
    lenses = []
    for sign in (-1, 1):
        centre = (sign * 0.185 + turn, 0.545)
        if form == "round":
            lenses.append(ellipse(centre, 0.165, 0.155))
        elif form == "square":
            lenses.append(rounded_box(centre, 0.33, 0.25, radius=0.06))
        else:
            cat = np.array(
                [(-0.15, -0.09), (0.19, -0.16), (0.15, 0.10), (0.0, 0.14), (-0.13, 0.09)]
            )
            lenses.append(spline(cat * (sign, 1), closed=True, samples=4) + centre)
    bridge = rounded_box((turn, 0.52), 0.16, 0.06, radius=0.02)
    temples = [
        rounded_box((s * 0.36 + turn * 0.5, 0.51), 0.09, 0.055, radius=0.02) for s in (-1, 1)
    ]
    body = figure.body
    outlines = tuple(body.head(shape) for shape in (*lenses, bridge, *temples))
    piece = figure.drawing.add(outlines, fabric, index, edge=1.3, shadow=0.2)
    tint = figure.pick(["dark", "amber", "blue"])
    glass = {"dark": (58, 58, 70), "amber": (150, 92, 48), "blue": (66, 96, 138)}[tint]
    for lens in lenses:
        inner = (lens - lens.mean(axis=0)) * 0.74 + lens.mean(axis=0)
        piece.marks.append(Mark(body.head(inner), glass))
        glint = lens.mean(axis=0) + np.array([(-0.07, 0.03), (0.02, -0.07)])
        piece.marks.append(Mark(body.head(glint), (214, 222, 232), width=0.03))


def draw_hat(figure: Figure, style: str, fabric: Fabric, index: int) -> Worn:
    """A beanie, a cap, a hat with a brim or a bucket hat."""
    body, turn = figure.body, figure.body.pose.turn
    band = contrast(fabric.colour, 0.5)
    if style == "beanie":
        half = [(0.0, -0.30), (0.26, -0.22), (0.43, 0.06), (0.45, 0.28), (0.0, 0.34)]
    elif style == "cap":
        half = [(0.0, -0.18), (0.28, -0.11), (0.43, 0.08), (0.44, 0.25), (0.0, 0.27)]
    else:
        half = [(0.0, -0.30), (0.30, -0.30), (0.39, -0.14), (0.42, 0.14), (0.0, 0.20)]
    side = spline(half, samples=5)
    crown = np.concatenate([side, flip(side)])
    outlines = [body.head(crown)]
    if style == "cap":
        reach = 0.16 * turn
        visor = spline(
            [(-0.42, 0.22), (0.0, 0.16), (0.42, 0.22), (0.40 + reach, 0.36), (reach, 0.44),
             (-0.40 + reach, 0.36)], closed=True, samples=5,
        )  # fmt: skip
        outlines.append(body.head(visor))
    elif style == "brim":
        arc = ellipse((0.0, 0.14), 0.80, 0.22, start=0, stop=math.pi, count=20)
        back = ellipse((0.0, 0.14), 0.80, 0.05, start=math.pi, stop=2 * math.pi, count=20)
        outlines.append(body.head(np.concatenate([arc, back])))
    elif style == "bucket":
        edge = [(-0.40, 0.10), (0.40, 0.10), (0.60, 0.38), (0.0, 0.44), (-0.60, 0.38)]
        outlines.append(body.head(spline(edge, closed=True, samples=4)))
    piece = figure.drawing.add(tuple(outlines), fabric, index, shadow=0.35)
    if style == "beanie":
        for x in np.linspace(-0.38, 0.38, 9):
            rib = [(x * 0.95, 0.10), (x, 0.36)]
            piece.marks.append(Mark(body.head(rib), fabric.line_colour, width=0.016))
        fold = ellipse((0.0, 0.02), 0.46, 0.10, start=0, stop=math.pi, count=12)
        piece.marks.append(Mark(body.head(fold), fabric.line_colour, width=0.022))
    elif style in ("brim", "bucket"):
        strip = [(-0.43, 0.0), (0.0, 0.06), (0.43, 0.0), (0.43, 0.12), (0.0, 0.17), (-0.43, 0.12)]
        piece.marks.append(Mark(body.head(spline(strip, closed=True, samples=4)), band))
    else:
        for x in (-0.16, 0.16):
            panel = spline([(0.0, -0.18), (x, -0.02), (x * 1.3, 0.2)])
            piece.marks.append(Mark(body.head(panel), fabric.line_colour, width=0.016))
    piece.folds.append(Fold(body.head(spline([(-0.2, -0.2), (-0.3, 0.0), (-0.3, 0.15)])), 0.1, 0.2))
    return Worn(Kind.HAT, index, piece, fabric, _NO_CUT)


def draw_headband(figure: Figure) -> None:
    """A headband, a kerchief, a hair bow or a crown of flowers."""
    fabric = figure.fabric(Kind.HEADBAND)
    index = figure.drawing.add_object(Kind.HEADBAND)
    body = figure.body
    style = figure.pick(["band", "kerchief", "bow", "flowers"], [4, 1.5, 1.5, 1.5])
    arc = [(-0.43, 0.32), (-0.33, 0.06), (0.0, -0.04), (0.33, 0.06), (0.43, 0.32)]
    low = [(0.40, 0.36), (0.29, 0.20), (0.0, 0.13), (-0.29, 0.20), (-0.40, 0.36)]
    strip = np.concatenate([spline(arc, samples=5), spline(low, samples=5)])
    if style == "band":
        figure.drawing.add(body.head(strip), fabric, index, shadow=0.2)
        return
    if style == "kerchief":
        top = [(-0.44, 0.34), (-0.40, 0.08), (0.0, -0.16), (0.40, 0.08), (0.44, 0.34)]
        scarf = np.concatenate([spline(top, samples=5), spline(low, samples=5)])
        figure.drawing.add(body.head(scarf), fabric, index, shadow=0.2)
        return
    if style == "bow":
        x = 0.24 if figure.looks.parting > 0 else -0.24
        loop = np.array([(0.0, 0.0), (0.20, -0.17), (0.30, -0.02), (0.22, 0.16)])
        loops = [
            moved(spline(loop * (sign, 1), closed=True, samples=4), x, 0.0) for sign in (-1, 1)
        ]
        knot = ellipse((x, 0.0), 0.075, 0.085)
        outlines = tuple(body.head(shape) for shape in (*loops, knot))
        figure.drawing.add(outlines, fabric, index, shadow=0.25)
        return
    flowers = []
    for turn in np.linspace(-1.25, 1.25, 7):
        flowers.append(ellipse((0.40 * math.sin(turn), 0.42 - 0.40 * math.cos(turn)), 0.105, 0.10))
    outlines = tuple(body.head(shape) for shape in (strip, *flowers))
    piece = figure.drawing.add(outlines, fabric, index, shadow=0.25)
    for number, flower in enumerate(flowers):
        heart = flower.mean(axis=0) + (flower - flower.mean(axis=0)) * 0.4
        tone = (250, 224, 120) if number % 2 else shade(fabric.colour, 0.6)
        piece.marks.append(Mark(body.head(heart), tone))
