"""Folders of mask images in the layouts of competitions, drawn small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


def save_palette(labels: np.ndarray, path: Path) -> None:
    """Write labels as the indices of a palette image, its colours those of Pascal VOC."""
    image = Image.frombytes("P", labels.shape[::-1], labels.astype(np.uint8).tobytes())
    image.putpalette(PALETTE + [0] * (768 - len(PALETTE)))  # of a short one, Pillow drops bits
    image.save(path)


def write_instance_files(
    folder: Path, masks: Mapping[str, Sequence[np.ndarray]], *, size_hw: tuple[int, int]
) -> Path:
    """Write ID/images/ID.png and ID/masks/N.png; masks are bool."""
    rng = np.random.default_rng(0)
    for name, bitmaps in masks.items():
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        pixels = rng.integers(0, 255, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "images" / f"{name}.png")
        for number, bitmap in enumerate(bitmaps):
            values = np.where(bitmap, 255, 0).astype(np.uint8)
            Image.fromarray(values).save(folder / name / "masks" / f"{number}.png")
    return folder


def write_images(folder: Path, names: Sequence[str], *, size_hw: tuple[int, int]) -> Path:
    """Write images of noise."""
    rng = np.random.default_rng(1)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size_hw, 3), dtype=np.uint8)).save(path)
    return folder


def blocks(size_hw: tuple[int, int], *boxes_yxyx: tuple[int, int, int, int]) -> list[np.ndarray]:
    """Return a bool bitmap for each box, (top, left, bottom, right)."""
    found = []
    for top, left, bottom, right in boxes_yxyx:
        bitmap = np.zeros(size_hw, dtype=np.bool_)
        bitmap[top:bottom, left:right] = True
        found.append(bitmap)
    return found
