"""RoIAlign by matrix products against torchvision's kernel: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torchvision

from src.mmdet_bridge.kernels.roi_align_cpu import pool_rois, share_gradients

SCALES = (0.5, 0.25, 0.125)


def make_case(memory_format=torch.contiguous_format, dtype=torch.float64, seed=0):
    """Three levels of two views; boxes inside, over the edge, outside, inverted, empty, long."""
    generator = torch.Generator().manual_seed(seed)
    levels = [
        torch.rand((2, 3, *size), generator=generator, dtype=dtype)
        .to(memory_format=memory_format)
        .requires_grad_()
        for size in ((18, 26), (9, 13), (5, 7))
    ]
    corners = torch.rand((40, 2), generator=generator, dtype=dtype) * 30
    sides = torch.rand((40, 2), generator=generator, dtype=dtype) * 24
    special = torch.tensor(
        [
            [-7.3, -5.1, 4.2, 9.9],
            [20.2, 11.4, 61.7, 40.3],
            [300.0, 300.0, 310.0, 310.0],
            [-90.0, -90.0, -80.0, -80.0],
            [12.3, 9.1, 8.2, 7.7],
            [5.5, 5.5, 5.5, 5.5],
            [-20.0, 3.0, 90.0, 4.0],
            [0.0, 0.0, 52.0, 36.0],
        ],
        dtype=dtype,
    )
    boxes = torch.cat([torch.cat([corners, corners + sides], dim=1), special])
    views = torch.arange(len(boxes), dtype=dtype)[:, None] % 2
    of_level = torch.randint(0, 2, (len(boxes),), generator=generator)  # the third is not read
    return levels, torch.cat([views, boxes], dim=1), of_level


def by_torchvision(levels, rois, of_level, output_hw, sampling_ratio, aligned):
    channels = levels[0].shape[1]
    pooled = rois.new_zeros((len(rois), channels, *output_hw))
    for number, (level, scale) in enumerate(zip(levels, SCALES, strict=True)):
        members = torch.nonzero(of_level == number)[:, 0]
        pooled[members] = torchvision.ops.roi_align(
            level, rois[members], output_hw, scale, sampling_ratio or -1, aligned
        )
    return pooled


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("output_hw", [(3, 3), (2, 5), (1, 1), (7, 7)])
def test_values_and_gradients_equal_torchvisions(output_hw, sampling_ratio, aligned, memory_format):
    levels, rois, of_level = make_case(memory_format)
    expected = by_torchvision(levels, rois, of_level, output_hw, sampling_ratio, aligned)
    got = pool_rois(
        levels,
        rois,
        of_level,
        spatial_scales=SCALES,
        output_hw=output_hw,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)

    # A transposed gradient, as the heads give it: not contiguous.
    gradient = torch.rand_like(expected.transpose(-1, -2)).transpose(-1, -2)
    wanted = torch.autograd.grad(expected, levels[:2], gradient)
    found = torch.autograd.grad(got, levels, gradient)
    assert found[2].abs().max() == 0
    for own, other in zip(found[:2], wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)
        assert own.is_contiguous(memory_format=memory_format)


def test_gradients_are_added_up_in_one_place():
    """Beside another reader of the levels, as the RPN is, and twice through one graph."""
    levels, rois, of_level = make_case()
    options = {"spatial_scales": SCALES, "sampling_ratio": 0, "aligned": True}

    def gradients(pyramid, *, times=1):
        pooled = [pool_rois(pyramid, rois, of_level, output_hw=(n, n), **options) for n in (7, 3)]
        loss = pooled[0].square().sum() + pooled[1].square().sum() + pyramid[0].square().sum()
        for _ in range(times):
            found = torch.autograd.grad(loss, levels, allow_unused=True, retain_graph=True)
        return found

    expected = gradients(levels)
    for times in (1, 2):
        found = gradients(share_gradients(tuple(levels)), times=times)
        assert found[2] is None
        for own, other in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


def test_autocast_does_not_reach_inside():
    levels, rois, of_level = make_case(dtype=torch.float32)
    options = {"spatial_scales": SCALES, "sampling_ratio": 0, "aligned": True, "output_hw": (7, 7)}
    expected = pool_rois(levels, rois, of_level, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pool_rois(levels, rois, of_level, **options)
    assert torch.equal(got, expected)
