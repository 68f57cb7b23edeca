"""A model's classes and a data set's categories: which category a class is, whether both agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.annotations.categories import IMATERIALIST_2019_CATEGORIES, LabelDescriptions
from src.errors import InputError
from src.io import printable

CLASS_NAMES_KEY = "class_names"  # in a checkpoint's hyper-parameters and a store's settings
LISTED = 5


@dataclass(frozen=True)
class ClassList:
    """A model's classes in its order.

    Attributes:
        category_ids: the data's id of each class.
        names: the data's name of each class; None: not known.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, labels: LabelDescriptions) -> ClassList:
        """Return all categories of a data set, ascending by id."""
        return cls(labels.category_ids, tuple(labels.category_names.values()))

    @classmethod
    def from_plain(cls, category_ids: Sequence[int], names: Any) -> ClassList:
        """Return classes as a file has them; names that are no text for each are as if unknown."""
        is_known = isinstance(names, list | tuple) and len(names) == len(category_ids)
        is_known = is_known and all(isinstance(name, str) for name in names)
        return cls(tuple(category_ids), tuple(names) if is_known else None)

    @property
    def by_id(self) -> dict[int, str]:
        """The name of each class by category id, empty where it is not known."""
        return dict(zip(self.category_ids, self.names or [""] * len(self), strict=True))

    def only(self, category_ids: Collection[int]) -> ClassList:
        """Return those of the classes that are among some categories."""
        kept = {key: name for key, name in self.by_id.items() if key in category_ids}
        return ClassList(tuple(kept), tuple(kept.values()) if self.names else None)

    def difference(self, other: ClassList) -> str | None:
        """Say where another list of classes differs from this one; None where it does not."""
        if len(self) != len(other):
            return f"{len(self)} classes ({self}) there, {len(other)} here ({other})"
        pairs = zip(self.by_id.items(), other.by_id.items(), strict=True)
        for place, ((one, name), (two, other_name)) in enumerate(pairs):
            if one != two or (name and other_name and name != other_name):
                there, here = (f"{one} {printable(name)}", f"{two} {printable(other_name)}")
                return f"class {place} is category {there.strip()} there, {here.strip()} here"
        return None

    def __len__(self) -> int:
        return len(self.category_ids)

    def __str__(self) -> str:
        entries = [f"{key} {printable(name)}".strip() for key, name in self.by_id.items()]
        shown = ", ".join(entries[:LISTED])
        return shown if len(entries) <= LISTED else f"{shown}, ... ({len(entries)} in all)"


def classes_of_data(
    labels: LabelDescriptions,
    instances: Mapping[int, int],
    *,
    num_classes: int | None,
    category_ids: Sequence[int] | None,
    source: str,
) -> ClassList:
    """Return the classes of a model that learns from a data set.

    They are the categories that the file lists, in ascending order of id, whether or not one has
    an instance: so all files of a data set give the same classes. A number of classes that is that
    of the categories with instances leaves the others out (the root category of some exports).

    Args:
        labels: the data's categories.
        instances: how many instances each category has, by id.
        num_classes: as given; None: the data says.
        category_ids: as given, in the model's order; None: the data says.
        source: the annotation file, for messages.

    Raises:
        InputError: what is given contradicts the data; names the key and both values.
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
        raise InputError(
            f"module.num_classes must be {len(chosen)}, the number of categories "
            f"{'in module.category_ids' if category_ids else f'of {source} ({listed})'}, got "
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
        classes: the model's.
        labels: the data's categories. Names of 2019 stand for names that a file does not have, so
            they are not compared.
        instances: how many instances each category of the data has, by id.
        model: what messages call the model or its predictions.
        data: what messages call the data.

    Returns:
        What a user should know, a sentence each.

    Raises:
        InputError: a class is no category of the data, or has there the name of another class.
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
        if exchanged := [c for c in renamed if own[c] in names.values()]:
            category = exchanged[0]
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
