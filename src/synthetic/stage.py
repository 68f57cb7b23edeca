"""A surface to paint backgrounds on. Lengths are shares of the image's height."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from src.synthetic.palette import CLOTH, Colour, mix

_SHIFT = 4
_TONES = tuple(CLOTH.values())


class Stage:
    """A background in the making; x runs from 0 to ``aspect``, y from 0 to 1."""

    def __init__(
        self,
        image: npt.NDArray[np.uint8],
        rng: np.random.Generator,
        horizon: float,
        clutter: float,
    ) -> None:
        self.image = image
        self.rng = rng
        self.horizon = horizon
        self.clutter = clutter
        self.unit = image.shape[0]
        self.aspect = image.shape[1] / image.shape[0]

    def count(self, most: int) -> int:
        """Return how many things to place, up to ``most``, by the clutter."""
        return round(self.clutter * most * float(self.rng.uniform(0.5, 1.2)))

    def anywhere(self) -> float:
        """An x for a thing: anywhere, more often beside the middle where the figure stands."""
        side = self.rng.choice((-1, 1))
        return float(self.aspect * (0.5 + side * self.rng.uniform(0.12, 0.55)))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        path = np.round(np.asarray(points) * self.unit * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.image, [path], colour, cv2.LINE_AA, _SHIFT)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle."""
        left, top, right, bottom = (round(v * self.unit) for v in (x0, y0, x1, y1))
        if right > 0 and bottom > 0:
            self.image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour

    def blob(self, x: float, y: float, radius: float, colour: Colour, tall: float = 1.0) -> None:
        """Fill an ellipse."""
        centre = (round(x * self.unit), round(y * self.unit))
        axes = (max(1, round(radius * self.unit)), max(1, round(radius * tall * self.unit)))
        cv2.ellipse(self.image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    def gradient(self, top: float, bottom: float, upper: Colour, lower: Colour) -> None:
        """Fill a band from one colour to another."""
        first, last = round(max(top, 0) * self.unit), round(min(max(bottom, 0), 1) * self.unit)
        if last <= first:
            return
        share = np.linspace(0, 1, last - first)[:, None]
        rows = np.asarray(upper) * (1 - share) + np.asarray(lower) * share
        self.image[first:last] = rows[:, None].astype(np.uint8)

    def glow(
        self, centre: tuple[float, float], radius: float, colour: Colour, strength: float
    ) -> None:
        """Add a soft light."""
        height, width = self.image.shape[:2]
        x = np.linspace(0, self.aspect, 32, dtype=np.float32) - centre[0]
        y = np.linspace(0, 1, 32, dtype=np.float32)[:, None] - centre[1]
        share = strength * np.exp(-(x * x + y * y) / radius**2)
        alpha = cv2.resize(share.astype(np.float32), (width, height))
        light = np.empty_like(self.image)
        cv2.rectangle(light, (0, 0), (width, height), colour, -1)
        self.image[:] = cv2.blendLinear(light, self.image, alpha, 1 - alpha)

    def perspective_lines(self, top: float, colour: Colour, count: int) -> None:
        """Lines of a floor that meet at the horizon, and cross lines."""
        if top >= 1:
            return
        vanishing = (self.aspect * 0.5, top - 0.25)
        for x in np.linspace(-1.2, 2.2, count * 2):
            start = vanishing[0] + (x * self.aspect - vanishing[0]) * 0.45
            width = 0.003
            self.polygon(
                [(start, top), (x * self.aspect - width, 1.0), (x * self.aspect + width, 1.0)],
                colour,
            )
        for share in (0.12, 0.32, 0.62):
            y = top + share * (1 - top)
            self.box(0, y, self.aspect, y + 0.004, colour)

    def tone(self) -> Colour:
        """A muted colour."""
        rng = self.rng
        return mix(
            _TONES[int(rng.integers(len(_TONES)))], (150, 146, 142), float(rng.uniform(0.3, 0.6))
        )
