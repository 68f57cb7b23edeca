"""The files of a prediction store's folder: their names, and whether they are all there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import PARTIAL_SUFFIX, SEAL_KEY, check_seal, seal
from src.postprocess.prediction_meta import read_json, write_json

SHARD_NAME = re.compile(r"rank(\d{5})_shard(\d{5})\.arrow")
FAILED_SUFFIX = "_failed.json"
EXPECTED_NAME = "expected_images.json"

Shard = tuple[int, int, Path]
"""Rank, number in the rank's series, file."""


def shard_path(directory: Path, rank: int, shard: int) -> Path:
    """A shard of a rank."""
    return directory / f"rank{rank:05d}_shard{shard:05d}.arrow"


def unfinished_shards(directory: Path, rank: int) -> list[Path]:
    """What a killed process of this rank left."""
    return list(directory.glob(f".rank{rank:05d}_shard*{PARTIAL_SUFFIX}"))


def clear_other_ranks(directory: Path, world_size: int) -> None:
    """Delete what ranks beyond ``world_size`` left, killed in a run of more processes than this."""
    left = [
        *directory.glob(f"rank?????{FAILED_SUFFIX}"),
        *directory.glob(f".rank?????_*{PARTIAL_SUFFIX}"),
    ]
    for path in left:
        if int(path.name.removeprefix(".")[4:9]) >= world_size:
            path.unlink(missing_ok=True)


def failed_path(directory: Path, rank: int) -> Path:
    """The file that says which images a rank could not predict."""
    return directory / f"rank{rank:05d}{FAILED_SUFFIX}"


def write_failed(directory: Path, rank: int, failed: Mapping[str, str]) -> None:
    """Record why a rank could not predict images, by image id."""
    write_json(failed_path(directory, rank), seal({"failed": failed}))


def read_failed(directory: Path) -> dict[str, str]:
    """Why images of a store could not be predicted, by image id in ascending order; of all ranks.

    Raises:
        InputError: a file is damaged.
    """
    found: dict[str, str] = {}
    for path in sorted(directory.glob(f"rank?????{FAILED_SUFFIX}")):
        content = read_json(path)
        # before format version 2 the reasons stood by themselves, without a checksum
        if not all(isinstance(reason, str) for reason in content.values()):
            content = _sealed(path, content, "failed", dict)
        if SEAL_KEY in content:
            raise InputError(f"{path}: key 'failed' is missing; the file is damaged")
        found |= content
    return dict(sorted(found.items()))


def write_expected(directory: Path, image_ids: Collection[str]) -> None:
    """Record which images the store is meant to hold, those that will fail included."""
    write_json(directory / EXPECTED_NAME, seal({"image_ids": sorted(set(image_ids))}))


def read_expected(directory: Path) -> frozenset[str] | None:
    """Return which images a store is meant to hold; None where the store does not say.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / EXPECTED_NAME
    if not path.exists():
        return None
    return frozenset(_sealed(path, read_json(path), "image_ids", list))


def done_path(directory: Path, rank: int) -> Path:
    """The file that says how many shards a rank has written when it finished."""
    return directory / f"rank{rank:05d}_done.json"


def write_done(directory: Path, rank: int, *, shards: int) -> None:
    """Record that a rank has finished, and its number of shards."""
    write_json(done_path(directory, rank), seal({"shards": shards}))


def read_done(directory: Path) -> dict[int, int]:
    """Return the number of shards of each rank that has finished.

    Raises:
        InputError: a file is damaged.
    """
    found = {}
    for path in sorted(directory.glob("rank?????_done.json")):
        content = read_json(path)
        # before format version 2 the number stood alone, without a checksum
        shards = content.get("shards") if len(content) == 1 else None
        if shards is None:
            shards = _sealed(path, content, "shards", int)
        if type(shards) is not int or shards < 0:
            raise InputError(f"{path}: shards must be a number of files, got {shards!r}")
        found[int(path.name[4:9])] = shards
    return found


def _sealed(path: Path, content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = check_seal(content, path).get(key)
    if not isinstance(value, kind):
        raise InputError(f"{path}: key {key!r} is missing; the file is damaged")
    return value


def list_shards(directory: Path) -> list[Shard]:
    """The whole shards of all ranks, by rank and number."""
    matches = [(SHARD_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def check_series(directory: Path, shards: Sequence[Shard]) -> None:
    """Refuse a series with a hole, or one shorter than its rank said when it finished.

    Raises:
        InputError: names the first shard that is missing.
    """
    lengths = read_done(directory)
    for rank, shard, _ in shards:
        lengths[rank] = max(lengths.get(rank, 0), shard + 1)
    there = {(rank, shard) for rank, shard, _ in shards}
    for rank, length in sorted(lengths.items()):
        for shard in range(length):
            if (rank, shard) not in there:
                raise InputError(
                    f"{shard_path(directory, rank, shard)}: missing; run the same predict command "
                    "again, it writes what is missing"
                )
