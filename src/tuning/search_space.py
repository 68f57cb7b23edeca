"""Ranges and choices of the settings that a search may give values; without Optuna."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from src.errors import InputError
from src.postprocess.category_names import ByCategory
from src.postprocess.settings import PostprocessSettings, conditions, keys_of_kind, setting_fields
from src.validation import shown

if TYPE_CHECKING:
    import optuna

_RANGE_WORDS = "a range, as 0.1 to 0.9 by 0.05"
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_RANGE = re.compile(rf"{_NUMBER} to {_NUMBER} by {_NUMBER}")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high`` inclusive, ``step`` apart."""

    low: float
    high: float
    step: float

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} by {self.step:g}"

    @property
    def values(self) -> list[float]:
        """All numbers, ascending."""
        count = round((self.high - self.low) / self.step)
        return [_tidy(self.low + self.step * number) for number in range(count + 1)]


class SearchSpace:
    """Values that a search may try for some of the settings.

    Args:
        space: By key of ``postprocess``, a range (``0.1 to 0.9 by 0.05``) or a list of values; for
            a threshold per class, a range. Keys that are null or absent keep their value.
        base: The settings.

    Raises:
        InputError: A key cannot be searched, or a value is not legal.
    """

    def __init__(self, space: Mapping[str, Any], base: PostprocessSettings) -> None:
        self.base = base
        self._plain = base.to_dict()
        self._choices: dict[str, Range | list[Any]] = {}
        self.per_class: dict[str, list[float]] = {}
        per_class = keys_of_kind(ByCategory)
        for key, asked in space.items():
            if asked is None:
                continue
            if key not in (fields := setting_fields()):
                raise InputError(f"space must have keys among {', '.join(fields)}, got {key}")
            choices = _read(key, asked)
            if key not in per_class:
                self._choices[key] = choices
            elif isinstance(choices, Range):
                self.per_class[key] = choices.values
            else:
                raise InputError(f"space.{key} must be {_RANGE_WORDS}, got {shown(asked)}")
            self._check(key, choices)
        if not self._choices:
            raise InputError("space must have a range or a list for one key or more, got none")

    def suggest(self, trial: optuna.Trial) -> PostprocessSettings:
        """Return settings with Optuna's value of each key that matters beside the other values."""
        rules = conditions()
        decisive = [key for key in self._choices if key in {other for other, _ in rules.values()}]
        for key in dict.fromkeys([*decisive, *self._choices]):
            choices = self._choices[key]
            if key in rules:
                other, values = rules[key]
                if trial.params.get(other, self._plain[other]) not in values:
                    continue
            if not isinstance(choices, Range):
                # Optuna takes no lists: those of categories are JSON text
                texts = [json.dumps(one) if isinstance(one, list) else one for one in choices]
                trial.suggest_categorical(key, texts)
            elif isinstance(self._plain[key], int | None):
                trial.suggest_int(key, int(choices.low), int(choices.high), step=int(choices.step))
            else:
                trial.suggest_float(key, choices.low, choices.high, step=choices.step)
        return self.settings(trial.params)

    def settings(self, params: Mapping[str, Any]) -> PostprocessSettings:
        """Return the settings that Optuna's parameters stand for."""
        values = {
            key: json.loads(value) if isinstance(self._plain[key], list) else _tidy(value)
            for key, value in params.items()
        }
        return self.base.replace(**values)

    def _check(self, key: str, choices: Range | list[Any]) -> None:
        """Refuse values that the settings refuse."""
        values = [choices.low, choices.high] if isinstance(choices, Range) else choices
        if isinstance(choices, Range) and isinstance(self._plain[key], int | None):
            if not all(value.is_integer() for value in asdict(choices).values()):
                raise InputError(f"space.{key} must be a range of whole numbers, got {choices}")
            values = [int(value) for value in values]
        for value in values:
            try:
                self.base.replace(**{key: {0: value} if key in self.per_class else value})
            except InputError as error:
                raise InputError(f"space.{key}: {error}") from error


def _read(key: str, asked: Any) -> Range | list[Any]:
    if isinstance(asked, Sequence) and not isinstance(asked, str) and len(asked):
        return list(asked)
    match = _RANGE.fullmatch(asked) if isinstance(asked, str) else None
    if match is None:
        legal = f"{_RANGE_WORDS}, or a list of values"
        raise InputError(f"space.{key} must be {legal}, got {shown(asked)}")
    choices = Range(*map(float, match.groups()))
    steps = (choices.high - choices.low) / choices.step if choices.step > 0 else -1.0
    if steps < 0 or abs(steps - round(steps)) > 1e-6:
        raise InputError(
            f"space.{key} must be a range of whole steps above 0 from start to end, got {asked!r}"
        )
    return choices


def _tidy(value: Any) -> Any:
    """Round a sum of steps: 0.3 for 0.30000000000000004."""
    return round(value, 10) if isinstance(value, float) else value
