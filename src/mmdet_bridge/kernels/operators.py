"""mmcv's NMS, RoIAlign, focal loss and deformable attention without a compiled mmcv.

NMS and RoIAlign are torchvision's kernels; soft-NMS is this project's own; focal loss and
deformable attention are plain torch, as mmdet and mmcv compute them on the CPU.

Names, arguments and results are those of ``mmcv._ext`` (mmcv/ops/csrc/pytorch/pybind.cpp): results
are written to the caller's tensors. Float32 and float64, CPU and CUDA. Half precision, which mmcv
passes under autocast, is computed in float32 and rounded once, at the end: positions on a feature
map do not fit into a mantissa of 8 or 11 bits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor

from src.postprocess.nms import SoftKind, soft_nms

# By mmcv's numbers for them.
_SOFT_NMS: tuple[Literal["naive"] | SoftKind, ...] = ("naive", "soft_linear", "soft_gaussian")


class UnsupportedOperatorError(NotImplementedError):
    """An operator of mmcv's, or a mode of one, has no kernel in torchvision."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Suppress boxes greedily; of equal scores the earlier box wins, which mmcv leaves open.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) float.
        iou_threshold: A box with a greater IoU with a kept one is dropped; compared in the boxes'
            dtype, as in mmcv.
        offset: 0 or 1; widths and heights are ``x2 - x1 + offset``.

    Returns:
        (K,) int64: the kept boxes by descending score.
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
    """Apply soft-NMS (Bodla et al. 2017), in the order and with the ties of mmcv's kernel.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) float.
        dets: (N, 5) float32; its first K rows are written: xyxy and the lowered score.
        iou_threshold: Of naive and linear; compared as float32.
        sigma: Of gaussian.
        min_score: A box whose score falls below is dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1; widths and heights are ``x2 - x1 + offset``.

    Returns:
        (K,) int64: indices of the kept boxes, in the order of selection.
    """
    boxes, scores = to_float32(boxes), to_float32(scores)
    widened = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept, lowered = soft_nms(
        widened.detach().cpu().numpy().astype(np.float32),
        scores.detach().cpu().numpy().astype(np.float32),
        kind=_SOFT_NMS[method],
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
    """Write the sigmoid focal loss (Lin et al. 2017, equation 5) of each element.

    Args:
        input: (N, C) logits.
        target: (N,) int64: the class of each row in [0, C); another value is background.
        weight: (C,), a factor of each row by its class, or empty.
        output: (N, C), written.
        gamma: Focusing parameter.
        alpha: Weight of the positive element; the others have ``1 - alpha``.
    """
    p, log_p, log_q = _log_probabilities(input)
    by_positive = (1 - p) ** gamma * log_p
    by_negative = p**gamma * log_q
    output.copy_(_combine(by_positive, by_negative, target, weight, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the gradient of ``sigmoid_focal_loss_forward`` by each logit, (N, C)."""
    p, log_p, log_q = _log_probabilities(input)
    by_positive = (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    by_negative = p**gamma * (gamma * (1 - p) * log_q - p)
    grad_input.copy_(_combine(by_positive, by_negative, target, weight, alpha))


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Compute multi-scale deformable attention (Zhu et al. 2021, equation 3), as mmcv does.

    Args:
        value: (N, sum of H * W, heads, channels).
        spatial_shapes: (levels, 2) int64: H, W.
        level_start_index: Unused, as it follows from the shapes.
        sampling_locations: (N, queries, heads, levels, points, 2): x, y in [0, 1].
        attention_weights: (N, queries, heads, levels, points).
        im2col_step: Unused.

    Returns:
        (N, queries, heads * channels).
    """
    # Only mmcv calls this, so it is imported by then; this module has to be imported before it.
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
    """Write the gradients of ``ms_deform_attn_forward``."""
    value, locations, weights = inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        attended = ms_deform_attn_forward(
            value, spatial_shapes, level_start_index, locations, weights, im2col_step=im2col_step
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
    """Pool regions by RoIAlign (Mask R-CNN, section 3).

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): view's index in the batch, then xyxy in pixels of the view.
        output: (K, C, aligned_height, aligned_width), written.
        argmax_y: Unused.
        argmax_x: Unused.
        aligned_height: Bins a column.
        aligned_width: Bins a row.
        spatial_scale: Feature cells a pixel.
        sampling_ratio: Samples a bin along each axis; 0: one for each feature cell in it.
        pool_mode: 1 is the average of a bin's samples; 0, their maximum, has no kernel.
        aligned: Shifts by half a cell, so that a cell's value sits in its middle.

    Raises:
        UnsupportedOperatorError: Maximum pooling.
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
    """Write the gradient of ``roi_align_forward`` by its features, (N, C, H, W)."""
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
    """Return a float16 or bfloat16 tensor in float32, another one as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _log_probabilities(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return p = sigmoid(input), log(p) and log(1 - p), the logarithms finite."""
    p = to_float32(input).sigmoid()
    smallest = torch.finfo(p.dtype).tiny
    return p, p.clamp(min=smallest).log(), (1 - p).clamp(min=smallest).log()


def _combine(
    by_positive: Tensor, by_negative: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> Tensor:
    positive = target[:, None] == torch.arange(by_positive.shape[1], device=target.device)
    combined = -torch.where(positive, alpha * by_positive, (1 - alpha) * by_negative)
    return combined * _row_weights(weight, target)


def _row_weights(weight: Tensor, target: Tensor) -> Tensor:
    """Return the weight of each row's class, (N, 1); 1 for background, which mmcv leaves open."""
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
