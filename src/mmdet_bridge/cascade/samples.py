"""Batches of the detector: mmdetection's data types made from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeAlias, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

Instances: TypeAlias = InstanceData
"""N instances: bboxes (N, 4) float32, labels (N,) int64, masks BitmapMasks (N, H, W)."""


class Sample(TypedDict):
    """One image for the detector."""

    inputs: torch.Tensor  # (3, H, W), uint8, RGB
    data_samples: DetDataSample


class Batch(TypedDict):
    """B images of any sizes; the detector's preprocessor pads and stacks them."""

    inputs: list[torch.Tensor]  # B tensors (3, H_i, W_i), uint8, RGB
    data_samples: list[DetDataSample]


def make_sample(
    *,
    image: npt.NDArray[np.uint8],
    image_id: str,
    image_path: str,
    original_hw: tuple[int, int],
    flip: bool = False,
    instances: Instances | None = None,
) -> Sample:
    """Pack an image, in training with its instances, as mmdetection's ``PackDetInputs`` does.

    Args:
        image: Shape (H, W, 3), uint8, RGB, C-contiguous: resized, and flipped if ``flip``.
        image_id: The image's id.
        image_path: Where the image was read from.
        original_hw: Height and width of the image before resizing, EXIF rotation applied.
        flip: Whether the image is flipped left to right.
        instances: The annotated instances, in training; see ``make_instances``.
    """
    height, width = image.shape[:2]
    data_sample = DetDataSample(
        metainfo={
            "img_id": image_id,
            "img_path": image_path,
            "ori_shape": original_hw,
            "img_shape": (height, width),
            "scale_factor": (width / original_hw[1], height / original_hw[0]),
            "flip": flip,
            "flip_direction": "horizontal" if flip else None,
        }
    )
    if instances is not None:
        data_sample.gt_instances = instances
    pixels = np.stack(cv2.split(image))  # as permute(2, 0, 1), in half the time
    return {"inputs": torch.from_numpy(pixels), "data_samples": data_sample}


def make_instances(
    *,
    labels: npt.NDArray[np.int64],
    boxes_xyxy: npt.NDArray[np.float32],
    masks: npt.NDArray[np.uint8],
) -> Instances:
    """Pack N instances, N = 0 included.

    Boxes are a plain tensor: the detector's preprocessor turns mmdetection's box types into one.

    Args:
        labels: Shape (N,), int64, positions in the list of category ids.
        boxes_xyxy: Shape (N, 4), float32, pixels of the resized image, half-open.
        masks: Shape (N, H, W), uint8, 0 or 1, on the grid of the resized image.
    """
    instances = InstanceData()
    instances.bboxes = torch.from_numpy(boxes_xyxy)
    instances.labels = torch.from_numpy(labels)
    instances.masks = BitmapMasks(masks, *masks.shape[1:])
    return instances


def _pack_masks(masks: BitmapMasks) -> tuple[Any, ...]:
    """Pickle masks as bits: an eighth of the bytes between processes."""
    return _unpack_masks, (np.packbits(masks.masks), masks.masks.shape)


def _unpack_masks(bits: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> BitmapMasks:
    masks = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
    return BitmapMasks(masks, *shape[1:])


ForkingPickler.register(BitmapMasks, _pack_masks)


def collate(samples: Sequence[Sample]) -> Batch:
    """Batch samples, in their order."""
    return {
        "inputs": [sample["inputs"] for sample in samples],
        "data_samples": [sample["data_samples"] for sample in samples],
    }


def flip_batch(batch: Batch) -> Batch:
    """Flip every view of a batch without instances left to right, before it is padded."""
    samples = []
    for sample in batch["data_samples"]:
        flip = not sample.flip
        direction = "horizontal" if flip else None
        samples.append(
            DetDataSample(metainfo={**sample.metainfo, "flip": flip, "flip_direction": direction})
        )
    return {"inputs": [view.flip(-1) for view in batch["inputs"]], "data_samples": samples}
