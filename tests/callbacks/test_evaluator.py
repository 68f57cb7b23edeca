"""Scores of a validation come from all images together, each once, on one device and on two."""

from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy
from pycocotools import mask as coco_mask

from src.annotations.store_builder import open_or_build
from src.callbacks.evaluator import Evaluator
from src.callbacks.validation_metrics import CompetitionScoreMetric
from src.errors import InputError
from src.metrics.coco_average_precision import CocoImage, coco_annotations, image_number
from src.metrics.competition import score_images
from src.metrics.inputs import RasterInstances
from src.modules.cascade import CascadeModule
from src.postprocess.pipeline import coco_results, postprocess
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.tuning.evaluated_image import as_submitted
from tests.helpers.candidates import DEFAULT
from tests.helpers.competitions import IMATERIALIST_2019
from tests.helpers.images import Data, DrawnImage
from tests.helpers.scoring import by_pycocotools, defined
from tests.helpers.trainers import CATEGORY_IDS, compose_training


def guesses(image: DrawnImage) -> Candidates:
    """What a trained cascade might find.

    The ground-truth instances roughly, some twice, some as others.
    """
    random = np.random.default_rng(zlib.crc32(image.image_id.encode()))
    boxes, categories, masks = [], [], []
    for category, mask in image.objects:
        ys, xs = np.nonzero(mask)
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=np.float32)
        crop = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.float32)
        for _ in range(random.integers(0, 3)):
            boxes.append(box + random.normal(0, 2, 4))
            masks.append(cv2.resize(crop, (28, 28), interpolation=cv2.INTER_AREA))
            categories.append(category if random.random() < 0.8 else random.choice(CATEGORY_IDS))
    count = len(boxes)
    return Candidates(
        image_id=image.image_id,
        size_hw=image.image.shape[:2],
        boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(count, 4),
        scores=random.uniform(0.4, 1, count).astype(np.float32),
        category_ids=np.array(categories, dtype=np.int16).reshape(count),
        mask_probabilities=np.array(masks, dtype=np.float32).reshape(count, 28, 28),
        complete_above_score=0.001,
    )


def validate(
    images: Data, folder: Path, *overrides: str, **options: Any
) -> tuple[dict[str, float], Any]:
    """Validate a cascade that guesses; its scores, and the datamodule."""
    config = compose_training(images, folder, *overrides)
    module = instantiate(config.module)
    assert isinstance(module, CascadeModule)
    module.predict_step = lambda batch, _: [  # type: ignore[method-assign]
        guesses(images.images[sample.img_id]) for sample in batch["data_samples"]
    ]
    datamodule = instantiate(config.datamodule)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[instantiate(config.callbacks.evaluator)],
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        **options,
    )
    (scores,) = trainer.validate(module, datamodule=datamodule, verbose=False)
    return dict(scores), datamodule


@pytest.fixture(scope="module")
def alone(
    data: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, float], Any, Path]:
    folder = tmp_path_factory.mktemp("alone")
    return *validate(data, folder), folder


def test_coco_scores_are_pycocotools_over_all_images(
    alone: tuple[dict[str, float], Any, Path], data: Data
) -> None:
    scores, datamodule, folder = alone
    settings = PostprocessSettings(
        **compose_training(data, folder).callbacks.evaluator.metrics.coco_average_precision.settings
    )
    images = []
    for number, image_id in enumerate(datamodule.split.validation, start=1):
        image = data.images[image_id]
        annotations = []
        for category, mask in image.objects:
            encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "image_id": number,
                    "category_id": category,
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": encoded,
                }
            )
        results = coco_results(guesses(image), settings, image_number=number)
        images.append(CocoImage(number, image.image.shape[:2], annotations, results))
    for kind, prefix in (("segm", ""), ("bbox", "box_")):
        expected = by_pycocotools(images, kind, categories=list(range(46))).stats
        names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
        for name, value in zip(names, expected, strict=False):
            found = scores.get(f"validation/coco_{prefix}{name}")
            wanted = defined(value)
            assert found == (wanted if wanted is None else pytest.approx(value, abs=1e-6))
        assert 0.1 < scores[f"validation/coco_{prefix}map"] < 0.9


def test_competition_score_is_that_of_all_images(
    alone: tuple[dict[str, float], Any, Path], data: Data
) -> None:
    scores, datamodule, folder = alone
    settings = PostprocessSettings(**compose_training(data, folder).postprocess)
    predictions = {}
    for image_id in datamodule.split.validation:
        found = postprocess(guesses(data.images[image_id]), settings)
        predictions[image_id] = as_submitted(found, filler=IMATERIALIST_2019.filler)
    ground_truth = RasterInstances(datamodule.store)
    expected = score_images([ground_truth[image_id] for image_id in predictions], predictions)
    found = scores["validation/competition_map"]
    assert found == expected.competition_map
    assert 0.1 < found < 0.9


