"""Names of a backbone's weights in other libraries, rewritten as mmdet's (mmpretrain's ConvNeXt).

====================  ==========================  =====================  ==========================
a block's first one   torchvision                 timm                   mmdet, mmpretrain
====================  ==========================  =====================  ==========================
ResNet, ResNeXt       layer1.0.conv1              layer1.0.conv1         layer1.0.conv1
MobileNetV2           features.2.conv.0.0         blocks.1.0.conv_pw     layer2.0.expand_conv.conv
                                                                         layer2.0.conv.0.conv
ConvNeXt              features.1.0.block.0        stages.0.blocks.0      stages.0.0.depthwise_conv
                                                  .conv_dw
Swin                  features.1.0.attn.qkv       layers.0.blocks.0      stages.0.blocks.0.attn
                                                  .attn.qkv              .w_msa.qkv
====================  ==========================  =====================  ==========================

Of MobileNetV2's two names in the last column the first is mmdet's. The papers' own files of Swin
and ConvNeXt are read, too: Swin's merging of patches stands at the end of a stage there, as it did
in timm before 0.9, and at the start of the next one today.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

HEADS = re.compile(r"(fc|classifier|head|head_dist|last_linear|output)\.")
MERGE_NOTE = "channels of merged patches put into mmdet's order"

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class NameLayout:
    """Spelling of a backbone's weights.

    Attributes:
        library: Whose it is.
        marker: Pattern of the name of a weight that only files of this layout have.
        rules: Pattern and replacement; each is applied once, in this order.
        merges_by_patch: Whether Swin's merged channels go patch by patch; mmdet's go by channel.
    """

    library: str
    marker: str
    rules: tuple[Rule, ...] = ()
    merges_by_patch: bool = False


def _stage(number: str, shift: int = 0) -> str:
    return str((int(number) - 1) // 2 + shift)


_DCN: Rule = (r"\.conv2_offset\.", ".conv2.conv_offset.")  # mmdetection before 1.1
_SWIN_ATTENTION: Rule = (r"\.attn\.", ".attn.w_msa.")
_SWIN_STAGES: tuple[Rule, ...] = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^norm\.", "norm3."),
    _SWIN_ATTENTION,
)
_BY_MMDET = "mmdet or mmpretrain"
LAYOUTS: dict[str, tuple[NameLayout, ...]] = {
    "ResNet": (
        NameLayout(
            "timm (deep stem)",
            r"conv1\.0\.weight",
            ((r"^conv1\.", "stem."), (r"^bn1\.", "stem.7.")),
        ),
        NameLayout("torchvision, timm, mmdet or mmpretrain", r"(conv1|stem\.0)\.weight", (_DCN,)),
    ),
    "MobileNetV2": (
        NameLayout("torchvision", r"features\.1\.conv\.0\.0\.weight"),
        NameLayout("torchvision before 0.4", r"features\.1\.conv\.3\.weight"),
        NameLayout("timm", r"blocks\.0\.0\.conv_dw\.weight"),
        NameLayout("mmpretrain", r"layer1\.0\.conv\.0\.conv\.weight"),
        NameLayout("mmdet", r"layer1\.0\.depthwise_conv\.conv\.weight"),
    ),
    "SwinTransformer": (
        NameLayout(
            "torchvision",
            r"features\.1\.0\.attn\.qkv\.weight",
            (
                (r"^features\.0\.0\.", "patch_embed.projection."),
                (r"^features\.0\.2\.", "patch_embed.norm."),
                (
                    r"^features\.(\d*[13579])\.(\d+)\.",
                    lambda m: f"stages.{_stage(m[1])}.blocks.{m[2]}.",
                ),
                (
                    r"^features\.(\d*[2468])\.(norm|reduction)\.",
                    lambda m: f"stages.{_stage(m[1])}.downsample.{m[2]}.",
                ),
                (r"\.mlp\.0\.", ".ffn.layers.0.0."),
                (r"\.mlp\.3\.", ".ffn.layers.1."),
                (r"^norm\.", "norm3."),
                _SWIN_ATTENTION,
            ),
            merges_by_patch=True,
        ),
        NameLayout(
            "timm before 0.9 or the paper's authors",
            r"layers\.0\.downsample\.norm\.weight",
            _SWIN_STAGES,
            merges_by_patch=True,
        ),
        NameLayout(
            "timm",
            r"layers\.0\.blocks\.0\.attn\.qkv\.weight",
            (
                (r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample."),
                *_SWIN_STAGES,
            ),
            merges_by_patch=True,
        ),
        NameLayout(_BY_MMDET, r"stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight"),
    ),
    "ConvNeXt": (
        NameLayout(
            "torchvision",
            r"features\.1\.0\.block\.0\.weight",
            (
                (r"^features\.0\.", "downsample_layers.0."),
                (
                    r"^features\.(\d*[2468])\.([01])\.",
                    lambda m: f"downsample_layers.{_stage(m[1], 1)}.{m[2]}.",
                ),
                (r"^features\.(\d*[13579])\.(\d+)\.", lambda m: f"stages.{_stage(m[1])}.{m[2]}."),
                (r"\.layer_scale$", ".gamma"),
                (r"\.block\.0\.", ".depthwise_conv."),
                (r"\.block\.2\.", ".norm."),
                (r"\.block\.3\.", ".pointwise_conv1."),
                (r"\.block\.5\.", ".pointwise_conv2."),
                (r"^classifier\.0\.", "norm3."),
            ),
        ),
        NameLayout(
            "timm",
            r"stages\.0\.blocks\.0\.conv_dw\.weight",
            (
                (r"^stem\.", "downsample_layers.0."),
                (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
                (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
                (r"\.conv_dw\.", ".depthwise_conv."),
                (r"\.mlp\.fc([12])\.", r".pointwise_conv\1."),
                (r"^head\.norm\.", "norm3."),
            ),
        ),
        NameLayout(
            "the paper's authors",
            r"stages\.0\.0\.dwconv\.weight",
            (
                (r"\.dwconv\.", ".depthwise_conv."),
                (r"\.pwconv([12])\.", r".pointwise_conv\1."),
                (r"^norm\.", "norm3."),
            ),
        ),
        NameLayout(_BY_MMDET, r"stages\.0\.0\.depthwise_conv\.weight"),
    ),
}
FAMILIES = {"ResNeXt": "ResNet", "ResNetV1d": "ResNet"}  # class -> the one whose layouts it has


def family_of(backbone: object) -> str | None:
    """Return the key of ``LAYOUTS`` for a backbone; None where there is none."""
    name = type(backbone).__name__
    name = FAMILIES.get(name, name)
    return name if name in LAYOUTS else None


def find_name_layout(names: Iterable[str], family: str) -> NameLayout | None:
    """Return the layout of a file's names; None where they are of no such backbone."""
    names = list(names)
    for layout in LAYOUTS[family]:
        if any(re.fullmatch(layout.marker, name) for name in names):
            return layout
    return None


