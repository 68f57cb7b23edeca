"""Backdrops: studio, street, room, park, brick wall, shop, runway, beach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from src.synthetic import indoors, outdoors
from src.synthetic.palette import Colour, jitter, mix, shade
from src.synthetic.stage import Stage

_WALLS: tuple[Colour, ...] = (
    (226, 218, 206),
    (206, 214, 212),
    (214, 200, 194),
    (196, 208, 220),
    (222, 212, 182),
    (186, 198, 182),
    (178, 168, 164),
    (160, 178, 196),
    (208, 186, 186),
)


@dataclass(frozen=True, slots=True)
class BackdropStyle:
    """Style of a backdrop."""

    place: str
    clutter: float
    """0 is an empty place, 1 a crowded one."""
    blur: float
    """Deviation of the blur as a share of the image's long edge."""


def random_backdrop(rng: np.random.Generator, clutter: float) -> BackdropStyle:
    """Choose a place; with little clutter it is more often a plain one, out of focus."""
    plain = np.array([2.4, 1.0, 1.6, 1.0, 0.7, 0.4, 0.8, 0.9])
    crowded = np.array([0.8, 2.6, 1.8, 1.2, 1.0, 1.3, 0.8, 0.7])
    weights = plain + (crowded - plain) * clutter
    names = list(PLACES)
    place = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    blur = float(rng.uniform(0.004, 0.011)) * (1.25 - 0.9 * clutter)
    return BackdropStyle(place, clutter=clutter * float(rng.uniform(0.6, 1.2)), blur=blur)


def paint_backdrop(
    rng: np.random.Generator, style: BackdropStyle, size_hw: tuple[int, int], ground: float
) -> npt.NDArray[np.uint8]:
    """Paint a background.

    Args:
        rng: Source of randomness.
        style: Place, clutter and blur.
        size_hw: Size in px.
        ground: Height of the figures' feet as a share of the image's height (may exceed 1).

    Returns:
        Shape (H, W, 3), uint8 RGB.
    """
    height, width = size_hw
    shrink = min(1.0, 320 / max(size_hw))  # it is out of focus: no need to paint it at full size
    small = (max(8, round(width * shrink)), max(8, round(height * shrink)))
    image = np.empty((small[1], small[0], 3), dtype=np.uint8)
    stage = Stage(image, rng, horizon=min(max(ground - 0.17, 0.30), 1.15), clutter=style.clutter)
    PLACES[style.place](stage)
    deviation = style.blur * max(small)
    if deviation > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), deviation).astype(np.uint8, copy=False)
    if small == (width, height):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(
        np.uint8, copy=False
    )


