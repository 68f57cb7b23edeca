"""What is asked of a detector, how it is fed, and how it gets its weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.config import Detector

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


def check_member(detector: Detector) -> None:
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


def check_members(detectors: Sequence[Detector], names: Sequence[str]) -> None:
    """Refuse detectors whose results cannot be averaged with those of the first.

    Args:
        detectors: accepted by ``check_member``.
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
