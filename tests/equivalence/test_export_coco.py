"""``python -m src.export_coco``: pycocotools finds the AP that mmdet's own evaluator reports."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.annotations.coco_results import number_images
from src.datamodules.dataset import ImageDataset
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import collate, preprocess
from src.modules.ensemble import load_models
from src.predictions.store import PredictionStore
from tests.helpers.predictions import CLASSES, SIZES_HW, checkpoint, run, write_folder
from tests.helpers.stores import make_images, make_writer, write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("predict"))


NUMBERS = {"a.jpg": 30, "b.jpg": 10, "c.jpg": 20}  # COCO's, which are not in the order of names


@torch.no_grad()
def predicted_by_mmdet(folder: Path) -> dict[str, Any]:
    """mmdet's own ``predict`` of each image with COCO's defaults, as its evaluator takes it."""
    (detector,) = load_models(
        [checkpoint(folder, 0)], detector={}, num_classes=CLASSES, category_ids=None
    )
    images = ImageDataset(
        images_directory=folder / "test",
        image_ids=tuple(SIZES_HW),
        file_names=tuple(SIZES_HW),
        short_edge_px=64,
        long_edge_px=96,
    )
    samples = {}
    for place, (name, size_hw) in enumerate(SIZES_HW.items()):
        data = preprocess(detector, collate([images[place]]), training=False)
        (sample,) = detector.predict(data["inputs"], data["data_samples"], rescale=True)
        samples[name] = {
            "img_id": NUMBERS[name],
            "ori_shape": size_hw,
            "pred_instances": sample.pred_instances,
        }
    return samples


def truth_near(samples: dict[str, Any]) -> dict[str, Any]:
    """Every fifth prediction, moved, is an object."""
    annotations: list[dict[str, Any]] = []
    for sample in samples.values():
        found = sample["pred_instances"]
        for place in range(0, len(found), 5):
            mask = np.roll(found.masks[place].numpy(), 3, axis=1)
            if not mask.any():
                continue
            encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": sample["img_id"],
                    "category_id": int(found.labels[place]),
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [*mask.shape], "counts": encoded["counts"].decode()},
                }
            )
    images = [
        {"id": number, "file_name": name, "height": SIZES_HW[name][0], "width": SIZES_HW[name][1]}
        for name, number in NUMBERS.items()
    ]
    categories = [{"id": number, "name": str(number)} for number in range(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def average_precisions(ground_truth: Path, results: Path, kind: str) -> np.ndarray:
    """pycocotools: AP, AP50, AP75, APs, APm, APl."""
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(ground_truth))
        entries = json.loads(results.read_text())
        if kind == "segm":  # as mmdet does: else areas would be the boxes'
            entries = [{k: v for k, v in entry.items() if k != "bbox"} for entry in entries]
        evaluation = COCOeval(reference, reference.loadRes(entries), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


def export(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.export_coco", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_average_precision_of_a_store_is_what_mmdet_reports(folder: Path, tmp_path: Path) -> None:
    store = run(
        folder,
        tmp_path,
        f"checkpoint={checkpoint(folder, 0)}",
        "module.min_score=0.001",
        "module.max_candidates=10000",
        "module.mask_stages=last",
        "max_low_score_candidates=null",
    )
    samples = predicted_by_mmdet(folder)
    ground_truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    ground_truth.write_text(json.dumps(truth_near(samples)))
    metric = CocoMetric(ann_file=str(ground_truth), metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": tuple(str(number) for number in range(CLASSES))}
    metric.process({}, list(samples.values()))
    reported = metric.evaluate(size=len(samples))

    done = export(
        f"predictions={store.directory}", f"output={results}", f"annotations={ground_truth}"
    )
    assert done.returncode == 0, done.stderr
    count = sum(len(sample["pred_instances"]) for sample in samples.values())
    assert done.stdout.splitlines()[0] == f"{results}: {count} detections in 3 images"
    for kind in ("bbox", "segm"):
        found = average_precisions(ground_truth, results, kind)
        names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
        # mmdet rounds to three places
        assert [round(float(value), 3) for value in found] == [
            reported[f"coco/{kind}_{name}"] for name in names
        ]
        assert 0.05 < found[0] < 0.95


def write_coco(path: Path, names: dict[str, Any]) -> str:
    images = [{"id": number, "file_name": name} for name, number in names.items()]
    path.write_text(json.dumps({"images": images}))
    return str(path)


def number(folder: Path, annotations: Path) -> dict[str, int]:
    """Number the images of the folder's store."""
    store = PredictionStore(folder / "store")
    return number_images(store.image_ids, str(annotations), source=str(store.directory))


