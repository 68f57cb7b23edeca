"""What storing probabilities as float16 does to the masks, as the store's docstring states it."""

from __future__ import annotations

import numpy as np
import pytest

from src.annotations.instances import RASTER_HW
from src.postprocess.raster import sample_masks
from src.rle import Bitmasks
from tests.helpers.candidates import make_boxes, make_masks


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5])
def test_half_precision_costs_less_than_a_thousandth_of_iou(threshold: float) -> None:
    random = np.random.default_rng(0)
    size_hw = (3000, 2000)
    masks = make_masks(random, 400)
    boxes = make_boxes(random, 400, size_hw, relative_size=0.4)
    exact, stored = (
        Bitmasks(sample_masks(given, boxes, size_hw, mask_threshold=threshold), RASTER_HW)
        for given in (masks, masks.astype(np.float16))
    )
    rows = np.arange(len(exact))
    shared = exact.paired_intersections_px(stored, rows, rows)
    union = exact.areas_px() + stored.areas_px() - shared
    loss = 1 - shared[union > 0] / union[union > 0]
    changed_px = union - shared
    assert len(loss) > 300
    assert loss.mean() < 1e-4
    assert loss.max() < 5e-3
    # a mask of 1,000 pixels that changes by one is at a thousandth
    assert loss[union[union > 0] > 5000].max() < 1e-3
    assert changed_px.max() < 20
