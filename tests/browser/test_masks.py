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
done(texts.map((text, place) => {
  const [height, width] = sizes[place];
  const bounds = parseRle(text);
  const pixels = decode(bounds, [height, width]);
  const layer = new Layer([height, width]);
  layer.paintArea(bounds, "#ff0000");
  layer.finish();
  const drawn = layer.context.getImageData(0, 0, width, height).data;
  const isSame = pixels.every((value, at) => (drawn[4 * at + 3] === 255) === (value === 1) &&
    covers(bounds, height, at % width, Math.floor(at / width)) === (value === 1));
  return [Array.from(pixels).join(""), isSame];
}));
"""
OUTLINE = """
const [text, size, done] = arguments;
const { parseRle, Layer } = await import("/static/masks.js");
const layer = new Layer(size);
layer.paintOutline(parseRle(text), "#00ff00");
layer.finish();
const { data } = layer.context.getImageData(0, 0, size[1], size[0]);
done(Array.from({ length: size[0] * size[1] }, (_, at) => (data[4 * at + 3] ? 1 : 0)).join(""));
"""


def random_masks(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    masks = [np.zeros((3, 4), dtype=np.bool_), np.ones((4, 3), dtype=np.bool_)]
    for _ in range(count):
        height, width = random.integers(1, 40, 2)
        masks.append(random.random((height, width)) < random.uniform(0, 1))
    return masks


def test_decoding_equals_that_of_the_package(driver: Any, lab: Any) -> None:
    masks = random_masks(60)
    texts = format_rle([encode(mask) for mask in masks])
    driver.get(lab.address)
    decoded = driver.execute_async_script(DECODE, texts, [list(mask.shape) for mask in masks])
    for mask, (pixels, is_drawn_alike) in zip(masks, decoded, strict=True):
        assert pixels == "".join(map(str, mask.astype(int).ravel()))
        assert is_drawn_alike


def test_an_outline_is_what_touches_the_outside(driver: Any, lab: Any) -> None:
    mask = np.array(
        [[0, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]],
        dtype=np.bool_,
    )
    (text,) = format_rle([encode(mask)])
    driver.get(lab.address)
    drawn = driver.execute_async_script(OUTLINE, text, list(mask.shape))
    assert drawn == "00000" + "11110" + "10010" + "10010" + "11110"
