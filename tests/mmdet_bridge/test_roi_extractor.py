"""Pooled features under autocast: mmdet's own rounds the boxes, ours does not."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS

from src.mmdet_bridge.cascade.detectors import Float32RoIExtractor

SETTINGS = {
    "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
    "out_channels": 4,
    "featmap_strides": [4, 8, 16, 32],
}


@pytest.fixture(scope="module")
def case():
    """Smooth pyramid features of an image of 1216x1920, and 100 boxes of 12 to 400 px on it."""
    generator = torch.Generator().manual_seed(0)
    features = tuple(
        torch.nn.functional.interpolate(
            torch.randn((1, 4, 608 // stride, 960 // stride), generator=generator),
            scale_factor=2,
            mode="bicubic",
        )
        for stride in SETTINGS["featmap_strides"]
    )
    corners = torch.rand((100, 2), generator=generator) * torch.tensor([1700.0, 1000.0])
    sides = torch.exp(torch.rand((100, 2), generator=generator) * 3.5 + 2.5)
    return features, torch.cat([torch.zeros(100, 1), corners, corners + sides], dim=1)


def test_equals_mmdets_in_float32(case):
    ours = MODELS.build({"type": "Float32RoIExtractor", **SETTINGS})
    theirs = SingleRoIExtractor(**SETTINGS)
    features, rois = case
    for factor in (None, 1.3):
        assert torch.equal(ours(features, rois, factor), theirs(features, rois, factor))


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.bfloat16, 0.003), (torch.float16, 0.0004)], ids=str
)
def test_half_precision_rounds_values_only(case, dtype, bound):
    features, rois = case
    exact = SingleRoIExtractor(**SETTINGS)(features, rois)
    halves = tuple(level.to(dtype).requires_grad_() for level in features)

    def error(extractor) -> float:
        pooled = extractor(halves, rois)
        assert pooled.dtype == dtype
        return float((pooled.detach() - exact).norm() / exact.norm())

    assert error(Float32RoIExtractor(**SETTINGS)) < bound
    assert error(SingleRoIExtractor(**SETTINGS)) > 10 * bound

    Float32RoIExtractor(**SETTINGS)(halves, rois).float().sum().backward()
    assert all(level.grad.dtype == dtype for level in halves)
