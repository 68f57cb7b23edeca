from __future__ import annotations

from pathlib import Path

import pytest

from src.synthetic import synthesize
from tests.helpers.synthetic_data import SETTINGS, TEST_IMAGES, TRAIN_IMAGES


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with many grayscale and EXIF-rotated images."""
    folder = tmp_path_factory.mktemp("synthetic") / "images"
    synthesize(folder, TRAIN_IMAGES, TEST_IMAGES, **SETTINGS)
    return folder
