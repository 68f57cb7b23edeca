"""Masks of the submission's 512 x 512 raster, sampled straight from the network's probabilities.

mmdet pastes each 28 x 28 mask into a bitmap of the photo's size (``_do_paste_mask``); the
submission then keeps 512 x 512 of its pixels (nearest resizing: source index = floor(i * size /
512)). Here the probabilities are computed at those pixels alone: the same masks, no bitmap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.annotations.instances import RASTER_HW

RASTER_BYTES = RASTER_HW[0] * RASTER_HW[1] // 8


def sample_masks(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_threshold: float,
) -> npt.NDArray[np.uint8]:
    """Masks as mmdet would paste them at full size and nearest resizing would shrink them.

    Bilinear sampling with zeros outside (``grid_sample`` with ``align_corners=False``) at pixel
    centres; a pixel belongs to the mask where the probability is at least ``mask_threshold``, and
    within the box grown to whole pixels and by one more, where mmdet stops on the CPU
    (``skip_empty``; on a GPU it goes on, and with a threshold t below 0.5 a sure mask reaches 0.5 -
    t of its 28th part beyond its box). Coordinates are rounded as torch rounds them, so a pixel can
    differ only where its probability is within 1e-6 of the threshold.

    Args:
        mask_probabilities: Shape (N, h, w) in [0, 1].
        boxes_xyxy: Shape (N, 4) float32, photo pixels; may cross the photo's edge.
        size_hw: Height and width of the photo in pixels.
        mask_threshold: Probability from which a pixel belongs to the mask.

    Returns:
        Shape (N, 32768) uint8: packed masks of the raster (``src.annotations.packed_masks``).
    """
    count, mask_height, mask_width = mask_probabilities.shape
    packed = np.zeros((count, RASTER_HW[1], RASTER_HW[0] // 8), dtype=np.uint8)
    x_axis = _Axis(boxes_xyxy[:, 0], boxes_xyxy[:, 2], size_hw[1], RASTER_HW[1], mask_width)
    y_axis = _Axis(boxes_xyxy[:, 1], boxes_xyxy[:, 3], size_hw[0], RASTER_HW[0], mask_height)
    for index in range(count):
        columns, x_weights = x_axis.weights(index)
        rows, y_weights = y_axis.weights(index)
        if not len(x_weights) or not len(y_weights):
            continue
        mask = mask_probabilities[index].astype(np.float32)
        probabilities = x_weights @ (y_weights @ mask).T
        inside = np.zeros((len(x_weights), RASTER_HW[0]), dtype=bool)
        inside[:, rows] = probabilities >= np.float32(mask_threshold)
        packed[index, columns] = np.packbits(inside, axis=1, bitorder="little")
    return packed.reshape(count, RASTER_BYTES)


class _Axis:
    """The raster's pixels along one axis, seen from the boxes of N masks.

    Args:
        low: Shape (N,) float32, first edge of each box in photo pixels.
        high: Shape (N,) float32, last edge.
        photo: Length of the photo in pixels.
        raster: Length of the raster in pixels.
        mask: Length of a mask in cells.
    """

    def __init__(
        self,
        low: npt.NDArray[np.float32],
        high: npt.NDArray[np.float32],
        photo: int,
        raster: int,
        mask: int,
    ) -> None:
        self._mask = mask
        pixels = np.arange(raster, dtype=np.int64) * photo // raster
        first = np.maximum(np.floor(low) - 1, 0)
        last = np.minimum(np.ceil(high) + 1, photo)
        self._start = np.searchsorted(pixels, first, side="left")
        self._stop = np.searchsorted(pixels, last, side="left")
        centres = pixels.astype(np.float32) + np.float32(0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            grid = (centres - low[:, None]) / (high - low)[:, None] * np.float32(2) - np.float32(1)
        # mmdet: a box without extent samples the middle of its mask
        grid[np.isinf(grid)] = 0
        # torch multiplies and subtracts in one rounding (FMA); float64 holds the product exactly
        cells = (grid + np.float32(1)).astype(np.float64) * (mask / 2) - 0.5
        # beyond the outermost cells by a whole one there is nothing to sample
        self._cells = np.nan_to_num(cells, nan=-1.0).clip(-1, mask).astype(np.float32)

    def weights(self, index: int) -> tuple[slice, npt.NDArray[np.float32]]:
        """Where mask ``index`` lies on the raster, and how each pixel there mixes its cells.

        Returns:
            The span of raster pixels, P long, and the weights of shape (P, mask) float32.
        """
        span = slice(int(self._start[index]), int(self._stop[index]))
        cells = self._cells[index, span]
        lower = np.floor(cells)
        part = cells - lower
        # one more cell at either end, which stands for the zeros outside
        padded = np.zeros((len(cells), self._mask + 3), dtype=np.float32)
        place = lower.astype(np.int64) + 1
        pixels = np.arange(len(cells))
        padded[pixels, place] = np.float32(1) - part
        padded[pixels, place + 1] = part
        return span, padded[:, 1 : self._mask + 1]
