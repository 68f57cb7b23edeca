"""What post-processing can be told; the keys of the configuration group ``postprocess``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from src.annotations.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessSettings:
    """Thresholds and rules, in the order in which they act.

    Raises:
        InputError: names the key, the bad value and what is legal.
    """

    score_threshold: float  # [0, 1]: a pair needs a score strictly above it
    nms_iou_threshold: float  # [0, 1]: IoU strictly above it within a class suppresses
    max_per_image: int | None  # objects left after NMS at most; None: no cap
    remove_categories: Sequence[int]  # category ids that are left out
    mask_threshold: float  # (0, 1]: a pixel needs a probability of at least this
    suppress_overlaps: bool  # take from a mask the pixels of same-class masks of higher score
    min_area_px: int  # masks with fewer pixels on the 512 x 512 raster are left out

    def __post_init__(self) -> None:
        for key in ("score_threshold", "nms_iou_threshold", "mask_threshold"):
            value = getattr(self, key)
            if not _is_number(value) or not 0 <= value <= 1 or (key[:4] == "mask" and value == 0):
                low = "above 0" if key == "mask_threshold" else "from 0"
                raise InputError(f"postprocess.{key}={value!r}: a number {low} to 1 wanted")
        if self.max_per_image is not None and not _is_whole(self.max_per_image, 1):
            raise InputError(
                f"postprocess.max_per_image={self.max_per_image!r}: a whole number of at least 1 "
                "wanted, or null for no cap"
            )
        if not _is_whole(self.min_area_px, 0):
            raise InputError(
                f"postprocess.min_area_px={self.min_area_px!r}: a whole number of pixels from 0"
            )
        if not isinstance(self.suppress_overlaps, bool):
            raise InputError(
                f"postprocess.suppress_overlaps={self.suppress_overlaps!r}: true or false"
            )
        categories = self.remove_categories
        if isinstance(categories, str) or not isinstance(categories, Sequence):
            raise InputError(
                f"postprocess.remove_categories={categories!r}: a list of category ids, as [0,1,2]"
            )
        for category in categories:
            if not _is_whole(category, 0):
                raise InputError(
                    f"postprocess.remove_categories: {category!r} is no category id (0, 1, 2, ...)"
                )


def settings_from(values: Mapping[str, Any]) -> PostprocessSettings:
    """Settings from the configuration group ``postprocess`` as plain values.

    Raises:
        InputError: a key is unknown or missing, or a value is not legal.
    """
    known = [field.name for field in fields(PostprocessSettings)]
    for key in sorted(values.keys() - set(known)):
        raise InputError(f"postprocess.{key}: no such key; there are {', '.join(known)}")
    for key in known:
        if key not in values:
            raise InputError(f"postprocess.{key}: missing; postprocess=default has all keys")
    return PostprocessSettings(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
