"""The steps of post-processing: their base class, and the registry of those in this package."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

from src.errors import InputError
from src.postprocess.selection import Selection
from src.validation import shown


class Step(BaseModel, ABC):
    """One rule of post-processing: its settings, their checks, its effect and its cache key.

    A step is a subclass in a module of its own in this package. Its fields are keys of the
    configuration group ``postprocess``, so no two steps share one; a key whose field has no default
    must be in the configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]  # in postprocess.steps
    # Where the step can stand, and why, for messages.
    place: ClassVar[Literal["anywhere", "before masks", "after masks"]] = "anywhere"
    place_reason: ClassVar[str] = ""
    # Keys that need this step in postprocess.steps where their value is not the default.
    rules: ClassVar[tuple[str, ...]] = ()
    # Keys that matter for some values of another key only: (the other key, these values).
    matters_for: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {}
    # Dependencies that decide which work is shared between settings. Declaring fewer than there are
    # makes scores of many settings wrong; declaring more makes scoring slower.
    is_per_category: ClassVar[bool] = False  # detections of other categories change nothing
    uses_scores: ClassVar[bool] = True  # beyond the order of the detections
    takes_most: ClassVar[bool] = False  # as it is meant to
    capped_name: ClassVar[str] = ""  # counts what it took where it stopped early, see max_kept
    _num_needed: int | None = PrivateAttr(None)  # by the next step: its max_kept

    @abstractmethod
    def apply(self, selection: Selection) -> Selection:
        """Return what the step leaves of a selection, in the same order."""

    @property
    def rasters(self) -> frozenset[str]:
        """Names of the rasters on which the step needs masks."""
        return frozenset()

    @property
    def max_kept(self) -> int | None:
        """Number of detections that the step needs at most, the first; None: it needs all."""
        return None

    @property
    def removed_categories(self) -> frozenset[int]:
        """Ids of the categories that the step removes."""
        return frozenset()

    @property
    def cache_key(self) -> Hashable:
        """Everything that decides what the step leaves of a selection."""
        return self.name, self.model_dump_json(), self._num_needed

    def category_key(self, category: int) -> Hashable:  # noqa: ARG002
        """Return everything that decides what the step leaves of one category's detections."""
        return self.cache_key

    def count_name(self, num_left: int) -> str:
        """Return the name under which the detections that the step took are counted."""
        is_capped = self.capped_name and num_left == self._num_needed
        return self.capped_name if is_capped else self.name

    @property
    def reason(self) -> str:
        """Why the step takes detections, for whoever chose the settings."""
        values = [f"{key}={value}" for key, value in self.model_dump().items() if value]
        return f"postprocess.{' and '.join(values)}"


def bind(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps, each knowing how many detections the one after it needs."""
    bound = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if following is not None and following.max_kept is not None:
            step = step.model_copy()
            step._num_needed = following.max_kept
        bound.append(step)
    return tuple(bound)


def run_steps(selection: Selection, steps: Sequence[Step]) -> Selection:
    """Apply steps one after the other, and count what each takes."""
    for step in steps:
        left = step.apply(selection)
        selection = selection.after(step.count_name(len(left)), left)
    return selection


STEPS: dict[str, type[Step]] = {}
"""All steps by name."""


def load_steps() -> None:
    """Import the modules of this package and register the steps that they define.

    Raises:
        TypeError: Two steps have the same name or key.
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
    """Return the names of the steps that act, as a tuple.

    Any order is legal in which each step finds what it works on: ``masks`` is one of them, steps
    that choose boxes come before it, and steps that look at masks after it.

    Raises:
        InputError: A name is unknown or given twice, or a step stands where it cannot.
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
