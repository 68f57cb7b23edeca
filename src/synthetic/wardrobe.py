"""Draws one dressed figure: who is in front of what, from the back hair to the hat."""

from __future__ import annotations

import numpy as np

from src.synthetic import carried, headwear, lower, outer, person, trims, upper
from src.synthetic.body import WAIST, Body, random_pose, random_shape
from src.synthetic.decorations import DECORATIONS
from src.synthetic.drawing import Drawing
from src.synthetic.figure import Figure
from src.synthetic.kinds import Kind
from src.synthetic.outfit import Outfit
from src.synthetic.upper import Worn


def draw_figure(rng: np.random.Generator, outfit: Outfit, difficulty: float) -> Figure:
    """Dress and pose one figure.

    Args:
        rng: Source of randomness.
        outfit: What it wears.
        difficulty: 0 to 1, see ``image.draw_image``.
    """
    extras = outfit.extras
    bag = _choose_bag(rng, outfit)
    side = int(rng.integers(2))
    arms: list[str | None] = [None, None]
    if bag in ("tote", "hand"):
        arms[side] = "down" if rng.random() < 0.6 else "loose"
    if Kind.UMBRELLA in extras:
        arms[1 - side] = "umbrella"
    body = Body(random_shape(rng, difficulty), random_pose(rng, difficulty, (arms[0], arms[1])))
    figure = Figure(Drawing(), body, person.random_looks(rng), rng, difficulty)
    if Kind.UMBRELLA in extras:
        carried.draw_umbrella(figure, 1 - side)
    main_index = figure.drawing.add_object(outfit.main)
    outer_style = outer.choose_outer(figure, outfit.outer) if outfit.outer is not None else None
    outer_index = figure.drawing.add_object(outfit.outer) if outfit.outer is not None else -1
    hooded = outfit.main is Kind.TOP and outfit.outer is None and figure.chance(0.035)

    person.draw_back_hair(figure.drawing, body, figure.looks)
    behind_neck = len(figure.drawing.pieces)
    _draw_legs(figure, outfit)
    person.draw_torso(figure.drawing, body, figure.looks)
    main = _draw_main(figure, outfit, main_index)
    front = main
    if outfit.main is Kind.SHIRT:
        if Kind.TIE in extras:
            carried.draw_tie(figure)
        if Kind.TIE in extras or figure.chance(0.7):
            trims.add_collar(figure, main_index, main.fabric)
    if outer_style is not None and outfit.outer is not Kind.CAPE:
        front = outer.draw_outer(figure, outer_index, outer_style)
    if Kind.BELT in extras and (outfit.outer is None or front.cut.gap == 0):
        waist = lower.WAISTBAND + 0.08 if outfit.tucked and outfit.outer is None else WAIST + 0.04
        lower.draw_belt(figure, front.cut, waist, Kind.BUCKLE in extras)
    _decorate(figure, outfit, front)
    if bag == "cross":
        carried.draw_bag(figure, bag, side)
    if hooded or (outer_style is not None and outer_style.hood):
        trims.add_hood(figure, front.index, front.fabric)
        figure.drawing.pieces.insert(behind_neck, figure.drawing.pieces.pop())
    if bag in ("tote", "hand"):
        carried.draw_bag(figure, bag, side)
    _draw_arms(figure, outfit, front)
    if outer_style is not None and outfit.outer is Kind.CAPE:
        outer.draw_outer(figure, outer_index, outer_style)
    if Kind.SCARF in extras:
        carried.draw_scarf(figure)
    _draw_head(figure, outfit)
    return figure


def _choose_bag(rng: np.random.Generator, outfit: Outfit) -> str:
    if Kind.BAG not in outfit.extras:
        return "none"
    if outfit.framing == "hip":
        return "cross"
    return ("tote", "hand", "cross")[int(rng.integers(3))]


def _draw_legs(figure: Figure, outfit: Outfit) -> None:
    if outfit.framing == "hip":
        return
    extras = outfit.extras
    person.draw_legs(figure.drawing, figure.body, figure.looks)
    for kind in (Kind.TIGHTS, Kind.SOCK):
        if kind in extras:
            lower.draw_hosiery(figure, kind)
    if outfit.framing == "full":
        style = figure.pick(["sneaker", "loafer", "pump", "boot"], [3, 1.5, 2.4, 2.2])
        if Kind.SOCK in extras and style == "boot":
            style = "sneaker"
        lower.draw_shoes(figure, style)
    if Kind.LEG_WARMER in extras:
        lower.draw_hosiery(figure, Kind.LEG_WARMER)


