"""Weights of another training as a start: what fits is kept, all of it is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from src.annotations.classes import ClassList
from src.errors import InputError
from src.mmdet_bridge.checkpoint_layouts import (
    Entry,
    class_count,
    detect_layout,
    modernise,
)
from src.mmdet_bridge.checkpoints import Checkpoint
from src.mmdet_bridge.config import Detector, build_detector
from src.mmdet_bridge.detectors import check_member, detector_names, examples

ClassLayers = Literal["reset", "slice"]
CLASS_LAYERS = ("reset", "slice")
COUNTER = ".num_batches_tracked"  # torch before 0.4.1 had none; nothing here reads it

MISFIT_CURE = (
    "Give the module= with its backbone and heads; what is meant to be drawn anew or left out can "
    "be named in 'reset=[...]' and 'drop=[...]'"
)
OFFSETS_CURE = (
    "To start the offsets of deformable convolutions at zero, as plain convolutions, give "
    "'reset=[*.conv_offset.*]'"
)

Action = Literal["loaded", "renamed", "sliced", "reset", "dropped", "missing"]


@dataclass(frozen=True)
class Record:
    """What became of one tensor."""

    action: Action
    source: str | None  # its name in the file
    target: str | None  # its name in the model
    note: str = ""


@dataclass(frozen=True)
class WeightImport:
    """A model's weights, every one of them, and where each is from."""

    weights: dict[str, Tensor]
    layout: str
    source_classes: int | None
    picks: tuple[int | None, ...]  # of each of the model's classes: the file's, None: drawn anew
    records: tuple[Record, ...]


def import_weights(
    checkpoint: Checkpoint,
    detector: Mapping[str, Any],
    *,
    layout: str = "auto",
    class_layers: ClassLayers = "reset",
    pick_classes: Callable[[int], Sequence[int | None]] | None = None,
    reset: Sequence[str] = (),
    drop: Sequence[str] = (),
    seed: int = 0,
) -> WeightImport:
    """Fit a checkpoint of mmdetection's to a Hybrid Task Cascade.

    Args:
        checkpoint: of any of ``checkpoint_layouts.LAYOUTS``.
        detector: the model's configuration (see ``build_detector``).
        layout: the checkpoint's, or ``auto``.
        class_layers: of ``fc_cls`` and ``conv_logits``, ``reset`` draws every row anew, ``slice``
            keeps the rows of the classes that are picked, and the background's.
        pick_classes: for ``slice``; takes the number of the checkpoint's classes and gives, for
            each of the model's, the index of the checkpoint's, or None to draw its row anew.
            Without it both have the same classes in the same order.
        reset: patterns (``*`` is any text) of the model's names that are drawn anew whatever the
            checkpoint has.
        drop: patterns of names, in the model's spelling, that are left out of the checkpoint.
        seed: of what is drawn anew, as mmdetection draws it.

    Raises:
        InputError: the checkpoint is another model's: something is missing, left over, or of
            another shape; or the arguments contradict it.
    """
    if class_layers not in CLASS_LAYERS:
        raise InputError(f"class_layers={class_layers}: legal are {', '.join(CLASS_LAYERS)}")
    if layout == "auto":
        layout = detect_layout(checkpoint)
    entries = modernise(checkpoint, layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_detector(detector)
    check_member(model)
    own: dict[str, Tensor] = model.state_dict()
    classes, source_classes = model.roi_head.bbox_head[0].num_classes, class_count(entries)
    picks: Sequence[int | None] = [None] * classes
    if class_layers == "slice":
        picks = _pick(source_classes, classes, pick_classes)
    elif pick_classes is not None:
        raise InputError("category_map: of no use with class_layers=reset; give class_layers=slice")
    _check_patterns("reset", reset, own)
    _check_patterns("drop", drop, [entry.target for entry in entries if entry.target])

    fit = _Fit(
        path=checkpoint.path,
        own=own,
        names_by_class=_names_by_class(model),
        picks=picks if class_layers == "slice" else None,
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
        picks=tuple(picks),
        records=tuple(fit.records),
    )


def order_classes(
    weights: Mapping[str, Tensor], detector: Detector, *, given: ClassList, wanted: ClassList
) -> dict[str, Tensor]:
    """Return a detector's weights with the rows of each class where the model has its category.

    Args:
        weights: every weight of the detector, by mmdet's or Lightning's names.
        detector: the model.
        given: the classes of the weights.
        wanted: those of the model.

    Raises:
        InputError: these are other categories.
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


def pick_by_id(given: ClassList, category_ids: Sequence[int]) -> list[int | None]:
    """Return where each category stands among the classes of a file; None: not there."""
    places = {category: place for place, category in enumerate(given.category_ids)}
    return [places.get(category) for category in category_ids]


def _pick(
    source_classes: int | None,
    classes: int,
    pick_classes: Callable[[int], Sequence[int | None]] | None,
) -> Sequence[int | None]:
    if source_classes is None:
        raise InputError("class_layers=slice: the checkpoint has no fc_cls to take rows from")
    if pick_classes is not None:
        return pick_classes(source_classes)
    if source_classes != classes:
        raise InputError(
            f"class_layers=slice: the checkpoint has {source_classes} classes and the model "
            f"{classes}; give category_map=, a file that says which is which"
        )
    return range(classes)


def _names_by_class(model: Detector) -> set[str]:
    """The model's weights that have a row for each class."""
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
                f"{key}: no name is like '{pattern}'; names are like {examples(sorted(names))}"
            )


def _any_matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass
class _Fit:
    """Takes a checkpoint's tensors one by one and keeps the account."""

    path: Path
    own: Mapping[str, Tensor]
    names_by_class: set[str]
    picks: Sequence[int | None] | None  # None: layers with a row a class are drawn anew
    source_classes: int | None
    reset: Sequence[str]
    drop: Sequence[str]

    def __post_init__(self) -> None:
        self.weights = dict(self.own)  # what is not taken stays as it was drawn
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
        if self.picks is None or self.source_classes is None:
            self._note("reset", entry, "one row a class")
            return
        background = len(own) - len(self.picks)  # rows behind those of the classes: 1 or 0
        if value.shape[1:] != own.shape[1:] or len(value) != self.source_classes + background:
            self.misshapen.append(_shapes(entry, own))
            return
        sliced = own.clone()
        for row, pick in enumerate(self.picks):
            if pick is not None:
                sliced[row] = value[pick]
        if background:
            sliced[-1] = value[-1]
        self.weights[name] = sliced
        self._note("sliced", entry, entry.note)

    def finish(self) -> None:
        """Account for what the checkpoint lacks.

        Raises:
            InputError: it is another model's.
        """
        missing = []
        for name in (name for name in self.own if name in self.wanted):
            absent = Entry(source="", target=name, value=self.own[name])
            if _any_matches(name, self.reset):
                self._note("reset", absent, "as reset= asks; not in the file")
            elif name in self.names_by_class and self.picks is None:
                self._note("reset", absent, "one row a class; not in the file")
            elif name.endswith(COUNTER):
                self._note("missing", absent, "a counter that nothing reads, set to 0")
            else:
                missing.append(name)
        kinds = (
            ("of another shape than the model's", self.misshapen),
            ("that the model lacks", self.left_over),
            ("that the file lacks", missing),
        )
        if found := "; ".join(
            f"{len(names)} {kind} ({examples(names)})" for kind, names in kinds if names
        ):
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
