"""Settings that make no sense are refused by key, value and what is legal."""

from __future__ import annotations

from typing import Any

import pytest

from src.annotations.errors import InputError
from tests.postprocess.generated import WINNER, make_settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("score_threshold", -0.1, r"postprocess\.score_threshold=-0\.1: a number from 0 to 1"),
        ("score_threshold", "high", r"postprocess\.score_threshold='high': a number from 0 to 1"),
        ("score_threshold", True, r"postprocess\.score_threshold=True: a number"),
        ("score_threshold", float("nan"), r"postprocess\.score_threshold=nan: a number"),
        ("nms_iou_threshold", 1.5, r"postprocess\.nms_iou_threshold=1\.5: a number from 0 to 1"),
        ("mask_threshold", 0, r"postprocess\.mask_threshold=0: a number above 0 to 1"),
        ("max_per_image", 0, r"postprocess\.max_per_image=0: a whole number of at least 1"),
        ("max_per_image", 2.5, r"postprocess\.max_per_image=2\.5: .* or null for no cap"),
        ("min_area_px", -1, r"postprocess\.min_area_px=-1: a whole number of pixels from 0"),
        ("suppress_overlaps", "yes", r"postprocess\.suppress_overlaps='yes': true or false"),
        ("remove_categories", 3, r"postprocess\.remove_categories=3: a list of category ids"),
        ("remove_categories", "1,2", r"postprocess\.remove_categories='1,2': a list"),
        ("remove_categories", [1, "shoe"], r"remove_categories: 'shoe' is no category id"),
        ("remove_categories", [-1], r"remove_categories: -1 is no category id"),
    ],
)
def test_bad_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_settings(**{key: value})


@pytest.mark.parametrize("changes", [{}, WINNER, {"max_per_image": None, "score_threshold": 1}])
def test_legal_values_pass(changes: dict[str, Any]) -> None:
    make_settings(**changes)
