"""Whose folder it is: a run that writes into a prediction store's folder makes it its own first."""

from __future__ import annotations

from pathlib import Path

from src.errors import InputError
from src.io import seal
from src.postprocess.prediction_files import list_shards
from src.postprocess.prediction_meta import (
    META_NAME,
    StoreMeta,
    describe_difference,
    read_json,
    read_meta,
    to_json,
    write_json,
)
from src.postprocess.prediction_shards import list_images, shard_schema


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
