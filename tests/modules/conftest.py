"""Gives mmcv its operators before a test module imports mmcv."""

import src.mmdet_bridge  # noqa: F401
