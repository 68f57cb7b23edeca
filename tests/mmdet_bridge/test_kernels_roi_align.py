"""RoIAlign through mmcv's own layer: values and gradients against plain torch."""

from __future__ import annotations

import pytest
import torch
from mmcv.ops import RoIAlign

from src.mmdet_bridge.kernels.operators import UnsupportedOperatorError
from tests.helpers import plain_kernels

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]


def make_case(dtype=torch.float64, device="cpu", seed=0):
    """Features of two views and boxes inside, over the edge, outside, inverted and empty."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand((2, 3, 9, 13), generator=generator, dtype=dtype)
    corners = torch.rand((6, 2), generator=generator, dtype=dtype) * 20
    sides = torch.rand((6, 2), generator=generator, dtype=dtype) * 12
    boxes = torch.cat([corners, corners + sides], dim=1)
    special = torch.tensor(
        [
            [-7.3, -5.1, 4.2, 9.9],
            [20.2, 11.4, 61.7, 40.3],
            [300.0, 300.0, 310.0, 310.0],
            [12.3, 9.1, 8.2, 7.7],
            [5.5, 5.5, 5.5, 5.5],
        ],
        dtype=dtype,
    )
    boxes = torch.cat([boxes, special])
    views = torch.arange(len(boxes), dtype=dtype)[:, None] % 2
    return features.to(device), torch.cat([views, boxes], dim=1).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("output_size", [(3, 3), (2, 5), (1, 1)])
def test_values_and_gradients_equal_plain_torch(output_size, sampling_ratio, aligned, device):
    features, rois = make_case(device=device)
    features.requires_grad_()
    layer = RoIAlign(output_size, 0.5, sampling_ratio, aligned=aligned)
    expected = plain_kernels.roi_align(
        features,
        rois,
        output_size,
        spatial_scale=0.5,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    got = layer(features, rois)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)

    # A transposed gradient, as the heads give it: not contiguous.
    gradient = torch.rand_like(expected.transpose(-1, -2)).transpose(-1, -2)
    (grad_expected,) = torch.autograd.grad(expected, features, gradient)
    (grad_got,) = torch.autograd.grad(got, features, gradient)
    torch.testing.assert_close(grad_got, grad_expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck(device):
    features, rois = make_case(device=device)
    layer = RoIAlign((2, 3), 0.5, 2)
    features = features[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, rois), features, nondet_tol=1e-12)


def test_no_boxes_still_give_a_gradient():
    features, rois = make_case()
    features.requires_grad_()
    output = RoIAlign(7)(features, rois[:0])
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert features.grad.abs().max() == 0


def test_channels_last_features_give_the_same():
    features, rois = make_case()
    strided = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(RoIAlign(3)(strided, rois), RoIAlign(3)(features, rois))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype, device):
    """As under autocast: half features, and boxes whose positions stay in float32."""
    features, rois = make_case(dtype=torch.float32, device=device)
    rois[:, 1:] += 1000
    halves = features.to(dtype).requires_grad_()
    exact = features.to(dtype).float().requires_grad_()
    wide = {"output_size": 3, "spatial_scale": 0.009}
    with torch.autocast(device, dtype=dtype):
        got = RoIAlign(**wide)(halves, rois)
    expected = RoIAlign(**wide)(exact, rois)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected.to(dtype), rtol=0, atol=0)

    gradient = torch.rand_like(got)
    got.backward(gradient)
    expected.backward(gradient.float())
    assert halves.grad.dtype == dtype
    # A GPU adds the samples up in any order.
    ulp = 0 if device == "cpu" else torch.finfo(dtype).eps
    torch.testing.assert_close(halves.grad, exact.grad.to(dtype), rtol=ulp, atol=ulp)


def test_maximum_pooling_is_refused():
    features, rois = make_case()
    with pytest.raises(UnsupportedOperatorError, match="pool_mode='max' needs an mmcv with comp"):
        RoIAlign(3, pool_mode="max")(features, rois)
