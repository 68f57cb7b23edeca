"""Categories by name in the settings of post-processing: ``shoe`` in place of 23."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.annotations.categories import IMATERIALIST_2019_LABELS, LabelDescriptions
from src.annotations.imaterialist_csv import FILLER_CATEGORY, is_competition
from src.errors import InputError
from src.io import printable
from src.postprocess.setting_types import CategoryIds
from src.postprocess.settings import PostprocessSettings, keys_of_kind
from src.predictions.store import PredictionStore

SHOWN = 6
_COMPETITION = IMATERIALIST_2019_LABELS.category_names


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
        """Whether they are the competition's, the filler's category among them."""
        return is_competition(self.names)

    @property
    def has_only_competition_names(self) -> bool:
        """Whether none of them is another than the competition's of the same id."""
        return self.names.items() <= _COMPETITION.items()

    def id_of(self, key: str, name: str) -> int:
        """Return the id of the category of this name.

        Where none has it exactly, case and spaces at the ends do not count.

        Args:
            key: The setting that has the name, for messages.
            name: As given.

        Raises:
            InputError: No category has the name, or several have it.
        """
        if not self.names:
            raise InputError(
                f"postprocess.{key} must be category ids here, got {name!r}: {self.source} has no "
                "names; annotations=... brings them"
            )
        found = [number for number, known in self.names.items() if known == name]
        found = found or [number for number, known in self.names.items() if _same(known, name)]
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
        """Return some categories in words: ``23 shoe, 31 sleeve``; of many, the first."""
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
    """Return the category names of the ground truth, of the store itself, or of the competition.

    The competition's are taken where nothing else is known and the ids are among its 46 with 23.

    Args:
        store: The predictions.
        ground_truth: The labels of the ground truth; None where none is given.
        source: The ground truth, for messages.
    """
    if ground_truth is not None:
        return CategoryNames(ground_truth.category_names, source)
    if store.classes.names:
        return CategoryNames(store.classes.by_id, str(store.directory))
    if FILLER_CATEGORY in store.category_ids and set(store.category_ids) <= _COMPETITION.keys():
        names = {number: _COMPETITION[number] for number in store.category_ids}
        return CategoryNames(names, "iMaterialist (Fashion) 2019")
    return CategoryNames({}, str(store.directory))


def named_settings(values: Mapping[str, Any], categories: CategoryNames) -> PostprocessSettings:
    """Return settings whose categories may be named as well as numbered.

    Args:
        values: Of the configuration group ``postprocess``.
        categories: Of the predictions.

    Raises:
        InputError: A value is not legal, a name is unknown or ambiguous, or a group stands for
            categories that the data does not have.
    """
    settings = PostprocessSettings.from_config(values, categories.id_of)
    is_competition = categories.is_competition or categories.has_only_competition_names
    for key in keys_of_kind(CategoryIds):
        groups = [entry for entry in getattr(settings, key) if isinstance(entry, str)]
        if groups and not is_competition:
            raise InputError(
                f"postprocess.{key} must be ids or names of categories of {categories.source}, got "
                f"{groups[0]}: that stands for categories of iMaterialist (Fashion); its own are "
                f"{categories.describe(sorted(categories.names))}"
            )
    return settings


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check all of the settings but names of categories, and return them as plain JSON values.

    Raises:
        InputError: As for ``PostprocessSettings``.
    """
    return PostprocessSettings.from_config(values, lambda _key, name: name).to_dict()


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
