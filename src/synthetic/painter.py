"""From a drawing to pixels: cloth, shading, outlines and shadows, piece upon piece."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from src.synthetic.drawing import Fold, Mark, Part, Piece
from src.synthetic.fabrics import texture
from src.synthetic.geometry import Points
from src.synthetic.palette import Colour

SHIFT = 4  # OpenCV takes coordinates as integers with this many fractional bits
OUTLINE = 0.022  # head heights
_BROAD = 0.06  # head heights: from here on a line is a shape of the figure, not of the pen
_WHOLE_FIGURE = 6.6  # head heights that an image shows of a standing figure
_SHADING_PX_PER_UNIT = 22  # curvature and folds are soft, so they are computed on a coarse grid
_LIGHT = (1.1, 0.7)  # brightening of slopes that face left and up
_ONE = 160  # the brightness, of 255, that leaves a colour as it is

Matrix = npt.NDArray[np.float64]
"""Shape (2, 3): drawing units to pixel coordinates, pixel centres at whole numbers."""


def to_pixels(matrix: Matrix, points: Points) -> Points:
    """Apply an affine matrix. Shape (N, 2) -> (N, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def fixed_point(points_px: Points) -> npt.NDArray[np.int32]:
    """Pixel coordinates as OpenCV's fixed-point integers."""
    return np.rint(points_px * (1 << SHIFT)).astype(np.int32)


def fill(target: npt.NDArray[np.uint8], points_px: Points, value: int | Colour, line: int) -> None:
    """Fill one outline; ``line`` is cv2.LINE_AA for images, cv2.LINE_8 for masks."""
    cv2.fillPoly(target, [fixed_point(points_px)], value, line, SHIFT)


class Canvas:
    """An image that pieces are painted on, one after the other.

    Args:
        image: Shape (H, W, 3), uint8 RGB; changed in place.
        matrix: Drawing units to pixels of the image.
    """

    def __init__(self, image: npt.NDArray[np.uint8], matrix: Matrix) -> None:
        self.image = image
        self.matrix = matrix
        self.px_per_unit = math.hypot(matrix[0, 0], matrix[1, 0])
        # lines grow less than the figure does in a close view
        self._pen = math.sqrt(self.px_per_unit * max(image.shape[:2]) / _WHOLE_FIGURE)

    def paint(self, piece: Piece) -> None:
        """Paint a piece, its parts and marks, and its shadow on what is there."""
        outlines = [to_pixels(self.matrix, outline) for outline in piece.outlines]
        window = self._window(outlines)
        if window is None:
            return
        x0, y0, x1, y1 = window
        offset = np.array([x0, y0], dtype=np.float64)
        local = self.matrix.copy()
        local[:, 2] -= offset
        alpha = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
        for outline in outlines:
            fill(alpha, outline - offset, 255, cv2.LINE_AA)
        target = self.image[y0:y1, x0:x1]
        if piece.shadow > 0:
            self._cast_shadow(target, alpha, piece.shadow)
        anchor = offset - to_pixels(self.matrix, piece.outlines[0][:1])[0]
        cloth = texture(piece.fabric, alpha.shape, (anchor[0], anchor[1]), self.px_per_unit)
        for mark in piece.marks:
            self._draw_mark(cloth, mark, local)
        for part in piece.parts:
            self._draw_part(cloth, part, local)
        if piece.edge > 0:
            width = self._stroke_px(2 * OUTLINE * piece.edge)
            ink = piece.fabric.line_colour
            for outline in outlines:
                path = fixed_point(outline - offset)
                cv2.polylines(cloth, [path], True, ink, width, cv2.LINE_AA, SHIFT)
        light = self._shading(alpha, piece.folds, piece.fabric.relief, local)
        cv2.multiply(cloth, cv2.merge([light, light, light]), dst=cloth, scale=1 / _ONE)
        share = alpha.astype(np.float32) * np.float32(piece.opacity / 255)
        target[:] = cv2.blendLinear(cloth, target, share, 1 - share)

    def _window(self, outlines: Sequence[Points]) -> tuple[int, int, int, int] | None:
        """The part of the image that a piece and its shadow touch, as x0, y0, x1, y1."""
        points = np.concatenate(outlines)
        reach = 0.2 * self.px_per_unit + 2
        x0, y0 = np.floor(points.min(axis=0) - reach).astype(int)
        x1, y1 = np.ceil(points.max(axis=0) + reach).astype(int)
        height, width = self.image.shape[:2]
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None

    def _stroke_px(self, width: float) -> int:
        return max(1, round(width * (self._pen if width < _BROAD else self.px_per_unit)))

    def _draw_mark(self, cloth: npt.NDArray[np.uint8], mark: Mark, local: Matrix) -> None:
        points = to_pixels(local, mark.points)
        if mark.width == 0:
            fill(cloth, points, mark.colour, cv2.LINE_AA)
        else:
            width = self._stroke_px(mark.width)
            path = fixed_point(points)
            cv2.polylines(cloth, [path], mark.closed, mark.colour, width, cv2.LINE_AA, SHIFT)

    def _draw_part(self, cloth: npt.NDArray[np.uint8], part: Part, local: Matrix) -> None:
        points = to_pixels(local, part.outline)
        low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 3, 0)
        high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 4, cloth.shape[1::-1])
        if (high - low < 2).any():
            return
        window = cloth[low[1] : high[1], low[0] : high[0]]
        points -= low
        matrix = local.copy()
        matrix[:, 2] -= low
        height, width = window.shape[:2]
        alpha = np.zeros((height, width), dtype=np.uint8)
        if part.edge > 0:  # a thin shadow below lifts the part off the cloth
            drop = np.array([0.3, 1.0]) * 0.03 * self.px_per_unit
            fill(alpha, points + drop, 96, cv2.LINE_AA)
            dark = alpha.astype(np.float32) / 255
            black = np.zeros_like(window)
            window[:] = cv2.blendLinear(black, window, dark, 1 - dark)
            alpha[:] = 0
        fill(alpha, points, 255, cv2.LINE_AA)
        patch = texture(part.fabric, (height, width), (0.0, 0.0), self.px_per_unit)
        for mark in part.marks:
            self._draw_mark(patch, mark, matrix)
        if part.edge > 0:
            path = fixed_point(points)
            ink, stroke = part.fabric.line_colour, self._stroke_px(2 * OUTLINE * part.edge)
            cv2.polylines(patch, [path], True, ink, stroke, cv2.LINE_AA, SHIFT)
        share = alpha.astype(np.float32) / 255
        window[:] = cv2.blendLinear(patch, window, share, 1 - share)

    def _cast_shadow(
        self, target: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], strength: float
    ) -> None:
        height, width = alpha.shape
        factor = max(1, round(self.px_per_unit / _SHADING_PX_PER_UNIT))
        size = (max(1, width // factor), max(1, height // factor))
        small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
        drop = np.array([[1, 0, 1.4], [0, 1, 1.8]])
        moved = cv2.blur(cv2.warpAffine(small, drop, size), (5, 5))
        light = cv2.resize(cv2.convertScaleAbs(moved, alpha=-strength, beta=255), (width, height))
        cv2.multiply(target, cv2.merge([light, light, light]), dst=target, scale=1 / 255)

    def _shading(
        self,
        alpha: npt.NDArray[np.uint8],
        folds: Sequence[Fold],
        relief: float,
        local: Matrix,
    ) -> npt.NDArray[np.uint8]:
        """Brightness, ``_ONE`` for no change: the curvature of the inflated outline, and folds."""
        height, width = alpha.shape
        factor = max(1, round(self.px_per_unit / _SHADING_PX_PER_UNIT))
        size = (max(2, width // factor), max(2, height // factor))
        small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        swell = cv2.blur(cv2.blur(small, (7, 7)), (5, 5))
        light = 0.86 + 0.16 * swell
        slope_x = cv2.Sobel(swell, cv2.CV_32F, 1, 0, scale=0.25)
        slope_y = cv2.Sobel(swell, cv2.CV_32F, 0, 1, scale=0.25)
        light += relief * (_LIGHT[0] * slope_x + _LIGHT[1] * slope_y)
        if folds:
            crease = np.zeros_like(light)
            matrix = local / factor
            for fold in folds:
                path = fixed_point(to_pixels(matrix, fold.points))
                stroke = max(1, round(fold.width * self.px_per_unit / factor))
                cv2.polylines(crease, [path], False, fold.strength, stroke, cv2.LINE_AA, SHIFT)
            light += relief * cv2.blur(crease, (3, 3))
        level = np.clip(light * _ONE, 0, 255).astype(np.uint8)
        result: npt.NDArray[np.uint8] = cv2.resize(level, (width, height)).astype(
            np.uint8, copy=False
        )
        return result