def _draw_main(figure: Figure, outfit: Outfit, index: int) -> Worn:
    if outfit.main is Kind.DRESS:
        return upper.draw_dress(figure, index)
    if outfit.main is Kind.JUMPSUIT:
        return upper.draw_jumpsuit(figure, index)
    if not outfit.tucked:
        _draw_bottom(figure, outfit)
    if outfit.main is Kind.TOP:
        worn = upper.draw_top(figure, index, outfit.tucked)
    elif outfit.main is Kind.SHIRT:
        worn = upper.draw_shirt(figure, index, outfit.tucked)
    else:
        worn = upper.draw_sweater(figure, index)
    if outfit.tucked:
        _draw_bottom(figure, outfit)
    return worn


def _draw_bottom(figure: Figure, outfit: Outfit) -> None:
    if outfit.bottom is None:
        return
    index = figure.drawing.add_object(outfit.bottom)
    if outfit.bottom is Kind.SKIRT:
        lower.draw_skirt(figure, index)
    else:
        lower.draw_pants(figure, index, shorts=outfit.bottom is Kind.SHORTS)


def _draw_arms(figure: Figure, outfit: Outfit, front: Worn) -> None:
    extras = outfit.extras
    glove_fabric = figure.fabric(Kind.GLOVE) if Kind.GLOVE in extras else None
    watch_side = int(figure.rng.integers(2))
    for side in (0, 1):
        person.draw_arm(figure.drawing, figure.body, side, figure.looks)
        person.draw_hand(figure.drawing, figure.body, side, figure.looks)
        if front.sleeve != "none":
            ease = 0.09 if outfit.outer is not None else 0.05
            trims.add_sleeve(figure, side, front.sleeve, front.index, front.fabric, ease)
        if glove_fabric is not None:
            carried.draw_glove(figure, side, glove_fabric)
        elif Kind.WATCH in extras and side == watch_side:
            carried.draw_watch(figure, side)


def _draw_head(figure: Figure, outfit: Outfit) -> None:
    hat = Kind.HAT in outfit.extras
    person.draw_head(figure.drawing, figure.body, figure.looks)
    person.draw_front_hair(figure.drawing, figure.body, figure.looks)
    if Kind.GLASSES in outfit.extras:
        headwear.draw_glasses(figure)
    if hat:
        fabric = figure.fabric(Kind.HAT)
        style = figure.pick(["beanie", "cap", "brim", "bucket"])
        headwear.draw_hat(figure, style, fabric, figure.drawing.add_object(Kind.HAT))
    elif Kind.HEADBAND in outfit.extras:
        headwear.draw_headband(figure)


def _decorate(figure: Figure, outfit: Outfit, front: Worn) -> None:
    """Pin decorations on free places of the garment in front."""
    if Kind.EPAULETTE in outfit.extras and front.kind in (Kind.JACKET, Kind.COAT, Kind.SHIRT):
        trims.add_epaulettes(figure, (front.piece, front.piece), front.fabric)
    gap = front.cut.gap
    columns = (-0.45, -0.15, 0.15, 0.45) if gap == 0 else (-0.46, 0.46)
    places = [(x, y) for y in (1.86, 2.14, 2.42, 2.98) for x in columns if y < front.cut.hem - 0.15]
    order = [places[int(i)] for i in figure.rng.permutation(len(places))]
    hem = min(front.cut.hem, 3.0 if outfit.framing == "hip" else front.cut.hem)
    for kind, draw in DECORATIONS.items():
        if kind not in outfit.extras:
            continue
        number = outfit.numbers.get(kind, 1)
        for step in range(number):
            if kind in (Kind.RUFFLE, Kind.FRINGE):
                spot = (0.0, hem - 0.30 - 0.34 * step)
            elif kind is Kind.RIBBON:
                spot = (0.0, WAIST - 0.05)
            elif kind is Kind.SEQUIN:
                spot = (0.0, 2.12)
            elif kind is Kind.BOW:
                spot = (0.0, 1.85) if gap == 0 else (0.45, 1.85)
            elif order:
                spot = order.pop()
            else:
                break
            draw(figure, front, spot)
