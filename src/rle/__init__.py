"""Run-length encoding (RLE) of masks, the form in which the project keeps them.

The pixels of an image are numbered column by column: the one in row y and column x of an image of
height H is number x * H + y. A mask is the list of its runs of consecutive pixels, each a start and
a length. So it takes a few kilobytes where the bitmap of a 17-megapixel image takes 17 MB, and
areas, boxes, intersections and resized masks are read off it. Arrays count starts from 0; the
competition's RLE strings (``EncodedPixels``) count from 1; COCO's RLE has the lengths of background
and foreground by turns, as a list or as compressed text.

An ``Rle`` is one mask with the size of its image, an ``RleBatch`` N of them in three arrays; what
takes ``Masks`` takes a batch or a list of ``Rle``. ``Bitmasks`` are N masks of one raster as bits,
for counting shared pixels.
"""

from __future__ import annotations

from src.rle.bitmasks import Bitmasks
from src.rle.coco import from_coco, from_coco_counts, to_coco
from src.rle.masks import (
    Masks,
    Rle,
    RleBatch,
    RleError,
    Runs,
    intersection_px,
    iou,
    subtract,
    union,
)
from src.rle.raster import decode, decode_resized, draw, encode, encode_window, resize_nearest
from src.rle.text import ParsedRle, format_rle, parse_rle, rle_problems

__all__ = [
    "Bitmasks",
    "Masks",
    "ParsedRle",
    "Rle",
    "RleBatch",
    "RleError",
    "Runs",
    "decode",
    "decode_resized",
    "draw",
    "encode",
    "encode_window",
    "format_rle",
    "from_coco",
    "from_coco_counts",
    "intersection_px",
    "iou",
    "parse_rle",
    "resize_nearest",
    "rle_problems",
    "subtract",
    "to_coco",
    "union",
]
