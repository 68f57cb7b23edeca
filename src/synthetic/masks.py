"""Masks of instances: occlusion, nesting and disjointness, exact to the pixel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from src.rle import Rle, encode_window
from src.synthetic.figure import Figure
from src.synthetic.geometry import Points
from src.synthetic.kinds import Kind
from src.synthetic.painter import fill, to_pixels
from src.synthetic.scene import Scene

_SMALLEST_SHARE = 1.5e-4  # of the image: smaller visible remains are not annotated
_SMALLEST_PX = 12
_FINE_UP_TO_PX = 720  # smaller images are cut out on a grid three times as fine
_LEAST_VISIBLE = 0.08  # of the object's own area


@dataclass(slots=True)
class _Found:
    kind: Kind
    attributes: tuple[int, ...]
    mask: npt.NDArray[np.bool_]  # of the window
    corner_xy: tuple[int, int]
    host: int  # index of the garment it is nested in; its own where it is none
    whole_px: float  # area if nothing hid it


def visible_objects(scene: Scene) -> list[tuple[Kind, tuple[int, ...], Rle]]:
    """Return kind, attributes and visible pixels of every instance of a scene.

    Pieces hide what was drawn before them, whoever they belong to. A garment is all its pieces,
    sleeves and hood included. A part is what is visible of its outline on the piece it sits on, so
    that it lies wholly within its garment. Objects of one kind share no pixel.
    """
    height, width = scene.size_hw
    count = sum(len(figure.drawing.pieces) for figure in scene.figures)
    fine = 3 if max(scene.size_hw) <= _FINE_UP_TO_PX else 1
    owner = np.zeros((fine * height, fine * width), dtype=np.uint8 if count < 255 else np.uint16)
    number = 0
    for figure, placement in zip(scene.figures, scene.placements, strict=True):
        matrix = _pixel_matrix(placement, height)
        for piece in figure.drawing.pieces:
            number += 1
            for outline in piece.outlines:
                _fill(owner, to_pixels(matrix, outline), number, fine)
    owner = np.ascontiguousarray(owner[fine // 2 :: fine, fine // 2 :: fine])
    found: list[_Found] = []
    number = 0
    for figure, placement in zip(scene.figures, scene.placements, strict=True):
        matrix = _pixel_matrix(placement, height)
        found += _objects_of(figure, matrix, owner, number, len(found), fine)
        number += len(figure.drawing.pieces)
    _make_disjoint(found)
    least = max(_SMALLEST_PX, _SMALLEST_SHARE * height * width)
    kept = [_visible(item, least) for item in found]
    return [
        (item.kind, item.attributes, encode_window(item.mask, item.corner_xy[::-1], scene.size_hw))
        for item, keep in zip(found, kept, strict=True)
        if keep and kept[item.host]
    ]


def _pixel_matrix(placement: npt.NDArray[np.float64], height: int) -> npt.NDArray[np.float64]:
    matrix = placement * height
    matrix[:, 2] -= 0.5
    return matrix


def _objects_of(
    figure: Figure,
    matrix: npt.NDArray[np.float64],
    owner: npt.NDArray[np.uint8],
    offset: int,
    first: int,
    fine: int,
) -> list[_Found]:
    drawing = figure.drawing
    shown: dict[int, list[int]] = defaultdict(list)  # object: the pieces that show it
    parts: dict[int, tuple[int, Points]] = {}  # object: the piece it is on, its outline
    hosts = {}
    for number, piece in enumerate(drawing.pieces):
        for index in piece.objects:
            shown[index].append(number)
            hosts[index] = piece.objects[0]
        for part in piece.parts:
            parts[part.object_index] = (number, part.outline)
            hosts[part.object_index] = piece.objects[0]
    found = []
    for index, entry in enumerate(drawing.objects):
        if index in parts:
            number, outline = parts[index]
            outlines = [to_pixels(matrix, outline)]
            numbers = [number]
        else:
            numbers = shown[index]
            outlines = [
                to_pixels(matrix, outline)
                for n in numbers
                for outline in drawing.pieces[n].outlines
            ]
        x0, y0, x1, y1 = _window(outlines, owner.shape)
        view = owner[y0:y1, x0:x1]
        table = np.zeros(np.iinfo(owner.dtype).max + 1, dtype=bool)
        table[[offset + n + 1 for n in numbers]] = True
        mask = table[view]
        if index in parts and mask.size:
            stencil = np.zeros((fine * view.shape[0], fine * view.shape[1]), dtype=np.uint8)
            _fill(stencil, outlines[0] - (x0, y0), 1, fine)
            mask &= stencil[fine // 2 :: fine, fine // 2 :: fine].astype(bool)
        whole = sum(abs(cv2.contourArea(o.astype(np.float32))) for o in outlines)
        host = first + hosts.get(index, index)
        found.append(_Found(entry.kind, entry.attributes, mask, (x0, y0), host, whole))
    return found


def _fill(target: npt.NDArray[np.uint8], points_px: Points, value: int, fine: int) -> None:
    """OpenCV's fill covers the pixels that the outline touches too: on a finer grid, by less."""
    fill(target, points_px * fine + fine // 2, value, cv2.LINE_8)


def _window(outlines: list[Points], size_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    if not outlines:
        return 0, 0, 0, 0
    points = np.concatenate(outlines)
    low = np.clip(np.floor(points.min(axis=0)) - 1, 0, size_hw[::-1]).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 2, 0, size_hw[::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _make_disjoint(found: list[_Found]) -> None:
    """Take from each object what an earlier one of its kind has already."""
    by_kind: dict[Kind, list[_Found]] = defaultdict(list)
    for item in found:
        for other in by_kind[item.kind]:
            x0, y0 = np.maximum(item.corner_xy, other.corner_xy)
            x1, y1 = np.minimum(
                np.add(item.corner_xy, item.mask.shape[::-1]),
                np.add(other.corner_xy, other.mask.shape[::-1]),
            )
            if x0 < x1 and y0 < y1:
                (ax, ay), (bx, by) = item.corner_xy, other.corner_xy
                theirs = other.mask[y0 - by : y1 - by, x0 - bx : x1 - bx]
                item.mask[y0 - ay : y1 - ay, x0 - ax : x1 - ax] &= ~theirs
        by_kind[item.kind].append(item)


def _visible(item: _Found, least_px: float) -> bool:
    area = int(np.count_nonzero(item.mask))
    return area >= least_px and area >= _LEAST_VISIBLE * item.whole_px
