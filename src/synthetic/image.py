"""A scene as an image and as masks: paint, photograph, cut out what is visible."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from src.rle import Rle
from src.synthetic.backdrop import paint_backdrop
from src.synthetic.kinds import Kind
from src.synthetic.masks import visible_objects
from src.synthetic.painter import Canvas, fill, to_pixels
from src.synthetic.scene import Scene, random_scene, random_size

_PAINTED_LONG_EDGE = 2048  # larger images are enlarged from this: real ones are no sharper


@dataclass(frozen=True, slots=True)
class ImageObject:
    """Annotated instance."""

    kind: Kind
    attributes: tuple[int, ...]
    mask: Rle


@dataclass(frozen=True, slots=True)
class Image:
    """Image with its ground truth."""

    image: npt.NDArray[np.uint8]  # (H, W, 3) RGB
    objects: tuple[ImageObject, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.image.shape[0], self.image.shape[1]


def draw_image(
    rng: np.random.Generator,
    long_edge: int,
    difficulty: float,
    clutter: float,
    *,
    never_square: bool = False,
    categories: Collection[int] = tuple(Kind),
) -> Image:
    """Draw one image with its instances.

    Args:
        rng: Source of randomness; the same state gives the same image.
        long_edge: In px.
        difficulty: 0 (usual colours, loud trims, calm poses, a figure that fills the frame) to 1.
        clutter: 0 (an empty, blurred place) to 1 (a crowded one).
        never_square: Give height and width different values.
        categories: What is worn, and which objects count; a part that is not among them is drawn
            all the same, as a piece of its garment.
    """
    size_hw = random_size(rng, long_edge, never_square)
    scene = random_scene(rng, size_hw, difficulty, clutter, categories)
    image = paint(rng, scene)
    found = visible_objects(scene)
    objects = tuple(
        ImageObject(kind, attributes, mask)
        for kind, attributes, mask in found
        if kind in categories
    )
    return Image(_develop(rng, image, scene.size_hw), objects)


def paint(rng: np.random.Generator, scene: Scene) -> npt.NDArray[np.uint8]:
    """Paint a scene at twice its size, or at 2,048 px where that is less. Shape (h, w, 3) RGB."""
    height, width = scene.size_hw
    scale = min(2.0, _PAINTED_LONG_EDGE / max(scene.size_hw))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = paint_backdrop(rng, scene.backdrop, size, scene.ground)
    for figure, placement in zip(scene.figures, scene.placements, strict=True):
        matrix = placement * size[0]
        matrix[:, 2] -= 0.5
        _cast_on_ground(image, matrix, figure.body.shape.heads)
        canvas = Canvas(image, matrix)
        for piece in figure.drawing.pieces:
            canvas.paint(piece)
    return image


def _cast_on_ground(
    image: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], heads: float
) -> None:
    height, width = image.shape[:2]
    factor = max(1, round(height / 128))
    small = np.full((max(1, height // factor), max(1, width // factor)), 255, dtype=np.uint8)
    turn = np.linspace(0, 2 * np.pi, 24)
    pool = np.stack([0.15 + 1.15 * np.cos(turn), heads + 0.16 + 0.17 * np.sin(turn)], axis=1)
    fill(small, to_pixels(matrix, pool) / factor, 140, cv2.LINE_AA)
    light = cv2.resize(cv2.blur(small, (9, 5)), (width, height)).astype(np.float32) / 255
    cv2.multiply(image, cv2.merge([light, light, light]), dst=image, dtype=cv2.CV_8U)


def _develop(
    rng: np.random.Generator, image: npt.NDArray[np.uint8], size_hw: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Bring to size, then light, colour cast, vignette and grain."""
    height, width = size_hw
    shrinks = image.shape[0] > height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    sized = cv2.resize(image, (width, height), interpolation=method)
    cast = 1 + rng.normal(0, 0.025, 3)
    exposure = float(np.clip(rng.normal(1.0, 0.05), 0.86, 1.12))
    gain = (exposure * cast).astype(np.float32)
    y, x = np.linspace(-1, 1, 24)[:, None], np.linspace(-1, 1, 24)
    vignette = 1 - float(rng.uniform(0, 0.16)) * np.clip((x * x + y * y) / 2, 0, 1) ** 1.5
    light = cv2.resize(vignette.astype(np.float32), (width, height))
    cv2.multiply(sized, cv2.merge([light * g for g in gain]), dst=sized, dtype=cv2.CV_8U)
    grain = rng.integers(-1, 2, size=(64, 64), dtype=np.int16) * float(rng.uniform(0.5, 3.5))
    tile = np.tile(grain.astype(np.float32), (height // 64 + 1, width // 64 + 1))[:height, :width]
    cv2.add(sized, cv2.merge([tile, tile, tile]), dst=sized, dtype=cv2.CV_8U)
    return sized.astype(np.uint8, copy=False)
