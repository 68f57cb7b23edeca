"""Geometric and pixel transforms of training samples.

From an image and run lengths to the pixels and masks of one training view.
Everything random about a view is drawn before a pixel is read, so that a reader may decode the
image no larger than the view needs it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import albumentations
import cv2
import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.rle import RleBatch, draw


class PixelAugmentation:
    """Transforms that leave every object where it is, applied one after the other.

    Args:
        transforms: albumentations transforms by name, in the order in which they act: image-only
            ones, or ``CoarseDropout``.

    Raises:
        InputError: a transform moves pixels or is none; names its key.
    """

    def __init__(self, transforms: Mapping[str, albumentations.BasicTransform]) -> None:
        for name, transform in transforms.items():
            if not isinstance(
                transform, albumentations.ImageOnlyTransform | albumentations.CoarseDropout
            ):
                raise InputError(
                    f"pixel_augmentations.{name}: {type(transform).__name__} may move pixels away "
                    "from their masks; legal are albumentations' image-only transforms and "
                    "CoarseDropout"
                )
        self._compose = albumentations.Compose(list(transforms.values()))

    def __call__(self, image: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
        """Return the augmented image; the same seed gives the same result.

        Args:
            image: shape (H, W, 3), uint8, RGB. May be changed or returned.
            seed: 0 or above.
        """
        # Compose.set_random_seed would give every transform a stream of the same seed: all would
        # act on the same images, by the same draws. One shared pair of streams keeps them apart.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.ascontiguousarray(self._compose(image=image)["image"], dtype=np.uint8)


LEAST_VIEW_PX = 32  # the edge of a cell of the coarsest level that boxes and masks are read from


@dataclass(frozen=True, slots=True)
class View:
    """How one image is shown to the model once."""

    annotated_hw: tuple[int, int]  # pixels that the run lengths count
    size_hw: tuple[int, int]  # pixels of the view
    flip: bool  # mirrored left to right, after resizing
    pixel_seed: int  # of the pixel augmentation


def resized_hw(
    size_hw: tuple[int, int], *, short_edge_px: int, long_edge_px: int
) -> tuple[int, int]:
    """Return the largest size of the same aspect within both limits.

    mmdetection's rule for a scale of two numbers (``mmcv.rescale_size``): the smaller of both
    factors, sizes rounded half up; here at least 1 px.

    Args:
        size_hw: height and width in pixels.
        short_edge_px: upper limit of the shorter edge.
        long_edge_px: upper limit of the longer edge.
    """
    height, width = size_hw
    factor = min(long_edge_px / max(height, width), short_edge_px / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def rgb_bytes(short_edge_px: int, long_edge_px: int) -> int:
    """Return the bytes of the largest RGB image within both limits."""
    return 3 * short_edge_px * long_edge_px


def draw_view(
    annotated_hw: tuple[int, int],
    *,
    short_edge_px: tuple[int, int],
    long_edge_px: int,
    flip_probability: float,
    generator: np.random.Generator,
) -> View:
    """Draw a view of an image.

    Args:
        annotated_hw: height and width that the image's annotation counts in: the image's own, or
            those of a smaller copy (the 2020 edition's masks); only their ratio matters.
        short_edge_px: least and greatest shorter edge, both included; whole numbers between them
            are equally likely (mmdetection's multi-scale training, mode "range").
        long_edge_px: upper limit of the longer edge.
        flip_probability: of mirroring, in [0, 1].
        generator: the only source of randomness.
    """
    short_edge = int(generator.integers(*short_edge_px, endpoint=True))
    flip = bool(generator.random() < flip_probability)
    return View(
        annotated_hw=annotated_hw,
        size_hw=resized_hw(annotated_hw, short_edge_px=short_edge, long_edge_px=long_edge_px),
        flip=flip,
        pixel_seed=int(generator.integers(2**32)),
    )


def resize_image(image: npt.NDArray[np.uint8], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize an image bilinearly, as mmdetection's ``Resize`` does.

    Args:
        image: shape (H, W, 3), uint8.
        size_hw: height and width of the result.

    Returns:
        Shape (*size_hw, 3), uint8.
    """
    if image.shape[:2] == size_hw:
        return image
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def flip_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mirror an image left to right. Shape (H, W, 3), uint8, C-contiguous, in and out."""
    return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


def draw_masks(masks: RleBatch, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw N masks of an image of this size, shape (N, *size_hw), uint8, 0 or 1."""
    bitmaps = np.zeros((len(masks), *size_hw), dtype=np.bool_)
    for bitmap, mask in zip(bitmaps, masks, strict=True):
        draw(mask, bitmap)
    return bitmaps.view(np.uint8)
