"""Changes of a view, apart from the detectors that make them, which need torch and mmdet."""

from typing import Literal

ViewChange = Literal["quarter_turn", "vertical_flip", "flip"]
VIEW_CHANGES: tuple[ViewChange, ...] = ("quarter_turn", "vertical_flip", "flip")
"""Exact changes of a view, in the order in which they are made: by 90 degrees counter-clockwise,
upside down, left to right. All three together make the eight ways to lay a picture on a table."""
