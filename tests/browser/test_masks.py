"""Run-length masks decoded in the browser are those of src.rle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from src.rle import encode, format_rle

pytestmark = pytest.mark.browser

DECODE = """
const [texts, sizes, done] = arguments;
const { parseRle, decode, covers, Layer } = await import("/static/masks.js");
IS_PAINTED
done(texts.map((text, place) => {
  const [height, width] = sizes[place];
  const bounds = parseRle(text);
  const pixels = decode(bounds, [height, width]);
  const layer = new Layer([height, width]);
  layer.paintArea(bounds, "#ff0000");
  layer.finish();
  const isSame = pixels.every((value, at) =>
    isPainted(layer, height, width, at) === (value === 1) &&
    covers(bounds, height, at % width, Math.floor(at / width)) === (value === 1));
  return [Array.from(pixels).join(""), isSame];
}));
"""
# A layer drawn on a canvas as the page does it, which turns it round.
IS_PAINTED = """
const isPainted = (layer, height, width, at) => {
  if (!layer.drawn) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    layer.drawOn(context, width, height);
    layer.drawn = context.getImageData(0, 0, width, height).data;
  }
  return layer.drawn[4 * at + 3] === 255;
};
"""
OUTLINE = """
const [texts, sizes, done] = arguments;
const { parseRle, Layer } = await import("/static/masks.js");
IS_PAINTED
done(texts.map((text, place) => {
  const [height, width] = sizes[place];
  const layer = new Layer([height, width]);
  layer.paintOutline(parseRle(text), "#00ff00");
  layer.finish();
  return Array.from({ length: height * width }, (_, at) =>
    (isPainted(layer, height, width, at) ? 1 : 0)).join("");
}));
"""


def random_masks(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    masks = [np.zeros((3, 4), dtype=np.bool_), np.ones((4, 3), dtype=np.bool_)]
    for _ in range(count):
        height, width = random.integers(1, 40, 2)
        masks.append(random.random((height, width)) < random.uniform(0, 1))
    return masks


def run(driver: Any, lab: Any, script: str, masks: list[np.ndarray]) -> list[Any]:
    texts = format_rle([encode(mask) for mask in masks])
    driver.get(lab.address)
    sizes = [list(mask.shape) for mask in masks]
    return driver.execute_async_script(script.replace("IS_PAINTED", IS_PAINTED), texts, sizes)


def as_text(mask: np.ndarray) -> str:
    return "".join(map(str, mask.astype(int).ravel()))


def test_decoding_equals_that_of_the_package(driver: Any, lab: Any) -> None:
    masks = random_masks(60)
    for mask, (pixels, is_drawn_alike) in zip(masks, run(driver, lab, DECODE, masks), strict=True):
        assert pixels == as_text(mask)
        assert is_drawn_alike


def test_an_outline_is_what_touches_the_outside(driver: Any, lab: Any) -> None:
    masks = [mask | (np.indices(mask.shape).sum(axis=0) % 7 < 4) for mask in random_masks(60)]
    for mask, drawn in zip(masks, run(driver, lab, OUTLINE, masks), strict=True):
        around = np.pad(mask, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        assert drawn == as_text(mask & ~inner)
