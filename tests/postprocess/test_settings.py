"""Settings that make no sense are refused by key, value and what is legal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.errors import InputError
from src.postprocess import settings as settings_module
from src.postprocess.settings import PRESETS, PostprocessSettings
from tests.helpers.candidates import DEFAULT, WINNER, make_settings

CAP = "a whole number of at least 1, or null for no cap"
OVERLAPS = "suppress_overlaps must be true, false, or all (masks of different categories, too)"
IDS = "category ids (0, 1, 2, ...)"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("score_threshold", -0.1, "score_threshold must be a number from 0 to 1, got -0.1"),
        ("score_threshold", "high", "score_threshold must be a number from 0 to 1, got 'high'"),
        ("score_threshold", "0.5", "score_threshold must be a number from 0 to 1, got '0.5'"),
        ("score_threshold", True, "score_threshold must be a number from 0 to 1, got True"),
        ("score_threshold", None, "score_threshold must be a number from 0 to 1, got null"),
        ("score_threshold", float("nan"), "score_threshold must be a number from 0 to 1, got nan"),
        ("nms_iou_threshold", 1.5, "nms_iou_threshold must be a number from 0 to 1, got 1.5"),
        ("mask_threshold", 0, "mask_threshold must be a number above 0 and at most 1, got 0"),
        ("max_per_image", 0, f"max_per_image must be {CAP}, got 0"),
        ("max_per_image", 2.5, f"max_per_image must be {CAP}, got 2.5"),
        ("max_per_image", True, f"max_per_image must be {CAP}, got True"),
        ("max_per_image", 3.0, f"max_per_image must be {CAP}, got 3.0"),
        ("min_area_px", -1, "min_area_px must be a whole number of at least 0, got -1"),
        ("suppress_overlaps", "yes", OVERLAPS + ", got 'yes'"),
        ("suppress_overlaps", 1, OVERLAPS + ", got 1"),
        ("remove_categories", 3, "remove_categories must be a list of categories, as [0,1,2], got"),
        ("remove_categories", "1,2", "remove_categories must be a list of categories, as [0,1,2],"),
        ("remove_categories", [1, "shoe"], f"remove_categories must be {IDS}, got 'shoe'"),
        ("remove_categories", [-1], f"remove_categories must be {IDS}, got -1"),
        ("remove_categories", [True], f"remove_categories must be {IDS}, got True"),
        ("remove_categories", ["parts"], f"remove_categories must be {IDS}, got 'parts'"),
        ("remove_categories", "attribute_classes", "remove_categories must be a list of categorie"),
        ("remove_categories", None, "remove_categories must be a list of categories, as [0,1,2], "),
        ("nms_kind", "hard", "nms_kind must be one of class_wise, class_agnostic, soft_linear, "),
        ("nms_kind", ["soft"], "nms_kind must be one of class_wise, class_agnostic, soft_linear, "),
        ("soft_nms_sigma", 0, "soft_nms_sigma must be a finite number above 0, got 0"),
        ("soft_nms_sigma", float("inf"), "soft_nms_sigma must be a finite number above 0, got inf"),
        ("soft_nms_min_score", 2, "soft_nms_min_score must be a number from 0 to 1, got 2"),
        ("max_per_class", 0, f"max_per_class must be {CAP}, got 0"),
        (
            "min_area_raster",
            "photo",
            "min_area_raster must be HEIGHTxWIDTH as 512x512, long_edge_PIXELS as long_edge_1024",
        ),
        ("score_threshold_per_class", 0.5, "score_threshold_per_class must be a threshold by cat"),
        ("score_threshold_per_class", {"shoe": 1}, f"_threshold_per_class must be {IDS}, got 'sh"),
        ("score_threshold_per_class", {-1: 0.5}, f"score_threshold_per_class must be {IDS}, got -"),
        ("score_threshold_per_class", {"2": 0.5, 2: 1}, "must have a category once, got '2' and 2"),
        ("score_threshold_per_class", {2: 3}, "per_class.2 must be a number from 0 to 1, got 3"),
        ("mask_threshold_per_class", {2: 0}, "per_class.2 must be a number above 0 and at most 1"),
        ("steps", ["nms"], "postprocess.steps must have masks, of which a submission is made"),
    ],
)
def test_bad_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
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
    assert PostprocessSettings.from_config({key: DEFAULT[key] for key in first}) == make_settings()


def test_all_bad_values_are_named_in_one_line() -> None:
    message = re.escape(
        "postprocess.score_threshold must be a number from 0 to 1, got 'high'; "
        "postprocess.remove_categories must be a list of categories, as [0,1,2], got 3; "
        "postprocess.min_area_px must be a whole number of at least 0, got -1"
    )
    with pytest.raises(InputError, match=f"^{message}$"):
        make_settings(min_area_px=-1, score_threshold="high", remove_categories=3)


def test_settings_without_a_value_are_mmdetections() -> None:
    assert PostprocessSettings() == make_settings() == PostprocessSettings.preset("default")
    assert PostprocessSettings(min_area_px=20) == make_settings(min_area_px=20)
    assert repr(PostprocessSettings(min_area_px=20)).startswith(
        "PostprocessSettings(score_threshold=0.001, score_threshold_per_class={}, nms_kind='class_w"
    )


def test_presets_are_the_options_of_the_configuration() -> None:
    assert PostprocessSettings.preset("winner") == make_settings(**WINNER)
    every_class = PostprocessSettings.preset("winner_all_classes")
    assert every_class == make_settings(**WINNER | {"remove_categories": []})
    for name in ("nothing", "../postprocess", "winner.yaml", 3):
        with pytest.raises(InputError, match=r"^preset must be one of default, unchanged, winner"):
            PostprocessSettings.preset(name)


def test_an_own_file_is_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in PRESETS.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = {"defaults": ["winner", "_self_"], "min_area_px": 7, "searched": {"in_sample": []}}
    (tmp_path / "own_preset.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(settings_module, "PRESETS", tmp_path)
    assert PostprocessSettings.preset("own_preset") == make_settings(**WINNER | {"min_area_px": 7})


def test_replacing_values_makes_other_settings() -> None:
    settings = make_settings(score_threshold_per_class={23: 0.5})
    other = settings.replace(min_area_px=20, score_threshold_per_class=None)
    assert (settings.min_area_px, other.min_area_px) == (0, 20)
    assert other == make_settings(min_area_px=20)
    assert hash(other) == hash(make_settings(min_area_px=20))
    assert PostprocessSettings.from_config(settings.to_dict()) == settings
    with pytest.raises(InputError, match=r"^postprocess must have keys among .*; got min_area$"):
        settings.replace(min_area=20)
    with pytest.raises(AttributeError, match="post-processing has no setting 'min_area'"):
        settings.min_area  # noqa: B018
