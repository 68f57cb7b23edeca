"""Give mmcv its operators before a test module imports mmcv; a cascade of random weights."""

from __future__ import annotations

from typing import Any

import pytest

import src.mmdet_bridge.kernels  # noqa: F401


@pytest.fixture(scope="module")
def detector() -> Any:
    from tests.helpers.cascades import make_detector

    return make_detector(seed=0)
