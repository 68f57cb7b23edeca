"""The controls of the page: one for each key of the group ``postprocess``, by its kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

from src.postprocess.category_names import ByCategory, CategoryIds
from src.postprocess.settings import PRESETS, conditions, known_steps
from src.postprocess.steps.masks import Masks

# Sliders end here; a number typed beside one may be any legal value.
_RANGES: Mapping[str, tuple[float, float, float]] = {  # least, most, increment
    "soft_nms_sigma": (0.01, 2, 0.01),
    "soft_nms_min_score": (0, 1, 0.001),
    "min_area_px": (0, 2000, 5),
    "max_per_image": (1, 200, 1),
    "max_per_class": (1, 50, 1),
}
_SHARE_RANGE = (0.0, 1.0, 0.01)
_POSITIVE_RANGE = (0.01, 1.0, 0.01)
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "suppress_overlaps": (False, True, "all"),
    "min_area_raster": ("512x512", "long_edge_1024", "native"),
}


def describe_controls(fixed_masks: str | None = None) -> list[dict[str, Any]]:
    """Return a description of each key, in the order of the steps, as plain JSON values.

    Args:
        fixed_masks: Why masks have no probabilities, so that no threshold can draw them; None: they
            have some.
    """
    helps, found = read_help(), []
    for step, kind in known_steps().items():
        for key, field in kind.model_fields.items():
            condition = conditions().get(key)
            matters = None if condition is None else {"key": condition[0], "values": condition[1]}
            is_refused = kind is Masks and fixed_masks is not None
            found.append(
                {
                    "key": key,
                    "step": step,
                    "label": _label(key),
                    "help": helps.get(key, ""),
                    "matters_for": matters,
                    "refused": fixed_masks if is_refused else None,
                    **_kind_of(key, field.annotation, field.metadata),
                }
            )
    steps = {"key": "steps", "step": None, "label": "Steps", "help": helps.get("steps", "")}
    choices = list(known_steps())
    plain = {"matters_for": None, "refused": None, "nullable": False, "choices": choices}
    return [*found, {**steps, **plain, "kind": "steps"}]


def _kind_of(key: str, annotation: Any, metadata: Sequence[Any]) -> dict[str, Any]:
    """Return the kind of a key with its range or its choices."""
    if any(isinstance(part, ByCategory) for part in metadata):
        ends = _POSITIVE_RANGE if key.startswith("mask_") else _SHARE_RANGE
        return {"kind": "per_category", "nullable": True, **_range(ends)}
    if any(isinstance(part, CategoryIds) for part in metadata):
        return {"kind": "categories", "nullable": False}
    if key in _CHOICES:
        return {"kind": "choice", "nullable": False, "choices": list(_CHOICES[key])}
    if get_origin(annotation) is Literal:
        return {"kind": "choice", "nullable": False, "choices": list(get_args(annotation))}
    if annotation is bool:
        return {"kind": "switch", "nullable": False}
    is_nullable = type(None) in get_args(annotation)
    if annotation is float:
        is_positive = any(getattr(part, "gt", None) == 0 for part in metadata)
        ends = _RANGES.get(key, _POSITIVE_RANGE if is_positive else _SHARE_RANGE)
        return {"kind": "number", "nullable": is_nullable, **_range(ends)}
    return {"kind": "integer", "nullable": is_nullable, **_range(_RANGES.get(key, (0, 100, 1)))}


def _label(key: str) -> str:
    words = key.replace("_", " ").capitalize()
    for plain, usual in (("Nms", "NMS"), ("nms", "NMS"), (" iou ", " IoU "), (" px", " (px)")):
        words = words.replace(plain, usual)
    return words


def _range(ends: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("minimum", "maximum", "increment"), ends, strict=True))


@cache
def read_help() -> Mapping[str, str]:
    """Return the comment of each key in ``conf/postprocess/default.yaml``."""
    step_of = {key: step for step, kind in known_steps().items() for key in kind.model_fields}
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in (PRESETS / "default.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif key := re.match(r"(\w+):", line):
            text, name = " ".join(comment), key[1]
            # the first key of a step has the step's name before it
            parts = re.split(rf"(?:^|\s){step_of.get(name, '?')}\. ", text, maxsplit=1)
            found[name] = parts[-1]
            comment = []
    return found
