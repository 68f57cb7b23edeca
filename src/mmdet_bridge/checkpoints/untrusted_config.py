"""The configuration of a detector out of a file, checked as data before mmdet sees it.

mmengine's registry imports whatever a dotted ``type`` names and calls it with the other keys, mmcv
evaluates the ``type`` of an NMS as an expression, and ``init_cfg`` downloads and unpickles. So a
configuration that stands in a checkpoint is a program unless every name in it is a known one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from src.errors import InputError
from src.io import printable

MAX_DEPTH = 40  # of nested keys; the winning model has 6
MAX_VALUES = 20_000  # the winning model has 300
MAX_CLASSES = 100_000
DETECTOR_KEY = "detector"
DETECTOR_ROLE = ""  # of the mapping that is no value of a key

_NORMS = "BN BN1d BN2d SyncBN MMSyncBN FrozenBN GN LN IN IN2d"
_ACTIVATIONS = (
    "ReLU LeakyReLU PReLU RReLU ReLU6 ELU GELU SiLU Swish HSwish HSigmoid Sigmoid Tanh Clamp Clip"
)
_CONVOLUTIONS = (
    "Conv Conv2d ConvWS ConvAWS Conv2dAdaptivePadding NormedConv2d SAC DCN DCNv2 deconv "
    "ConvTranspose2d"
)
_UPSAMPLING = "nearest bilinear pixel_shuffle deconv ConvTranspose2d carafe"
_LINEAR = "Linear NormedLinear"
_BLOCKS = (
    "ContextBlock GeneralizedAttention NonLocal2d CrissCrossAttention DropBlock DropPath Dropout"
)
_PADDING = "zero reflect replicate"
_BACKBONES = (
    "ResNet ResNetV1d ResNeXt ResNeSt Res2Net RegNet HRNet DetectoRS_ResNet DetectoRS_ResNeXt "
    "TridentResNet SwinTransformer PyramidVisionTransformer PyramidVisionTransformerV2 "
    "EfficientNet MobileNetV2 CSPDarknet CSPNeXt Darknet HourglassNet"
)
_NECKS = (
    "FPN PAFPN BFP FPG NASFPN HRFPN RFP FPN_CARAFE FPN_DropBlock ChannelMapper CSPNeXtPAFPN DyHead"
)
_BOX_HEADS = "BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead"
_MASK_HEADS = "HTCMaskHead FCNMaskHead"
_ROI_EXTRACTORS = "Float32RoIExtractor SingleRoIExtractor GenericRoIExtractor"
_SAMPLERS = (
    "RandomSampler OHEMSampler CombinedSampler InstanceBalancedPosSampler IoUBalancedNegSampler "
    "PseudoSampler ScoreHLRSampler"
)
_ASSIGNERS = "MaxIoUAssigner ApproxMaxIoUAssigner CenterRegionAssigner RegionAssigner ATSSAssigner"
_ANCHORS = "AnchorGenerator LegacyAnchorGenerator SSDAnchorGenerator"
_BOX_CODERS = "DeltaXYWHBBoxCoder LegacyDeltaXYWHBBoxCoder TBLRBBoxCoder PseudoBBoxCoder"
_LOSSES = (
    "CrossEntropyLoss FocalLoss SeesawLoss EQLV2Loss GHMC GHMR DiceLoss QualityFocalLoss "
    "VarifocalLoss SmoothL1Loss L1Loss L2Loss MSELoss BalancedL1Loss IoULoss BoundedIoULoss "
    "GIoULoss DIoULoss CIoULoss EIoULoss SIoULoss"
)
_INITIALISERS = "Constant Xavier Normal TruncNormal Uniform Kaiming Caffe2Xavier"

# Key whose value has the `type` -> the names that are legal there. All but Float32RoIExtractor,
# which is ours, are what mmdet's registry holds: classes of mmdet, layers of mmcv and torch.nn.
LEGAL_TYPES: dict[str, frozenset[str]] = {
    role: frozenset(names.split())
    for role, names in {
        DETECTOR_ROLE: "HybridTaskCascade CascadeRCNN",
        "data_preprocessor": "DetDataPreprocessor",
        "batch_augments": "BatchFixedSizePad BatchResize BatchSyncRandomResize",
        "backbone": _BACKBONES,
        "rfp_backbone": _BACKBONES,
        "neck": _NECKS,
        "rpn_head": "RPNHead GARPNHead CascadeRPNHead StageCascadeRPNHead",
        "roi_head": "HybridTaskCascadeRoIHead",
        "shared_head": "ResLayer",
        "bbox_roi_extractor": _ROI_EXTRACTORS,
        "mask_roi_extractor": _ROI_EXTRACTORS,
        "semantic_roi_extractor": _ROI_EXTRACTORS,
        "roi_layer": "RoIAlign RoIPool DeformRoIPool",
        "bbox_head": _BOX_HEADS,
        "mask_head": _MASK_HEADS,
        "semantic_head": "FusedSemanticHead",
        "anchor_generator": _ANCHORS,
        "bbox_coder": _BOX_CODERS,
        "assigner": _ASSIGNERS,
        "iou_calculator": "BboxOverlaps2D",
        "sampler": _SAMPLERS,
        "pos_sampler": _SAMPLERS,
        "neg_sampler": _SAMPLERS,
        "nms": "nms soft_nms",  # mmcv evaluates this one
        "norm_cfg": _NORMS,
        "act_cfg": _ACTIVATIONS,
        "conv_cfg": _CONVOLUTIONS,
        "dcn": "DCN DCNv2",
        "sac": "SAC",
        "upsample_cfg": _UPSAMPLING,
        "padding_cfg": _PADDING,
        "init_cfg": _INITIALISERS,
        "override": _INITIALISERS,
    }.items()
}
LOSS_PREFIX = "loss"
LEGAL_LOSSES = frozenset(_LOSSES.split())
# Under any other key: layers alone.
LEGAL_LAYERS = frozenset(
    " ".join((_NORMS, _ACTIVATIONS, _CONVOLUTIONS, _UPSAMPLING, _LINEAR, _BLOCKS, _PADDING)).split()
)

# Keys of mmdet's and mmcv's classes that make them fetch or read a file.
READING_KEYS = frozenset(
    {
        "pretrained",
        "checkpoint",
        "ckpt",
        "load_from",
        "resume_from",
        "teacher_ckpt",
        "teacher_config",
        "rfstructure_file",
        "lang_model_name",
        "language_model",
        "detector_ckpt",
    }
)
# Classes that read files, or fetch them, whatever their keys are.
READING_TYPES = frozenset(
    {
        "Pretrained",
        "PretrainedInit",
        "KnowledgeDistillationSingleStageDetector",
        "LAD",
        "BertModel",
        "GLIP",
        "GroundingDINO",
        "ATSSVLFusionHead",
        "GroundingDINOHead",
        "Detectron2Wrapper",
        "AppearanceFreeLink",
    }
)

Path = tuple[str, ...]


def check_untrusted_detector(config: Any, *, source: str, key: str = DETECTOR_KEY) -> None:
    """Refuse a detector's configuration that names anything but mmdet's own parts.

    Args:
        config: What the file holds; nothing in it is called, imported, resolved or copied.
        source: How a message calls the file, ``checkpoint model.ckpt``, say.
        key: How a message calls ``config``.

    Raises:
        InputError: A value that is no plain one, a class outside the allow-list of its place, a
            key or a value that makes mmengine, Hydra or OmegaConf look something up, a file or an
            address. The message names the file, the key and the value.
    """
    check_plain(config, source=source, key=key)
    if not isinstance(config, Mapping):
        raise _refusal(source, (key,), "a mapping", config)
    for path, node in _mappings(config, ()):
        if "type" in node:
            legal = legal_types(path)
            if not isinstance(node["type"], str) or node["type"] not in legal:
                raise _refusal(
                    source,
                    (key, *path, "type"),
                    f"one of {', '.join(sorted(legal))} in a file's configuration",
                    node["type"],
                )
    if found := find_reader(config):
        raise _refusal(source, (key, *found[0]), "absent (nothing is read or fetched)", found[1])


def legal_types(path: Path) -> frozenset[str]:
    """Return the types that are legal in the mapping at ``path``, which is () for the detector."""
    role = next((name for name in reversed(path) if not name.isdigit()), DETECTOR_ROLE)
    if role.startswith(LOSS_PREFIX):
        return LEGAL_LOSSES
    return LEGAL_TYPES.get(role, LEGAL_LAYERS)


def check_plain(value: Any, *, source: str, key: str, lookups: bool = False) -> None:
    """Refuse what is not plain data: nested dict, list or tuple of str, int, float, bool and None.

    Keys that start with an underscore (``_target_``, ``_scope_``, ``_partial_``, ``_delete_``) and
    interpolations (``${...}``) tell Hydra, mmengine or OmegaConf to look something up: refused
    unless ``lookups``, which is for a configuration that is only compared.

    Raises:
        InputError: Names the file, the key and the value.
    """
    count = 0
    waiting: list[tuple[Path, Any]] = [((key,), value)]
    while waiting:
        path, node = waiting.pop()
        count += 1
        # A file can hold what contains itself, or one list a million times.
        if count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise InputError(
                f"{source}: {key} must hold at most {MAX_VALUES} values, {MAX_DEPTH} deep"
            )
        if type(node) is str and "${" in node and not lookups:
            raise _refusal(source, path, "without an interpolation", node)
        if isinstance(node, Mapping):
            for name, inner in node.items():
                if type(name) is int:
                    name = str(name)
                if type(name) is not str or (not lookups and (name[:1] == "_" or "${" in name)):
                    raise _refusal(
                        source, path, "keyed by names without a leading underscore", name
                    )
                waiting.append(((*path, name), inner))
        elif isinstance(node, list | tuple):
            waiting += [((*path, str(number)), inner) for number, inner in enumerate(node)]
        elif type(node) is float and not math.isfinite(node):
            raise _refusal(source, path, "finite", node)
        elif node is not None and type(node) not in (str, int, float, bool):
            raise _refusal(source, path, "a plain value", node)


def find_reader(config: Any) -> tuple[Path, Any] | None:
    """Return key path and value of the first thing that makes mmdet read or fetch a file, or None.

    It is a key of ``READING_KEYS`` with a value, a class of ``READING_TYPES``, an address, or text
    for ``class_weight``, which is else a list of numbers.
    """
    for path, value in leaves(config):
        name = next((part for part in reversed(path) if not part.isdigit()), "")
        if value is None or value == {} or value == []:
            continue
        if READING_KEYS.intersection(path):
            return path, value
        if isinstance(value, str) and (
            "://" in value
            or name == "class_weight"
            or (name == "type" and value.rpartition(".")[2] in READING_TYPES)
        ):
            return path, value
    return None


def check_class_list(
    hyper_parameters: Mapping[str, Any], *, source: str
) -> tuple[int, list[int] | None] | None:
    """Return number and category ids of the classes that a file's hyper-parameters name, checked.

    Args:
        hyper_parameters: ``num_classes`` and ``category_ids``, both optional.
        source: How a message calls the file.

    Returns:
        The number of classes and their ids (None: 0, 1, 2, ...); None without ``num_classes``.

    Raises:
        InputError: No positive number, or ids that are no list of as many different integers.
    """
    count, ids = hyper_parameters.get("num_classes"), hyper_parameters.get("category_ids")
    if count is None:
        return None
    if type(count) is not int or not 1 <= count <= MAX_CLASSES:
        raise _refusal(
            source,
            ("hyper_parameters", "num_classes"),
            f"a whole number from 1 to {MAX_CLASSES}",
            count,
        )
    if ids is None:
        return count, None
    whole = isinstance(ids, list | tuple) and all(type(number) is int for number in ids)
    if not whole or len(ids) != count or len(set(ids)) != count:
        raise _refusal(
            source,
            ("hyper_parameters", "category_ids"),
            f"a list of {count} different integers",
            ids,
        )
    return count, list(ids)


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of a nested configuration with the keys that lead to it."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(node, list | tuple) and node:
        for number, value in enumerate(node):
            yield from leaves(value, (*path, str(number)))
    else:
        yield path, node


def _mappings(node: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from _mappings(value, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _mappings(value, (*path, str(number)))


def _refusal(source: str, path: Path, legal: str, value: object) -> InputError:
    is_plain = value is None or isinstance(value, str | int | float)
    shown = printable(repr(value)) if is_plain else f"a {type(value).__name__}"
    return InputError(f"{source}: {printable('.'.join(path))} must be {legal}, got {shown}")
