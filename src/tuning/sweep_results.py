"""The results of a sweep's jobs: one file in each job's folder, one table in the sweep's.

``result.json`` of a job says what it was made of and what came out. It is written last, so it is
the mark of a finished job as well: a sweep that is started again passes over such folders. Jobs
write nothing that they share, so they may run in any number of processes or machines; the table is
made of their files.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src.errors import InputError
from src.io import read_json_object, write_bytes, write_json, write_text
from src.postprocess.prediction_meta import describe_difference

log = logging.getLogger(__name__)

RESULT_NAME = "result.json"
OVERRIDES_NAME = "overrides.yaml"  # of a job, written when it starts
SCORE_COLUMNS = ("competition_map", "low", "high")
TABLE_NAMES = ("results.csv", "results.parquet")


def finished_result(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the finished job of this folder found; None where none has, or its file is damaged.

    Args:
        folder: The job's folder.
        identity: What a result is made of: settings and files.

    Raises:
        InputError: the result that lies there was made of something else.
    """
    path = folder / RESULT_NAME
    if not path.exists():
        return None
    try:
        content = read_json_object(path)
        if not isinstance(content.get("result"), dict):
            raise InputError(f"{path}: key 'result' is missing")
    except InputError as error:
        log.warning("%s; the job is done again", error)
        return None
    difference = describe_difference(
        content.get("identity"), json.loads(json.dumps(identity, sort_keys=True))
    )
    if difference:
        raise InputError(
            f"{path}: the result of other settings or files lies there, and it is not overwritten; "
            "give another hydra.sweep.dir, or delete it. Different: " + "; ".join(difference[:5])
        )
    return content


def write_result(
    folder: Path,
    *,
    identity: Mapping[str, Any],
    overrides: Mapping[str, Any],
    result: Mapping[str, Any],
) -> None:
    """Mark a job as finished."""
    content = {"identity": identity, "overrides": overrides, "result": result}
    write_json(folder / RESULT_NAME, content)


def read_overrides(overrides: Sequence[str], exclude: Sequence[str]) -> dict[str, Any]:
    """Key and value of each override of a command line, typed as Hydra reads them.

    Args:
        overrides: As typed, ``postprocess.score_threshold=0.3``.
        exclude: Keys that are left out.
    """
    values = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key not in exclude:
            values[key] = None if override.is_delete() else override.value()
    # quoted texts and the like become plain JSON
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def job_overrides() -> dict[str, Any]:
    """Key and value of each override of the running job that makes it what it is."""
    hydra: Any = HydraConfig.instance().cfg
    return read_overrides(
        typed(hydra, "task"), exclude=hydra.hydra.job.config.override_dirname.exclude_keys
    )


def typed(config: Any, kind: str) -> list[str]:
    """Return the overrides of a command line as they were typed, interpolations unresolved.

    Args:
        config: Hydra's own configuration.
        kind: ``task`` or ``hydra``.
    """
    overrides: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    texts: list[str] = overrides[kind]
    return texts


def read_job_overrides(folder: Path) -> list[str]:
    """Return the overrides of a job as they were typed; none where its file is not there.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / OVERRIDES_NAME
    if not path.exists():
        return []
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML; the file is damaged") from error
    if not isinstance(overrides, list) or not all(isinstance(one, str) for one in overrides):
        raise InputError(f"{path}: a list of overrides wanted; the file is damaged")
    return overrides


def job_file(path: str | Path, *names: str) -> Path:
    """Return the file that a job's folder stands for: the first of ``names`` that is in it.

    Anything else stands for itself, a prediction store or an annotation store for one.
    """
    path = Path(path)
    return next((path / name for name in names if (path / name).is_file()), path)


@dataclass(frozen=True, slots=True)
class SweepResults:
    """What the finished jobs of a sweep found."""

    overrides: tuple[str, ...]  # keys that some job sets, the first columns of a row
    rows: tuple[Mapping[str, Any], ...]  # one a job, the best first; those without a score last

    @property
    def swept(self) -> tuple[str, ...]:
        """Keys that have more than one value."""
        return tuple(
            key for key in self.overrides if len({json.dumps(row[key]) for row in self.rows}) > 1
        )


def read_results(sweep_directory: str | Path) -> SweepResults:
    """The finished jobs of a sweep: each one's overrides, then its result, then its folder.

    Jobs that were made of the same files and settings, written in two ways, are one row. An
    override that some jobs lack has there the value that their settings had.

    Raises:
        InputError: there is none, or one is damaged.
    """
    directory = Path(sweep_directory)
    files = sorted(directory.glob(f"*/{RESULT_NAME}"))
    if not files:
        raise InputError(
            f"{directory}: holds no results of a sweep (*/{RESULT_NAME}); "
            "postprocess, train and predict write such a folder with -m"
        )
    distinct: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in files:
        content = read_json_object(path)
        if not all(isinstance(content.get(key), dict) for key in ("overrides", "result")):
            raise InputError(f"{path}: overrides or result are missing; the file is damaged")
        made_of = content.get("identity") or path.parent.name
        distinct.setdefault(json.dumps(made_of, sort_keys=True), (path.parent.name, content))
    contents = list(distinct.values())
    overrides = tuple(dict.fromkeys(key for _, content in contents for key in content["overrides"]))
    rows = [
        {key: _value(content, key) for key in overrides}
        | {key: content["result"].get(key) for key in SCORE_COLUMNS}
        | {key: value for key, value in content["result"].items() if key not in SCORE_COLUMNS}
        | {"folder": folder}
        for folder, content in contents
    ]
    scores = [row["competition_map"] for row in rows]
    order = sorted(
        range(len(rows)), key=lambda row: (scores[row] is None, -(scores[row] or 0), row)
    )
    return SweepResults(overrides, tuple(rows[row] for row in order))


def write_table(sweep_directory: str | Path) -> tuple[Path, Path]:
    """Write all results as CSV and Parquet, the best first; each file whole or not at all.

    Raises:
        InputError: as for ``read_results``.
    """
    directory = Path(sweep_directory)
    rows = read_results(directory).rows
    columns = list(dict.fromkeys(key for row in rows for key in row))
    plain = {column: _column([row.get(column) for row in rows]) for column in columns}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*plain.values(), strict=True))
    parquet = io.BytesIO()
    pq.write_table(pa.table(plain), parquet)
    csv_path, parquet_path = (directory / name for name in TABLE_NAMES)
    write_text(csv_path, text.getvalue())
    write_bytes(parquet_path, parquet.getvalue())
    return csv_path, parquet_path


def _value(content: Mapping[str, Any], key: str) -> Any:
    if key in content["overrides"]:
        return content["overrides"][key]
    value: Any = content.get("identity")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers, or else texts; None stays."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return values
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        is_whole = all(isinstance(value, int) for value in known)
        return [value if value is None or is_whole else float(value) for value in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
