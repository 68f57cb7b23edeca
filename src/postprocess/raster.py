"""Masks on the grid that is needed, sampled directly from the network's probabilities.

mmdet pastes each 28 x 28 mask into a bitmap of the image's size (``_do_paste_mask``), of which a
submission keeps 512 x 512 pixels (nearest resizing: source index = floor(i * size / 512)). Here the
probabilities are computed at those pixels only, which gives the same masks without the bitmap.
COCO's metric needs all pixels of the image: they are computed within each box and kept as RLE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from src.annotations.instances import RASTER_HW
from src.rle import RleBatch, encode_window
from src.rle.bitmasks import num_bytes
from src.rle.masks import NO_RUNS

Probabilities = npt.NDArray[np.float16] | npt.NDArray[np.float32]
_Drawing = TypeVar("_Drawing", bound=Callable[..., Any])
# A matrix product here takes microseconds: threads cost more than they save, most of all on cores
# that other processes use.
_one_blas_thread: Callable[[_Drawing], _Drawing] = ThreadpoolController().wrap(
    limits=1, user_api="blas"
)


@_one_blas_thread
def sample_masks(
    mask_probabilities: Probabilities,
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_threshold: float | npt.NDArray[np.float32],
    raster_hw: tuple[int, int] = RASTER_HW,
) -> npt.NDArray[np.uint8]:
    """Draw masks as mmdet pastes them at full size and nearest resizing shrinks them.

    Bilinear sampling with zeros outside (``grid_sample`` with ``align_corners=False``) at pixel
    centres. A pixel belongs to the mask if its probability is at least ``mask_threshold`` and it
    lies in the box rounded outward to whole pixels and grown by one, where mmdet stops on the CPU
    (``skip_empty``; on a GPU it does not, so with a threshold t below 0.5 a confident mask extends
    0.5 - t cells beyond its box). Coordinates are rounded as in torch, so a pixel can differ only
    if its probability is within 1e-6 of the threshold.

    Args:
        mask_probabilities: Shape (N, h, w) in [0, 1].
        boxes_xyxy: Shape (N, 4) float32, image pixels; may cross the image's edge.
        size_hw: Height and width of the image in pixels.
        mask_threshold: One threshold, one for each mask (N,), or several for all masks (T, 1), for
            which the probabilities are computed once.
        raster_hw: Height and width of the raster.

    Returns:
        Shape (N, B) or (T, N, B) uint8: bits of the raster, B = ceil(H * W / 8); see
        ``src.rle.Bitmasks``.
    """
    thresholds = _by_mask(mask_threshold, len(boxes_xyxy))
    height = raster_hw[0]
    packed = np.zeros((*thresholds.shape, num_bytes(raster_hw)), dtype=np.uint8)
    for index, columns, rows, probabilities in _windows(
        mask_probabilities, boxes_xyxy, size_hw, raster_hw
    ):
        # the window's columns from top to bottom, behind the bits that fill up their first byte
        first_byte, spare_bits = divmod(columns.start * height, 8)
        pixels = np.zeros(spare_bits + len(probabilities) * height, dtype=bool)
        inside = pixels[spare_bits:].reshape(-1, height)[:, rows]
        for place, threshold in np.ndenumerate(thresholds[..., index]):
            np.greater_equal(probabilities, threshold, out=inside)
            drawn = np.packbits(pixels, bitorder="little")
            packed[(*place, index, slice(first_byte, first_byte + len(drawn)))] = drawn
    return packed


@_one_blas_thread
def sample_rles(
    mask_probabilities: Probabilities,
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    mask_threshold: float | npt.NDArray[np.float32],
) -> RleBatch:
    """Draw N masks as mmdet pastes them at the image's size, maybe empty; see ``sample_masks``."""
    masks = [NO_RUNS] * len(boxes_xyxy)
    thresholds = _by_mask(mask_threshold, len(boxes_xyxy))
    for index, columns, rows, probabilities in _windows(
        mask_probabilities, boxes_xyxy, size_hw, size_hw
    ):
        inside = probabilities >= thresholds[index]
        masks[index] = encode_window(inside.T, (rows.start, columns.start), size_hw).runs
    return RleBatch.join(masks, size_hw)


