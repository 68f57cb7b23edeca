"""Training and scoring straight from folders of mask images, in each layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from src import open_annotations, score
from src.annotations.competition import Competition
from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.datamodules.datamodule import CompetitionDataModule
from src.predict import predict
from src.predictions.store import PredictionStore
from src.rle import format_rle
from src.train import train
from tests.helpers.cascades import SMALL
from tests.helpers.configs import compose_config
from tests.helpers.mask_folders import blocks, save_palette, write_images, write_instance_files

SIZE_HW = (60, 80)
BOXES = [
    [(5, 5, 30, 30), (30, 40, 55, 75)],
    [(10, 10, 50, 40), (0, 50, 20, 80), (40, 50, 60, 70)],
    [(20, 20, 40, 60)],
    [(2, 30, 30, 70), (35, 5, 55, 35)],
]
LAYOUTS: dict[str, dict[str, Any]] = {
    "instance_files": {"classes": {7: "nucleus"}},
    "instance_ids": {
        "layout": "instance_ids",
        "class_divisor": 1000,
        "classes": {24: "person", 26: "car"},
    },
    "label_maps": {
        "layout": "label_maps",
        "classes": {1: "hat", 5: {"name": "shoe", "values": [2], "instances": "components"}},
    },
}


def write_layout(folder: Path, layout: str) -> tuple[Path, Path]:
    """Write four images in a layout; return the folder of the masks and that of the images."""
    drawn = {f"i{number}": blocks(SIZE_HW, *boxes) for number, boxes in enumerate(BOXES)}
    if layout == "instance_files":
        root = write_instance_files(folder / "dsb", drawn, size_hw=SIZE_HW)
        return root, root
    (folder / "masks").mkdir()
    for name, bitmaps in drawn.items():
        values = np.zeros(SIZE_HW, dtype=np.uint16)
        for number, bitmap in enumerate(bitmaps):
            label = 2 if number else 1
            values[bitmap] = label if layout == "label_maps" else (22 + 2 * label) * 1000 + number
        if layout == "label_maps":
            save_palette(values, folder / "masks" / f"{name}.png")
        else:
            Image.fromarray(values).save(folder / "masks" / f"{name}.png")
    return folder / "masks", write_images(
        folder / "images", [f"{name}.jpg" for name in drawn], size_hw=SIZE_HW
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_what_its_conversion_is(tmp_path, layout):
    masks, images = write_layout(tmp_path, layout)
    settings = MaskImageSettings.from_config(LAYOUTS[layout])
    options = ReadingOptions(images_directory=images, mask_images=settings)
    build_store(masks, tmp_path / "a.store", options)
    report = convert(masks, tmp_path / "o.json", options)
    build_store(tmp_path / "o.json", tmp_path / "b.store", ReadingOptions(images_directory=images))
    folder, file = AnnotationStore(tmp_path / "a.store"), AnnotationStore(tmp_path / "b.store")
    assert report.instances == sum(map(len, BOXES)) == folder.num_instances
    assert folder.images == file.images
    assert folder.labels == file.labels
    assert_array_equal(folder.digests, file.digests)  # of every mask, category and crowd mark

    annotations = open_annotations(masks, images=images, mask_images=LAYOUTS[layout])
    assert annotations.category_names == settings.labels().category_names
    assert score(tmp_path / "o.json", annotations).competition_map == 1
    assert annotations.instances(folder.images[1].image_id).areas_px.tolist() == [1200, 600, 400]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_training_have_the_masks_of_the_files(tmp_path, layout):
    masks, images = write_layout(tmp_path, layout)
    datamodule = CompetitionDataModule(
        annotations=str(masks),
        images=str(images),
        mask_images=LAYOUTS[layout],
        split_file=str(tmp_path / "split.json"),
        num_validation_images=1,
        split_seed=0,
        cache_dir=str(tmp_path / "cache"),
        train_short_edge_px=(60, 60),
        train_long_edge_px=80,
        flip_probability=0,
    )
    datamodule.setup("fit")
    sample = datamodule.train_dataset[0]["data_samples"]
    store = datamodule.store
    index = store.index_of(sample.img_id)
    assert len(sample.gt_instances.labels) == store.instance_counts[index]
    assert sample.gt_instances.masks.masks.sum() == store.instances(index).areas_px.sum()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cascade_is_trained_on_a_folder_and_predicts_its_validation_images(tmp_path, layout):
    masks, images = write_layout(tmp_path, layout)
    threads = torch.get_num_threads()
    classes = ",".join(
        f"{key}:{value}"
        if isinstance(value, str)
        else f"{key}:{{name:shoe,values:[2],instances:components}}"
        for key, value in LAYOUTS[layout]["classes"].items()
    )
    others = {key: value for key, value in LAYOUTS[layout].items() if key != "classes"}
    data = [
        f"annotations={masks}",
        f"images={images}",
        f"mask_images.classes={{{classes}}}",
        *(f"mask_images.{key}={value}" for key, value in others.items()),
    ]
    quick = [
        *(one for one in SMALL if not one.startswith("module.num_classes")),
        "datamodule.train_short_edge_px=[48,64]",
        "datamodule.predict_short_edge_px=48",
        "datamodule.predict_long_edge_px=96",
        "datamodule.num_validation_images=1",
        "datamodule.num_workers=0",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "callbacks.progress=null",
        "num_torch_threads=1",
    ]
    run = tmp_path / "run"
    train(compose_config("train", ["+experiment=own", *data, f"paths.output_dir={run}", *quick]))
    here = ["datamodule.num_workers=0", "trainer.accelerator=cpu", "callbacks.progress=null"]
    place = [f"checkpoint={run}", "predict_split=validation", f"paths.output_dir={tmp_path}/p"]
    found = PredictionStore(predict(compose_config("predict", [*place, *data, *here])))
    assert len(found) == 1
    assert found.classes.category_ids == tuple(LAYOUTS[layout]["classes"])
    annotations = open_annotations(masks, images=images, mask_images=LAYOUTS[layout])
    assert found.image_ids[0] in annotations.image_ids
    torch.set_num_threads(threads)


def test_the_bowls_folder_is_scored_by_its_own_ids(tmp_path):
    masks, images = write_layout(tmp_path, "instance_files")
    competition = Competition.preset("dsb_2018")
    options = {"images": images, "mask_images": {"classes": {1: "nucleus"}}}
    annotations = open_annotations(masks, competition="dsb_2018", **options)
    rows = []
    for index, image_id in enumerate(annotations.image_ids):
        assert competition.image_id(image_id) == f"i{index}"
        found = annotations.instances(image_id)
        rows += [f"i{index},{text}" for text in format_rle(found.masks)]
    submission = tmp_path / "submission.csv"
    submission.write_text("\n".join(["ImageId,EncodedPixels", *rows]) + "\n")
    assert score(submission, annotations).competition_map == 1
