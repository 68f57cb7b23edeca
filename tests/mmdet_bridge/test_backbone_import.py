"""Weights of torchvision's and timm's classifiers give mmdet's backbones the same features."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from src.errors import InputError
from src.mmdet_bridge.checkpoints.backbone_import import BackboneImport, import_backbone
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from tests.helpers.backbones import (
    Features,
    backbone_config,
    build_backbone,
    hooked,
    random_image,
    randomize,
)

needs_mmpretrain = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="make mmpretrain installs it"
)
RESNET = {
    "type": "ResNet",
    "depth": 18,
    "num_stages": 4,
    "out_indices": [0, 1, 2, 3],
    "norm_cfg": {"type": "BN"},
    "style": "pytorch",
}
RESNEXT = RESNET | {"type": "ResNeXt", "depth": 50, "groups": 32, "base_width": 4}
MOBILE_NET = {"type": "MobileNetV2", "out_indices": [1, 2, 4, 6, 7]}
SWIN = {
    "type": "SwinTransformer",
    "embed_dims": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "drop_path_rate": 0.0,
}
SWIN_4 = SWIN | {"window_size": 4}
CONVNEXT = {
    "type": "mmpretrain.ConvNeXt",
    "arch": "tiny",
    "out_indices": [0, 1, 2, 3],
    "gap_before_final_norm": False,
}
CHANNELS = {
    "ResNet": [64, 128, 256, 512],
    "ResNetV1d": [64, 128, 256, 512],
    "ResNeXt": [256, 512, 1024, 2048],
    "MobileNetV2": [24, 32, 96, 320, 1280],
    "SwinTransformer": [96, 192, 384, 768],
    "mmpretrain.ConvNeXt": [96, 192, 384, 768],
}
# The windows of Swin's last stage cover a smaller image whole. Then the classifiers do not shift
# them, but mmdet does.
SMALL, LARGE = (96, 128), (256, 384)
Peer = Callable[[], tuple[nn.Module, Callable[[Tensor], Features]]]


def stages_of(model: Any) -> tuple[nn.Module, Callable[[Tensor], Features]]:
    return model, hooked(model, [model.layer1, model.layer2, model.layer3, model.layer4])


def mobile_net_of_torchvision() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    model = torchvision.models.mobilenet_v2()
    return model, hooked(model, [model.features[place] for place in (3, 6, 13, 17, 18)])


def mobile_net_of_timm() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    model: Any = timm.create_model("mobilenetv2_100")
    return model, hooked(model, [*(model.blocks[place] for place in (1, 2, 4, 6)), model.bn2])


def normalised(features: Features, last: nn.Module) -> Features:
    """What follows the stages: a new normalisation after the first three, and the classifier's."""
    fresh = [nn.functional.layer_norm(one, one.shape[-1:]) for one in features[:3]]
    return [one.permute(0, 3, 1, 2) for one in (*fresh, last(features[3]))]


def swin_of_torchvision() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    model = torchvision.models.swin_t()
    stages = hooked(model, [model.features[place] for place in (1, 3, 5, 7)])
    return model, lambda image: normalised(stages(image), model.norm)


def swin_of_timm() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    # A window that every stage of this image is a multiple of: timm attends to what it pads with.
    model: Any = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=LARGE, window_size=SWIN_4["window_size"]
    )
    stages = hooked(model, [*model.layers])
    return model, lambda image: normalised(stages(image), model.norm)


def convnext_of(model: Any, stages: list[nn.Module], norm: nn.Module) -> Any:
    forward = hooked(model, stages)

    def features(image: Tensor) -> Features:
        by_pixel = [one.permute(0, 2, 3, 1) for one in forward(image)]
        fresh = [nn.functional.layer_norm(one, one.shape[-1:], eps=1e-6) for one in by_pixel[:3]]
        return [*(one.permute(0, 3, 1, 2) for one in fresh), norm(forward(image)[3])]

    return model, features


def convnext_of_torchvision() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    model = torchvision.models.convnext_tiny()
    stages = [model.features[place] for place in (1, 3, 5, 7)]
    found: tuple[nn.Module, Any] = convnext_of(model, stages, model.classifier[0])
    return found


def convnext_of_timm() -> tuple[nn.Module, Callable[[Tensor], Features]]:
    model: Any = timm.create_model("convnext_tiny")
    found: tuple[nn.Module, Any] = convnext_of(model, [*model.stages], model.head.norm)
    return found


