"""Predictions as COCO results, and their average precision, are what mmdet's evaluator makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.evaluation.metrics import CocoMetric
from pycocotools import mask as coco_mask

from benchmarks.coco_masks import run
from src.metrics.coco_average_precision import CocoImage, coco_score
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.postprocess.detections import CocoResult
from src.postprocess.pipeline import coco_results, postprocess
from src.postprocess.raster import sample_rles
from src.predictions.candidates import Candidates
from src.rle import decode, from_coco
from tests.helpers.candidates import make_boxes, make_candidates, make_masks, make_settings
from tests.helpers.cascades import make_batch
from tests.helpers.mmdet_results import CATEGORY_IDS, SCALE_WH, paste, predict_with_mmdet

NUMBERS = (1, 2)
UNDECIDED = 1e-6


@pytest.fixture(scope="module")
def candidates(detector: Any) -> list[Candidates]:
    return predict_candidates(
        [detector],
        [make_batch(scale_wh=SCALE_WH, with_objects=False)],
        category_ids=CATEGORY_IDS,
        min_score=0.001,
        max_candidates=10_000,
        mask_stages="last",
    )


@pytest.fixture(scope="module")
def metric(detector: Any, tmp_path_factory: pytest.TempPathFactory) -> CocoMetric:
    """mmdet's evaluator, fed with mmdet's predictions; the ground truth is some of them, moved."""
    folder = tmp_path_factory.mktemp("truth")
    predictions = predict_with_mmdet(detector, 0.001, 0.5, 0.5)
    annotations: list[dict[str, Any]] = []
    images = []
    for number, predicted in zip(NUMBERS, predictions, strict=True):
        masks = predicted.masks.numpy()
        images.append({"id": number, "height": masks.shape[1], "width": masks.shape[2]})
        for place in range(0, len(masks), 5):
            moved = np.roll(masks[place], 4, axis=1)
            if moved.any():
                annotations.append(annotation(moved, number, predicted.labels[place]))
                annotations[-1]["id"] = len(annotations)
    ground_truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category, "name": str(category)} for category in CATEGORY_IDS],
    }
    (folder / "truth.json").write_text(json.dumps(ground_truth))
    metric = CocoMetric(ann_file=str(folder / "truth.json"), metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": tuple(map(str, CATEGORY_IDS))}
    metric.cat_ids = list(CATEGORY_IDS)
    for image, predicted in zip(images, predictions, strict=True):
        sample = {
            "img_id": image["id"],
            "ori_shape": (image["height"], image["width"]),
            "pred_instances": predicted,
        }
        metric.process({}, [sample])
    return metric


def annotation(mask: np.ndarray, number: int, label: Any) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_id": number,
        "category_id": CATEGORY_IDS[int(label)],
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode()},
    }


def results_of(candidates: list[Candidates], **changes: Any) -> list[list[CocoResult]]:
    return [
        coco_results(
            image,
            make_settings(**changes),
            image_number=number,
            category_ids=CATEGORY_IDS,
        )
        for number, image in zip(NUMBERS, candidates, strict=True)
    ]


def drawn(result: CocoResult) -> np.ndarray:
    height, width = result["segmentation"]["size"]
    return decode(from_coco([result["segmentation"]["counts"]], (height, width)).masks[0])


def test_results_are_those_that_mmdet_writes(
    candidates: list[Candidates], metric: CocoMetric, tmp_path: Path
) -> None:
    _, predictions = zip(*metric.results, strict=True)
    files = metric.results2json(predictions, str(tmp_path / "mmdet"))
    expected = json.loads(Path(files["segm"]).read_text())
    found = [result for image in results_of(candidates) for result in image]
    assert len(found) == len(expected) > 100
    differing_px = 0
    for result, wanted in zip(found, expected, strict=True):
        assert json.loads(json.dumps(result)).keys() == wanted.keys()
        for key in ("image_id", "category_id", "bbox", "score"):
            assert result[key] == wanted[key]  # type: ignore[literal-required]
        assert result["segmentation"]["size"] == wanted["segmentation"]["size"]
        if result["segmentation"]["counts"] != wanted["segmentation"]["counts"]:
            differing_px += int((drawn(result) != coco_mask.decode(wanted["segmentation"])).sum())
    # pixels whose probability is within 1e-6 of the threshold (test_postprocess_raster.py)
    assert differing_px <= 2


def test_average_precision_is_mmdets(candidates: list[Candidates], metric: CocoMetric) -> None:
    expected = metric.compute_metrics(metric.results)
    ground_truth = metric._coco_api
    images = [
        CocoImage(
            number=number,
            size_hw=image.size_hw,
            annotations=ground_truth.loadAnns(ground_truth.getAnnIds(imgIds=[number])),
            results=results,
        )
        for number, image, results in zip(NUMBERS, candidates, results_of(candidates), strict=True)
    ]
    score = coco_score(images, category_ids=CATEGORY_IDS)
    for kind, found in (("segm", score.masks), ("bbox", score.boxes)):
        names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
        for name, value in zip(names, found.values().values(), strict=True):
            wanted = expected[f"{kind}_{name}"]  # mmdet rounds to three places
            assert (-1.0 if value is None else round(value, 3)) == wanted
        assert found.map is not None
        assert 0.05 < found.map < 0.95


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5])
@pytest.mark.parametrize("size_hw", [(64, 48), (331, 296), (499, 151), (1201, 799)], ids=str)
def test_masks_at_image_size_are_those_that_mmdet_pastes(
    size_hw: tuple[int, int], threshold: float
) -> None:
    random = np.random.default_rng(sum(size_hw))
    masks = make_masks(random, 10)
    masks[0] = 1.0
    boxes = make_boxes(random, 10, size_hw, relative_size=0.6)
    boxes[0] = np.array([-0.1, -0.1, 1.1, 1.1]) * np.tile(size_hw[::-1], 2)  # all of the image
    boxes[1] = -80, -90, size_hw[1] / 2, size_hw[0] / 2
    runs = sample_rles(masks, boxes, size_hw, mask_threshold=threshold)
    assert runs[0].runs.tolist() == [[0, size_hw[0] * size_hw[1]]]
    for mask, box, found in zip(masks, boxes, runs, strict=True):
        probabilities = paste(mask, box, size_hw)
        different = decode(found) != (probabilities >= np.float32(threshold))
        assert (np.abs(probabilities[different] - threshold) <= UNDECIDED).all()
        assert (found.runs[1:, 0] > found.runs[:-1].sum(axis=1)).all()  # maximal: no two runs touch


def test_overlaps_and_small_objects_follow_the_settings() -> None:
    candidates = make_candidates(3, count=120, size_hw=(512, 512), categories=4)
    settings = make_settings(
        score_threshold=0.3, suppress_overlaps=True, min_area_px=400, remove_categories=[2]
    )
    found = coco_results(candidates, settings, image_number=9)
    # on an image of the raster's size the competition's objects are the same ones
    expected = postprocess(candidates, settings)
    assert len(found) == len(expected) > 10
    assert [result["category_id"] for result in found] == expected.category_ids.tolist()
    assert [result["score"] for result in found] == expected.scores.tolist()
    for result, pixels in zip(found, expected.bitmasks.unpack(), strict=True):
        assert np.array_equal(drawn(result), pixels)
    assert {result["image_id"] for result in found} == {9}


def test_an_empty_mask_stays_only_where_no_area_is_asked_for() -> None:
    candidates = make_candidates(4, count=8, size_hw=(100, 80))
    candidates.mask_probabilities[:] = 0.0
    kept = coco_results(candidates, make_settings(), image_number=1)
    assert len(kept) > 0
    assert not any(drawn(result).any() for result in kept)
    assert coco_results(candidates, make_settings(min_area_px=1), image_number=1) == []
    nothing = coco_results(candidates, make_settings(score_threshold=1.0), image_number=1)
    assert nothing == []


def test_both_ways_of_the_benchmark_make_the_same_masks() -> None:
    result = run(image_hw=(300, 400), candidates=20, rounds=1)
    assert result["masks_compared"] >= 15
