"""mmdet's own prediction and its masks on the raster, to compare with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

from src.mmdet_bridge.cascade.detectors import preprocess
from src.postprocess.raster import RASTER_HW
from tests.helpers.cascades import make_batch, one_by_one


def paste_and_shrink(
    mask: np.ndarray, box_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """(512, 512) float32 probabilities: mmdet's pasting at full size, then nearest resizing."""
    pasted, region = _do_paste_mask(
        torch.from_numpy(mask)[None, None], torch.from_numpy(box_xyxy)[None], *size_hw
    )
    full = torch.zeros(size_hw)
    full[region] = pasted[0]
    rows, columns = (np.arange(r) * s // r for r, s in zip(RASTER_HW, size_hw, strict=True))
    return full.numpy()[rows][:, columns]


CATEGORY_IDS = (7, 3, 31, 0, 45)  # the data's ids, in the order of the model's labels
SCALE_WH = (0.21, 0.19)


@torch.no_grad()
def predict_with_mmdet(detector: Any, score: float, iou: float, mask: float) -> list[Any]:
    """mmdet's own ``predict``, masks at full size."""
    images = [
        preprocess(detector, image, training=False)
        for image in one_by_one(make_batch(scale_wh=SCALE_WH, with_objects=False))
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
