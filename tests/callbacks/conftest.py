"""Give mmcv its operators before a test module imports mmcv; drawn images."""

from __future__ import annotations

import pytest

import src.mmdet_bridge.kernels  # noqa: F401
from tests.helpers.images import Data, draw_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return draw_data(tmp_path_factory.mktemp("data"))
