"""Post-processing beside the plain way, from candidates to the rows of a submission.

    python -m benchmarks.postprocess    # one configuration; benchmarks/threshold_grid.py has a grid

The plain way is what mmdetection and the competition's kernels did: NMS with mmcv, masks pasted
into bitmaps of the image's size with mmdetection's function, encoded and decoded with pycocotools,
shrunk to 512 x 512, overlaps subtracted in a double loop, encoded again pixel by pixel in numpy.
Figures are CPU time, the least of several rounds, so that each is one of a core and stands on a
busy machine. What the two ways write is compared before a figure is reported.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

import src.mmdet_bridge.kernels  # noqa: F401  # before mmdet and mmcv, which need their operators

from mmcv.ops import batched_nms  # isort: skip
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # isort: skip
from benchmarks.timing import timed
from src.postprocess.pipeline import postprocess
from src.postprocess.raster import RASTER_HW
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.rle import format_rle
from tests.helpers.candidates import make_boxes, make_masks

IMAGE_HW = (4000, 3000)  # 12 megapixels
SETTINGS = PostprocessSettings(
    score_threshold=0.5,
    nms_iou_threshold=0.3,
    max_per_image=100,
    remove_categories=[],
    mask_threshold=0.45,
    suppress_overlaps=True,
    min_area_px=20,
)
Row = tuple[str, str, int]


def make_image(seed: int, *, objects: int, candidates: int) -> Candidates:
    """Candidates around so many objects of 5 classes; the best of each has a score above 0.5."""
    random = np.random.default_rng(seed)
    size_wh = np.tile(IMAGE_HW[::-1], 2)
    best = make_boxes(random, objects, IMAGE_HW, relative_size=0.3)
    chosen = np.arange(candidates) % objects
    shift = random.normal(0, 30, (candidates, 2)) * (np.arange(candidates) >= objects)[:, None]
    scores = np.where(
        np.arange(candidates) < objects,
        random.uniform(0.6, 1, candidates),
        random.uniform(0.001, 0.6, candidates),
    )
    return Candidates(
        image_id=f"{seed}.jpg",
        size_hw=IMAGE_HW,
        boxes_xyxy=np.clip(best[chosen] + np.tile(shift, 2), 0, size_wh).astype(np.float32),
        scores=scores.astype(np.float32),
        category_ids=(chosen % 5).astype(np.int16),
        mask_probabilities=make_masks(random, candidates),
        complete_above_score=0.001,
    )


def our_rows(image: Candidates) -> list[Row]:
    """The submission's rows of an image, this project's way."""
    found = postprocess(image, SETTINGS)
    return [
        (image.image_id, text, int(category))
        for text, category in zip(
            format_rle(found.bitmasks.to_rle()), found.category_ids, strict=True
        )
    ]


def plain_rows(image: Candidates, settings: PostprocessSettings = SETTINGS) -> list[Row]:
    """The same rows, the plain way."""
    return [
        (image.image_id, _encode_text(mask), category)
        for mask, category in plain_objects(image, settings)
    ]


def plain_objects(
    image: Candidates, settings: PostprocessSettings
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """Bitmap (512, 512) and category of each object, the plain way."""
    above = np.flatnonzero(image.scores > np.float32(settings.score_threshold))
    _, kept = batched_nms(
        torch.from_numpy(image.boxes_xyxy[above]),
        torch.from_numpy(image.scores[above]),
        torch.from_numpy(image.category_ids[above].astype(np.int64)),
        {"type": "nms", "iou_threshold": settings.nms_iou_threshold},
    )
    chosen = above[kept.numpy()[: settings.max_per_image]]
    encoded = [_paste_and_encode(image, index, settings.mask_threshold) for index in chosen]
    rows, columns = (np.arange(r) * s // r for r, s in zip(RASTER_HW, image.size_hw, strict=True))
    masks = [coco_mask.decode(code).astype(bool)[rows][:, columns] for code in encoded]
    categories = image.category_ids[chosen].tolist()
    disjoint = [mask.copy() for mask in masks]
    for later, mask in enumerate(disjoint):
        for earlier in range(later):
            if categories[earlier] == categories[later]:
                mask &= ~masks[earlier]
    return [
        (mask, category)
        for mask, category in zip(disjoint, categories, strict=True)
        if mask.sum() >= max(settings.min_area_px, 1)
    ]


def _paste_and_encode(image: Candidates, index: int, mask_threshold: float) -> Any:
    """One mask at image size as mmdetection makes it, compressed as its results are."""
    pasted, region = _do_paste_mask(
        torch.from_numpy(image.mask_probabilities[index].astype(np.float32))[None, None],
        torch.from_numpy(image.boxes_xyxy[index].copy())[None],
        *image.size_hw,
    )
    full = torch.zeros(image.size_hw, dtype=torch.bool)
    full[region] = pasted[0] >= mask_threshold
    return coco_mask.encode(np.asfortranarray(full.numpy(), dtype=np.uint8))


def _encode_text(mask: npt.NDArray[np.bool_]) -> str:
    """Run lengths, as the competition's kernels make them."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(value) for value in runs)


def run(
    *, images: int = 4, objects: int = 10, candidates: int = 100, rounds: int = 10
) -> dict[str, Any]:
    """Measure both ways on the same candidates, one configuration, and check that they agree.

    Args:
        images: images of 12 megapixels.
        objects: of each, that survive NMS or nearly so.
        candidates: of each, before NMS.
        rounds: of ours, the fastest counts; the plain way, slow enough to be steady, gets 2.

    Returns:
        Milliseconds an image both ways, how many times faster ours is, and how many rows were
        compared.
    """
    torch.set_num_threads(1)
    made = [make_image(seed, objects=objects, candidates=candidates) for seed in range(images)]
    ours = [row for image in made for row in our_rows(image)]
    plain = [row for image in made for row in plain_rows(image)]
    if ours != plain:
        raise AssertionError("the two ways write different rows")
    _, seconds = timed(lambda: [our_rows(image) for image in made], rounds=rounds)
    _, plain_seconds = timed(lambda: [plain_rows(image) for image in made], rounds=2)
    return {
        "image_megapixels": IMAGE_HW[0] * IMAGE_HW[1] / 1e6,
        "images": images,
        "candidates_an_image": candidates,
        "objects_an_image": len(ours) / images,
        "rows_compared": len(ours),
        "ms_an_image": 1e3 * seconds / images,
        "ms_an_image_plain": 1e3 * plain_seconds / images,
        "times_faster": plain_seconds / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
