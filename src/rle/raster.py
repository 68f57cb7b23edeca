"""Decode, encode, draw, resize and turn run-length masks.

Bitmaps are made of runs and back a 64-bit word at a time. A mask's bits are the running parity of
its *toggles*, a bit set wherever a run starts or ends. The parity inside a word takes six shifts:
a raster costs a few operations for each 64 pixels, however many runs it has.

Nearest resizing never makes the full bitmap. Target row i is the source row
``floor(i * source / target)``, and columns alike. As a choice of rows and columns it is read off
the runs: the target rows taken from source rows y0 to before y1 are ``ceil(y0 * target / source)``
to before ``ceil(y1 * target / source)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from src.rle.masks import (
    Masks,
    Rle,
    RleBatch,
    Runs,
    Size,
    merge_intervals,
    ranges,
    shared_px,
    split_columns,
)

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Bitmap = npt.NDArray[np.bool_]


def runs_to_words(
    starts: npt.NDArray[np.integer], ends: npt.NDArray[np.integer], pixels: int
) -> Words:
    """Set the bits from each start to before its end.

    Args:
        starts: Shape (R,), ascending.
        ends: Shape (R,), each at most the next start and at most ``pixels``.
        pixels: Length of the raster.

    Returns:
        Shape (ceil(pixels / 64),); pixel p is bit p % 64 of word p // 64, the rest is clear.
    """
    words = np.zeros(-(-pixels // 64) + 1, dtype=np.uint64)
    places = np.concatenate([starts, ends], dtype=np.int64)
    np.bitwise_xor.at(words, places >> 6, np.uint64(1) << (places & 63).view(np.uint64))
    return fill_toggles(words)[:-1]


def fill_toggles(words: Words) -> Words:
    """Replace bit p by the exclusive or of bits 0 to p, in place. Shape (W,)."""
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    # The top bit of a filled word is the word's own parity; all bits of the next words turn by it.
    parity = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - parity[:-1]
    return words


def words_to_runs(words: Words) -> Runs:
    """Return the maximal runs, shape (R, 2), of the set bits of words, shape (W,)."""
    toggles = np.append(words, np.uint64(0))
    toggles[1:] ^= words >> np.uint64(63)
    toggles[:-1] ^= words << np.uint64(1)
    changed = np.flatnonzero(toggles)
    bits = np.unpackbits(toggles[changed].view(np.uint8), bitorder="little")
    at = np.flatnonzero(bits.view(np.bool_))  # of booleans numpy finds them faster
    places = (changed[at >> 6] << 6) + (at & 63)
    return np.stack([places[::2], places[1::2] - places[::2]], axis=1).astype(np.int32)


def words_to_pixels(words: Words, pixels: int) -> Bitmap:
    """Spread the first ``pixels`` bits of one raster into an array of shape (pixels,) bool."""
    return np.unpackbits(words.view(np.uint8), count=pixels, bitorder="little").view(np.bool_)


def pixels_to_words(pixels: Bitmap) -> Words:
    """Gather an array of shape (P,) bool into words of 64 bits, the rest of the last one clear."""
    packed = np.packbits(pixels, bitorder="little")
    words = np.zeros(-(-len(pixels) // 64), dtype=np.uint64)
    words.view(np.uint8)[: len(packed)] = packed
    return words


def transpose(pixels: Bitmap) -> Bitmap:
    """Swap rows and columns, shapes (H, W) and (W, H) bool; may be a view of the input.

    OpenCV takes a fifteenth of the time of numpy, and a fifth of that of numpy by tiles.
    """
    if pixels.T.flags.c_contiguous:
        return pixels.T
    height, width = pixels.shape
    turned = cv2.transpose(np.ascontiguousarray(pixels).view(np.uint8))
    return turned.reshape(width, height).view(np.bool_)


def decode(mask: Rle) -> Bitmap:
    """Draw a mask as a bitmap, shape (H, W) bool.

    Example:
        >>> import numpy as np
        >>> from src import decode, encode
        >>> decode(encode(np.array([[0, 1], [1, 1]]))).astype(int)
        array([[0, 1],
               [1, 1]])
    """
    bitmap = np.zeros(mask.size_hw, dtype=np.bool_)
    draw(mask, bitmap)
    return bitmap


def draw(mask: Rle, bitmap: Bitmap) -> None:
    """Draw a mask into an existing bitmap.

    Args:
        mask: A valid mask.
        bitmap: Shape (H, W) bool, of the mask's image, nothing drawn in it yet. Changed; outside of
            the columns that the mask meets not even touched, so that a row of ``np.zeros`` takes no
            memory there.
    """
    starts = mask.runs[:, 0].astype(np.int64)
    _draw(starts, starts + mask.runs[:, 1], bitmap)


def encode(bitmap: npt.NDArray[Any]) -> Rle:
    """Return the mask of a bitmap, as maximal runs.

    Args:
        bitmap: Shape (H, W), bool or any numbers, not zero where the mask is.

    Example:
        >>> import numpy as np
        >>> from src import encode
        >>> mask = encode(np.array([[0, 1], [1, 1]]))
        >>> mask.runs.tolist(), mask.area_px
        ([[1, 3]], 3)
    """
    columns = transpose(bitmap.astype(np.bool_, copy=False))
    height, width = bitmap.shape
    return Rle(words_to_runs(pixels_to_words(columns.ravel())), (height, width))


def encode_window(bitmap: npt.NDArray[Any], corner_yx: tuple[int, int], size_hw: Size) -> Rle:
    """Return the mask of a bitmap of a window of an image, as maximal runs.

    Args:
        bitmap: Shape (h, w), as in ``encode``.
        corner_yx: Row and column of the window's upper left pixel.
        size_hw: Height and width of the image.
    """
    (top, left), height = corner_yx, size_hw[0]
    pieces = split_columns(encode(bitmap).runs, len(bitmap)).astype(np.int64)
    columns, rows = np.divmod(pieces[:, 0], len(bitmap))
    starts = (columns + left) * height + rows + top
    return merge_intervals(starts, starts + pieces[:, 1], size_hw)[0]


def decode_resized(mask: Rle, grid_hw: Size, flip_horizontal: bool = False) -> Bitmap:
    """Draw a mask on a smaller or larger grid, as decoding, nearest resizing and flipping would.

    Args:
        mask: A valid mask.
        grid_hw: Height and width of the grid, both at least 1.
        flip_horizontal: Whether to flip left to right after resizing.

    Returns:
        Shape (grid height, grid width) bool.
    """
    bitmap = np.zeros(grid_hw, dtype=np.bool_)
    if not len(mask.runs):
        return bitmap
    # As resized_intervals for a batch, whose array operations on one mask would take a sixth more.
    (height, width), (grid_height, grid_width) = mask.size_hw, grid_hw
    starts = mask.runs[:, 0].astype(np.int64)
    ends = starts + mask.runs[:, 1]
    left, right = int(starts[0]) // height, -(-int(ends[-1]) // height)
    columns = np.arange(-(-left * grid_width // width), -(-right * grid_width // width))
    tops = columns * width // grid_width * height
    if flip_horizontal:
        columns, tops = grid_width - 1 - columns[::-1], tops[::-1]
    _draw(*_intervals(starts, ends, columns, tops, height, grid_height), bitmap)
    return bitmap


def resize_nearest(masks: Masks, size_hw: Size, flip_horizontal: bool = False) -> RleBatch:
    """Resize the masks of an image by nearest: the maximal runs of what ``decode_resized`` draws.

    Args:
        masks: N valid masks of images of one size.
        size_hw: Height and width of the result, both at least 1.
        flip_horizontal: Whether to flip left to right after resizing.

    Returns:
        N masks; one is empty where no chosen row and column meets it.
    """
    batch = RleBatch.of(masks)
    if not len(batch):
        return batch
    starts, ends = resized_intervals(batch, size_hw, flip_horizontal)
    return merge_intervals(starts, ends, size_hw, len(batch))


def _draw(starts: Places, ends: Places, bitmap: Bitmap) -> None:
    height_px = len(bitmap)
    # Only the columns from the first interval to the last are drawn; a mask is often a small part.
    left = int(starts[0]) // height_px if len(starts) else 0
    right = -(-int(ends[-1]) // height_px) if len(ends) else 0
    if left < right:
        pixels = (right - left) * height_px
        words = runs_to_words(starts - left * height_px, ends - left * height_px, pixels)
        columns = words_to_pixels(words, pixels).reshape(right - left, height_px)
        bitmap[:, left:right] = transpose(columns)


def resized_intervals(
    masks: RleBatch, grid_hw: Size, flip_horizontal: bool = False
) -> tuple[Places, Places]:
    """Return the intervals of the runs of N masks on N other grids that follow each other.

    Args:
        masks: N valid masks of images of one size, at least one.
        grid_hw: Height and width of each grid, both at least 1.
        flip_horizontal: Whether to flip left to right after resizing.

    Returns:
        Starts and ends, shape (S,) int64, of ascending disjoint intervals; those of mask i, counted
        from i * grid height * grid width, may touch or be empty; an empty one may lie past the
        last column.
    """
    (height, width), (grid_height, grid_width) = masks.size_hw, grid_hw
    # Side by side the masks are one mask of an image N times as wide.
    counts = masks.num_runs
    starts = masks.runs[:, 0] + (np.arange(len(masks)) * (height * width)).repeat(counts)
    ends = starts + masks.runs[:, 1]
    filled = np.flatnonzero(counts)
    first, last = masks.offsets[filled], masks.offsets[filled + 1] - 1
    # The grid columns whose source column floor(x * width / grid_width) lies between the first and
    # last one of a mask.
    left, right = starts[first] // height, -(-ends[last] // height)
    begins = -(-left * grid_width // width)
    columns_of_mask = -(-right * grid_width // width) - begins
    columns = ranges(begins, columns_of_mask)
    tops = columns * width // grid_width * height  # first pixel of each grid column's source
    if flip_horizontal:
        grids = filled.repeat(columns_of_mask) * grid_width
        columns = 2 * grids + grid_width - 1 - columns
        order = columns.argsort()
        columns, tops = columns[order], tops[order]
    return _intervals(starts, ends, columns, tops, height, grid_height)


def _intervals(
    starts: Places, ends: Places, columns: Places, tops: Places, height: int, grid_height: int
) -> tuple[Places, Places]:
    """Cut R intervals at the C source columns that begin at ``tops``, and put them on the grid."""
    first = ends.searchsorted(tops, side="right")
    pieces = np.maximum(starts.searchsorted(tops + height, side="left") - first, 0)
    chosen = ranges(first, pieces)
    tops = tops.repeat(pieces)
    grid_tops = (columns * grid_height).repeat(pieces)
    y_first = np.maximum(starts[chosen] - tops, 0)
    y_end = np.minimum(ends[chosen] - tops, height)
    first_rows, end_rows = -(-y_first * grid_height // height), -(-y_end * grid_height // height)
    return grid_tops + first_rows, grid_tops + end_rows


SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width (EXIF 2.32, section 4.6.4)."""

