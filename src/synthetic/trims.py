"""Parts that belong to the cut of a garment: necklines, collars, lapels, sleeves, pockets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from src.synthetic.body import SHOULDER, Body
from src.synthetic.drawing import Fold, Mark, Piece
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure, metal
from src.synthetic.geometry import Points, ellipse, flip, moved, rounded_box, spline
from src.synthetic.kinds import Kind
from src.synthetic.palette import shade
from src.synthetic.tailoring import Neck

SLEEVE_STOPS = {
    "cap": 0.17,
    "short": 0.34,
    "elbow": 0.52,
    "puff": 0.34,
    "three-quarter": 0.78,
    "long": 1.0,
    "bell": 0.96,
}
"""Where each kind of sleeve ends on the arm: 0 is the shoulder, 1 the wrist."""


def add_neckline(figure: Figure, piece: Piece, neck: Neck, fabric: Fabric) -> None:
    """The band around a neck opening."""
    width = 0.13 - 0.035 * figure.difficulty
    outline = figure.body.torso(neck.band(width))
    figure.drawing.add_part(piece, Kind.NECKLINE, outline, figure.trim(fabric), edge=0.8)


def add_turtleneck(figure: Figure, garment: int, fabric: Fabric) -> None:
    """A tube of cloth up the neck."""
    neckline = figure.drawing.add_object(Kind.NECKLINE)
    half = [(0.22, 0.98), (0.235, 1.12), (0.33, 1.27), (0.18, 1.37), (0.0, 1.40)]
    side = spline(half, samples=4)
    outline = figure.body.torso(np.concatenate([side, flip(side)]))
    piece = figure.drawing.add(outline, figure.trim(fabric), garment, neckline)
    crease = figure.body.torso(spline([(-0.24, 1.13), (0.0, 1.19), (0.24, 1.13)]))
    piece.folds.append(Fold(crease, 0.05, -0.3))


def add_collar(figure: Figure, garment: int, fabric: Fabric, size: float = 1.0) -> None:
    """Two flaps of a shirt collar."""
    collar = figure.drawing.add_object(Kind.COLLAR)
    tip = 1.60 + 0.10 * (size - 1)
    flap = np.array(
        [(0.015, 1.36), (0.16, 1.06), (0.27, 1.11), (0.43 * size, 1.36), (0.27 * size, tip)]
    )
    body = figure.body
    cloth = figure.trim(fabric)
    figure.drawing.add((body.torso(flip(flap)), body.torso(flap)), cloth, garment, collar)


def add_stand_collar(figure: Figure, garment: int, fabric: Fabric) -> None:
    """A ribbed ring around the neck, as bomber jackets and parkas have."""
    collar = figure.drawing.add_object(Kind.COLLAR)
    half = [(0.07, 1.42), (0.19, 1.10), (0.30, 1.14), (0.40, 1.30), (0.28, 1.42), (0.10, 1.58)]
    side = spline(half, closed=True, samples=4)
    body = figure.body
    outlines = (body.torso(flip(side)), body.torso(side))
    figure.drawing.add(outlines, figure.trim(fabric), garment, collar)


def add_lapels(figure: Figure, pieces: tuple[Piece, ...], gap: float, fabric: Fabric) -> None:
    """Two turned-back fronts with a notch, on the piece (or pieces) of left and right."""
    outer = [(0.25, 1.22), (0.44, 1.34), (0.52, 1.58), (0.37, 1.66), (0.55, 1.76), (0.42, 2.1)]
    lapel = np.array([*outer, (gap + 0.02, 2.62), (gap + 0.005, 2.1), (gap + 0.06, 1.6)])
    cloth = figure.trim(fabric)
    for piece, outline in zip(pieces, (flip(lapel), lapel), strict=True):
        figure.drawing.add_part(piece, Kind.LAPEL, figure.body.torso(outline), cloth)


def add_coat_collar(figure: Figure, garment: int, fabric: Fabric) -> None:
    """The collar above a pair of lapels."""
    collar = figure.drawing.add_object(Kind.COLLAR)
    flap = np.array([(0.17, 1.05), (0.28, 1.09), (0.56, 1.40), (0.50, 1.62), (0.24, 1.38)])
    body = figure.body
    cloth = figure.trim(fabric)
    figure.drawing.add((body.torso(flip(flap)), body.torso(flap)), cloth, garment, collar)


def add_sleeve(
    figure: Figure, side: int, kind: str, garment: int, fabric: Fabric, ease: float = 0.05
) -> Piece:
    """Draw one sleeve over an arm."""
    arm = figure.body.arms[side]
    stop = SLEEVE_STOPS[kind]
    if kind == "puff":
        outline = _puff(figure.body, side, stop)
    else:
        spread = {"bell": 0.20, "cap": 0.07, "short": 0.06}.get(kind, 0.02)
        outline = arm.outline(0.0, stop, grow=(ease - 0.02, ease + spread), round_start=True)
    sleeve = figure.drawing.add_object(Kind.SLEEVE)
    piece = figure.drawing.add(outline, figure.turned(fabric, side), garment, sleeve, edge=1.2)
    if stop > 0.5:
        sign = (-1, 1)[side]
        for t, strength in ((0.44, -0.25), (0.53, -0.25), (0.49, 0.15), (0.70, -0.16)):
            if t < stop - 0.06:
                crease = np.stack([arm.point(t, 1.1 * sign), arm.point(t + 0.05, -0.3 * sign)])
                piece.folds.append(Fold(crease, 0.05, strength))
    cuff = arm.outline(max(stop - 0.075, 0.0), stop, grow=ease + 0.2)
    if kind in ("long", "short", "puff", "elbow", "three-quarter"):
        piece.marks.append(Mark(cuff, shade(fabric.colour, 0.82)))
        hem = np.stack([arm.point(stop - 0.075, 2.2), arm.point(stop - 0.075, -2.2)])
        piece.marks.append(Mark(hem, fabric.line_colour, width=0.02))
    return piece


def _puff(body: Body, side: int, stop: float) -> Points:
    arm = body.arms[side]
    t = np.linspace(0, stop, 9)
    swell = 0.05 + 0.17 * np.sin(np.pi * np.clip(t / stop, 0, 0.93))
    one = np.array([arm.point(a, 1 + b / 0.18) for a, b in zip(t, swell, strict=True)])
    other = np.array([arm.point(a, -1 - b / 0.18) for a, b in zip(t, swell, strict=True)])
    crown = arm.point(0.0) - (arm.point(0.1) - arm.point(0.0)) * 1.3
    return np.concatenate(
        [spline(np.stack([other[0], crown, one[0]]), samples=4), one[1:], other[:0:-1]]
    )


def add_patch_pocket(
    figure: Figure, piece: Piece, centre: tuple[float, float], fabric: Fabric, size: float = 1.0
) -> None:
    """A sewn-on pocket with a stitched edge, at a point of torso space."""
    width, height = 0.42 * size, 0.44 * size
    x, y = centre
    outline = [
        (x - width / 2, y - height / 2),
        (x + width / 2, y - height / 2),
        (x + width / 2, y + height * 0.32),
        (x, y + height / 2),
        (x - width / 2, y + height * 0.32),
    ]
    cloth = figure.trim(fabric)
    posed = figure.body.torso(outline)
    part = figure.drawing.add_part(piece, Kind.POCKET, posed, cloth)
    hem = [(x - width / 2, y - height * 0.28), (x + width / 2, y - height * 0.28)]
    part.marks.append(Mark(figure.body.torso(hem), cloth.line_colour, width=0.02))


def add_flap_pocket(
    figure: Figure, piece: Piece, centre: tuple[float, float], fabric: Fabric
) -> None:
    """The flap of a pocket of a jacket or coat, slightly slanted."""
    slant = 0.12 if centre[0] < 0 else -0.12
    outline = rounded_box(centre, 0.46, 0.22, radius=0.05, angle=slant)
    figure.drawing.add_part(
        piece, Kind.POCKET, figure.body.torso(outline), figure.trim(fabric), edge=1.2
    )


def add_hip_pockets(figure: Figure, piece: Piece, ease: float, top: float, fabric: Fabric) -> None:
    """The rounded front pockets of jeans and trousers, one at each hip."""
    body = figure.body
    cloth = figure.trim(fabric)
    for sign in (-1, 1):
        edge = [(sign * (body.half_width(y) + ease + 0.03), y) for y in (top + 0.46, top + 0.10)]
        knots = np.array([(0.25, top + 0.10), (0.28, top + 0.28), (0.42, top + 0.44)])
        curve = spline([*(knots * (sign, 1)), edge[0]], samples=4)
        outline = np.concatenate([curve, edge[1:]])
        part = figure.drawing.add_part(piece, Kind.POCKET, body.torso(outline), cloth)
        stitch = spline([*((moved(knots, 0.05, -0.03)) * (sign, 1)), edge[0]], samples=4)
        part.marks.append(Mark(body.torso(stitch), shade(cloth.colour, 0.7), width=0.014))


def add_zipper(
    figure: Figure, piece: Piece, x: float, top: float, bottom: float, width: float = 0.13
) -> None:
    """A straight zipper down the front, teeth on a tape."""
    outline = [(x - width / 2, top), (x + width / 2, top), (x + width / 2, bottom)]
    outline.append((x - width / 2, bottom))
    teeth = metal(figure.rng)
    tape = replace(teeth, colour=shade(teeth.colour, 0.92))
    part = figure.drawing.add_part(piece, Kind.ZIPPER, figure.body.torso(outline), tape, edge=0.9)
    for y in np.arange(top + 0.03, bottom, 0.075):
        tooth = figure.body.torso([(x - width * 0.22, y), (x + width * 0.22, y)])
        part.marks.append(Mark(tooth, shade(teeth.colour, 0.55), width=0.02))


def add_buttons(figure: Figure, piece: Piece, x: float, top: float, bottom: float) -> None:
    """Buttons down the front; nobody annotates them."""
    count = max(2, round((bottom - top) / 0.32))
    tone = piece.fabric.accent
    for y in np.linspace(top, bottom, count):
        dot = ellipse((x, float(y)), 0.04, 0.04, count=10)
        piece.marks.append(Mark(figure.body.torso(dot), tone))
        piece.marks.append(Mark(figure.body.torso(dot), piece.fabric.line_colour, 0.012, True))


def add_front_line(figure: Figure, piece: Piece, x: float, top: float, bottom: float) -> None:
    """The edge of a closed front."""
    line = figure.body.torso([(x, top), (x, bottom)])
    piece.marks.append(Mark(line, piece.fabric.line_colour, width=0.024))


def add_hood(figure: Figure, garment: int, fabric: Fabric) -> None:
    """A hood that lies around the neck, behind the head."""
    hood = figure.drawing.add_object(Kind.HOOD)
    half = [(0.0, 0.72), (0.36, 0.80), (0.58, 1.08), (0.60, 1.34), (0.36, 1.52), (0.0, 1.56)]
    side = spline(half, samples=5)
    outline = figure.body.torso(np.concatenate([side, flip(side)]))
    lining = replace(fabric, colour=shade(fabric.colour, 0.72), pattern="plain")
    piece = figure.drawing.add(outline, lining, garment, hood)
    for sign in (-1, 1):
        rim = spline([(sign * 0.2, 1.5), (sign * 0.44, 1.3), (sign * 0.40, 1.0)])
        piece.folds.append(Fold(figure.body.torso(rim), 0.09, 0.3))


def add_epaulettes(figure: Figure, pieces: tuple[Piece, ...], fabric: Fabric) -> None:
    """A strap with a button on each shoulder."""
    body = figure.body
    for sign, piece in zip((-1, 1), pieces, strict=True):
        edge = body.shape.shoulder + 0.05
        strap = np.array(
            [(0.36, 1.24), (edge, SHOULDER - 0.04), (edge, SHOULDER + 0.15), (0.40, 1.47)]
        )
        strap = strap * (sign, 1)
        part = figure.drawing.add_part(
            piece, Kind.EPAULETTE, body.torso(strap), figure.trim(fabric), edge=1.1
        )
        button = ellipse((sign * 0.46, 1.37), 0.035, 0.035, count=10)
        part.marks.append(Mark(body.torso(button), (232, 200, 110)))
