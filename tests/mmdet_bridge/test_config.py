"""Configurations of mmdet's detectors: what is built, and what is said of a wrong one."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from omegaconf import OmegaConf

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector, check_detector
from tests.helpers.cascades import SMALL, compose_module, detector_config
from tests.helpers.checkpoints import DEFORMABLE


@pytest.fixture(scope="module")
def small_config() -> dict[str, Any]:
    return detector_config("htc_tiny", *SMALL)


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    node = OmegaConf.create(copy.deepcopy(config))
    OmegaConf.update(node, key, value)
    result = OmegaConf.to_container(node)
    assert isinstance(result, dict)
    return result


def test_plain_and_omegaconf_configurations_build_the_same_detector(
    small_config: dict[str, Any],
) -> None:
    before = copy.deepcopy(small_config)
    torch.manual_seed(0)
    plain = build_detector(small_config)
    torch.manual_seed(0)
    attached = build_detector(compose_module("htc_tiny", *SMALL).module.detector)
    assert small_config == before
    assert plain.training
    assert plain.state_dict().keys() == attached.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, attached.state_dict()[name]), name


def test_fresh_weights_are_those_mmdets_classes_ask_for(small_config: dict[str, Any]) -> None:
    asked = build_detector(small_config).rpn_head.rpn_cls
    left = build_detector(small_config, init_weights=False).rpn_head.rpn_cls
    assert asked.bias.abs().max() == 0  # mmdet: Normal, standard deviation 0.01, bias 0
    assert 0.005 < asked.weight.std() < 0.02
    assert left.bias.abs().max() > 0


def test_fresh_deformable_convolutions_start_as_plain_ones() -> None:
    """mmdet's own initialisation draws their offsets at random."""
    detector = build_detector(detector_config("htc_r50", *DEFORMABLE))
    offsets = {
        name: value for name, value in detector.state_dict().items() if ".conv_offset." in name
    }
    assert len(offsets) == 2 * 13
    assert not any(value.any() for value in offsets.values())
    assert detector.backbone.layer2[0].conv2.weight.std() > 0


def test_another_default_scope_does_not_matter(small_config: dict[str, Any]) -> None:
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert type(build_detector(small_config)).__name__ == "HybridTaskCascade"


REGISTRY = "must be a class of mmdet's registry, got"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone.type", "ResNett", f"detector.backbone.type {REGISTRY} 'ResNett'"),
        ("backbone.type", "ResNett", "Near it: .*ResNet"),
        ("type", "HybridCascade", f"detector.type {REGISTRY} 'HybridCascade'"),
        (
            "train_cfg.rcnn.1.assigner.type",
            "IoUAssigner",
            f"detector.train_cfg.rcnn.1.assigner.type {REGISTRY} 'IoUAssigner'.*"
            "Near it: .*MaxIoUAssigner",
        ),
        ("neck.channels", 64, "detector.neck.channels: mmdet's FPN takes no argument 'channels'"),
        ("backbone.depth", 51, "detector: .*invalid depth 51 for resnet"),
        ("backbone.init_cfg", {"type": "Pretrained", "checkpoint": "torchvision://resnet18"},
         "detector.backbone.init_cfg.type must be absent or null, got 'Pretrained': .*import_weig"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named(
    small_config: dict[str, Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_detector(changed(small_config, key, value))


def test_a_missing_key_is_named(small_config: dict[str, Any]) -> None:
    del (config := copy.deepcopy(small_config))["neck"]["out_channels"]
    with pytest.raises(InputError, match=r"detector: .*FPN.*'out_channels'"):
        build_detector(config)
    del (config := copy.deepcopy(small_config))["backbone"]["type"]
    with pytest.raises(InputError, match=r'detector: .*must contain the key "type"'):
        build_detector(config)


def test_a_detector_with_a_box_for_each_class_is_refused(small_config: dict[str, Any]) -> None:
    key = "roi_head.bbox_head.1.reg_class_agnostic"
    detector = build_detector(changed(small_config, key, False))
    with pytest.raises(InputError, match=f"detector.{re.escape(key)} must be true, got false"):
        check_detector(detector)
    check_detector(build_detector(small_config))


def test_a_detector_that_is_no_hybrid_task_cascade_is_refused() -> None:
    with pytest.raises(InputError, match="must be HybridTaskCascadeRoIHead, got NoneType"):
        check_detector(torch.nn.Module())
