"""How a resized, possibly mirrored picture lies on its photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """A picture made of a photo: resized by ``scale_wh``, then mirrored where ``flipped``."""

    scale_wh: tuple[float, float] = (1.0, 1.0)  # picture pixels per photo pixel, across and down
    width_px: float = 0.0  # of the picture; matters where it is mirrored
    flipped: bool = False  # left and right exchanged

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Placement:
        """Read it from a sample's ``scale_factor`` (w, h), ``img_shape`` (h, w) and ``flip``."""
        width_factor, height_factor = meta["scale_factor"]
        return cls(
            scale_wh=(width_factor, height_factor),
            width_px=meta["img_shape"][1],
            flipped=bool(meta.get("flip", False)),
        )

    def to_photo(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in the picture's pixels to the photo's, divided as mmdet does."""
        return self._mirrored(boxes) / self._factors(boxes)

    def to_picture(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in the photo's pixels to the picture's."""
        return self._mirrored(boxes * self._factors(boxes))

    def masks_to_photo(self, masks: Tensor) -> Tensor:
        """(N, h, w) masks on boxes of the picture to masks on the same boxes of the photo."""
        return masks.flip(-1) if self.flipped else masks

    def _factors(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor(self.scale_wh).repeat(2)

    def _mirrored(self, boxes: Tensor) -> Tensor:
        if not self.flipped:
            return boxes
        x_min, y_min, x_max, y_max = boxes.unbind(-1)
        return torch.stack([self.width_px - x_max, y_min, self.width_px - x_min, y_max], dim=-1)
