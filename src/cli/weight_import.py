"""The work of ``python -m src.import_weights``, whose imports take seconds."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from src.annotations.categories import ClassList, LabelDescriptions
from src.console import PlainConsole
from src.errors import InputError
from src.io import file_sha256
from src.mmdet_bridge.checkpoints.backbone_import import import_backbone
from src.mmdet_bridge.checkpoints.category_map import read_category_map, source_class_names
from src.mmdet_bridge.checkpoints.reading import (
    Checkpoint,
    check_finite,
    class_notes,
    load_checkpoint,
    save_weights,
)
from src.mmdet_bridge.checkpoints.weight_files import examples
from src.mmdet_bridge.checkpoints.weight_import import (
    Record,
    WeightImport,
    import_weights,
    map_by_id,
)
from src.mmdet_bridge.options import OLD_LAYOUTS

OLD_GEOMETRY = (
    "before 2.0 mmdetection pooled RoIs without a half-pixel offset, with 2x2 samples a bin; "
    "training gets used to today's way. To pool as then, give to training and prediction:\n"
    "  module.detector.sizes.roi_half_pixel=false module.detector.sizes.roi_samples=2"
)


def import_file(
    keys: Mapping[str, Any], source: Path, *, output: Path, labels: LabelDescriptions
) -> None:
    """Import the weights of a file, write them, and show what became of each.

    Args:
        keys: Keys of ``conf/import_weights.yaml``.
        source: The file.
        output: The file of weights to write.
        labels: Names of the categories.
    """
    checkpoint = load_checkpoint(source, trusted=keys["trusted"])
    check_finite(checkpoint.weights, source)
    if keys["scope"] == "backbone":
        _import_backbone(keys, checkpoint, output)
    else:
        _import_detector(keys, checkpoint, output, labels)


def _import_backbone(keys: Mapping[str, Any], checkpoint: Checkpoint, output: Path) -> None:
    """Write the backbone's weights alone, and account for each tensor."""
    found = import_backbone(
        checkpoint, keys["module"]["detector"], reset=keys["reset"], drop=keys["drop"]
    )
    source = checkpoint.path
    notes = {"source": source.name, "source_sha256": file_sha256(source), "scope": "backbone"}
    save_weights(found.weights, output, notes=notes)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    console.print(f"{source}: a {found.family}, named as in {found.library}")
    console.print(account_table(found.records))
    counts = Counter(record.action for record in found.records)
    left_out = [record.source or "" for record in found.records if record.action == "left out"]
    random = counts["random"] + counts["reset"]
    console.print(
        f"{len(found.weights)} tensors of the backbone loaded, {random} random (drawn from the "
        f"training's seed), {counts['missing']} computed by the model; {len(left_out)} of the file "
        f"left out{': ' * bool(left_out)}{examples(left_out)}"
    )
    console.print(f"wrote {output}: the backbone alone; training draws everything else")


def _import_detector(
    keys: Mapping[str, Any], checkpoint: Checkpoint, output: Path, labels: LabelDescriptions
) -> None:
    """Write every weight of a detector, and account for each tensor."""
    source = checkpoint.path
    by_id = keys["class_layers"] == "slice" and keys["category_map"] is None
    known = checkpoint.classes if by_id else None
    category_ids = _category_ids(keys["module"], known, source)

    def map_classes(source_classes: int) -> Sequence[int | None]:
        if known is not None:
            return map_by_id(known, category_ids)
        return read_category_map(
            keys["category_map"],
            category_ids=category_ids,
            category_names=labels.category_names,
            source_classes=source_classes,
            source_names=source_class_names(checkpoint.meta, source_classes),
        )

    found = import_weights(
        checkpoint,
        keys["module"]["detector"],
        layout=keys["layout"],
        class_layers=keys["class_layers"],
        map_classes=None if keys["category_map"] is None and known is None else map_classes,
        reset=keys["reset"],
        drop=keys["drop"],
        seed=keys["seed"],
    )
    notes = {"source": source.name, "source_sha256": file_sha256(source), "layout": found.layout}
    notes["class_layers"] = keys["class_layers"]
    if keys["module"]["category_ids"] is not None or known is not None:
        notes |= class_notes(category_ids)
    save_weights(found.weights, output, notes=notes)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    version = checkpoint.meta.get("mmdet_version")
    written = f", written by mmdetection {version}" if version else ""
    classes = "unknown" if found.source_classes is None else found.source_classes
    console.print(f"{source}: layout {found.layout}{written}, {classes} classes")
    console.print(account_table(found.records))
    counts = Counter(record.action for record in found.records)
    console.print(", ".join(f"{number} {action}" for action, number in counts.items()))
    for line in class_lines(
        found,
        category_ids=category_ids,
        category_names=labels.category_names,
        source_names=source_class_names(checkpoint.meta, found.source_classes or 0),
    ):
        console.print(line)
    if found.layout in OLD_LAYOUTS:
        console.print(OLD_GEOMETRY)
    console.print(f"wrote {output}")


def _category_ids(module: Mapping[str, Any], known: ClassList | None, source: Path) -> list[int]:
    """Return the category of each of the model's classes."""
    if module["category_ids"] is not None:
        return list(module["category_ids"])
    if known is None:
        return list(range(module["num_classes"]))
    if len(known) != module["num_classes"]:
        raise InputError(
            f"module.category_ids must name the categories of the model's {module['num_classes']} "
            f"classes, because class_layers=slice goes by those of {source} ({len(known)}: "
            f"{known}), got null"
        )
    return list(known.category_ids)


def account_table(records: Sequence[Record]) -> Table:
    """Lay out what became of each weight, a row for all whose names differ in numbers only."""
    table = Table()
    for heading in ("", "tensors", "in the file", "in the model", "note"):
        table.add_column(heading, overflow="fold")
    rows = Counter(
        (record.action, *_patterns(record.source, record.target), record.note) for record in records
    )
    for (action, source, target, note), number in rows.items():
        table.add_row(action, str(number), source, target, note)
    return table


def _patterns(source: str | None, target: str | None) -> tuple[str, str]:
    if source == target and source is not None:
        part = f"{source.split('.')[0]}.*"  # of the same name in both: the part of the model
        return part, part
    # A layer's weight and bias, or the four numbers of a normalisation, go together.
    source, target = (
        re.sub(r"(?<=layer)\d+|\b\d+\b|[a-z_]+$", "*", name or "") for name in (source, target)
    )
    return source, target


def class_lines(
    found: WeightImport,
    *,
    category_ids: Sequence[int],
    category_names: Mapping[int, str],
    source_names: Sequence[str] | None,
) -> list[str]:
    """Return lines on the class of the checkpoint that each of the model's starts from."""
    classes = len(found.class_map)
    kept = [(row, source) for row, source in enumerate(found.class_map) if source is not None]
    if not kept and found.source_classes == classes:
        return [
            f"the checkpoint has as many classes as the model, {classes}, yet their layers are "
            "initialized; class_layers=slice keeps them, if they are the same in the same order"
        ]
    lines = [f"{len(kept)} classes kept, {classes - len(kept)} initialized"]
    for row, source in kept:
        own = f"{category_ids[row]} {category_names.get(category_ids[row], '')}".strip()
        name = source_names[source] if source_names else ""
        lines.append(f"  {own}: from {source} {name}".rstrip())
    return lines
