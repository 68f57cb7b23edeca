"""Garments worn over others: jackets, coats, cardigans, vests, capes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from src.synthetic import trims
from src.synthetic.attributes import describe
from src.synthetic.drawing import Fold, Mark, Piece
from src.synthetic.fabrics import Fabric
from src.synthetic.figure import Figure
from src.synthetic.geometry import flip, spline
from src.synthetic.kinds import Kind
from src.synthetic.palette import shade
from src.synthetic.tailoring import (
    NECKS,
    Cut,
    Neck,
    shell,
    skirt_folds,
    torso_folds,
    width_at,
)
from src.synthetic.upper import Worn, leg_height, rib_band

_BLAZER_NECK = Neck("blazer", 0.27, 1.30, "v")


@dataclass(frozen=True, slots=True)
class OuterStyle:
    """Style of an outer garment, chosen before it is drawn."""

    kind: Kind
    front: str
    """``blazer`` (lapels), ``zip``, ``denim`` (buttons and a shirt collar), ``open``, ``cape``."""
    closed: bool
    hood: bool = False


def choose_outer(figure: Figure, kind: Kind) -> OuterStyle:
    """Decide on front, closure and hood of an outer garment."""
    if kind is Kind.CAPE:
        return OuterStyle(kind, "cape", closed=False)
    if kind in (Kind.CARDIGAN, Kind.VEST):
        return OuterStyle(kind, "open", closed=kind is Kind.CARDIGAN and figure.chance(0.3))
    shares = [3.0, 4.0, 3.0] if kind is Kind.JACKET else [4.4, 2.4, 2.4]
    front = figure.pick(["blazer", "zip", "denim"], shares)
    hood = front == "zip" and figure.chance(0.24)
    return OuterStyle(kind, front, closed=figure.chance(0.30), hood=hood)


def draw_outer(figure: Figure, index: int, style: OuterStyle) -> Worn:
    """Draw the body of an outer garment; its sleeves follow with the arms."""
    if style.kind is Kind.CAPE:
        return _draw_cape(figure, index)
    kind = style.kind
    fabric = figure.fabric(kind)
    if style.front == "denim" and kind is Kind.JACKET and figure.chance(0.6):
        fabric = replace(fabric, pattern="denim", period=0.7)
    hem = {
        Kind.JACKET: figure.between(2.95, 3.45),
        Kind.CARDIGAN: figure.between(3.3, 3.7),
        Kind.VEST: figure.between(2.9, 3.3),
        Kind.COAT: leg_height(figure, figure.between(0.30, 0.62)),
    }[kind]
    gap = 0.0 if style.closed else figure.between(0.15, 0.26)
    if style.front == "blazer":
        neck = _BLAZER_NECK if style.closed else NECKS["crew"]
    else:
        neck = NECKS["v"] if kind in (Kind.CARDIGAN, Kind.VEST) else NECKS["crew"]
    flare = 0.10 if kind is Kind.COAT else 0.0
    cut = Cut(neck, hem, figure.between(0.12, 0.17), flare, sleeveless=kind is Kind.VEST, gap=gap)
    piece = figure.drawing.add(shell(figure.body, cut), fabric, index, shadow=0.4)
    piece.folds += torso_folds(figure.body, figure.rng, hem)
    if kind is Kind.COAT:
        piece.folds += skirt_folds(figure.body, cut, 2.7, 4)
    _draw_front(figure, piece, cut, style, fabric)
    if kind is Kind.CARDIGAN:
        rib_band(figure, piece, cut, fabric)
    if style.front == "blazer":
        if figure.chance(0.83):
            trims.add_lapels(figure, (piece, piece), 0.0 if style.closed else gap, fabric)
        if figure.chance(0.6):
            trims.add_coat_collar(figure, index, fabric)
    elif style.front == "denim":
        trims.add_collar(figure, index, fabric, size=1.12)
    elif style.front == "zip" and not style.hood and figure.chance(0.5):
        trims.add_stand_collar(figure, index, fabric)
    _draw_pockets(figure, piece, cut, style, fabric)
    opening = 14 if style.front == "zip" else 10
    describe(figure, index, fabric=fabric, hem=hem, opening=opening, ease=cut.ease)
    sleeve = "none" if kind is Kind.VEST else "long"
    return Worn(kind, index, piece, fabric, cut, sleeve)


def _draw_front(figure: Figure, piece: Piece, cut: Cut, style: OuterStyle, fabric: Fabric) -> None:
    top = cut.neck.top + cut.neck.depth
    if style.front == "zip":
        if style.closed:
            trims.add_zipper(figure, piece, 0.0, top, cut.hem + 0.1, width=0.14)
        else:
            trims.add_zipper(figure, piece, cut.gap + 0.06, top, cut.hem + 0.1, width=0.14)
        return
    if style.closed:
        trims.add_front_line(figure, piece, -0.10, top, cut.hem + 0.1)
        trims.add_buttons(figure, piece, 0.0, top + 0.12, min(cut.hem, 3.2) - 0.08)
    elif style.front != "blazer" or figure.chance(0.7):
        trims.add_buttons(figure, piece, cut.gap + 0.10, max(top, 2.3), min(cut.hem, 3.3) - 0.1)
    if style.kind is Kind.CARDIGAN or style.kind is Kind.VEST:
        width = 0.10
        edge = np.array([(cut.neck.half_width, 1.24), (cut.gap, 2.1), (cut.gap, cut.hem + 0.1)])
        tone = shade(fabric.colour, 0.80)
        for sign in (-1, 1):
            line = figure.body.torso(edge * (sign, 1))
            piece.marks.append(Mark(line, tone, width=2 * width))


def _draw_pockets(
    figure: Figure, piece: Piece, cut: Cut, style: OuterStyle, fabric: Fabric
) -> None:
    if style.kind is Kind.VEST or figure.chance(0.42):
        return
    x = (width_at(2.85, figure.body, cut) + cut.gap) / 2
    if style.front == "denim":
        for sign in (-1, 1):
            trims.add_patch_pocket(figure, piece, (sign * 0.42, 2.08), fabric, size=0.85)
    elif style.kind is Kind.CARDIGAN:
        for sign in (-1, 1):
            trims.add_patch_pocket(figure, piece, (sign * x, 3.0), fabric, size=0.95)
    else:
        for sign in (-1, 1):
            low = min(2.85, cut.hem - 0.28) if style.kind is Kind.JACKET else 3.0
            trims.add_flap_pocket(figure, piece, (sign * x, low), fabric)
    if style.front == "zip" and figure.chance(0.25):
        trims.add_zipper(figure, piece, -0.45, 1.75, 2.15, width=0.11)


def _draw_cape(figure: Figure, index: int) -> Worn:
    fabric = figure.fabric(Kind.CAPE)
    hem = figure.between(3.2, 3.8)
    half = [(0.10, 1.22), (0.40, 1.26), (0.92, 1.50), (1.16, 2.3), (1.34, hem)]
    side = spline(half, samples=4)
    bottom = spline([(1.34, hem), (0.8, hem + 0.10), (0.20, hem + 0.04)], samples=4)
    inner = spline([(0.20, hem), (0.10, 2.2), (0.06, 1.4), (0.10, 1.22)], samples=4)
    right = np.concatenate([side, bottom, inner])
    body = figure.body
    piece = figure.drawing.add((body.torso(flip(right)), body.torso(right)), fabric, index)
    cut = Cut(NECKS["crew"], hem, ease=0.4, gap=0.1)
    for sign in (-1, 1):
        for x in (0.35, 0.6, 0.9):
            fall = np.array([(x * 0.5, 1.5), (x * 0.9, 2.3), (x * 1.2, hem)]) * (sign, 1)
            piece.folds.append(Fold(body.torso(spline(fall)), 0.08, -0.24 if x != 0.6 else 0.15))
    trims.add_collar(figure, index, fabric, size=1.05)
    describe(figure, index, fabric=fabric, hem=hem, opening=18, ease=0.4)
    return Worn(Kind.CAPE, index, piece, fabric, cut)
