"""The masks of candidates on a grid: drawn from their probabilities, or fixed ones, imported.

Fixed masks are those of their file on its own grid, and resized by nearest on every other one, as a
submission is when it is scored. They are what the default mask threshold has made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.postprocess.raster import sample_masks, sample_rles
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.rle import Bitmasks, RleBatch, resize_nearest
from src.rle.bitmasks import Bits

FIXED_THRESHOLD = 0.5  # the value of mask_threshold in the preset default
THRESHOLD, THRESHOLD_PER_CLASS = MASK_KEYS = ("mask_threshold", "mask_threshold_per_class")
"""The settings that need mask probabilities."""


def draw_bitmasks(
    candidates: Candidates,
    indices: npt.NDArray[np.int64],
    *,
    mask_threshold: npt.NDArray[np.float32],
    raster_hw: tuple[int, int],
) -> Bits:
    """Return bitmasks of some candidates; thresholds and shapes as in ``sample_masks``.

    Raises:
        InputError: The masks are fixed, and a threshold is not the default.
    """
    if candidates.mask_probabilities is not None:
        return sample_masks(
            candidates.mask_probabilities[indices],
            candidates.boxes_xyxy[indices],
            candidates.size_hw,
            mask_threshold=mask_threshold,
            raster_hw=raster_hw,
        )
    _check_thresholds(candidates, mask_threshold)
    bits = Bitmasks.of(_fixed(candidates, indices), raster_hw).bits
    return bits if mask_threshold.ndim < 2 else np.repeat(bits[None], len(mask_threshold), axis=0)


def draw_rles(
    candidates: Candidates,
    indices: npt.NDArray[np.int64],
    *,
    mask_threshold: npt.NDArray[np.float32],
) -> RleBatch:
    """Return masks of some candidates at the size of the image, maybe empty; as ``sample_rles``.

    Raises:
        InputError: The masks are fixed, and a threshold is not the default.
    """
    if candidates.mask_probabilities is not None:
        return sample_rles(
            candidates.mask_probabilities[indices],
            candidates.boxes_xyxy[indices],
            candidates.size_hw,
            mask_threshold=mask_threshold,
        )
    _check_thresholds(candidates, mask_threshold)
    masks = _fixed(candidates, indices)
    is_own_grid = not len(masks) or masks.size_hw == candidates.size_hw
    return masks if is_own_grid else resize_nearest(masks, candidates.size_hw)


def _fixed(candidates: Candidates, indices: npt.NDArray[np.int64]) -> RleBatch:
    assert candidates.mask_rles is not None  # candidates have one of the two
    return candidates.mask_rles[indices]


def _check_thresholds(candidates: Candidates, mask_threshold: npt.NDArray[np.float32]) -> None:
    differs = mask_threshold != np.float32(FIXED_THRESHOLD)
    if differs.any():
        raise InputError(
            f"postprocess.{THRESHOLD} must be {FIXED_THRESHOLD} where masks are fixed, got "
            f"{mask_threshold[differs].flat[0]:g} ({candidates.image_id})"
        )


def check_fixed_masks(
    settings: PostprocessSettings, store: PredictionStore, *, group: str = "postprocess"
) -> None:
    """Check that the settings do not need probabilities where the masks of a store are fixed.

    ``group`` is the settings' key in the configuration, for the message.

    Raises:
        InputError: They do; says why that is not possible.
    """
    reason = store.fixed_masks
    if reason is None:
        return
    for key, legal in ((THRESHOLD, FIXED_THRESHOLD), (THRESHOLD_PER_CLASS, None)):
        value = getattr(settings, key)
        if value and value != legal:
            raise InputError(
                f"{group}.{key} must be {'null' if legal is None else legal} for "
                f"{store.directory}, got {value}: {reason}"
            )


def settings_for(settings: PostprocessSettings, store: PredictionStore) -> PostprocessSettings:
    """Return the settings, with the default mask threshold where the masks of a store are fixed."""
    if store.fixed_masks is None:
        return settings
    return settings.replace(**{THRESHOLD: FIXED_THRESHOLD, THRESHOLD_PER_CLASS: None})
