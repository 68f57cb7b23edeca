"""What a model hands to post-processing: the (box, class) pairs of one image before any NMS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The (proposal, class) pairs of one image above a score floor, before NMS; N of them.

    Pairs stand in mmdet's order, (proposal, class) row-major, because mmdet breaks ties of score
    by it (``multiclass_nms`` flattens a proposals x classes matrix, and its NMS sorts stably).

    mmdet's cascades suppress in the frame of the network's input and divide by the scale factor
    afterwards (``HybridTaskCascadeRoIHead.predict``). IoU does not change with scale, but float32
    does: mmdet adds an offset to each class, which rounds a box of class 45 on a photo of 8,000 px
    to 1/32 px. So the boxes that NMS compares are kept beside the photo's.

    Raises:
        ValueError: an array's shape does not agree with the others.
    """

    image_id: str
    size_hw: tuple[int, int]  # photo pixels, after the EXIF rotation
    boxes_xyxy: npt.NDArray[np.float32]  # (N, 4) photo pixels
    scores: npt.NDArray[np.float32]  # (N,) in [0, 1]
    category_ids: npt.NDArray[np.int16]  # (N,) ids of the data
    # (N, h, w) in [0, 1]: the mask of this pair's class on its box; 28 x 28 in HTC
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32]
    # Every pair with a score above this one is here: the score floor, or, where a cap on the number
    # of pairs bit, the score of the lowest pair kept.
    exact_above_score: float
    # (N, 4) in the frame that NMS runs in; None: boxes_xyxy
    nms_boxes_xyxy: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        shapes = {
            "boxes_xyxy": (self.boxes_xyxy.shape, (count, 4)),
            "scores": (self.scores.shape, (count,)),
            "category_ids": (self.category_ids.shape, (count,)),
            "mask_probabilities": (self.mask_probabilities.shape[:1], (count,)),
        }
        if self.nms_boxes_xyxy is not None:
            shapes["nms_boxes_xyxy"] = (self.nms_boxes_xyxy.shape, (count, 4))
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(
                    f"{self.image_id}: {name} has shape {found}, {wanted} wanted for {count} scores"
                )
        if self.mask_probabilities.ndim != 3:
            raise ValueError(
                f"{self.image_id}: mask_probabilities has shape {self.mask_probabilities.shape}, "
                "(N, h, w) wanted"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes_for_nms(self) -> npt.NDArray[np.float32]:
        """(N, 4) float32 xyxy: the boxes that NMS compares."""
        return self.boxes_xyxy if self.nms_boxes_xyxy is None else self.nms_boxes_xyxy