def peer(
    name: str, backbone: dict[str, Any], make: Peer, *, heads: int, fresh: int, **marks: Any
) -> Any:
    return pytest.param(backbone, make, heads, fresh, id=name, **marks)


PEERS = [
    peer(
        "resnet-torchvision",
        RESNET,
        lambda: stages_of(torchvision.models.resnet18()),
        heads=2,
        fresh=0,
    ),
    peer("resnet-timm", RESNET, lambda: stages_of(timm.create_model("resnet18")), heads=2, fresh=0),
    peer(
        "resnet_d-timm",
        RESNET | {"type": "ResNetV1d"},
        lambda: stages_of(timm.create_model("resnet18d")),
        heads=2,
        fresh=0,
    ),
    peer(
        "resnext-torchvision",
        RESNEXT,
        lambda: stages_of(torchvision.models.resnext50_32x4d()),
        heads=2,
        fresh=0,
    ),
    peer(
        "resnext-timm",
        RESNEXT,
        lambda: stages_of(timm.create_model("resnext50_32x4d")),
        heads=2,
        fresh=0,
    ),
    peer("mobilenet-torchvision", MOBILE_NET, mobile_net_of_torchvision, heads=2, fresh=0),
    peer("mobilenet-timm", MOBILE_NET, mobile_net_of_timm, heads=2, fresh=0),
    peer("swin-torchvision", SWIN, swin_of_torchvision, heads=2, fresh=6),
    peer("swin-timm", SWIN_4, swin_of_timm, heads=2, fresh=6),
    peer(
        "convnext-torchvision",
        CONVNEXT,
        convnext_of_torchvision,
        heads=2,
        fresh=6,
        marks=needs_mmpretrain,
    ),
    peer("convnext-timm", CONVNEXT, convnext_of_timm, heads=2, fresh=6, marks=needs_mmpretrain),
]


@pytest.mark.parametrize(("backbone", "make", "heads", "fresh"), PEERS)
def test_features_are_the_classifiers(
    backbone: dict[str, Any], make: Peer, heads: int, fresh: int
) -> None:
    model, features = make()
    randomize(model)
    config = backbone_config(backbone, CHANNELS[str(backbone["type"])])
    given = model.state_dict()
    found = import_backbone(Checkpoint(path=Path("classifier.pth"), weights=given), config)
    own = build_backbone(config)
    weights = {name.removeprefix("backbone."): value for name, value in found.weights.items()}
    missing = own.load_state_dict(weights, strict=False)
    assert missing.unexpected_keys == []

    image = random_image(*(LARGE if backbone in (SWIN, SWIN_4) else SMALL))
    with torch.no_grad():
        for ours, theirs in zip(own(image), features(image), strict=True):
            assert theirs.std() > 0.1
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.std()))

    counts = Counter(record.action for record in found.records)
    assert counts["left out"] == heads
    assert counts["random"] == fresh
    assert counts["loaded"] + counts["renamed"] + counts["left out"] == len(given)
    in_model = Counter(record.target for record in found.records if record.target)
    assert in_model == Counter([*own.state_dict()])


