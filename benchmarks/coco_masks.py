"""Masks at the image's size for COCO's metric, beside mmdetection's way.

    python -m benchmarks.coco_masks

mmdetection pastes each mask into a bitmap of the image and compresses that with pycocotools
(``FCNMaskHead``, ``CocoMetric``); this project samples the pixels within the box and keeps their
run lengths. Both start from the same candidates after the same NMS. Figures are CPU time of one
core, the least of several rounds. The masks of both ways are compared before a figure is reported:
they may differ only in pixels whose probability is within 1e-6 of the threshold.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

import src.mmdet_bridge.kernels  # noqa: F401  # before mmdet and mmcv, which need their operators

from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # isort: skip
from benchmarks.timing import timed
from src.postprocess.pipeline import coco_results, select
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from tests.helpers.candidates import make_boxes, make_masks

# mmdetection's COCO defaults (S8)
SETTINGS = PostprocessSettings(
    score_threshold=0.001,
    nms_iou_threshold=0.5,
    max_per_image=100,
    remove_categories=[],
    mask_threshold=0.5,
    suppress_overlaps=False,
    min_area_px=0,
)
UNDECIDED = 1e-6


def make_image(seed: int, *, image_hw: tuple[int, int], candidates: int) -> Candidates:
    """Candidates of 46 classes all over the image."""
    random = np.random.default_rng(seed)
    return Candidates(
        image_id=f"{seed}.jpg",
        size_hw=image_hw,
        boxes_xyxy=make_boxes(random, candidates, image_hw, relative_size=0.25),
        scores=random.uniform(0.01, 1, candidates).astype(np.float32),
        category_ids=random.integers(0, 46, candidates).astype(np.int16),
        mask_probabilities=make_masks(random, candidates),
        complete_above_score=0.001,
    )


def our_masks(image: Candidates) -> list[str]:
    """Compressed masks of the image's objects, this project's way."""
    results = coco_results(image, SETTINGS, image_number=1)
    return [result["segmentation"]["counts"] for result in results]


def plain_masks(image: Candidates) -> list[str]:
    """The same, mmdetection's way: one mask at a time, as it does on the CPU."""
    kept = select(image, SETTINGS).indices
    texts = []
    for index in kept.tolist():
        window, region = _paste(image, index)
        mask = torch.zeros(image.size_hw, dtype=torch.bool)
        mask[region] = window >= SETTINGS.mask_threshold
        encoded = coco_mask.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
        texts.append(encoded["counts"].decode())
    return texts


def differing_px(image: Candidates, ours: list[str], plain: list[str]) -> int:
    """In how many pixels the two ways differ.

    Raises:
        AssertionError: in a pixel whose probability is not at the threshold.
    """
    kept = select(image, SETTINGS).indices
    total = 0
    for index, *texts in zip(kept.tolist(), ours, plain, strict=True):
        if texts[0] != texts[1]:
            masks = coco_mask.decode([{"size": image.size_hw, "counts": text} for text in texts])
            different = masks[:, :, 0] != masks[:, :, 1]
            window, region = _paste(image, index)
            probabilities = np.zeros(image.size_hw, dtype=np.float32)
            probabilities[region] = window.numpy()
            distance = np.abs(probabilities[different] - SETTINGS.mask_threshold)
            if distance.max() > UNDECIDED:
                raise AssertionError("the two ways make different masks")
            total += int(different.sum())
    return total


def _paste(image: Candidates, index: int) -> tuple[torch.Tensor, tuple[slice, slice]]:
    """Probabilities within the box and where they lie on the image, by mmdetection's function."""
    pasted, region = _do_paste_mask(
        torch.from_numpy(image.mask_probabilities[index])[None, None],
        torch.from_numpy(image.boxes_xyxy[index])[None],
        *image.size_hw,
    )
    return pasted[0], region


def run(
    *, image_hw: tuple[int, int] = (4000, 3000), candidates: int = 120, rounds: int = 5
) -> dict[str, Any]:
    """Measure both ways on one image and compare their masks.

    Args:
        image_hw: size of the image.
        candidates: before NMS.
        rounds: of ours, the fastest counts; mmdetection's way, slow enough to be steady, gets 2.

    Returns:
        Milliseconds an image both ways, how many times faster ours is, and what was compared.
    """
    torch.set_num_threads(1)
    image = make_image(0, image_hw=image_hw, candidates=candidates)
    ours = our_masks(image)
    different = differing_px(image, ours, plain_masks(image))
    _, seconds = timed(lambda: our_masks(image), rounds=rounds)
    _, plain_seconds = timed(lambda: plain_masks(image), rounds=2)
    return {
        "image_megapixels": image_hw[0] * image_hw[1] / 1e6,
        "masks_compared": len(ours),
        "pixels_different": different,
        "ms_an_image": 1e3 * seconds,
        "ms_an_image_mmdet": 1e3 * plain_seconds,
        "times_faster": plain_seconds / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