def rename(name: str, layout: NameLayout, *, family: str, own: Collection[str]) -> str:
    """Return the model's name of a weight, as far as the layout's rules give one.

    Args:
        name: The weight's in the file.
        layout: The file's.
        family: The backbone's.
        own: Names of the model's weights.
    """
    if family == "MobileNetV2":
        return _MOBILE_NET[layout.library](name, own)
    for pattern, replacement in layout.rules:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def reorder_merged(value: Tensor) -> Tensor:
    """Order channels of Swin's merged 2x2 patches by channel, then row, then column, as mmdet does.

    Other libraries order them by column, then row, then channel.

    Args:
        value: (..., 4 C): weights of the reduction, or of the normalisation before it.
    """
    *rows, merged = value.shape
    by_patch = value.reshape(*rows, 2, 2, merged // 4)  # column, row, channel
    return by_patch.movedim(-1, -3).transpose(-1, -2).reshape(*rows, merged)


def _blocks(own: Collection[str]) -> list[str]:
    """Return ``layer1.0``, ``layer2.0``, ``layer2.1`` ... of mmdet's MobileNetV2, in order."""
    found = {match[0] for name in own if (match := re.match(r"layer\d+\.\d+", name))}
    return sorted(found, key=lambda block: [int(number) for number in block[5:].split(".")])


def _parts(block: str, own: Collection[str]) -> list[str]:
    """Return the convolutions of a block in order; a first block expands nothing."""
    parts = ["expand_conv", "depthwise_conv", "linear_conv"]
    return parts if f"{block}.expand_conv.conv.weight" in own else parts[1:]


def _mobile_net_of_torchvision(name: str, own: Collection[str], *, is_flat: bool = False) -> str:
    found = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if found is None:
        return name
    number, rest, blocks = int(found[1]), found[2], _blocks(own)
    if number in (0, len(blocks) + 1):
        layer = "conv1" if number == 0 else "conv2"
        return re.sub(r"^([01])\.", lambda m: f"{layer}.{('conv', 'bn')[int(m[1])]}.", rest)
    inner = re.fullmatch(r"conv\.(\d+)\.(?:([01])\.)?(\w+)", rest)
    if inner is None or number > len(blocks) + 1:
        return name
    block = blocks[number - 1]
    parts, place = _parts(block, own), int(inner[1])
    if is_flat:  # convolution, normalisation, activation; convolution, ...
        if place // 3 >= len(parts) or place % 3 == 2:
            return name
        return f"{block}.{parts[place // 3]}.{('conv', 'bn')[place % 3]}.{inner[3]}"
    # The last convolution and its normalisation stand beside the others, not in a layer of theirs.
    is_norm = inner[2] == "1" or place == len(parts)
    part = parts[min(place, len(parts) - 1)]
    return f"{block}.{part}.{'bn' if is_norm else 'conv'}.{inner[3]}"


def _mobile_net_of_timm(name: str, own: Collection[str]) -> str:
    for pattern, layer in (
        (r"conv_stem\.", "conv1.conv."),
        (r"bn1\.", "conv1.bn."),
        (r"conv_head\.", "conv2.conv."),
        (r"bn2\.", "conv2.bn."),
    ):
        if re.match(pattern, name):
            return re.sub(pattern, layer, name, count=1)
    found = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", name)
    if found is None:
        return name
    block = f"layer{int(found[1]) + 1}.{found[2]}"
    parts = _parts(block, own)
    if norm := re.fullmatch(r"bn([1-3])", found[3]):
        place = int(norm[1]) - 1
        return f"{block}.{parts[place]}.bn.{found[4]}" if place < len(parts) else name
    convolutions = ["conv_pw", "conv_dw", "conv_pwl"] if len(parts) == 3 else ["conv_dw", "conv_pw"]
    if found[3] not in convolutions:
        return name
    return f"{block}.{parts[convolutions.index(found[3])]}.conv.{found[4]}"


def _mobile_net_of_mmpretrain(name: str, own: Collection[str]) -> str:
    found = re.fullmatch(r"(layer\d+\.\d+)\.conv\.(\d)\.(.+)", name)
    parts = _parts(found[1], own) if found else []
    if found is None or int(found[2]) >= len(parts):
        return name
    return f"{found[1]}.{parts[int(found[2])]}.{found[3]}"


_MOBILE_NET: dict[str, Callable[[str, Collection[str]], str]] = {
    "torchvision": _mobile_net_of_torchvision,
    "torchvision before 0.4": partial(_mobile_net_of_torchvision, is_flat=True),
    "timm": _mobile_net_of_timm,
    "mmpretrain": _mobile_net_of_mmpretrain,
    "mmdet": lambda name, _own: name,
}
