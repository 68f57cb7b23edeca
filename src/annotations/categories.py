"""Categories and attributes of a data set, and the classes that a model learns of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.io import printable, read_json, write_json

LARGEST_ID = 32767  # ids are stored as int16


@dataclass(frozen=True, slots=True)
class Category:
    """A category of instances; ``id`` (0 to 32767) is the data set's, not a model's label index."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property that an instance may have; ``id`` is the data set's, and ids may have gaps."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class LabelDescriptions:
    """The categories and attributes of a data set, each in ascending order of id.

    Where the data set names no attributes, their ids are not checked.
    """

    categories: tuple[Category, ...]
    attributes: tuple[Attribute, ...] = ()

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Every category id, ascending."""
        return tuple(self.category_names)

    @cached_property
    def category_names(self) -> dict[int, str]:
        """Name by category id."""
        return {category.id: category.name for category in self.categories}

    @cached_property
    def attribute_names(self) -> dict[int, str]:
        """Name by attribute id."""
        return {attribute.id: attribute.name for attribute in self.attributes}


def label_descriptions_from_json(content: Any, where: str) -> LabelDescriptions:
    """Check and sort the ``categories`` and ``attributes`` of a label file or a COCO file.

    Args:
        content: Parsed JSON object with a list ``categories`` and, optionally, a list
            ``attributes``; each entry has an integer ``id``, a text ``name``, and optionally a text
            ``supercategory``.
        where: The file, for messages.

    Raises:
        InputError: A list is missing or empty, or an entry is malformed or repeats an id.
    """
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list):
        raise InputError(
            f"categories must be a list of every category with id and name, got none ({where})"
        )
    if not categories:
        raise InputError(f"categories must hold at least one category, got an empty list ({where})")
    attributes = content.get("attributes") or []
    if not isinstance(attributes, list):
        raise InputError(f"attributes must be a list, got {attributes!r:.60} ({where})")
    return LabelDescriptions(
        tuple(Category(*entry) for entry in _entries(categories, where, "categories")),
        tuple(Attribute(*entry) for entry in _entries(attributes, where, "attributes")),
    )


def _entries(entries: list[Any], where: str, key: str) -> list[tuple[int, str, str]]:
    found: dict[int, tuple[int, str, str]] = {}
    for position, entry in enumerate(entries):
        place = f"{key}[{position}]"
        if not isinstance(entry, dict):
            raise InputError(
                f"{place} must be an object with id and name, got {entry!r:.60} ({where})"
            )
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not 0 <= number <= LARGEST_ID:
            raise InputError(
                f"{place}: id must be a whole number from 0 to {LARGEST_ID}, got {number!r:.60} "
                f"({where})"
            )
        if not isinstance(name, str) or not name:
            raise InputError(f"{place}: name must be a text, got {name!r:.60} ({where})")
        if number in found:
            other = f"{found[number][1]!r:.60}"
            raise InputError(
                f"{place}: id must differ from that of {other}, got {number} ({where})"
            )
        found[number] = (number, name, str(entry.get("supercategory") or ""))
    return [found[number] for number in sorted(found)]


def label_descriptions_to_json(labels: LabelDescriptions) -> dict[str, list[dict[str, Any]]]:
    """Return the lists ``categories`` and ``attributes`` of label files and COCO files."""
    return {
        "categories": [asdict(entry) for entry in labels.categories],
        "attributes": [asdict(entry) for entry in labels.attributes],
    }


def read_label_descriptions(path: str | Path) -> LabelDescriptions:
    """Read a ``label_descriptions.json`` of the competition's layout.

    Raises:
        InputError: The file is missing, not UTF-8, not JSON, or its lists are malformed.
    """
    return label_descriptions_from_json(read_json(path), where=str(path))


def write_label_descriptions(labels: LabelDescriptions, path: str | Path) -> None:
    """Write a ``label_descriptions.json`` that ``read_label_descriptions`` reads back equal."""
    write_json(path, label_descriptions_to_json(labels), indent=1, sort_keys=False)


# The competition's own label description, with the instances of its training set.
_FILE_2019 = Path(__file__).with_name("imaterialist_2019.json")
IMATERIALIST_2019_LABELS = read_label_descriptions(_FILE_2019)
IMATERIALIST_2019_CATEGORIES = IMATERIALIST_2019_LABELS.categories
"""The 46 categories: 27 garments and accessories (0-26) and 19 garment parts (27-45).

