"""Files of one image: JPEG bytes with the habits of real ones, and its CSV rows."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.rle import format_rle
from src.synthetic.image import draw_image
from src.synthetic.kinds import LAST_GARMENT_WITH_ATTRIBUTES, Kind
from src.synthetic.request import ImageRequest

SPLITS = ("train", "test")
GARMENT_ROWS = 0.235
"""Share of rows that are of classes 0 to 12, where nearly all attributes are."""

_NOISE_KINDS = (Kind.HOOD, Kind.COLLAR, Kind.NECKLINE)
_NOISE_SHARE = 0.002  # the real data has 3 such rows in all; small sets should meet one too
_ORIENTATION_TAG = 0x0112
_TURNS = {6: 1, 8: -1}
"""EXIF orientation: quarter turns (counterclockwise) from the displayed image to the stored."""

_DRAWN = (6, 8, 6)  # none that keeps the size: the masks of a few images would not tell its reading


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A finished image."""

    image_id: str
    jpeg: bytes
    rows: tuple[str, ...]
    """CSV lines without line end: ImageId,EncodedPixels,Height,Width,ClassId."""


def image_id(seed: int, split: str, index: int) -> str:
    """Name of an image: 32 hexadecimal digits and ``.jpg``, as in the real data."""
    key = f"{seed}/{split}/{index}".encode()
    return hashlib.blake2b(key, digest_size=16).hexdigest() + ".jpg"


def draw_record(
    request: ImageRequest, split: str, index: int, *, may_transpose: bool
) -> ImageRecord:
    """Draw one image of a data set; it depends on seed, split and index and on nothing else.

    Args:
        request: How images are drawn.
        split: ``train`` or ``test``.
        index: Number of the image in its split, from 0.
        may_transpose: Whether the set is large enough to have rows with exchanged sizes.
    """
    rng = np.random.default_rng([request.seed, SPLITS.index(split), index])
    low, high = request.image_size
    long_edge = int(rng.integers(low, high + 1))
    gray = rng.random() < request.grayscale_share
    orientation = _DRAWN[int(rng.integers(3))] if rng.random() < request.rotated_share else 1
    quality = int(rng.integers(82, 97))
    transposed = split == "train" and request.is_transposed(index)
    if transposed:
        orientation = 6 if index % 2 else 8
    drawn = draw_image(
        rng,
        long_edge,
        request.difficulty,
        request.clutter,
        never_square=transposed,
        categories=request.categories,
    )
    name = image_id(request.seed, split, index)
    height, width = drawn.size_hw
    if transposed and may_transpose:
        height, width = width, height
    rows = []
    texts = format_rle([item.mask for item in drawn.objects])
    for item, text in zip(drawn.objects, texts, strict=True):
        label = class_id(rng, item.kind, item.attributes, request.attributes_share)
        rows.append(f"{name},{text},{height},{width},{label}")
    jpeg = _encode_jpeg(drawn.image, gray, orientation, quality)
    return ImageRecord(name, jpeg, tuple(rows))


def class_id(
    rng: np.random.Generator, kind: Kind, attributes: tuple[int, ...], share: float
) -> str:
    """The ClassId of a row: the category, and for a share of the rows its attributes (``6_13_24``).

    Classes 0 to 12 get nearly all of them; 27, 28 and 33 now and then get one by mistake, as in the
    real data.
    """
    dice, noise = rng.random(), int(rng.integers(92))
    if kind <= LAST_GARMENT_WITH_ATTRIBUTES and dice < share / GARMENT_ROWS:
        return "_".join(map(str, (int(kind), *attributes)))
    if kind in _NOISE_KINDS and dice < _NOISE_SHARE * (share > 0):
        return f"{int(kind)}_{noise}"
    return str(int(kind))


def _encode_jpeg(
    pixels: npt.NDArray[np.uint8], gray: bool, orientation: int, quality: int
) -> bytes:
    stored = np.ascontiguousarray(np.rot90(pixels, _TURNS.get(orientation, 0)))
    image = Image.fromarray(stored)
    if gray:
        image = image.convert("L")
    exif = Image.Exif()
    if orientation != 1:
        exif[_ORIENTATION_TAG] = orientation
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, exif=exif)
    return buffer.getvalue()
