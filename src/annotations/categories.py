"""What the objects are: categories, attributes, and the labels of iMaterialist (Fashion) 2019."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from src.annotations.label_tables import ATTRIBUTE_GROUPS, CATEGORY_ROWS
from src.errors import InputError
from src.io import refuse_special_file, write_json

LARGEST_ID = 32767  # ids are stored as int16


@dataclass(frozen=True, slots=True)
class Category:
    """A class of objects. ``id`` is the data's own (0 to 32767), not a model's label index."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property an object may have. ``id`` is the data's own; ids may have gaps."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class LabelDescriptions:
    """The categories and attributes of a data set, each in ascending order of id.

    ``attributes`` may be empty: the data set names none, and attribute ids are then not checked.
    """

    categories: tuple[Category, ...]
    attributes: tuple[Attribute, ...] = ()

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Every category id, ascending."""
        return tuple(category.id for category in self.categories)

    @cached_property
    def category_names(self) -> dict[int, str]:
        """Name by category id."""
        return {category.id: category.name for category in self.categories}

    @cached_property
    def attribute_names(self) -> dict[int, str]:
        """Name by attribute id."""
        return {attribute.id: attribute.name for attribute in self.attributes}


IMATERIALIST_2019_CATEGORIES: tuple[Category, ...] = tuple(
    Category(id=index, name=name, supercategory=supercategory)
    for index, (name, supercategory, _) in enumerate(CATEGORY_ROWS)
)
"""The 46 categories: 27 garments and accessories (0-26) and 19 garment parts (27-45)."""

CATEGORY_INSTANCES: dict[int, int] = {
    index: instances for index, (_, _, instances) in enumerate(CATEGORY_ROWS)
}
"""Training instances by category id, for frequencies; versions of the data differ in them."""

ATTRIBUTES: tuple[Attribute, ...] = tuple(
    Attribute(id=index, name=name, supercategory=supercategory)
    for index, (supercategory, name) in enumerate(
        (supercategory, name) for supercategory, names in ATTRIBUTE_GROUPS for name in names
    )
)
"""The 92 attributes of 2019 (ids 0-91). The 2020 edition numbers its 294 attributes differently."""

IMATERIALIST_2019_LABELS = LabelDescriptions(
    categories=IMATERIALIST_2019_CATEGORIES, attributes=ATTRIBUTES
)


def label_descriptions_from_json(content: Any, where: str) -> LabelDescriptions:
    """Check and sort the ``categories`` and ``attributes`` of a label file or a COCO file.

    Args:
        content: parsed JSON object with a list ``categories`` and, optionally, a list
            ``attributes``; each entry has an integer ``id`` (0 to 32767), a text ``name``, and
            optionally a text ``supercategory``.
        where: the file, for messages.

    Raises:
        InputError: a list is missing or empty, or an entry is malformed or repeats an id.
    """
    if not isinstance(content, dict) or not isinstance(content.get("categories"), list):
        raise InputError(
            f'{where}: no list "categories"; it must name every category with id and name'
        )
    if not content["categories"]:
        raise InputError(
            f'{where}: the list "categories" is empty; at least one category is needed'
        )
    attributes = content.get("attributes") or []
    if not isinstance(attributes, list):
        raise InputError(
            f'{where}: "attributes" is a {type(attributes).__name__}; it must be a list'
        )
    return LabelDescriptions(
        categories=tuple(
            Category(*entry) for entry in _entries(content["categories"], where, "categories")
        ),
        attributes=tuple(Attribute(*entry) for entry in _entries(attributes, where, "attributes")),
    )


def _entries(entries: list[Any], where: str, key: str) -> list[tuple[int, str, str]]:
    found: dict[int, tuple[int, str, str]] = {}
    for position, entry in enumerate(entries):
        place = f"{where}: {key}[{position}]"
        if not isinstance(entry, dict):
            raise InputError(f"{place} is {entry!r:.60}; it must be an object with id and name")
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not 0 <= number <= LARGEST_ID:
            raise InputError(
                f"{place} has id {number!r:.60}; it must be an integer from 0 to {LARGEST_ID}"
            )
        if not isinstance(name, str) or not name:
            raise InputError(f"{place} has name {name!r:.60}; it must be a text")
        if number in found:
            raise InputError(f"{place} repeats id {number}, which {found[number][1]!r} has already")
        found[number] = (number, name, str(entry.get("supercategory") or ""))
    return [found[number] for number in sorted(found)]


def label_descriptions_to_json(labels: LabelDescriptions) -> dict[str, list[dict[str, Any]]]:
    """The ``categories`` and ``attributes`` lists, as label files and COCO files have them."""
    return {
        "categories": [
            {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory}
            for entry in labels.categories
        ],
        "attributes": [
            {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory}
            for entry in labels.attributes
        ],
    }


def read_label_descriptions(path: str | Path) -> LabelDescriptions:
    """Read a ``label_descriptions.json`` of the competition's layout.

    Raises:
        InputError: the file is missing, not UTF-8, not JSON, or its lists are malformed.
    """
    refuse_special_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the label descriptions ({error.strerror})"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error})") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    return label_descriptions_from_json(content, where=str(path))


def write_label_descriptions(labels: LabelDescriptions, path: str | Path) -> None:
    """Write a ``label_descriptions.json`` that ``read_label_descriptions`` reads back equal."""
    write_json(path, label_descriptions_to_json(labels), indent=1, sort_keys=False)
