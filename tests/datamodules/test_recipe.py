"""What the competition's data module is built of."""

from __future__ import annotations

import albumentations
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY
from src.datamodules.datamodule import CompetitionDataModule


def build(option: str) -> CompetitionDataModule:
    with initialize_config_dir(config_dir=str(CONFIG_DIRECTORY), version_base="1.3"):
        group = compose(f"datamodule/{option}").datamodule
    paths = {"data_dir": "data", "cache_dir": "cache"}
    config = OmegaConf.create({"datamodule": group, "paths": paths, "seed": 3, "mask_images": {}})
    return instantiate(config.datamodule)


def test_competition_is_built_with_its_augmentation():
    """The plain values of the recipe are compared in tests/test_recipe.py."""
    datamodule = build("competition")
    assert (datamodule.group_by_aspect_ratio, datamodule.repeat_factor) == (True, None)
    assert datamodule.seed == 3
    cutout, brightness_contrast, jpeg = datamodule.pixel_augmentation._compose.transforms
    assert isinstance(cutout, albumentations.CoarseDropout)
    assert (cutout.hole_height_range, cutout.hole_width_range) == ((1, 64), (1, 64))
    assert (cutout.num_holes_range, cutout.p) == ((8, 8), 0.5)
    assert isinstance(brightness_contrast, albumentations.RandomBrightnessContrast)
    assert brightness_contrast.brightness_limit == (-0.3, 0.3)
    assert brightness_contrast.contrast_limit == (-0.3, 0.3)
    assert brightness_contrast.p == 0.5
    assert isinstance(jpeg, albumentations.ImageCompression)
    assert (jpeg.compression_type, jpeg.quality_range, jpeg.p) == ("jpeg", (80, 99), 0.5)


def test_tiny_changes_sizes_only():
    tiny, competition = build("tiny"), build("competition")
    assert tuple(tiny.train_short_edge_px) == (224, 256)
    assert str(tiny.annotations) == str(competition.annotations) == "data/train.csv"
    transforms = [m.pixel_augmentation._compose.transforms for m in (tiny, competition)]
    assert [type(t) for t in transforms[0]] == [type(t) for t in transforms[1]]
    assert transforms[0][0].hole_height_range == (1, 16)


@pytest.mark.parametrize("option", ["competition", "tiny"])
def test_building_touches_no_file(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build(option)
    assert list(tmp_path.iterdir()) == []
