from __future__ import annotations

import pickle

import albumentations
import numpy as np
import pytest

from src.datamodules.transforms import PixelAugmentation
from src.errors import InputError
from tests.helpers.datasets import competition

IMAGE = np.random.default_rng(0).integers(1, 255, (300, 200, 3), dtype=np.uint8)


def test_same_seed_same_image_whatever_came_before():
    augment = competition()
    expected = [augment(IMAGE.copy(), seed=seed) for seed in range(12)]
    for seed in reversed(range(12)):
        np.testing.assert_array_equal(augment(IMAGE.copy(), seed=seed), expected[seed])
    again = pickle.loads(pickle.dumps(augment))
    np.testing.assert_array_equal(again(IMAGE.copy(), seed=3), expected[3])
    assert len({image.tobytes() for image in expected}) > 8


class Mark(albumentations.ImageOnlyTransform):
    """Blackens one channel."""

    def __init__(self, channel: int) -> None:
        super().__init__(p=0.5)
        self.channel = channel

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        img = img.copy()
        img[..., self.channel] = 0
        return img


def test_each_transform_is_drawn_for_itself():
    """Each of the 8 combinations of three transforms of p = 0.5 comes up about as often."""
    augment = PixelAugmentation({str(channel): Mark(channel) for channel in range(3)})
    image = np.full((4, 4, 3), 9, dtype=np.uint8)
    counts: dict[bytes, int] = {}
    for seed in range(800):
        combination = augment(image.copy(), seed=seed)[0, 0].tobytes()
        counts[combination] = counts.get(combination, 0) + 1
    assert len(counts) == 8
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_holes_are_as_large_as_configured_in_both_directions():
    augment = competition("cutout", num_holes_range=[1, 1], p=1.0)
    heights, widths = [], []
    for seed in range(300):
        rows, columns = np.nonzero((augment(IMAGE.copy(), seed=seed) == 0).all(axis=2))
        heights.append(rows.max() - rows.min() + 1)
        widths.append(columns.max() - columns.min() + 1)
    for edges in (heights, widths):
        assert max(edges) in (63, 64)
        assert min(edges) < 6
        assert 25 < np.mean(edges) < 40
    assert np.corrcoef(heights, widths)[0, 1] < 0.3


def test_brightness_and_jpeg_stay_in_their_bounds():
    gray = np.full((64, 64, 3), 100, dtype=np.uint8)
    brightness = competition("brightness_contrast", p=1.0)
    values = [int(brightness(gray.copy(), seed=seed)[0, 0, 0]) for seed in range(300)]
    # 100 * (1 +- 0.3) +- 0.3 * 255
    assert 0 <= min(values) < 30
    assert 170 < max(values) <= 207
    smooth = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 3, axis=2)
    smooth = np.ascontiguousarray(np.repeat(smooth, 64, axis=0))
    jpeg = competition("jpeg", p=1.0)
    differences = [
        np.abs(jpeg(smooth.copy(), seed=seed).astype(int) - smooth).max() for seed in range(50)
    ]
    assert 0 < max(differences) < 20


def test_nothing_configured_changes_nothing():
    np.testing.assert_array_equal(PixelAugmentation({})(IMAGE, seed=1), IMAGE)


@pytest.mark.parametrize(
    "transform", [albumentations.HorizontalFlip(), albumentations.RandomCrop(8, 8), "jpeg"]
)
def test_transforms_that_move_pixels_are_refused(transform):
    with pytest.raises(InputError, match=rf"\.x must be .*, got {type(transform).__name__}"):
        PixelAugmentation({"x": transform})