def _choose(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    return jitter(rng, colours[int(rng.integers(len(colours)))], 6)


def _studio(stage: Stage) -> None:
    tone = _choose(stage.rng, _WALLS)
    stage.gradient(0, stage.horizon, shade(tone, 0.94), shade(tone, 1.06))
    stage.gradient(stage.horizon, 1, shade(tone, 0.98), shade(tone, 0.82))
    stage.glow((stage.aspect * stage.rng.uniform(0.3, 0.7), 0.35), 0.7, (255, 250, 240), 0.25)
    if stage.rng.random() < 0.4:
        band = stage.rng.uniform(0.2, 0.5) * stage.aspect
        x = stage.rng.uniform(0, stage.aspect - band)
        stage.box(x, 0, x + band, stage.horizon, shade(tone, 0.88))


def _street(stage: Stage) -> None:
    rng = stage.rng
    sky = _choose(rng, ((168, 200, 228), (210, 214, 220), (240, 206, 178), (140, 170, 206)))
    stage.gradient(0, stage.horizon, sky, mix(sky, (250, 244, 236), 0.7))
    x = rng.uniform(-0.2, 0.0)
    while x < stage.aspect:
        x += outdoors.building(stage, x)
    pavement = _choose(rng, ((176, 172, 168), (150, 150, 154), (190, 180, 166)))
    stage.gradient(stage.horizon, 1.0, shade(pavement, 0.9), shade(pavement, 1.05))
    stage.perspective_lines(stage.horizon, shade(pavement, 0.84), 9)
    stage.box(0, stage.horizon, stage.aspect, stage.horizon + 0.012, shade(pavement, 0.7))
    for _ in range(stage.count(6)):
        options = (outdoors.car, outdoors.tree, outdoors.lamp_post, outdoors.passer_by)
        options[int(rng.integers(len(options)))](stage)


def _room(stage: Stage) -> None:
    rng = stage.rng
    wall = _choose(rng, _WALLS)
    stage.gradient(0, stage.horizon, shade(wall, 1.03), shade(wall, 0.93))
    if rng.random() < 0.35:
        step = rng.uniform(0.05, 0.1)
        for x in np.arange(0, stage.aspect, step):
            stage.box(x, 0, x + step * 0.45, stage.horizon, shade(wall, 0.95))
    wood = _choose(rng, ((176, 132, 92), (140, 100, 70), (204, 176, 140), (120, 112, 108)))
    stage.gradient(stage.horizon, 1.0, shade(wood, 0.85), shade(wood, 1.05))
    stage.perspective_lines(stage.horizon, shade(wood, 0.75), 12)
    stage.box(0, stage.horizon - 0.03, stage.aspect, stage.horizon, (238, 234, 226))
    for _ in range(stage.count(6)):
        options = (
            indoors.window, indoors.image_frame, indoors.plant, indoors.sofa,
            indoors.floor_lamp, indoors.bookshelf,
        )  # fmt: skip
        options[int(rng.integers(len(options)))](stage)


def _park(stage: Stage) -> None:
    rng = stage.rng
    sky = _choose(rng, ((176, 208, 232), (226, 224, 212), (246, 218, 188)))
    stage.gradient(0, stage.horizon, sky, mix(sky, (255, 252, 244), 0.6))
    leaf = _choose(rng, ((92, 128, 72), (126, 150, 84), (184, 134, 64), (70, 104, 84)))
    for row in range(3):
        base = stage.horizon - 0.20 + 0.10 * row
        for _ in range(9):
            stage.blob(rng.uniform(0, stage.aspect), base, rng.uniform(0.06, 0.15),
                       jitter(rng, shade(leaf, 0.75 + 0.15 * row), 8))  # fmt: skip
    grass = _choose(rng, ((126, 158, 88), (150, 164, 96), (104, 136, 82)))
    stage.gradient(stage.horizon, 1.0, shade(grass, 0.85), shade(grass, 1.08))
    path = [(0.35, 0.0), (0.65, 0.0), (1.05, 1.0), (-0.05, 1.0)]
    if rng.random() < 0.6:
        points = [(x * stage.aspect, stage.horizon + y * (1 - stage.horizon)) for x, y in path]
        stage.polygon(points, (206, 192, 166))
    for _ in range(stage.count(6)):
        options = (outdoors.tree, outdoors.tree, outdoors.lamp_post, outdoors.bench)
        options[int(rng.integers(len(options)))](stage)


def _bricks(stage: Stage) -> None:
    rng = stage.rng
    brick = _choose(rng, ((164, 92, 74), (190, 170, 156), (132, 104, 96), (206, 202, 196)))
    outdoors.brick_wall(stage, brick)
    floor = _choose(rng, ((150, 146, 144), (120, 116, 118)))
    stage.gradient(stage.horizon, 1.0, shade(floor, 0.85), shade(floor, 1.05))
    for _ in range(stage.count(5)):
        options = (outdoors.poster, outdoors.lamp_post, indoors.plant, outdoors.bench)
        options[int(rng.integers(len(options)))](stage)


def _shop(stage: Stage) -> None:
    rng = stage.rng
    wall = _choose(rng, _WALLS)
    stage.gradient(0, stage.horizon, shade(wall, 1.0), shade(wall, 0.9))
    floor = _choose(rng, ((196, 190, 184), (158, 136, 116)))
    stage.gradient(stage.horizon, 1.0, shade(floor, 0.9), shade(floor, 1.05))
    indoors.shelves(stage)
    for _ in range(stage.count(5)):
        options = (indoors.clothes_rack, indoors.plant, indoors.floor_lamp)
        options[int(rng.integers(len(options)))](stage)


def _runway(stage: Stage) -> None:
    rng = stage.rng
    dark = _choose(rng, ((44, 44, 58), (58, 46, 60), (36, 50, 64)))
    stage.gradient(0, stage.horizon, shade(dark, 0.7), shade(dark, 1.3))
    for x in np.linspace(0.05, 0.95, 6):
        stage.glow((x * stage.aspect, 0.03), 0.13, (255, 244, 220), 0.9)
    for _ in range(3 + stage.count(12)):
        indoors.spectator(stage, dark)
    stage.gradient(stage.horizon, 1.0, shade(dark, 1.7), shade(dark, 2.4))
    strip = [(0.30, 0.0), (0.70, 0.0), (1.02, 1.0), (-0.02, 1.0)]
    points = [(x * stage.aspect, stage.horizon + y * (1 - stage.horizon)) for x, y in strip]
    stage.polygon(points, (214, 210, 206))


def _beach(stage: Stage) -> None:
    rng = stage.rng
    sky = _choose(rng, ((150, 200, 232), (244, 204, 176), (190, 214, 226)))
    sea = stage.horizon - 0.10
    stage.gradient(0, sea, sky, mix(sky, (255, 250, 240), 0.65))
    water = _choose(rng, ((70, 148, 170), (96, 160, 190), (58, 118, 150)))
    stage.gradient(sea, stage.horizon, water, mix(water, (230, 240, 238), 0.4))
    sand = _choose(rng, ((230, 208, 168), (214, 190, 152)))
    stage.gradient(stage.horizon, 1.0, shade(sand, 0.96), shade(sand, 1.04))
    for _ in range(stage.count(5)):
        options = (outdoors.parasol, outdoors.cloud, outdoors.sail)
        options[int(rng.integers(len(options)))](stage)


PLACES: dict[str, Callable[[Stage], None]] = {
    "studio": _studio,
    "street": _street,
    "room": _room,
    "park": _park,
    "bricks": _bricks,
    "shop": _shop,
    "runway": _runway,
    "beach": _beach,
}
"""Painter of each place."""
