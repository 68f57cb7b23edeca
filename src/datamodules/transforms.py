"""Geometric and pixel transforms: from an image and its RLE to one training view.

Everything random about a view is drawn before a pixel is read, so that the image is decoded no
larger than the view needs it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import albumentations
import cv2
import numpy as np
import numpy.typing as npt

from src.datamodules.geometry import Geometry, crop
from src.datamodules.sizes import resized_hw
from src.errors import InputError
from src.rle import RleBatch, draw


class PixelAugmentation:
    """Sequence of transforms that move no instance.

    Args:
        transforms: Albumentations transforms by name, in order: image-only ones, or
            ``CoarseDropout``.

    Raises:
        InputError: A transform moves pixels or is none; names its key.
    """

    def __init__(self, transforms: Mapping[str, albumentations.BasicTransform]) -> None:
        for name, transform in transforms.items():
            if not isinstance(
                transform, albumentations.ImageOnlyTransform | albumentations.CoarseDropout
            ):
                raise InputError(
                    f"pixel_augmentations.{name} must be an image-only transform of albumentations "
                    f"or CoarseDropout, got {type(transform).__name__}, which may move pixels away "
                    "from their masks"
                )
        self._compose = albumentations.Compose(list(transforms.values()))

    def __call__(self, image: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
        """Return the augmented image; the same seed gives the same result.

        Args:
            image: Shape (H, W, 3), uint8, RGB. May be changed or returned.
            seed: 0 or above.
        """
        # Compose.set_random_seed would seed every transform alike: all would act on the same
        # images, by the same draws. One shared pair of streams keeps them apart.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.ascontiguousarray(self._compose(image=image)["image"], dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class View:
    """Size, flip and augmentation of one training view of an image."""

    annotated_hw: tuple[int, int]  # pixels that the RLE counts
    size_hw: tuple[int, int]  # pixels of the view
    flip: bool  # left to right, after resizing
    pixel_seed: int  # of the pixel augmentation


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
        annotated_hw: Height and width of the annotation: the image's own, or those of a smaller
            copy (the 2020 edition's masks); only their ratio matters.
        short_edge_px: Least and greatest shorter edge, inclusive; the integers between them are
            equally likely (mmdetection's multi-scale training, mode "range").
        long_edge_px: Upper limit of the longer edge.
        flip_probability: Probability of a flip, in [0, 1].
        generator: The only source of randomness.
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
        image: Shape (H, W, 3), uint8.
        size_hw: Height and width of the result.

    Returns:
        Shape (*size_hw, 3), uint8.
    """
    if image.shape[:2] == size_hw:
        return image
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def flip_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Flip an image left to right. Shape (H, W, 3), uint8, C-contiguous, in and out."""
    return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


def draw_masks(masks: RleBatch, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw N masks of an image of this size, shape (N, *size_hw), uint8, 0 or 1."""
    bitmaps = np.zeros((len(masks), *size_hw), dtype=np.bool_)
    for bitmap, mask in zip(bitmaps, masks, strict=True):
        draw(mask, bitmap)
    return bitmaps.view(np.uint8)


def draw_cropped_masks(masks: RleBatch, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Draw N masks of an image of ``geometry.scaled_hw``, cropped, uint8, 0 or 1."""
    if geometry.scaled_hw == geometry.size_hw:
        return draw_masks(masks, geometry.size_hw)
    bitmaps = np.empty((len(masks), *geometry.size_hw), dtype=np.uint8)
    for bitmap, mask in zip(bitmaps, masks, strict=True):
        whole = np.zeros(geometry.scaled_hw, dtype=np.bool_)
        draw(mask, whole)
        bitmap[:] = crop(whole.view(np.uint8), geometry)
    return bitmaps
