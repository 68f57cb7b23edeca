"""``meta.json`` of a prediction store: what the store holds and what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import atomic_path, check_seal, read_json_object

FORMAT_VERSION = 2
UNSEALED_VERSION = 1  # the same keys, without a checksum
META_NAME = "meta.json"
MASK_DTYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """Everything that must agree before two runs may write into one store."""

    category_ids: tuple[int, ...]  # of the data, in the order of the model's labels
    settings: Mapping[str, Any]  # plain JSON values: the config, checkpoint hashes, ...
    mask_size_hw: tuple[int, int]  # of the stored probabilities, 28 x 28 in HTC
    mask_dtype: str  # float16 | float32
    score_floor: float  # pairs at or below this score were not written
    max_candidates: int | None  # pairs an image at most; None: no cap
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.mask_dtype not in MASK_DTYPES:
            raise InputError(
                f"mask_dtype={self.mask_dtype!r} of a prediction store: "
                f"one of {', '.join(MASK_DTYPES)}"
            )


def to_json(meta: StoreMeta) -> dict[str, Any]:
    """As it stands in the file: only dicts, lists, numbers, texts, booleans and None.

    Raises:
        InputError: the settings hold something JSON cannot carry.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(asdict(meta), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"settings of a prediction store must be plain JSON: {error}") from error
    return plain


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` whole or not at all."""
    with atomic_path(path, sync=True) as partial:
        text = json.dumps(content, indent=2, sort_keys=True)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object of a prediction store; arguments and errors as ``read_json_object``."""
    return read_json_object(
        path, missing="missing; a prediction store is a folder that `python -m src.predict` wrote"
    )


def read_meta(directory: Path) -> StoreMeta:
    """Read ``meta.json`` of a store.

    Raises:
        InputError: the file is missing, damaged, lacks a key, or has another format version.
    """
    path = directory / META_NAME
    content = read_json(path)
    version = content.get("format_version")
    if version not in (UNSEALED_VERSION, FORMAT_VERSION):
        raise InputError(
            f"{path}: format_version {version!r}, this program reads {UNSEALED_VERSION} and "
            f"{FORMAT_VERSION}; predict anew"
        )
    names = [field.name for field in fields(StoreMeta)]
    if missing := [name for name in names if name not in content]:
        raise InputError(f"{path}: key {missing[0]!r} is missing; the file is damaged")
    if version == FORMAT_VERSION:
        try:
            content = check_seal(content, path)
        except InputError as error:
            raise InputError(f"{error}; delete the folder and predict anew") from None
    elif unknown := sorted(content.keys() - {*names}):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; the file is damaged")
    try:
        cap = content["max_candidates"]
        height, width = content["mask_size_hw"]
        return StoreMeta(
            category_ids=tuple(int(value) for value in content["category_ids"]),
            settings=dict(content["settings"]),
            mask_size_hw=(int(height), int(width)),
            mask_dtype=content["mask_dtype"],
            score_floor=float(content["score_floor"]),
            max_candidates=None if cap is None else int(cap),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}; the file is damaged") from error


def describe_difference(there: Any, here: Any, key: str = "") -> list[str]:
    """One line a difference between two JSON values: ``settings.trainer.seed: 1 there, 2 here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        lines = []
        for name in sorted(there.keys() | here.keys()):
            inner = f"{key}.{name}" if key else name
            if name not in there:
                lines.append(f"{inner}: absent there, {here[name]!r} here")
            elif name not in here:
                lines.append(f"{inner}: {there[name]!r} there, absent here")
            else:
                lines += describe_difference(there[name], here[name], inner)
        return lines
    return [] if there == here else [f"{key}: {there!r} there, {here!r} here"]
