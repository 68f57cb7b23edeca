"""What storing probabilities as float16 does to the masks, as the store's docstring states it."""

from __future__ import annotations

import numpy as np
import pytest

from src.postprocess.raster import sample_masks
from src.rle.bitmasks import areas_px, intersections_px
from tests.helpers.candidates import make_boxes, make_masks


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5])
def test_half_precision_costs_less_than_a_thousandth_of_iou(threshold: float) -> None:
    random = np.random.default_rng(0)
    size_hw = (3000, 2000)
    masks = make_masks(random, 400)
    boxes = make_boxes(random, 400, size_hw, relative_size=0.4)
    exact = sample_masks(masks, boxes, size_hw, mask_threshold=threshold)
    stored = sample_masks(masks.astype(np.float16), boxes, size_hw, mask_threshold=threshold)
    shared = np.array(
        [intersections_px(a[None], b[None])[0, 0] for a, b in zip(exact, stored, strict=True)]
    )
    union = areas_px(exact) + areas_px(stored) - shared
    loss = 1 - shared[union > 0] / union[union > 0]
    changed_px = union - shared
    assert len(loss) > 300
    assert loss.mean() < 1e-4
    assert loss.max() < 5e-3
    # a mask of 1,000 pixels that changes by one is at a thousandth
    assert loss[union[union > 0] > 5000].max() < 1e-3
    assert changed_px.max() < 20
