"""Options that commands check before they import what acts on them, torch and mmdet."""

from __future__ import annotations

from typing import Literal

from src.errors import InputError

ViewChange = Literal["quarter_turn", "vertical_flip", "flip"]
VIEW_CHANGES: tuple[ViewChange, ...] = ("quarter_turn", "vertical_flip", "flip")
"""Exact changes of a view, in the order in which they are made: by 90 degrees counter-clockwise,
upside down, left to right. All three together make the eight ways to lay a picture on a table."""

ClassLayers = Literal["reset", "slice"]
CLASS_LAYERS = ("reset", "slice")
OLD_LAYOUTS = ("v0.6", "v1")  # mmdetection 1.2 and before
LAYOUTS = (*OLD_LAYOUTS, "v2", "v3")


def check_import_options(*, layout: str, class_layers: str, has_class_map: bool) -> None:
    """Check how the weights of a checkpoint are to be imported.

    Raises:
        InputError: A value is not legal, or classes are mapped that are drawn anew.
    """
    if class_layers not in CLASS_LAYERS:
        legal = ", ".join(CLASS_LAYERS)
        raise InputError(f"class_layers must be one of {legal}, got {class_layers}")
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"layout must be one of auto, {', '.join(LAYOUTS)}, got {layout}")
    if class_layers == "reset" and has_class_map:
        raise InputError("category_map must be null with class_layers=reset; give slice")
