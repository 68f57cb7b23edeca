"""mmcv's NMS, RoIAlign, focal loss and deformable attention without a compiled mmcv.

NMS and RoIAlign are torchvision's kernels; soft-NMS is this project's own, focal loss and
deformable attention are plain torch, as mmdet and mmcv themselves compute them on the CPU.

Names, arguments and results are those of ``mmcv._ext`` (mmcv/ops/csrc/pytorch/pybind.cpp): results
go into tensors that the caller has made. Float32 and float64, CPU and CUDA. Half precision, which
is what mmcv hands over under autocast, is computed in float32 and rounded once, at the end:
positions on a feature map do not fit into a mantissa of 8 or 11 bits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor

from src.postprocess.soft_nms import SoftKind, soft_nms

_SOFT_NMS_METHODS: tuple[Literal["naive"] | SoftKind, ...] = (
    "naive",
    "soft_linear",
    "soft_gaussian",
)
"""mmcv's kinds of soft-NMS by its numbers for them."""


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
    boxes, scores = to_float32(boxes), to_float32(scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, threshold)
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017), in the order and with the ties of mmcv's kernel.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) float.
        dets: (N, 5) float32; its first K rows are written: xyxy and the lowered score.
        iou_threshold: of ``naive`` and linear; compared as float32.
        sigma: of gaussian.
        min_score: a box whose score falls below is dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1; widths and heights are ``x2 - x1 + offset``.

    Returns:
        (K,) int64: indices of the kept boxes, in the order in which they were taken.
    """
    boxes, scores = to_float32(boxes), to_float32(scores)
    widened = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept, lowered = soft_nms(
        widened.detach().cpu().numpy().astype(np.float32),
        scores.detach().cpu().numpy().astype(np.float32),
        kind=_SOFT_NMS_METHODS[method],
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
    )
    indices = torch.from_numpy(kept)
    dets[: len(kept), :4] = boxes.detach().cpu()[indices].to(dets.dtype)
    dets[: len(kept), 4] = torch.from_numpy(lowered).to(dets.dtype)
    return indices


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss (Lin et al. 2017, equation 5) of each element into ``output`` (N, C).

    Args:
        input: (N, C) logits.
        target: (N,) int64: the class of each row in [0, C); another value is background.
        weight: (C,), a factor of each row by its class, or empty.
        output: written.
        gamma: focusing parameter.
        alpha: weight of the positive element; the others have ``1 - alpha``.
    """
    logits = to_float32(input)
    positive = _one_hot(target, logits.shape[1])
    probability = logits.sigmoid()
    smallest = torch.finfo(logits.dtype).tiny
    by_positive = (1 - probability) ** gamma * probability.clamp(min=smallest).log()
    by_negative = probability**gamma * (1 - probability).clamp(min=smallest).log()
    loss = -torch.where(positive, alpha * by_positive, (1 - alpha) * by_negative)
    output.copy_(loss * _row_weights(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Gradient of ``sigmoid_focal_loss_forward`` by each logit, into ``grad_input`` (N, C)."""
    logits = to_float32(input)
    positive = _one_hot(target, logits.shape[1])
    p = logits.sigmoid()
    smallest = torch.finfo(logits.dtype).tiny
    by_positive = (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=smallest).log())
    by_negative = p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=smallest).log() - p)
    gradient = -torch.where(positive, alpha * by_positive, (1 - alpha) * by_negative)
    grad_input.copy_(gradient * _row_weights(weight, target))


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, equation 3), mmcv's form in plain torch.

    Args:
        value: (N, sum of H * W, heads, channels).
        spatial_shapes: (levels, 2) int64: H, W.
        level_start_index: unused, as it follows from the shapes.
        sampling_locations: (N, queries, heads, levels, points, 2): x, y in [0, 1].
        attention_weights: (N, queries, heads, levels, points).
        im2col_step: unused.

    Returns:
        (N, queries, heads * channels).
    """
    # mmcv is imported by whoever calls this, and imports this module's user first.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    attended: Tensor = multi_scale_deformable_attn_pytorch(
        value, spatial_shapes, sampling_locations, attention_weights
    )
    return attended


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Gradients of ``ms_deform_attn_forward`` into the three tensors given."""
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        attended = ms_deform_attn_forward(
            inputs[0],
            spatial_shapes,
            level_start_index,
            inputs[1],
            inputs[2],
            im2col_step=im2col_step,
        )
    gradients = torch.autograd.grad(attended, inputs, grad_output)
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for tensor, gradient in zip(targets, gradients, strict=True):
        tensor.copy_(gradient)


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
        rois: (K, 5): view's index in the batch, then xyxy in pixels of the view.
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
    features = to_float32(input)
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
    gradient = to_float32(grad_output)
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


def to_float32(tensor: Tensor) -> Tensor:
    """The same in float32 where it is float16 or bfloat16, else the tensor itself."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _one_hot(target: Tensor, classes: int) -> Tensor:
    return target[:, None] == torch.arange(classes, device=target.device)


def _row_weights(weight: Tensor, target: Tensor) -> Tensor:
    """Return (N, 1): the weight of each row's class; 1 for background, which mmcv leaves open."""
    if not weight.numel():
        return weight.new_ones((1, 1))
    is_class = (target >= 0) & (target < len(weight))
    factors = weight[target.clamp(0, len(weight) - 1)]
    return torch.where(is_class, factors, torch.ones_like(factors))[:, None]


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise UnsupportedOperatorError(
            "RoIAlign with pool_mode='max' needs an mmcv with compiled operators; "
            "pool_mode='avg' works without"
        )
