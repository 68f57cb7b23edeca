"""Faster training on a CPU with the results of mmdet's layers, equal up to rounding.

Prediction and other devices run mmdet's own code. The gains are in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.wrappers import ConvTranspose2d
from mmdet.models.necks import FPN
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.mmdet_bridge.kernels.roi_align_cpu import share_gradients

BLOCK_ELEMENTS = (
    1 << 15
)  # of a matrix of overlaps at a time; all temporaries then fit a core's cache


def is_trained_on_cpu(tensors: Iterable[Tensor]) -> bool:
    """Return whether the tensors are float32 on the CPU and gradients are wanted of all of them."""
    return torch.is_grad_enabled() and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.requires_grad
        for tensor in tensors
    )


def make_fast_on_cpu(detector: nn.Module) -> None:
    """Have a CPU train the detector faster; names and values of its parameters stay.

    The RoI extractor has its part in ``detectors.Float32RoIExtractor``.
    """
    for layer in detector.modules():
        if type(layer) is ConvTranspose2d and _is_block_wise(layer):
            layer.__class__ = BlockTransposedConvolution
        if isinstance(layer, ConvModule):
            if isinstance(layer.norm, nn.BatchNorm2d) and isinstance(layer.conv, nn.Conv2d):
                layer.efficient_conv_bn_eval_forward = fold_norm
            if layer.with_activation and type(layer.activate) is nn.ReLU6:
                layer.activate = Relu6()
    if isinstance(neck := getattr(detector, "neck", None), FPN):
        neck.register_forward_hook(_share_roi_gradients)
    rpn, head = getattr(detector, "rpn_head", None), getattr(detector, "roi_head", None)
    for assigner in (getattr(rpn, "assigner", None), *getattr(head, "bbox_assigner", ())):
        if isinstance(assigner, MaxIoUAssigner) and vars(assigner.iou_calculator) == PLAIN_OVERLAPS:
            assigner.iou_calculator = BlockwiseOverlaps()


def _share_roi_gradients(_: Any, __: Any, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return share_gradients(levels) if is_trained_on_cpu(levels) else levels


def fold_norm(norm: nn.BatchNorm2d, convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """Convolve and normalise by running statistics, in training on a CPU in one convolution.

    With fixed statistics the normalisation is a factor and a shift of each channel: they go into
    the convolution's weight and bias, which are small, and autograd differentiates that (You et
    al., 2023, https://arxiv.org/abs/2305.11624). Signature and use are those of mmcv's
    ``efficient_conv_bn_eval_forward``, which does so on every device and in prediction, too.

    Args:
        norm: In evaluation mode.
        convolution: The convolution before it.
        images: (N, C, H, W).
    """
    weight, bias = convolution.weight, convolution.bias
    mean, variance = norm.running_mean, norm.running_var
    if (
        images.device.type != "cpu"
        or not torch.is_grad_enabled()
        or mean is None
        or variance is None
    ):
        normalised: Tensor = norm(convolution._conv_forward(images, weight, bias))
        return normalised
    factor = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        factor = factor * norm.weight
    shift = -mean * factor if bias is None else (bias - mean) * factor
    if norm.affine:
        shift = shift + norm.bias
    folded: Tensor = convolution._conv_forward(images, weight * factor[:, None, None, None], shift)
    return folded


class Relu6(nn.Module):
    """``ReLU6(inplace=True)``, whose autograd copies the input that it then overwrites.

    The output says as well where the gradient passes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Clamp ``x`` to [0, 6] in place."""
        if is_trained_on_cpu([x]):
            clamped: Tensor = _Relu6.apply(x)  # type: ignore[no-untyped-call]
            return clamped
        return nn.functional.relu6(x, inplace=True)


class _Relu6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0, 6)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (clamped,) = ctx.saved_tensors
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, clamped, 0, 6)
        return passed


def _is_block_wise(layer: Any) -> bool:
    return bool(
        layer.stride == layer.kernel_size
        and layer.padding == layer.output_padding == (0, 0)
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )


class BlockTransposedConvolution(ConvTranspose2d):  # type: ignore[misc]
    """A transposed convolution with a stride of its kernel's size, as one matrix product.

    Each input cell then makes a block of output cells of its own. The gradient takes a third of the
    time of torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H * kernel height, W * kernel width) of x, (N, C, H, W)."""
        if not is_trained_on_cpu([x]):
            y: Tensor = super().forward(x)
            return y
        n, channels, height, width = x.shape
        rows, columns = self.kernel_size
        cells = nn.functional.linear(
            x.permute(0, 2, 3, 1), self.weight.permute(2, 3, 1, 0).reshape(-1, channels)
        )
        blocks = cells.view(n, height, width, rows, columns, self.out_channels).transpose(2, 3)
        y = blocks.reshape(n, height * rows, width * columns, self.out_channels)
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


PLAIN_OVERLAPS = vars(BboxOverlaps2D())


class BlockwiseOverlaps(BboxOverlaps2D):  # type: ignore[misc]
    """mmdet's IoUs of boxes, to the bit, a block of rows at a time.

    An image of 448x448 px has 50,000 anchors, and mmdet's temporaries have the anchors times the
    instances times two elements each.
    """

    def __call__(
        self, bboxes1: Any, bboxes2: Any, mode: str = "iou", is_aligned: bool = False
    ) -> Tensor:
        """Return the IoU of each pair of boxes, (M, N) of (M, 4) and (N, 4) xyxy."""
        ious: Tensor
        plain = type(bboxes1) is Tensor and type(bboxes2) is Tensor and mode == "iou"
        if (
            not plain
            or is_aligned
            or bboxes1.device.type != "cpu"
            or bboxes1.dtype != bboxes2.dtype
            or bboxes1.shape[1:] != (4,)
            or bboxes2.shape[1:] != (4,)
            or not len(bboxes2)
        ):
            ious = super().__call__(bboxes1, bboxes2, mode, is_aligned)
            return ious
        left, top, right, bottom = bboxes2.t().contiguous()
        area = (right - left) * (bottom - top)
        ious = bboxes1.new_empty((len(bboxes1), len(bboxes2)))
        num_rows = max(1, BLOCK_ELEMENTS // len(bboxes2))
        for start in range(0, len(bboxes1), num_rows):
            block = bboxes1[start : start + num_rows]
            own_left, own_top, own_right, own_bottom = block.t().unsqueeze(2)
            overlap = (right.minimum(own_right)).sub_(left.maximum(own_left)).clamp_(min=0)
            overlap *= (bottom.minimum(own_bottom)).sub_(top.maximum(own_top)).clamp_(min=0)
            union = ((own_right - own_left) * (own_bottom - own_top) + area).sub_(overlap)
            torch.div(overlap, union.clamp_(min=1e-6), out=ious[start : start + num_rows])
        return ious
