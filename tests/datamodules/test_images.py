from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from src.datamodules.dataset import read_image
from src.errors import InputError
from tests.helpers.images import DrawnImage, save_image


def draw_clouds(size_hw: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (size_hw[0] // 40, size_hw[1] // 40, 3), dtype=np.uint8)
    return cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    "size_hw", [(301, 200), (150, 100), (149, 99), (75, 50), (30, 20), (400, 300)]
)
@pytest.mark.parametrize("gray", [False, True])
def test_image_at_every_scale_and_rotation(tmp_path, orientation, size_hw, gray):
    """Against the drawn image, averaged to the size that is decoded, then resized."""
    image = draw_clouds((301, 200))
    save_image(DrawnImage("a", image), tmp_path / "a.jpg", orientation=orientation, gray=gray)
    if gray:
        image = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    found = read_image(tmp_path / "a.jpg", size_hw=size_hw)
    assert found.shape == (*size_hw, 3)
    assert found.dtype == np.uint8
    assert difference(found, cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA)) < 4
    assert difference(found, cv2.resize(image, size_hw[::-1])) < 6
    assert difference(found[::-1], cv2.resize(image, size_hw[::-1])) > 20


def test_nothing_is_enlarged_from_a_reduced_image(tmp_path, monkeypatch):
    """What is decoded is as small as halves allow, and never below the wanted size."""
    decoded = []

    def record(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        decoded.append(image.shape[:2])
        return image

    monkeypatch.setattr("src.datamodules.dataset.resize_image", record)
    save_image(DrawnImage("a", draw_clouds((640, 483))), tmp_path / "a.jpg", orientation=6)
    for height in (640, 321, 320, 319, 161, 160, 80, 79, 10):
        width = max(1, height * 483 // 640)
        read_image(tmp_path / "a.jpg", size_hw=(height, width))
        factor = next(s for s in (8, 4, 2, 1) if s <= min(640 // height, 483 // width))
        assert decoded.pop() == (-(-640 // factor), -(-483 // factor))


def test_truncated_image_is_named_at_every_scale(tmp_path):
    path = tmp_path / "cut.jpg"
    save_image(DrawnImage("a", draw_clouds((300, 200))), path)
    path.write_bytes(path.read_bytes()[:-4000])
    for size_hw in ((300, 200), (150, 100), (75, 50)):
        with pytest.raises(InputError, match=r"cut\.jpg: .*truncated"):
            read_image(path, size_hw=size_hw)


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("P", "png"), ("L", "png")])
def test_other_colour_modes_are_read_too(tmp_path, mode, suffix):
    image = Image.fromarray(draw_clouds((300, 200)))
    image = image.quantize(256, dither=Image.Dither.NONE) if mode == "P" else image.convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    expected = np.asarray(image.convert("RGB").resize((70, 105), Image.Resampling.BOX))
    assert difference(read_image(path, size_hw=(105, 70)), expected) < 8
