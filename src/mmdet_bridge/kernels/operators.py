"""mmcv's NMS, RoIAlign, focal loss, deformable attention and convolutions without a compiled mmcv.

NMS, RoIAlign and deformable convolutions are torchvision's kernels; soft-NMS is this project's own;
focal loss and deformable attention are plain torch, as mmdet and mmcv compute them on the CPU.

Names, arguments and results are those of ``mmcv._ext`` (mmcv/ops/csrc/pytorch/pybind.cpp): results
are written to the caller's tensors; ``argmax_y``, ``argmax_x``, ``columns`` and ``ones``, scratch
space of mmcv's own kernels, are unused. Float32 and float64, CPU and CUDA. Half precision, which
mmcv passes under autocast, is computed in float32 and rounded once, at the end: positions on a
feature map do not fit into a mantissa of 8 or 11 bits.

Deformable convolutions of the two libraries differ in one rule: for a sample exactly on -1, the
height or the width, just outside the features, mmcv's gradient by its offset is 0 and torchvision's
is the one-sided derivative from the inside. With the zero offsets of a fresh layer and padding 1
that is every border, so mmcv's rule (``get_coordinate_weight`` in its deform_conv_cuda_kernel.cuh
and modulated_deform_conv_cuda_kernel.cuh) is applied here.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor

from src.postprocess.nms import SoftKind, soft_nms

# By mmcv's numbers for them.
_SOFT_NMS: tuple[Literal["naive"] | SoftKind, ...] = ("naive", "soft_linear", "soft_gaussian")
# mmcv's names of the sizes of RoIAlign, and of plain and modulated deformable convolutions.
_ROI_SIZES = ("spatial_scale", "aligned_height", "aligned_width", "sampling_ratio", "aligned")
_V1 = itemgetter("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_V2 = itemgetter(
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)

DeformConvGradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


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
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **sizes: Any
) -> None:
    """Pool regions by RoIAlign (Mask R-CNN, section 3).

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): view's index in the batch, then xyxy in pixels of the view.
        output: (K, C, aligned_height, aligned_width), written.
        **sizes: ``aligned_height`` and ``aligned_width``: bins a column and a row;
            ``spatial_scale``: feature cells a pixel; ``sampling_ratio``: samples a bin along each
            axis, 0: one for each feature cell in it; ``aligned``: shifts by half a cell, so that a
            cell's value sits in its middle; ``pool_mode``: 1 is the average of a bin's samples;
            0, their maximum, has no kernel.

    Raises:
        UnsupportedOperatorError: Maximum pooling.
    """
    features = to_float32(input)
    output.copy_(
        torch.ops.torchvision.roi_align(features, rois.to(features.dtype), *_roi_sizes(sizes))
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **sizes: Any,
) -> None:
    """Write the gradient of ``roi_align_forward`` by its features, (N, C, H, W)."""
    gradient = to_float32(grad_output)
    scale, height, width, ratio, aligned = _roi_sizes(sizes)
    by_input = torch.ops.torchvision._roi_align_backward(
        gradient,
        rois.to(gradient.dtype),
        *(scale, height, width, *grad_input.shape, ratio, aligned),
    )
    grad_input.copy_(by_input)


def _roi_sizes(sizes: dict[str, Any]) -> tuple[Any, ...]:
    if sizes["pool_mode"] != 1:
        raise UnsupportedOperatorError(
            "RoIAlign with pool_mode='max' needs an mmcv with compiled operators; "
            "pool_mode='avg' works without"
        )
    return tuple(sizes[key] for key in _ROI_SIZES)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: int,
) -> None:
    """Compute a deformable convolution (Deformable Convolutional Networks, section 2.1).

    Args:
        input: (N, C, H, W) features.
        weight: (O, C / group, kH, kW).
        offset: (N, 2 * deformable_group * kH * kW, H', W'): y, x of each sample, in cells.
        output: (N, O, H', W'), written.
        **geometry: See ``_V1``, where d is the stride; the rest is unused.
    """
    output.copy_(_convolve(input, weight, offset, None, None, _V1(geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Write the gradients of ``deform_conv_forward`` by features and offsets."""
    gradients = deform_conv_gradients(grad_output, input, weight, offset, _V1(geometry))
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **geometry: int,
) -> None:
    """Add ``scale`` times the gradient of ``deform_conv_forward`` by its weight."""
    # Only the shape of the weight, which mmcv does not pass, matters for this gradient.
    weight = torch.zeros_like(grad_weight)
    gradients = deform_conv_gradients(grad_output, input, weight, offset, _V1(geometry))
    grad_weight.add_(gradients[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Compute a modulated deformable convolution (Deformable ConvNets v2, section 3.2).

    Args:
        input: As in ``deform_conv_forward``, like ``weight``, ``offset`` and ``output``.
        bias: (O,), or of any shape if ``with_bias`` is false.
        mask: (N, deformable_group * kH * kW, H', W'): the factor of each sample.
        with_bias: Whether ``bias`` is added.
        **geometry: See ``_V2``; the rest is unused.
    """
    present = bias if with_bias else None
    output.copy_(_convolve(input, weight, offset, mask, present, _V2(geometry)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Write the gradients of ``modulated_deform_conv_forward`` by its tensors."""
    gradients = deform_conv_gradients(grad_output, input, weight, offset, _V2(geometry), mask=mask)
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, gradient in zip(targets, gradients, strict=False):
        target.copy_(gradient)
    if with_bias:
        grad_bias.copy_(gradients[4])


def deform_conv_gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    geometry: tuple[int, ...],
    *,
    mask: Tensor | None = None,
) -> DeformConvGradients:
    """Return all gradients of a deformable convolution from one run of the kernel.

    Args:
        grad_output: (N, O, H', W').
        input: As in ``deform_conv_forward``, like ``weight`` and ``offset``.
        geometry: Stride, padding, dilation (y before x), groups, deformable groups.
        mask: As in ``modulated_deform_conv_forward``.

    Returns:
        Gradients by input, weight, offset, mask (meaningless without one) and bias.
    """
    operands = _operands(input, weight, offset, mask, None)
    gradients: DeformConvGradients = torch.ops.torchvision._deform_conv2d_backward(
        to_float32(grad_output), *operands, *geometry, mask is not None
    )
    outside = _samples_outside(operands[2], input.shape[-2:], weight.shape[-2:], geometry)
    gradients[2].masked_fill_(outside, 0.0)
    return gradients


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
    """Return the term of each element, times the weight of its row's class."""
    positive = target[:, None] == torch.arange(by_positive.shape[1], device=target.device)
    combined = -torch.where(positive, alpha * by_positive, (1 - alpha) * by_negative)
    if not weight.numel():
        return combined
    is_class = (target >= 0) & (target < len(weight))
    factors = weight[target.clamp(0, len(weight) - 1)]
    # 1 for background, which mmcv leaves open
    return combined * torch.where(is_class, factors, torch.ones_like(factors))[:, None]


def _samples_outside(
    offset: Tensor, size_hw: Sequence[int], kernel_hw: Sequence[int], geometry: tuple[int, ...]
) -> Tensor:
    """Mark the samples at or beyond -1, the height or the width: bool, shape of ``offset``.

    Positions are computed as in the kernels, integers first, so that they round alike.
    """
    strides, paddings, dilations = geometry[0:2], geometry[2:4], geometry[4:6]
    count, _, *output_hw = offset.shape
    samples = offset.view(count, geometry[7], *kernel_hw, 2, *output_hw)
    outside = torch.zeros((), dtype=torch.bool, device=offset.device)
    for axis in (0, 1):
        taps = torch.arange(kernel_hw[axis], device=offset.device) * dilations[axis]
        cells = torch.arange(output_hw[axis], device=offset.device) * strides[axis] - paddings[axis]
        grid = taps[:, None] + cells  # (taps, cells) of this axis
        grid = grid[:, None, :, None] if axis == 0 else grid[None, :, None, :]
        position = samples[:, :, :, :, axis] + grid
        outside = outside | (position <= -1) | (position >= size_hw[axis])
    return outside.unsqueeze(4).expand_as(samples).reshape(offset.shape)


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    output: Tensor = torch.ops.torchvision.deform_conv2d(
        *_operands(input, weight, offset, mask, bias), *geometry, mask is not None
    )
    return output


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the kernel's tensors, not in half precision; absent ones as it expects them."""
    input, weight = to_float32(input), to_float32(weight)
    mask = input.new_zeros((len(input), 1)) if mask is None else to_float32(mask)
    bias = weight.new_zeros(len(weight)) if bias is None else to_float32(bias)
    return input, weight, to_float32(offset), mask, bias
