"""Import weights of other layouts and other classes, with an account of every tensor.

mmdetection's releases wrote the weights of a Hybrid Task Cascade in several layouts
(docs/en/compatibility.md and pull requests 1894 and 2374; K: the number of classes):

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from src.annotations.categories import ClassList
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import Detector, build_detector, check_detector
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from src.mmdet_bridge.checkpoints.weight_files import detector_names, examples, misfits, unwrap
from src.mmdet_bridge.options import (
    LAYOUTS,
    OLD_LAYOUTS,
    ClassLayers,
    check_import_options,
)

log = logging.getLogger(__name__)

COUNTER = ".num_batches_tracked"  # torch before 0.4.1 had none; nothing here reads it

MISFIT_CURE = (
    "Give the module= with its backbone and heads; what is meant to be drawn anew or left out can "
    "be named in 'reset=[...]' and 'drop=[...]'"
)
OFFSETS_CURE = (
    "To start the offsets of deformable convolutions at zero, as plain convolutions, give "
    "'reset=[*.conv_offset.*]'"
)

BACKGROUND_LAST = "background moved last"
SECOND_SET = "second set of weights beside a moving average"
BACKGROUND_LEFT_OUT = "background left out"

# Names in today's form. Any other name that is not the model's is an error.
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
    note: str = ""  # other changes, or why it is dropped


def detect_layout(checkpoint: Checkpoint) -> str:
    """Detect the layout by names and, where these are the same, by the file's notes.

    Raises:
        InputError: The names are no detector's.
    """
    names = set(unwrap(checkpoint.weights).plain)
    old = any(name.startswith("bbox_head.") for name in names)
    if old == any(name.startswith("roi_head.bbox_head.") for name in names):
        raise InputError(
            f"checkpoint {checkpoint.path} has no box heads: names must start with bbox_head. or "
            f"roi_head.bbox_head., as of mmdetection's cascades, got {examples(sorted(names))}"
        )
    version = str(checkpoint.meta.get("mmdet_version", ""))
    if old:
        first = version.startswith("0.") or any("conv2_offset." in name for name in names)
        return "v0.6" if first else "v1"
    return "v2" if version.startswith("2.") else "v3"


def upgrade_layout(checkpoint: Checkpoint, layout: str) -> list[Entry]:
    """Convert a checkpoint to today's form, in the file's order.

    Args:
        checkpoint: As the file spells it.
        layout: One of ``LAYOUTS``.

    Raises:
        InputError: The weights are not in this layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout must be one of auto, {', '.join(LAYOUTS)}, got {layout}")
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
    """Return the number of classes of the checkpoint's box heads; None without ``fc_cls``."""
    for entry in entries:
        if entry.target and entry.target.endswith(".fc_cls.bias"):
            return len(entry.value) - 1
    return None


def _today(name: str) -> str:
    if re.match(r"(bbox_head|mask_head|semantic_head)\.", name):
        return f"roi_head.{name}"
    return name.replace(".conv2_offset.", ".conv2.conv_offset.")


def _check_rows(entries: list[Entry], path: Path, layout: str) -> None:
    """Compare the classes of mask and box heads.

    Layouts differ in whether masks have a background, so a wrong layout shows here.
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


Action = Literal["loaded", "renamed", "sliced", "reset", "dropped", "missing", "left out", "random"]


@dataclass(frozen=True)
class Record:
    """Outcome of one tensor."""

    action: Action
    source: str | None  # its name in the file
    target: str | None  # its name in the model
    note: str = ""


@dataclass(frozen=True)
class WeightImport:
    """A model's weights, every one of them, and their origin."""

    weights: dict[str, Tensor]
    layout: str
    source_classes: int | None
    class_map: tuple[int | None, ...]  # the file's class for each of the model's; None: drawn anew
    records: tuple[Record, ...]


