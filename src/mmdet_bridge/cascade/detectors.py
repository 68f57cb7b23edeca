"""Detectors of mmdetection: building, feeding and loading them."""

from __future__ import annotations

import copy
import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mmdet.models  # noqa: F401  fills the registry
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS, TASK_UTILS
from mmengine import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from omegaconf import OmegaConf
from torch import Tensor

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.checkpoints.untrusted_config import find_reader, leaves

SHARED_SIZES_KEY = "sizes"

Detector = Any
"""A detector of mmdet's (a ``torch.nn.Module``); mmdet has no types that a checker could use."""


def build_detector(config: Mapping[str, Any], *, init_weights: bool = True) -> Detector:
    """Build mmdet's detector from its configuration.

    Args:
        config: mmdet's model configuration, plain or an OmegaConf node (attached, so that
            interpolations resolve). Its key ``sizes``, numbers that other values refer to, is no
            part of mmdet's and is left out.
        init_weights: draw the weights as mmdet's classes ask (``init_cfg``). Without it they are
            torch's defaults, which is enough, and faster, where a checkpoint is loaded afterwards.

    Returns:
        The detector in training mode, on the CPU.

    Raises:
        InputError: a type that mmdet's registry lacks, a key that its class does not take, a
            missing one, or a key that fetches or reads a file (``pretrained``, ``checkpoint``).
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    model = copy.deepcopy(dict(plain))  # type: ignore[arg-type]
    model.pop(SHARED_SIZES_KEY, None)
    _refuse_readers(model)
    # Parts of mmengine look types up in the process's default scope, which may be another's.
    with DefaultScope.overwrite_default_scope("mmdet"):
        try:
            detector = MODELS.build(ConfigDict(model))
        except Exception as error:  # mmdet's constructors complain in every way
            raise _explained(error, model) from error
        if init_weights:
            with _only_warnings():
                detector.init_weights()
            # mmdet draws the offsets like any convolution; they start at zero (Dai et al., 2017).
            for layer in detector.modules():
                if isinstance(layer, DeformConv2dPack | ModulatedDeformConv2dPack):
                    layer.init_offset()
    # `norm_eval` acts when the mode is set, and Lightning leaves the mode as it finds it.
    return detector.train()


@contextmanager
def _only_warnings() -> Iterator[None]:
    """mmengine prints a line for each parameter that it initialises."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refuse_readers(model: Mapping[str, Any]) -> None:
    """Refuse what makes mmdet fetch or read a file, which would be unpickled."""
    if found := find_reader(model):
        raise InputError(
            f"{_dotted(found[0])} must be absent or null, got {printable(found[1])!r}: models read "
            "and download no files; fetch the weights yourself, then: python -m src.import_weights "
            "source=FILE output=start.safetensors, and train with initial_weights=start.safetensors"
        )


def _explained(error: Exception, model: Mapping[str, Any]) -> InputError:
    """Say which key of the configuration mmdet's complaint is about."""
    text = str(error.args[0]) if error.args else str(error)
    if unknown := re.match(r"(\w+) is not in the", text):
        name = unknown[1]
        keys = [_dotted(path) for path, value in leaves(model) if value == name]
        known = sorted({*MODELS.module_dict, *TASK_UTILS.module_dict})
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Near it: {', '.join(near)}." if near else ""
        return InputError(
            f"{_named(keys)}: mmdet has no class '{name}'; legal are its registry's names.{hint}"
        )
    if unexpected := re.search(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text
    ):
        name = unexpected[2]
        keys = [_dotted(path) for path in _branches(model) if path[-1] == name]
        return InputError(f"{_named(keys)}: mmdet's {unexpected[1]} takes no argument '{name}'")
    return InputError(f"detector: mmdet cannot build this configuration: {text}")


