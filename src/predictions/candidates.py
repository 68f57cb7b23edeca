"""Candidates: the (box, class) pairs of one image before NMS, the input of post-processing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from src.annotations.instances import box_columns
from src.rle import RleBatch

if TYPE_CHECKING:
    import pandas as pd


Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""Scores in [0, 1]: float32 of a model, float64 of a file of results, as it has them."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The N (proposal, class) pairs of one image above a minimum score, before NMS.

    They are in mmdet's order, (proposal, class) row-major, by which mmdet breaks ties of score
    (``multiclass_nms`` flattens a proposals x classes matrix, and its NMS sorts stably).

    mmdet's cascades run NMS in the frame of the network's input and divide by the scale factor
    afterwards (``HybridTaskCascadeRoIHead.predict``). IoU does not depend on scale, but float32
    rounding does: mmdet adds an offset to each class, which rounds a box of class 45 in an image of
    8,000 px to 1/32 px. So the boxes that NMS compares are kept in addition to the image's.

    Predictions that were imported have no probabilities: their masks are fixed.

    Raises:
        ValueError: The shapes of the arrays contradict each other.

    Example:
        >>> import numpy as np
        >>> from src import Candidates, PostprocessSettings, postprocess
        >>> candidates = Candidates(
        ...     image_id="a.jpg",
        ...     size_hw=(4, 4),
        ...     boxes_xyxy=np.array([[0, 0, 4, 2]], dtype=np.float32),
        ...     scores=np.array([0.9], dtype=np.float32),
        ...     category_ids=np.array([23], dtype=np.int16),
        ...     mask_probabilities=np.ones((1, 28, 28), dtype=np.float32),
        ...     complete_above_score=0.0,
        ... )
        >>> postprocess(candidates, PostprocessSettings.preset("winner")).masks_at().astype(int)
        array([[[1, 1, 1, 1],
                [1, 1, 1, 1],
                [0, 0, 0, 0],
                [0, 0, 0, 0]]])
        >>> print(candidates.to_frame())
          image_id  category_id  score  x_min  y_min  x_max  y_max
        0    a.jpg           23    0.9    0.0    0.0    4.0    2.0
    """

    image_id: str
    size_hw: tuple[int, int]  # pixels of the image, after the EXIF rotation
    boxes_xyxy: npt.NDArray[np.float32]  # (N, 4) pixels of the image
    scores: Scores  # (N,) in [0, 1]
    category_ids: npt.NDArray[np.int16]  # (N,)
    # (N, h, w) in [0, 1]: the mask of this pair's class on its box; 28 x 28 in HTC. None: the masks
    # are mask_rles
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32] | None
    # All candidates of the model with a higher score are here: the minimum score, or, if a cap on
    # their number was reached, the lowest score kept.
    complete_above_score: float
    # (N, 4) in the frame that NMS runs in; None: boxes_xyxy
    nms_boxes_xyxy: npt.NDArray[np.float32] | None = None
    # N masks of one grid, which is the image's or the raster of a submission
    mask_rles: RleBatch | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        if (self.mask_probabilities is None) == (self.mask_rles is None):
            raise ValueError(
                f"one of mask_probabilities and mask_rles must be given ({self.image_id})"
            )
        if self.mask_rles is not None and len(self.mask_rles) != count:
            raise ValueError(
                f"mask_rles must be {count} masks for {count} scores, got "
                f"{len(self.mask_rles)} ({self.image_id})"
            )
        shapes: dict[str, tuple[int, ...]] = {
            "boxes_xyxy": (count, 4),
            "scores": (count,),
            "category_ids": (count,),
            "nms_boxes_xyxy": (count, 4),
        }
        if (masks := self.mask_probabilities) is not None:
            if masks.ndim != 3:
                raise ValueError(
                    f"mask_probabilities must have shape (N, h, w), got {masks.shape} "
                    f"({self.image_id})"
                )
            shapes["mask_probabilities"] = (count, *masks.shape[1:])
        for name, wanted in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != wanted:
                raise ValueError(
                    f"{name} must have shape {wanted} for {count} scores, got {array.shape} "
                    f"({self.image_id})"
                )

    def __len__(self) -> int:
        return len(self.scores)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each candidate, without its mask; boxes in image pixels."""
        import pandas as pd

        columns = {"image_id": self.image_id, "category_id": self.category_ids}
        return pd.DataFrame({**columns, "score": self.scores, **box_columns(self.boxes_xyxy)})

    @property
    def mask_bytes(self) -> int:
        """Memory of the masks."""
        if self.mask_rles is not None:
            return self.mask_rles.runs.nbytes
        return 0 if self.mask_probabilities is None else self.mask_probabilities.nbytes

    @property
    def boxes_for_nms(self) -> npt.NDArray[np.float32]:
        """(N, 4) float32 xyxy: the boxes that NMS compares."""
        return self.boxes_xyxy if self.nms_boxes_xyxy is None else self.nms_boxes_xyxy