The 92 attributes have ids 0-91; the 2020 edition numbers its 294 attributes differently.
"""
CATEGORY_INSTANCES: dict[int, int] = {
    entry["id"]: entry["instances"]
    for entry in json.loads(_FILE_2019.read_text("utf-8"))["categories"]
}
"""Training instances by category id, for frequencies; versions of the data differ in them."""

CLASS_NAMES_KEY = "class_names"  # in a checkpoint's hyper-parameters and a store's settings
MAX_SHOWN = 5


@dataclass(frozen=True)
class ClassList:
    """A model's classes in its order.

    Attributes:
        category_ids: The data's id of each class.
        names: The data's name of each class; None: not known.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, labels: LabelDescriptions) -> ClassList:
        """Return all categories of a data set, ascending by id."""
        return cls(labels.category_ids, tuple(labels.category_names.values()))

    @classmethod
    def from_plain(cls, category_ids: Sequence[int], names: Any) -> ClassList:
        """Return the classes of a file; names that are not a text for each count as unknown."""
        is_known = isinstance(names, list | tuple) and len(names) == len(category_ids)
        is_known = is_known and all(isinstance(name, str) for name in names)
        return cls(tuple(category_ids), tuple(names) if is_known else None)

    @property
    def by_id(self) -> dict[int, str]:
        """The name of each class by category id, empty where it is not known."""
        return dict(zip(self.category_ids, self.names or [""] * len(self), strict=True))

    def only(self, category_ids: Collection[int]) -> ClassList:
        """Return the classes that are among some categories."""
        kept = {key: name for key, name in self.by_id.items() if key in category_ids}
        return ClassList(tuple(kept), tuple(kept.values()) if self.names else None)

    def difference(self, other: ClassList) -> str | None:
        """Return the first difference to another list of classes in words; None for none."""
        if len(self) != len(other):
            return f"{len(self)} classes ({self}) there, {len(other)} here ({other})"
        pairs = zip(self.by_id.items(), other.by_id.items(), strict=True)
        for place, ((one, name), (two, other_name)) in enumerate(pairs):
            if one != two or (name and other_name and name != other_name):
                there, here = f"{one} {printable(name)}", f"{two} {printable(other_name)}"
                return f"class {place} is category {there.strip()} there, {here.strip()} here"
        return None

    def __len__(self) -> int:
        return len(self.category_ids)

    def __str__(self) -> str:
        entries = [f"{key} {printable(name)}".strip() for key, name in self.by_id.items()]
        shown = ", ".join(entries[:MAX_SHOWN])
        return shown if len(entries) <= MAX_SHOWN else f"{shown}, ... ({len(entries)} in all)"


