"""The cut of garments: neck openings, shells of the torso, skirts, sleeves, trouser legs, folds.

Everything is in torso space (``body.py``) unless it is said to be posed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.synthetic.body import ARMPIT, CROTCH, HIP, SHOULDER, WAIST, Body
from src.synthetic.drawing import Fold
from src.synthetic.geometry import Points, ellipse, flip, moved, spline


@dataclass(frozen=True, slots=True)
class Neck:
    """A neck opening: its half width, where it starts on the shoulder, how deep it goes."""

    name: str
    half_width: float
    depth: float
    form: str = "round"
    top: float = 1.25

    def curve(self, grow: float = 0.0) -> Points:
        """The opening from left to right; ``grow`` moves it outward, for the far edge of a band."""
        x, bottom = self.half_width + grow, self.top + self.depth + grow
        if self.form == "v":
            return np.array([(-x, self.top), (0.0, bottom + 0.5 * grow), (x, self.top)])
        if self.form == "square":
            return np.array([(-x, self.top), (-x, bottom), (x, bottom), (x, self.top)])
        if self.form == "heart":
            dip = 0.10
            half = [
                (x, self.top + grow),
                (x * 0.62, self.top - 0.09 + grow),
                (0, self.top + dip + grow),
            ]
            right = spline(half[::-1], samples=5)
            return np.concatenate([flip(right), right])
        return ellipse((0, self.top), x, self.depth + grow, start=0, stop=math.pi, count=15)[::-1]

    def band(self, width: float) -> Points:
        """The strip of cloth around the opening: what is annotated as the neckline."""
        return np.concatenate([self.curve(), self.curve(width)[::-1]])


NECKS: dict[str, Neck] = {
    "crew": Neck("crew", 0.30, 0.20),
    "scoop": Neck("scoop", 0.37, 0.46),
    "v": Neck("v", 0.33, 0.58, "v"),
    "deep v": Neck("deep v", 0.36, 0.85, "v"),
    "square": Neck("square", 0.40, 0.36, "square"),
    "boat": Neck("boat", 0.52, 0.13, top=1.29),
    "heart": Neck("heart", 0.62, 0.0, "heart", top=1.86),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut of an upper garment, dress or coat."""

    neck: Neck
    hem: float
    """Height of the hem of a standing figure."""
    ease: float = 0.06
    """Room around chest and waist, in head heights."""
    flare: float = 0.0
    """How much half the width grows for each head height below ``flare_from``."""
    flare_from: float = WAIST
    sleeveless: bool = False
    gap: float = 0.0
    """Half the opening of an open front; 0 is closed."""
    wave: float = 0.0
    """Depth of the waves of the hem."""


def shoulder_height(x: float, body: Body) -> float:
    """Height of the shoulder line at a distance from the middle."""
    return float(np.interp(x, (0.22, body.shape.shoulder), (1.23, SHOULDER + 0.05)))


def width_at(y: float, body: Body, cut: Cut) -> float:
    """Half the width of a garment at a height."""
    below = max(0.0, y - cut.flare_from)
    hip = body.half_width(HIP) + cut.ease * 0.7
    bare = body.half_width(min(y, HIP)) + cut.ease
    if y > HIP:  # cloth hangs from the hips, and around the legs where they stand apart
        bare = max(hip, bare) if cut.flare >= 0 else hip
        bare = max(bare - min(cut.flare, 0) * below, body.leg_reach(y) + 0.04)
    if cut.flare > 0 and y > cut.flare_from:
        bare = max(bare, body.half_width(cut.flare_from) + cut.ease)
    return float(bare + cut.flare * below ** (1.15 if cut.flare > 0 else 1.0))


def _side(body: Body, cut: Cut) -> Points:
    """Right side from the shoulder to the hem."""
    neck_x = cut.neck.half_width
    armpit = body.half_width(ARMPIT) + cut.ease
    if cut.neck.form == "heart":
        top = [(neck_x, cut.neck.top), (armpit, ARMPIT + 0.06)]
    elif cut.sleeveless:
        edge = max(body.shape.shoulder - 0.16, neck_x + 0.14)
        top = [(neck_x, shoulder_height(neck_x, body)), (edge, shoulder_height(edge, body))]
        top += [(min(edge, armpit) - 0.04, 1.66), (armpit, ARMPIT)]
    else:
        edge = body.shape.shoulder + 0.03 + 0.3 * cut.ease
        top = [(neck_x, shoulder_height(neck_x, body)), (edge, shoulder_height(edge, body))]
        top += [(max(edge - 0.04, armpit), 1.68), (armpit + 0.02, ARMPIT + 0.06)]
    levels = [y for y in (2.25, WAIST, 2.95, HIP, CROTCH) if y < cut.hem - 0.12]
    levels += list(np.linspace(CROTCH, cut.hem, 4)[1:-1]) if cut.hem > CROTCH + 0.3 else []
    return np.array([*top, *((width_at(y, body, cut), y) for y in (*levels, cut.hem))])


