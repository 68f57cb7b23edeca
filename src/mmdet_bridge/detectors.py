"""What is asked of a detector, how it is fed, and how it gets its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.config import Detector


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
EXAMPLES = 3  # names that an error gives of each kind


def load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Load a detector's weights, every one of them.

    Args:
        weights: parameters and buffers by name, as mmdet or as a Lightning checkpoint spells it.

    Raises:
        InputError: the weights are another model's; says which names are missing, unknown or of
            another shape.
    """
    given = detector_names(weights)
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
    return {name.removeprefix(LIGHTNING_PREFIX): value for name, value in weights.items()}


def examples(names: list[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:EXAMPLES] + ["..."] * (len(names) > EXAMPLES))
