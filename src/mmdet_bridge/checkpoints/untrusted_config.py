"""Check a detector's configuration from a file, as data, before mmdet sees it.

mmengine's registry imports whatever a dotted ``type`` names and calls it with the other keys, mmcv
evaluates the ``type`` of an NMS as an expression, and ``init_cfg`` downloads and unpickles. So a
configuration in a checkpoint is a program unless every name in it is a known one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from src.errors import InputError
from src.io import is_text, printable

MAX_DEPTH = 40  # of nested keys; the winning model has 6
MAX_VALUES = 20_000  # the winning model has 300
MAX_CLASSES = 100_000
DETECTOR_KEY = "detector"
DETECTOR_ROLE = ""  # of the outermost mapping


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NORMS = _names("BN BN1d BN2d SyncBN MMSyncBN FrozenBN GN LN IN IN2d")
_ACTIVATIONS = _names(
    "ReLU LeakyReLU PReLU RReLU ReLU6 ELU GELU SiLU Swish HSwish HSigmoid Sigmoid Tanh Clamp Clip"
)
_CONVOLUTIONS = _names(
    "Conv Conv2d ConvWS ConvAWS Conv2dAdaptivePadding NormedConv2d SAC DCN DCNv2 deconv "
    "ConvTranspose2d"
)
_UPSAMPLING = _names("nearest bilinear pixel_shuffle deconv ConvTranspose2d carafe")
_BLOCKS = _names(
    "ContextBlock GeneralizedAttention NonLocal2d CrissCrossAttention DropBlock DropPath Dropout "
    "Linear NormedLinear"
)
_PADDING = _names("zero reflect replicate")
_BACKBONES = _names(
    "ResNet ResNetV1d ResNeXt ResNeSt Res2Net RegNet HRNet DetectoRS_ResNet DetectoRS_ResNeXt "
    "TridentResNet SwinTransformer PyramidVisionTransformer PyramidVisionTransformerV2 "
    "EfficientNet MobileNetV2 CSPDarknet CSPNeXt Darknet HourglassNet mmpretrain.ConvNeXt"
)
_ROI_EXTRACTORS = _names("Float32RoIExtractor SingleRoIExtractor GenericRoIExtractor")
_SAMPLERS = _names(
    "RandomSampler OHEMSampler CombinedSampler InstanceBalancedPosSampler IoUBalancedNegSampler "
    "PseudoSampler ScoreHLRSampler"
)
_INITIALISERS = _names("Constant Xavier Normal TruncNormal Uniform Kaiming Caffe2Xavier")

# Key whose value has the `type` -> the names that are legal there. All but Float32RoIExtractor,
# which is ours, and mmpretrain's are in mmdet's registry: classes of mmdet, layers of mmcv and
# torch.nn.
LEGAL_TYPES: dict[str, frozenset[str]] = {
    DETECTOR_ROLE: _names("HybridTaskCascade CascadeRCNN"),
    "data_preprocessor": _names("DetDataPreprocessor"),
    "batch_augments": _names("BatchFixedSizePad BatchResize BatchSyncRandomResize"),
    "backbone": _BACKBONES,
    "rfp_backbone": _BACKBONES,
    "neck": _names(
        "FPN PAFPN BFP FPG NASFPN HRFPN RFP FPN_CARAFE FPN_DropBlock ChannelMapper CSPNeXtPAFPN "
        "DyHead"
    ),
    "rpn_head": _names("RPNHead GARPNHead CascadeRPNHead StageCascadeRPNHead"),
    "roi_head": _names("HybridTaskCascadeRoIHead"),
    "shared_head": _names("ResLayer"),
    "bbox_roi_extractor": _ROI_EXTRACTORS,
    "mask_roi_extractor": _ROI_EXTRACTORS,
    "semantic_roi_extractor": _ROI_EXTRACTORS,
    "roi_layer": _names("RoIAlign RoIPool DeformRoIPool"),
    "bbox_head": _names("BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead"),
    "mask_head": _names("HTCMaskHead FCNMaskHead"),
    "semantic_head": _names("FusedSemanticHead"),
    "anchor_generator": _names("AnchorGenerator LegacyAnchorGenerator SSDAnchorGenerator"),
    "bbox_coder": _names(
        "DeltaXYWHBBoxCoder LegacyDeltaXYWHBBoxCoder TBLRBBoxCoder PseudoBBoxCoder"
    ),
    "assigner": _names(
        "MaxIoUAssigner ApproxMaxIoUAssigner CenterRegionAssigner RegionAssigner ATSSAssigner"
    ),
    "iou_calculator": _names("BboxOverlaps2D"),
    "sampler": _SAMPLERS,
    "pos_sampler": _SAMPLERS,
    "neg_sampler": _SAMPLERS,
    "nms": _names("nms soft_nms"),  # mmcv evaluates this one
    "norm_cfg": _NORMS,
    "act_cfg": _ACTIVATIONS,
    "conv_cfg": _CONVOLUTIONS,
    "dcn": _names("DCN DCNv2"),
    "sac": _names("SAC"),
    "upsample_cfg": _UPSAMPLING,
    "padding_cfg": _PADDING,
    "init_cfg": _INITIALISERS,
    "override": _INITIALISERS,
}
LOSS_PREFIX = "loss"
LEGAL_LOSSES = _names(
    "CrossEntropyLoss FocalLoss SeesawLoss EQLV2Loss GHMC GHMR DiceLoss QualityFocalLoss "
    "VarifocalLoss SmoothL1Loss L1Loss L2Loss MSELoss BalancedL1Loss IoULoss BoundedIoULoss "
    "GIoULoss DIoULoss CIoULoss EIoULoss SIoULoss"
)
# Under any other key: layers only.
LEGAL_LAYERS = _NORMS | _ACTIVATIONS | _CONVOLUTIONS | _UPSAMPLING | _BLOCKS | _PADDING
# Keys of mmdet's and mmcv's classes that make them fetch or read a file.
READING_KEYS = _names(
    "pretrained checkpoint ckpt load_from resume_from teacher_ckpt teacher_config rfstructure_file "
    "lang_model_name language_model detector_ckpt"
)
# Classes that read or fetch files, whatever their keys are.
READING_TYPES = _names(
    "Pretrained PretrainedInit KnowledgeDistillationSingleStageDetector LAD BertModel GLIP "
    "GroundingDINO ATSSVLFusionHead GroundingDINOHead Detectron2Wrapper AppearanceFreeLink"
)

Path = tuple[str, ...]


def check_untrusted_detector(config: Any, *, source: str, key: str = DETECTOR_KEY) -> None:
    """Refuse a detector's configuration that names anything but mmdet's own parts.

    Args:
        config: Content of the file; nothing in it is called, imported, resolved or copied.
        source: The file in a message, ``checkpoint model.ckpt``, say.
        key: ``config`` in a message.

    Raises:
        InputError: A value that is not plain, a class outside the allow-list of its place, a key or
            value that makes mmengine, Hydra or OmegaConf look something up, a file or an address.
    """
    check_plain(config, source=source, key=key)
    if not isinstance(config, Mapping):
        raise _refusal(source, (key,), "a mapping", config)
    for path, node in nodes(config):
        if isinstance(node, Mapping) and "type" in node:
            legal, name = legal_types(path), node["type"]
            if not isinstance(name, str) or name not in legal:
                words = f"one of {', '.join(sorted(legal))} in a file's configuration"
                raise _refusal(source, (key, *path, "type"), words, name)
    if found := find_reader(config):
        raise _refusal(source, (key, *found[0]), "absent (nothing is read or fetched)", found[1])


def legal_types(path: Path) -> frozenset[str]:
    """Return the legal types of the mapping at ``path``, which is () for the detector."""
    role = next((name for name in reversed(path) if not name.isdigit()), DETECTOR_ROLE)
    if role.startswith(LOSS_PREFIX):
        return LEGAL_LOSSES
    return LEGAL_TYPES.get(role, LEGAL_LAYERS)


def check_plain(value: Any, *, source: str, key: str, lookups: bool = False) -> None:
    """Refuse what is not plain data: nested dict, list or tuple of str, int, float, bool and None.

    Keys with a leading underscore (``_target_``, ``_scope_``, ``_delete_``) and interpolations
    (``${...}``) make Hydra, mmengine or OmegaConf look something up: refused unless ``lookups``,
    which is for a configuration that is only compared.

    Raises:
        InputError: Names the file, the key and the value.
    """
    count = 0
    waiting: list[tuple[Path, Any]] = [((key,), value)]
    while waiting:
        path, node = waiting.pop()
        count += 1
        # A value can contain itself, or one list a million times.
        if count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise InputError(
                f"{source}: {key} must hold at most {MAX_VALUES} values, {MAX_DEPTH} deep"
            )
        if type(node) is str and not is_text(node):
            raise _refusal(source, path, "text", node)
        if type(node) is str and "${" in node and not lookups:
            raise _refusal(source, path, "without an interpolation", node)
        if isinstance(node, Mapping):
            for name, inner in node.items():
                if type(name) is int:
                    name = str(name)
                if type(name) is not str or (not lookups and (name[:1] == "_" or "${" in name)):
                    legal = "keyed by names without a leading underscore"
                    raise _refusal(source, path, legal, name)
                if not is_text(name):
                    raise _refusal(source, path, "keyed by text", name)
                waiting.append(((*path, name), inner))
        elif isinstance(node, list | tuple):
            waiting += [((*path, str(number)), inner) for number, inner in enumerate(node)]
        elif type(node) is float and not math.isfinite(node):
            raise _refusal(source, path, "finite", node)
        elif node is not None and type(node) not in (str, int, float, bool):
            raise _refusal(source, path, "a plain value", node)


def find_reader(config: Any) -> tuple[Path, Any] | None:
    """Return key path and value of the first entry that makes mmdet read or fetch a file, or None.

    That is a key of ``READING_KEYS`` with a value, a class of ``READING_TYPES``, an address, or
    text for ``class_weight``, otherwise a list of numbers.
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
    """Check and return the classes that a file's hyper-parameters name.

    Args:
        hyper_parameters: ``num_classes`` and ``category_ids``, both optional.
        source: The file in a message.

    Returns:
        The number of classes and their ids (None: 0, 1, 2, ...); None without ``num_classes``.

    Raises:
        InputError: No positive number, or ids that are no list of as many different integers.
    """
    count, ids = hyper_parameters.get("num_classes"), hyper_parameters.get("category_ids")
    if count is None:
        return None
    parent = "hyper_parameters"
    if type(count) is not int or not 1 <= count <= MAX_CLASSES:
        legal = f"a whole number from 1 to {MAX_CLASSES}"
        raise _refusal(source, (parent, "num_classes"), legal, count)
    if ids is None:
        return count, None
    whole = isinstance(ids, list | tuple) and all(type(number) is int for number in ids)
    if not whole or len(ids) != count or len(set(ids)) != count:
        legal = f"a list of {count} different integers"
        raise _refusal(source, (parent, "category_ids"), legal, ids)
    return count, list(ids)


def nodes(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of a nested configuration, inner ones included, with its key path."""
    yield path, node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from nodes(value, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from nodes(value, (*path, str(number)))


def leaves(config: Any) -> Iterator[tuple[Path, Any]]:
    """Yield every value that holds no other with its key path."""
    for path, node in nodes(config):
        if not isinstance(node, Mapping | list | tuple) or not node:
            yield path, node


def _refusal(source: str, path: Path, legal: str, value: object) -> InputError:
    is_plain = value is None or isinstance(value, str | int | float)
    shown = printable(repr(value)) if is_plain else f"a {type(value).__name__}"
    return InputError(f"{source}: {printable('.'.join(path))} must be {legal}, got {shown}")
