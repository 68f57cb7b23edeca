"""The files of a prediction store's folder: their names, and whether they are all there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from src.errors import InputError
from src.postprocess.prediction_meta import read_json

SHARD_NAME = re.compile(r"rank(\d{5})_shard(\d{5})\.arrow")
UNFINISHED = ".writing"
FAILED_SUFFIX = "_failed.json"

Shard = tuple[int, int, Path]
"""Rank, number in the rank's series, file."""


def shard_path(directory: Path, rank: int, shard: int) -> Path:
    """A shard of a rank."""
    return directory / f"rank{rank:05d}_shard{shard:05d}.arrow"


def unfinished_path(shard: Path) -> Path:
    """What a shard is called while it is written."""
    return shard.with_name(shard.name + UNFINISHED)


def unfinished_shards(directory: Path, rank: int) -> list[Path]:
    """What a killed process of this rank left."""
    return list(directory.glob(f"rank{rank:05d}_shard*.arrow{UNFINISHED}"))


def clear_other_ranks(directory: Path, world_size: int) -> None:
    """Delete what ranks beyond ``world_size`` left, killed in a run of more processes than this."""
    for path in directory.glob("rank?????_*"):
        is_left = path.name.endswith(UNFINISHED) or path.name.endswith(FAILED_SUFFIX)
        if is_left and int(path.name[4:9]) >= world_size:
            path.unlink(missing_ok=True)


def failed_path(directory: Path, rank: int) -> Path:
    """The file that says which images a rank could not predict."""
    return directory / f"rank{rank:05d}{FAILED_SUFFIX}"


def read_failed(directory: Path) -> dict[str, str]:
    """Why images of a store could not be predicted, by image id in ascending order; of all ranks.

    Raises:
        InputError: a file is damaged.
    """
    found: dict[str, str] = {}
    for path in sorted(directory.glob(f"rank?????{FAILED_SUFFIX}")):
        found |= {image_id: str(reason) for image_id, reason in read_json(path).items()}
    return dict(sorted(found.items()))


def done_path(directory: Path, rank: int) -> Path:
    """The file that says how many shards a rank has written when it finished."""
    return directory / f"rank{rank:05d}_done.json"


def list_shards(directory: Path) -> list[Shard]:
    """The whole shards of all ranks, by rank and number."""
    matches = [(SHARD_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def check_series(directory: Path, shards: Sequence[Shard]) -> None:
    """Refuse a series with a hole, or one shorter than its rank said when it finished.

    Raises:
        InputError: names the first shard that is missing.
    """
    lengths = {
        int(path.name[4:9]): int(read_json(path).get("shards", 0))
        for path in directory.glob("rank?????_done.json")
    }
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
