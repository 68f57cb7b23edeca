"""mmcv's deformable convolutions, plain and modulated, computed by torchvision's kernels.

The kernels agree but for one rule: where a sample lies exactly on -1 or on the height or width, so
just outside of the features, mmcv's gradient by its offset is 0, and torchvision's is the one-sided
derivative from the inside. With the zero offsets of a fresh layer and padding 1 that is every
border, so mmcv's rule (``get_coordinate_weight`` in its deform_conv_cuda_kernel.cuh and
modulated_deform_conv_cuda_kernel.cuh) is applied here.

Names, arguments and results as in ``operators``; ``columns`` and ``ones`` are scratch space of
mmcv's own kernels, unused here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision  # noqa: F401  # loads the library behind torch.ops.torchvision
from torch import Tensor

from src.mmdet_bridge.kernels.operators import to_float32

DeformConvGradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: int,
) -> None:
    """Deformable convolution (Deformable Convolutional Networks, section 2.1).

    Args:
        input: (N, C, H, W) features.
        weight: (O, C / group, kH, kW).
        offset: (N, 2 * deformable_group * kH * kW, H', W'): y, x of each sample, in cells.
        output: (N, O, H', W'), written.
        columns: unused.
        ones: unused.
        **geometry: mmcv's kW kH dW dH padW padH dilationW dilationH group deformable_group
            im2col_step, where d is the stride.
    """
    output.copy_(_convolve(input, weight, offset, None, None, _geometry_v1(geometry)))


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
    """Gradients of ``deform_conv_forward`` by features and offsets, into the tensors given."""
    gradients = deform_conv_gradients(grad_output, input, weight, offset, _geometry_v1(geometry))
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
    """``scale`` times the gradient of ``deform_conv_forward`` by its weight, added."""
    # The weight itself, which mmcv does not pass, has no part in this gradient: only its shape.
    weight = torch.zeros_like(grad_weight)
    gradients = deform_conv_gradients(grad_output, input, weight, offset, _geometry_v1(geometry))
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
    """Modulated deformable convolution (Deformable ConvNets v2, section 3.2).

    Args:
        input: (N, C, H, W) features.
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,), or of any shape where ``with_bias`` is false.
        ones: unused.
        offset: (N, 2 * deformable_group * kernel_h * kernel_w, H', W'): y, x of each sample.
        mask: (N, deformable_group * kernel_h * kernel_w, H', W'): the factor of each sample.
        output: (N, O, H', W'), written.
        columns: unused.
        with_bias: whether ``bias`` is added.
        **geometry: mmcv's kernel_h kernel_w stride_h stride_w pad_h pad_w dilation_h dilation_w
            group deformable_group.
    """
    present = bias if with_bias else None
    output.copy_(_convolve(input, weight, offset, mask, present, _geometry_v2(geometry)))


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
    """Gradients of ``modulated_deform_conv_forward`` by its tensors, into those given."""
    gradients = deform_conv_gradients(
        grad_output, input, weight, offset, _geometry_v2(geometry), mask=mask
    )
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
    """Every gradient of a deformable convolution in one run of the kernel.

    Args:
        grad_output: (N, O, H', W').
        input: as ``deform_conv_forward`` takes it, like ``weight`` and ``offset``.
        weight: see ``input``.
        offset: see ``input``.
        geometry: stride, padding, dilation (y before x), groups, deformable groups.
        mask: as ``modulated_deform_conv_forward`` takes it.

    Returns:
        By input, weight, offset, mask (meaningless without one) and bias.
    """
    input, weight = to_float32(input), to_float32(weight)
    offset = to_float32(offset)
    by_input, by_weight, by_offset, by_mask, by_bias = (
        torch.ops.torchvision._deform_conv2d_backward(
            to_float32(grad_output),
            input,
            weight,
            offset,
            _absent_mask(input) if mask is None else to_float32(mask),
            weight.new_zeros(weight.shape[0]),
            *geometry,
            mask is not None,
        )
    )
    outside = _samples_outside(offset, input.shape[-2:], weight.shape[-2:], geometry)
    return by_input, by_weight, by_offset.masked_fill_(outside, 0.0), by_mask, by_bias


def _samples_outside(
    offset: Tensor, size_hw: Sequence[int], kernel_hw: Sequence[int], geometry: tuple[int, ...]
) -> Tensor:
    """Return which samples lie at or beyond -1, the height or the width of the features.

    Positions are computed as the kernels do, whole numbers first, so that they round alike.

    Returns:
        Bool, shape of ``offset``: both coordinates of such a sample.
    """
    strides, paddings, dilations, deform_groups = (
        geometry[0:2],
        geometry[2:4],
        geometry[4:6],
        geometry[7],
    )
    count, _, *output_hw = offset.shape
    samples = offset.view(count, deform_groups, *kernel_hw, 2, *output_hw)
    outside = None
    for axis in (0, 1):
        taps = torch.arange(kernel_hw[axis], device=offset.device) * dilations[axis]
        cells = torch.arange(output_hw[axis], device=offset.device) * strides[axis] - paddings[axis]
        grid = taps[:, None] + cells  # (taps, cells) of this axis
        grid = grid[:, None, :, None] if axis == 0 else grid[None, :, None, :]
        position = samples[:, :, :, :, axis] + grid
        beyond = (position <= -1) | (position >= size_hw[axis])
        outside = beyond if outside is None else outside | beyond
    assert outside is not None
    return outside.unsqueeze(4).expand_as(samples).reshape(offset.shape)


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    input, weight = to_float32(input), to_float32(weight)
    output: Tensor = torch.ops.torchvision.deform_conv2d(
        input,
        weight,
        to_float32(offset),
        _absent_mask(input) if mask is None else to_float32(mask),
        weight.new_zeros(weight.shape[0]) if bias is None else to_float32(bias),
        *geometry,
        mask is not None,
    )
    return output


def _absent_mask(input: Tensor) -> Tensor:
    return input.new_zeros((input.shape[0], 1))


def _geometry_v1(sizes: dict[str, int]) -> tuple[int, ...]:
    names = "dH dW padH padW dilationH dilationW group deformable_group"
    return tuple(sizes[name] for name in names.split())


def _geometry_v2(sizes: dict[str, int]) -> tuple[int, ...]:
    names = "stride_h stride_w pad_h pad_w dilation_h dilation_w group deformable_group"
    return tuple(sizes[name] for name in names.split())
