"""NMS, RoIAlign and deformable convolution in plain torch, written from the papers: slow and clear.

Differentiable by autograd, so their gradients are independent of the kernels' too.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import torch
from torch import Tensor


def nms(boxes: list[list[int]], scores: list[float], iou_threshold: str, offset: int) -> list[int]:
    """Greedy NMS of boxes with whole coordinates, in exact fractions.

    Args:
        boxes: N boxes, xyxy.
        scores: N.
        iou_threshold: decimal; a box goes when its IoU with a kept one is greater.
        offset: 0 or 1, added to widths and heights.

    Returns:
        The kept boxes by falling score, equal scores in order.
    """

    def area(x_min: int, y_min: int, x_max: int, y_max: int) -> int:
        return max(0, x_max - x_min + offset) * max(0, y_max - y_min + offset)

    def overlaps(a: list[int], b: list[int]) -> bool:
        low, high = map(max, a[:2], b[:2]), map(min, a[2:], b[2:])
        shared = area(*low, *high)
        union = area(*a) + area(*b) - shared
        return union > 0 and Fraction(shared, union) > Fraction(iou_threshold)

    kept: list[int] = []
    for candidate in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        if not any(overlaps(boxes[candidate], boxes[index]) for index in kept):
            kept.append(candidate)
    return kept


def bilinear(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample planes at fractional cells, with zeros beyond the edge.

    Args:
        plane: (C, H, W).
        y: any shape S.
        x: S.

    Returns:
        (C, *S).
    """
    height, width = plane.shape[-2:]
    result = plane.new_zeros((plane.shape[0], *y.shape))
    for corner_y in (y.floor(), y.floor() + 1):
        for corner_x in (x.floor(), x.floor() + 1):
            inside = (corner_y >= 0) & (corner_y < height) & (corner_x >= 0) & (corner_x < width)
            rows, columns = corner_y.clamp(0, height - 1), corner_x.clamp(0, width - 1)
            weight = (1 - (y - corner_y).abs()) * (1 - (x - corner_x).abs()) * inside
            result = result + weight * plane[:, rows.long(), columns.long()]
    return result


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Average of bilinear samples on a regular grid in each bin (Mask R-CNN, section 3).

    Samples less than a cell beyond the edge read the edge; farther ones are zero.

    Args:
        features: (N, C, H, W).
        rois: (K, 5): index of the view, xyxy.
        output_size: bins (high, wide).
        spatial_scale: cells a pixel.
        sampling_ratio: samples a bin and axis; 0: one for each cell the bin spans.
        aligned: whether a cell's value sits in its middle.

    Returns:
        (K, C, high, wide).
    """
    height, width = features.shape[-2:]
    results = [features.new_zeros((0, features.shape[1], *output_size))]
    for roi in rois:
        view = features[int(roi[0])]
        x_min, y_min, x_max, y_max = (roi[1:] * spatial_scale - (0.5 if aligned else 0)).tolist()
        shape = [y_max - y_min, x_max - x_min]
        if not aligned:
            shape = [max(side, 1.0) for side in shape]
        bins = [side / count for side, count in zip(shape, output_size, strict=True)]
        samples = [sampling_ratio or max(math.ceil(bin), 0) for bin in bins]
        axes = []
        for start, bin, count, many in zip((y_min, x_min), bins, output_size, samples, strict=True):
            steps = torch.arange(count * many, dtype=features.dtype, device=features.device)
            axes.append(start + (steps + 0.5) * bin / max(many, 1))
        y, x = torch.meshgrid(*axes, indexing="ij")
        near = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
        sampled = near * bilinear(view, y.clamp(0, height - 1), x.clamp(0, width - 1))
        grid = sampled.reshape(len(view), output_size[0], samples[0], output_size[1], samples[1])
        mean = grid.sum(dim=(2, 4)) / max(samples[0] * samples[1], 1)
        results.append(mean[None])
    return torch.cat(results)


def deform_conv(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution (Deformable Convolutional Networks, section 2.1; v2, section 3.2).

    Args:
        features: (N, C, H, W).
        offset: (N, 2 * deform_groups * kH * kW, H', W'): y and x of each tap, in turn.
        weight: (O, C / groups, kH, kW).
        mask: (N, deform_groups * kH * kW, H', W'), or None for ones.
        bias: (O,), or None for zeros.
        stride: of y, x.
        padding: of y, x.
        dilation: of y, x.
        groups: of the convolution.
        deform_groups: how many parts of the channels have offsets of their own.

    Returns:
        (N, O, H', W').
    """
    count, channels = features.shape[:2]
    kernel = weight.shape[-2:]
    out_y, out_x = offset.shape[-2:]
    taps = kernel[0] * kernel[1]
    shifts = offset.reshape(count, deform_groups, taps, 2, out_y, out_x)
    rows = torch.arange(out_y, device=features.device)[:, None] * stride[0] - padding[0]
    columns = torch.arange(out_x, device=features.device)[None, :] * stride[1] - padding[1]
    parts = features.reshape(count, deform_groups, channels // deform_groups, *features.shape[2:])
    sampled = []
    for view in range(count):
        for part in range(deform_groups):
            for tap in range(taps):
                shift = shifts[view, part, tap]
                y = rows + tap // kernel[1] * dilation[0] + shift[0]
                x = columns + tap % kernel[1] * dilation[1] + shift[1]
                sampled.append(bilinear(parts[view, part], y, x))
    columns_of_taps = torch.stack(sampled).reshape(
        count, deform_groups, taps, channels // deform_groups, out_y, out_x
    )
    if mask is not None:
        factors = mask.reshape(count, deform_groups, taps, 1, out_y, out_x)
        columns_of_taps = columns_of_taps * factors
    by_channel = columns_of_taps.transpose(2, 3).reshape(
        count, groups, channels // groups, taps, out_y, out_x
    )
    weights = weight.reshape(groups, -1, channels // groups, taps)
    output = torch.einsum("ngctyx,goct->ngoyx", by_channel, weights).flatten(1, 2)
    return output if bias is None else output + bias[:, None, None]


def offset_gradient(
    grad_columns: Tensor,
    features: Tensor,
    offset: Tensor,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    deform_groups: int,
) -> Tensor:
    """Gradient of sampling by the offsets, by the rule of mmcv's kernels, one sample at a time.

    A sample at or beyond -1, the height or the width has none; another one has the difference of
    its neighbours, of which those outside of the features are 0, where the lower neighbour is the
    rounded-down position (so the derivative is one-sided where a sample meets a cell).

    Args:
        grad_columns: (N, deform_groups, taps, C / deform_groups, H', W'): by each sampled value.
        features: (N, C, H, W).
        offset: (N, 2 * deform_groups * taps, H', W').
        kernel: taps of y, x.
        stride: of y, x.
        padding: of y, x.
        dilation: of y, x.
        deform_groups: as ``deform_conv`` has it.

    Returns:
        Shape of ``offset``.
    """
    count, channels, height, width = features.shape
    out_y, out_x = offset.shape[-2:]
    taps = kernel[0] * kernel[1]
    shifts = offset.reshape(count, deform_groups, taps, 2, out_y, out_x)
    parts = features.reshape(count, deform_groups, channels // deform_groups, height, width)
    result = torch.zeros_like(shifts)

    def cell(image: int, part: int, y: int, x: int) -> Tensor:
        plane = parts[image, part]
        inside = 0 <= y < height and 0 <= x < width
        return plane[:, y, x] if inside else plane.new_zeros(len(plane))

    for image, part, tap, row, column in itertools.product(
        range(count), range(deform_groups), range(taps), range(out_y), range(out_x)
    ):
        shift_y, shift_x = shifts[image, part, tap, :, row, column].tolist()
        y = row * stride[0] - padding[0] + tap // kernel[1] * dilation[0] + shift_y
        x = column * stride[1] - padding[1] + tap % kernel[1] * dilation[1] + shift_x
        if y <= -1 or y >= height or x <= -1 or x >= width:
            continue
        top, left = math.floor(y), math.floor(x)
        part_y, part_x = y - top, x - left
        corners = {
            (below, right): cell(image, part, top + below, left + right)
            for below in (0, 1)
            for right in (0, 1)
        }
        by_y = (1 - part_x) * (corners[1, 0] - corners[0, 0]) + part_x * (
            corners[1, 1] - corners[0, 1]
        )
        by_x = (1 - part_y) * (corners[0, 1] - corners[0, 0]) + part_y * (
            corners[1, 1] - corners[1, 0]
        )
        upstream = grad_columns[image, part, tap, :, row, column]
        result[image, part, tap, 0, row, column] = (by_y * upstream).sum()
        result[image, part, tap, 1, row, column] = (by_x * upstream).sum()
    return result.reshape(offset.shape)
