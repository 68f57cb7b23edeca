"""Kinds of settings that name categories: thresholds of single ones, and lists of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from src.errors import InputError
from src.validation import Legal, PositiveShare, Share, shown

# Groups of categories that a list takes by name. The winner removed the classes that carry
# attributes (S12), which were not predicted, and, at first, the garment parts with a few attributes
# that are noise.
CATEGORY_GROUPS: Mapping[str, tuple[int, ...]] = {
    "attribute_classes": tuple(range(13)),
    "attribute_classes_and_parts": (*range(13), 27, 28, 33),
}
FindCategory = Callable[[str, str], Any]
"""The id of the category that a key names. Given to pydantic as the context of a check."""


class ByCategory:
    """Annotation of a setting: values of single categories."""


class CategoryIds:
    """Annotation of a setting: a list of categories."""


def _id_of(entry: Any, info: ValidationInfo) -> Any:
    find: FindCategory | None = info.context
    if isinstance(entry, str) and entry.strip().isdecimal():
        return int(entry)  # as a command line has it
    if isinstance(entry, str) and find is not None:
        return find(str(info.field_name), entry)
    if isinstance(entry, bool) or not isinstance(entry, int) or entry < 0:
        raise InputError(
            f"postprocess.{info.field_name} must be category ids (0, 1, 2, ...), got {shown(entry)}"
        )
    return entry


def _ids_of_keys(values: Any, info: ValidationInfo) -> Any:
    if not isinstance(values, Mapping):
        return {} if values is None else values
    found: dict[Any, Any] = {}
    names: dict[Any, Any] = {}
    for entry, value in values.items():
        category = _id_of(entry, info)
        if category in found:
            raise InputError(
                f"postprocess.{info.field_name} must have a category once, got "
                f"{names[category]!r} and {entry!r}"
            )
        found[category], names[category] = value, entry
    return found


def _ids_of_entries(values: Any, info: ValidationInfo) -> Any:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(
            f"postprocess.{info.field_name} must be a list of categories, as [0,1,2], got "
            f"{shown(values)}"
        )
    is_group = [isinstance(entry, str) and entry in CATEGORY_GROUPS for entry in values]
    return [
        entry if stays else _id_of(entry, info)
        for entry, stays in zip(values, is_group, strict=True)
    ]


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
