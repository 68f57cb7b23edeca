"""The steps of post-processing by name, and which orders of them can work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.errors import InputError

DEFAULT_STEPS = (
    "score",
    "nms",
    "cap",
    "remove",
    "max_per_class",
    "masks",
    "suppress_overlaps",
    "min_area",
)
# (a step, one that must come before it, why)
_NEEDS_BEFORE = (
    ("suppress_overlaps", "masks", "overlaps are those of masks"),
    ("min_area", "masks", "areas are those of masks"),
)
# (a step, one that must not come before it, why)
_NEEDS_AFTER = (("nms", "masks", "NMS compares boxes, and masks are made of what it leaves"),)


def check_steps(steps: Any) -> tuple[str, ...]:
    """The steps as a tuple.

    A step that is not named is left out. Any order is legal in which each step finds what it works
    on: ``masks`` is there, before it come the steps that choose (box, class) pairs, after it those
    that look at masks.

    Raises:
        InputError: names the step, and why it cannot stand there.
    """
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise InputError(f"postprocess.steps={steps!r}: a list of steps, as {_shown()}")
    for step in steps:
        if step not in DEFAULT_STEPS:
            raise InputError(f"postprocess.steps: {step!r} is no step; there are {_shown()}")
    place = {step: index for index, step in enumerate(steps)}
    repeated = [step for index, step in enumerate(steps) if place[step] != index]
    if repeated:
        raise InputError(f"postprocess.steps: {repeated[0]} stands there twice; once is legal")
    if "masks" not in place:
        raise InputError("postprocess.steps: masks is missing; a submission is made of masks")
    for step, earlier, reason in _NEEDS_BEFORE:
        if step in place and place[earlier] > place[step]:
            raise InputError(
                f"postprocess.steps: {step} stands before {earlier}, which cannot work: {reason}"
            )
    for step, later, reason in _NEEDS_AFTER:
        if step in place and place.get(later, len(steps)) < place[step]:
            raise InputError(
                f"postprocess.steps: {step} stands after {later}, which cannot work: {reason}"
            )
    return tuple(steps)


def _shown() -> str:
    return f"[{', '.join(DEFAULT_STEPS)}]"
