"""Search space: a range or a list of values for each key of ``postprocess``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna

from src.errors import InputError
from src.postprocess.settings import PostprocessSettings, settings_from

# Keys that one kind of NMS looks at and another does not: where it does not, they are not tried.
_OF_NMS_KINDS = {
    "nms_iou_threshold": ("class_wise", "class_agnostic", "soft_linear"),
    "soft_nms_sigma": ("soft_gaussian",),
    "soft_nms_min_score": ("soft_linear", "soft_gaussian"),
}
PER_CLASS_KEYS = ("score_threshold_per_class", "mask_threshold_per_class")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_RANGE = re.compile(rf"{_NUMBER} to {_NUMBER} by {_NUMBER}")
_NOT_SEARCHED = ("steps",)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both among them, ``step`` apart."""

    low: float
    high: float
    step: float

    @property
    def values(self) -> list[float]:
        """All of them, ascending."""
        count = round((self.high - self.low) / self.step)
        return [_tidy(self.low + self.step * number) for number in range(count + 1)]


class SearchSpace:
    """Values that a search may try for some of the settings.

    Args:
        space: By key of ``postprocess``, a range (``0.1 to 0.9 by 0.05``) or a list of values. For
            a threshold per class, a range. Keys with null, and those that are not there, keep their
            value.
        base: The settings.

    Raises:
        InputError: a key cannot be searched, or a value is not legal.
    """

    def __init__(self, space: Mapping[str, Any], base: PostprocessSettings) -> None:
        self.base = base
        self._plain: dict[str, Any] = asdict(base)
        self._choices: dict[str, Range | list[Any]] = {}
        self.per_class: dict[str, list[float]] = {}
        for key, asked in space.items():
            if asked is None:
                continue
            if key not in self._plain or key in _NOT_SEARCHED:
                legal = ", ".join(name for name in self._plain if name not in _NOT_SEARCHED)
                raise InputError(f"space.{key}: cannot be searched; legal keys are {legal}")
            choices = _read(key, asked)
            if key not in PER_CLASS_KEYS:
                self._choices[key] = choices
            elif isinstance(choices, Range):
                self.per_class[key] = choices.values
            else:
                raise InputError(f"space.{key}={asked!r}: a range wanted, as 0.1 to 0.9 by 0.05")
            self._check(key, choices)
        if not self._choices:
            raise InputError("space: no key is searched; give at least one a range or a list")

    def suggest(self, trial: optuna.Trial) -> PostprocessSettings:
        """Ask Optuna for each key that matters."""
        kinds = self._choices.get("nms_kind")
        kind = (
            self.base.nms_kind if kinds is None else trial.suggest_categorical("nms_kind", kinds)  # type: ignore[arg-type]
        )
        for key, choices in self._choices.items():
            if key == "nms_kind" or kind not in _OF_NMS_KINDS.get(key, (kind,)):
                continue
            if not isinstance(choices, Range):
                trial.suggest_categorical(key, [_to_choice(value) for value in choices])
            elif isinstance(self._plain[key], int) or self._plain[key] is None:
                trial.suggest_int(key, int(choices.low), int(choices.high), step=int(choices.step))
            else:
                trial.suggest_float(key, choices.low, choices.high, step=choices.step)
        return self.settings(trial.params)

    def settings(self, params: Mapping[str, Any]) -> PostprocessSettings:
        """Return the settings of what Optuna has chosen."""
        values = {key: _tidy(value) for key, value in params.items()}
        if "remove_categories" in values:
            values["remove_categories"] = json.loads(values["remove_categories"])
        return settings_from(self._plain | values)

    def _check(self, key: str, choices: Range | list[Any]) -> None:
        """Refuse values that the settings refuse."""
        values = [choices.low, choices.high] if isinstance(choices, Range) else choices
        if isinstance(choices, Range) and isinstance(self._plain[key], int | None):
            if not all(value.is_integer() for value in asdict(choices).values()):
                raise InputError(f"space.{key}: a range of whole numbers wanted")
            values = [int(value) for value in values]
        for value in values:
            try:
                settings_from(self._plain | {key: {0: value} if key in PER_CLASS_KEYS else value})
            except InputError as error:
                raise InputError(f"space.{key}: {error}") from error


def _read(key: str, asked: Any) -> Range | list[Any]:
    if isinstance(asked, Sequence) and not isinstance(asked, str) and len(asked):
        return list(asked)
    found = _RANGE.fullmatch(asked) if isinstance(asked, str) else None
    if found is None:
        raise InputError(
            f"space.{key}={asked!r}: a range wanted, as 0.1 to 0.9 by 0.05, or a list of values"
        )
    choices = Range(*map(float, found.groups()))
    steps = (choices.high - choices.low) / choices.step if choices.step > 0 else -1.0
    if steps < 0 or abs(steps - round(steps)) > 1e-6:
        raise InputError(
            f"space.{key}={asked!r}: the end must lie whole steps above the start, steps above 0"
        )
    return choices


def _to_choice(value: Any) -> Any:
    """Return a choice as Optuna takes it: a list of categories is JSON text."""
    return json.dumps(value) if isinstance(value, list) else value


def _tidy(value: Any) -> Any:
    """Round a sum of steps: 0.3 for 0.30000000000000004."""
    return round(value, 10) if isinstance(value, float) else value
