"""Write a train.csv alone, of any length, with sizes and RLE like the real ones.

No bitmap is made: outlines of visible instances, taken once from a few dozen drawn scenes, are
scaled to image size and cut into runs column by column.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from src.annotations.categories import IMATERIALIST_2019_LABELS, write_label_descriptions
from src.rle import RleBatch, decode, format_rle
from src.rle.masks import NO_RUNS, as_sizes
from src.synthetic.dataset import CSV_HEADER
from src.synthetic.files import claim_output, write_whole
from src.synthetic.geometry import Points
from src.synthetic.kinds import Kind
from src.synthetic.masks import visible_objects
from src.synthetic.records import class_id
from src.synthetic.request import CsvRequest
from src.synthetic.scene import random_scene, random_size
from src.synthetic.workers import in_order

_TEMPLATES = 48
_TEMPLATE_EDGE_PX = 900
_IMAGES_A_TASK = 16
_PIXEL_BITS = 36  # of a number that says object, then pixel
_MOST_IMAGES = 20_000_000  # image numbers are spread over the ids so that ids ascend


@dataclass(frozen=True, slots=True)
class _Outlined:
    """Visible instance as the edges of its outlines (holes included), in px of its template."""

    kind: Kind
    attributes: tuple[int, ...]
    edges: npt.NDArray[np.float64]  # (E, 4): x0, y0, x1, y1 with x0 <= x1


@dataclass(frozen=True, slots=True)
class _Template:
    size_hw: tuple[int, int]
    objects: tuple[_Outlined, ...]


def synthesize_csv(
    output: str | Path,
    rows: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = (3000, 6000),
    attributes_share: float = 0.035,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> bool:
    """Write ``train.csv`` and ``label_descriptions.json`` into a folder; there are no images.

    Args:
        output: Folder; new, empty, or of the same request.
        rows: Instances, at least 1; the last image may have fewer than it would.
        seed: Decides everything.
        image_size: Smallest and largest long edge in px.
        attributes_share: Share of the rows with attributes.
        workers: Processes.
        on_progress: Called with the number of rows written, and of all.

    Returns:
        False if the file was there already.

    Raises:
        InputError: A value is out of range, or the folder holds something else.
    """
    request = CsvRequest(
        num_rows=rows, seed=seed, image_size=image_size, attributes_share=attributes_share
    )
    folder = claim_output(output, request.describe())
    write_label_descriptions(IMATERIALIST_2019_LABELS, folder / "label_descriptions.json")
    if (folder / "train.csv").exists():
        return False
    write_whole(folder / "train.csv", _pieces(request, workers, on_progress))
    return True


def _pieces(
    request: CsvRequest, workers: int, on_progress: Callable[[int, int], None]
) -> Iterator[bytes]:
    yield CSV_HEADER.encode()
    written = 0
    tasks = ((request, start) for start in range(0, request.num_rows, _IMAGES_A_TASK))
    for lines in in_order(_lines, tasks, workers):
        left = request.num_rows - written
        yield b"".join(lines[:left])
        written += min(left, len(lines))
        on_progress(written, request.num_rows)
        if written == request.num_rows:
            return


def _lines(task: tuple[CsvRequest, int]) -> list[bytes]:
    """CSV lines of a few images."""
    request, first = task
    templates = _templates(request.seed)
    heads, tails, edges, sizes = [], [], [], []
    for index in range(first, first + _IMAGES_A_TASK):
        rng = np.random.default_rng([request.seed, 3, index])
        template = templates[int(rng.integers(len(templates)))]
        long_edge = int(rng.integers(request.image_size[0], request.image_size[1] + 1))
        scale = long_edge / max(template.size_hw)
        height, width = (max(1, round(edge * scale)) for edge in template.size_hw)
        zoom = scale * rng.uniform(0.72, 1.0)
        x, y = rng.uniform(0, 1, 2) * (width, height) * (1 - zoom / scale)
        grow, move, order = (zoom, zoom, zoom, zoom), (x, y, x, y), (0, 1, 2, 3)
        if rng.random() < 0.5:  # flipped
            x = width - 1 - x
            grow, move, order = (-zoom, zoom, -zoom, zoom), (x, y, x, y), (2, 3, 0, 1)
        name = _image_id(request.seed, index)
        for item in template.objects:
            label = class_id(rng, item.kind, item.attributes, request.attributes_share)
            heads.append(name)
            tails.append(f"{height},{width},{label}")
            edges.append(item.edges[:, order] * grow + move)
            sizes.append((height, width))
    texts = format_rle(masks_of_edges(edges, sizes))
    return [
        f"{head},{text},{tail}\n".encode()
        for head, text, tail in zip(heads, texts, tails, strict=True)
        if text
    ]


def _image_id(seed: int, index: int) -> str:
    """Ascends with the index, as the real file's order does."""
    rank = int(index / _MOST_IMAGES * 16**12)
    rest = hashlib.blake2b(f"{seed}/csv/{index}".encode(), digest_size=10).hexdigest()
    return f"{rank:012x}{rest}.jpg"


