"""Category sets of images, as a split meets them."""

from __future__ import annotations

import numpy as np


def draw_images(count: int, categories: int, seed: int) -> tuple[list[str], list[frozenset[int]]]:
    """Images with frequent and rare classes that come together."""
    generator = np.random.default_rng(seed)
    frequency = 0.8 / (1 + np.arange(categories)) ** 0.8
    outfit = generator.random((count, 1)) ** 2 + 0.3
    present = generator.random((count, categories)) < frequency * outfit
    ids = [f"{number:08x}.jpg" for number in generator.permutation(count)]
    return ids, [frozenset(np.flatnonzero(row).tolist()) for row in present]
