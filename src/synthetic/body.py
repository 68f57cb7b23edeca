"""A posed figure: proportions, joints, and the maps from torso and head space to the drawing.

The unit is the height of the head. A figure that stands straight has its head from y = 0 to 1, its
shoulders near 1.4, waist at 2.6, hips at 3.3, crotch at 3.65; x = 0 is its middle, and x > 0 is
the right of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.synthetic.geometry import Limb, PointList, Points, rotate

NECK, SHOULDER, ARMPIT, BUST, WAIST, HIP, CROTCH = 1.22, 1.40, 1.92, 2.05, 2.62, 3.28, 3.65
_LEVELS = (NECK, SHOULDER + 0.02, ARMPIT, BUST, WAIST, 2.95, HIP, CROTCH)

ARM_POSES: dict[str, tuple[float, float]] = {
    # degrees from straight down, outward: upper arm, forearm
    "down": (11, 5),
    "loose": (19, 10),
    "pocket": (27, -12),
    "hip": (47, -52),
    "out": (34, 42),
    "phone": (16, -128),
    "raised": (118, 168),
    "umbrella": (38, 152),
    "hair": (112, 214),
}
LEG_POSES: dict[str, tuple[float, float]] = {
    # degrees from straight down, outward: thigh, shin
    "straight": (3, 1),
    "apart": (8, 5),
    "relaxed": (11, -3),
    "walk": (-3, -9),
    "cross": (-5, -6),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Proportions of one person, in head heights."""

    heads: float = 6.2
    """Height of the whole figure."""
    shoulder: float = 0.82
    chest: float = 0.62
    waist: float = 0.50
    hip: float = 0.66
    thigh: float = 0.33
    arm: float = 0.175


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose of a figure. Angles in radians, shifts in head heights."""

    arms: tuple[str, str] = ("down", "down")
    """Left and right of the image, names in ``ARM_POSES``."""
    legs: tuple[str, str] = ("straight", "straight")
    hip_shift: float = 0.0
    hip_tilt: float = 0.0
    head_tilt: float = 0.0
    turn: float = 0.0
    """Where the figure looks: -1 far left, 1 far right."""
    arm_noise: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Added to the arms' angles: left upper, left fore, right upper, right fore."""


class Body:
    """A figure with a shape and a pose; everything that is drawn on it asks it where things are."""

    def __init__(self, shape: Shape, pose: Pose) -> None:
        self.shape = shape
        self.pose = pose
        half = (0.24, shape.shoulder, shape.chest, shape.chest * 1.02)
        low = (shape.waist, (shape.waist + shape.hip) / 2, shape.hip, shape.hip * 0.97)
        self._half_widths = (*half, *low)
        self.arms = (self._arm(0), self._arm(1))
        self.legs = (self._leg(0), self._leg(1))
        outer = [self.legs[side].edge((1, -1)[side]) for side in (0, 1)]
        self._leg_reach = tuple((edge[:, 1], np.abs(edge[:, 0] - pose.hip_shift)) for edge in outer)

    def half_width(self, y: float) -> float:
        """Half the width of the bare torso at a height of the standing figure."""
        return float(np.interp(y, _LEVELS, self._half_widths))

    def leg_reach(self, y: float) -> float:
        """Return how far the legs reach from the middle at a height, the farther one."""
        return max(float(np.interp(y, *edge)) for edge in self._leg_reach)

    def torso(self, points: PointList) -> Points:
        """Map points of the upright torso (and of a skirt below it) to the pose. Shape (N, 2)."""
        standing = np.asarray(points, dtype=np.float64)
        x, y = standing[:, 0], standing[:, 1]
        down = np.minimum(np.maximum((y - SHOULDER) / (HIP - SHOULDER), 0.0), 1.0)
        smooth = down * down * (3 - 2 * down)
        slope = self.pose.hip_tilt * (1.6 * smooth - 0.6)
        fade = np.minimum(np.maximum(1 - (y - HIP) / 2.5, 0.0), 1.0)
        posed = np.empty_like(standing)
        posed[:, 0] = x + self.pose.hip_shift * smooth
        posed[:, 1] = y + x * slope * fade
        return posed

    def head(self, points: PointList) -> Points:
        """Map points around the upright head to the pose (tilted about the neck). Shape (N, 2)."""
        return rotate(points, self.pose.head_tilt, about=(0.0, 1.1))

    def _arm(self, side: int) -> Limb:
        sign = (-1, 1)[side]
        upper, fore = (
            math.radians(degrees + noise)
            for degrees, noise in zip(
                ARM_POSES[self.pose.arms[side]],
                self.pose.arm_noise[2 * side : 2 * side + 2],
                strict=True,
            )
        )
        start = self.torso([(sign * (self.shape.shoulder - 0.12), SHOULDER + 0.15)])[0]
        elbow = start + 0.98 * np.array([sign * math.sin(upper), math.cos(upper)])
        wrist = elbow + 0.86 * np.array([sign * math.sin(fore), math.cos(fore)])
        r = self.shape.arm
        return Limb(_bend(start, elbow, wrist), (r * 1.06, r * 1.03, r * 0.92, r * 0.86, r * 0.62))

    def _leg(self, side: int) -> Limb:
        sign = (-1, 1)[side]
        thigh, shin = (math.radians(value) for value in LEG_POSES[self.pose.legs[side]])
        length = self.shape.heads - 0.16 - (HIP + 0.12)
        start = self.torso([(sign * (self.shape.hip - self.shape.thigh + 0.01), HIP + 0.12)])[0]
        bent = 0.97 if self.pose.legs[side] == "walk" else 1.0
        knee = start + 0.50 * length * np.array([sign * math.sin(thigh), math.cos(thigh)])
        ankle = knee + 0.50 * bent * length * np.array([sign * math.sin(shin), math.cos(shin)])
        r = self.shape.thigh
        return Limb(_bend(start, knee, ankle), (r, r * 0.86, r * 0.60, r * 0.60, r * 0.34))


