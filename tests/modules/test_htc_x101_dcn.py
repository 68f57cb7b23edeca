"""The winning model: built as row S1 of the recipe says, trained a step, run on an image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from mmcv.ops import DeformConv2dPack
from torch import nn

from src.modules.cascade import CascadeModule
from tests.helpers.cascades import compose_module, detector_config, make_batch


@pytest.fixture(scope="module")
def module() -> CascadeModule:
    torch.manual_seed(0)
    # Drawing fresh weights as mmdet asks takes mmengine 6 s; torch's own serve here.
    built = instantiate(compose_module("htc_x101_dcn", optimizer="sgd").module, init_weights=False)
    assert isinstance(built, CascadeModule)
    return built


def test_has_140_million_parameters(module: CascadeModule) -> None:
    assert sum(parameter.numel() for parameter in module.parameters()) == 140_366_734


def test_backbone_is_resnext101_64x4d_with_dcn_v1_from_c3_to_c5(module: CascadeModule) -> None:
    backbone = module.detector.backbone
    assert type(backbone).__name__ == "ResNeXt"
    assert (backbone.depth, backbone.groups, backbone.base_width) == (101, 64, 4)
    stages = [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]
    deformable = [
        [layer for layer in stage.modules() if isinstance(layer, DeformConv2dPack)]
        for stage in stages
    ]
    # One in each block, those with a stride included; v2 would be ModulatedDeformConv2dPack.
    assert [len(stage) for stage in stages] == [3, 4, 23, 3]
    assert [len(layers) for layers in deformable] == [0, 4, 23, 3]
    for layer in (layer for layers in deformable for layer in layers):
        assert layer.deform_groups == 1
        assert layer.groups == 64
        assert layer.conv_offset.weight.count_nonzero() == 0  # starts as a plain convolution


def test_pyramid_and_rpn_have_the_values_of_the_table(module: CascadeModule) -> None:
    detector = module.detector
    assert type(detector.neck).__name__ == "FPN"
    assert (detector.neck.out_channels, detector.neck.num_outs) == (256, 5)
    rpn = detector.rpn_head
    assert rpn.prior_generator.scales.tolist() == [8]
    assert rpn.prior_generator.ratios.tolist() == [0.5, 1.0, 2.0]
    assert rpn.prior_generator.strides == [(n, n) for n in (4, 8, 16, 32, 64)]
    train, test = detector.train_cfg, detector.test_cfg
    assert (train.rpn_proposal.nms_pre, train.rpn_proposal.max_per_img) == (2000, 2000)
    assert (test.rpn.nms_pre, test.rpn.max_per_img) == (1000, 1000)
    assert train.rpn_proposal.nms.iou_threshold == test.rpn.nms.iou_threshold == 0.7
    assert test.rcnn == {
        "score_thr": 0.001,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 100,
        "mask_thr_binary": 0.5,
    }


def test_cascade_has_the_values_of_the_table(module: CascadeModule) -> None:
    head = module.detector.roi_head
    assert type(head).__name__ == "HybridTaskCascadeRoIHead"
    assert head.num_stages == 3
    assert list(head.stage_loss_weights) == [1, 0.5, 0.25]
    assert head.interleaved
    assert head.mask_info_flow
    assert not head.with_semantic
    assert [assigner.pos_iou_thr for assigner in head.bbox_assigner] == [0.5, 0.6, 0.7]
    assert [assigner.neg_iou_thr for assigner in head.bbox_assigner] == [0.5, 0.6, 0.7]
    assert [(sampler.num, sampler.pos_fraction) for sampler in head.bbox_sampler] == [
        (512, 0.25)
    ] * 3
    assert [stage.mask_size for stage in head.train_cfg] == [28] * 3
    assert [extractor.roi_layers[0].output_size for extractor in head.bbox_roi_extractor] == [
        (7, 7)
    ] * 3
    assert [extractor.roi_layers[0].output_size for extractor in head.mask_roi_extractor] == [
        (14, 14)
    ] * 3
    for box_head, mask_head, stds in zip(
        head.bbox_head,
        head.mask_head,
        ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]),
        strict=True,
    ):
        assert box_head.reg_class_agnostic
        assert box_head.num_classes == mask_head.num_classes == 46
        assert box_head.fc_cls.out_features == 47  # and the background
        assert list(box_head.bbox_coder.stds) == stds
        assert len(mask_head.convs) == 4
    assert [mask_head.with_conv_res for mask_head in head.mask_head] == [False, True, True]


def test_pixels_are_normalised_as_rgb(module: CascadeModule) -> None:
    preprocessor = module.detector.data_preprocessor
    assert preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert preprocessor.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert not preprocessor._channel_conversion
    assert preprocessor.pad_size_divisor == 32
    assert preprocessor.pad_mask


def test_r50_differs_from_it_in_the_backbone_only() -> None:
    x101, r50 = detector_config("htc_x101_dcn"), detector_config("htc_r50")
    assert x101.pop("backbone") != r50.pop("backbone")
    assert x101 == r50


def test_a_step_trains_all_but_the_frozen_stage_and_keeps_batch_statistics(
    module: CascadeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    module.train()
    norms = [
        layer for layer in module.detector.backbone.modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    assert len(norms) == 104
    assert not any(norm.training for norm in norms)
    means = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]

    module.training_step(make_batch(sizes_hw=((64, 64),), num_classes=46), 0).backward()

    assert all(
        torch.equal(norm.running_mean, mean)
        for norm, mean in zip(norms, means, strict=True)
        if norm.running_mean is not None
    )
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    for name, parameter in module.detector.named_parameters():
        if name.startswith(frozen):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.requires_grad, name
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    module.zero_grad()


def test_runs_on_an_image(module: CascadeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand proposals cost half a minute of mask heads on a CPU, and show nothing more.
    few: Any = module.detector.rpn_head.test_cfg.copy()
    few.max_per_img = 20
    monkeypatch.setattr(module.detector.rpn_head, "test_cfg", few)
    module.eval()
    (candidates,) = module.predict_step(
        make_batch(sizes_hw=((64, 64),), num_classes=46, with_objects=False), 0
    )
    assert 0 < len(candidates) <= 20 * 46
    assert candidates.mask_probabilities.shape == (len(candidates), 28, 28)
