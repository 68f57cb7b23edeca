"""Settings that make no sense are refused by key, value and what is legal."""

from __future__ import annotations

from typing import Any

import pytest

from src.errors import InputError
from src.postprocess.settings import settings_from
from tests.helpers.candidates import DEFAULT, WINNER, make_settings


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
        ("remove_categories", ["parts"], r"remove_categories: 'parts' is no category id"),
        ("remove_categories", "attribute_classes", r"categories='attribute_classes': a list"),
        ("remove_categories", None, r"postprocess\.remove_categories=None: a list"),
        ("nms_kind", "hard", r"nms_kind='hard': one of class_wise, class_agnostic, soft_linear, "),
        ("soft_nms_sigma", 0, r"postprocess\.soft_nms_sigma=0: a number above 0 wanted"),
        ("soft_nms_sigma", float("inf"), r"soft_nms_sigma=inf: a number above 0 wanted"),
        ("soft_nms_min_score", 2, r"postprocess\.soft_nms_min_score=2: a number from 0 to 1"),
        ("max_per_class", 0, r"postprocess\.max_per_class=0: a whole number of at least 1"),
        ("min_area_raster", "image", r"min_area_raster='image': one of 512x512, long_edge_1024"),
        ("score_threshold_per_class", 0.5, r"per_class=0\.5: a threshold by category id wanted"),
        ("score_threshold_per_class", {"shoe": 1}, r"per_class: 'shoe' is no category id"),
        ("score_threshold_per_class", {-1: 0.5}, r"score_threshold_per_class: -1 is no category"),
        ("score_threshold_per_class", {2: 3}, r"score_threshold_per_class\.2=3: a number from 0"),
        ("mask_threshold_per_class", {2: 0}, r"mask_threshold_per_class\.2=0: a number above 0"),
        ("steps", ["nms"], r"postprocess\.steps: masks is missing"),
    ],
)
def test_bad_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_settings(**{key: value})


@pytest.mark.parametrize("changes", [{}, WINNER, {"max_per_image": None, "score_threshold": 1}])
def test_legal_values_pass(changes: dict[str, Any]) -> None:
    make_settings(**changes)


def test_named_removals_and_the_list_add_up() -> None:
    """Seed's row S12: the classes that carry attributes, then the three parts that do."""
    assert make_settings().removed_categories == frozenset()
    named = make_settings(remove_categories=["attribute_classes"])
    assert named.removed_categories == frozenset(range(13))
    both = make_settings(remove_categories=["attribute_classes_and_parts", 40])
    assert both.removed_categories == frozenset([*range(13), 27, 28, 33, 40])


def test_category_ids_may_be_texts_as_on_a_command_line() -> None:
    made = make_settings(score_threshold_per_class={"23": 0.5, 4: 1})
    assert made.score_threshold_per_class == {23: 0.5, 4: 1.0}


def test_keys_that_are_newer_than_a_configuration_have_the_value_that_changes_nothing() -> None:
    first = ("score_threshold", "nms_iou_threshold", "max_per_image", "remove_categories")
    first += ("mask_threshold", "suppress_overlaps", "min_area_px")
    assert settings_from({key: DEFAULT[key] for key in first}) == make_settings()
