"""What training sees of images with an EXIF orientation: the garment, wherever it was annotated."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.annotations.formats import ReadingOptions
from src.annotations.store_builder import open_or_build
from src.cli.derived_config import use_own_data
from src.datamodules.dataset import TrainingDataset
from src.datamodules.transforms import PixelAugmentation
from tests.helpers.exif_data import DISPLAYED_HW, LONG_GARMENT, drawn, save_image, write_annotations


@pytest.mark.parametrize("made_on", ["as_displayed", "as_stored", "exchanged"])
@pytest.mark.parametrize("form", ["polygon", "rle", "csv"])
def test_masks_of_training_lie_on_the_garment(tmp_path, form, made_on):
    names = {f"o{orientation}.jpg": orientation for orientation in range(1, 9)}
    for name, orientation in names.items():
        save_image(tmp_path / name, drawn(LONG_GARMENT), orientation)
    source = write_annotations(
        tmp_path / "a", names, form=form, made_on=made_on, points=LONG_GARMENT
    )
    dataset = TrainingDataset(
        store=open_or_build(source, tmp_path / "cache", ReadingOptions(images_directory=tmp_path)),
        indices=np.arange(8),
        images_directory=tmp_path,
        category_ids=(6,),
        short_edge_px=(DISPLAYED_HW[1], DISPLAYED_HW[1]),
        long_edge_px=DISPLAYED_HW[0],
        flip_probability=0.5,
        pixel_augmentation=PixelAugmentation({}),
        seed=3,
    )
    flips = set()
    for index in range(8):
        sample = dataset[0, index]
        data_sample = sample["data_samples"]
        flips.add(bool(data_sample.flip))
        red = sample["inputs"][1].numpy() < 75
        mask = data_sample.gt_instances.masks.masks[0].astype(bool)
        assert mask.shape == DISPLAYED_HW
        assert (mask & red).sum() > 0.97 * (mask | red).sum()  # but for JPEG's loss at the outline
        expected = drawn(LONG_GARMENT)
        np.testing.assert_array_equal(mask, expected[:, ::-1] if data_sample.flip else expected)
    assert flips == {False, True}


def test_the_runs_key_stands_for_the_datamodules(tmp_path):
    for given, expected in (("as_stored", "as_stored"), (None, "auto")):
        config = OmegaConf.create(
            {"annotations": None, "images": None, "exif": given, "datamodule": {"exif": "auto"}}
        )
        use_own_data(config, run_directory=tmp_path)
        assert config.datamodule.exif == expected
