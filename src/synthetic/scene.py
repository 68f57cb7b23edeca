"""Scene of one image: its size, its figures, their framing."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.synthetic.backdrop import BackdropStyle, random_backdrop
from src.synthetic.body import CROTCH
from src.synthetic.figure import Figure
from src.synthetic.kinds import Kind
from src.synthetic.outfit import choose_outfit
from src.synthetic.wardrobe import draw_figure

_ASPECTS = ((2, 3, 0.46), (3, 4, 0.24), (4, 5, 0.10), (9, 16, 0.06), (1, 1, 0.06), (3, 2, 0.08))
"""Width, height and share of each shape of image."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Content of an image."""

    size_hw: tuple[int, int]
    figures: tuple[Figure, ...]
    placements: tuple[npt.NDArray[np.float64], ...]
    """For each figure, shape (2, 3): head heights to shares of the image's height."""
    backdrop: BackdropStyle
    ground: float
    """Height of the feet, as a share of the image's height."""


def random_size(
    rng: np.random.Generator, long_edge: int, never_square: bool = False
) -> tuple[int, int]:
    """(height, width) of an image with the given long edge, in px."""
    shares = np.array([row[2] * (row[0] != row[1] or not never_square) for row in _ASPECTS])
    width, height, _ = _ASPECTS[int(rng.choice(len(_ASPECTS), p=shares / shares.sum()))]
    scale = long_edge / max(width, height)
    return max(1, round(height * scale)), max(1, round(width * scale))


def random_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    difficulty: float,
    clutter: float,
    worn: Collection[int] = tuple(Kind),
) -> Scene:
    """Decide who and what is on an image of a given size; ``worn`` as in ``choose_outfit``."""
    height, width = size_hw
    wide = width / height
    couple = wide > 1.2 and rng.random() < 0.4
    figures, placements, ground = [], [], 1.2
    for number in range(2 if couple else 1):
        outfit = choose_outfit(rng, upright=wide <= 1.0, worn=worn)
        figure = draw_figure(rng, outfit, difficulty)
        centre = 0.5 * wide
        if couple:
            centre = wide * (0.29 if number == 0 else 0.71)
        place, ground = _place(rng, figure, outfit.framing, centre, wide, difficulty)
        figures.append(figure)
        placements.append(place)
    backdrop = random_backdrop(rng, clutter)
    return Scene(size_hw, tuple(figures), tuple(placements), backdrop, ground)


def _place(
    rng: np.random.Generator,
    figure: Figure,
    framing: str,
    centre: float,
    wide: float,
    difficulty: float,
) -> tuple[npt.NDArray[np.float64], float]:
    """Return a figure's place in the frame: the matrix, and the height of its feet."""
    kinds = {entry.kind for entry in figure.drawing.objects}
    heads = figure.body.shape.heads
    top = -1.05 if Kind.UMBRELLA in kinds else -0.34 if Kind.HAT in kinds else -0.14
    raised = min(float(arm.point(1.0)[1]) for arm in figure.body.arms) - 0.45
    top = min(top, raised)
    bottom = {
        "full": heads + 0.28,
        "knee": CROTCH + rng.uniform(0.36, 0.56) * (heads - CROTCH),
        "hip": rng.uniform(2.95, 3.35),
    }[framing]
    room = rng.uniform(0.01, 0.05 + 0.10 * difficulty)
    span = (bottom - top) * (1 + room)
    reach = 2 * max(1.25, *(abs(float(arm.point(1.0)[0])) + 0.2 for arm in figure.body.arms))
    span = max(span, 0.86 * reach / wide if framing == "full" else 0.75 * reach / wide)
    scale = 1 / span
    spread = 0.03 + 0.08 * difficulty
    x = centre + wide * float(np.clip(rng.normal(0, spread), -0.16, 0.16))
    slack = 1 - (bottom - top) * scale
    y = -top * scale + slack * (0.5 if framing == "full" else 0.85)
    lean = float(rng.normal(0, 0.012 + 0.03 * difficulty))
    cosine, sine = scale * math.cos(lean), scale * math.sin(lean)
    matrix = np.array([[cosine, -sine, x], [sine, cosine, y]])
    matrix[:, 2] -= matrix[:, :2] @ np.array([0.0, 2.5]) - np.array([0.0, 2.5 * scale])
    return matrix, y + heads * scale
