"""What may be searched, and what is refused."""

from __future__ import annotations

import re

import optuna
import pytest

from src.errors import InputError
from src.tuning.search_space import SearchSpace
from tests.helpers.candidates import make_settings

BASE = make_settings(nms_iou_threshold=0.42, soft_nms_min_score=0.007)
SPACE = {
    "score_threshold": "0.1 to 0.9 by 0.1",
    "nms_kind": ["class_wise", "soft_linear", "soft_gaussian"],
    "nms_iou_threshold": "0.1 to 0.7 by 0.05",
    "soft_nms_sigma": "0.1 to 1.0 by 0.1",
    "soft_nms_min_score": "0.1 to 0.7 by 0.1",
    "max_per_class": [None, 1, 2],
    "min_area_px": "0 to 100 by 20",
    "mask_threshold": None,
    "score_threshold_per_class": "0.2 to 0.6 by 0.1",
}


def suggest(**params):
    space = SearchSpace(SPACE, BASE)
    trial = optuna.trial.FixedTrial(
        {"score_threshold": 0.1 + 0.2, "max_per_class": None, "min_area_px": 40} | params
    )
    return space.suggest(trial), set(trial.params)


def test_only_keys_that_the_kind_of_nms_looks_at_are_asked():
    always = {"score_threshold", "max_per_class", "min_area_px", "nms_kind"}
    settings, asked = suggest(nms_kind="class_wise", nms_iou_threshold=0.25)
    assert asked == always | {"nms_iou_threshold"}
    assert settings == make_settings(
        score_threshold=0.3, nms_iou_threshold=0.25, min_area_px=40, soft_nms_min_score=0.007
    )
    settings, asked = suggest(nms_kind="soft_gaussian", soft_nms_sigma=0.4, soft_nms_min_score=0.2)
    assert asked == always | {"soft_nms_sigma", "soft_nms_min_score"}
    assert (settings.nms_iou_threshold, settings.soft_nms_min_score) == (0.42, 0.2)
    _, asked = suggest(nms_kind="soft_linear", nms_iou_threshold=0.3, soft_nms_min_score=0.2)
    assert asked == always | {"nms_iou_threshold", "soft_nms_min_score"}


def test_without_kinds_the_base_decides():
    space = SearchSpace(
        {"soft_nms_sigma": [0.1], "max_per_image": [3]}, make_settings(nms_kind="class_agnostic")
    )
    settings = space.suggest(optuna.trial.FixedTrial({"max_per_image": 3}))
    assert (settings.nms_kind, settings.max_per_image) == ("class_agnostic", 3)


def test_lists_of_categories_are_choices():
    choices = [[], ["attribute_classes"], [4]]
    space = SearchSpace({"remove_categories": choices}, BASE)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"remove_categories": ["[4]"]}))
    assert space.suggest(study.ask()).remove_categories == [4]
    chosen = {"remove_categories": '["attribute_classes"]'}
    assert space.settings(chosen).removed_categories == frozenset(range(13))


def test_values_of_classes():
    assert SearchSpace(SPACE, BASE).per_class == {
        "score_threshold_per_class": [0.2, 0.3, 0.4, 0.5, 0.6]
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space must have a range or a list for one key or more, got none"),
        ({"thresold": [1]}, "min_area_px, min_area_raster, got thresold"),
        (
            {"steps": [["masks"]]},
            "space must have keys among score_threshold, score_threshold_per_",
        ),
        ({"nms_kind": []}, "space.nms_kind must be a range, as 0.1 to 0.9 by 0.05, or a list"),
        ({"nms_kind": "soft"}, "space.nms_kind must be a range, as 0.1 to 0.9 by 0.05, or a list"),
        ({"nms_kind": ["soft"]}, "space.nms_kind: postprocess.nms_kind must be one of "),
        (
            {"score_threshold": {"low": 0}},
            "of values, got {'low': 0}",
        ),
        ({"score_threshold": "0 to 1"}, "of values, got '0 to 1'"),
        (
            {"score_threshold": "0.1 to 0.2 by 0.03"},
            "space.score_threshold must be a range of whole steps above 0 from start to end, got ",
        ),
        (
            {"score_threshold": "0.1 to 0.2 by 0"},
            "space.score_threshold must be a range of whole steps above 0 from start to end, got ",
        ),
        (
            {"score_threshold": "0.5 to 1.5 by 0.5"},
            "space.score_threshold: postprocess.score_threshold must be a number from 0 to 1, got ",
        ),
        (
            {"min_area_px": "0 to 1 by 0.5"},
            "space.min_area_px must be a range of whole numbers, got 0 to 1 by 0.5",
        ),
        (
            {"mask_threshold_per_class": [0.3, 0.5]},
            "space.mask_threshold_per_class must be a range, as 0.1 to 0.9 by 0.05, got [0.3, 0.5]",
        ),
        (
            {"mask_threshold_per_class": "0 to 0.5 by 0.5"},
            "space.mask_threshold_per_class: postprocess.mask_threshold_per_class.0 must be a "
            "number above 0 and at most 1, got 0.0",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(space, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SearchSpace(space, BASE)
