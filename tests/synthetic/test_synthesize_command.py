"""``python -m src.synthesize`` as a person types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import InputError
from src.synthetic.request import parse_image_size

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.synthesize", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_draws_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    done = run(
        f"output={folder}",
        "num_train_images=2",
        "num_test_images=1",
        "image_size=96",
        "num_workers=1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("2 training images, 1 test images; 3 drawn now")
    assert len(list((folder / "train").iterdir())) == 2


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    failed = run(f"output={tmp_path / 'x'}", "image_size=big")
    assert failed.returncode == 2
    assert "error: image_size must be the long edge in px" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("23", r"categories must be a list of category ids, as \[1,6,10,23\], got 23"),
        ("[46]", "categories.0 must be a whole number from 0 to 45, got 46"),
        ("[1,23]", r"categories must have a dress or jumpsuit"),
    ],
)
def test_categories_that_dress_nobody(tmp_path: Path, given: str, message: str) -> None:
    failed = run(f"output={tmp_path / 'x'}", f"categories={given}")
    assert failed.returncode == 2
    assert re.search(f"^error: {message}", failed.stderr, re.M)
    assert not (tmp_path / "x").exists()


def test_help_explains_the_keys() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for word in ("difficulty", "csv_only=true num_rows=333415", "output: ???"):
        assert word in shown.stdout


def test_image_size_is_an_edge_or_two() -> None:
    assert parse_image_size(None, (5, 6)) == (5, 6)
    assert parse_image_size(256, (5, 6)) == (256, 256)
    assert parse_image_size([100, 200], (5, 6)) == (100, 200)
    for wrong in ("x", [1, 2, 3], 2.5, True, [100, "b"]):
        with pytest.raises(InputError, match="must be the long edge in px"):
            parse_image_size(wrong, (5, 6))
