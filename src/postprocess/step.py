"""The base class of the steps of post-processing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

from src.postprocess.selection import Selection


class Step(BaseModel):
    """One rule of post-processing: its settings, their checks, its effect and its cache key.

    A step is a subclass in a module of its own under ``src/postprocess/steps/``. Its fields are
    keys of the configuration group ``postprocess``, so their names are those of no other step; one
    without a default has to be in the configuration. ``apply`` takes what the steps before it have
    left and returns what it leaves; what it can work on is in ``Selection``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]  # in postprocess.steps
    # Where it can stand, and why, for messages.
    place: ClassVar[Literal["anywhere", "before masks", "after masks"]] = "anywhere"
    place_reason: ClassVar[str] = ""
    # Keys that ask for this step where they have another value than their default.
    rules: ClassVar[tuple[str, ...]] = ()
    # Keys that matter for some values of another key only: (the other key, these values).
    matters_for: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {}
    # What shared work depends on. Declare less than is true, and scoring many settings goes wrong;
    # more, and it is slower.
    is_per_category: ClassVar[bool] = False  # other categories' detections change nothing
    uses_scores: ClassVar[bool] = True  # beyond the order of the detections
    takes_most: ClassVar[bool] = False  # as it is meant to
    capped_name: ClassVar[str] = ""  # counts what it took where it stopped early, see max_kept
    _num_needed: int | None = PrivateAttr(None)  # by the next step: its max_kept

    def apply(self, selection: Selection) -> Selection:
        """Return what the step leaves of a selection; its order stays."""
        raise NotImplementedError

    @property
    def rasters(self) -> frozenset[str]:
        """Names of the rasters on which it looks at masks."""
        return frozenset()

    @property
    def max_kept(self) -> int | None:
        """The first so many of what reaches it are enough for it; None: it needs all."""
        return None

    @property
    def removed_categories(self) -> frozenset[int]:
        """Ids of categories of which it leaves nothing."""
        return frozenset()

    @property
    def cache_key(self) -> Hashable:
        """All that decides about what it leaves of a selection."""
        return self.name, self.model_dump_json(), self._num_needed

    def category_key(self, category: int) -> Hashable:  # noqa: ARG002
        """Return all that decides about what it leaves of the detections of one category."""
        return self.cache_key

    def count_name(self, num_left: int) -> str:
        """Return under which name the detections are counted that it took."""
        is_capped = self.capped_name and num_left == self._num_needed
        return self.capped_name if is_capped else self.name

    @property
    def reason(self) -> str:
        """Why it takes detections, in words for the one who chose the settings."""
        values = [f"{key}={value}" for key, value in self.model_dump().items() if value]
        return f"postprocess.{' and '.join(values)}"


def bind(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return steps that know how much the one after them needs."""
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
