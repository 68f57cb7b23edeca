"""Decorations sewn on garments: beads, appliques, bows, flowers, fringe, ruffles, rivets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from src.synthetic.drawing import Mark, Part
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure, metal
from src.synthetic.geometry import Points, ellipse, rounded_box, star
from src.synthetic.kinds import Kind
from src.synthetic.palette import CLOTH, Colour, contrast, distance, shade
from src.synthetic.tailoring import hem_line, width_at
from src.synthetic.upper import Worn

Spot = tuple[float, float]
"""A place in torso space, head heights."""


def _bright(figure: Figure, against: Colour) -> Fabric:
    names = ("red", "lemon", "coral", "ivory", "turquoise", "fuchsia", "mustard", "white", "navy")
    tones = [CLOTH[name] for name in names]
    start = int(figure.rng.integers(len(tones)))
    for step in range(len(tones)):
        tone = tones[(start + step) % len(tones)]
        if distance(tone, against) > 150:
            break
    return Fabric(tone, relief=1.2)


def _part(figure: Figure, worn: Worn, kind: Kind, outline: Points, fabric: Fabric) -> Part:
    return figure.drawing.add_part(worn.piece, kind, figure.body.torso(outline), fabric)


def add_bead(figure: Figure, worn: Worn, spot: Spot) -> None:
    """An oval patch of beads."""
    pearl = Fabric((250, 244, 232) if figure.chance(0.6) else (232, 196, 110))
    outline = ellipse(spot, 0.15, 0.12, count=18)
    part = _part(figure, worn, Kind.BEAD, outline, replace(pearl, colour=shade(pearl.colour, 0.8)))
    for ring, count in ((0.0, 1), (0.066, 6), (0.125, 11)):
        for turn in np.arange(count) / count * 2 * math.pi:
            at = (spot[0] + ring * math.cos(turn), spot[1] + 0.8 * ring * math.sin(turn))
            bead = ellipse(at, 0.026, 0.026, count=8)
            part.marks.append(Mark(figure.body.torso(bead), pearl.colour))


def add_applique(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A sewn-on star, heart or round badge."""
    fabric = _bright(figure, worn.fabric.colour)
    form = figure.pick(["star", "heart", "badge"])
    if form == "star":
        outline = star(spot, 0.25, 0.11)
    elif form == "heart":
        heart = [(0.0, 0.24), (-0.23, 0.0), (-0.19, -0.17), (-0.06, -0.17), (0.0, -0.08)]
        heart += [(0.06, -0.17), (0.19, -0.17), (0.23, 0.0)]
        outline = np.array(heart) + spot
    else:
        outline = star(spot, 0.22, 0.19, tips=10)
    part = _part(figure, worn, Kind.APPLIQUE, outline, fabric)
    inner = (outline - outline.mean(axis=0)) * 0.55 + outline.mean(axis=0)
    part.marks.append(Mark(figure.body.torso(inner), contrast(fabric.colour, 0.3)))


