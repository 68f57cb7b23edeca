"""The person under the clothes: skin, limbs, hands, face and hair. None of it is annotated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.synthetic.body import CROTCH, HIP, NECK, SHOULDER, Body
from src.synthetic.drawing import Drawing, Fold, Mark
from src.synthetic.fabrics import Fabric
from src.synthetic.geometry import Points, ellipse, flip, moved, rotate, spline
from src.synthetic.painter import OUTLINE
from src.synthetic.palette import HAIR, SKIN, Colour, jitter, luminance, mix, shade

HAIR_STYLES = ("short", "crop", "bob", "long", "waves", "bun", "ponytail", "afro")

_EYES: tuple[Colour, ...] = ((66, 44, 34), (92, 62, 42), (84, 112, 136), (96, 116, 84))


@dataclass(frozen=True, slots=True)
class Looks:
    """Colours and hair of one person."""

    skin: Colour
    hair: Colour
    hair_style: str
    parting: float
    """Where the hair parts, -1 to 1; beyond +-0.8 it is a fringe."""
    beard: bool
    lips: Colour
    eyes: Colour

    @property
    def skin_fabric(self) -> Fabric:
        """Skin as a fabric, to paint with."""
        return Fabric(self.skin, relief=0.65)

    @property
    def hair_fabric(self) -> Fabric:
        """Hair as a fabric, to paint with."""
        return Fabric(self.hair, relief=1.4)


def random_looks(rng: np.random.Generator) -> Looks:
    """Draw one person's colours and hair."""
    skin = jitter(rng, SKIN[int(rng.integers(len(SKIN)))], 3)
    natural = len(HAIR) if luminance(skin) > 130 else 4
    hair = jitter(rng, HAIR[int(rng.integers(natural))], 4)
    style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
    return Looks(
        skin=skin,
        hair=hair,
        hair_style=style,
        parting=float(rng.uniform(-1, 1)),
        beard=bool(style in ("short", "crop") and rng.random() < 0.45),
        eyes=_EYES[int(rng.integers(len(_EYES) if luminance(skin) > 130 else 2))],
        lips=mix(skin, (196, 52, 72), float(rng.uniform(0.25, 0.75))),
    )


def draw_legs(drawing: Drawing, body: Body, looks: Looks) -> None:
    """Bare legs."""
    for leg in body.legs:
        drawing.add(leg.outline(round_stop=True), looks.skin_fabric, edge=0.7, shadow=0.2)


def draw_torso(drawing: Drawing, body: Body, looks: Looks) -> None:
    """Neck, shoulders and trunk."""
    half = [
        (0.19, 0.82),
        (0.20, 1.08),
        (0.27, NECK + 0.02),
        (0.50, 1.385),
        (body.shape.shoulder - 0.06, SHOULDER + 0.14),
        (body.half_width(2.0), 2.0),
        (body.half_width(2.6), 2.6),
        (body.half_width(HIP), HIP),
        (body.half_width(CROTCH) * 0.9, CROTCH),
        (0.0, CROTCH + 0.05),
    ]
    side = spline(half, samples=4)
    piece = drawing.add(
        body.torso(np.concatenate([side, flip(side)])), looks.skin_fabric, edge=0.7, shadow=0.2
    )
    shade_tone = shade(looks.skin, 0.80)
    for sign in (-1, 1):
        bone = body.torso([(sign * 0.10, 1.41), (sign * 0.24, 1.375), (sign * 0.36, 1.39)])
        piece.marks.append(Mark(spline(bone), shade_tone, width=0.022))
    throat = body.torso([(-0.2, 0.95), (0.2, 0.95), (0.17, 1.13), (0.0, 1.2), (-0.17, 1.13)])
    piece.marks.insert(0, Mark(spline(throat, closed=True), shade(looks.skin, 0.82)))


def draw_arm(drawing: Drawing, body: Body, side: int, looks: Looks) -> None:
    """A bare arm without its hand."""
    arm, sign = body.arms[side], (-1, 1)[side]
    fabric = looks.skin_fabric
    piece = drawing.add(arm.outline(round_start=True), fabric, edge=0.0, shadow=0.18)
    for edge in (arm.edge(-sign, 0.03), arm.edge(sign, 0.22)):  # open at the shoulder
        piece.marks.append(Mark(edge, fabric.line_colour, width=1.4 * OUTLINE))


