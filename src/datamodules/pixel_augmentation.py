"""Augmentation of colours and pixels by albumentations, drawn anew from a seed for every photo."""

from __future__ import annotations

import random
from collections.abc import Mapping

import albumentations
import numpy as np
import numpy.typing as npt

from src.errors import InputError


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

    def __call__(self, photo: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
        """Return the augmented photo; the same seed gives the same result.

        Args:
            photo: shape (H, W, 3), uint8, RGB. May be changed or returned.
            seed: 0 or above.
        """
        # Compose.set_random_seed would give every transform a stream of the same seed: all would
        # act on the same photos, by the same draws. One shared pair of streams keeps them apart.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.ascontiguousarray(self._compose(image=photo)["image"], dtype=np.uint8)
