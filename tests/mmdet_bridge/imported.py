"""A cascade with random weights, and checkpoints of it as each release wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from tests.cascades import detector_config, spread_scores
from tests.mmdet_bridge.old_checkpoints import DEFORMABLE, PLAIN, notes_of, written_by

LAYOUTS = ("v0.6", "v1", "v2", "v3")
PATH = Path("old.pth")


def make_detector(*overrides: str) -> Any:
    """Random weights everywhere, the offsets and the batch statistics included."""
    torch.manual_seed(7)
    detector = build_detector(detector_config("htc_r50", *DEFORMABLE, *overrides))
    spread_scores(detector)
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if ".conv_offset." in name:
                value.normal_(0, 0.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.normal_(0, 0.1)
            elif "running_var" in name:
                value.uniform_(0.5, 1.5)
    return detector


def old(weights: dict[str, Tensor], layout: str, **notes: object) -> Checkpoint:
    return Checkpoint(
        path=PATH, weights=dict(written_by(weights, layout)), meta=notes_of(layout) | notes
    )


def config(*overrides: str, deformable: bool = True) -> dict[str, Any]:
    return detector_config("htc_r50", *(DEFORMABLE if deformable else PLAIN), *overrides)
