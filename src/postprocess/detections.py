"""What post-processing makes of an image's candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.annotations.instances import RASTER_HW

NMS_AND_CAP = "nms with cap"  # in place of nms where the cap was reached
EMPTY = "empty masks"  # stands with the steps: objects without a pixel, left out whatever the steps


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The objects of one image, K of them, by falling score; no mask is empty."""

    image_id: str
    category_ids: npt.NDArray[np.int16]  # (K,)
    scores: npt.NDArray[np.float32]  # (K,) in [0, 1]
    boxes_xyxy: npt.NDArray[np.float32]  # (K, 4) image pixels, as predicted: not of the final mask
    packed: npt.NDArray[np.uint8]  # (K, H * W / 8): masks of the raster, packed_masks
    # Whether these are the objects that the model would give with these settings. False where the
    # store leaves out pairs (its score floor, its cap on pairs) that the settings ask for.
    is_exact: bool
    raster_hw: tuple[int, int] = RASTER_HW
    # How many (box, class) pairs each step took, in the order of the steps; EMPTY is the last.
    taken: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Detections:
        """The objects that a mask or indices choose."""
        return Detections(
            image_id=self.image_id,
            category_ids=self.category_ids[chosen],
            scores=self.scores[chosen],
            boxes_xyxy=self.boxes_xyxy[chosen],
            packed=self.packed[chosen],
            is_exact=self.is_exact,
            raster_hw=self.raster_hw,
            taken=self.taken,
        )


def no_detections(image_id: str) -> Detections:
    """Return an image without objects."""
    return Detections(
        image_id=image_id,
        category_ids=np.zeros(0, dtype=np.int16),
        scores=np.zeros(0, dtype=np.float32),
        boxes_xyxy=np.zeros((0, 4), dtype=np.float32),
        packed=np.zeros((0, RASTER_HW[0] * RASTER_HW[1] // 8), dtype=np.uint8),
        is_exact=True,
    )
