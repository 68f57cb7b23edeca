"""Which objects stay: by category and by area."""

from __future__ import annotations

import numpy as np
import pytest

from src.annotations.packed_masks import pack
from src.postprocess.filters import of_enough_pixels, of_other_categories


def test_removed_categories() -> None:
    categories = np.array([0, 12, 13, 27, 45, 0], dtype=np.int16)
    kept = of_other_categories(categories, list(range(13)))
    assert categories[kept].tolist() == [13, 27, 45]
    assert of_other_categories(categories, []).all()


@pytest.mark.parametrize(
    ("min_area_px", "kept"), [(0, [1, 19, 20, 21]), (1, [1, 19, 20, 21]), (20, [20, 21]), (22, [])]
)
def test_area_at_the_limit_stays_and_an_empty_mask_never(min_area_px: int, kept: list[int]) -> None:
    areas = np.array([0, 1, 19, 20, 21])
    masks = np.arange(64).reshape(8, 8) < areas[:, None, None]
    assert areas[of_enough_pixels(pack(masks), min_area_px)].tolist() == kept
