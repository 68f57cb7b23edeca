"""mmdet's own prediction and its masks on the raster, to compare with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

from src.mmdet_bridge.cascade.detectors import preprocess
from src.postprocess.raster import RASTER_HW
from tests.helpers.cascades import make_batch, one_by_one
from tests.helpers.masks import resize_by_nearest


def paste(mask: np.ndarray, box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (H, W) float32 probabilities, as mmdet pastes them."""
    pasted, region = _do_paste_mask(
        torch.from_numpy(mask)[None, None], torch.from_numpy(box_xyxy)[None], *size_hw
    )
    full = torch.zeros(size_hw)
    full[region] = pasted[0]
    return full.numpy()


def paste_and_shrink(
    mask: np.ndarray, box_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """Return (512, 512) float32 probabilities: pasted at full size, then resized by nearest."""
    return resize_by_nearest(paste(mask, box_xyxy, size_hw), RASTER_HW)


CATEGORY_IDS = (7, 3, 31, 0, 45)  # the data's ids, in the order of the model's labels
SCALE_WH = (0.21, 0.19)


@torch.no_grad()
def predict_with_mmdet(
    detector: Any,
    score: float,
    iou: float,
    mask: float = 0.5,
    *,
    scale_wh: tuple[float, float] = SCALE_WH,
) -> list[Any]:
    """Return what mmdet's own ``predict`` gives, masks at full size."""
    images = [
        preprocess(detector, image, training=False)
        for image in one_by_one(make_batch(scale_wh=scale_wh, with_objects=False))
    ]
    before = detector.roi_head.test_cfg
    detector.roi_head.test_cfg = copy.deepcopy(before)
    detector.roi_head.test_cfg.score_thr = score
    detector.roi_head.test_cfg.nms.iou_threshold = iou
    detector.roi_head.test_cfg.mask_thr_binary = mask
    try:
        samples = [
            detector.predict(image["inputs"], image["data_samples"], rescale=True)[0]
            for image in images
        ]
    finally:
        detector.roi_head.test_cfg = before
    return [sample.pred_instances for sample in samples]
