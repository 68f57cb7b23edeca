"""The prediction store: candidates of many images in a folder, before any threshold.

    meta.json                     settings, class list, mask size and type, minimum score, cap
    expected_images.json          ids of the images that the store is meant to hold
    rank00000_shard00000.arrow    a record batch for each image, zstd; complete or absent
    rank00000_failed.json         images that could not be predicted, and why; absent if none
    rank00000_done.json           the number of shards, written when the rank has finished

A shard is written to a hidden ``*.part`` and renamed when it is full, so a killed run loses at most
the shard that it was writing. A writer that starts again with the same settings writes what is
missing. Reading maps the files into memory. Every file has a checksum.

Masks are float16 by default. In [0.5, 1] float16 values are 0.0005 apart, so a mask can change only
at pixels whose probability is within 0.00025 of the threshold. Measured on 2,400 smooth masks on
the 512 x 512 raster at thresholds from 0.3 to 0.5: 1 - IoU with the float32 mask is 0.00004 on
average and 0.003 at worst, one pixel of a mask of 352 (tests/postprocess/test_mask_precision.py).

Predictions that were imported (``python -m src.import_predictions``) have no probabilities: their
store has the masks as run lengths (mask type ``rle``), and the scores in float64 as in their file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from src.annotations.categories import CLASS_NAMES_KEY, ClassList
from src.errors import InputError, WriteError
from src.io import describe_difference, printable, seal
from src.predictions.candidates import Candidates
from src.predictions.files import (
    FIXED,
    META_NAME,
    REMEDY,
    ShardImage,
    ShardWriter,
    StoreMeta,
    check_series,
    done_path,
    failed_path,
    list_images,
    list_shards,
    open_shard,
    read_done,
    read_expected,
    read_failed,
    read_meta,
    read_store_json,
    shard_path,
    to_json,
    unfinished_shards,
    write_expected,
    write_sealed,
)
from src.predictions.record_batches import from_record_batch, shard_schema, to_record_batch
from src.renamed_keys import upgrade_keys

if TYPE_CHECKING:
    import pandas as pd

IMPORTED_KEY = "imported"  # in the settings of imported predictions: name and hash of their file


def find_store(directory: Path) -> Path:
    """Return ``directory``, or the only store in it, as in a job's folder of a predict sweep."""
    if not directory.is_dir() or (directory / META_NAME).exists():
        return directory
    inner = sorted(path.parent for path in directory.glob(f"*/{META_NAME}"))
    return inner[0] if len(inner) == 1 else directory


