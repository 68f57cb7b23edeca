"""Equality with mmcv's own compiled operators, where there are some.

They are looked for in the installed mmcv, else in the file that MMCV_EXTENSION names.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import mmcv
import pytest
import torch

from src.mmdet_bridge.kernels import EXTENSION, OPERATORS


def find_compiled() -> Path | None:
    named = os.environ.get("MMCV_EXTENSION")
    beside = sorted(Path(mmcv.__file__).parent.glob("_ext*.so"))
    return Path(named) if named else next(iter(beside), None)


@pytest.fixture(scope="module")
def compiled():
    path = find_compiled()
    if path is None:
        pytest.skip("no compiled mmcv here")
    loaded = sys.modules[EXTENSION]
    if getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location("compiled_mmcv._ext", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def uniform(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 2 - 1) * scale


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("iou_threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "fractional"])
def test_nms_is_identical(compiled, whole, iou_threshold, offset):
    for seed in range(20):
        corners = uniform(400, 2, scale=30, seed=seed)
        sides = uniform(400, 2, scale=20, seed=seed + 100).abs()
        boxes = torch.cat([corners, corners + sides], dim=1)
        # All different: mmcv's own sort leaves open which of two equal scores comes first.
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randperm(400, generator=generator) / 400
        boxes = boxes.round() if whole else boxes
        arguments = {"iou_threshold": iou_threshold, "offset": offset}
        expected = compiled.nms(boxes, scores, **arguments)
        assert torch.equal(OPERATORS["nms"](boxes, scores, **arguments), expected)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_is_identical(compiled, sampling_ratio, aligned):
    features = uniform(2, 16, 40, 50)
    corners = uniform(60, 2, scale=120)
    boxes = torch.cat([corners, corners + uniform(60, 2, scale=150, seed=1).abs()], dim=1)
    rois = torch.cat([torch.arange(60.0)[:, None] % 2, boxes], dim=1)
    gradient = uniform(60, 16, 7, 7, seed=2)
    arguments = {
        "aligned_height": 7,
        "aligned_width": 7,
        "spatial_scale": 0.25,
        "sampling_ratio": sampling_ratio,
        "pool_mode": 1,
        "aligned": aligned,
    }
    results = []
    for operators in (OPERATORS, vars(compiled)):
        output, grad_input = torch.zeros(60, 16, 7, 7), torch.zeros_like(features)
        unused = torch.zeros(0), torch.zeros(0)
        operators["roi_align_forward"](features, rois, output, *unused, **arguments)
        operators["roi_align_backward"](gradient, rois, *unused, grad_input, **arguments)
        results.append((output, grad_input))
    (output, grad_input), (expected_output, expected_grad) = results
    assert torch.equal(output, expected_output)
    assert torch.equal(grad_input, expected_grad)


GEOMETRIES = [
    {},
    {"stride": 2},
    {"dilation": 2, "group": 2},
    {"group": 4, "deformable_group": 2},
]


def near(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_deform_conv_is_equal(compiled, geometry):
    stride, dilation = geometry.get("stride", 1), geometry.get("dilation", 1)
    group, parts = geometry.get("group", 1), geometry.get("deformable_group", 1)
    side = (14 + 2 - 2 * dilation - 1) // stride + 1
    features, weight = uniform(2, 8, 14, 14), uniform(12, 8 // group, 3, 3, seed=1)
    offset = uniform(2, 18 * parts, side, side, scale=3, seed=2)
    gradient = uniform(2, 12, side, side, seed=3)
    sizes = {
        **dict.fromkeys(("kW", "kH"), 3),
        **dict.fromkeys(("dW", "dH"), stride),
        **dict.fromkeys(("padW", "padH"), 1),
        **dict.fromkeys(("dilationW", "dilationH"), dilation),
        "group": group,
        "deformable_group": parts,
        "im2col_step": 2,
    }
    results = []
    for operators in (OPERATORS, vars(compiled)):
        output = torch.zeros(2, 12, side, side)
        buffers = torch.zeros(0), torch.zeros(0)
        operators["deform_conv_forward"](features, weight, offset, output, *buffers, **sizes)
        by_input, by_offset = torch.zeros_like(features), torch.zeros_like(offset)
        operators["deform_conv_backward_input"](
            features, offset, gradient, by_input, by_offset, weight, buffers[0], **sizes
        )
        by_weight = torch.ones_like(weight)
        operators["deform_conv_backward_parameters"](
            features, offset, gradient, by_weight, *buffers, **sizes, scale=0.5
        )
        results.append((output, by_input, by_offset, by_weight))
    for ours, theirs in zip(*results, strict=True):
        near(ours, theirs)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_modulated_deform_conv_is_equal(compiled, geometry, with_bias):
    stride, dilation = geometry.get("stride", 1), geometry.get("dilation", 1)
    group, parts = geometry.get("group", 1), geometry.get("deformable_group", 1)
    side = (14 + 2 - 2 * dilation - 1) // stride + 1
    features, weight = uniform(2, 8, 14, 14), uniform(12, 8 // group, 3, 3, seed=1)
    offset = uniform(2, 18 * parts, side, side, scale=3, seed=2)
    mask, bias = uniform(2, 9 * parts, side, side, seed=4), uniform(12, seed=5)
    gradient = uniform(2, 12, side, side, seed=3)
    sizes = {
        **dict.fromkeys(("kernel_w", "kernel_h"), 3),
        **dict.fromkeys(("stride_w", "stride_h"), stride),
        **dict.fromkeys(("pad_w", "pad_h"), 1),
        **dict.fromkeys(("dilation_w", "dilation_h"), dilation),
        "group": group,
        "deformable_group": parts,
        "with_bias": with_bias,
    }
    results = []
    for operators in (OPERATORS, vars(compiled)):
        output = torch.zeros(2, 12, side, side)
        ones, columns = torch.zeros(0), torch.zeros(0)
        operators["modulated_deform_conv_forward"](
            features, weight, bias, ones, offset, mask, output, columns, **sizes
        )
        inputs = (features, weight, bias, offset, mask)
        gradients = [torch.zeros_like(tensor) for tensor in inputs]
        operators["modulated_deform_conv_backward"](
            features, weight, bias, ones, offset, mask, columns, *gradients, gradient, **sizes
        )
        results.append((output, *gradients))
    for ours, theirs in zip(*results, strict=True):
        near(ours, theirs)
