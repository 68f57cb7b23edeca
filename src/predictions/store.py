"""The prediction store: candidates of every image before any threshold.

The prediction store: pre-NMS candidates of many images in a folder, written shard by shard.
    meta.json                     settings, class list, mask size and type, score floor, cap
    expected_images.json          the ids of the images that the store is meant to hold
    rank00000_shard00000.arrow    a record batch an image, zstd; whole or absent
    rank00000_failed.json         images that could not be predicted, and why; absent where none
    rank00000_done.json           written when the rank has finished: its number of shards

A shard is streamed to a hidden ``*.part`` and renamed when it is full, so a killed run loses at
most the shard it was writing. Started again with the same settings, a writer writes what is
missing. Reading maps the files into memory. Every file carries a checksum.

Masks are float16 by default. In [0.5, 1] float16 values are 0.0005 apart, so a mask can change only
at pixels whose probability is within 0.00025 of the threshold. Measured on 2,400 smooth masks on
the 512 x 512 raster, thresholds 0.3 to 0.5: 1 - IoU with the float32 mask is 0.00004 on average and
0.003 at worst, one pixel of a mask of 352 (tests/postprocess/test_mask_precision.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from src.annotations.categories import CLASS_NAMES_KEY, ClassList
from src.errors import InputError, WriteError
from src.io import printable, seal
from src.predictions.candidates import Candidates
from src.predictions.metadata import (
    META_NAME,
    StoreMeta,
    describe_difference,
    read_json,
    read_meta,
    to_json,
    write_json,
)
from src.predictions.shards import (
    REMEDY,
    ShardImage,
    ShardWriter,
    check_series,
    done_path,
    failed_path,
    from_record_batch,
    list_images,
    list_shards,
    open_shard,
    read_done,
    read_expected,
    read_failed,
    shard_path,
    shard_schema,
    to_record_batch,
    unfinished_shards,
    write_done,
    write_expected,
    write_failed,
)


def find_store(directory: Path) -> Path:
    """Return the folder of a store: this one, or where it holds none itself, the one in it.

    So a job's folder of ``python -m src.predict -m`` can be given as it is.
    """
    if not directory.is_dir() or (directory / META_NAME).exists():
        return directory
    inner = sorted(path.parent for path in directory.glob(f"*/{META_NAME}"))
    return inner[0] if len(inner) == 1 else directory


def claim_folder(directory: Path, meta: StoreMeta) -> set[str]:
    """Make the folder the store that ``meta`` describes, or check that it is.

    Processes that share a folder may all call it, at the same time.

    Returns:
        Ids of the images that are in its whole shards already.

    Raises:
        InputError: the folder holds a store with other settings, or a damaged one, or is not a
            folder.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: a folder for predictions wanted ({error})") from error
    content = to_json(meta)
    # a run that stopped before its first shard, at a wrong path, say, leaves nothing to protect
    if not (directory / META_NAME).exists() or not list_shards(directory):
        write_json(directory / META_NAME, seal(content))
    difference = describe_difference(to_json(read_meta(directory)), content)
    if difference:
        raise InputError(
            f"{directory}: holds predictions of another run; give another folder or delete it. "
            f"Different: {'; '.join(difference)}"
        )
    if read_json(directory / META_NAME) != seal(content):  # of an earlier version
        write_json(directory / META_NAME, seal(content))
    schema = shard_schema(meta.mask_size_hw, meta.mask_dtype)
    return {
        image.image_id for *_, path in list_shards(directory) for image in list_images(path, schema)
    }


