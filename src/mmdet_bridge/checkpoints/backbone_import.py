"""Import the weights of a backbone alone: other libraries' classifiers into a detector.

A file of a backbone's weights holds mmdet's names with ``backbone.`` before each, and only tensors
that came from elsewhere. Training takes the rest as its seed draws it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.cascade.detectors import Detector, build_detector
from src.mmdet_bridge.checkpoints.backbone_names import (
    HEADS,
    LAYOUTS,
    MERGE_NOTE,
    NameLayout,
    family_of,
    find_name_layout,
    rename,
    reorder_merged,
)
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from src.mmdet_bridge.checkpoints.weight_files import unwrap
from src.mmdet_bridge.checkpoints.weight_import import COUNTER, Action, Entry, Record

BACKBONE = "backbone."
BODY = "body."  # torchvision's detectors: the backbone beside the pyramid in it
INDEX = ".relative_position_index"  # follows from the size of the window
MASK = ".attn_mask"  # of Swin's shifted windows, for one size of image
# Tensors that files of classifiers lack, with the reason.
FRESH = (
    (r"norm\d\.(weight|bias)", "normalises an output of the backbone, which a classifier lacks"),
    (r".*\.conv_offset\.(weight|bias)", "offsets of a deformable convolution start at zero"),
    (r"conv2\.(conv|bn)\..+", "MobileNetV2's last convolution, which models of features lack"),
)
COMPUTED = (
    (r".*" + re.escape(COUNTER), "a counter that nothing reads, set to 0"),
    (r".*" + re.escape(INDEX), "follows from the size of the window"),
)


@dataclass(frozen=True)
class BackboneImport:
    """Weights of a backbone and their origin.

    Attributes:
        weights: What came from the file, by the detector's names.
        library: Libraries whose layout the file's names have.
        family: Class of mmdet's, or mmpretrain's, that the backbone is.
        records: Outcome of each tensor of the file, and of each of the backbone that it lacks.
    """

    weights: dict[str, Tensor]
    library: str
    family: str
    records: tuple[Record, ...]


def import_backbone(
    checkpoint: Checkpoint,
    detector: Mapping[str, Any],
    *,
    reset: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> BackboneImport:
    """Fit a classifier's or a detector's weights to the backbone of a detector.

    Args:
        checkpoint: A state dict of torchvision, timm, mmpretrain or mmdet.
        detector: The model's configuration (see ``build_detector``).
        reset: Patterns (``*`` is any text) of the backbone's names to leave to the seed.
        drop: Patterns of names to leave out of the file, as the file spells them.

    Raises:
        InputError: A backbone without a known layout, or a file of another architecture; names the
            first tensor that differs.
    """
    model = build_detector(detector, init_weights=False).backbone
    own: dict[str, Tensor] = model.state_dict()
    class_name, family = type(model).__name__, family_of(model)
    if family is None:
        raise InputError(
            f"module.detector.backbone.type must be one of ResNeXt, {', '.join(LAYOUTS)} with "
            f"scope=backbone, got {class_name}"
        )
    plain, left_out = _own_part(checkpoint)
    layout = find_name_layout([*plain], family)
    if layout is None:
        first = next(iter(plain.items()), None)
        found = f"{printable(first[0])} {tuple(first[1][1].shape)}" if first else "none"
        raise InputError(
            f"checkpoint {checkpoint.path} must be a state dict of {class_name}, the backbone of "
            f"the configured module, got another architecture's: its first tensor is {found}"
        )
    entries = [_entry(*item, layout=layout, family=family, own=own) for item in plain.items()]
    records = [Record("left out", name, None, "another part of its model") for name in left_out]
    weights, more = _fit(
        entries, own, checkpoint=checkpoint, class_name=class_name, reset=reset, drop=drop
    )
    return BackboneImport(
        weights={BACKBONE + name: value for name, value in weights.items()},
        library=layout.library,
        family=class_name,
        records=(*more, *records),
    )


def is_backbone_only(weights: Mapping[str, Tensor]) -> bool:
    """Return whether a file holds nothing but the weights of a detector's backbone."""
    return bool(weights) and all(name.startswith(BACKBONE) for name in weights)


def load_backbone(detector: Detector, checkpoint: Checkpoint) -> tuple[int, int]:
    """Load a file of ``import_backbone`` into a detector; all else stays as it is.

    Returns:
        Number of the detector's tensors that came from the file, and of those that did not and
        hold values to learn or to draw (not counters and the like).

    Raises:
        InputError: The file is another backbone's.
    """
    own: dict[str, Tensor] = detector.backbone.state_dict()
    weights, _ = _fit(
        [
            Entry(name, name.removeprefix(BACKBONE), value)
            for name, value in checkpoint.weights.items()
        ],
        own,
        checkpoint=checkpoint,
        class_name=type(detector.backbone).__name__,
    )
    detector.backbone.load_state_dict(weights, strict=False)
    loaded = {BACKBONE + name for name in weights}
    others = [
        name
        for name in detector.state_dict()
        if name not in loaded and _reason(name.removeprefix(BACKBONE), COMPUTED) is None
    ]
    return len(loaded), len(others)


