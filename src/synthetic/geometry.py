"""Outlines as points: smooth curves, tapered limbs, ellipses, stars. Units are the caller's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""Shape (N, 2), float64: x to the right, y downward."""

PointList = Points | Sequence[Sequence[float]] | Sequence[tuple[float, float]]


@functools.cache
def _catmull_rom(samples: int) -> npt.NDArray[np.float64]:
    t = np.arange(samples) / samples
    powers = np.stack([np.ones_like(t), t, t**2, t**3], axis=1)
    basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return powers @ basis


def spline(points: PointList, *, closed: bool = False, samples: int = 6) -> Points:
    """Smooth curve through all points (uniform Catmull-Rom), ``samples`` per segment.

    Shape: (N, 2) -> (N * samples, 2) closed, ((N - 1) * samples + 1, 2) open.
    """
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        around = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        around = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    windows = around[np.arange(len(around) - 3)[:, None] + np.arange(4)]
    curve = (_catmull_rom(samples) @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, knots[-1:]])


def ellipse(
    centre: Sequence[float] | Points,
    radius_x: float,
    radius_y: float,
    *,
    angle: float = 0.0,
    start: float = 0.0,
    stop: float = 2 * math.pi,
    count: int = 28,
) -> Points:
    """Points on an ellipse; ``angle`` turns it, ``start`` and ``stop`` cut an arc. Radians."""
    full = stop - start >= 2 * math.pi - 1e-9
    t = np.linspace(start, stop, count, endpoint=not full)
    arc = np.stack([radius_x * np.cos(t), radius_y * np.sin(t)], axis=1)
    return rotate(arc, angle) + np.asarray(centre, dtype=np.float64)


def rotate(points: PointList, angle: float, about: Sequence[float] | Points = (0.0, 0.0)) -> Points:
    """Turn points by ``angle`` radians (clockwise on a screen) about a point."""
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = about
    rest = (x - x * cosine + y * sine, y - x * sine - y * cosine)
    turned: Points = np.asarray(points, dtype=np.float64) @ ((cosine, sine), (-sine, cosine))
    return turned + rest


def moved(points: PointList | Sequence[float], x: float, y: float) -> Points:
    """Shift points (or one point)."""
    result: Points = np.asarray(points, dtype=np.float64) + np.array([x, y])
    return result


def flip(points: PointList) -> Points:
    """Flip about x = 0, in reverse order so that paths still join end to start."""
    return np.asarray(points, dtype=np.float64)[::-1] * (-1.0, 1.0)


def rounded_box(
    centre: Sequence[float] | Points,
    width: float,
    height: float,
    *,
    radius: float,
    angle: float = 0,
) -> Points:
    """A rectangle with round corners, turned about its centre."""
    r = min(radius, width / 2, height / 2)
    inner = [
        (width / 2 - r, height / 2 - r, 0.0),
        (r - width / 2, height / 2 - r, math.pi / 2),
        (r - width / 2, r - height / 2, math.pi),
        (width / 2 - r, r - height / 2, 3 * math.pi / 2),
    ]
    corners = [ellipse((x, y), r, r, start=a, stop=a + math.pi / 2, count=4) for x, y, a in inner]
    return rotate(np.concatenate(corners), angle) + np.asarray(centre, dtype=np.float64)


def star(
    centre: Sequence[float] | Points, outer: float, inner: float, *, tips: int = 5, angle: float = 0
) -> Points:
    """A star (or, with ``inner`` near ``outer``, a many-sided rosette)."""
    t = angle - math.pi / 2 + np.arange(2 * tips) * math.pi / tips
    radius = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    result: Points = np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1) + np.asarray(centre)
    return result


