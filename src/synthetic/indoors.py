"""Furniture of rooms, shops and halls."""

from __future__ import annotations

import numpy as np

from src.synthetic.palette import Colour, jitter, mix, shade
from src.synthetic.stage import Stage


def window(stage: Stage) -> None:
    """A bright window with a cross bar and curtains."""
    rng = stage.rng
    x, y = stage.anywhere() - 0.12, rng.uniform(0.05, 0.15)
    width, height = rng.uniform(0.2, 0.3), rng.uniform(0.28, 0.4)
    stage.box(x - 0.015, y - 0.015, x + width + 0.015, y + height + 0.015, (244, 242, 236))
    stage.box(x, y, x + width, y + height, (206, 226, 240))
    stage.blob(x + width * 0.5, y + height, width * 0.4, (150, 178, 140), tall=0.5)
    stage.box(x + width / 2 - 0.006, y, x + width / 2 + 0.006, y + height, (244, 242, 236))
    stage.box(x, y + height * 0.45, x + width, y + height * 0.45 + 0.012, (244, 242, 236))
    curtain = stage.tone()
    for left in (x - 0.06, x + width - 0.01):
        stage.box(
            left, y - 0.03, left + 0.07, y + height + 0.08, mix(curtain, (240, 236, 228), 0.4)
        )


def image_frame(stage: Stage) -> None:
    """A framed abstract image."""
    rng = stage.rng
    x, y, size = stage.anywhere(), rng.uniform(0.06, 0.3), rng.uniform(0.1, 0.2)
    stage.box(x, y, x + size * 0.8, y + size, (70, 58, 50))
    stage.box(x + 0.01, y + 0.01, x + size * 0.8 - 0.01, y + size - 0.01, (240, 236, 226))
    for _ in range(3):
        at = (x + size * rng.uniform(0.25, 0.55), y + size * rng.uniform(0.3, 0.7))
        stage.blob(*at, size * rng.uniform(0.08, 0.18), stage.tone())


def plant(stage: Stage) -> None:
    """A potted plant."""
    rng = stage.rng
    x, y, size = stage.anywhere(), stage.horizon + 0.05, rng.uniform(0.14, 0.26)
    pot = ((196, 116, 80), (230, 226, 216), (90, 96, 102))[int(rng.integers(3))]
    leaf = jitter(rng, (74, 122, 82), 10)
    for turn in np.linspace(-1.2, 1.2, 9):
        tip = (x + size * 1.1 * np.sin(turn), y - size * (0.45 + 1.05 * np.cos(turn)))
        middle = (x + size * 0.5 * np.sin(turn), y - size * (0.4 + 0.5 * np.cos(turn)))
        bend = size * 0.13 * np.cos(turn)
        stage.polygon(
            [
                (x, y - size * 0.4),
                (middle[0] - bend, middle[1]),
                tip,
                (middle[0] + bend, middle[1]),
            ],
            jitter(rng, leaf, 9),
        )
    form = [(-0.26, -0.45), (0.26, -0.45), (0.19, 0.0), (-0.19, 0.0)]
    stage.polygon([(x + a * size, y + b * size) for a, b in form], pot)


def sofa(stage: Stage) -> None:
    """A sofa against the wall."""
    rng = stage.rng
    x, y, size, tone = stage.anywhere(), stage.horizon + 0.07, rng.uniform(0.3, 0.45), stage.tone()
    stage.box(x - size * 0.5, y - size * 0.5, x + size * 0.5, y - 0.02, tone)
    stage.box(x - size * 0.42, y - size * 0.26, x + size * 0.42, y - 0.03, shade(tone, 1.14))
    for side in (-1, 1):
        stage.blob(x + side * size * 0.5, y - size * 0.22, size * 0.09, shade(tone, 0.88), tall=2.2)
    stage.blob(x + size * rng.uniform(-0.3, 0.3), y - size * 0.33, size * 0.1, stage.tone())


def floor_lamp(stage: Stage) -> None:
    """A standing lamp with a warm glow."""
    x, y = stage.anywhere(), stage.horizon + 0.03
    stage.glow((x, y - 0.5), 0.2, (255, 226, 170), 0.5)
    stage.box(x - 0.005, y - 0.5, x + 0.005, y, (70, 66, 62))
    shape = [(x - 0.035, y - 0.6), (x + 0.035, y - 0.6), (x + 0.07, y - 0.47), (x - 0.07, y - 0.47)]
    stage.polygon(shape, (250, 234, 196))


def bookshelf(stage: Stage) -> None:
    """Shelves with books."""
    rng = stage.rng
    x, width, top = stage.anywhere() - 0.1, rng.uniform(0.2, 0.32), rng.uniform(0.1, 0.3)
    stage.box(x, top, x + width, stage.horizon + 0.02, (120, 88, 62))
    for y in np.arange(top + 0.015, stage.horizon - 0.05, 0.11):
        stage.box(x + 0.01, y, x + width - 0.01, y + 0.095, (84, 60, 44))
        left = x + 0.012
        while left < x + width - 0.035:
            thick, tall = rng.uniform(0.012, 0.026), rng.uniform(0.055, 0.088)
            stage.box(left, y + 0.095 - tall, left + thick, y + 0.095, stage.tone())
            left += thick + 0.002


def shelves(stage: Stage) -> None:
    """Wall shelves with folded clothes."""
    rng = stage.rng
    for y in np.arange(0.16, stage.horizon - 0.1, 0.17):
        stage.box(0, y, stage.aspect, y + 0.012, (222, 214, 202))
        x = rng.uniform(0, 0.08)
        while x < stage.aspect:
            width = rng.uniform(0.07, 0.11)
            if rng.random() < 0.35 + 0.5 * stage.clutter:
                for layer in range(int(rng.integers(1, 4))):
                    top = y - 0.026 * (layer + 1)
                    stage.box(x, top, x + width, top + 0.023, stage.tone())
            x += width + rng.uniform(0.02, 0.06)


def clothes_rack(stage: Stage) -> None:
    """A rail with clothes on hangers."""
    rng = stage.rng
    x, top, width = stage.anywhere() - 0.15, stage.horizon - 0.38, rng.uniform(0.25, 0.35)
    for at in (x, x + width):
        stage.box(at - 0.005, top, at + 0.005, stage.horizon + 0.06, (80, 78, 80))
    for left in np.arange(x + 0.01, x + width - 0.04, 0.045):
        drop = rng.uniform(0.2, 0.32)
        form = [(left + 0.012, top + 0.01), (left + 0.05, top + 0.03), (left + 0.045, top + drop)]
        stage.polygon([*form, (left, top + drop)], stage.tone())
    stage.box(x, top - 0.005, x + width, top + 0.005, (80, 78, 80))


def spectator(stage: Stage, dark: Colour) -> None:
    """A head and shoulders in the dark."""
    rng = stage.rng
    x, y, size = stage.anywhere(), stage.horizon + rng.uniform(-0.05, 0.05), rng.uniform(0.05, 0.08)
    tone = shade(dark, float(rng.uniform(0.5, 1.5)))
    stage.blob(x, y, size, tone, tall=1.3)
    stage.blob(x, y - size * 1.5, size * 0.45, mix(tone, (170, 130, 110), 0.35), tall=1.2)
