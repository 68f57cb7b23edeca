"""The step ``min_area``: removes small masks (S14)."""

from __future__ import annotations

from src.annotations.competition import Raster
from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Count


class MinArea(Step):
    """Remove masks with fewer pixels than ``min_area_px`` on a raster."""

    name = "min_area"
    place = "after masks"
    place_reason = "areas are those of masks"
    rules = ("min_area_px",)
    is_per_category = True
    uses_scores = False

    min_area_px: Count  # the winner deleted masks under 20 pixels; 0: none
    min_area_raster: Raster = "512x512"

    @property
    def rasters(self) -> frozenset[str]:
        """The raster on which areas are counted, if they are."""
        return frozenset({self.min_area_raster} if self.min_area_px else ())

    def apply(self, selection: Selection) -> Selection:
        """Return the detections whose masks are large enough."""
        if not self.min_area_px:
            return selection
        areas = selection.drawn_masks.areas_px(self.min_area_raster)
        return selection.take(areas >= self.min_area_px)

    @property
    def reason(self) -> str:
        """The minimum area and its raster."""
        return f"postprocess.min_area_px={self.min_area_px} on {self.min_area_raster}"