class Limb:
    """A bent tube: a smooth centre line with a radius at every point.

    ``t`` runs from 0 at the first joint to 1 at the last (by length), ``side`` from -1 to 1 across.
    """

    def __init__(self, joints: PointList, radii: Sequence[float], *, samples: int = 7) -> None:
        self.centre = spline(joints, samples=samples)
        step = np.diff(self.centre, axis=0)
        length = np.concatenate([[0.0], np.cumsum(np.hypot(step[:, 0], step[:, 1]))])
        self.length = float(length[-1])
        self.t = length / max(self.length, 1e-9)
        knots = self.t[::samples]
        self.radius = np.interp(self.t, knots, radii)
        tangent = np.gradient(self.centre, axis=0)
        tangent /= np.maximum(np.hypot(tangent[:, :1], tangent[:, 1:]), 1e-9)
        self.normal = tangent[:, ::-1] * (-1.0, 1.0)
        self._columns = np.concatenate([self.centre, self.normal, self.radius[:, None]], axis=1)

    def point(self, t: float, side: float = 0.0) -> Points:
        """Shape (2,): the point at ``t`` along and ``side`` across."""
        row = self._at(t)
        point: Points = row[:2] + side * row[4] * row[2:4]
        return point

    def angle(self, t: float) -> float:
        """Direction of the centre line at ``t``, in radians from straight down."""
        normal = self.normal[round(t * (len(self.t) - 1))]
        return math.atan2(normal[1], normal[0]) + math.pi

    def edge(
        self,
        side: float,
        start: float = 0.0,
        stop: float = 1.0,
        *,
        grow: float | tuple[float, float] = 0.0,
    ) -> Points:
        """Return one edge (``side`` 1 or -1), from ``start`` to ``stop``.

        ``grow`` widens it (a pair: at start and stop, linear between).
        """
        first, last = np.searchsorted(self.t, (start + 1e-6, stop - 1e-6))
        t = np.concatenate([(start,), self.t[first:last], (stop,)])
        rows = np.concatenate(
            [self._at(start)[None], self._columns[first:last], self._at(stop)[None]]
        )
        at_start, at_stop = grow if isinstance(grow, tuple) else (grow, grow)
        extra = at_start + (at_stop - at_start) * (t - start) / max(stop - start, 1e-9)
        across = side * (rows[:, 4] + extra)
        return _without_loop(rows[:, :2] + across[:, None] * rows[:, 2:4])

    def outline(
        self,
        start: float = 0.0,
        stop: float = 1.0,
        *,
        grow: float | tuple[float, float] = 0.0,
        round_start: bool = False,
        round_stop: bool = False,
    ) -> Points:
        """Outline from ``start`` to ``stop``, ends straight or round; ``grow`` as for ``edge``."""
        one = self.edge(1.0, start, stop, grow=grow)
        other = self.edge(-1.0, start, stop, grow=grow)
        parts = [one]
        if round_stop:
            parts.append(_half_circle(one[-1], other[-1]))
        parts.append(other[::-1])
        if round_start:
            parts.append(_half_circle(other[0], one[0], bulge=0.5))
        return np.concatenate(parts)

    def _at(self, t: float) -> npt.NDArray[np.float64]:
        """Centre, normal and radius at ``t``. Shape (5,)."""
        after = min(max(int(np.searchsorted(self.t, t)), 1), len(self.t) - 1)
        low, high = self.t[after - 1], self.t[after]
        share = min(max((t - low) / (high - low), 0.0), 1.0)
        row: npt.NDArray[np.float64] = (
            self._columns[after - 1] * (1 - share) + self._columns[after] * share
        )
        return row


def _without_loop(path: Points) -> Points:
    """Cut off the loop that the inner edge of a sharp bend makes, at its crossing."""
    start, step = path[:-1], np.diff(path, axis=0)
    if (step[1:] * step[:-1]).sum(axis=1).min(initial=0.0) >= 0:
        return path
    apart = start[None] - start[:, None]
    cross = step[:, None, 0] * step[None, :, 1] - step[:, None, 1] * step[None, :, 0]
    cross[np.abs(cross) < 1e-12] = np.inf
    along = (apart[..., 0] * step[None, :, 1] - apart[..., 1] * step[None, :, 0]) / cross
    beside = (apart[..., 0] * step[:, None, 1] - apart[..., 1] * step[:, None, 0]) / cross
    meets = (along > 0) & (along < 1) & (beside > 0) & (beside < 1)
    pairs = np.argwhere(np.triu(meets, k=2))
    if len(pairs) == 0:
        return path
    first, last = pairs[0]
    crossing = start[first] + along[first, last] * step[first]
    return np.concatenate([path[: first + 1], crossing[None], path[last + 1 :]])


def _half_circle(one: Points, other: Points, bulge: float = 0.8) -> Points:
    arm = (one - other) / 2
    t = np.linspace(0, math.pi, 11)[1:-1, None]
    outward = np.array([arm[1], -arm[0]])
    result: Points = (one + other) / 2 + np.cos(t) * arm + bulge * np.sin(t) * outward
    return result