@_one_blas_thread
def sample_windows(
    mask_probabilities: Probabilities,
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    raster_hw: tuple[int, int],
) -> list[tuple[int, slice, slice, npt.NDArray[np.float32]]]:
    """Return the probabilities that ``sample_masks`` compares with a threshold.

    Returns:
        Of each mask whose box covers a pixel: its index, the columns and rows of the raster, and
        the probability of each pixel there, shape (columns, rows) float32.
    """
    return list(_windows(mask_probabilities, boxes_xyxy, size_hw, raster_hw))


def _by_mask(
    mask_threshold: float | npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.float32]:
    """Return the threshold of each mask. Shape (N,) or (T, N)."""
    thresholds = np.asarray(mask_threshold, dtype=np.float32)
    return np.broadcast_to(thresholds, (*thresholds.shape[:-1], count))


def _windows(
    mask_probabilities: Probabilities,
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    grid_hw: tuple[int, int],
) -> Iterator[tuple[int, slice, slice, npt.NDArray[np.float32]]]:
    """Yield the part of the grid that each box covers, unless it covers none.

    That is the mask's index, the columns, the rows, and the probability of each pixel, shape
    (columns, rows) float32.
    """
    _, mask_height, mask_width = mask_probabilities.shape
    x_axis = _Axis(boxes_xyxy[:, 0], boxes_xyxy[:, 2], size_hw[1], grid_hw[1], mask_width)
    y_axis = _Axis(boxes_xyxy[:, 1], boxes_xyxy[:, 3], size_hw[0], grid_hw[0], mask_height)
    for index, mask in enumerate(mask_probabilities):
        columns, x_weights = x_axis.weights(index)
        rows, y_weights = y_axis.weights(index)
        if len(x_weights) and len(y_weights):
            yield index, columns, rows, x_weights @ (y_weights @ mask.astype(np.float32)).T


class _Axis:
    """The grid's pixels along one axis in the cells of N masks.

    ``low`` and ``high``, shape (N,), are the edges of the boxes in image pixels; ``image``,
    ``grid`` and ``mask`` are lengths in image pixels, grid pixels and cells.
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
        # more than one cell beyond the outermost there is nothing to sample
        self._cells = np.nan_to_num(cells, nan=-1.0).clip(-1, mask).astype(np.float32)

    def weights(self, index: int) -> tuple[slice, npt.NDArray[np.float32]]:
        """Return the grid pixels of a mask's box, P of them, and their weights of its cells.

        Shape of the weights: (P, mask) float32.
        """
        span = slice(int(self._start[index]), int(self._stop[index]))
        cells = self._cells[index, span]
        lower = np.floor(cells)
        part = cells - lower
        # one more cell at either end, for the zeros outside
        padded = np.zeros((len(cells), self._mask + 3), dtype=np.float32)
        place = lower.astype(np.int64) + 1
        pixels = np.arange(len(cells))
        padded[pixels, place] = np.float32(1) - part
        padded[pixels, place + 1] = part
        return span, padded[:, 1 : self._mask + 1]


def suppress_overlaps(
    category_ids: npt.NDArray[np.integer], packed: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Remove from each mask the pixels of all masks of its class that come before it.

    The winner's hard suppression (S13). Masks come in the order of the detections: by falling
    score, and of equal scores the earlier candidate first. Afterwards the masks of a class are
    disjoint and cover the same pixels as before. Masks of different classes may overlap, as in the
    ground truth (a pocket in a jacket).

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
    """Return whether two masks of a class share a pixel. Arguments as in ``suppress_overlaps``."""
    return not np.array_equal(suppress_overlaps(category_ids, packed), packed)