class PredictionStoreWriter:
    """Writes one rank's part of a store; a context manager.

    Args:
        directory: the store's folder; made if missing. Ranks share it.
        category_ids: the data's category ids in the order of the model's labels.
        settings: what made the predictions, as plain JSON values (config, checkpoint hashes); a
            folder takes one set.
        rank: this process's number.
        mask_size_hw: size of every mask's probabilities.
        mask_dtype: float16 or float32.
        score_floor: pairs at or below it are not in the store; recorded.
        max_candidates: cap on the pairs of an image, None for no cap; recorded.
        images_per_shard: images after which a shard is closed.
        expected_image_ids: the images that all ranks together will write, or fail to; None: not
            recorded, and the store counts as whole once every rank has closed its writer.

    Raises:
        InputError: the folder holds a store with other settings, or is not a folder.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        category_ids: Sequence[int],
        settings: Mapping[str, Any],
        rank: int = 0,
        mask_size_hw: tuple[int, int] = (28, 28),
        mask_dtype: str = "float16",
        score_floor: float = 0.0,
        max_candidates: int | None = None,
        images_per_shard: int = 64,
        expected_image_ids: Collection[str] | None = None,
    ) -> None:
        if images_per_shard < 1:
            raise InputError(f"images_per_shard={images_per_shard}: at least 1")
        self.directory = Path(directory)
        self.meta = StoreMeta(
            category_ids=tuple(int(value) for value in category_ids),
            settings=settings,
            mask_size_hw=(int(mask_size_hw[0]), int(mask_size_hw[1])),
            mask_dtype=mask_dtype,
            score_floor=float(score_floor),
            max_candidates=max_candidates,
        )
        self._rank = rank
        self._images_per_shard = images_per_shard
        self._schema = shard_schema(self.meta.mask_size_hw, mask_dtype)
        self._known_categories = np.array(self.meta.category_ids, dtype=np.int64)
        self._open: ShardWriter | None = None
        self._written = claim_folder(self.directory, self.meta)
        if expected_image_ids is not None:
            write_expected(self.directory, expected_image_ids)
        self._taken = {shard for of, shard, _ in list_shards(self.directory) if of == rank}
        self._failed: dict[str, str] = {}
        for left_over in (
            done_path(self.directory, rank),
            failed_path(self.directory, rank),
            *unfinished_shards(self.directory, rank),
        ):
            left_over.unlink(missing_ok=True)

    @property
    def written_image_ids(self) -> Set[str]:
        """Images in the whole shards of all ranks when the folder was opened, and those added."""
        return self._written

    def add(self, candidates: Candidates) -> None:
        """Append one image; one that was written before is passed over.

        Raises:
            ValueError: the masks have another size than the store's, a category is unknown, or a
                value is not finite.
        """
        if candidates.image_id in self._written:
            return
        self._check(candidates)
        if self._open is None:
            number = next(number for number in count() if number not in self._taken)
            self._taken.add(number)
            path = shard_path(self.directory, self._rank, number)
            self._open = ShardWriter(path, self._schema)
        batch = to_record_batch(candidates, self._schema, self.meta.mask_dtype)
        try:
            self._open.add(batch)
        except WriteError:
            self._open = None
            raise
        self._written.add(candidates.image_id)
        if self._open.images >= self._images_per_shard:
            self.flush()

    def add_failed(self, image_id: str, reason: str) -> None:
        """Record that an image could not be predicted, in the folder at once."""
        self._failed[image_id] = reason
        write_failed(self.directory, self._rank, self._failed)

    def _check(self, candidates: Candidates) -> None:
        name = candidates.image_id
        mask_size_hw = candidates.mask_probabilities.shape[1:]
        if mask_size_hw != self.meta.mask_size_hw:
            raise ValueError(
                f"{name}: masks of {mask_size_hw}, the store's are {self.meta.mask_size_hw}"
            )
        unknown = np.setdiff1d(candidates.category_ids, self._known_categories)
        if len(unknown):
            raise ValueError(
                f"{name}: category {unknown[0]} is not one of {self.meta.category_ids}"
            )
        for field in ("scores", "boxes_xyxy", "boxes_for_nms", "mask_probabilities"):
            if not np.isfinite(getattr(candidates, field)).all():
                raise ValueError(f"{name}: {field} holds a value that is not finite")

    def flush(self) -> None:
        """Close the shard in hand; what was added so far survives a kill."""
        if self._open is not None:
            shard, self._open = self._open, None
            shard.finish()

    def close(self) -> None:
        """Close the last shard and mark this rank as finished."""
        self.flush()
        write_done(self.directory, self._rank, shards=len(self._taken))

    def __enter__(self) -> PredictionStoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.flush()


class PredictionStore:
    """Reads a store: the shards of all ranks as one sequence of images, ordered by image id.

    A folder with one store in it stands for that store (a job's of a sweep, say). Images that two
    ranks wrote (a distributed sampler pads with duplicates) are there once, as the
    lowest rank wrote them. Can be pickled: a worker opens the files anew.

    Raises:
        InputError: names the file that is missing, truncated, empty or damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = find_store(Path(directory))
        self.meta = read_meta(self.directory)
        self._schema = shard_schema(self.meta.mask_size_hw, self.meta.mask_dtype)
        shards = list_shards(self.directory)
        check_series(self.directory, shards)
        self._expected = read_expected(self.directory)
        self._finished = set(read_done(self.directory))
        self._ranks = {rank for rank, *_ in shards} | self._finished
        self._paths = [path for *_, path in shards]
        self._readers: dict[int, pa.ipc.RecordBatchFileReader] = {}
        found: dict[str, tuple[int, ShardImage]] = {}
        for number, path in enumerate(self._paths):
            for image in list_images(path, self._schema):
                found.setdefault(image.image_id, (number, image))
        self._places = [found[image_id] for image_id in sorted(found)]
        self._index = {image.image_id: index for index, (_, image) in enumerate(self._places)}
        self._failed = {
            image_id: reason
            for image_id, reason in read_failed(self.directory).items()
            if image_id not in self._index
        }

    @property
    def failed(self) -> Mapping[str, str]:
        """Why images could not be predicted, by image id in ascending order."""
        return self._failed

    @property
    def missing(self) -> tuple[str, ...] | None:
        """Ids of the images that are neither here nor failed; None where the store cannot tell.

        A store without a list of its images (of an earlier version) lacks none if every process
        that wrote to it has finished; if one has not, nothing says what is missing.
        """
        if self._expected is not None:
            return tuple(sorted(self._expected - self._index.keys() - self._failed.keys()))
        return () if self._ranks and self._ranks <= self._finished else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What made the predictions, as the writer was given it."""
        return self.meta.settings

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data's category ids in the order of the model's labels."""
        return self.meta.category_ids

    @property
    def classes(self) -> ClassList:
        """The model's classes, with the names that the checkpoint had of them."""
        names = self.settings.get(CLASS_NAMES_KEY)
        return ClassList.from_plain(self.category_ids, names)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """In ascending order; the order of the indices."""
        return tuple(image.image_id for _, image in self._places)

    def __len__(self) -> int:
        return len(self._places)

    def index_of(self, image_id: str) -> int:
        """Position of an image.

        Raises:
            InputError: the store does not hold it.
        """
        if image_id not in self._index:
            raise InputError(f"{self.directory}: holds no predictions of image {image_id!r}")
        return self._index[image_id]

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of a photo in pixels, without reading its candidates."""
        return self._places[index][1].size_hw

    def count(self, index: int) -> int:
        """Number of candidates of an image, without reading them."""
        return self._places[index][1].candidates

    def candidates(self, index: int) -> Candidates:
        """The candidates of one image.

        Raises:
            InputError: the shard is damaged.
        """
        number, image = self._places[index]
        path = self._paths[number]
        if number not in self._readers:
            self._readers[number] = open_shard(path, self._schema)
        try:
            batch = self._readers[number].get_batch(image.batch)
            candidates = from_record_batch(batch, self.meta.mask_size_hw, self.meta.mask_dtype)
            if candidates.image_id != image.image_id:
                raise ValueError(f"it holds {candidates.image_id!r} there")
            return candidates
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            raise InputError(
                f"{path}: damaged at image {image.image_id} ({error}); {REMEDY}"
            ) from error

    def check_none_failed(self) -> None:
        """Refuse a store of whose images one could not be predicted.

        Raises:
            InputError: counts them, and names the first with the reason.
        """
        self.check_image_ids([*self.image_ids, *self._failed], source="its split")

    def check_image_ids(self, wanted: Sequence[str], source: str) -> None:
        """Refuse a store that lacks one of these images.

        Raises:
            InputError: counts the images that are missing and names the first, with the reason
                where it failed.
        """
        missing = sorted(set(wanted) - self._index.keys())
        if missing:
            reason = self._failed.get(missing[0])
            raise InputError(
                f"{self.directory}: {len(missing)} of the {len(set(wanted))} images of {source} "
                f"have no predictions, the first is {missing[0]!r}"
                f"{'' if reason is None else f' ({printable(reason)})'}; run predict on them, "
                "or give partial=true to use the images that are there"
            )

    def check_whole(self, *, partial: bool) -> list[str]:
        """Refuse a store that was not finished, unless some images suffice.

        Args:
            partial: whether the images that are there suffice.

        Returns:
            What the user should know about images that are missing or failed, a sentence each.

        Raises:
            InputError: counts the images that are missing, and names the first.
        """
        missing, total = self.missing, len(self) + len(self._failed) + len(self.missing or ())
        if missing is None:
            lacks = (
                f"{self.directory}: not finished, and it does not say which images it lacks; it "
                f"has {len(self)}"
            )
        elif missing:
            lacks = (
                f"{self.directory}: {len(missing)} of its {total} images are missing, the first is "
                f"{printable(repr(missing[0]))}"
            )
        else:
            lacks = ""
        if lacks and not partial:
            raise InputError(
                f"{lacks}; run the same predict command again, it predicts what is missing, or "
                "give partial=true to use the images that are there"
            )
        notes = [f"{lacks} (partial=true)"] if lacks else []
        if self._failed:
            image_id, reason = next(iter(self._failed.items()))
            notes.append(
                f"{self.directory}: {len(self._failed)} of its {total} images could not be "
                f"predicted, the first is {printable(repr(image_id))} ({printable(reason)})"
            )
        return notes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}