Box = tuple[float, float, float, float]

# EXIF 2.32, section 4.6.4: from the stored rows and columns to those that are displayed.
_TURNS: dict[int, Callable[[Bitmap], Bitmap]] = {
    1: lambda mask: mask,
    2: lambda mask: mask[:, ::-1],
    3: lambda mask: mask[::-1, ::-1],
    4: lambda mask: mask[::-1],
    5: lambda mask: mask.T,
    6: lambda mask: mask[::-1].T,
    7: lambda mask: mask[::-1, ::-1].T,
    8: lambda mask: mask[:, ::-1].T,
}


def turn(mask: Rle, orientation: int) -> Rle:
    """Turn a valid mask of the stored image into that of the displayed one, as maximal runs."""
    if orientation == 1:
        return mask
    size_hw = mask.size_hw[::-1] if orientation in SIDEWAYS else mask.size_hw
    if not len(mask.runs):
        return Rle(mask.runs, size_hw)
    height = mask.size_hw[0]
    x_min, y_min, x_max, y_max = box = RleBatch.of([mask]).boxes_xyxy()[0].tolist()
    shifted = mask.runs - np.array([x_min * height, 0], dtype=np.int32)
    crop = decode(Rle(shifted, (height, x_max - x_min)))[y_min:y_max]
    left, top = turn_box(box, mask.size_hw, orientation)[:2]
    return encode_window(_TURNS[orientation](crop), (int(top), int(left)), size_hw)


