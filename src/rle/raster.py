"""Decode, encode, draw and resize run-length masks.

Bit rasters from run lengths and back, a 64-bit word at a time; what drawing shares.
A mask's bits are the running parity of its *toggles*: a bit set wherever a run starts or ends. The
parity inside a word takes six shifts, so a raster costs a few operations for each 64 pixels,
however many runs it has.

Run lengths to bitmaps and back, and nearest resizing that never makes the full bitmap.
Nearest resizing takes the source row ``floor(i * source / target)`` for target row i, and columns
alike. It is a choice of rows and columns, so it can be read off the runs: the target rows taken
from source rows y0 to before y1 are ``ceil(y0 * target / source)`` to before ``ceil(y1 * target /
source)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from src.rle.algebra import Runs, area_px, box_xyxy, intersection_px, merge_touching, split_columns

Words = npt.NDArray[np.uint64]


def runs_to_words(
    starts: npt.NDArray[np.integer], ends: npt.NDArray[np.integer], pixels: int
) -> Words:
    """Set the bits from each start to before its end.

    Args:
        starts: Shape (R,), ascending.
        ends: Shape (R,), each at most the next start and at most ``pixels``.
        pixels: Length of the raster.

    Returns:
        Shape (ceil(pixels / 64),); pixel p is bit p % 64 of word p // 64, bits past the raster are
        clear.
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
    """Maximal runs of set bits. Shapes (W,) and (R, 2); bits past the raster must be clear."""
    toggles = np.append(words, np.uint64(0))
    toggles[1:] ^= words >> np.uint64(63)
    toggles[:-1] ^= words << np.uint64(1)
    changed = np.flatnonzero(toggles)
    bits = np.unpackbits(toggles[changed].view(np.uint8), bitorder="little")
    at = np.flatnonzero(bits.view(np.bool_))  # of booleans numpy finds them faster
    places = (changed[at >> 6] << 6) + (at & 63)
    return np.stack([places[::2], places[1::2] - places[::2]], axis=1).astype(np.int32)


def words_to_pixels(words: Words, pixels: int) -> npt.NDArray[np.bool_]:
    """Spread the first ``pixels`` bits of one raster into an array of shape (pixels,) bool."""
    return np.unpackbits(words.view(np.uint8), count=pixels, bitorder="little").view(np.bool_)


