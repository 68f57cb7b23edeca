"""A competition as a value: rasters, data that is its own, ids, and illegal values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.annotations.competition import Competition, MatchRule, raster_hw
from src.errors import InputError
from tests.helpers.competitions import COCO, DSB_2018, IMATERIALIST_2019, IMATERIALIST_2020

SHOE = {1: "top", 23: "Shoe "}


def test_known_competitions() -> None:
    years = IMATERIALIST_2019, IMATERIALIST_2020
    assert [one.raster for one in years] == ["512x512", "long_edge_1024"]
    assert [one.scored_on for one in years] == ["512x512", "512x512"]
    assert [one.scored_on for one in (DSB_2018, COCO)] == ["native", "native"]
    assert all(one.filler is not None and one.filler.category_id == 23 for one in years)
    assert IMATERIALIST_2020.columns == ("ImageId", "EncodedPixels", "ClassId", "AttributesIds")
    assert (DSB_2018.columns, DSB_2018.filler) == (("ImageId", "EncodedPixels"), None)
    assert (DSB_2018.disjoint, COCO.disjoint, IMATERIALIST_2019.disjoint) == (
        "all",
        "none",
        "class",
    )
    assert [one.strict for one in (*years, DSB_2018, COCO)] == [True, True, True, False]
    assert len(IMATERIALIST_2019.category_names) == 46
    assert (COCO.category_names, COCO.file) == ({}, "coco_results")


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), edge=st.integers(1, 5000))
def test_rasters(height: int, width: int, edge: int) -> None:
    size_hw = (height, width)
    assert raster_hw("native", size_hw) == size_hw
    assert raster_hw(f"{edge}x7", size_hw) == (edge, 7)
    found = raster_hw(f"long_edge_{edge}", size_hw)
    assert max(found) == edge
    exact = min(size_hw) * edge / max(size_hw)
    assert abs(min(found) - max(exact, 1)) <= 0.5


def test_only_its_own_data_has_the_filler() -> None:
    assert IMATERIALIST_2019.for_data(SHOE) is IMATERIALIST_2019
    for names in ({23: "bear"}, {1: "top"}, {23: "shoe", 46: "more"}):
        other = IMATERIALIST_2019.for_data(names)
        assert (other.filler, other.category_names) == (None, {})
        assert (other.raster, other.columns) == ("512x512", IMATERIALIST_2019.columns)
    assert DSB_2018.for_data({1: "nucleus"}) is DSB_2018
    assert COCO.for_data({7: "cat"}) is COCO


def test_a_submission_with_a_sample_may_be_of_some_categories() -> None:
    some = {1: IMATERIALIST_2019.category_names[1]}
    assert IMATERIALIST_2019.for_submission(some, [1], has_sample=True) is IMATERIALIST_2019
    assert IMATERIALIST_2019.for_submission(some, [1], has_sample=False).filler is None
    assert IMATERIALIST_2019.for_submission({1: "cat"}, [1], has_sample=True).filler is None
    with pytest.raises(InputError, match="columns must have ClassId or CategoryId for 2 cat"):
        DSB_2018.for_submission({1: "a", 2: "b"}, [1, 2], has_sample=False)


@pytest.mark.parametrize(
    ("competition", "image_id", "written"),
    [
        (IMATERIALIST_2019, "a.jpg", "a.jpg"),
        (IMATERIALIST_2020, "a.jpg", "a"),
        (IMATERIALIST_2020, "a.png", "a.png"),
        (DSB_2018, "x/a.png", "x/a"),
        (DSB_2018, "a/images/a.png", "a"),
        (DSB_2018, "x/images/a.png", "x/images/a"),
        (DSB_2018, "a.b", "a.b"),
    ],
)
def test_image_ids_of_a_submission(competition: Competition, image_id: str, written: str) -> None:
    assert competition.image_id(image_id) == written


def test_labels_of_a_row() -> None:
    assert IMATERIALIST_2019.split_label("6_13_24") == ("6", ["13", "24"])
    assert IMATERIALIST_2020.split_label("6", "13,24") == ("6", ["13", "24"])
    assert IMATERIALIST_2020.split_label("6", "") == ("6", [])
    assert DSB_2018.split_label() == ("1", [])


def test_thresholds_are_exceeded_or_reached() -> None:
    ious = np.array([0.0, 0.5, 0.55, 0.7, 1.0])
    assert MatchRule((0.5, 0.7)).num_passed(ious).tolist() == [0, 0, 1, 1, 2]
    assert MatchRule((0.5, 0.7), strict=False).num_passed(ious).tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"raster": "512"}, r"competition\.raster must be HEIGHTxWIDTH as 512x512, .* got '512'"),
        ({"raster": "0x5"}, r"competition\.raster must be .* got '0x5'"),
        ({"thresholds": [0.7, 0.5]}, r"thresholds must be ascending numbers .* got \(0\.7, 0\.5\)"),
        ({"thresholds": []}, r"competition\.thresholds must be ascending"),
        ({"thresholds": [0.5, 1.5]}, r"competition\.thresholds must be ascending"),
        ({"disjoint": "some"}, r"competition\.disjoint must be .*'class', 'all' or 'none'"),
        (
            {"averaging": "mean"},
            r"competition\.averaging must be 'per_class' or 'pooled', got 'm",
        ),
        ({"strict": "yes"}, r"competition\.strict must be true or false, got 'yes'"),
        ({"rasters": "native"}, r"competition\.rasters must be "),
        ({"columns": ["ClassId"]}, r"competition\.columns must be ImageId and EncodedPixels, with"),
        (
            {"filler": {"encoded_pixels": "5 0", "category_id": 1}},
            r"filler\.encoded_pixels must be",
        ),
    ],
)
def test_illegal_values_are_named(values: dict[str, Any], message: str) -> None:
    good = {"name": "own", "raster": "native"}
    Competition.from_config(good)
    with pytest.raises(InputError, match=message):
        Competition.from_config(good | values)


def test_an_unknown_competition_is_one_line() -> None:
    known = "coco, dsb_2018, imaterialist_2019, imaterialist_2020"
    with pytest.raises(InputError, match=rf"^competition must be one of {known}, got 'voc'$"):
        Competition.preset("voc")