def claim_folder(directory: Path, meta: StoreMeta) -> set[str]:
    """Create the store that ``meta`` describes, or check that the folder is that store.

    Processes that share a folder may call it at the same time.

    Returns:
        Ids of the images in its complete shards.

    Raises:
        InputError: The folder holds a store with other settings or a damaged one, or is not a
            folder.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: must be a folder for predictions ({error})") from error
    content = to_json(meta)
    # a run that stopped before its first shard (a wrong path) has left nothing to protect
    if not (directory / META_NAME).exists() or not list_shards(directory):
        write_sealed(directory / META_NAME, content)
    wanted = {**content, "settings": upgrade_keys(content["settings"])}  # as read_meta has them
    if difference := describe_difference(to_json(read_meta(directory)), wanted):
        raise InputError(
            f"{directory}: holds predictions of another run; give another folder or delete it. "
            f"Different: {'; '.join(difference)}"
        )
    if read_store_json(directory / META_NAME) != seal(content):  # of an earlier version
        write_sealed(directory / META_NAME, content)
    schema = shard_schema(meta.mask_size_hw, meta.mask_dtype)
    return {
        image.image_id for *_, path in list_shards(directory) for image in list_images(path, schema)
    }


class PredictionStoreWriter:
    """Write one rank's part of a prediction store; a context manager.

    Args:
        directory: Folder of the store, created if it is missing. Ranks share it.
        category_ids: Category ids in the order of the model's labels.
        settings: Origin of the predictions as plain JSON values (config, checkpoint hashes), the
            same for all writers of a folder.
        rank: Number of this process.
        mask_size_hw: Size of the probabilities of each mask.
        mask_dtype: ``float16`` or ``float32``; ``rle`` where the masks are fixed.
        min_score: Candidates at or below it are not in the store; recorded.
        max_candidates: Cap on the candidates of an image, None for no cap; recorded.
        images_per_shard: Number of images after which a shard is closed.
        expected_image_ids: Images that all ranks together will write or fail on; None: not
            recorded, and the store is complete once every rank has closed its writer.

    Raises:
        InputError: The folder holds a store with other settings, or is not a folder.

    Example:
        >>> from src import PredictionStore, PredictionStoreWriter, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> with PredictionStoreWriter("one", category_ids=[1, 23], settings={}) as writer:
        ...     writer.add(store.candidates(0))
        >>> PredictionStore("one").image_ids
        ('0.png',)
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
        min_score: float = 0.0,
        max_candidates: int | None = None,
        images_per_shard: int = 64,
        expected_image_ids: Collection[str] | None = None,
    ) -> None:
        if images_per_shard < 1:
            raise InputError(f"images_per_shard must be at least 1, got {images_per_shard}")
        self.directory = Path(directory)
        self.meta = StoreMeta(
            category_ids=tuple(int(value) for value in category_ids),
            settings=settings,
            mask_size_hw=(0, 0)
            if mask_dtype == FIXED
            else (int(mask_size_hw[0]), int(mask_size_hw[1])),
            mask_dtype=mask_dtype,
            min_score=float(min_score),
            max_candidates=max_candidates,
        )
        self._rank = rank
        self._images_per_shard = images_per_shard
        self._schema = shard_schema(self.meta.mask_size_hw, mask_dtype)
        self._known_categories = np.array(self.meta.category_ids, dtype=np.int64)
        self._open: ShardWriter | None = None
        # images in complete shards of all ranks when the folder was opened, and those added since
        self.written_image_ids: set[str] = claim_folder(self.directory, self.meta)
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

    def add(self, candidates: Candidates) -> None:
        """Append one image, unless it was written before.

        Raises:
            ValueError: The masks do not have the store's size, a category is unknown, or a value is
                not finite.
        """
        if candidates.image_id in self.written_image_ids:
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
        self.written_image_ids.add(candidates.image_id)
        if self._open.images >= self._images_per_shard:
            self.flush()

    def add_failed(self, image_id: str, reason: str) -> None:
        """Record in the folder, immediately, that an image could not be predicted."""
        self._failed[image_id] = reason
        write_sealed(failed_path(self.directory, self._rank), {"failed": self._failed})

    def _check(self, candidates: Candidates) -> None:
        name = candidates.image_id
        probabilities, is_fixed = candidates.mask_probabilities, self.meta.mask_dtype == FIXED
        if (probabilities is None) != is_fixed:
            kind = "fixed" if is_fixed else "probabilities"
            raise ValueError(f"masks must be {kind} in this store, got others ({name})")
        if probabilities is not None and probabilities.shape[1:] != self.meta.mask_size_hw:
            raise ValueError(
                f"masks must be of size {self.meta.mask_size_hw}, got {probabilities.shape[1:]} "
                f"({name})"
            )
        unknown = np.setdiff1d(candidates.category_ids, self._known_categories)
        if len(unknown):
            raise ValueError(
                f"category must be one of {self.meta.category_ids}, got {unknown[0]} ({name})"
            )
        for field in ("scores", "boxes_xyxy", "boxes_for_nms", "mask_probabilities"):
            array = getattr(candidates, field)
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{field} must be finite ({name})")

    def flush(self) -> None:
        """Close the current shard, so that everything added so far survives a kill."""
        if self._open is not None:
            shard, self._open = self._open, None
            shard.finish()

    def close(self) -> None:
        """Close the last shard and mark this rank as finished."""
        self.flush()
        write_sealed(done_path(self.directory, self._rank), {"shards": len(self._taken)})

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
    """Read a prediction store: the images of all ranks, ordered by image id.

    An image that several ranks wrote (a distributed sampler pads with duplicates) is taken from the
    lowest rank. A store can be pickled: each worker opens the files itself.

    Args:
        directory: Folder of the store, or a folder with one store in it (a job of a sweep).

    Raises:
        InputError: Names the file that is missing, truncated, empty or damaged.

    Example:
        >>> from src import PredictionStore, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> store.classes.by_id, store.missing, dict(store.failed)
        ({1: 'top, t-shirt, sweatshirt', 23: 'shoe'}, (), {})
        >>> store.candidates(store.index_of("2.png")).category_ids.tolist()
        [1, 23]
        >>> store.to_frame().groupby("category_id").score.count().to_dict()
        {1: 3, 23: 3}
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
        # ids of the images in ascending order, which is that of the indices
        self.image_ids = tuple(sorted(found))
        self._places = [found[image_id] for image_id in self.image_ids]
        self._index = {image_id: index for index, image_id in enumerate(self.image_ids)}
        # why images could not be predicted, by image id in ascending order
        self.failed: Mapping[str, str] = {
            image_id: reason
            for image_id, reason in read_failed(self.directory).items()
            if image_id not in self._index
        }

    @property
    def missing(self) -> tuple[str, ...] | None:
        """Ids of the images that are neither here nor failed; None if they are unknown.

        A store of an earlier version has no list of its images. It is complete if every process
        that wrote to it has finished; otherwise its missing images are unknown.
        """
        if self._expected is not None:
            return tuple(sorted(self._expected - self._index.keys() - self.failed.keys()))
        return () if self._ranks and self._ranks <= self._finished else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Origin of the predictions, as it was given to the writer."""
        return self.meta.settings

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Category ids in the order of the model's labels."""
        return self.meta.category_ids

    @property
    def fixed_masks(self) -> str | None:
        """Why settings that need mask probabilities are not legal here; None: they are."""
        if self.meta.mask_dtype != FIXED:
            return None
        origin = self.settings.get(IMPORTED_KEY)
        name = origin.get("name") if isinstance(origin, dict) else None
        source = f", imported from {printable(name)}" if isinstance(name, str) else ""
        return f"its masks are fixed{source}, which has no mask probabilities"

    @property
    def classes(self) -> ClassList:
        """The model's classes, with their names in the checkpoint."""
        return ClassList.from_plain(self.category_ids, self.settings.get(CLASS_NAMES_KEY))

    def __len__(self) -> int:
        return len(self._places)

    def index_of(self, image_id: str) -> int:
        """Return the index of an image.

        Raises:
            InputError: The store does not hold it.
        """
        if image_id not in self._index:
            raise InputError(f"{self.directory}: holds no predictions of image {image_id!r}")
        return self._index[image_id]

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of an image in pixels, without reading its candidates."""
        return self._places[index][1].size_hw

    def count(self, index: int) -> int:
        """Return the number of candidates of an image, without reading them."""
        return self._places[index][1].num_candidates

    def candidates(self, index: int) -> Candidates:
        """Read the candidates of one image.

        Raises:
            InputError: The shard is damaged.
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
            if len(unknown := np.setdiff1d(candidates.category_ids, self.meta.category_ids)):
                raise ValueError(f"category {unknown[0]} is not one of the store's")
            return candidates
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            raise InputError(
                f"{path}: damaged at image {image.image_id} ({error}); {REMEDY}"
            ) from error

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each candidate of each image, see ``Candidates.to_frame``."""
        import pandas as pd

        frames = [self.candidates(index).to_frame() for index in range(len(self))]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def check_none_failed(self) -> None:
        """Check that no image failed.

        Raises:
            InputError: Some failed; names the first with the reason.
        """
        self.check_image_ids([*self.image_ids, *self.failed], source="its split")

    def check_image_ids(self, wanted: Sequence[str], source: str) -> None:
        """Check that the store has all images of ``wanted``, which are those of ``source``.

        Raises:
            InputError: Some are missing; names the first, with the reason if it failed.
        """
        missing = sorted(set(wanted) - self._index.keys())
        if missing:
            reason = self.failed.get(missing[0])
            raise InputError(
                f"{self.directory}: {len(missing)} of the {len(set(wanted))} images of {source} "
                f"have no predictions, the first is {missing[0]!r}"
                f"{'' if reason is None else f' ({printable(reason)})'}; run predict on them, "
                "or give partial=true to use the images that are there"
            )

    def check_whole(self, *, partial: bool) -> list[str]:
        """Check that the store is complete, or with ``partial`` that it has some images.

        Returns:
            Notes for the user on images that are missing or failed, a sentence each.

        Raises:
            InputError: Images are missing; names the first.
        """
        missing = self.missing
        total = len(self) + len(self.failed) + len(missing or ())
        lacks = ""
        if missing is None:
            lacks = f"not finished, and it does not say which images it lacks; it has {len(self)}"
        elif missing:
            first = printable(repr(missing[0]))
            lacks = f"{len(missing)} of its {total} images are missing, the first is {first}"
        again = "run the same predict command again, it predicts what is missing"
        if self.fixed_masks is not None:
            again = "run the same import_predictions command again"
        if lacks and not len(self):
            unfinished = [path.name for path in unfinished_shards(self.directory)]
            only = f", only the unfinished shard {unfinished[0]}" if unfinished else ""
            raise InputError(f"{self.directory}: holds no predictions yet{only}; {again}")
        if lacks and not partial:
            raise InputError(
                f"{self.directory}: {lacks}; {again}, or give partial=true to use the images that "
                "are there"
            )
        notes = [f"{self.directory}: {lacks} (partial=true)"] if lacks else []
        if self.failed:
            image_id, reason = next(iter(self.failed.items()))
            notes.append(
                f"{self.directory}: {len(self.failed)} of its {total} images could not be "
                f"predicted, the first is {printable(repr(image_id))} ({printable(reason)})"
            )
        return notes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}