def turn_points(
    points_xy: npt.NDArray[np.float64], stored_hw: Size, orientation: int
) -> npt.NDArray[np.float64]:
    """Turn points of the stored image into those of the displayed one.

    Shapes (N, 2), in pixels, from the outer corner of the first pixel; orientation as in EXIF.
    """
    x, y = points_xy.T
    if orientation in (2, 3, 7, 8):
        x = stored_hw[1] - x
    if orientation in (3, 4, 6, 7):
        y = stored_hw[0] - y
    return np.stack([y, x] if orientation in SIDEWAYS else [x, y], axis=1)


def turn_box(box_xyxy: Sequence[float], stored_hw: Size, orientation: int) -> Box:
    """Turn a box of the stored image, maxima one past the last pixel, as ``turn_points`` does."""
    corners = np.array(box_xyxy, dtype=np.float64).reshape(2, 2)
    turned = turn_points(corners, stored_hw, orientation)
    (x_min, y_min), (x_max, y_max) = turned.min(axis=0).tolist(), turned.max(axis=0).tolist()
    return x_min, y_min, x_max, y_max


def edges_between_columns(runs: Runs, height_px: int) -> int:
    """Count the pixels whose right neighbour is on the other side of the mask's outline.

    Runs read with another height than they were written with are sheared: few of their columns
    continue the one before.
    """
    shifted = runs + np.array([height_px, 0], dtype=np.int64)
    return 2 * (int(runs[:, 1].sum(dtype=np.int64)) - shared_px(runs, shifted))