def hem_line(half: float, y: float, wave: float, left: float | None = None) -> Points:
    """A hem from right to left, sagging in the middle, in waves of the given depth."""
    left = -half if left is None else left
    x = np.linspace(half, left, 25)
    span = max(half, 1e-6)
    sag = 0.06 * (1 - (x / span) ** 2)
    return np.stack([x, y + sag + wave * np.sin(x / span * 9.0)], axis=1)


def shell(body: Body, cut: Cut) -> tuple[Points, ...]:
    """A garment of the torso, posed: one outline, or two panels where the front is open."""
    side = _side(body, cut)
    smooth = np.concatenate([side[:2], spline(side[1:], samples=4)[1:]])
    half, hem = float(side[-1, 0]), cut.hem
    if cut.gap == 0:
        neck = cut.neck.curve()
        neck[[0, -1], 1] = smooth[0, 1]
        outline = np.concatenate([neck, smooth, hem_line(half, hem, cut.wave), flip(smooth)])
        return (body.torso(outline),)
    inner_hem = min(1.25 * cut.gap, half * 0.8)
    front = [(inner_hem, hem), (cut.gap * 0.85, WAIST), (cut.gap, 2.1), (cut.neck.half_width, 1.24)]
    bottom = hem_line(half, hem, cut.wave, left=inner_hem)
    right = np.concatenate([smooth, bottom, spline(front, samples=4)])
    return body.torso(flip(right)), body.torso(right)


def skirt(body: Body, cut: Cut, top: float) -> Points:
    """A skirt from its waistband at ``top`` to the hem, posed."""
    levels = [top, top + 0.14, *(y for y in (2.95, HIP) if y > top + 0.3)]
    levels += list(np.linspace(max(HIP, top), cut.hem, 5)[1:])
    side = spline([(width_at(y, body, cut), y) for y in levels], samples=4)
    waist = np.array([(-side[0, 0], top), (0.0, top + 0.05), (side[0, 0], top)])
    hem = hem_line(float(side[-1, 0]), cut.hem, cut.wave)
    return body.torso(np.concatenate([spline(waist), side, hem, flip(side)]))


def trouser_leg(
    body: Body, side: int, top: float, stop: float, ease: float, flare: float
) -> Points:
    """Half a pair of trousers, from the middle of the waistband down one leg, posed.

    ``stop`` is where the leg ends (1: ankle); ``flare`` the extra half width there.
    """
    leg, sign = body.legs[side], (-1, 1)[side]
    levels = [y for y in (top, 2.75, 2.95, 3.15) if y >= top]
    hip = body.torso([(sign * (body.half_width(y) + ease + 0.01), y) for y in levels])
    begin = 0.06
    outer = leg.edge(-sign, begin, stop, grow=(ease, ease + flare))
    inner = leg.edge(sign, 0.17, stop, grow=(ease * 0.4, ease + flare))
    middle = body.torso([(0.0, CROTCH + 0.10), (0.0, top + 0.05)])
    return np.concatenate([hip, outer, inner[::-1], middle])


def skirt_folds(body: Body, cut: Cut, top: float, count: int) -> list[Fold]:
    """Creases that fan out from the waist to the hem, posed."""
    folds = []
    for index in range(count):
        across = (index + 0.5) / count * 2 - 1
        start, stop = 0.75 * across * width_at(top, body, cut), 0.93 * across
        knots = [
            (start + (stop * width_at(y, body, cut) - start) * step, y)
            for step, y in ((0.25, top + 0.35), (0.6, (top + cut.hem) / 2), (1.0, cut.hem))
        ]
        strength = -0.26 if index % 2 else 0.16
        folds.append(Fold(body.torso(spline(knots, samples=4)), 0.07, strength))
    return folds


def torso_folds(body: Body, rng: np.random.Generator, hem: float) -> list[Fold]:
    """A few creases from the armpits and around the waist, posed."""
    folds = []
    for sign in (-1, 1):
        reach = rng.uniform(0.15, 0.45)
        edge = body.half_width(ARMPIT)
        pull = [(sign * edge, 1.98), (sign * (edge - reach), 2.12 + reach * 0.5)]
        folds.append(Fold(body.torso(pull), 0.06, -0.20))
        y = rng.uniform(2.45, 2.75)
        if y < hem - 0.1:
            waist = body.half_width(y)
            line = [(sign * waist, y), (sign * waist * 0.5, y + 0.08), (sign * 0.1, y + 0.03)]
            folds.append(Fold(body.torso(spline(line)), 0.05, -0.17))
            folds.append(Fold(body.torso(spline(moved(line, 0, 0.1))), 0.05, 0.12))
    return folds
