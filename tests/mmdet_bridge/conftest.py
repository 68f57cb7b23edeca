"""mmcv's operators are in place before any test module here imports mmcv or mmdet."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

import src.mmdet_bridge.kernels  # noqa: F401
from tests.helpers.checkpoints import make_detector


@pytest.fixture(scope="module")
def detector() -> Any:
    return make_detector()


@pytest.fixture(scope="module")
def weights(detector: Any) -> dict[str, Tensor]:
    return dict(detector.state_dict())
