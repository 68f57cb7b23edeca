"""Scenery of streets, parks and beaches."""

from __future__ import annotations

import numpy as np

from src.synthetic.palette import Colour, jitter, mix, shade
from src.synthetic.stage import Stage


def building(stage: Stage, x: float) -> float:
    """A house front with rows of windows; returns its width."""
    rng = stage.rng
    width, top = rng.uniform(0.22, 0.5), rng.uniform(-0.1, 0.35) * stage.horizon
    wall = jitter(rng, mix(stage.tone(), (214, 200, 184), 0.5), 8)
    stage.box(x, top, x + width, stage.horizon, wall)
    stage.box(x + width * 0.93, top, x + width, stage.horizon, shade(wall, 0.82))
    glass = mix((80, 96, 116), (196, 206, 214), float(rng.uniform(0, 0.7)))
    columns = int(rng.integers(2, 5))
    pitch, row = width / (columns + 0.3), rng.uniform(0.09, 0.14)
    for y in np.arange(top + 0.03, stage.horizon - row * 1.5, row):
        for column in range(columns):
            left = x + pitch * (column + 0.3)
            stage.box(left, y, left + pitch * 0.6, y + row * 0.62, glass)
            stage.box(left, y + row * 0.62, left + pitch * 0.6, y + row * 0.68, shade(wall, 1.12))
    awning = stage.tone()
    stage.box(x, stage.horizon - row * 1.25, x + width, stage.horizon, shade(wall, 0.7))
    if rng.random() < 0.7:
        y = stage.horizon - row * 1.35
        stage.polygon([(x, y), (x + width, y), (x + width, y + 0.05), (x, y + 0.05)], awning)
    return float(width)


def car(stage: Stage) -> None:
    """A parked car."""
    rng = stage.rng
    x, y = stage.anywhere(), stage.horizon + rng.uniform(0.0, 0.05)
    size, tone = rng.uniform(0.22, 0.34), stage.tone()
    body = [(-0.5, 0), (-0.46, -0.16), (-0.28, -0.20), (-0.16, -0.34), (0.2, -0.34), (0.32, -0.19)]
    body += [(0.5, -0.15), (0.52, 0.0)]
    stage.polygon([(x + a * size, y + b * size) for a, b in body], tone)
    glass = [(-0.22, -0.20), (-0.13, -0.31), (0.17, -0.31), (0.25, -0.20)]
    stage.polygon([(x + a * size, y + b * size) for a, b in glass], (70, 84, 98))
    for wheel in (-0.28, 0.30):
        stage.blob(x + wheel * size, y, 0.09 * size, (40, 40, 44))


def tree(stage: Stage) -> None:
    """A tree with a round crown."""
    rng = stage.rng
    x, size = stage.anywhere(), rng.uniform(0.16, 0.3)
    y = stage.horizon + rng.uniform(-0.01, 0.04)
    stage.box(x - 0.012, y - size * 1.6, x + 0.012, y, (104, 80, 62))
    leaf = jitter(rng, ((84, 122, 70), (138, 150, 78), (190, 120, 58))[int(rng.integers(3))], 8)
    for _ in range(9):
        a, b = rng.normal(0, 0.42, 2) * size
        stage.blob(x + a, y - 1.9 * size + b, size * rng.uniform(0.25, 0.42), jitter(rng, leaf, 9))


def lamp_post(stage: Stage) -> None:
    """A street lamp."""
    x = stage.anywhere()
    stage.box(x - 0.007, 0.12, x + 0.007, stage.horizon + 0.02, (62, 64, 70))
    stage.box(x - 0.06, 0.115, x + 0.007, 0.13, (62, 64, 70))
    stage.blob(x - 0.055, 0.145, 0.022, (252, 240, 200))


def passer_by(stage: Stage) -> None:
    """Somebody far away, out of focus."""
    rng = stage.rng
    x, size = stage.anywhere(), rng.uniform(0.15, 0.24)
    y, coat = stage.horizon + 0.05, stage.tone()
    stage.box(x - size * 0.09, y - size * 0.5, x - size * 0.01, y, shade(coat, 0.6))
    stage.box(x + size * 0.01, y - size * 0.5, x + size * 0.09, y, shade(coat, 0.6))
    stage.blob(x, y - size * 0.65, size * 0.15, coat, tall=1.7)
    stage.blob(x, y - size * 0.98, size * 0.075, (190, 150, 124))


def bench(stage: Stage) -> None:
    """A park bench."""
    x, y = stage.anywhere(), stage.horizon + 0.06
    for drop in (0.0, 0.035, 0.08):
        stage.box(x - 0.17, y - 0.16 + drop, x + 0.17, y - 0.14 + drop, (134, 96, 64))
    for side in (-0.14, 0.13):
        stage.box(x + side, y - 0.08, x + side + 0.014, y, (60, 60, 62))


def brick_wall(stage: Stage, tone: Colour) -> None:
    """Rows of bricks up to the horizon."""
    rng = stage.rng
    stage.box(0, 0, stage.aspect, stage.horizon, mix(tone, (210, 204, 196), 0.5))
    height, width = 0.036, 0.095
    for row, y in enumerate(np.arange(0, stage.horizon, height)):
        for x in np.arange(-width * (row % 2) / 2, stage.aspect, width):
            bottom = min(y + height - 0.006, stage.horizon)
            stage.box(x, y, x + width - 0.006, bottom, shade(tone, float(rng.uniform(0.88, 1.1))))


def poster(stage: Stage) -> None:
    """A poster or a sprayed shape on a wall."""
    rng = stage.rng
    x, y, size = stage.anywhere(), rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.25)
    stage.box(x, y, x + size * 0.7, y + size, stage.tone())
    stage.blob(x + size * 0.35, y + size * 0.4, size * 0.2, stage.tone())
    stage.box(x + size * 0.1, y + size * 0.75, x + size * 0.6, y + size * 0.8, (240, 238, 230))


def parasol(stage: Stage) -> None:
    """A beach umbrella."""
    rng = stage.rng
    x, y, size, tone = stage.anywhere(), stage.horizon + 0.04, rng.uniform(0.16, 0.24), stage.tone()
    stage.box(x - 0.005, y - size * 1.3, x + 0.005, y, (236, 230, 220))
    for index, left in enumerate(np.linspace(-1, 0.5, 4)):
        edge = [
            (x, y - size * 1.7),
            (x + left * size, y - size),
            (x + (left + 0.5) * size, y - size),
        ]
        stage.polygon(edge, tone if index % 2 else (246, 242, 234))


def cloud(stage: Stage) -> None:
    """A white cloud."""
    rng = stage.rng
    x, y = stage.anywhere(), rng.uniform(0.05, 0.25)
    for _ in range(6):
        a, b = rng.normal(0, 0.05), rng.normal(0, 0.014)
        stage.blob(x + a, y + b, rng.uniform(0.03, 0.06), (250, 250, 250), tall=0.6)


def sail(stage: Stage) -> None:
    """A boat on the horizon."""
    x, y = stage.anywhere(), stage.horizon - 0.08
    stage.polygon([(x, y), (x, y - 0.09), (x + 0.05, y)], (250, 248, 242))
    stage.polygon(
        [(x - 0.02, y), (x + 0.06, y), (x + 0.045, y + 0.015), (x, y + 0.015)], (130, 70, 60)
    )
