"""Checks of single values of the configuration group ``postprocess``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from src.errors import InputError


def check_share(key: str, value: Any, *, above_zero: bool = False) -> None:
    """Refuse what is no number from 0 (or above it) to 1.

    Raises:
        InputError: names the key, the value and what is legal.
    """
    if not _is_number(value) or not 0 <= value <= 1 or (above_zero and value == 0):
        low = "above 0" if above_zero else "from 0"
        raise InputError(f"postprocess.{key}={value!r}: a number {low} to 1 wanted")


def check_shares_by_category(
    key: str, values: Any, *, above_zero: bool = False
) -> dict[int, float]:
    """Thresholds by category id; none for None. Ids may be texts, as a command line has them.

    Raises:
        InputError: no mapping, an entry whose name is no category id, or a value out of range.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"postprocess.{key}={values!r}: a threshold by category id wanted, as "
            "{23: 0.6, 10: 0.4}; null for none"
        )
    checked: dict[int, float] = {}
    for category, value in values.items():
        number = int(category) if isinstance(category, str) and category.isdecimal() else category
        if not is_whole(number, 0):
            raise InputError(f"postprocess.{key}: {category!r} is no category id (0, 1, 2, ...)")
        check_share(f"{key}.{number}", value, above_zero=above_zero)
        checked[number] = float(value)
    return checked


def check_count(key: str, value: Any) -> None:
    """Refuse what is neither a whole number of at least 1 nor None.

    Raises:
        InputError: names the key, the value and what is legal.
    """
    if value is not None and not is_whole(value, 1):
        raise InputError(
            f"postprocess.{key}={value!r}: a whole number of at least 1 wanted, or null for no cap"
        )


def check_choice(key: str, value: Any, legal: Sequence[str]) -> None:
    """Refuse what is none of the legal words.

    Raises:
        InputError: names the key, the value and what is legal.
    """
    if value not in legal:
        raise InputError(f"postprocess.{key}={value!r}: one of {', '.join(legal)} wanted")


def check_categories(key: str, categories: Any, groups: Sequence[str] = ()) -> None:
    """Refuse what is no list of category ids and names of groups of them.

    Raises:
        InputError: names the key, the value and what is legal.
    """
    if isinstance(categories, str) or not isinstance(categories, Sequence):
        raise InputError(f"postprocess.{key}={categories!r}: a list of category ids, as [0,1,2]")
    for category in categories:
        if category not in groups and not is_whole(category, 0):
            raise InputError(f"postprocess.{key}: {category!r} is no category id (0, 1, 2, ...)")


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least ``least``; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_positive(value: Any) -> bool:
    """Whether a value is a finite number above 0."""
    return _is_number(value) and 0 < value < float("inf")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
