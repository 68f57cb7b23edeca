"""The detections of one image, which post-processing makes of its candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from src.annotations.instances import RASTER_HW, box_columns
from src.predictions.candidates import Scores
from src.rle import Bitmasks, Masks, decode_resized, resize_nearest, to_coco

if TYPE_CHECKING:
    import pandas as pd

NMS_AND_CAP = "nms with cap"  # in place of nms where the cap was reached
EMPTY = "empty masks"  # counted like a step: masks without a pixel are always dropped


class CompressedMask(TypedDict):
    """COCO's compressed RLE."""

    size: list[int]  # height, width
    counts: str


class CocoResult(TypedDict):
    """One detection in COCO's results format; JSON values only."""

    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height in image pixels, as predicted: not of the mask
    score: float
    segmentation: CompressedMask


def coco_entries(
    image_number: int,
    category_ids: npt.NDArray[np.int16],
    boxes_xyxy: npt.NDArray[np.float32],
    scores: Scores,
    masks: Masks,
    size_hw: tuple[int, int],
) -> list[CocoResult]:
    """Return the COCO results of K detections of one image, with masks at its size."""
    boxes_xywh = boxes_xyxy.astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    columns = category_ids.tolist(), boxes_xywh.tolist(), scores.tolist(), to_coco(masks)
    return [
        {
            "image_id": image_number,
            "category_id": category,
            "bbox": box,
            "score": score,
            "segmentation": {"size": list(size_hw), "counts": counts},
        }
        for category, box, score, counts in zip(*columns, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, K of them, by falling score; no mask is empty.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, postprocess, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> shoe = detections["0.png"].take([1])
        >>> shoe.category_ids.tolist(), shoe.masks.shape, shoe.masks_at().sum().item()
        ([23], (1, 512, 512), 768)
        >>> shoe.to_coco(image_number=1)[0]["bbox"]
        [36.0, 8.0, 16.0, 48.0]
    """

    image_id: str
    category_ids: npt.NDArray[np.int16]  # (K,)
    scores: Scores  # (K,) in [0, 1]
    boxes_xyxy: npt.NDArray[np.float32]  # (K, 4) image pixels, as predicted: not of the final mask
    bitmasks: Bitmasks  # K
    # Whether the model gives the same with these settings. False where the store lacks candidates
    # that the settings ask for, because of its minimum score or its cap.
    is_exact: bool
    # Number of candidates that each step took, in the order of the steps; EMPTY is the last.
    taken: Mapping[str, int] = field(default_factory=dict)
    size_hw: tuple[int, int] | None = None  # of the image in pixels; None: unknown

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Masks on the raster. Shape (K, H, W) bool."""
        return self.bitmasks.unpack()

    def masks_at(self, size_hw: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Return the masks resized from the raster by nearest neighbour, shape (K, h, w) bool.

        Args:
            size_hw: Height and width; None: the image's.
        """
        size_hw = size_hw or self._image_size()
        resized = [decode_resized(mask, size_hw) for mask in self.bitmasks.to_rle()]
        return np.array(resized, dtype=np.bool_).reshape(-1, *size_hw)

    def to_coco(self, image_number: int) -> list[CocoResult]:
        """Return COCO results of the image ``image_number``, masks resized from the raster.

        ``StoreDetections.to_coco`` draws the masks at the size of the image instead.
        """
        size_hw = self._image_size()
        masks = resize_nearest(self.bitmasks.to_rle(), size_hw)
        return coco_entries(
            image_number, self.category_ids, self.boxes_xyxy, self.scores, masks, size_hw
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each detection; boxes in image pixels, areas in raster pixels."""
        import pandas as pd

        columns = {"image_id": self.image_id, "category_id": self.category_ids}
        columns |= {"score": self.scores, **box_columns(self.boxes_xyxy)}
        return pd.DataFrame({**columns, "area_px": self.bitmasks.areas_px()})

    def take(
        self, kept: npt.NDArray[np.bool_] | npt.NDArray[np.integer] | Sequence[int]
    ) -> Detections:
        """Return the detections that a boolean mask or indices select."""
        return replace(
            self,
            category_ids=self.category_ids[kept],
            scores=self.scores[kept],
            boxes_xyxy=self.boxes_xyxy[kept],
            bitmasks=self.bitmasks[kept],
        )

    def _image_size(self) -> tuple[int, int]:
        if self.size_hw is None:
            raise ValueError(f"size_hw must be given: the size of {self.image_id} is unknown")
        return self.size_hw


def no_detections(image_id: str) -> Detections:
    """Return the detections of an image that has none."""
    return Detections(
        image_id=image_id,
        category_ids=np.zeros(0, dtype=np.int16),
        scores=np.zeros(0, dtype=np.float32),
        boxes_xyxy=np.zeros((0, 4), dtype=np.float32),
        bitmasks=Bitmasks.of([], RASTER_HW),
        is_exact=True,
    )
