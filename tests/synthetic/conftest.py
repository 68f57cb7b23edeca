from __future__ import annotations

from pathlib import Path

import pytest

from src.synthetic import synthesize

TRAIN_IMAGES, TEST_IMAGES = 26, 5
SETTINGS = {
    "seed": 5,
    "image_size": (150, 220),
    "grayscale_share": 0.2,
    "rotated_share": 0.3,
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with many grayscale and EXIF-rotated images."""
    folder = tmp_path_factory.mktemp("synthetic") / "images"
    synthesize(folder, TRAIN_IMAGES, TEST_IMAGES, **SETTINGS)
    return folder
