"""Writes a train.csv alone, of any length, with sizes and run lengths like the real ones.

No bitmap is made: outlines of visible objects, taken once from a few dozen drawn scenes, are scaled
to photo size and cut into runs column by column.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from src.annotations.categories import IMATERIALIST_2019_LABELS, write_label_descriptions
from src.annotations.instances import Runs
from src.annotations.run_length_algebra import merge_touching
from src.annotations.run_lengths import decode, format_runs_batch
from src.datamodules.synthetic.dataset import CSV_HEADER
from src.datamodules.synthetic.files import claim_output, write_whole
from src.datamodules.synthetic.geometry import Points
from src.datamodules.synthetic.kinds import Kind
from src.datamodules.synthetic.masks import visible_objects
from src.datamodules.synthetic.records import class_id
from src.datamodules.synthetic.request import CsvRequest
from src.datamodules.synthetic.scene import random_scene, random_size
from src.datamodules.synthetic.workers import in_order

_TEMPLATES = 48
_TEMPLATE_EDGE_PX = 900
_IMAGES_A_TASK = 32
_MOST_OBJECTS = 20_000_000  # image numbers are spread over the ids so that ids ascend


@dataclass(frozen=True, slots=True)
class _Outlined:
    """A visible object as closed outlines (holes included), in px of its template."""

    kind: Kind
    attributes: tuple[int, ...]
    outlines: tuple[Points, ...]


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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Write ``train.csv`` and ``label_descriptions.json`` into a folder; there are no photos.

    Args:
        output: folder; new, empty, or of the same request.
        rows: objects, at least 1; the last image may have fewer than it would.
        seed: decides everything.
        image_size: smallest and largest long edge in px.
        attributes_share: share of the rows with attributes.
        workers: processes.
        on_progress: called with the number of rows written, and of all.

    Returns:
        False if the file was there already.

    Raises:
        InputError: a value is out of range, or the folder holds something else.
    """
    request = CsvRequest(
        rows=rows, seed=seed, image_size=image_size, attributes_share=attributes_share
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
    tasks = ((request, start) for start in range(0, request.rows, _IMAGES_A_TASK))
    for lines in in_order(_lines, tasks, workers):
        left = request.rows - written
        yield b"".join(lines[:left])
        written += min(left, len(lines))
        on_progress(written, request.rows)
        if written == request.rows:
            return


def _lines(task: tuple[CsvRequest, int]) -> list[bytes]:
    """CSV lines of a few images."""
    request, first = task
    templates = _templates(request.seed)
    heads, tails, runs = [], [], []
    for index in range(first, first + _IMAGES_A_TASK):
        rng = np.random.default_rng([request.seed, 3, index])
        template = templates[int(rng.integers(len(templates)))]
        long_edge = int(rng.integers(request.image_size[0], request.image_size[1] + 1))
        scale = long_edge / max(template.size_hw)
        height, width = (max(1, round(edge * scale)) for edge in template.size_hw)
        zoom = scale * rng.uniform(0.72, 1.0)
        shift = rng.uniform(0, 1, 2) * (np.array([width, height]) * (1 - zoom / scale))
        mirrored = rng.random() < 0.5
        name = _image_id(request.seed, index)
        for item in template.objects:
            outlines = [outline * zoom + shift for outline in item.outlines]
            if mirrored:
                outlines = [(width - 1, 0) + outline * (-1, 1) for outline in outlines]
            cut = outline_runs(outlines, (height, width))
            label = class_id(rng, item.kind, item.attributes, request.attributes_share)
            if len(cut):
                heads.append(name)
                tails.append(f"{height},{width},{label}")
                runs.append(cut)
    offsets = np.concatenate([[0], np.cumsum([len(cut) for cut in runs])]).astype(np.int64)
    texts = format_runs_batch(np.concatenate(runs), offsets).to_pylist()
    return [
        f"{head},{text},{tail}\n".encode()
        for head, text, tail in zip(heads, texts, tails, strict=True)
    ]


def _image_id(seed: int, index: int) -> str:
    """Ascends with the index, as the real file's order does."""
    rank = int(index / _MOST_OBJECTS * 16**12)
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
            _Outlined(kind, attributes, _outlines(decode(runs, size_hw)))
            for kind, attributes, runs in visible_objects(scene)
        )
        templates.append(_Template(size_hw, objects))
    return tuple(templates)


def _outlines(mask: npt.NDArray[np.bool_]) -> tuple[Points, ...]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(outline[:, 0].astype(np.float64) for outline in found if len(outline) > 2)


def outline_runs(outlines: list[Points], size_hw: tuple[int, int]) -> Runs:
    """The pixels whose centres lie within closed outlines (even-odd), column by column.

    Outlines that do not cross give masks that do not overlap, and nested ones nested masks: a
    column's crossings are rounded up alike for all.

    Args:
        outlines: each of shape (N, 2), px, pixel centres at whole numbers.
        size_hw: of the picture; what lies outside is cut off.
    """
    height, width = size_hw
    start = np.concatenate(outlines) if outlines else np.zeros((0, 2))
    end = (
        np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])
        if outlines
        else start
    )
    swap = start[:, 0] > end[:, 0]
    left, right = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)
    first = np.clip(np.ceil(left[:, 0]), 0, width).astype(np.int64)
    count = np.clip(np.ceil(right[:, 0]), 0, width).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    column = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    rise = (right[:, 1] - left[:, 1]) / np.maximum(right[:, 0] - left[:, 0], 1e-12)
    y = left[edge, 1] + (column - left[edge, 0]) * rise[edge]
    row = np.clip(np.ceil(y), 0, height).astype(np.int64)
    crossing = np.sort(column * height + row)
    return merge_touching(crossing[::2], crossing[1::2])