def hand_outline(body: Body, side: int, grow: float = 0.0) -> Points:
    """Mitten shape of a hand with a thumb towards the body."""
    arm = body.arms[side]
    sign = (-1, 1)[side]
    wrist, turn = arm.point(1.0), arm.angle(1.0)
    palm = [
        (0.105, -0.04),
        (0.125, 0.12),
        (0.10, 0.28),
        (0.02, 0.38),
        (-0.07, 0.33),
        (-0.10, 0.22),
        (-0.16, 0.24),
        (-0.185, 0.16),
        (-0.12, 0.04),
        (-0.105, -0.04),
    ]
    points = np.array(palm) * (sign, 1) * (1 + grow)
    return spline(rotate(points, turn) + wrist, closed=True, samples=4)


def draw_hand(drawing: Drawing, body: Body, side: int, looks: Looks) -> None:
    """A bare hand."""
    piece = drawing.add(hand_outline(body, side), looks.skin_fabric, edge=0.7, shadow=0.2)
    arm = body.arms[side]
    for across in (-0.03, 0.035):
        finger = np.array([[across, 0.2], [across * 0.8, 0.33]])
        line = rotate(finger, arm.angle(1.0)) + arm.point(1.0)
        piece.marks.append(Mark(line, shade(looks.skin, 0.78), width=0.012))


def draw_back_hair(drawing: Drawing, body: Body, looks: Looks) -> None:
    """Draw the hair behind neck and shoulders."""
    style = looks.hair_style
    shapes: dict[str, list[Points]] = {
        "bob": [_curtain(0.50, 1.12, 0.0)],
        "long": [_curtain(0.56, 1.95, 0.05)],
        "waves": [_curtain(0.62, 1.75, 0.12)],
        "bun": [ellipse((0.05 * looks.parting, -0.13), 0.23, 0.20)],
        "ponytail": [_tail(1 if looks.parting > 0 else -1)],
        "afro": [ellipse((0.0, 0.33), 0.64, 0.60)],
    }
    for outline in shapes.get(style, []):
        piece = drawing.add(body.head(outline), looks.hair_fabric, edge=0.8, shadow=0.15)
        if style in ("long", "waves", "bob"):
            for x in (-0.44, -0.36, 0.36, 0.44):
                lock = spline([(x * 0.9, 0.4), (x * 1.05, 0.9), (x, 1.5), (x * 1.1, 1.9)])
                piece.folds.append(Fold(body.head(lock), 0.05, -0.2))
                piece.marks.append(Mark(body.head(lock), shade(looks.hair, 0.84), width=0.012))


def _curtain(width: float, bottom: float, wave: float) -> Points:
    half = [(0.0, -0.06), (0.34, 0.06), (0.45, 0.4)]
    steps = np.linspace(0.7, bottom, 6)
    half += [(width + wave * (0.5 if i % 2 else -0.5), float(y)) for i, y in enumerate(steps[:-1])]
    half += [(width * 0.8, bottom), (width * 0.3, bottom - 0.06), (0.0, bottom - 0.1)]
    side = spline(half, samples=4)
    return np.concatenate([side, flip(side)])


def _tail(sign: int) -> Points:
    knots = [
        (0.2, 0.0),
        (0.5, 0.06),
        (0.66, 0.5),
        (0.62, 1.0),
        (0.5, 1.35),
        (0.46, 0.9),
        (0.4, 0.4),
    ]
    return spline(np.array(knots) * (sign, 1), closed=True, samples=5)