def add_flower(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A rosette of cloth."""
    fabric = _bright(figure, worn.fabric.colour)
    turn = np.linspace(0, 2 * math.pi, 50, endpoint=False)
    radius = 0.19 + 0.045 * np.cos(6 * turn)
    outline = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1) + spot
    part = _part(figure, worn, Kind.FLOWER, outline, fabric)
    for size in (0.12, 0.07):
        ring = ellipse(spot, size, size, count=16)
        part.marks.append(Mark(figure.body.torso(ring), fabric.line_colour, 0.018, closed=True))
    part.marks.append(Mark(figure.body.torso(ellipse(spot, 0.05, 0.05)), (248, 214, 110)))


def add_bow(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A bow with two loops and two short ends."""
    fabric = _bright(figure, worn.fabric.colour)
    bow = [(0.0, -0.05), (0.26, -0.20), (0.32, 0.0), (0.24, 0.14), (0.07, 0.06), (0.18, 0.34)]
    half = np.array([*bow, (0.05, 0.32), (0.0, 0.12)])
    outline = np.concatenate([half, half[::-1] * (-1, 1)]) + spot
    part = _part(figure, worn, Kind.BOW, outline, fabric)
    knot = rounded_box(spot, 0.11, 0.14, radius=0.03)
    part.marks.append(Mark(figure.body.torso(knot), shade(fabric.colour, 0.75)))


def add_rivet(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A metal stud."""
    fabric = metal(figure.rng)
    part = _part(figure, worn, Kind.RIVET, ellipse(spot, 0.085, 0.085, count=14), fabric)
    glint = ellipse((spot[0] - 0.025, spot[1] - 0.025), 0.03, 0.03, count=8)
    part.marks.append(Mark(figure.body.torso(glint), (255, 252, 244)))


def add_tassel(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A hanging tassel."""
    fabric = _bright(figure, worn.fabric.colour)
    form = np.array([(-0.05, -0.16), (0.05, -0.16), (0.06, -0.05), (0.13, 0.26), (-0.13, 0.26)])
    form = np.concatenate([form, [(-0.06, -0.05)]])
    part = _part(figure, worn, Kind.TASSEL, form + spot, fabric)
    for x in (-0.06, 0.0, 0.06):
        thread = np.array([(x * 0.4, -0.02), (x, 0.25)]) + spot
        part.marks.append(Mark(figure.body.torso(thread), fabric.line_colour, width=0.014))


def add_sequin(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A panel of sequins across the chest."""
    tone: Colour = (232, 196, 120) if figure.chance(0.5) else (196, 206, 222)
    fabric = Fabric(tone, "glitter", period=0.6, seed=int(figure.rng.integers(1 << 30)))
    outline = rounded_box((spot[0], spot[1]), 0.86, 0.52, radius=0.2)
    _part(figure, worn, Kind.SEQUIN, outline, fabric)


def _strip(figure: Figure, worn: Worn, top: float, height: float, wave: float) -> Points:
    half = width_at(top, figure.body, worn.cut) - 0.02
    upper = hem_line(half, top, 0.0)
    lower = hem_line(half + 0.02, top + height, 0.0)
    teeth = np.linspace(0, 1, 49)
    lower = np.stack([np.interp(teeth, np.linspace(0, 1, 25), lower[:, i]) for i in (0, 1)], axis=1)
    lower[:, 1] += wave * np.sin(teeth * 36)
    return np.concatenate([upper, lower[::-1]])


def add_ruffle(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A gathered strip around the garment."""
    fabric = figure.trim(worn.fabric)
    part = _part(figure, worn, Kind.RUFFLE, _strip(figure, worn, spot[1], 0.26, 0.035), fabric)
    half = width_at(spot[1], figure.body, worn.cut)
    for x in np.linspace(-half, half, 15):
        pleat = [(float(x), spot[1] + 0.04), (float(x) * 1.02, spot[1] + 0.27)]
        part.marks.append(Mark(figure.body.torso(pleat), fabric.line_colour, width=0.018))


def add_fringe(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A strip of hanging threads."""
    fabric = figure.trim(worn.fabric)
    part = _part(figure, worn, Kind.FRINGE, _strip(figure, worn, spot[1], 0.34, 0.05), fabric)
    half = width_at(spot[1], figure.body, worn.cut)
    for x in np.linspace(-half, half, 29):
        thread = [(float(x), spot[1] + 0.08), (float(x), spot[1] + 0.4)]
        part.marks.append(Mark(figure.body.torso(thread), fabric.line_colour, width=0.016))


def add_ribbon(figure: Figure, worn: Worn, spot: Spot) -> None:
    """A ribbon around the garment, with hanging ends."""
    fabric = _bright(figure, worn.fabric.colour)
    band = _strip(figure, worn, spot[1], 0.15, 0.0)
    part = _part(figure, worn, Kind.RIBBON, band, fabric)
    line = hem_line(width_at(spot[1], figure.body, worn.cut), spot[1] + 0.075, 0.0)
    part.marks.append(Mark(figure.body.torso(line), contrast(fabric.colour, 0.3), width=0.018))


DECORATIONS: dict[Kind, Callable[[Figure, Worn, Spot], None]] = {
    Kind.BEAD: add_bead,
    Kind.APPLIQUE: add_applique,
    Kind.FLOWER: add_flower,
    Kind.BOW: add_bow,
    Kind.RIVET: add_rivet,
    Kind.TASSEL: add_tassel,
    Kind.SEQUIN: add_sequin,
    Kind.RUFFLE: add_ruffle,
    Kind.FRINGE: add_fringe,
    Kind.RIBBON: add_ribbon,
}
"""How each decoration is drawn on a garment at a spot of torso space."""
