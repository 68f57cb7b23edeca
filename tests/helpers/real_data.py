"""The competition's own rows, which are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "INSTANCE_CASCADE_DATA"


def real_data(name: str) -> Path:
    """Return a file of the folder that the environment names; skip the test where it is unset.

    A folder that is named and lacks the file fails the test.

    Args:
        name: Relative to the folder: ``real_rows.csv``, ``category_counts.csv``,
            ``label_descriptions.json``, ``fashionpedia_sample``.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} names no folder with the competition's data")
    path = Path(folder) / name
    assert path.exists(), f"{VARIABLE} must name a folder that has {name}, got {folder}"
    return path