def _branches(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to every value and every inner node of a nested configuration."""
    if path:
        yield path
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _branches(value, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _branches(value, (*path, str(number)))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(("detector", *path))


def _named(keys: list[str]) -> str:
    return " and ".join(keys) if keys else "detector"


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """``SingleRoIExtractor`` computed in float32, whatever the features are.

    mmdet rounds boxes to the features' dtype: between 1024 and 2048 px a coordinate is then a
    multiple of 8 px in bfloat16, of 1 px in float16. Measured on smooth features of an image of
    1216x1920, bfloat16: 19% of what is pooled is wrong, 0.2% this way. Equal to mmdet's on float32
    features.
    """

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pool each box from the level of its size.

        Args:
            feats: one (N, C, H, W) a level.
            rois: (K, 5) float32: view's index, xyxy in its pixels.
            roi_scale_factor: stretches the boxes, where given.

        Returns:
            (K, C, bins, bins), of the features' dtype.
        """
        levels = tuple(level.float() for level in feats)
        pooled: Tensor = super().forward(levels, rois, roi_scale_factor)
        return pooled.to(feats[0].dtype)


log = logging.getLogger(__name__)


def preprocess(detector: Detector, batch: Mapping[str, Any], *, training: bool) -> dict[str, Any]:
    """Move a batch to the detector's device, normalise and pad it by the detector's preprocessor.

    Args:
        batch: ``inputs``: N uint8 tensors (3, H_i, W_i), RGB; ``data_samples``: N DetDataSample.

    Returns:
        ``inputs``: float32 (N, 3, H, W); ``data_samples``: N DetDataSample with the padded size
        and, in training, padded masks.
    """
    preprocessor = detector.data_preprocessor
    # mmengine's preprocessor keeps a device of its own, which moving the module does not reach.
    preprocessor.to(next(detector.parameters()).device)
    data: dict[str, Any] = preprocessor(dict(batch), training)
    return data


def check_detector(detector: Detector) -> None:
    """Refuse a detector that ``predict_candidates`` is not written for.

    Raises:
        InputError: names the key, its value and what is legal.
    """
    head: Any = getattr(detector, "roi_head", None)
    if type(head).__name__ != "HybridTaskCascadeRoIHead":
        raise InputError(
            f"detector.roi_head.type: {type(head).__name__} given, HybridTaskCascadeRoIHead wanted"
        )
    if head.with_semantic:
        raise InputError("detector.roi_head.semantic_head: given, but this cascade has none")
    for stage, box_head in enumerate(head.bbox_head):
        if not box_head.reg_class_agnostic:
            raise InputError(
                f"detector.roi_head.bbox_head.{stage}.reg_class_agnostic: false given, true "
                "wanted: the classes of a proposal share one box"
            )


def mask_edge_px(detector: Detector) -> int:
    """Edge of the masks that a detector's heads predict, in cells."""
    head = detector.roi_head
    pooled: int = head.mask_roi_extractor[-1].roi_layers[0].output_size[0]
    return pooled * int(head.mask_head[-1].scale_factor)


def check_ensemble(detectors: Sequence[Detector], names: Sequence[str]) -> None:
    """Refuse detectors whose results cannot be averaged with those of the first.

    Args:
        detectors: accepted by ``check_detector``.
        names: how a message calls each.

    Raises:
        InputError: names the detector, what differs and both values.
    """
    for detector, name in zip(detectors, names, strict=True):
        for (what, first), (_, own) in zip(
            _shared_values(detectors[0]), _shared_values(detector), strict=True
        ):
            if own != first:
                raise InputError(
                    f"{name}: {what} is {own}, that of {names[0]} is {first}; the models of an "
                    "ensemble have the same"
                )


def _shared_values(detector: Detector) -> list[tuple[str, object]]:
    rule = detector.test_cfg.rpn
    return [
        ("the number of classes", detector.roi_head.bbox_head[-1].num_classes),
        ("test_cfg.rpn.nms.iou_threshold", rule.nms.iou_threshold),
        ("test_cfg.rpn.max_per_img", rule.max_per_img),
        ("the edge of a predicted mask", mask_edge_px(detector)),
    ]


LIGHTNING_PREFIX = "detector."  # of a detector's weights in a Lightning checkpoint
# Data parallel training, torch.compile, Lightning, modules that hold a detector as their model, and
# moving averages.
WRAPPERS = ("module.", "_orig_mod.", LIGHTNING_PREFIX, "model.", "ema_model.", "ema_")
AVERAGE_PREFIX = "ema_"
AVERAGE_COUNTERS = ("n_averaged", "steps")  # of torch's and mmengine's averaged models
EXAMPLES = 3  # names that an error gives of each kind


@dataclass(frozen=True)
class Unwrapped:
    """Weights under the names that mmdet gives them.

    Attributes:
        plain: Name -> (name in the file, tensor), in the file's order.
        prefixes: What all names started with and lost, outermost first.
        second_set: Names in the file of what a moving average keeps beside the weights. mmcv's
            EMAHook exchanges the two before it writes, so that the plain names are the mean.
    """

    plain: dict[str, tuple[str, Tensor]]
    prefixes: tuple[str, ...]
    second_set: tuple[str, ...]

    def notice(self) -> str | None:
        """Say in one line what was taken off and left out; None where names are as usual."""
        prefixes = "".join(prefix for prefix in self.prefixes if prefix != LIGHTNING_PREFIX)
        said = []
        if prefixes:
            said.append(f"its names start with {prefixes}, which is taken off")
        if self.second_set:
            said.append(
                f"{len(self.second_set)} tensors of a moving average are left out "
                f"({examples(list(self.second_set))})"
            )
        return "; ".join(said) or None


def unwrap(weights: Mapping[str, Tensor]) -> Unwrapped:
    """Take off the prefixes that wrappers give to all names."""
    second = [name for name in weights if name.startswith(AVERAGE_PREFIX)]
    if len(second) == len(weights):
        second = []
    counters = [name for name in weights if name in AVERAGE_COUNTERS]
    left_out = {*second, *counters}
    plain = {name: (name, value) for name, value in weights.items() if name not in left_out}
    prefixes = []
    while plain and (
        prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in plain)), None)
    ):
        prefixes.append(prefix)
        plain = {name.removeprefix(prefix): entry for name, entry in plain.items()}
    return Unwrapped(plain=plain, prefixes=tuple(prefixes), second_set=tuple(second))


def load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Load a detector's weights, every one of them.

    Args:
        weights: parameters and buffers by name, as mmdet or as a Lightning checkpoint spells it.

    Raises:
        InputError: the weights are another model's; says which names are missing, unknown or of
            another shape.
    """
    unwrapped = unwrap(weights)
    if notice := unwrapped.notice():
        log.info("weights: %s", notice)
    given = {name: value for name, (_, value) in unwrapped.plain.items()}
    own = detector.state_dict()
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if missing or unknown or shapes:
        kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        found = "; ".join(
            f"{len(names)} {kind} ({examples(names)})" for kind, names in kinds if names
        )
        raise InputError(
            f"the weights do not fit the model: {found}; "
            "give the experiment or module= that they were trained with"
        )
    detector.load_state_dict(given)


def detector_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that mmdet gives them, whoever wrote the file."""
    return {name: value for name, (_, value) in unwrap(weights).plain.items()}


def examples(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    shown = [printable(name) for name in names[:EXAMPLES]]
    return ", ".join(shown + ["..."] * (len(names) > EXAMPLES))
