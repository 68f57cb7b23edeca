"""Categories in the settings of post-processing: kinds of settings, and names in place of ids."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from src.annotations.categories import IMATERIALIST_2019_LABELS, ClassList, LabelDescriptions
from src.annotations.imaterialist_csv import FILLER_CATEGORY, is_competition
from src.errors import InputError
from src.io import printable
from src.predictions.store import PredictionStore
from src.validation import Legal, PositiveShare, Share, shown

SHOWN = 6
LARGEST_ID = (1 << 31) - 1
_COMPETITION = IMATERIALIST_2019_LABELS.category_names
# Groups of categories that a list may name. The winner removed the classes that carry attributes
# (S12), because attributes were not predicted; earlier also garment parts with few, noisy ones.
CATEGORY_GROUPS: Mapping[str, tuple[int, ...]] = {
    "attribute_classes": tuple(range(13)),
    "attribute_classes_and_parts": (*range(13), 27, 28, 33),
}
FindCategory = Callable[[str, str], Any]
"""Return the id of a category, given the key that names it and the name: pydantic's context."""


class ByCategory:
    """Annotation of a setting: values of single categories."""


class CategoryIds:
    """Annotation of a setting: a list of categories."""


def _id_of(entry: Any, info: ValidationInfo) -> Any:
    find: FindCategory | None = info.context
    if isinstance(entry, str) and entry.strip().isdecimal() and len(entry) < 20:
        entry = int(entry)  # as a command line has it
    if isinstance(entry, str) and find is not None:
        return find(str(info.field_name), entry)
    if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= LARGEST_ID:
        raise InputError(
            f"postprocess.{info.field_name} must be category ids (0, 1, 2, ...), got {shown(entry)}"
        )
    return entry


def _ids_of_keys(values: Any, info: ValidationInfo) -> Any:
    if not isinstance(values, Mapping):
        return {} if values is None else values
    names: dict[Any, Any] = {}
    for entry in values:
        category = _id_of(entry, info)
        if category in names:
            raise InputError(
                f"postprocess.{info.field_name} must have a category once, got "
                f"{names[category]!r} and {entry!r}"
            )
        names[category] = entry
    return {category: values[entry] for category, entry in names.items()}


def _ids_of_entries(values: Any, info: ValidationInfo) -> Any:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(
            f"postprocess.{info.field_name} must be a list of categories, as [0,1,2], got "
            f"{shown(values)}"
        )
    groups = [entry for entry in values if isinstance(entry, str) and entry in CATEGORY_GROUPS]
    return [entry if entry in groups else _id_of(entry, info) for entry in values]


_THRESHOLDS = Legal("a threshold by category, as {23: 0.6, 10: 0.4}, or null for none")
ShareByCategory = Annotated[
    dict[Any, Share], _THRESHOLDS, BeforeValidator(_ids_of_keys), ByCategory()
]
"""Numbers from 0 to 1 by category id."""
PositiveShareByCategory = Annotated[
    dict[Any, PositiveShare], _THRESHOLDS, BeforeValidator(_ids_of_keys), ByCategory()
]
"""Numbers above 0, at most 1, by category id."""
Categories = Annotated[list[Any], BeforeValidator(_ids_of_entries), CategoryIds()]
"""Category ids, and names of groups of them."""


@dataclass(frozen=True, slots=True)
class CategoryNames:
    """The names of a data set's categories.

    Args:
        names: Name by category id; empty where names are not known.
        source: Where they come from, for messages.
    """

    names: Mapping[int, str]
    source: str

    @property
    def is_competition(self) -> bool:
        """Whether they are the competition's, including the filler's category."""
        return is_competition(self.names)

    @property
    def has_only_competition_names(self) -> bool:
        """Whether each is the competition's name of its id."""
        return self.names.items() <= _COMPETITION.items()

    def id_of(self, key: str, name: str) -> int:
        """Return the id of a category, given the setting ``key`` that names it and the name.

        If no name matches exactly, case and surrounding spaces are ignored.

        Raises:
            InputError: No category has the name, or several have it.
        """
        if not self.names:
            raise InputError(
                f"postprocess.{key} must be category ids here, got {name!r}: {self.source} has no "
                "names; annotations=... provides them"
            )
        found = [number for number, known in self.names.items() if known == name]
        wanted = name.strip().casefold()
        found = found or [
            id_ for id_, known in self.names.items() if known.strip().casefold() == wanted
        ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = " and ".join(map(str, found))
            raise InputError(
                f"postprocess.{key} must name one category, got {name!r}, the name of {ids} in "
                f"{self.source}; give the id"
            )
        raise InputError(
            f"postprocess.{key} must be ids or names of categories of {self.source}, got {name!r}; "
            f"near ones: {self.describe(self._near(name) or sorted(self.names))}"
        )

    def describe(self, category_ids: Sequence[int]) -> str:
        """Return categories as text, at most the first six: ``23 shoe, 31 sleeve``."""
        shown = [
            f"{number} {printable(self.names.get(number, ''))}".strip() for number in category_ids
        ]
        more = len(shown) - SHOWN
        return ", ".join(shown[:SHOWN]) + (f" and {more} others" if more > 0 else "")

    def _near(self, name: str) -> list[int]:
        wanted = name.strip().casefold()
        by_text = {known.casefold(): number for number, known in self.names.items()}
        near = [number for text, number in by_text.items() if wanted in text or text in wanted]
        close = difflib.get_close_matches(wanted, list(by_text), n=3)
        return list(dict.fromkeys([*near, *(by_text[text] for text in close)]))[:SHOWN]


def names_for(
    store: PredictionStore, ground_truth: LabelDescriptions | None, source: str
) -> CategoryNames:
    """Return the category names of the ground truth, else of the store, else of the competition.

    The competition's are used only where the ids are among its 46 and 23 is one of them.

    Args:
        store: The predictions.
        ground_truth: The labels of the ground truth; None where there is none.
        source: The ground truth, for messages.
    """
    if ground_truth is not None:
        return CategoryNames(ground_truth.category_names, source)
    return names_of_classes(store.classes, str(store.directory))


def names_of_classes(classes: ClassList, source: str) -> CategoryNames:
    """Return the names of a model's classes, as ``names_for`` without ground truth.

    Args:
        classes: Of a store or a checkpoint.
        source: Where they come from, for messages.
    """
    if classes.names:
        return CategoryNames(classes.by_id, source)
    if FILLER_CATEGORY in classes.category_ids and set(classes.category_ids) <= _COMPETITION.keys():
        names = {number: _COMPETITION[number] for number in classes.category_ids}
        return CategoryNames(names, "iMaterialist (Fashion) 2019")
    return CategoryNames({}, source)
