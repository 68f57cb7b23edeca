"""Checks of values by pydantic, and one form of message: ``KEY must be LEGAL, got VALUE``.

A kind of value is a type annotated with ``Legal``, the legal values in words. Strict: true is no
whole number, a text is no number, and NaN is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic import ValidatorFunctionWrapHandler as Handler

from src.errors import InputError

_MAX_CHARACTERS = 200  # of a value in a message


class _NotLegalError(ValueError):
    """Carries the legal values in words; pydantic adds the key and the value."""


@dataclass(frozen=True, slots=True)
class Legal:
    """Last annotation of a type: the legal values in words, for the message about another one."""

    text: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return WrapValidator(self._check).__get_pydantic_core_schema__(source, handler)

    def _check(self, value: Any, handler: Handler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if all(line["loc"] for line in error.errors()):
                raise  # about an entry, which has a name of its own
            raise _NotLegalError(self.text) from None


def number(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    legal: str,
) -> Any:
    """Return the kind of finite numbers in a range."""
    limits = Field(strict=True, allow_inf_nan=False, ge=least, gt=above, le=most, lt=below)
    return Annotated[float, limits, Legal(legal)]


def whole(least: int, most: int | None = None, *, legal: str | None = None) -> Any:
    """Return the kind of whole numbers in a range."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    words = f"a whole number {limits}"
    return Annotated[int, Field(strict=True, ge=least, le=most), Legal(legal or words)]


def one_of(*values: Any) -> Any:
    """Return the kind of some words."""
    return Annotated[Literal[values], Legal(f"one of {', '.join(map(str, values))}")]


def list_of(kind: Any) -> Any:
    """Return the kind of sequences of a kind."""
    return Sequence[kind]


def nullable(kind: Any, *, null: str) -> Any:
    """Return a kind, from a function above, that may be null too; ``null`` is its meaning."""
    words = next(part.text for part in kind.__metadata__ if isinstance(part, Legal))
    return Annotated[kind | None, Legal(f"{words}, or null {null}")]


Share = Annotated[
    float, Field(strict=True, allow_inf_nan=False, ge=0, le=1), Legal("a number from 0 to 1")
]
PositiveShare = Annotated[
    float,
    Field(strict=True, allow_inf_nan=False, gt=0, le=1),
    Legal("a number above 0 and at most 1"),
]
Positive = Annotated[
    float, Field(strict=True, allow_inf_nan=False, gt=0), Legal("a finite number above 0")
]
Count = Annotated[int, Field(strict=True, ge=0), Legal("a whole number of at least 0")]
Cap = Annotated[
    Annotated[int, Field(strict=True, ge=1)] | None,
    Legal("a whole number of at least 1, or null for no cap"),
]
Flag = Annotated[bool, Field(strict=True), Legal("true or false")]


def check_values(kinds: Mapping[str, Any], values: Mapping[str, Any], *, prefix: str = "") -> None:
    """Check values of some keys.

    Args:
        kinds: Kinds of the values by key.
        values: Values by key, which may have further keys.
        prefix: Prefix of the keys in messages, such as ``datamodule.``.

    Raises:
        InputError: Names each key whose value is not legal, the value and what is legal.
    """
    found: list[str] = []
    for key, kind in kinds.items():
        try:
            TypeAdapter(kind).validate_python(values[key])
        except ValidationError as error:
            found += problems(error, prefix + key)
    if found:
        raise InputError("; ".join(found))


def check_value(key: str, value: Any, kind: Any) -> None:
    """Check one value, see ``check_values``."""
    check_values({key: kind}, {key: value})


def check_weights(key: str, weights: Sequence[float], count: int, *, of: str = "model") -> None:
    """Check one weight for each of some models or checkpoints.

    Raises:
        InputError: There is another number of them, or one is not above 0.
    """
    if len(weights) != count:
        raise InputError(f"{key} must be {count} numbers, one for each {of}, got {list(weights)}")
    for weight in weights:  # one without weight is better removed
        check_value(key, weight, Positive)


class CheckedModel(BaseModel):
    """Values with names, checked by the constructor and constant.

    Raises:
        InputError: Names each key whose value is not legal, the value and what is legal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prefix: ClassVar[str] = ""  # of the keys in messages

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError("; ".join(problems(error, self.prefix))) from None


def problems(error: ValidationError, prefix: str) -> list[str]:
    """Return a sentence for each value that is not legal: ``KEY must be LEGAL, got VALUE``.

    Args:
        error: From pydantic.
        prefix: The key or, for the error of a model, the prefix of its keys.
    """
    found = []
    for line in error.errors():
        own = line.get("ctx", {}).get("error")
        if isinstance(own, InputError):
            found.append(str(own))
            continue
        names = [str(name) for name in line["loc"]]
        key = prefix + ".".join(names) if prefix.endswith(".") else ".".join([prefix, *names])
        message = line["msg"].removeprefix("Input should be ")
        legal = own if isinstance(own, _NotLegalError) else message
        found.append(f"{key.strip('.')} must be {legal}, got {shown(line['input'])}")
    return list(dict.fromkeys(found))


def shown(value: Any) -> str:
    """Return a value in the form of messages."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