def _own_part(checkpoint: Checkpoint) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """Return the backbone's tensors without prefix, and the names of a detector's other parts."""
    unwrapped = unwrap(checkpoint.weights)
    # timm's models of features write stages_0 for stages.0.
    plain = {
        re.sub(r"^(stages|stem|layers)_(\d+)\.", r"\1.\2.", name): entry
        for name, entry in unwrapped.plain.items()
    }
    left_out = [*unwrapped.second_set]
    for prefix in (BACKBONE, BODY):
        if any(name.startswith(prefix) for name in plain):
            left_out += [
                source for name, (source, _) in plain.items() if not name.startswith(prefix)
            ]
            plain = {
                name.removeprefix(prefix): entry
                for name, entry in plain.items()
                if name.startswith(prefix)
            }
    return plain, left_out


def _entry(
    name: str,
    found: tuple[str, Tensor],
    *,
    layout: NameLayout,
    family: str,
    own: Mapping[str, Tensor],
) -> Entry:
    """Return a tensor under the model's name and in its layout."""
    source, value = found
    target = rename(name, layout, family=family, own=own)
    if target not in own:
        if HEADS.match(name):
            return Entry(source, None, value, "the classifier's head")
        if target.startswith("norm3."):
            return Entry(source, None, value, "normalises an output that the module does not use")
        if name.endswith(MASK):
            return Entry(source, None, value, "depends on the image's size")
        return Entry(source, target, value)
    note = ""
    if layout.merges_by_patch and ".downsample." in target and value.shape[-1] % 4 == 0:
        value, note = reorder_merged(value), MERGE_NOTE
    # A matrix for a 1x1 convolution, a row for a column: the same numbers in the same order.
    if _without_ones(value.shape) == _without_ones(own[target].shape) or (
        target.endswith(INDEX) and value.numel() == own[target].numel()
    ):
        value = value.reshape(own[target].shape)
    return Entry(source, target, value, note)


def _without_ones(shape: torch.Size) -> list[int]:
    """Return a shape without ones at its end."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _fit(
    entries: Sequence[Entry],
    own: Mapping[str, Tensor],
    *,
    checkpoint: Checkpoint,
    class_name: str,
    reset: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> tuple[dict[str, Tensor], list[Record]]:
    """Return the weights that fit the backbone's, and what became of each tensor.

    Raises:
        InputError: A tensor is missing, left over or of another shape.
    """
    weights: dict[str, Tensor] = {}
    records: list[Record] = []
    differences: list[str] = []
    seen: set[str] = set()
    for entry in entries:
        name, value = entry.target, entry.value
        shape = tuple(value.shape)
        if _matches(entry.source, drop):
            records.append(Record("left out", entry.source, None, "as drop= asks"))
            continue
        if name is None:
            records.append(Record("left out", entry.source, None, entry.note))
            continue
        is_double = name in seen
        seen.add(name)
        if name not in own:
            differences.append(f"{printable(entry.source)} {shape} of the file, which it lacks")
        elif value.shape != own[name].shape:
            differences.append(
                f"{printable(entry.source)}, {shape} in the file for {tuple(own[name].shape)}"
            )
        elif name.endswith(INDEX) and not torch.equal(value.long(), own[name].long()):
            differences.append(f"{printable(entry.source)}, another order of positions")
        elif is_double:
            differences.append(f"{printable(entry.source)}, {name} a second time")
        elif _matches(name, reset):
            records.append(Record("reset", entry.source, name, "as reset= asks"))
        else:
            weights[name] = value.to(own[name].dtype)
            action: Action = "loaded" if name == entry.source else "renamed"
            records.append(Record(action, entry.source, name, entry.note))
    for name in (name for name in own if name not in seen):
        if reason := _reason(name, COMPUTED):
            records.append(Record("missing", None, name, reason))
        elif (reason := _reason(name, FRESH)) or _matches(name, reset):
            records.append(Record("random", None, name, reason or "as reset= asks"))
        else:
            differences.append(f"{name} {tuple(own[name].shape)}, which the file lacks")
    if differences:
        differences.sort(key=lambda one: COUNTER in one)  # these say least
        raise InputError(
            f"checkpoint {checkpoint.path} is of another architecture than {class_name} of the "
            f"configured module: the first of {len(differences)} tensors that differ is "
            f"{differences[0]}; give the module= with this file's backbone"
        )
    if not weights:
        raise InputError(f"checkpoint {checkpoint.path}: reset and drop leave nothing to load")
    return weights, records


def _reason(name: str, patterns: Sequence[tuple[str, str]]) -> str | None:
    return next((reason for pattern, reason in patterns if re.fullmatch(pattern, name)), None)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
