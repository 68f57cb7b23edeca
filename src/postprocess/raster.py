"""Masks on the grid that somebody needs, sampled straight from the network's probabilities.

mmdet pastes each 28 x 28 mask into a bitmap of the image's size (``_do_paste_mask``); the
submission then keeps 512 x 512 of its pixels (nearest resizing: source index = floor(i * size /
512)). Here the probabilities are computed at those pixels alone: the same masks, no bitmap. COCO's
metric takes all pixels of the image; they are computed within each box and kept as RLE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from src.annotations.instances import RASTER_HW, long_edge_1024
from src.rle import RleBatch, encode_window
from src.rle.masks import NO_RUNS

# Each product of matrices is over in microseconds: threads would cost more than they give, and on
# cores that others use many times more.
_THREADS = ThreadpoolController()
_Drawing = TypeVar("_Drawing", bound=Callable[..., Any])


def _one_blas_thread(function: _Drawing) -> _Drawing:
    return cast(_Drawing, _THREADS.wrap(limits=1, user_api="blas")(function))


RASTER_BYTES = RASTER_HW[0] * RASTER_HW[1] // 8

RASTERS: Mapping[str, Callable[[tuple[int, int]], tuple[int, int]]] = {
    "512x512": lambda _size_hw: RASTER_HW,
    "long_edge_1024": long_edge_1024,
}
"""Height and width of each named raster for an image of (height, width)."""


def sample_masks(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_threshold: float | npt.NDArray[np.float32],
    raster_hw: tuple[int, int] = RASTER_HW,
) -> npt.NDArray[np.uint8]:
    """Masks as mmdet would paste them at full size and nearest resizing would shrink them.

    Bilinear sampling with zeros outside (``grid_sample`` with ``align_corners=False``) at pixel
    centres; a pixel belongs to the mask where the probability is at least ``mask_threshold``, and
    within the box grown to whole pixels and by one more, where mmdet stops on the CPU
    (``skip_empty``; on a GPU it resumes, and with a threshold t below 0.5 a sure mask reaches 0.5 -
    t of its 28th part beyond its box). Coordinates are rounded as torch rounds them, so a pixel can
    differ only where its probability is within 1e-6 of the threshold.

    Args:
        mask_probabilities: Shape (N, h, w) in [0, 1].
        boxes_xyxy: Shape (N, 4) float32, image pixels; may cross the image's edge.
        size_hw: Height and width of the image in pixels.
        mask_threshold: Probability from which a pixel belongs to the mask; one for all, or shape
            (N,).
        raster_hw: Height and width of the raster; together a multiple of 8.

    Returns:
        Shape (N, H * W / 8) uint8: bits of the raster (``src.rle.Bitmasks``).
    """
    thresholds = np.broadcast_to(np.asarray(mask_threshold, dtype=np.float32), len(boxes_xyxy))
    result: npt.NDArray[np.uint8] = _drawn(
        mask_probabilities, boxes_xyxy, size_hw, thresholds[None], raster_hw
    )[0]
    return result


def sample_masks_at(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_thresholds: Sequence[float],
    raster_hw: tuple[int, int] = RASTER_HW,
) -> npt.NDArray[np.uint8]:
    """``sample_masks`` at several thresholds, the probabilities computed once.

    Returns:
        Shape (T, N, H * W / 8) uint8.
    """
    thresholds = np.array(mask_thresholds, dtype=np.float32)[:, None]
    thresholds = np.broadcast_to(thresholds, (len(mask_thresholds), len(boxes_xyxy)))
    return _drawn(mask_probabilities, boxes_xyxy, size_hw, thresholds, raster_hw)


@_one_blas_thread
def sample_runs(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_threshold: float | npt.NDArray[np.float32],
) -> RleBatch:
    """Masks as mmdet would paste them at the image's size; see ``sample_masks``.

    Returns:
        N masks as maximal runs; empty where no pixel belongs to the mask.
    """
    masks = [NO_RUNS] * len(boxes_xyxy)
    thresholds = np.broadcast_to(np.asarray(mask_threshold, dtype=np.float32), len(boxes_xyxy))
    for index, columns, rows, probabilities in _windows(
        mask_probabilities, boxes_xyxy, size_hw, size_hw
    ):
        inside = probabilities >= thresholds[index]
        masks[index] = encode_window(inside.T, (rows.start, columns.start), size_hw).runs
    return RleBatch.join(masks, size_hw)


@_one_blas_thread
def _drawn(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    thresholds: npt.NDArray[np.float32],
    raster_hw: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Draw bits at ``thresholds``, shape (T, N). Shape (T, N, H * W / 8)."""
    height, width = raster_hw
    packed = np.zeros((*thresholds.shape, height * width // 8), dtype=np.uint8)
    for index, columns, rows, probabilities in _windows(
        mask_probabilities, boxes_xyxy, size_hw, raster_hw
    ):
        # the window's columns from top to bottom, behind the bits that fill up their first byte
        first_byte, spare_bits = divmod(columns.start * height, 8)
        pixels = np.zeros(spare_bits + len(probabilities) * height, dtype=bool)
        inside = pixels[spare_bits:].reshape(-1, height)[:, rows]
        for row, threshold in enumerate(thresholds[:, index]):
            np.greater_equal(probabilities, threshold, out=inside)
            drawn = np.packbits(pixels, bitorder="little")
            packed[row, index, first_byte : first_byte + len(drawn)] = drawn
    return packed


def _windows(
    mask_probabilities: npt.NDArray[np.float16] | npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    grid_hw: tuple[int, int],
) -> Iterator[tuple[int, slice, slice, npt.NDArray[np.float32]]]:
    """The part of the grid that each mask's box covers; boxes that cover none are left out.

    Yields:
        The mask's number, the span of columns, the span of rows, and the probability of each pixel:
        shape (columns, rows) float32.
    """
    count, mask_height, mask_width = mask_probabilities.shape
    x_axis = _Axis(boxes_xyxy[:, 0], boxes_xyxy[:, 2], size_hw[1], grid_hw[1], mask_width)
    y_axis = _Axis(boxes_xyxy[:, 1], boxes_xyxy[:, 3], size_hw[0], grid_hw[0], mask_height)
    for index in range(count):
        columns, x_weights = x_axis.weights(index)
        rows, y_weights = y_axis.weights(index)
        if not len(x_weights) or not len(y_weights):
            continue
        mask = mask_probabilities[index].astype(np.float32)
        yield index, columns, rows, x_weights @ (y_weights @ mask).T


class _Axis:
    """The grid's pixels along one axis, seen from the boxes of N masks.

    Args:
        low: Shape (N,) float32, first edge of each box in image pixels.
        high: Shape (N,) float32, last edge.
        image: Length of the image in pixels.
        grid: Length of the grid in pixels.
        mask: Length of a mask in cells.
    """

    def __init__(
        self,
        low: npt.NDArray[np.float32],
        high: npt.NDArray[np.float32],
        image: int,
        grid: int,
        mask: int,
    ) -> None:
        self._mask = mask
        pixels = np.arange(grid, dtype=np.int64) * image // grid
        first = np.maximum(np.floor(low) - 1, 0)
        last = np.minimum(np.ceil(high) + 1, image)
        self._start = np.searchsorted(pixels, first, side="left")
        self._stop = np.searchsorted(pixels, last, side="left")
        centres = pixels.astype(np.float32) + np.float32(0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            places = (centres - low[:, None]) / (high - low)[:, None]
            places = places * np.float32(2) - np.float32(1)
        # mmdet: a box without extent samples the middle of its mask
        places[np.isinf(places)] = 0
        # torch multiplies and subtracts in one rounding (FMA); float64 holds the product exactly
        cells = (places + np.float32(1)).astype(np.float64) * (mask / 2) - 0.5
        # beyond the outermost cells by a whole one there is nothing to sample
        self._cells = np.nan_to_num(cells, nan=-1.0).clip(-1, mask).astype(np.float32)

    def weights(self, index: int) -> tuple[slice, npt.NDArray[np.float32]]:
        """Where mask ``index`` lies on the grid, and how each pixel there mixes its cells.

        Returns:
            The span of grid pixels, P long, and the weights of shape (P, mask) float32.
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


def suppress_overlaps(
    category_ids: npt.NDArray[np.integer], packed: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Take from each mask the pixels of all masks of its class that stand before it.

    The winner's hard suppression (S13). The order given decides: masks stand by falling score, and
    equal scores as NMS leaves them, the earlier (proposal, class) pair first. Afterwards masks of a
    class are disjoint and together cover what they covered; each class's first is untouched. Masks
    of different classes may overlap, as in the ground truth (a pocket in a jacket).

    Args:
        category_ids: Shape (N,).
        packed: Shape (N, B) uint8, bits of masks, by falling score.

    Returns:
        Shape (N, B) uint8; masks may have become empty.
    """
    result = packed.copy()
    covered: dict[int, npt.NDArray[np.uint8]] = {}
    for mask, category in enumerate(category_ids.tolist()):
        if category in covered:
            result[mask] &= ~covered[category]
            covered[category] |= packed[mask]
        else:
            covered[category] = packed[mask].copy()
    return result


def has_overlaps(category_ids: npt.NDArray[np.integer], packed: npt.NDArray[np.uint8]) -> bool:
    """Whether two masks of one class share a pixel. Arguments as in ``suppress_overlaps``."""
    covered: dict[int, npt.NDArray[np.uint8]] = {}
    for mask, category in zip(packed, category_ids.tolist(), strict=True):
        if category not in covered:
            covered[category] = mask.copy()
        elif (covered[category] & mask).any():
            return True
        else:
            covered[category] |= mask
    return False