def classes_of_data(
    labels: LabelDescriptions,
    instances: Mapping[int, int],
    *,
    num_classes: int | None,
    category_ids: Sequence[int] | None,
    source: str,
) -> ClassList:
    """Return the classes of a model that learns from a data set.

    They are all categories that the file lists, ascending by id, so that all files of a data set
    give the same classes. Where the number of classes given is that of the categories with
    instances, the others are left out (the root category of some exports).

    Args:
        labels: The data's categories.
        instances: Number of instances by category id.
        num_classes: As given; None: the data's.
        category_ids: As given, in the model's order; None: the data's.
        source: The annotation file, for messages.

    Raises:
        InputError: A given value contradicts the data; names the key and both values.
    """
    names = labels.category_names
    listed = ClassList.of(labels)
    with_instances = tuple(category for category in names if instances.get(category))
    chosen = listed.category_ids
    if category_ids is not None:
        chosen = tuple(category_ids)
        unlisted = [category for category in chosen if category not in names]
        if unlisted or len(set(chosen)) < len(chosen):
            wrong = f"{unlisted[0]} is none of them" if unlisted else "one is given twice"
            raise InputError(
                f"module.category_ids must be different categories of {source} ({listed}), got "
                f"{list(chosen)}: {wrong}; leave it out to take the file's"
            )
        if lost := [category for category in with_instances if category not in chosen]:
            raise InputError(
                f"module.category_ids must have every category with instances in {source}, got "
                f"{list(chosen)}: {lost[0]} ({printable(names[lost[0]])}, {instances[lost[0]]} "
                "instances) is not there; leave it out to take the file's"
            )
    elif num_classes == len(with_instances):
        chosen = with_instances
    if num_classes is not None and num_classes != len(chosen):
        of = "in module.category_ids" if category_ids else f"of {source} ({listed})"
        raise InputError(
            f"module.num_classes must be {len(chosen)}, the number of categories {of}, got "
            f"{num_classes}; leave it out to take the data's"
        )
    return ClassList(chosen, tuple(names[category] for category in chosen))


def check_categories(
    classes: ClassList,
    labels: LabelDescriptions,
    *,
    instances: Mapping[int, int],
    model: str,
    data: str,
) -> list[str]:
    """Compare the classes of a model, or of its predictions, with a data set's categories.

    Args:
        classes: The model's.
        labels: The data's. Names of 2019 stand for names that a file lacks, and are not compared.
        instances: Number of instances by category id of the data.
        model: Name of the model or its predictions in messages.
        data: Name of the data in messages.

    Returns:
        Notes for the user, a sentence each.

    Raises:
        InputError: A class is not a category of the data, or has the name of another one there.
    """
    names = labels.category_names
    listed, own = ClassList.of(labels), classes.by_id
    for category in classes.category_ids:
        if category not in names:
            raise InputError(
                f"the categories of {model} must be among those of {data} ({listed}), got "
                f"{classes.only([category])}"
            )
    notes = []
    if classes.names and labels.categories != IMATERIALIST_2019_CATEGORIES:
        renamed = [category for category in own if own[category] != names[category]]
        for category in (c for c in renamed if own[c] in names.values()):
            raise InputError(
                f"the categories of {model} must be those of {data}, got category {category} "
                f"named {printable(own[category])}, which is {printable(names[category])} in {data}"
            )
        if renamed:
            category = renamed[0]
            notes.append(
                f"{len(renamed)} categories are named otherwise in {data} than in {model}: "
                f"{category} is {printable(names[category])}, {printable(own[category])} there"
            )
    lost = [c for c, count in instances.items() if count and c not in classes.category_ids]
    if lost:
        notes.append(
            f"{model}: no class for {len(lost)} categories of {data} ({listed.only(lost)}), whose "
            "instances count as missed"
        )
    return notes


def class_membership(category_sets: Sequence[Collection[int]]) -> npt.NDArray[np.bool_]:
    """Return which of N images carries which of C classes, shape (N, C), classes ascending."""
    categories = sorted(set().union(*category_sets))
    membership = np.zeros((len(category_sets), len(categories)), dtype=bool)
    for row, present in enumerate(category_sets):
        membership[row, np.searchsorted(categories, sorted(present))] = True
    return membership


def stratified_folds(
    category_sets: Sequence[Collection[int]], *, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Deal images into folds with nearly the same share of each class (Sechidis et al. 2011).

    Args:
        category_sets: The category ids of each of N images.
        folds: Number of folds, 2 or more.
        seed: Seed of the stratifier.

    Returns:
        Shape (N,), int64, the fold of each image, from 0.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # scikit-learn takes a second

    # Two columns of False: the stratifier takes a single column for a binary target and refuses it.
    membership = np.pad(class_membership(category_sets), ((0, 0), (0, 2)))
    stratifier = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(membership), dtype=np.int64)
    for fold, (_, held_out) in enumerate(stratifier.split(membership, membership)):
        fold_of[held_out] = fold
    return fold_of
