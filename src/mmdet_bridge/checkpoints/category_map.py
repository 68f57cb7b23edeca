"""Map a model's classes to those of a checkpoint, from a user's file."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError
from src.io import printable, refuse_special_file

CSV_COLUMNS = ("category", "source")

# COCO's classes in mmdetection's order, for checkpoints without a list of their own.
_COCO = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush"""
COCO_CLASSES: tuple[str, ...] = tuple(re.split(r",\s+", _COCO.strip()))


def source_class_names(meta: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """Return the names of a checkpoint's classes: its own, COCO's for 80, None if unknown."""
    data = meta.get("dataset_meta")
    for notes, key in ((meta, "CLASSES"), (data, "classes"), (data, "CLASSES")):
        names = notes.get(key) if isinstance(notes, Mapping) else None
        if not isinstance(names, list | tuple) or len(names) != classes:
            continue
        if all(isinstance(name, str) for name in names):
            return tuple(names)
    return COCO_CLASSES if classes == len(COCO_CLASSES) else None


def read_category_map(
    path: str | Path,
    *,
    category_ids: Sequence[int],
    category_names: Mapping[int, str],
    source_classes: int,
    source_names: Sequence[str] | None,
) -> list[int | None]:
    """Read a file that names, for a category of the data, a class of the checkpoint.

    Args:
        path: YAML or JSON, ``category: class``; or CSV with the columns ``category`` and
            ``source``. A category is an id or a name of the data; a class is an index (0 to
            ``source_classes`` - 1, no background) or a name; an empty one is left out.
        category_ids: Category id of each of the model's classes.
        category_names: Name by category id, as far as known.
        source_classes: Number of classes of the checkpoint.
        source_names: Their names, where known.

    Returns:
        For each of the model's classes the index of the checkpoint's class; None: not in the file.

    Raises:
        InputError: Names the file, the entry and what is legal.
    """
    path = Path(path)
    class_map: list[int | None] = [None] * len(category_ids)
    seen = set()
    own_names = {category: category_names.get(category, "") for category in category_ids}
    for category, source in read_entries(path):
        where = f"category_map {path}: category {category!r}"
        position = _position(where, category, list(category_ids), list(own_names.values()))
        if position in seen:
            raise InputError(f"{where} is given twice")
        seen.add(position)
        if source is not None:
            where = f"{where}: class {source!r}"
            classes = range(source_classes)
            class_map[position] = _position(where, source, classes, source_names or ())
    return class_map


def read_entries(path: Path) -> list[tuple[int | str | None, int | str | None]]:
    """Read the pairs of a category and a class of a file; see ``read_category_map``."""
    refuse_special_file(path)
    if not path.is_file():
        raise InputError(f"category_map must be a file, got {path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = _read_csv(text) if path.suffix == ".csv" else _read_yaml(text)
    except Exception as error:  # a bad file can make the parsers fail in any way
        raise InputError(f"category_map {path}: {' '.join(str(error).split())}") from error
    if not pairs:
        raise InputError(
            f"category_map {path} must hold lines 'category: class' (YAML or JSON), or, as .csv, "
            f"the columns {','.join(CSV_COLUMNS)}"
        )
    for category, source in pairs:
        if isinstance(source, bool) or not isinstance(source, int | str | None):
            raise InputError(
                f"category_map {path}: category {printable(category)}: the class must be a whole "
                f"number or a name, got {_shown(source)}"
            )
    return [(_number(category), _number(source)) for category, source in pairs]


def _shown(value: object) -> str:
    # YAML's aliases can make a list of few bytes that fills the memory when it is printed.
    return repr(value) if isinstance(value, bool | float) else f"a {type(value).__name__}"


def _read_csv(text: str) -> list[tuple[Any, Any]]:
    rows = csv.DictReader(text.splitlines())
    if not set(CSV_COLUMNS) <= set(rows.fieldnames or ()):
        return []
    category, source = CSV_COLUMNS
    return [((row[category] or "").strip(), (row[source] or "").strip() or None) for row in rows]


def _read_yaml(text: str) -> list[tuple[Any, Any]]:
    """Return the entries of a mapping in YAML (JSON is YAML), repeated keys included."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if not isinstance(node, yaml.MappingNode):
        return []
    return [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]


def _number(value: Any) -> Any:
    """Parse a number that CSV, or a key of JSON's, spells as text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _position(
    where: str, value: int | str | None, numbers: Sequence[int], names: Sequence[str]
) -> int:
    """Return the position of a number or a name."""
    if isinstance(value, int) and value in numbers:
        return numbers.index(value)
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    if isinstance(value, str) and names:
        near = difflib.get_close_matches(value, names, n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise InputError(f"{where}: no such name{hint}")
    if isinstance(value, str):
        raise InputError(f"{where} must be {_span(numbers)}: the checkpoint names no classes")
    raise InputError(f"{where} must be {_span(numbers)}, or a name")


def _span(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    whole = numbers == list(range(len(numbers)))
    return f"from 0 to {len(numbers) - 1}" if whole else f"one of {', '.join(map(str, numbers))}"
