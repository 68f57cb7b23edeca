"""Checkpoints: weights as each release of mmdetection wrote them, and a file that does harm.

The layouts are written from what the releases did, not from the code under test: mmdetection's pull
requests 1894 (offsets of deformable convolutions) and 2374 (order of classes), and its
docs/en/compatibility.md.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from tests.helpers.cascades import detector_config, spread_scores


def make_weights():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return layers.state_dict()


def assert_same(got, expected):
    assert type(got) is dict
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


class Malicious:
    """Its pickle creates a file when it is loaded as pickles usually are."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


PLAIN = (  # of htc_r50, but small
    "module.num_classes=5",
    "module.detector.sizes.channels=16",
    "module.detector.sizes.box_features=32",
    "module.detector.sizes.mask_convolutions=1",
    "module.detector.sizes.training_rois=32",
    "module.detector.sizes.proposals_training=100",
    "module.detector.sizes.proposals_inference=60",
    "+module.detector.backbone.base_channels=4",
    "module.detector.neck.in_channels=[16,32,64,128]",
)
DEFORMABLE = (  # ... with the deformable convolutions of htc_x101_dcn
    *PLAIN,
    "+module.detector.backbone.dcn={type:DCN,deform_groups:1,fallback_on_stride:false}",
    "+module.detector.backbone.stage_with_dcn=[false,true,true,true]",
)


def written_by(weights: dict[str, Tensor], layout: str) -> OrderedDict[str, Tensor]:
    """Give the weights the names and rows of a release, and a semantic branch beside them."""
    generator = torch.Generator().manual_seed(1)
    written: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in weights.items():
        if layout in ("v0.6", "v1"):
            name = name.removeprefix("roi_head.")
            if ".fc_cls." in name:  # the background was class 0
                value = torch.cat([value[-1:], value[:-1]])
            if ".conv_logits." in name and len(value) > 1:  # and had a mask, which nothing used
                unused = torch.randn((1, *value.shape[1:]), generator=generator)
                value = torch.cat([unused, value])
        if layout == "v0.6":  # torch of that time kept no counters in some releases
            name = name.replace(".conv2.conv_offset.", ".conv2_offset.")
            if name.endswith("num_batches_tracked"):
                continue
        written[name] = value.clone()
    prefix = "" if layout in ("v0.6", "v1") else "roi_head."
    for name, shape in (
        ("semantic_head.lateral_convs.0.conv.weight", (16, 16, 1, 1)),
        ("semantic_head.convs.0.conv.bias", (16,)),
        ("semantic_head.conv_embedding.conv.weight", (16, 16, 1, 1)),
        ("semantic_head.conv_logits.weight", (183, 16, 1, 1)),
        ("semantic_head.conv_logits.bias", (183,)),
    ):
        written[prefix + name] = torch.randn(shape, generator=generator)
    return written


def notes_of(layout: str) -> dict[str, object]:
    """What a release noted beside the weights, for five classes."""
    names = ["person", "bicycle", "car", "tie", "handbag"]
    if layout == "v3":
        return {"mmdet_version": "3.0.0", "dataset_meta": {"classes": names}}
    version = {"v0.6": "0.6.0+unknown", "v1": "1.1.0+unknown", "v2": "2.25.0"}[layout]
    return {"mmdet_version": version, "CLASSES": tuple(names), "config": "model = dict()"}


# Name and shape in the file, name (None: dropped) and shape today.
Row = tuple[str, tuple[int, ...], str | None, tuple[int, ...]]


def kept(name: str, *shape: int) -> Row:
    return name, shape, name, shape


def renamed(name: str, today: str, *shape: int) -> Row:
    return name, shape, today, shape


def into_roi_head(name: str, *shape: int, today: tuple[int, ...] | None = None) -> Row:
    return name, shape, f"roi_head.{name}", today or shape


def dropped(name: str, *shape: int) -> Row:
    return name, shape, None, ()


# Of mmdetection's htc_dconv_c3-c5_mstrain_400_1400_x101_64x4d_fpn_20e (80 classes), by release.
REAL_NAMES: dict[str, tuple[Row, ...]] = {
    "v0.6": (
        kept("backbone.conv1.weight", 64, 3, 7, 7),
        renamed(
            "backbone.layer2.0.conv2_offset.weight",
            "backbone.layer2.0.conv2.conv_offset.weight",
            *(18, 512, 3, 3),
        ),
        renamed(
            "backbone.layer4.2.conv2_offset.bias", "backbone.layer4.2.conv2.conv_offset.bias", 18
        ),
        kept("backbone.layer2.0.conv2.weight", 512, 8, 3, 3),
        kept("backbone.layer3.22.bn3.running_var", 1024),
        kept("backbone.layer1.0.downsample.0.weight", 256, 64, 1, 1),
        kept("neck.lateral_convs.3.conv.weight", 256, 2048, 1, 1),
        kept("neck.fpn_convs.0.conv.bias", 256),
        kept("rpn_head.rpn_conv.weight", 256, 256, 3, 3),
        kept("rpn_head.rpn_cls.weight", 3, 256, 1, 1),
        kept("rpn_head.rpn_reg.bias", 12),
        into_roi_head("bbox_head.0.fc_cls.weight", 81, 1024),
        into_roi_head("bbox_head.1.fc_cls.bias", 81),
        into_roi_head("bbox_head.2.fc_reg.weight", 4, 1024),
        into_roi_head("bbox_head.0.shared_fcs.0.weight", 1024, 12544),
        into_roi_head("mask_head.0.convs.3.conv.weight", 256, 256, 3, 3),
        into_roi_head("mask_head.2.upsample.weight", 256, 256, 2, 2),
        into_roi_head("mask_head.1.conv_res.conv.weight", 256, 256, 1, 1),
        into_roi_head("mask_head.0.conv_logits.weight", 81, 256, 1, 1, today=(80, 256, 1, 1)),
        into_roi_head("mask_head.0.conv_logits.bias", 81, today=(80,)),
        dropped("semantic_head.conv_embedding.conv.weight", 256, 256, 1, 1),
        dropped("semantic_head.conv_logits.bias", 183),
    ),
    "v2": (
        kept("backbone.layer2.0.conv2.conv_offset.weight", 18, 512, 3, 3),
        kept("roi_head.bbox_head.0.fc_cls.weight", 81, 1024),
        kept("roi_head.bbox_head.0.fc_cls.bias", 81),
        kept("roi_head.mask_head.2.conv_logits.bias", 80),
        dropped("roi_head.semantic_head.lateral_convs.0.conv.weight", 256, 256, 1, 1),
    ),
}


LAYOUTS = ("v0.6", "v1", "v2", "v3")
PATH = Path("old.pth")


def make_detector(*overrides: str) -> Any:
    """Random weights everywhere, the offsets and the batch statistics included."""
    torch.manual_seed(7)
    detector = build_detector(detector_config("htc_r50", *DEFORMABLE, *overrides))
    spread_scores(detector)
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if ".conv_offset." in name:
                value.normal_(0, 0.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.normal_(0, 0.1)
            elif "running_var" in name:
                value.uniform_(0.5, 1.5)
    return detector


def old(weights: dict[str, Tensor], layout: str, **notes: object) -> Checkpoint:
    return Checkpoint(
        path=PATH, weights=dict(written_by(weights, layout)), meta=notes_of(layout) | notes
    )


def config(*overrides: str, deformable: bool = True) -> dict[str, Any]:
    return detector_config("htc_r50", *(DEFORMABLE if deformable else PLAIN), *overrides)
