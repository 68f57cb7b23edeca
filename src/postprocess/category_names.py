"""Categories by name in the settings of post-processing: ``shoe`` in place of 23."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from src.annotations.categories import IMATERIALIST_2019_LABELS, LabelDescriptions
from src.annotations.imaterialist_csv import FILLER_CATEGORY, is_competition
from src.errors import InputError
from src.io import printable
from src.postprocess.setting_checks import check_share
from src.postprocess.settings import CATEGORY_GROUPS, PostprocessSettings, settings_from
from src.predictions.store import PredictionStore

PER_CLASS_KEYS = ("score_threshold_per_class", "mask_threshold_per_class")
REMOVED = "remove_categories"
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
            InputError: no category has the name, or several have it.
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
    store: PredictionStore, truth: LabelDescriptions | None, source: str
) -> CategoryNames:
    """Return the names of a store's categories: the truth's, the store's own, or the competition's.

    The competition's are taken where nothing else is known and the ids are among its 46 with 23.

    Args:
        store: The predictions.
        truth: The labels of the ground truth; None where none is given.
        source: The ground truth, for messages.
    """
    if truth is not None:
        return CategoryNames(truth.category_names, source)
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
        InputError: a value is not legal, a name is unknown or ambiguous, or a group stands for
            categories that the data does not have.
    """
    settings = settings_from(_number_categories(values, categories))
    is_competition = categories.is_competition or categories.has_only_competition_names
    groups = [entry for entry in settings.remove_categories if isinstance(entry, str)]
    if groups and not is_competition:
        raise InputError(
            f"postprocess.{REMOVED} must be ids or names of categories of {categories.source}, got "
            f"{groups[0]}: that stands for categories of iMaterialist (Fashion); its own are "
            f"{categories.describe(sorted(categories.names))}"
        )
    return settings


def check_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check all of the settings but names of categories, and return them as plain JSON values.

    Raises:
        InputError: as for ``settings_from``.
    """
    unnamed, named = _split_names(values)
    plain = asdict(settings_from(unnamed))
    for key in PER_CLASS_KEYS:
        for name, value in named[key].items():
            check_share(f"{key}.{name}", value, above_zero=key.startswith("mask"))
        plain[key] |= named[key]
    plain[REMOVED] = [*plain[REMOVED], *named[REMOVED]]
    return plain


def _number_categories(values: Mapping[str, Any], categories: CategoryNames) -> dict[str, Any]:
    """The values with ids in place of names."""
    unnamed, named = _split_names(values)
    for key in PER_CLASS_KEYS:
        for name, value in named[key].items():
            number = categories.id_of(key, name)
            if number in unnamed[key]:
                raise InputError(
                    f"postprocess.{key} must have a category once, got {number} and {name!r}"
                )
            unnamed[key][number] = value
    if named[REMOVED]:
        unnamed[REMOVED] += [categories.id_of(REMOVED, name) for name in named[REMOVED]]
    return unnamed


def _split_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values without those of named categories, and those; of the keys that may have any."""
    unnamed, named = dict(values), dict[str, Any]({key: {} for key in PER_CLASS_KEYS})
    named[REMOVED] = []
    for key in PER_CLASS_KEYS:
        if isinstance(given := values.get(key), Mapping):
            named[key] = {name: value for name, value in given.items() if _is_name(name)}
            unnamed[key] = {
                int(number) if isinstance(number, str) else number: value
                for number, value in given.items()
                if not _is_name(number)
            }
    given = values.get(REMOVED)
    if isinstance(given, Sequence) and not isinstance(given, str):
        named[REMOVED] = [
            entry for entry in given if _is_name(entry) and entry not in CATEGORY_GROUPS
        ]
        unnamed[REMOVED] = [
            int(entry) if isinstance(entry, str) and entry not in CATEGORY_GROUPS else entry
            for entry in given
            if entry not in named[REMOVED]
        ]
    return unnamed, named


def _is_name(entry: Any) -> bool:
    """Whether a category is named: digits alone are its id, as a command line has them."""
    return isinstance(entry, str) and not entry.strip().isdecimal()


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
