"""Fabrics: a small repeating tile for each pattern, laid over a garment at any scale and angle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from src.synthetic.palette import Colour, mix, shade

Tile = npt.NDArray[np.uint8]
"""Shape (P, P, 3), uint8 RGB; repeats in both directions without a seam."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """Fabric of a garment.

    ``period`` is the size of one repeat of the pattern in head heights; ``seed`` places the motifs
    of patterns that have random ones; ``relief`` says how strongly folds and curvature show.
    """

    colour: Colour
    pattern: str = "plain"
    accent: Colour = (250, 246, 236)
    period: float = 0.4
    angle: float = 0.0
    seed: int = 0
    relief: float = 1.0

    @property
    def line_colour(self) -> Colour:
        """For outlines and seams: the same hue, darker."""
        return shade(self.colour, 0.52)


def texture(
    fabric: Fabric, size_hw: tuple[int, int], origin_xy: tuple[float, float], px_per_unit: float
) -> npt.NDArray[np.uint8]:
    """The fabric seen through a window.

    Args:
        fabric: What to lay.
        size_hw: Window in px.
        origin_xy: Window's top left corner relative to the fabric's anchor, in px.
        px_per_unit: Scale of the drawing.

    Returns:
        Shape (H, W, 3), uint8 RGB.
    """
    height, width = size_hw
    if fabric.pattern == "plain":
        window = np.empty((height, width, 3), dtype=np.uint8)
        cv2.rectangle(window, (0, 0), (width, height), fabric.colour, -1)
        return window
    side = int(np.clip(round(fabric.period * px_per_unit), 6, 512))
    tile = PATTERNS[fabric.pattern](fabric, side)
    if fabric.angle == 0:
        x0, y0 = int(origin_xy[0]) % side, int(origin_xy[1]) % side
        sheet = np.tile(tile, ((y0 + height) // side + 1, (x0 + width) // side + 1, 1))
        return np.ascontiguousarray(sheet[y0 : y0 + height, x0 : x0 + width])
    reach = math.ceil(math.hypot(height, width)) + 2
    sheet = np.tile(tile, (reach // side + 2, reach // side + 2, 1))
    cosine, sine = math.cos(fabric.angle), math.sin(fabric.angle)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0]])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ turn[:, :2].T
    anchor = turn[:, :2] @ np.asarray(origin_xy)
    turn[:, 2] = (anchor + corners.min(axis=0)) % side - corners.min(axis=0)
    return cv2.warpAffine(
        sheet, turn, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    ).astype(np.uint8, copy=False)


def _blank(fabric: Fabric, side: int) -> Tile:
    tile = np.empty((side, side, 3), dtype=np.uint8)
    tile[:] = fabric.colour
    return tile


def _stripes(fabric: Fabric, side: int) -> Tile:
    tile = _blank(fabric, side)
    tile[:, : max(2, round(side * 0.42))] = fabric.accent
    return tile


def _bands(fabric: Fabric, side: int) -> Tile:
    return np.ascontiguousarray(_stripes(fabric, side).transpose(1, 0, 2))


def _pinstripes(fabric: Fabric, side: int) -> Tile:
    tile = _blank(fabric, side)
    tile[:, : max(1, side // 9)] = mix(fabric.colour, fabric.accent, 0.75)
    return tile


def _check(fabric: Fabric, side: int) -> Tile:
    stripe = (np.arange(side) < side / 2).astype(np.intp)
    tones = np.array([fabric.colour, mix(fabric.colour, fabric.accent, 0.5), fabric.accent])
    return np.ascontiguousarray(tones.astype(np.uint8)[stripe[:, None] + stripe])


def _tartan(fabric: Fabric, side: int) -> Tile:
    line = np.zeros(side)
    line[: round(side * 0.45)] = 0.45
    line[round(side * 0.18) : round(side * 0.26)] = 0.95
    line[round(side * 0.68) : round(side * 0.74) + 1] = 0.75
    share = (line[:, None] + line)[..., None] / 2
    blend = np.asarray(fabric.colour) * (1 - share) + np.asarray(fabric.accent) * share
    return blend.astype(np.uint8)


def _dots(fabric: Fabric, side: int) -> Tile:
    tile = _blank(fabric, side)
    radius = max(1, round(side * 0.15))
    for x, y in ((0.25, 0.25), (0.75, 0.75)):
        centre = (int(x * side * 16), int(y * side * 16))
        cv2.circle(tile, centre, radius * 16, fabric.accent, -1, cv2.LINE_AA, 4)
    return tile


def _motifs(fabric: Fabric, side: int, draw: Callable[..., None], count: int) -> Tile:
    """Scatter motifs on a torus: each is drawn nine times so that the tile has no seam."""
    tile = _blank(fabric, side)
    rng = np.random.default_rng(fabric.seed)
    for index in range(count):
        x, y, turn = rng.random(3)
        for column in (-1, 0, 1):
            for row in (-1, 0, 1):
                centre = np.array([(x + column) * side, (y + row) * side])
                draw(tile, fabric, centre, side, turn, index)
    return tile


def _flower(
    tile: Tile, fabric: Fabric, centre: npt.NDArray[np.float64], side: int, turn: float, index: int
) -> None:
    petal = fabric.accent if index % 3 else mix(fabric.accent, (255, 214, 120), 0.6)
    radius = side * (0.07 if index % 2 else 0.10)
    angles = 2 * math.pi * (turn + np.arange(5) / 5)
    for angle in angles:
        at = centre + radius * np.array([math.cos(angle), math.sin(angle)])
        _disc(tile, at, radius * 0.62, petal)
    _disc(tile, centre, radius * 0.5, shade(fabric.colour, 0.6))


def _leaf(
    tile: Tile, fabric: Fabric, centre: npt.NDArray[np.float64], side: int, turn: float, index: int
) -> None:
    axes = (int(side * 0.15 * 16), int(side * 0.05 * 16))
    place = (int(centre[0] * 16), int(centre[1] * 16))
    tone = fabric.accent if index % 2 else mix(fabric.colour, fabric.accent, 0.5)
    cv2.ellipse(tile, place, axes, turn * 360, 0, 360, tone, -1, cv2.LINE_AA, 4)


def _spot(
    tile: Tile, fabric: Fabric, centre: npt.NDArray[np.float64], side: int, turn: float, _index: int
) -> None:
    _disc(tile, centre, side * 0.075, shade(fabric.colour, 0.66))
    place = (int(centre[0]), int(centre[1]))
    radius = max(1, round(side * 0.085))
    width = max(1, round(side * 0.045))
    start = turn * 360
    for arc in (start, start + 180):
        cv2.ellipse(tile, place, (radius, radius), arc, 0, 125, fabric.accent, width, cv2.LINE_AA)


def _disc(tile: Tile, centre: npt.NDArray[np.float64], radius: float, colour: Colour) -> None:
    place = (int(centre[0] * 16), int(centre[1] * 16))
    cv2.circle(tile, place, max(12, int(radius * 16)), colour, -1, cv2.LINE_AA, 4)


def _noise(side: int, seed: int, blur: float) -> npt.NDArray[np.float32]:
    """Smooth noise on a torus, mean 0, deviation 1. Shape (side, side)."""
    rng = np.random.default_rng(seed)
    noise = np.tile(rng.standard_normal((side, side)).astype(np.float32), (3, 3))
    field = cv2.GaussianBlur(noise, (0, 0), blur).astype(np.float32)
    field = field[side : 2 * side, side : 2 * side]
    result: npt.NDArray[np.float32] = (field - field.mean()) / max(float(field.std()), 1e-6)
    return result


def _tint(fabric: Fabric, level: npt.NDArray[np.floating]) -> Tile:
    tile = np.asarray(fabric.colour, dtype=np.float32) * (1 + level[..., None])
    return np.clip(tile, 0, 255).astype(np.uint8)


def _denim(fabric: Fabric, side: int) -> Tile:
    x = np.arange(side)
    twill = np.sin(2 * math.pi * (x[:, None] + x) * max(2, side // 6) / side)
    return _tint(fabric, 0.05 * twill + 0.05 * _noise(side, fabric.seed, 0.6))


def _knit(fabric: Fabric, side: int) -> Tile:
    """Columns of V stitches."""
    columns, rows = max(1, side // 12), max(2, side // 8)
    x, y = np.arange(side) / side * columns, np.arange(side)[:, None] / side * rows
    chevron = np.abs(x % 1 - 0.5)
    stitch = np.cos(2 * math.pi * (y + chevron * 1.4)) * 0.10
    gutter = np.where(chevron > 0.42, -0.20, 0.03)
    return _tint(fabric, stitch + gutter)


def _rib(fabric: Fabric, side: int) -> Tile:
    level = 0.16 * np.sin(2 * math.pi * np.arange(side) / side)
    return _tint(fabric, np.broadcast_to(level, (side, side)))


def _camouflage(fabric: Fabric, side: int) -> Tile:
    field = _noise(side, fabric.seed, side * 0.07)
    tones = np.array(
        [shade(fabric.colour, 0.55), fabric.colour, mix(fabric.colour, fabric.accent, 0.55)]
    )
    return tones.astype(np.uint8)[(field > -0.35).astype(np.intp) + (field > 0.6)]


def _herringbone(fabric: Fabric, side: int) -> Tile:
    x, y = np.arange(side) / side, np.arange(side)[:, None] / side
    zigzag = np.abs((x * 2) % 2 - 1)
    band = ((y * 4 + zigzag * 2) % 1) < 0.5
    tones = np.array([fabric.colour, mix(fabric.colour, fabric.accent, 0.45)])
    result: Tile = tones.astype(np.uint8)[band.astype(np.intp)]
    return result


def _argyle(fabric: Fabric, side: int) -> Tile:
    x, y = np.abs(np.arange(side) / side - 0.5), np.abs(np.arange(side)[:, None] / side - 0.5)
    diamond = (x + y < 0.5).astype(np.intp)
    tones = np.array([fabric.colour, mix(fabric.colour, fabric.accent, 0.6)]).astype(np.uint8)
    tile = tones[diamond]
    tile[np.abs(np.abs(x - y) - 0.25) < 0.02] = fabric.accent
    return tile


def _glitter(fabric: Fabric, side: int) -> Tile:
    level = _noise(side, fabric.seed, 0.5)
    return _tint(fabric, np.where(level > 1.2, 0.9, 0.16 * level))


PATTERNS: dict[str, Callable[[Fabric, int], Tile]] = {
    "stripe": _stripes,
    "band": _bands,
    "pinstripe": _pinstripes,
    "check": _check,
    "tartan": _tartan,
    "dot": _dots,
    "floral": lambda fabric, side: _motifs(fabric, side, _flower, 5),
    "plant": lambda fabric, side: _motifs(fabric, side, _leaf, 8),
    "leopard": lambda fabric, side: _motifs(fabric, side, _spot, 9),
    "camouflage": _camouflage,
    "herringbone": _herringbone,
    "argyle": _argyle,
    "denim": _denim,
    "knit": _knit,
    "rib": _rib,
    "glitter": _glitter,
}
"""How to make the tile of each pattern but ``plain``."""
