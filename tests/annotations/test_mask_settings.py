"""Keys of the group ``mask_images``: what is legal, and what is said of what is not."""

from __future__ import annotations

import re

import pytest

from src.annotations.mask_settings import MaskClass, MaskImageSettings
from src.cli.entry_point import to_plain
from src.errors import InputError
from tests.helpers.configs import compose_config


def test_classes_are_names_or_sections_by_id():
    shoe = {"name": "shoe", "values": [7, 8], "instances": "components"}
    settings = MaskImageSettings.from_config({"classes": {"9": shoe, 2: "hat"}})
    assert settings.classes == (
        MaskClass(2, "hat", (2,), in_components=False),
        MaskClass(9, "shoe", (7, 8), in_components=True),
    )
    assert settings.labels().category_names == {2: "hat", 9: "shoe"}
    assert MaskImageSettings().labels().category_names == {1: "object"}


@pytest.mark.parametrize("command", ["convert", "score", "split", "train", "predict", "search"])
def test_the_command_line_gives_the_classes(command):
    config = compose_config(command, ["mask_images.classes={1:nucleus,3:{name:b,values:[4]}}"])
    settings = MaskImageSettings.from_config(to_plain(config.mask_images))
    assert [(one.category_id, one.name, one.values) for one in settings.classes] == [
        (1, "nucleus", (1,)),
        (3, "b", (4,)),
    ]
    default = to_plain(compose_config(command, []).mask_images)
    assert MaskImageSettings.from_config(default) == MaskImageSettings()


def test_the_command_line_changes_single_classes_of_an_option():
    changes = ["~mask_images.classes.31", "+mask_images.classes={24:human}"]
    changes += ["mask_images.classes.26=auto"]
    config = compose_config("convert", ["mask_images=cityscapes", *changes])
    names = MaskImageSettings.from_config(to_plain(config.mask_images)).labels().category_names
    assert list(names) == [24, 25, 26, 27, 28, 32, 33]
    assert (names[24], names[26]) == ("human", "auto")


@pytest.mark.parametrize("command", ["convert", "compare", "postprocess", "report", "train"])
def test_cityscapes_is_an_option_of_every_command(command):
    config = compose_config(command, ["mask_images=cityscapes", "mask_images.image_suffix=.jpg"])
    settings = MaskImageSettings.from_config(to_plain(config.mask_images))
    assert (settings.layout, settings.class_divisor) == ("instance_ids", 1000)
    assert settings.labels().category_names[26] == "car"
    assert settings.image_suffix == ".jpg"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "dsb"}, "mask_images.layout must be one of auto, instance_files, instance_ids"),
        ({"classes": ["a"]}, "mask_images.classes must be null or names by category id, in quo"),
        ({"classes": {}}, "mask_images.classes must be null or names by category id"),
        ({"classes": {"x": "a"}}, "must be a category id from 0 to 32767, got 'x'"),
        ({"classes": {40000: "a"}}, "must be a category id from 0 to 32767, got 40000"),
        ({"classes": {1: ""}}, "mask_images.classes.1.name must be a text, got ''"),
        ({"classes": {1: {"nme": "a"}}}, "keys name, values and instances, got 'nme'"),
        (
            {"classes": {1: {"name": "a", "instances": "each"}}},
            "mask_images.classes.1.instances must be whole or components, got 'each'",
        ),
        (
            {"classes": {1: {"name": "a", "values": 3}}},
            "mask_images.classes.1.values must be a list of whole numbers of at least 0, got 3",
        ),
        (
            {"classes": {1: "a", 2: {"name": "b", "values": [1]}}},
            "mask_images.classes must have each value once, got 1 for a and b",
        ),
        ({"class_divisor": 1}, "class_divisor must be a whole number of at least 2, or null for"),
        ({"ignored_values": 255}, "must be a list of whole numbers, or all_others, got 255"),
        ({"threshold": 0.5}, "mask_images.threshold must be a whole number of at least 1, or null"),
        ({"connectivity": 6}, "mask_images.connectivity must be one of 4, 8, got 6"),
        ({"min_area_px": -1}, "mask_images.min_area_px must be a whole number of at least 0"),
        ({"overlaps": "drop"}, "mask_images.overlaps must be one of keep, refuse, got 'drop'"),
        ({"mask_suffix": "a/b"}, "must be null or an ending of file names, got 'a/b'"),
        ({"image_suffix": ""}, "must be null or an ending of file names, got ''"),
    ],
)
def test_each_value_is_named_with_its_key(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        MaskImageSettings.from_config(values)


def test_a_section_that_is_none_is_refused():
    with pytest.raises(InputError, match="mask_images must be a section of keys, got 'cityscapes'"):
        MaskImageSettings.from_config("cityscapes")  # type: ignore[arg-type]