def test_two_devices_score_as_one_and_no_image_twice(
    alone: tuple[dict[str, float], Any, Path], data: Data, tmp_path: Path
) -> None:
    """Five images on two devices: the sampler repeats one."""
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
    scores, _ = validate(data, tmp_path, devices=2, strategy=strategy)
    assert scores == alone[0]
    tables = [folder / "validation" / "epoch_00_classes.csv" for folder in (tmp_path, alone[2])]
    assert tables[0].read_text() == tables[1].read_text()
    with tables[0].open() as file:
        counted = sum(int(row["true_objects"] or 0) for row in csv.DictReader(file))
    images = alone[1].split.validation
    assert counted == sum(len(data.images[image_id].objects) for image_id in images)


def test_truth_of_another_size_than_the_image_is_resized(data: Data, tmp_path: Path) -> None:
    store = open_or_build(data.directory / "train.csv", tmp_path)
    image_id = "0005.jpg"
    image = data.images[image_id]
    height, width = image.image.shape[:2]
    same = coco_annotations(store, image_id, size_hw=(height, width))
    double = coco_annotations(store, image_id, size_hw=(2 * height, 2 * width))
    assert len(same) == len(double) == len(image.objects)
    for (category, mask), one, two in zip(image.objects, same, double, strict=True):
        assert one["category_id"] == two["category_id"] == category
        assert one["image_id"] == two["image_id"] == image_number(store, image_id)
        assert np.array_equal(coco_mask.decode(one["segmentation"]), mask)
        larger = mask.repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(coco_mask.decode(two["segmentation"]), larger)
        assert two["area"] == 4 * one["area"] == 4 * int(mask.sum())
        assert two["bbox"] == [2 * value for value in one["bbox"]]
        assert one["bbox"] == coco_mask.toBbox(one["segmentation"]).tolist()


def test_crowd_regions_of_the_truth_stay_crowds(tmp_path: Path) -> None:
    square = {"size": [4, 6], "counts": [4, 2, 2, 2, 14]}
    objects = [
        {"id": n + 1, "image_id": 1, "category_id": 2, "iscrowd": n, "segmentation": square}
        for n in range(2)
    ]
    for entry in objects:
        entry |= {"area": 4, "bbox": [1, 0, 2, 2]}
    source = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 2, "name": "sweater"}],
        "annotations": objects,
    }
    (tmp_path / "truth.json").write_text(json.dumps(source))
    store = open_or_build(tmp_path / "truth.json", tmp_path / "cache")
    (record,) = store.images
    found = coco_annotations(store, record.image_id, size_hw=(4, 6))
    assert [entry["iscrowd"] for entry in found] == [0, 1]
    assert [entry["area"] for entry in found] == [4, 4]
    assert [entry["bbox"] for entry in found] == [[1, 0, 2, 2]] * 2
    for entry in found:
        assert coco_mask.decode(entry["segmentation"])[:2, 1:3].sum() == 4


@pytest.mark.parametrize("number", [-1, 2.5])
def test_a_number_of_images_that_is_not_legal(number: Any) -> None:
    with pytest.raises(
        InputError, match=rf"num_images must be a whole number of at least 0, got {number}$"
    ):
        Evaluator(settings=DEFAULT, metrics=None, num_images=number)


def test_each_part_is_switched_off_by_one_override(data: Data, tmp_path: Path) -> None:
    overrides = (
        "callbacks.evaluator.metrics.coco_average_precision=null",
        "callbacks.evaluator.class_table_dir=null",
        "callbacks.evaluator.num_images=0",
    )
    scores, _ = validate(data, tmp_path, *overrides)
    assert list(scores) == ["validation/competition_map"]
    assert not (tmp_path / "validation").exists()


def test_a_metric_of_ones_own_is_an_entry_of_the_configuration(
    alone: tuple[dict[str, float], Any, Path], data: Data, tmp_path: Path
) -> None:
    key = "callbacks.evaluator.metrics"
    target = "tests.helpers.own_metric.DetectionsPerImage"
    scores, datamodule = validate(data, tmp_path, f"+{key}.mine._target_={target}")
    rules = PostprocessSettings(**compose_training(data, tmp_path).postprocess)
    counts = [
        max(1, len(postprocess(guesses(data.images[image_id]), rules)))  # 1: the filler row
        for image_id in datamodule.split.validation
    ]
    mean = sum(counts) / len(counts)
    assert scores == alone[0] | {"validation/detections_per_image": mean}


def test_an_averaging_that_is_not_legal_is_refused_before_training() -> None:
    with pytest.raises(InputError, match="averaging must be one of per_class, pooled, got"):
        CompetitionScoreMetric(averaging="mean")  # type: ignore[arg-type]