def weights_of(backbone: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    own = build_backbone(backbone_config(backbone, CHANNELS[backbone["type"]]))
    randomize(own)
    return {prefix + name: value for name, value in own.state_dict().items()}


def imported(
    weights: Mapping[str, Tensor], backbone: dict[str, Any], **keys: Any
) -> BackboneImport:
    config = backbone_config(backbone, CHANNELS[backbone["type"]])
    return import_backbone(Checkpoint(path=Path("a.pth"), weights=dict(weights)), config, **keys)


def of_mmpretrain(name: str) -> str:
    """Return mmpretrain's name of a weight of mmdet's MobileNetV2."""
    parts = ["expand_conv", "depthwise_conv", "linear_conv"]
    match = re.fullmatch(r"(layer(\d)\.\d)\.(\w+)\.(conv|bn)\.(\w+)", name)
    if match is None:
        return name
    number = parts.index(match[3]) - (match[2] == "1")
    return f"{match[1]}.conv.{number}.{match[4]}.{match[5]}"


@pytest.mark.parametrize("backbone", [RESNET, MOBILE_NET, SWIN], ids=lambda one: one["type"])
@pytest.mark.parametrize("library", ["mmdet", "mmpretrain"])
def test_a_detectors_or_a_classifiers_backbone(backbone: dict[str, Any], library: str) -> None:
    own = weights_of(backbone)
    given = {"backbone." + name: value for name, value in own.items()}
    others = {"mmdet": "roi_head.bbox_head.0.fc_cls.weight", "mmpretrain": "head.fc.weight"}
    if library == "mmpretrain":
        given = {of_mmpretrain(name.removeprefix("backbone.")): v for name, v in given.items()}
        given = {"backbone." + name: value for name, value in given.items()}
    given[others[library]] = torch.zeros(3, 4)
    found = imported(given, backbone)
    assert found.weights.keys() == {"backbone." + name for name in own}
    assert all(torch.equal(found.weights["backbone." + name], value) for name, value in own.items())
    (left_out,) = [record for record in found.records if record.action == "left out"]
    assert (left_out.source, left_out.target) == (others[library], None)


def test_torchvisions_first_names_of_mobilenet() -> None:
    """Of ``make weights``: convolution, normalisation and activation stand in one row."""
    weights_of_torchvision = torchvision.models.mobilenet_v2().state_dict()

    def old(name: str) -> str:
        match = re.fullmatch(r"(features\.(\d+)\.conv)\.(\d)(?:\.([01]))?\.(\w+)", name)
        if match is None:
            return name
        last = 1 if match[2] == "1" else 2
        place, is_norm = int(match[3]), match[4] == "1"
        if match[4] is None:
            place, is_norm = last, place > last
        return f"{match[1]}.{3 * place + is_norm}.{match[5]}"

    given = {old(name): value for name, value in weights_of_torchvision.items()}
    assert given.keys() >= {"features.1.conv.4.bias", "features.17.conv.7.running_var"}
    ours, theirs = imported(given, MOBILE_NET), imported(weights_of_torchvision, MOBILE_NET)
    assert len(ours.weights) == 312
    assert ours.weights.keys() == theirs.weights.keys()
    assert all(torch.equal(value, theirs.weights[name]) for name, value in ours.weights.items())


@needs_mmpretrain
def test_mmpretrains_names_are_mmpretrains() -> None:
    mmpretrain = pytest.importorskip("mmpretrain.models")
    theirs = mmpretrain.MobileNetV2()
    randomize(theirs)
    own = build_backbone(backbone_config(MOBILE_NET, CHANNELS["MobileNetV2"]))
    found = imported({f"backbone.{k}": v for k, v in theirs.state_dict().items()}, MOBILE_NET)
    own.load_state_dict({k.removeprefix("backbone."): v for k, v in found.weights.items()})
    image = random_image(*SMALL)
    with torch.no_grad():
        torch.testing.assert_close(own(image)[-1], theirs(image)[-1])
    swin = mmpretrain.SwinTransformer("tiny")
    randomize(swin)
    own = build_backbone(backbone_config(SWIN, CHANNELS["SwinTransformer"]))
    found = imported(swin.state_dict(), SWIN)
    own.load_state_dict({k.removeprefix("backbone."): v for k, v in found.weights.items()}, False)
    image = random_image(*LARGE)
    with torch.no_grad():
        torch.testing.assert_close(own(image)[-1], swin(image)[-1])
    convnext = mmpretrain.ConvNeXt("tiny")  # as a classifier: one normalisation
    found = imported(convnext.state_dict(), CONVNEXT)
    assert Counter(record.action for record in found.records) == {"loaded": 180, "random": 6}


def test_plain_weights_start_a_deformable_backbone() -> None:
    deformable = RESNET | {
        "depth": 50,
        "dcn": {"type": "DCN", "deform_groups": 1},
        "stage_with_dcn": [False, True, True, True],
    }
    given = torchvision.models.resnet50().state_dict()
    config = backbone_config(deformable, CHANNELS["ResNeXt"])
    found = import_backbone(Checkpoint(path=Path("a.pth"), weights=given), config)
    fresh = [record for record in found.records if record.action == "random"]
    assert len(fresh) == 26
    assert {record.note for record in fresh} == {
        "offsets of a deformable convolution start at zero"
    }


def test_other_spellings_are_read() -> None:
    """Wrappers, a deep checkpoint, half precision, timm's models of features."""
    own = weights_of(RESNET)
    found = imported({f"module.model.backbone.body.{k}": v.half() for k, v in own.items()}, RESNET)
    assert found.weights["backbone.conv1.weight"].dtype == torch.float32
    assert len(found.weights) == len(own)
    swin = timm.create_model("swin_tiny_patch4_window7_224", features_only=True)
    found = imported(swin.state_dict(), SWIN)
    assert Counter(record.action for record in found.records)["random"] == 8
    mobile_net = timm.create_model("mobilenetv2_100", features_only=True)
    found = imported(mobile_net.state_dict(), MOBILE_NET)
    fresh = [record.target for record in found.records if record.action == "random"]
    assert len(fresh) == 5
    assert {str(name).partition(".")[0] for name in fresh} == {"conv2"}
    without_counters = {k: v for k, v in own.items() if not k.endswith("num_batches_tracked")}
    found = imported(without_counters, RESNET)
    assert Counter(record.action for record in found.records) == {"loaded": 100, "missing": 20}


def resnet(name: str) -> Any:
    return lambda: getattr(torchvision.models, name)().state_dict()


@pytest.mark.parametrize(
    ("make", "backbone", "message"),
    [
        pytest.param(
            resnet("resnet34"),
            RESNET,
            r"ResNet of the configured module: the first of 96 tensors that differ is "
            r"layer1\.2\.conv1\.weight \(64, 64, 3, 3\) of the file, which it lacks",
            id="depth",
        ),
        pytest.param(
            resnet("resnet50"),
            RESNEXT,
            r"ResNeXt .* is layer1\.0\.conv1\.weight, \(64, 64, 1, 1\) in the file for \(128, 64, ",
            id="width",
        ),
        pytest.param(
            resnet("resnet18"),
            RESNET | {"depth": 34},
            r"layer1\.2\.\S+ \(.*which the file lacks",
            id="short",
        ),
        pytest.param(
            resnet("resnet18"),
            RESNET | {"norm_cfg": {"type": "GN", "num_groups": 32}},
            r"is bn1\.weight \(64,\) of the file, which it lacks",
            id="normalisation",
        ),
        pytest.param(
            resnet("resnet18"),
            SWIN,
            r"a\.pth must be a state dict of SwinTransformer, .* its first tensor is conv1\.weight "
            r"\(64, 3, 7, 7\)$",
            id="family",
        ),
        pytest.param(
            lambda: torchvision.models.swin_v2_t().state_dict(),
            SWIN,
            r"SwinTransformer .* is features\.1\.0\.attn\.logit_scale \(3, 1, 1\) of the file",
            id="version",
        ),
        pytest.param(
            lambda: torchvision.models.swin_t().state_dict(),
            SWIN_4,
            r"attn\.relative_position_bias_table, \(169, 3\) in the file for \(49, 3\)",
            id="window",
        ),
        pytest.param(
            lambda: torchvision.models.mobilenet_v2(width_mult=0.5).state_dict(),
            MOBILE_NET,
            r"features\.0\.0\.weight, \(16, 3, 3, 3\) in the file for \(32, 3, 3, 3\)",
            id="mobilenet",
        ),
    ],
)
def test_another_architecture_is_refused(make: Any, backbone: dict[str, Any], message: str) -> None:
    channels = (
        [256, 512, 1024, 2048] if backbone["type"] == "ResNeXt" else CHANNELS[backbone["type"]]
    )
    with pytest.raises(InputError, match=message) as caught:
        import_backbone(
            Checkpoint(path=Path("a.pth"), weights=make()), backbone_config(backbone, channels)
        )
    assert "\n" not in str(caught.value)


def test_an_index_of_another_order_is_refused() -> None:
    given = weights_of(SWIN)
    name = "stages.0.blocks.0.attn.w_msa.relative_position_index"
    given[name] = given[name].flip(0)
    with pytest.raises(InputError, match=rf"is {name}, another order of positions"):
        imported(given, SWIN)


def test_reset_and_drop() -> None:
    given = weights_of(RESNET) | {"extra.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"extra\.weight \(2,\) of the file, which it lacks"):
        imported(given, RESNET)
    found = imported(given, RESNET, drop=["extra.*"], reset=["layer4.*"])
    assert not [name for name in found.weights if ".layer4." in name]
    actions = Counter(record.action for record in found.records)
    assert (actions["left out"], actions["reset"]) == (1, 30)
    with pytest.raises(InputError, match="reset and drop leave nothing to load"):
        imported(given, RESNET, drop=["extra.*"], reset=["*"])


def test_a_backbone_without_a_layout_is_refused() -> None:
    other = {"type": "RegNet", "arch": "regnetx_400mf", "out_indices": [0, 1, 2, 3]}
    config = backbone_config(other, [32, 64, 160, 384])
    message = r"module\.detector\.backbone\.type must be one of ResNeXt, .* got RegNet$"
    with pytest.raises(InputError, match=message):
        import_backbone(Checkpoint(path=Path("a.pth"), weights={"a": torch.zeros(1)}), config)
