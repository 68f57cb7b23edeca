"""Writes a data set of generated images in the competition's own layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from src.annotations.categories import IMATERIALIST_2019_LABELS, write_label_descriptions
from src.errors import InputError
from src.io import read_json_object, remove_all_partial_files
from src.synthetic.files import claim_output, write_whole
from src.synthetic.kinds import Kind
from src.synthetic.records import SPLITS, draw_record, image_id
from src.synthetic.request import DatasetRequest, ImageRequest
from src.synthetic.workers import in_order

CSV_HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
CHUNK = 16  # images that are drawn and noted together
_TABLES = {"train": "train.csv", "test": "test_truth.csv"}
_NOTES = ".rows"  # rows of chunks that are done, until all are

Task = tuple[str, DatasetRequest, str, int, int]
"""Output folder, request, split, first image, one past the last."""


def synthesize(
    output: str | Path,
    num_train_images: int,
    num_test_images: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = (768, 1536),
    difficulty: float = 0.5,
    clutter: float = 0.5,
    attributes_share: float = 0.035,
    grayscale_share: float = 0.02,
    rotated_share: float = 0.03,
    num_transposed_images: int = 2,
    categories: Sequence[int] = tuple(map(int, Kind)),
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Draw a data set of dressed figures, with the ground truth of every garment and part.

    Writes ``train/``, ``test/``, ``train.csv``, ``test_truth.csv`` (the same columns),
    ``sample_submission.csv``, ``label_descriptions.json`` and ``synthesis.json`` (the request).
    Images are at ``image_size`` (long edge, px; uniform between the two). What the other keys mean
    is in ``ImageRequest``. Interrupted, the same call resumes with what is missing.

    Args:
        output: Folder; new, empty, or of the same request.
        num_train_images: At least 1.
        num_test_images: At least 0.
        seed: Decides everything.
        image_size: Smallest and largest long edge in px.
        difficulty: 0 to 1.
        clutter: 0 to 1.
        attributes_share: Share of the rows with attributes.
        grayscale_share: Share of the images with one channel.
        rotated_share: Share of the images with an EXIF orientation.
        num_transposed_images: Training images with Height and Width exchanged.
        categories: Ids of what is worn and annotated.
        workers: Processes that draw.
        on_progress: Called with the number of images that are done, and of all.

    Returns:
        How many images were drawn now; 0 if everything was there.

    Raises:
        InputError: A value is out of range, or the folder holds something else.
    """
    request = DatasetRequest(
        num_train_images=num_train_images,
        num_test_images=num_test_images,
        images=ImageRequest(
            seed=seed,
            image_size=image_size,
            difficulty=difficulty,
            clutter=clutter,
            attributes_share=attributes_share,
            grayscale_share=grayscale_share,
            rotated_share=rotated_share,
            num_transposed_images=num_transposed_images,
            categories=tuple(categories),
        ),
    )
    folder = claim_output(output, request.describe())
    for name in (*SPLITS, _NOTES):
        (folder / name).mkdir(exist_ok=True)
        remove_all_partial_files(folder / name)
    total = num_train_images + num_test_images
    tasks = [task for task in _tasks(folder, request) if not _is_done(task)]
    missing = sum(stop - start for *_, start, stop in tasks)
    done = total - missing
    on_progress(done, total)
    for drawn in in_order(_draw_chunk, tasks, workers):
        done += drawn
        on_progress(done, total)
    for split in SPLITS:
        if not (folder / _TABLES[split]).exists():
            write_whole(folder / _TABLES[split], _table(folder, request, split))
    write_whole(folder / "sample_submission.csv", _sample_submission(request))
    write_label_descriptions(IMATERIALIST_2019_LABELS, folder / "label_descriptions.json")
    shutil.rmtree(folder / _NOTES)
    return missing


def _tasks(folder: Path, request: DatasetRequest) -> Iterator[Task]:
    for split, count in zip(
        SPLITS, (request.num_train_images, request.num_test_images), strict=True
    ):
        for start in range(0, count, CHUNK):
            yield str(folder), request, split, start, min(start + CHUNK, count)


def _note(task: Task) -> Path:
    folder, _, split, start, _ = task
    return Path(folder) / _NOTES / f"{split}-{start:08d}.json"


def _is_done(task: Task) -> bool:
    folder, request, split, start, stop = task
    if not (_is_whole(_note(task)) or (Path(folder) / _TABLES[split]).exists()):
        return False
    names = (image_id(request.images.seed, split, index) for index in range(start, stop))
    return all((Path(folder) / split / name).exists() for name in names)


def _is_whole(note: Path) -> bool:
    try:
        read_json_object(note)
    except InputError:  # missing or damaged; the images are drawn again
        return False
    return True


def _draw_chunk(task: Task) -> int:
    """Draw images and, once they are all written, note their rows."""
    folder, request, split, start, stop = task
    rows = {}
    for index in range(start, stop):
        record = draw_record(request.images, split, index, may_transpose=request.has_transposed)
        write_whole(Path(folder) / split / record.image_id, [record.jpeg], clean=False)
        rows[record.image_id] = record.rows
    write_whole(_note(task), [json.dumps(rows).encode()], clean=False)
    return stop - start


def _table(folder: Path, request: DatasetRequest, split: str) -> Iterator[bytes]:
    """Rows of all images of a split in order of ImageId, as the real file has them."""
    rows: dict[str, list[str]] = {}
    for task in _tasks(folder, request):
        if task[2] == split:
            rows.update(read_json_object(_note(task)))
    yield CSV_HEADER.encode()
    for name in sorted(rows):
        yield "".join(f"{row}\n" for row in rows[name]).encode()


def _sample_submission(request: DatasetRequest) -> Iterator[bytes]:
    names = (image_id(request.images.seed, "test", i) for i in range(request.num_test_images))
    yield b"ImageId,EncodedPixels,ClassId\n"
    for name in sorted(names):
        yield f"{name},1 1,23\n".encode()
