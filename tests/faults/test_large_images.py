"""Images of more pixels than the limit are named with their size and the key."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from src.annotations import image_files as image_headers
from src.annotations.image_files import read_image_rgb, read_size_hw, set_max_megapixels
from src.errors import InputError


@pytest.fixture(autouse=True)
def usual_limit(monkeypatch):
    monkeypatch.setattr(image_headers, "_limit_megapixels", 179.0)


def test_a_large_image_is_named_with_its_size_and_the_key(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (20_000, 10_000)).save(path)
    message = re.escape(
        f"{path}: max_image_megapixels must be 200 or more for this image of 20000 x 10000 px "
        "(width x height), got 179; reading it takes about 1.4 GB of memory"
    )
    for read in (read_size_hw, read_image_rgb):
        with pytest.raises(InputError, match=message):
            read(path)
    set_max_megapixels(200)
    assert read_size_hw(path) == (10_000, 20_000)


def test_an_image_above_the_limit_of_pillow_is_read(tmp_path, monkeypatch):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    set_max_megapixels(0.0008)
    assert read_image_rgb(tmp_path / "a.png").shape == (20, 40, 3)
    set_max_megapixels(0.0007)
    with pytest.raises(InputError, match=r"this image of 40 x 20 px .* got 0\.0007"):
        read_image_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("value", [0, -1, None, "many", True, float("nan"), 2148])
def test_limits_that_are_none_are_refused(value):
    with pytest.raises(InputError, match="max_image_megapixels must be a number above 0 and at m"):
        set_max_megapixels(value)


def test_the_key_is_that_of_the_command(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (400, 300)).save(tmp_path / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 300, "width": 400}],
        "annotations": [],
        "categories": [{"id": 1, "name": "c"}],
    }
    (tmp_path / "in.json").write_text(json.dumps(content))

    def convert(megapixels: float) -> subprocess.CompletedProcess:
        arguments = ["annotations=in.json", "output=out.json", "images=images"]
        arguments = [f"{key}={tmp_path}/{name}" for key, name in (a.split("=") for a in arguments)]
        return subprocess.run(
            [sys.executable, "-m", "src.convert", *arguments, f"max_image_megapixels={megapixels}"],
            capture_output=True,
            text=True,
            check=False,
        )

    refused = convert(0.1)
    assert refused.returncode == 2
    assert "a.png: max_image_megapixels must be 1 or more for this image" in refused.stderr
    assert convert(0.2).returncode == 0
