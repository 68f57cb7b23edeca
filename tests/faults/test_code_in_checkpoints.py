"""A configuration out of a file names code in every place that it can; nothing of it runs."""

from __future__ import annotations

import copy
import inspect
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine import ConfigDict
from mmengine.model import weight_init

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import load_checkpoint, save_weights
from src.mmdet_bridge.checkpoints.untrusted_config import (
    LEGAL_LAYERS,
    LEGAL_LOSSES,
    LEGAL_TYPES,
    MAX_VALUES,
    check_class_list,
    check_untrusted_detector,
)
from src.modules.cascade import CascadeModule
from src.modules.ensemble import load_models
from tests.helpers.cascades import SMALL, SMALL_DEFORMABLE, detector_config

NOTHING = "absent"


@pytest.fixture(scope="module")
def honest() -> dict[str, Any]:
    return detector_config("htc_tiny", *SMALL)


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Record what would go out; nothing may."""
    opened: list[Any] = []

    def refuse(*address: Any, **_: Any) -> None:
        opened.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield opened
    assert not opened


def popen(trace: Path) -> dict[str, Any]:
    """Create ``trace`` where mmengine builds it."""
    return {"type": "subprocess.Popen", "args": ["touch", str(trace)]}


def expression(trace: Path) -> str:
    return f"__import__('pathlib').Path({str(trace)!r}).touch()"


# Where it stands, what stands there (``TRACE`` is the file that it creates), what the message says.
PAYLOADS: list[tuple[str, Any, str]] = [
    *(
        (place, popen, rf"hyper_parameters\.detector\.{place}\.type must be one of .*got 'subpro")
        for place in (
            "backbone",
            "neck",
            "rpn_head",
            "roi_head",
            "roi_head.bbox_head.1",
            "roi_head.bbox_head.0.loss_cls",
            "roi_head.bbox_head.2.bbox_coder",
            "roi_head.mask_head.0.conv_cfg",
            "roi_head.mask_head.2.predictor_cfg",
            "roi_head.mask_roi_extractor.roi_layer",
            "rpn_head.anchor_generator",
            "data_preprocessor",
            "data_preprocessor.batch_augments.0",
            "backbone.plugins.0.cfg",
            "backbone.norm_cfg",
            "backbone.dcn",
            "train_cfg.rpn.assigner",
            "train_cfg.rpn.assigner.iou_calculator",
            "train_cfg.rcnn.2.sampler",
            "test_cfg.rpn.nms",
            "test_cfg.rcnn.nms",
            "sizes",
            "anything.at.all",
        )
    ),
    ("test_cfg.rpn.nms.type", expression, r"nms\.type must be one of nms, soft_nms.*__import__"),
    ("backbone.type", ["ResNet"], r"backbone\.type must be one of .*got a list"),
    ("backbone.type", 7, r"backbone\.type must be one of .*got 7"),
    ("backbone.type", None, r"backbone\.type must be one of .*got None"),
    ("backbone.type", "mmdet.ResNet", r"backbone\.type must be one of .*got 'mmdet\.ResNet'"),
    ("backbone.type", "FPN", r"backbone\.type must be one of .*got 'FPN'"),
    ("backbone.type", "mmpretrain.VisionTransformer", r"backbone\.type must be one of"),
    ("type", "functools.partial", r"detector\.type must be one of CascadeRCNN, HybridTaskCascade"),
    ("type", "GroundingDINO", r"detector\.type must be one of"),
    ("type", "KnowledgeDistillationSingleStageDetector", r"detector\.type must be one of"),
    ("neck", {"type": "FPN\nBFP"}, r"neck\.type must be one of .*got 'FPN\\nBFP'"),
    ("neck", {"type": "\x1b[31mFPN"}, r"got '\\x1b\[31mFPN'$"),
    *(
        (f"backbone.{key}", "mmdet", rf"detector\.backbone must be keyed by .*got '{key}'")
        for key in ("_scope_", "_target_", "_partial_", "_delete_", "_base_", "__class__")
    ),
    ("backbone.style", "\ud800", r"backbone\.style must be text, got '\\ud800'"),
    ("backbone.\ud800", 1, r"detector\.backbone must be keyed by text, got '\\ud800'"),
    ("backbone.depth", "${oc.env:HOME}", r"backbone\.depth must be without an interpolation, got"),
    ("backbone.${x}", 1, r"backbone must be keyed by names without"),
    ("backbone.depth", torch.zeros(1), r"backbone\.depth must be a plain value, got a Tensor"),
    ("backbone.depth", torch.float32, r"backbone\.depth must be a plain value, got a dtype"),
    ("backbone.depth", float("nan"), r"backbone\.depth must be finite, got nan"),
    (
        "backbone.init_cfg",
        {"type": "Pretrained", "checkpoint": "http://x/y.pth"},
        r"init_cfg\.type",
    ),
    ("backbone.init_cfg", {"type": "Pretrained", "checkpoint": "/etc/passwd"}, r"init_cfg\.type"),
    ("neck.init_cfg", [{"type": "PretrainedInit"}], r"neck\.init_cfg\.0\.type must be one of"),
    (
        "neck.init_cfg",
        {"checkpoint": "torchvision://r"},
        r"neck\.init_cfg\.checkpoint must be absen",
    ),
    (
        "neck.init_cfg",
        {"type": "Normal", "override": popen},
        r"init_cfg\.override\.type must be one",
    ),
    ("backbone.pretrained", "torchvision://resnet50", r"backbone\.pretrained must be absent"),
    ("backbone.pretrained", "weights.pth", r"backbone\.pretrained must be absent.*'weights\.pth'"),
    ("roi_head.bbox_head.0.loss_cls.class_weight", "w.json", r"class_weight must be absent"),
    ("roi_head.shared_head", {"type": "ResLayer", "url": "ftp://x/y"}, r"url must be absent"),
]


def with_payload(config: dict[str, Any], place: str, payload: Any, trace: Path) -> dict[str, Any]:
    """Put a payload at a place, whatever is there, making the keys above it where they lack."""

    def made(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: made(inner) for key, inner in value.items()}
        return value(trace) if inspect.isfunction(value) else value

    node: Any = (changed := copy.deepcopy(config))
    *keys, last = place.split(".")
    for key in keys:
        if isinstance(node, list):
            node = node[int(key)]
        else:
            if not isinstance(node.get(key), dict | list):
                node[key] = {}
            node = node[key]
    node[int(last) if isinstance(node, list) else last] = made(payload)
    return changed


def write_checkpoint(path: Path, detector: Any, **values: Any) -> None:
    hyper_parameters = {"detector": detector, "num_classes": 5, "category_ids": None, **values}
    content = {
        "state_dict": {"detector.x": torch.zeros(1)},
        "hyper_parameters": hyper_parameters,
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(content, path)


@pytest.mark.parametrize(("place", "payload", "message"), PAYLOADS)
def test_nothing_in_a_checkpoint_runs(
    tmp_path: Path, honest: dict[str, Any], place: str, payload: Any, message: str
) -> None:
    trace, path = tmp_path / "ran", tmp_path / "model.ckpt"
    config = with_payload(honest, place, payload, trace)
    write_checkpoint(path, config)
    with pytest.raises(InputError, match=rf"^checkpoint \S*model\.ckpt: .*{message}") as caught:
        load_models([path], detector=honest, num_classes=5, category_ids=None)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        CascadeModule.load_from_checkpoint(path)
    assert not trace.exists()


def test_these_payloads_would_run_where_the_file_is_believed(tmp_path: Path) -> None:
    from mmcv.ops import batched_nms  # not before src.mmdet_bridge, which has its kernels

    process = MODELS.build(ConfigDict(popen(tmp_path / "ran")))
    assert process.wait() == 0
    assert (tmp_path / "ran").exists()
    boxes = torch.tensor([[0.0, 0, 1, 1]])
    rule = {"type": expression(tmp_path / "evaluated")}
    with pytest.raises(TypeError):
        batched_nms(boxes, torch.ones(1), torch.zeros(1), rule)
    assert (tmp_path / "evaluated").exists()


def test_what_a_module_takes_beside_the_detector_is_plain_too(
    tmp_path: Path, honest: dict[str, Any]
) -> None:
    write_checkpoint(tmp_path / "model.ckpt", honest, mask_stages={"_target_": "os.system"})
    with pytest.raises(InputError, match=r"mask_stages must be keyed by .* got '_target_'"):
        CascadeModule.load_from_checkpoint(tmp_path / "model.ckpt")


def test_a_module_is_loaded_from_an_honest_checkpoint(
    tmp_path: Path, honest: dict[str, Any]
) -> None:
    module = CascadeModule(honest, num_classes=5)
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(content, tmp_path / "model.ckpt")
    loaded = CascadeModule.load_from_checkpoint(tmp_path / "model.ckpt", min_score=0.25)
    assert loaded.hparams["min_score"] == 0.25
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_classes": 10**15},
            r"hyper_parameters\.num_classes must be a whole number from 1 to .*got 10000",
        ),
        ({"num_classes": "5"}, "num_classes must be a whole number .*got '5'"),
        ({"num_classes": True}, "num_classes must be a whole number .*got True"),
        (
            {"category_ids": [1, 2]},
            "category_ids must be a list of 5 different integers, got a list",
        ),
        ({"category_ids": [1, 2, 3, 4, 4]}, "category_ids must be a list of 5 different"),
        ({"category_ids": [1, 2, 3, 4, "5"]}, "category_ids must be a list of 5 different"),
        ({"category_ids": "12345"}, "category_ids must be a list of 5 different integers"),
    ],
)
def test_a_class_list_out_of_a_file_is_checked(
    tmp_path: Path, honest: dict[str, Any], values: dict[str, Any], message: str
) -> None:
    write_checkpoint(path := tmp_path / "model.ckpt", honest, **values)
    with pytest.raises(InputError, match=rf"model\.ckpt: .*{message}"):
        load_models([path], detector=honest, num_classes=5, category_ids=None)
    assert check_class_list({}, source="model.ckpt") is None


def test_what_contains_itself_or_never_ends_is_refused_at_once(honest: dict[str, Any]) -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    many: list[Any] = ["lol"]
    for _ in range(30):
        many = [many] * 10
    started = time.perf_counter()
    for value in (loop, many, ["x"] * (MAX_VALUES + 1)):
        with pytest.raises(InputError, match=rf"at most {MAX_VALUES} values, 40 deep"):
            check_untrusted_detector({**honest, "extra": value}, source="model.ckpt")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("config", [None, [], "HybridTaskCascade", 3])
def test_a_configuration_is_a_mapping(config: Any) -> None:
    with pytest.raises(InputError, match=r"model.ckpt: detector must be a mapping, got"):
        check_untrusted_detector(config, source="model.ckpt")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *(("htc_tiny", SMALL), ("htc_r50", SMALL_DEFORMABLE), ("htc_x101_dcn", ())),
        *(("htc_swin_tiny", ()), ("htc_convnext_tiny", ()), ("htc_mobilenet", ())),
    ],
)
def test_models_of_this_project_are_legal(name: str, overrides: tuple[str, ...]) -> None:
    check_untrusted_detector(detector_config(name, *overrides), source="model.ckpt")


def test_the_allow_list_holds_mmdets_own_classes_and_layers_alone() -> None:
    """No name in it is looked up as a path of modules, and each is of one of four packages.

    But for a backbone of an optional package, which is looked up in its registry.
    """
    from mmcv import ops

    initialisers = {*LEGAL_TYPES["init_cfg"]}
    for role, names in {**LEGAL_TYPES, "loss": LEGAL_LOSSES, "layers": LEGAL_LAYERS}.items():
        for name in names - {"nms", "soft_nms", "mmpretrain.ConvNeXt"}:
            assert name.isidentifier()
            if role == "roi_layer":
                found = getattr(ops, name)
            elif name in initialisers:
                found = getattr(weight_init, f"{name}Init")
            else:
                found = MODELS.get(name) or TASK_UTILS.get(name)
            package = found.__module__.split(".")[0]
            assert package in ("mmdet", "mmcv", "mmengine", "torch", "src"), (role, name)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("backbone.pretrained", "torchvision://resnet50"),
        ("backbone.pretrained", "open-mmlab://resnext101_64x4d"),
        ("backbone.pretrained", "/weights/resnet50.pth"),
        ("pretrained", "resnet50.pth"),
        ("backbone.init_cfg", {"type": "Pretrained", "checkpoint": "resnet50.pth"}),
        ("backbone.init_cfg", {"type": "mmengine.model.PretrainedInit", "checkpoint": "r.pth"}),
        ("neck.init_cfg", [{"checkpoint": "r.pth"}]),
        ("load_from", "https://download.openmmlab.com/r.pth"),
        ("backbone.teacher_ckpt", "r.pth"),
        ("backbone.norm_cfg.anything", "s3://bucket/r.pth"),
        ("roi_head.bbox_head.0.loss_cls.class_weight", "weights.json"),
        ("type", "KnowledgeDistillationSingleStageDetector"),
        ("language_model", {"type": "BertModel", "name": "bert-base-uncased"}),
    ],
)
def test_a_model_of_ones_own_reads_and_fetches_nothing(
    tmp_path: Path, honest: dict[str, Any], place: str, value: Any
) -> None:
    config = with_payload(honest, place, value, tmp_path)
    with pytest.raises(
        InputError,
        match=r"^detector\.\S+ must be absent or null, got '.*import_weights .*initial_weights=",
    ) as caught:
        build_detector(config)
    assert place.split(".")[0] in str(caught.value)


def test_what_reads_nothing_is_legal(honest: dict[str, Any]) -> None:
    config = copy.deepcopy(honest)
    config["backbone"] |= {"pretrained": None, "init_cfg": {"type": "Kaiming", "layer": "Conv2d"}}
    assert type(build_detector(config)).__name__ == "HybridTaskCascade"


@pytest.mark.parametrize(
    "place", ["backbone", "data_preprocessor.batch_augments.0", "train_cfg.rpn.assigner"]
)
def test_nothing_in_the_header_of_safetensors_runs(
    tmp_path: Path, honest: dict[str, Any], place: str
) -> None:
    trace, path = tmp_path / "ran", tmp_path / "model.safetensors"
    values = {"detector": with_payload(honest, place, popen, trace), "num_classes": 5}
    notes = {"hyper_parameters": json.dumps(values)}
    save_weights({"detector.x": torch.zeros(1)}, path, notes=notes)
    assert load_checkpoint(path).hyper_parameters == values
    with pytest.raises(InputError, match=rf"detector\.{place}\.type must be one of .*'subprocess"):
        load_models([path], detector=honest, num_classes=5, category_ids=None)
    assert not trace.exists()


def test_weights_alone_have_no_configuration_to_believe(
    tmp_path: Path, honest: dict[str, Any]
) -> None:
    """safetensors: notes in the header are text that nothing interprets."""
    detector = build_detector(honest, init_weights=False)
    notes = {
        "hyper_parameters": "{'detector': {'type': 'subprocess.Popen'}}",
        "_target_": "os.system",
    }
    save_weights(detector.state_dict(), path := tmp_path / "model.safetensors", notes=notes)
    (member,) = load_models([path], detector=honest, num_classes=5, category_ids=None)
    assert type(member).__name__ == "HybridTaskCascade"
