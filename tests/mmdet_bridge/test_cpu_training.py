"""Layers that train faster on a CPU against those of mmdet, mmcv and torch that they stand for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hydra.utils import instantiate
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.wrappers import ConvTranspose2d
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from torch import nn

from benchmarks.cascade_batches import compose_training, draw_batch
from src.mmdet_bridge.cascade import detectors
from src.mmdet_bridge.cascade.cpu_training import (
    BlockTransposedConvolution,
    BlockwiseOverlaps,
    Relu6,
    fold_norm,
    make_fast_on_cpu,
)
from src.mmdet_bridge.cascade.detectors import Float32RoIExtractor, preprocess

EXTRACTOR = {
    "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
    "out_channels": 4,
    "featmap_strides": [4, 8, 16, 32],
}


def gradients(layer, inputs, *, seed=0):
    """Return the output and the gradients by the inputs and the layer's parameters."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = layer(*(x + 0 for x in leaves))  # no leaf, as layers may write in place
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(seed))
    parameters = [p for p in layer.parameters() if p.requires_grad]
    return [output, *torch.autograd.grad(output, [*leaves, *parameters], weights)]


def assert_close(found, expected, **tolerance):
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, **tolerance)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 8])
def test_folded_normalisation(groups, bias, memory_format):
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": groups, "bias": bias}
    plain = ConvModule(8, 16, norm_cfg={"type": "BN"}, act_cfg={"type": "ReLU6"}, **settings).eval()
    nn.init.uniform_(plain.norm.running_mean, -1, 1)
    nn.init.uniform_(plain.norm.running_var, 0.2, 2)
    nn.init.uniform_(plain.norm.weight, -1, 5)
    nn.init.uniform_(plain.norm.bias, -1, 1)
    fast = copy.deepcopy(plain)
    make_fast_on_cpu(fast)
    assert fast.efficient_conv_bn_eval_forward is fold_norm
    assert type(fast.activate) is Relu6
    images = torch.randn(2, 8, 15, 18).to(memory_format=memory_format)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    assert_close(gradients(fast, [images]), gradients(plain, [images]), **tolerance)
    with torch.no_grad():  # prediction is mmdet's own
        assert torch.equal(fast(images), plain(images))
    fast.train(), plain.train()  # statistics of the batch
    assert_close(gradients(fast, [images]), gradients(plain, [images]), **tolerance)
    assert torch.equal(fast.norm.running_var, plain.norm.running_var)


def test_relu6_is_torchs_to_the_bit():
    x = torch.tensor([-1.0, 0.0, 1e-30, 3.0, 6.0, 6.1, float("inf"), float("nan")])
    for own, other in zip(
        gradients(Relu6(), [x]), gradients(nn.ReLU6(inplace=True), [x]), strict=True
    ):
        torch.testing.assert_close(own, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 2)])
@pytest.mark.parametrize("count", [0, 3])
def test_transposed_convolution_by_blocks(count, kernel, bias):
    torch.manual_seed(0)
    plain = ConvTranspose2d(8, 6, kernel, stride=kernel, bias=bias)
    fast = copy.deepcopy(plain)
    fast.__class__ = BlockTransposedConvolution
    x = torch.randn(count, 8, 5, 7)
    tolerance = {"rtol": 1e-5, "atol": 1e-4}
    assert_close(gradients(fast, [x]), gradients(plain, [x]), **tolerance)


def test_overlapping_blocks_stay_torchs():
    for settings in ({"stride": 1}, {"stride": 2, "padding": 1}, {"stride": 2, "groups": 2}):
        layer = nn.Sequential(ConvTranspose2d(4, 4, 2, **settings))
        make_fast_on_cpu(layer)
        assert type(layer[0]) is ConvTranspose2d


@pytest.mark.parametrize(("rows", "columns"), [(30, 20_000), (7, 2000), (0, 5), (3, 0), (1, 1)])
def test_overlaps_are_mmdets_to_the_bit(rows, columns):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand((n, 4), generator=generator) * 100 for n in (rows, columns))
    first[:, 2:] += first[:, :2]
    second[:, 2:] += second[:, :2]
    second[:2, 2:] = second[:2, :2]  # empty
    second[2:4, 2:] -= 120  # inverted
    if rows > 1 and columns > 5:
        second[5], first[1, 2:] = first[0], first[1, :2]
    for mode in ("iou", "iof"):
        found = BlockwiseOverlaps()(first, second, mode)
        assert torch.equal(found, BboxOverlaps2D()(first, second, mode))


def make_rois():
    generator = torch.Generator().manual_seed(0)
    levels = [
        torch.rand((2, 4, 256 // s, 320 // s), generator=generator)
        for s in EXTRACTOR["featmap_strides"]
    ]
    corners = torch.rand((60, 2), generator=generator) * 250
    sides = torch.exp(torch.rand((60, 2), generator=generator) * 4 + 1.5)
    views = torch.arange(60)[:, None] % 2
    return levels, torch.cat([views, corners, corners + sides], dim=1)


@pytest.mark.parametrize("factor", [None, 1.3])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pooled_regions(sampling_ratio, factor):
    levels, rois = make_rois()
    layer = {**EXTRACTOR["roi_layer"], "sampling_ratio": sampling_ratio}
    found, expected = (
        _pooled(extractor(**{**EXTRACTOR, "roi_layer": layer}), levels, rois, factor)
        for extractor in (Float32RoIExtractor, SingleRoIExtractor)
    )
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _pooled(extractor, levels, rois, factor=None):
    leaves = [level.clone().requires_grad_() for level in levels]
    pooled = extractor(leaves, rois, factor)
    weights = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(0))
    return [pooled, *torch.autograd.grad(pooled, leaves, weights)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_regions_that_are_no_numbers_are_left_to_mmdet(bad):
    levels, rois = make_rois()
    rois[3, 2] = bad
    found, expected = (
        _pooled(extractor(**EXTRACTOR), levels, rois)
        for extractor in (Float32RoIExtractor, SingleRoIExtractor)
    )
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0, equal_nan=True)


def test_losses_and_gradients_of_a_cascade(monkeypatch):
    """The whole model, with its own and without any of the faster parts."""
    config = compose_training("module=htc_mobilenet").module
    torch.manual_seed(0)
    fast = instantiate(config).detector
    monkeypatch.setattr(detectors, "make_fast_on_cpu", lambda detector: None)
    plain = instantiate(config, channels_last=False).detector
    plain.load_state_dict(fast.state_dict())
    for extractor in (*plain.roi_head.bbox_roi_extractor, *plain.roi_head.mask_roi_extractor):
        extractor.__class__ = SingleRoIExtractor
    batch = draw_batch((128, 96), images=2, seed=0)
    found = []
    for detector in (pickle.loads(pickle.dumps(fast)), plain):
        torch.manual_seed(0)
        data = preprocess(detector, copy.deepcopy(batch), training=True)
        loss, parts = detector.parse_losses(detector.loss(data["inputs"], data["data_samples"]))
        loss.backward()
        by_name = {n: p.grad for n, p in detector.named_parameters() if p.requires_grad}
        found.append((loss, parts, by_name))
    (loss, parts, by_name), (plain_loss, plain_parts, plain_by_name) = found
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    assert parts.keys() == plain_parts.keys()
    for name, value in plain_parts.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)
    for name, value in plain_by_name.items():
        error = float((by_name[name] - value).norm() / value.norm().clamp(min=1e-6))
        assert error < 1e-4, (name, error)
