"""mmcv's NMS and RoIAlign, computed by torchvision's kernels.

Names, arguments and results are those of ``mmcv._ext`` (mmcv/ops/csrc/pytorch/pybind.cpp): results
go into tensors that the caller has made. Float32 and float64, CPU and CUDA. Half precision, which
is what mmcv hands over under autocast, is computed in float32 and rounded once, at the end:
positions on a feature map do not fit into a mantissa of 8 or 11 bits.
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor


class UnsupportedOperatorError(NotImplementedError):
    """An operator of mmcv's, or a mode of one, that torchvision has no kernel for."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Of equal scores the earlier box goes first; a compiled mmcv leaves that open.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) float.
        iou_threshold: a box goes when its IoU with a kept one is greater than this, compared in
            the boxes' dtype, as mmcv does.
        offset: 0 or 1; widths and heights are ``x2 - x1 + offset``.

    Returns:
        (K,) int64: the kept boxes by falling score.
    """
    boxes, scores = precise(boxes), precise(scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, threshold)
    return kept


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (Mask R-CNN, section 3) into ``output`` (K, C, aligned_height, aligned_width).

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): picture's index in the batch, then xyxy in pixels of the picture.
        output: written.
        argmax_y: unused.
        argmax_x: unused.
        aligned_height: bins a column.
        aligned_width: bins a row.
        spatial_scale: feature cells a pixel.
        sampling_ratio: samples a bin along each axis; 0 takes one for each feature cell in it.
        pool_mode: 1 is the average of a bin's samples; 0, their maximum, has no kernel.
        aligned: shifts by half a cell, so that a cell's value sits in its middle.

    Raises:
        UnsupportedOperatorError: for maximum pooling.
    """
    _require_average(pool_mode)
    features = precise(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features,
            rois.to(features.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of ``roi_align_forward`` by its features, into ``grad_input`` (N, C, H, W)."""
    _require_average(pool_mode)
    gradient = precise(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            gradient,
            rois.to(gradient.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def precise(tensor: Tensor) -> Tensor:
    """The same in float32 where it is float16 or bfloat16, else the tensor itself."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise UnsupportedOperatorError(
            "RoIAlign with pool_mode='max' needs an mmcv with compiled operators; "
            "pool_mode='avg' works without"
        )