@functools.lru_cache(maxsize=1)
def _templates(seed: int) -> tuple[_Template, ...]:
    templates = []
    for index in range(_TEMPLATES):
        rng = np.random.default_rng([seed, 4, index])
        size_hw = random_size(rng, _TEMPLATE_EDGE_PX)
        scene = random_scene(rng, size_hw, 0.5, 0.5)
        objects = tuple(
            _Outlined(kind, attributes, _edges(decode(mask)))
            for kind, attributes, mask in visible_objects(scene)
        )
        templates.append(_Template(size_hw, objects))
    return tuple(templates)


def _edges(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return outline_edges([outline[:, 0].astype(np.float64) for outline in found])


def outline_edges(outlines: Sequence[Points]) -> npt.NDArray[np.float64]:
    """Edges (x0, y0, x1, y1 with x0 <= x1) of closed outlines. Shape (E, 4)."""
    start = np.concatenate([np.zeros((0, 2)), *outlines])
    stop = np.concatenate([np.zeros((0, 2)), *(np.roll(line, -1, axis=0) for line in outlines)])
    backward = (start[:, 0] > stop[:, 0])[:, None]
    return np.concatenate(
        [np.where(backward, stop, start), np.where(backward, start, stop)], axis=1
    )


def masks_of_edges(
    edges: Sequence[npt.NDArray[np.float64]], sizes_hw: Sequence[tuple[int, int]]
) -> RleBatch:
    """The pixels whose centres lie within outlines (even-odd), column by column.

    Outlines that do not cross give masks that do not overlap, and nested ones nested masks: the
    crossings of a column are rounded up alike for all.

    Args:
        edges: Of each object, shape (E, 4) as ``outline_edges`` gives them: px, pixel centres at
            whole numbers.
        sizes_hw: Of the image of each object; what lies outside is cut off.
    """
    height, width = np.asarray(sizes_hw, dtype=np.int64).reshape(-1, 2).T
    owner = np.repeat(np.arange(len(edges)), [len(lines) for lines in edges])
    x0, y0, x1, y1 = np.concatenate([np.zeros((0, 4)), *edges]).T
    first = np.minimum(np.maximum(np.ceil(x0).astype(np.int64), 0), width[owner])
    count = np.minimum(np.maximum(np.ceil(x1).astype(np.int64), 0), width[owner]) - first
    edge = np.repeat(np.arange(len(count)), count)
    column = np.arange(len(edge)) + np.repeat(first - np.cumsum(count) + count, count)
    slope = (y1 - y0) / np.maximum(x1 - x0, 1e-12)
    row = np.ceil((y0 - x0 * slope)[edge] + column * slope[edge]).astype(np.int64)
    tall = height[owner][edge]
    row = np.minimum(np.maximum(row, 0), tall)
    crossing = np.sort((owner << _PIXEL_BITS)[edge] + column * tall + row)
    starts, stops = crossing[::2], crossing[1::2]
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    if len(starts) == 0:
        return RleBatch.join([NO_RUNS] * len(edges), sizes_hw)
    apart = starts[1:] > stops[:-1]  # runs that touch are one
    starts, stops = starts[np.insert(apart, 0, True)], stops[np.append(apart, True)]
    offsets = np.searchsorted(starts, np.arange(len(edges) + 1) << _PIXEL_BITS)
    runs = np.stack([starts & ((1 << _PIXEL_BITS) - 1), stops - starts], axis=1).astype(np.int32)
    return RleBatch(runs, offsets.astype(np.int64), as_sizes(sizes_hw, len(edges)))
