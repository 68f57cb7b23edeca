"""mmcv's deformable convolutions, plain and modulated, on torchvision's kernels.

The two libraries' kernels differ in one rule: for a sample exactly on -1, the height or the width,
just outside the features, mmcv's gradient by its offset is 0 and torchvision's is the one-sided
derivative from the inside. With the zero offsets of a fresh layer and padding 1 that is every
border, so mmcv's rule (``get_coordinate_weight`` in its deform_conv_cuda_kernel.cuh and
modulated_deform_conv_cuda_kernel.cuh) is applied here.

Names, arguments and results as in ``operators``; ``columns`` and ``ones``, scratch space of mmcv's
own kernels, are unused. ``geometry`` holds mmcv's sizes by its names for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor

from src.mmdet_bridge.kernels.operators import to_float32

DeformConvGradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_V1 = itemgetter("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_V2 = itemgetter(
    "stride_h",
    "stride_w",
    "pad_h",
    "pad_w",
    "dilation_h",
    "dilation_w",
    "group",
    "deformable_group",
)


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
        columns: Unused.
        ones: Unused.
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
    # Only the shape of the weight, which mmcv does not pass, has a part in this gradient.
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
        weight: See ``input``.
        bias: (O,), or of any shape where ``with_bias`` is false.
        ones: Unused.
        offset: See ``input``.
        mask: (N, deformable_group * kH * kW, H', W'): the factor of each sample.
        output: See ``input``.
        columns: Unused.
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
        weight: See ``input``.
        offset: See ``input``.
        geometry: Stride, padding, dilation (y before x), groups, deformable groups.
        mask: As in ``modulated_deform_conv_forward``.

    Returns:
        By input, weight, offset, mask (meaningless without one) and bias.
    """
    operands = _operands(input, weight, offset, mask, None)
    by_input, by_weight, by_offset, by_mask, by_bias = (
        torch.ops.torchvision._deform_conv2d_backward(
            to_float32(grad_output), *operands, *geometry, mask is not None
        )
    )
    offset = operands[2]
    outside = _samples_outside(offset, input.shape[-2:], weight.shape[-2:], geometry)
    return by_input, by_weight, by_offset.masked_fill_(outside, 0.0), by_mask, by_bias


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