def test_images_are_found_by_file_name_with_or_without_folder_and_suffix(tmp_path: Path) -> None:
    write_store(tmp_path / "store", make_images(0, 3, count=1))
    ids, source = PredictionStore(tmp_path / "store").image_ids, str(tmp_path / "store")
    file = tmp_path / "a.json"
    assert number_images(ids, None, source=source) == {"000.jpg": 1, "001.jpg": 2, "002.jpg": 3}
    for names in (
        {"002.jpg": 5, "000.jpg": 7, "001.jpg": 9, "more.jpg": 1},
        {"x/002.jpg": 5, "y/000.jpg": 7, "z/001.jpg": 9},
        {"002.jpg.png": 5, "000.jpg.png": 7, "001.jpg.png": 9},
    ):
        assert number_images(ids, write_coco(file, names), source=source) == {
            "000.jpg": 7,
            "001.jpg": 9,
            "002.jpg": 5,
        }
    # two files of one name: without its folder, none of them is meant
    names = {"x/000.jpg": 7, "y/000.jpg": 8, "y/001.jpg": 9, "002.jpg": 5}
    with pytest.raises(
        InputError, match=r"all 3 images of .*which lacks 1; the first is '000\.jpg'"
    ):
        number_images(ids, write_coco(file, names), source=source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"annotations=.*a\.json: no such file"),
        ("{", r"got a file that is no JSON \(.*\) \(.*a\.json\); python -m src\.convert makes"),
        ("{}", r"must be COCO JSON with images that have id and file_name, got .*a\.json\)"),
        ('{"images": [{"id": 1}]}', r"must be COCO JSON.* got KeyError: 'file_name' \("),
        ("[]", r"must be COCO JSON.*TypeError"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}',
            r"file_name must be another one for each image, got one twice",
        ),
        (
            '{"images": [{"id": 1, "file_name": "x/a"}, {"id": 2, "file_name": ".\\\\x\\\\a"}]}',
            r"file_name must be another one for each image, got one twice",
        ),
        (
            '{"images": [{"id": 1, "file_name": "x/a"}, {"id": 1, "file_name": "y/a"}]}',
            r"id must be another one for each image, got one twice",
        ),
        ('{"images": [{"id": 1, "file_name": "../a"}]}', r"file_name must be a path relative"),
        ('{"images": [7]}', r"must be COCO JSON.*AttributeError"),
        (
            '{"images": [{"id": 1, "file_name": "001.jpg"}]}',
            r"all 2 images of .*store, got .*lacks 1; the first is '000\.jpg'",
        ),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    write_store(tmp_path / "store", make_images(0, 2, count=1))
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        number(tmp_path, tmp_path / "a.json")


def test_images_that_failed_are_one_line(tmp_path: Path) -> None:
    with make_writer(tmp_path / "store") as writer:
        writer.add_failed("x.jpg", "x.jpg: truncated")
    done = export(f"predictions={tmp_path}/store", f"output={tmp_path}/results.json")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}/store: 1 of the 1 images of its split have no predictions, the first "
        "is 'x.jpg' (x.jpg: truncated); run predict on them, or give partial=true to use the "
        "images that are there\n"
    )
    assert not (tmp_path / "results.json").exists()


def test_a_folder_of_annotations_is_told_how_to_become_a_file(tmp_path: Path) -> None:
    write_store(tmp_path / "store", make_images(0, 2, count=1))
    message = r"must be the COCO JSON whose image ids to use, got the folder .*python -m src\.conv"
    with pytest.raises(InputError, match=message):
        number(tmp_path, tmp_path)
