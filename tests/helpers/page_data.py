"""Small data under the names that the pages use: images, annotations, stores, submissions, weights.

``python -m tests.helpers.page_data data|weights`` makes it in the working directory.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src import PostprocessSettings, PredictionStore, open_annotations, postprocess
from src import write_submission as write_detections
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStoreWriter
from src.rle import decode
from src.synthetic.dataset import synthesize
from tests.helpers.mask_folders import blocks, write_images, write_instance_files

SIZE_HW = (64, 64)
NUM_CATEGORIES = 46
SPLIT = {"num_validation_images": 6, "seed": 777}


def write_store(folder: Path, annotations: Path, images: Path, *, seed: int, some: int = 0) -> None:
    """Write a store of what a fair model would see: the ground truth with noise, and mistakes.

    Args:
        folder: The store.
        annotations: Ground truth.
        images: Its images.
        seed: Of noise and scores.
        some: Only so many images; 0: all.
    """
    random = np.random.default_rng(seed)
    truth = open_annotations(annotations, images=images)
    with PredictionStoreWriter(
        folder, category_ids=range(NUM_CATEGORIES), settings={"checkpoints": []}
    ) as writer:
        for image_id in truth.image_ids[: some or None]:
            found = truth.instances(image_id)
            size_hw = truth.objects.record(image_id).size_hw
            corners = [box + random.uniform(-1, 1, 4) for box in found.boxes_xyxy]
            boxes = np.array(corners).reshape(-1, 4).clip(0, np.tile(size_hw[::-1], 2))
            masks = np.zeros((len(boxes), 28, 28), dtype=np.float32)
            for at, mask in enumerate(found.masks):
                x, y, x2, y2 = np.asarray(found.boxes_xyxy[at]).astype(int)
                inside = decode(mask)[y : y2 + 1, x : x2 + 1].astype(np.float32)
                masks[at] = cv2.resize(inside, (28, 28), interpolation=cv2.INTER_AREA)
            scores = random.uniform(0.3, 1.0, len(boxes))
            others = random.integers(0, NUM_CATEGORIES, len(boxes))
            writer.add(
                Candidates(
                    image_id=image_id,
                    size_hw=size_hw,
                    boxes_xyxy=np.concatenate([boxes, boxes]).astype(np.float32),
                    scores=np.concatenate([scores, 0.6 * scores]).astype(np.float32),
                    category_ids=np.concatenate([found.category_ids, others]).astype(np.int16),
                    mask_probabilities=np.concatenate([masks, masks]).astype(np.float16),
                    complete_above_score=0.0,
                )
            )
    truth.close()


def write_submission(store: str, preset: str, output: str, images: int | None = None) -> None:
    opened = PredictionStore(store)
    detections = postprocess(
        opened, PostprocessSettings.preset(preset), image_ids=opened.image_ids[:images]
    )
    write_detections(output, detections)


def write_mask_folders() -> None:
    """Write the three layouts of docs/mask_images.md."""
    first, second = blocks(SIZE_HW, (8, 8, 30, 30), (36, 20, 60, 50))
    names = [f"cell{number}" for number in range(6)]
    write_instance_files(
        Path("stage1_train"), {name: [first, second] for name in names}, size_hw=SIZE_HW
    )
    city = Path("gtFine/train/aachen")
    city.mkdir(parents=True)
    Image.fromarray((26001 * first + 24001 * second).astype(np.uint16)).save(
        city / "aachen_000000_000019_gtFine_instanceIds.png"
    )
    write_images(
        Path("leftImg8bit/train"),
        ["aachen/aachen_000000_000019_leftImg8bit.png"],
        size_hw=SIZE_HW,
    )
    Path("labels").mkdir()
    for name in ("a", "b"):
        Image.fromarray((first + 7 * second).astype(np.uint8)).save(f"labels/{name}.png")
    write_images(Path("images"), ["a.png", "b.png"], size_hw=SIZE_HW)


def write_via_csv(annotations: Path) -> None:
    """Write boxes as an export of the VGG Image Annotator, which docs/extending.md reads."""
    coco = json.loads(annotations.read_text())
    images = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    with Path("via_export.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("filename", "region_shape_attributes", "region_attributes"))
        for annotation in coco["annotations"]:
            x, y, width, height = annotation["bbox"]
            shape = {
                "name": "polygon",
                "all_points_x": [x, x + width, x + width, x],
                "all_points_y": [y, y, y + height, y + height],
            }
            region = {"class": names[annotation["category_id"]]}
            row = (images[annotation["image_id"]], json.dumps(shape), json.dumps(region))
            writer.writerow(row)


def write_data() -> None:
    """Write everything that needs no torch."""
    synthesize(
        "data",
        num_train_images=18,
        num_test_images=2,
        seed=3,
        image_size=(96, 96),
        difficulty=0.0,
        clutter=0.0,
        attributes_share=0.0,
        grayscale_share=0.0,
        rotated_share=0.0,
        num_transposed_images=0,
        categories=(1, 6, 10, 23, 31),
    )
    annotations, images = Path("data/train.csv"), Path("data/train")
    shutil.copytree(images, "DIR")
    shutil.copytree("data/test", "DIR_OF_NEW_IMAGES")
    for number, name in enumerate(("STORE", "STORE_A", "STORE_B")):
        write_store(Path(name), annotations, images, seed=number)
    for name in ("outputs/htc_x101", "outputs/own", "outputs/predict", "outputs/demo"):
        write_store(Path(name) / "predictions_validation", annotations, images, seed=3)
        write_store(
            Path(name) / "predictions_test", Path("data/test_truth.csv"), Path("data/test"), seed=4
        )
    shutil.copytree("data", "outputs/demo/data")
    write_submission("STORE", "winner_all_classes", "validation.csv")
    write_submission("outputs/htc_x101/predictions_test", "winner_all_classes", "submission.csv")
    write_submission("STORE_A", "winner_all_classes", "one.csv")
    write_submission("STORE_B", "winner_all_classes", "other.csv")
    write_submission(
        "outputs/demo/predictions_validation", "winner_all_classes", "outputs/demo/validation.csv"
    )
    rows = Path("data/train.csv").read_text().splitlines()[1:]
    ids = sorted({row.partition(",")[0].partition(".")[0] for row in rows})
    lines = ["ImageId,EncodedPixels,ClassId,AttributesIds", *(f"{name},1 1,23," for name in ids)]
    Path("sample.csv").write_text("\n".join(lines) + "\n")
    write_mask_folders()


def write_results() -> None:
    """Write results.json, of A.json's image ids, as the evaluators of other frameworks do."""
    results = json.loads(Path("results.json").read_text())
    names = {
        one["id"]: one["file_name"] for one in json.loads(Path("A.json").read_text())["images"]
    }
    for name in ("coco_instances_results.json", "out/coco_instances_results.json"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy("results.json", name)
    shutil.copy("results.json", "out/val.segm.json")
    named = [one | {"image_id": Path(names[one["image_id"]]).stem} for one in results]
    Path("runs/segment/val").mkdir(parents=True)
    Path("runs/segment/val/predictions.json").write_text(json.dumps(named))
    write_via_csv(Path("A.json"))


def write_weights() -> None:
    """Write mmdetection's checkpoints of a small cascade (COCO's classes), and a classifier's."""
    import torch
    from torchvision.models import resnet50

    from src.mmdet_bridge.cascade.detectors import build_detector
    from tests.helpers.cascades import SMALL, detector_config

    torch.manual_seed(0)
    detector = build_detector(detector_config("htc_tiny", *SMALL, "module.num_classes=80"))
    content = {"state_dict": detector.state_dict(), "meta": {"mmdet_version": "3.0.0"}}
    for name in ("zoo.pth", "epoch_12.pth"):
        torch.save(content, name)
    torch.save(resnet50(weights=None).state_dict(), "resnet50.pth")


if __name__ == "__main__":
    {"data": write_data, "results": write_results, "weights": write_weights}[sys.argv[1]]()