def import_weights(
    checkpoint: Checkpoint,
    detector: Mapping[str, Any],
    *,
    layout: str = "auto",
    class_layers: ClassLayers = "reset",
    map_classes: Callable[[int], Sequence[int | None]] | None = None,
    reset: Sequence[str] = (),
    drop: Sequence[str] = (),
    seed: int = 0,
) -> WeightImport:
    """Fit a checkpoint of mmdetection's to a Hybrid Task Cascade.

    Args:
        checkpoint: Of any of ``LAYOUTS``.
        detector: The model's configuration (see ``build_detector``).
        layout: The checkpoint's, or ``auto``.
        class_layers: For ``fc_cls`` and ``conv_logits``: ``reset`` draws every row anew, ``slice``
            keeps the rows of the mapped classes, and the background's.
        map_classes: For ``slice``; takes the number of the checkpoint's classes and returns, for
            each of the model's, the index of the checkpoint's, or None to draw its row anew.
            Without it both have the same classes in the same order.
        reset: Patterns (``*`` is any text) of the model's names that are drawn anew in any case.
        drop: Patterns of names, in the model's spelling, that are left out of the checkpoint.
        seed: Seed of the weights drawn anew, as mmdetection draws them.

    Raises:
        InputError: The checkpoint is another model's: weights are missing, left over, or of another
            shape; or the arguments contradict it.
    """
    check_import_options(
        layout=layout, class_layers=class_layers, has_class_map=map_classes is not None
    )
    if layout == "auto":
        layout = detect_layout(checkpoint)
    entries = upgrade_layout(checkpoint, layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_detector(detector)
    check_detector(model)
    own: dict[str, Tensor] = model.state_dict()
    classes, source_classes = model.roi_head.bbox_head[0].num_classes, class_count(entries)
    class_map: Sequence[int | None] = [None] * classes
    if class_layers == "slice":
        class_map = _class_map(source_classes, classes, map_classes)
    _check_patterns("reset", reset, own)
    _check_patterns("drop", drop, [entry.target for entry in entries if entry.target])

    fit = _Fit(
        path=checkpoint.path,
        own=own,
        names_by_class=_names_by_class(model),
        class_map=class_map if class_layers == "slice" else None,
        source_classes=source_classes,
        reset=reset,
        drop=drop,
    )
    for entry in entries:
        fit.take(entry)
    fit.finish()
    return WeightImport(
        weights=fit.weights,
        layout=layout,
        source_classes=source_classes,
        class_map=tuple(class_map),
        records=tuple(fit.records),
    )


def order_classes(
    weights: Mapping[str, Tensor], detector: Detector, *, given: ClassList, wanted: ClassList
) -> dict[str, Tensor]:
    """Return a detector's weights with the rows of the classes in the model's order.

    Args:
        weights: Every weight of the detector, by mmdet's or Lightning's names.
        detector: The model.
        given: Classes of the weights.
        wanted: Classes of the model.

    Raises:
        InputError: The categories differ.
    """
    named = detector_names(weights)
    if given.category_ids == wanted.category_ids:
        return named
    if {*given.category_ids} != {*wanted.category_ids}:
        raise InputError(
            f"the classes must be the categories of the model ({wanted}), got {given}; python -m "
            "src.import_weights module.category_ids=[...] makes weights for others of it "
            "(class_layers=reset draws the layers of the classes anew, slice keeps them by id)"
        )
    rows = [given.category_ids.index(category) for category in wanted.category_ids]
    for name in _names_by_class(detector) & named.keys():
        value = named[name]
        named[name] = value[[*rows, *range(len(rows), len(value))]]  # the last is the background
    return named


def map_by_id(given: ClassList, category_ids: Sequence[int]) -> list[int | None]:
    """Return the position of each category among the classes of a file; None: not there."""
    places = {category: place for place, category in enumerate(given.category_ids)}
    return [places.get(category) for category in category_ids]


def _class_map(
    source_classes: int | None,
    classes: int,
    map_classes: Callable[[int], Sequence[int | None]] | None,
) -> Sequence[int | None]:
    if source_classes is None:
        raise InputError("class_layers=slice: the checkpoint has no fc_cls to take rows from")
    if map_classes is not None:
        return map_classes(source_classes)
    if source_classes != classes:
        raise InputError(
            f"class_layers=slice: the checkpoint has {source_classes} classes and the model "
            f"{classes}; give category_map=, a file that says which is which"
        )
    return range(classes)


def _names_by_class(model: Detector) -> set[str]:
    """Return the names of the model's weights that have a row for each class."""
    head = model.roi_head
    layers = [f"roi_head.bbox_head.{stage}.fc_cls" for stage in range(len(head.bbox_head))]
    layers += [
        f"roi_head.mask_head.{stage}.conv_logits"
        for stage, mask_head in enumerate(head.mask_head)
        if not mask_head.class_agnostic
    ]
    return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def _check_patterns(key: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{key} must match a name, such as {examples(sorted(names))}, got '{pattern}'"
            )


def _any_matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass
class _Fit:
    """Account of a checkpoint's tensors, taken one by one."""

    path: Path
    own: Mapping[str, Tensor]
    names_by_class: set[str]
    class_map: Sequence[int | None] | None  # None: layers with a row a class are drawn anew
    source_classes: int | None
    reset: Sequence[str]
    drop: Sequence[str]

    def __post_init__(self) -> None:
        self.weights = dict(self.own)  # the others stay as they were drawn
        self.records: list[Record] = []
        self.wanted = set(self.own)
        self.left_over: list[str] = []
        self.misshapen: list[str] = []

    def take(self, entry: Entry) -> None:
        name = entry.target
        if name is None:
            self._note("dropped", entry, entry.note)
        elif _any_matches(name, self.drop):
            self._note("dropped", replace(entry, target=None), "as drop= asks")
        elif name not in self.wanted:
            self.left_over.append(entry.source)
        else:
            self.wanted.remove(name)
            if _any_matches(name, self.reset):
                self._note("reset", entry, "as reset= asks")
            elif name in self.names_by_class:
                self._take_classes(entry, name)
            else:
                self._load(entry, name)

    def _load(self, entry: Entry, name: str) -> None:
        own = self.own[name]
        if entry.value.shape != own.shape:
            self.misshapen.append(_shapes(entry, own))
            return
        self.weights[name] = entry.value.to(own.dtype)
        self._note("loaded" if entry.source == name else "renamed", entry, entry.note)

    def _take_classes(self, entry: Entry, name: str) -> None:
        own, value = self.own[name], entry.value
        if self.class_map is None or self.source_classes is None:
            self._note("reset", entry, "one row a class")
            return
        background = len(own) - len(self.class_map)  # rows behind those of the classes: 1 or 0
        if value.shape[1:] != own.shape[1:] or len(value) != self.source_classes + background:
            self.misshapen.append(_shapes(entry, own))
            return
        sliced = own.clone()
        for row, source in enumerate(self.class_map):
            if source is not None:
                sliced[row] = value[source]
        if background:
            sliced[-1] = value[-1]
        self.weights[name] = sliced
        self._note("sliced", entry, entry.note)

    def finish(self) -> None:
        """Account for the weights that the checkpoint lacks.

        Raises:
            InputError: It is another model's.
        """
        missing = []
        for name in (name for name in self.own if name in self.wanted):
            absent = Entry(source="", target=name, value=self.own[name])
            if _any_matches(name, self.reset):
                self._note("reset", absent, "as reset= asks; not in the file")
            elif name in self.names_by_class and self.class_map is None:
                self._note("reset", absent, "one row a class; not in the file")
            elif name.endswith(COUNTER):
                self._note("missing", absent, "a counter that nothing reads, set to 0")
            else:
                missing.append(name)
        kinds = {
            "of another shape than the model's": self.misshapen,
            "that the model lacks": self.left_over,
            "that the file lacks": missing,
        }
        if found := misfits(kinds):
            only_offsets = not self.misshapen and not self.left_over
            only_offsets &= all(".conv_offset." in name for name in missing)
            raise InputError(
                f"checkpoint {self.path} is another model's: {found}. "
                + (OFFSETS_CURE if only_offsets else MISFIT_CURE)
            )
        if not any(record.action in ("loaded", "renamed", "sliced") for record in self.records):
            raise InputError("reset, drop: nothing of the checkpoint is left to load")

    def _note(self, action: Action, entry: Entry, note: str) -> None:
        self.records.append(Record(action, entry.source or None, entry.target, note))


def _shapes(entry: Entry, own: Tensor) -> str:
    return f"{entry.source} {tuple(entry.value.shape)} for {tuple(own.shape)}"
