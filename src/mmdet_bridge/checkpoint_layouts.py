"""How mmdetection's releases wrote the weights of a Hybrid Task Cascade, brought into today's form.

What changed between them (mmdetection's docs/en/compatibility.md and pull requests 1894 and 2374;
K: the number of classes):

====================  ================  ====================  =====================
layout                v0.6              v1                    v2, v3
====================  ================  ====================  =====================
a stage's head        bbox_head.0       bbox_head.0           roi_head.bbox_head.0
offsets of a DCN      conv2_offset      conv2.conv_offset     conv2.conv_offset
rows of fc_cls        background, K     background, K         K, background
rows of conv_logits   background, K     background, K         K
====================  ================  ====================  =====================

The v0.6 names were in use up to v1.0. Without deformable convolutions they are those of v1; and v3
kept those of v2. mmdetection's own converter (upgrade_model_version.py) cuts the wrong end off the
bias of ``conv_logits``, so a file that went through it has that bias one class off.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.checkpoints import Checkpoint
from src.mmdet_bridge.detectors import examples, unwrap

log = logging.getLogger(__name__)

OLD_LAYOUTS = ("v0.6", "v1")  # mmdetection 1.2 and before
LAYOUTS = (*OLD_LAYOUTS, "v2", "v3")
BACKGROUND_LAST = "background moved last"
SECOND_SET = "second set of weights beside a moving average"
BACKGROUND_LEFT_OUT = "background left out"

# Of the names in today's form. What is not listed and not the model's is an error, not dropped.
DROPPED = (
    (r"(roi_head\.)?semantic_head\.", "semantic branch"),
    (r"data_preprocessor\.", "the configuration has these"),
)


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint in today's form."""

    source: str  # its name in the file
    target: str | None  # its name today; None: dropped
    value: Tensor
    note: str = ""  # what else was done to it, or why it is dropped


def detect_layout(checkpoint: Checkpoint) -> str:
    """Tell the layout by names, and those that name everything alike by the file's notes.

    Raises:
        InputError: the names are no detector's.
    """
    names = set(unwrap(checkpoint.weights).plain)
    old = any(name.startswith("bbox_head.") for name in names)
    if old == any(name.startswith("roi_head.bbox_head.") for name in names):
        raise InputError(
            f"checkpoint {checkpoint.path} has no box heads: names of mmdetection's cascades start "
            f"with bbox_head. or roi_head.bbox_head., its are {examples(sorted(names))}"
        )
    version = str(checkpoint.meta.get("mmdet_version", ""))
    if old:
        first = version.startswith("0.") or any("conv2_offset." in name for name in names)
        return "v0.6" if first else "v1"
    return "v2" if version.startswith("2.") else "v3"


def modernise(checkpoint: Checkpoint, layout: str) -> list[Entry]:
    """Bring a checkpoint into today's form, in the file's order.

    Args:
        checkpoint: as the file spells it.
        layout: one of ``LAYOUTS``.

    Raises:
        InputError: the weights are not in this layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout}: legal are auto, {', '.join(LAYOUTS)}")
    unwrapped = unwrap(checkpoint.weights)
    if notice := unwrapped.notice():
        log.info("checkpoint %s: %s", checkpoint.path, notice)
    plain = unwrapped.plain
    old = layout in OLD_LAYOUTS
    if old == any(name.startswith("roi_head.") for name in plain):
        heads = "roi_head.bbox_head." if old else "bbox_head."
        raise InputError(
            f"layout={layout}: checkpoint {checkpoint.path} has another, with names {heads}..."
        )
    entries = [
        Entry(name, None, checkpoint.weights[name], SECOND_SET) for name in unwrapped.second_set
    ]
    for name, (source, value) in plain.items():
        target = _today(name) if old else name
        reason = next((why for start, why in DROPPED if re.match(start, target)), None)
        if reason is not None:
            entries.append(Entry(source, None, value, reason))
        elif old and re.search(r"\.fc_cls\.(weight|bias)$", target):
            value = value.roll(-1, dims=0)
            entries.append(Entry(source, target, value, BACKGROUND_LAST))
        # A mask for all classes together has one row and no background.
        elif old and re.search(r"\.conv_logits\.(weight|bias)$", target) and len(value) > 1:
            entries.append(Entry(source, target, value[1:], BACKGROUND_LEFT_OUT))
        else:
            entries.append(Entry(source, target, value))
    _check_rows(entries, checkpoint.path, layout)
    return entries


def class_count(entries: list[Entry]) -> int | None:
    """How many classes the checkpoint's box heads tell apart; None: it has no ``fc_cls``."""
    for entry in entries:
        if entry.target and entry.target.endswith(".fc_cls.bias"):
            return len(entry.value) - 1
    return None


def _today(name: str) -> str:
    if re.match(r"(bbox_head|mask_head|semantic_head)\.", name):
        return f"roi_head.{name}"
    return name.replace(".conv2_offset.", ".conv2.conv_offset.")


def _check_rows(entries: list[Entry], path: Path, layout: str) -> None:
    """Compare the classes of the mask heads with those of the box heads.

    Layouts differ in whether masks have a background, so a wrong guess shows here.
    """
    classes = class_count(entries)
    for entry in entries:
        if classes is None or not entry.target or not entry.target.endswith(".conv_logits.bias"):
            continue
        if len(entry.value) not in (1, classes):
            raise InputError(
                f"checkpoint {path}: as layout {layout}, {entry.source} has {len(entry.value)} "
                f"classes, but the box heads {classes} without the background; give the right "
                "layout=, or the file was damaged by a conversion"
            )