def _bend(start: Points, joint: Points, end: Points) -> Points:
    """Five knots along two bones, the joint rounded."""
    middle = 0.82 * joint + 0.09 * (start + end)
    return np.stack([start, 0.42 * start + 0.58 * joint, middle, 0.58 * joint + 0.42 * end, end])


def random_shape(rng: np.random.Generator, difficulty: float) -> Shape:
    """Proportions of one person; ``difficulty`` (0 to 1) lengthens and varies them."""
    spread = 0.4 + 0.6 * difficulty
    build = 1 + 0.07 * spread * rng.normal()
    curve = rng.uniform(-1, 1) * spread
    return Shape(
        heads=float(np.clip(rng.normal(5.7 + 0.7 * difficulty, 0.12 * spread), 5.3, 7.2)),
        shoulder=0.80 * build - 0.05 * curve,
        chest=0.62 * build,
        waist=0.51 * build - 0.04 * curve,
        hip=0.66 * build + 0.04 * curve,
        thigh=0.325 * build + 0.015 * curve,
        arm=0.175 * build - 0.008 * curve,
    )


def random_pose(
    rng: np.random.Generator, difficulty: float, arms: tuple[str | None, str | None]
) -> Pose:
    """A pose; ``arms`` fixes what an accessory needs, None leaves the choice open."""
    easy = np.array([6, 5, 2, 2.5, 1.2, 0.3, 0.3, 0.2])
    hard = np.array([3, 4, 3, 3.0, 2.0, 1.5, 1.0, 1.0])
    weights = easy + (hard - easy) * difficulty
    names = [name for name in ARM_POSES if name != "umbrella"]
    chosen = [names[i] for i in rng.choice(len(names), size=2, p=weights / weights.sum())]
    stances = [
        ("straight", "straight"),
        ("apart", "apart"),
        ("relaxed", "straight"),
        ("straight", "relaxed"),
        ("walk", "straight"),
        ("straight", "walk"),
        ("cross", "cross"),
    ]
    stance = np.array([2, 3, 3, 3, 1.5, 1.5, 1.2 * difficulty])
    legs = stances[int(rng.choice(len(stances), p=stance / stance.sum()))]
    spread = 0.35 + 0.65 * difficulty
    weight_side = {"relaxed": -1, "straight": 1}
    lean = (weight_side.get(legs[0], 0) - weight_side.get(legs[1], 0)) / 2
    return Pose(
        arms=(arms[0] or chosen[0], arms[1] or chosen[1]),
        legs=legs,
        hip_shift=float(0.08 * -lean + rng.normal(0, 0.05 * spread)),
        hip_tilt=float(0.07 * lean + rng.normal(0, 0.03 * spread)),
        head_tilt=float(rng.normal(0, 0.07 * spread + 0.02)),
        turn=float(rng.uniform(-1, 1) * (0.5 + 0.5 * difficulty)),
        arm_noise=tuple(float(v) for v in rng.normal(0, 6 * spread, 4)),  # type: ignore[arg-type]
    )
