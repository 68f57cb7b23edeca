"""One finished W&B run, as a row of a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.callbacks.wandb_file import config, read_records


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
