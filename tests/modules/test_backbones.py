"""Each backbone of conf/module/backbone: built whole, trained a step, and run."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest
import torch
from hydra.utils import instantiate

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.untrusted_config import check_untrusted_detector
from tests.helpers.cascades import compose_module, detector_config, make_batch

FEW = (  # regions, so that the backbone takes most of the time
    "module.num_classes=5",
    "module.max_candidates=20",
    *(
        f"module.detector.sizes.{size}"
        for size in (
            *("channels=32", "box_features=32", "mask_convolutions=1", "training_rois=8"),
            *("proposals_training=50", "proposals_inference=20"),
        )
    ),
)
needs_mmpretrain = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="make mmpretrain installs it"
)
MODULES = [
    pytest.param("htc_r50", "ResNet", 50),
    pytest.param("htc_mobilenet", "MobileNetV2", None),
    pytest.param("htc_swin_tiny", "SwinTransformer", None),
    pytest.param("htc_convnext_tiny", "ConvNeXt", None, marks=needs_mmpretrain),
    pytest.param("htc_x101_dcn", "ResNeXt", 101, marks=pytest.mark.slow),
    pytest.param("htc_swin_large", "SwinTransformer", None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "class_name", "depth"), MODULES)
def test_a_step_of_training_and_a_prediction(
    name: str, class_name: str, depth: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = instantiate(compose_module(name, *FEW).module)
    assert type(module.detector.backbone).__name__ == class_name
    assert getattr(module.detector.backbone, "depth", None) == depth
    for log in ("log", "log_dict"):
        monkeypatch.setattr(module, log, lambda *_, **__: None)
    batch = make_batch()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    loss = module.training_step(batch, 0)
    loss.backward()
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    torch.optim.AdamW(trained.values()).step()
    moved = Counter(
        name.split(".")[1] for name, p in trained.items() if not torch.equal(p, before[name])
    )
    assert loss.isfinite()
    assert {*moved} == {"backbone", "neck", "rpn_head", "roi_head"}
    module.eval()
    with torch.no_grad():
        assert len(module.predict_step(batch, 0)) == 2


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18",
        "resnet50",
        "resnext101_64x4d_dcn",
        "mobilenet",
        "swin_tiny",
        "swin_large",
        "convnext_tiny",
    ],
)
def test_a_backbone_replaces_another_whole(backbone: str) -> None:
    """And a checkpoint with it opens: its configuration is legal in a file."""
    sizes = detector_config("htc_tiny")["sizes"]
    config = detector_config("htc_tiny", f"module/backbone={backbone}")
    own = detector_config("htc_heads", f"+module/backbone={backbone}")
    assert config["backbone"] == own["backbone"]
    assert config["neck"]["in_channels"] == own["neck"]["in_channels"]
    assert config["sizes"] == sizes
    check_untrusted_detector(config, source="checkpoint a.ckpt")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "mmpretrain" else find_spec(name, *rest),
    )
    message = (
        r"^detector\.backbone\.type=mmpretrain\.ConvNeXt needs the package onedl-mmpretrain, which "
        "is not installed: make mmpretrain$"
    )
    with pytest.raises(InputError, match=message):
        build_detector(detector_config("htc_convnext_tiny"))


def test_heads_alone_are_refused() -> None:
    with pytest.raises(InputError, match=r"^detector\.backbone must be given, got none: \+module/"):
        build_detector(detector_config("htc_heads"))
