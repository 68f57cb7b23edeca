"""The steps of post-processing, one a module of this package, found when it is imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from src.errors import InputError
from src.postprocess.step import Step
from src.validation import shown

STEPS: dict[str, type[Step]] = {}
"""All steps by name."""


def load_steps() -> None:
    """Import the modules of this package and note the steps that they define.

    Raises:
        TypeError: two steps have one name, or one key.
    """
    STEPS.clear()
    owners: dict[str, type[Step]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if not (isinstance(value, type) and issubclass(value, Step) and value is not Step):
                continue
            for key in (value.name, *value.model_fields):
                if owners.setdefault(key, value) is not value:
                    raise TypeError(f"{value} and {owners[key]} have one name or key: {key}")
            STEPS[value.name] = value


def check_steps(steps: Any, known: Mapping[str, type[Step]]) -> tuple[str, ...]:
    """Return the names of steps as a tuple.

    A step that is not named is left out. Any order is legal in which each step finds what it works
    on: ``masks`` is there, before it come the steps that choose boxes, after it those that look at
    masks.

    Raises:
        InputError: names the step, and why it cannot stand there.
    """
    names = ", ".join(known)
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise InputError(f"postprocess.steps must be a list of {names}, got {shown(steps)}")
    got = f"got [{', '.join(map(str, steps))}]"
    for step in steps:
        if not isinstance(step, str) or step not in known:
            raise InputError(f"postprocess.steps must be of {names}, got {shown(step)}")
        if steps.count(step) > 1:
            raise InputError(f"postprocess.steps must have {step} once, {got}")
    if "masks" not in steps:
        raise InputError(f"postprocess.steps must have masks, of which a submission is made, {got}")
    for index, step in enumerate(steps):
        side = "before masks" if index < steps.index("masks") else "after masks"
        place = known[step].place
        if step != "masks" and place not in ("anywhere", side):
            raise InputError(
                f"postprocess.steps must have {step} {place}, {got}: {known[step].place_reason}"
            )
    return tuple(steps)


load_steps()