def pixels_to_words(pixels: npt.NDArray[np.bool_]) -> Words:
    """Gather an array of shape (P,) bool into words of 64 bits, the rest of the last one clear."""
    packed = np.packbits(pixels, bitorder="little")
    words = np.zeros(-(-len(pixels) // 64), dtype=np.uint64)
    words.view(np.uint8)[: len(packed)] = packed
    return words


def transpose(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Swap rows and columns, shapes (H, W) and (W, H) bool, faster than numpy does.

    May be a view of the input.
    """
    if pixels.T.flags.c_contiguous:
        return pixels.T
    height, width = pixels.shape
    turned = cv2.transpose(np.ascontiguousarray(pixels).view(np.uint8))
    return turned.reshape(width, height).view(np.bool_)


def decode(runs: Runs, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draw a mask.

    Args:
        runs: Shape (R, 2), valid for the image (``check_runs``).
        size_hw: Height and width of the image.

    Returns:
        Shape (H, W) bool.

    Example:
        >>> import numpy as np
        >>> from src import decode
        >>> decode(np.array([[1, 2]], dtype=np.int32), (2, 2)).astype(int)
        array([[0, 1],
               [1, 0]])
    """
    mask = np.zeros(size_hw, dtype=np.bool_)
    draw(runs, mask)
    return mask


def draw(runs: Runs, mask: npt.NDArray[np.bool_]) -> None:
    """Draw a mask into a bitmap that is there.

    Args:
        runs: Shape (R, 2), valid for the image (``check_runs``).
        mask: Shape (H, W) bool, of the image, nothing drawn in it yet. Changed; outside of the
            columns that the mask meets not even touched, so that a row of ``np.zeros`` takes no
            memory there.
    """
    starts = runs[:, 0].astype(np.int64)
    _draw(starts, starts + runs[:, 1], mask)


def encode(mask: npt.NDArray[np.bool_]) -> Runs:
    """Maximal runs of a bitmap.

    Args:
        mask: Shape (H, W), bool or any numbers, not zero where the object is.

    Returns:
        Shape (R, 2) int32.

    Example:
        >>> import numpy as np
        >>> from src import encode
        >>> encode(np.array([[0, 1], [1, 1]])).tolist()
        [[1, 3]]
    """
    columns = transpose(mask.astype(np.bool_, copy=False))
    return words_to_runs(pixels_to_words(columns.ravel()))


def decode_resized(
    runs: Runs,
    size_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    flip_horizontal: bool = False,
) -> npt.NDArray[np.bool_]:
    """Draw a mask on a smaller or larger grid: as ``decode``, nearest resizing, flipping would.

    Args:
        runs: Shape (R, 2), valid for the image.
        size_hw: Height and width of the image.
        grid_hw: Height and width of the grid, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Shape (grid height, grid width) bool.
    """
    starts, ends = resized_intervals(runs, size_hw, grid_hw, flip_horizontal)
    mask = np.zeros(grid_hw, dtype=np.bool_)
    _draw(starts, ends, mask)
    return mask


def resize_nearest(
    runs: Runs,
    size_hw: tuple[int, int],
    new_size_hw: tuple[int, int],
    flip_horizontal: bool = False,
) -> Runs:
    """Resize a mask by nearest: the maximal runs of what ``decode_resized`` draws.

    Args:
        runs: Shape (R, 2), valid for the image.
        size_hw: Height and width of the image.
        new_size_hw: Height and width of the result, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Shape (S, 2) int32; empty where no chosen row and column meets the mask.
    """
    return merge_touching(*resized_intervals(runs, size_hw, new_size_hw, flip_horizontal))


def _draw(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]
) -> None:
    height_px = len(mask)
    # Only the columns from the first interval to the last are drawn; a mask is often a small part.
    left = int(starts[0]) // height_px if len(starts) else 0
    right = -(-int(ends[-1]) // height_px) if len(ends) else 0
    if left < right:
        pixels = (right - left) * height_px
        words = runs_to_words(starts - left * height_px, ends - left * height_px, pixels)
        columns = words_to_pixels(words, pixels).reshape(right - left, height_px)
        mask[:, left:right] = transpose(columns)


def resized_intervals(
    runs: Runs, size_hw: tuple[int, int], grid_hw: tuple[int, int], flip_horizontal: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs lie on another grid, for who draws them: as ``resize_nearest``, not merged.

    Args:
        runs: Shape (R, 2), valid for the image.
        size_hw: Height and width of the image.
        grid_hw: Height and width of the grid, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Starts and ends, shape (S,) int64, of ascending disjoint intervals of grid pixels; they may
        touch or be empty.
    """
    (height, width), grid_width = size_hw, grid_hw[1]
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    if len(runs) == 0:
        return starts, ends
    # The grid columns whose source column floor(x * width / grid_width) lies between the mask's
    # first and last one.
    left, right = int(starts[0]) // height, -(-int(ends[-1]) // height)
    columns = np.arange(-(-left * grid_width // width), -(-right * grid_width // width))
    tops = columns * width // grid_width * height  # first pixel of each grid column's source
    if flip_horizontal:
        columns, tops = grid_width - 1 - columns[::-1], tops[::-1]
    return _intervals(starts, ends, columns, tops, height, grid_hw[0])


def resized_intervals_batch(
    masks: Sequence[Runs], size_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs of N masks of one image lie on N other grids, the first of which is followed
    by the second, and so on: ``resized_intervals`` of all of them in one go.

    Args:
        masks: N arrays of shape (R_i, 2), valid for the image.
        size_hw: Height and width of the image.
        grid_hw: Height and width of each grid, both at least 1.

    Returns:
        Starts and ends, shape (S,) int64, of ascending disjoint intervals; those of mask i, counted
        from i * grid height * grid width, may touch.
    """
    (height, width), (grid_height, grid_width) = size_hw, grid_hw
    counts = np.array([len(runs) for runs in masks], dtype=np.int64)
    filled = np.flatnonzero(counts)
    runs = np.concatenate([np.zeros((0, 2), dtype=np.int32), *masks])
    # Side by side the masks are one mask of an image N times as wide.
    starts = runs[:, 0] + (np.arange(len(masks)) * (height * width)).repeat(counts)
    ends = starts + runs[:, 1]
    last = counts.cumsum()[filled] - 1
    left, right = starts[last + 1 - counts[filled]] // height, -(-ends[last] // height)
    first_column = -(-left * grid_width // width)
    columns_of_mask = -(-right * grid_width // width) - first_column
    columns = _ranges(first_column, columns_of_mask)
    tops = columns * width // grid_width * height
    starts, ends = _intervals(starts, ends, columns, tops, height, grid_height)
    seen = starts < ends  # an empty one may lie past the last column, in the next mask's grid
    return starts[seen], ends[seen]


def _ranges(begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count up from each begin, one range after the other. Shapes (N,) and (sum of lengths,)."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(begins - (ends - lengths), lengths)


def _intervals(
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
    height: int,
    grid_height: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut intervals at the source columns that begin at ``tops``, and put them into the columns of
    the grid. Shapes (R,), (R,), (C,), (C,)."""
    first = ends.searchsorted(tops, side="right")
    pieces = np.maximum(starts.searchsorted(tops + height, side="left") - first, 0)
    chosen = _ranges(first, pieces)
    tops = tops.repeat(pieces)
    grid_tops = (columns * grid_height).repeat(pieces)
    y_first = np.maximum(starts[chosen] - tops, 0)
    y_end = np.minimum(ends[chosen] - tops, height)
    return (
        grid_tops + -(-y_first * grid_height // height),
        grid_tops + -(-y_end * grid_height // height),
    )


SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width (EXIF 2.32, section 4.6.4)."""

Bitmap = npt.NDArray[np.bool_]
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


def turn_runs(runs: Runs, stored_hw: tuple[int, int], orientation: int) -> Runs:
    """Turn a mask of the stored image into that of the displayed one.

    Args:
        runs: Shape (R, 2), valid for the stored image.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.

    Returns:
        Maximal runs, shape (S, 2), on the image as displayed.
    """
    if len(runs) == 0 or orientation == 1:
        return runs
    height = stored_hw[0]
    x_min, y_min, x_max, y_max = (int(edge) for edge in box_xyxy(runs, height))
    shifted = runs - np.array([x_min * height, 0], dtype=np.int32)
    crop = decode(shifted, (height, x_max - x_min))[y_min:y_max]
    turned = _TURNS[orientation](crop)
    left, top = (
        int(edge) for edge in turn_box((x_min, y_min, x_max, y_max), stored_hw, orientation)[:2]
    )
    crop_height = turned.shape[0]
    pieces = split_columns(encode(turned), crop_height).astype(np.int64)
    columns, rows = np.divmod(pieces[:, 0], crop_height)
    displayed_height = stored_hw[1] if orientation in SIDEWAYS else height
    starts = (columns + left) * displayed_height + rows + top
    return merge_touching(starts, starts + pieces[:, 1])


def turn_points(
    points_xy: npt.NDArray[np.float64], stored_hw: tuple[int, int], orientation: int
) -> npt.NDArray[np.float64]:
    """Turn points of the stored image into those of the displayed one.

    Args:
        points_xy: Shape (N, 2), in pixels, from the outer corner of the first pixel.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.

    Returns:
        Shape (N, 2).
    """
    x, y = points_xy.T
    if orientation in (2, 3, 7, 8):
        x = stored_hw[1] - x
    if orientation in (3, 4, 6, 7):
        y = stored_hw[0] - y
    return np.stack([y, x] if orientation in SIDEWAYS else [x, y], axis=1)


def turn_box(box_xyxy: Sequence[float], stored_hw: tuple[int, int], orientation: int) -> Box:
    """Turn a box of the stored image into that of the displayed one.

    Args:
        box_xyxy: in pixels, the maxima one past the last pixel.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.
    """
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
    return 2 * (area_px(runs) - intersection_px(runs, shifted))