def draw_head(drawing: Drawing, body: Body, looks: Looks) -> None:
    """Ears, face and features."""
    turn = 0.10 * body.pose.turn
    skin = looks.skin_fabric
    for sign in (-1, 1):
        ear = ellipse((sign * 0.375 - turn * 0.4, 0.56), 0.07, 0.115, count=14)
        drawing.add(body.head(ear), skin, edge=0.7, shadow=0.0)
    half = [(0.0, 0.02), (0.24, 0.07), (0.36, 0.28), (0.365, 0.55), (0.30, 0.80), (0.15, 0.97)]
    half.append((0.0, 1.0))
    side = spline(half, samples=4)
    face = drawing.add(body.head(np.concatenate([side, flip(side)])), skin, edge=0.7, shadow=0.35)
    tone = shade(looks.skin, 0.76)

    def put(points: Points, colour: Colour, width: float = 0.0) -> None:
        face.marks.append(Mark(body.head(moved(points, turn, 0.0)), colour, width))

    blush = mix(looks.skin, (224, 96, 88), 0.10 + 0.10 * luminance(looks.skin) / 255)
    for sign in (-1, 1):
        put(ellipse((sign * 0.22, 0.70), 0.075, 0.05, count=14), blush)
        eye = (sign * 0.155, 0.545)
        put(ellipse(eye, 0.074, 0.040, count=14), (246, 244, 240))
        iris = (eye[0] + turn * 0.25, eye[1] - 0.004)
        put(ellipse(iris, 0.037, 0.04, count=12), looks.eyes)
        put(ellipse(iris, 0.019, 0.021, count=10), (30, 24, 26))
        put(ellipse((iris[0] - 0.014, iris[1] - 0.016), 0.010, 0.010, count=8), (252, 250, 246))
        lid = ellipse(moved(eye, 0, 0.006), 0.086, 0.052, start=math.pi, stop=2 * math.pi, count=9)
        put(lid, (44, 32, 34), width=0.022)
        brow = [(0.085, 0.435), (0.165, 0.405), (0.245, 0.445)]
        put(spline(np.array(brow) * (sign, 1), samples=4), shade(looks.hair, 0.75), width=0.032)
    put(np.array([(0.015, 0.56), (0.05, 0.685), (0.0, 0.70)]), tone, width=0.02)
    mouth = [(-0.115, 0.795), (-0.045, 0.798), (0.0, 0.808), (0.045, 0.798), (0.115, 0.795)]
    lower = [(0.06, 0.858), (0.0, 0.868), (-0.06, 0.858)]
    smile = [(-0.115, 0.793), (-0.05, 0.822), (0.0, 0.828), (0.05, 0.822), (0.115, 0.793)]
    if looks.beard:
        jaw = [(0.37, 0.55), (0.31, 0.80), (0.15, 0.97), (0.0, 1.0)]
        rim = spline(jaw, samples=4)
        inner = spline([(0.0, 0.74), (0.14, 0.745), (0.24, 0.72), (0.31, 0.5)], samples=4)
        outline = np.concatenate([rim, flip(rim), flip(inner), inner])
        face.marks.append(Mark(body.head(outline), mix(looks.hair, looks.skin, 0.18)))
    put(spline(np.array(mouth + lower), closed=True, samples=3), looks.lips)
    put(spline(smile, samples=3), shade(looks.lips, 0.62), width=0.014)


def draw_front_hair(drawing: Drawing, body: Body, looks: Looks) -> None:
    """The hair on top of the head."""
    depth = 0.10 if looks.hair_style == "crop" else 0.16
    rise = {"crop": -0.02, "afro": -0.26, "short": -0.10}.get(looks.hair_style, -0.07)
    low = {"crop": 0.42, "short": 0.50, "afro": 0.52}.get(looks.hair_style, 0.66)
    part = 0.22 * looks.parting
    outer = [(-0.40, low), (-0.43, 0.30), (-0.30, 0.03), (0.0, rise)]
    outer += [(0.30, 0.03), (0.43, 0.30), (0.40, low)]
    if abs(looks.parting) > 0.8:
        inner = [(0.35, 0.44), (0.24, 0.37), (0.0, 0.35), (-0.24, 0.37), (-0.35, 0.44)]
    else:
        inner = [(0.345, 0.46), (0.30, 0.30), (part, 0.07 + depth / 2)]
        inner += [(-0.30, 0.30), (-0.345, 0.46)]
    crown = np.concatenate([spline(outer, samples=5), spline(inner, samples=5)])
    piece = drawing.add(body.head(crown), looks.hair_fabric, edge=0.8, shadow=0.25)
    for reach in (0.55, 0.75, 0.92):
        for sign in (-1, 1):
            lock = [(part, 0.04), (part + sign * 0.22 * reach, 0.06), (sign * 0.40 * reach, 0.34)]
            strength = 0.25 if reach == 0.75 and sign < 0 else -0.16
            strand = body.head(spline(lock))
            piece.folds.append(Fold(strand, 0.04, strength))
            piece.marks.append(Mark(strand, shade(looks.hair, 0.84), width=0.012))
