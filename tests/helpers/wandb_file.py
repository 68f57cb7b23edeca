"""Reads the file of an offline W&B run, by the format that its documentation and code describe.

A header of 7 bytes, then LevelDB's log: blocks of 32 KiB with chunks of checksum (4 bytes), length
(2), type (1: whole, 2: first, 3: middle, 4: last) and data; the first block counts the header.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = 7


def read_records(path: Path) -> Iterator[Record]:
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    place, parts = HEADER, b""
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def history(records: list[Record]) -> list[dict[str, Any]]:
    """What was logged, a dictionary a call."""
    return [
        _values(record.history.item)
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def config(records: list[Record]) -> dict[str, Any]:
    """The run's configuration."""
    items: list[Any] = []
    for record in records:
        if record.WhichOneof("record_type") == "config":
            items += record.config.update
    return _values(items)


def _values(items: Iterable[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return values


@dataclass(frozen=True)
class Row:
    project: str
    group: str
    name: str
    config: dict[str, Any]
    summary: dict[str, Any]


def read_row(path: Path) -> Row:
    records = list(read_records(path))
    (started,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    # parameters come with the run's start or after it
    first = {item.key: json.loads(item.value_json) for item in started.config.update}
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    return Row(
        project=started.project,
        group=started.run_group,
        name=started.display_name,
        config=first | config(records),
        summary=summary,
    )
