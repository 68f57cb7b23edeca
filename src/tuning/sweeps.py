"""Sweeps: one row of results for each job, as files, as a table, and in W&B.

The ``result.json`` of a job holds what the result depends on and the result itself. It is written
last, so it also marks a finished job: a sweep that is started again skips the job's folder. Jobs
share no file that they write, so they can run in any number of processes or machines; the table is
made of their files.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from src.console import say
from src.errors import InputError
from src.io import (
    describe_difference,
    printable,
    read_json_object,
    write_bytes,
    write_json,
    write_text,
)
from src.quoting import quote_for_hydra, quote_for_shell
from src.renamed_keys import RENAMED_KEYS, upgrade_keys
from src.tuning.dashboard import of_one_type, open_dashboard

log = logging.getLogger(__name__)

RESULT_NAME = "result.json"
OVERRIDES_NAME = "overrides.yaml"  # of a job, written when it starts
SCORE_COLUMNS = ("competition_map", "low", "high")
TABLE_NAMES = ("results.csv", "results.parquet")
KEY = "hydra.callbacks.sweep_table"  # of the callback in a sweep's configuration
SHOWN_OVERRIDES = 120
_OF_DATA = ("images", "paths.data_dir")  # the next command needs these overrides, too
_OF_SWEEPS = ("output", "sweep", "logger")  # a single job is repeated without these overrides


def finished_result(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of this folder's finished job; None where it is missing or damaged.

    Raises:
        InputError: The result there is not one of ``identity``, the job's settings and files.
    """
    path = folder / RESULT_NAME
    if not path.exists():
        return None
    try:
        content = _read_result(path)
    except InputError as error:
        log.warning("%s; the job is done again", error)
        return None
    wanted = json.loads(json.dumps(identity, sort_keys=True))
    if difference := describe_difference(content["identity"], wanted):
        raise InputError(
            f"{path}: the result of other settings or files lies there, and it is not overwritten; "
            "give another hydra.sweep.dir, or delete it. Different: " + "; ".join(difference[:5])
        )
    return content


def _read_result(path: Path) -> dict[str, Any]:
    """Read a job's result file, giving keys of an earlier version their names of this one.

    Raises:
        InputError: The file is damaged.
    """
    content = read_json_object(path)
    if not all(isinstance(content.get(key), dict) for key in ("overrides", "result")):
        raise InputError(f"{path}: overrides or result are missing; the file is damaged")
    upgrade = {"objects": "num_detections"}
    return {
        "identity": upgrade_keys(content.get("identity")),
        "overrides": {RENAMED_KEYS.get(key, key): one for key, one in content["overrides"].items()},
        "result": {upgrade.get(key, key): value for key, value in content["result"].items()},
    }


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


def finish_job(folder: Path, *, identity: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Mark the running job of a sweep as finished, and show its result.

    The result is a row of the sweep's table, where jobs are ordered by ``competition_map``.
    """
    write_result(folder, identity=identity, overrides=job_overrides(), result=result)
    counts = [f"{value} {key[4:]}" for key, value in result.items() if key.startswith("num_")]
    found = ", ".join(counts) or describe_score(result)
    print(f"{describe_job()}  {found}  {describe_job_settings()}  {folder.name}")


def is_sweep() -> bool:
    """Return whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_overrides() -> dict[str, Any]:
    """Return key and value of each override that the running job's result depends on.

    Values are typed as Hydra reads them, and plain JSON.
    """
    hydra: Any = HydraConfig.instance().cfg
    exclude = hydra.hydra.job.config.override_dirname.exclude_keys
    values = {
        override.key_or_group: None if override.is_delete() else override.value()
        for override in _parse(_typed(hydra, "task"))
        if override.key_or_group not in exclude
    }
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))  # quoted texts become plain
    return plain


def job_file(path: str | Path, *names: str) -> Path:
    """Return the first file of these names in a job's folder; any other path as it is."""
    path = Path(path)
    return next((path / name for name in names if (path / name).is_file()), path)


def describe_score(row: Mapping[str, Any]) -> str:
    """Format a score, with its interval where it has one: ``0.5123 (0.4912 to 0.5334)``."""
    if row.get("competition_map") is None:
        return "no score"
    shown = f"{row['competition_map']:.4f}"
    if row.get("low") is not None and row.get("high") is not None:
        shown += f" ({row['low']:.4f} to {row['high']:.4f})"
    return shown


def describe_job() -> str:
    """Return ``job 5 of 100`` for the running job of a sweep."""
    jobs = _callback_value("jobs")
    return f"job {HydraConfig.get().job.num + 1}{'' if jobs is None else f' of {jobs}'}"


def describe_job_settings() -> str:
    """Return the running job's values that the sweep varies: ``score_threshold=0.3 folds=5``."""
    keys = {key.lstrip("+").partition("@")[0] for key in _callback_value("swept") or ()}
    text = " ".join(
        f"{key.removeprefix('postprocess.')}={value}"
        for key, value in job_overrides().items()
        if key in keys
    )
    return printable(text, limit=SHOWN_OVERRIDES)


def _callback_value(key: str) -> Any:
    """Return a value that the callback ``SweepTable`` has set for the jobs."""
    callbacks: Any = HydraConfig.get().callbacks
    return (callbacks.get("sweep_table") or {}).get(key)


@dataclass(frozen=True, slots=True)
class SweepResults:
    """Results of the finished jobs of a sweep."""

    overrides: tuple[str, ...]  # keys that some job sets, the first columns of a row
    rows: tuple[Mapping[str, Any], ...]  # one per job, the best first; those without a score last

    @property
    def swept(self) -> tuple[str, ...]:
        """Keys that have more than one value."""
        return tuple(
            key for key in self.overrides if len({json.dumps(row[key]) for row in self.rows}) > 1
        )


def read_results(sweep_directory: str | Path) -> SweepResults:
    """Read the finished jobs of a sweep: overrides, result, and folder of each.

    Jobs with the same files and settings, however they are written, are one row. An override that
    some jobs lack has the value of their settings there.

    Raises:
        InputError: There is no result, or one is damaged.
    """
    directory = Path(sweep_directory)
    files = sorted(directory.glob(f"*/{RESULT_NAME}"))
    if not files:
        raise InputError(
            f"{directory}: holds no results of a sweep (*/{RESULT_NAME}); "
            "postprocess, train and predict write such a folder with -m"
        )
    distinct: dict[str, dict[str, Any]] = {}
    for path in files:
        content = {**_read_result(path), "folder": path.parent.name}
        made_of = content["identity"] or content["folder"]
        distinct.setdefault(json.dumps(made_of, sort_keys=True), content)
    contents = distinct.values()
    keys = tuple(dict.fromkeys(key for content in contents for key in content["overrides"]))
    rows = [
        {key: _value(content, key) for key in keys}
        | dict.fromkeys(SCORE_COLUMNS)
        | content["result"]
        | {"folder": content["folder"]}
        for content in contents
    ]

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        score = row["competition_map"]
        return score is None, -(score or 0)

    return SweepResults(keys, tuple(sorted(rows, key=order)))


def write_table(sweep_directory: str | Path) -> tuple[Path, Path]:
    """Write all results as CSV and Parquet, the best first; each file whole or not at all.

    Raises:
        InputError: As for ``read_results``.
    """
    directory = Path(sweep_directory)
    rows = read_results(directory).rows
    columns = list(dict.fromkeys(key for row in rows for key in row))
    plain = {column: of_one_type([row.get(column) for row in rows]) for column in columns}
    text, parquet = io.StringIO(), io.BytesIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*plain.values(), strict=True))
    pq.write_table(pa.table(plain), parquet)
    csv_path, parquet_path = (directory / name for name in TABLE_NAMES)
    write_text(csv_path, text.getvalue())
    write_bytes(parquet_path, parquet.getvalue())
    return csv_path, parquet_path


def _value(content: Mapping[str, Any], key: str) -> Any:
    if key in content["overrides"]:
        return content["overrides"][key]
    value: Any = content["identity"]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class SweepTable(Callback):
    """Hydra callback that prepares the jobs of a sweep and gathers their results.

    Before the first job it removes repeated values, counts the jobs, and passes the count to each.
    It writes each job's overrides to the job's folder. After the last job it writes
    ``results.csv`` and ``results.parquet`` to the sweep's folder and names the best job. It runs in
    the process that launched the jobs, with any launcher; only ``on_job_start`` runs in the job's.

    Args:
        use: Command that uses a job's result, with ``{folder}``; None: this program with the job's
            own overrides.
        announce: Whether a job is named when it starts, for jobs that take long.
        jobs: Number of jobs; set by the callback for its jobs.
        swept: Keys that have several values; set by the callback for its jobs.
    """

    def __init__(
        self,
        use: str | None = None,
        announce: bool = False,
        jobs: int | None = None,
        swept: Sequence[str] = (),
    ) -> None:
        self._use = use
        self._announce = announce

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove repeated values, and pass the number of jobs to each."""
        with flag_override(config.hydra, ["struct", "readonly"], [False, False]):
            sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
            params = sweeper.get("params") or {}
            of_file = [_once(one) for one in _parse([f"{k}={v}" for k, v in params.items()])]
            task = [_once(one) for one in _parse(_typed(config, "task"))]
            if params:
                config.hydra.sweeper.params = dict(text.split("=", 1) for text, _ in of_file)
            config.hydra.overrides.task = [text for text, _ in task]
            counts = {text.partition("=")[0].strip(): count for text, count in [*of_file, *task]}
            swept = ",".join(f"'{key}'" for key, count in counts.items() if count != 1)
            known = [count for count in counts.values() if count is not None]
            jobs = math.prod(known) if len(known) == len(counts) else "null"
            config.hydra.overrides.hydra = [
                *_typed(config, "hydra"),
                f"++{KEY}.jobs={jobs}",
                f"++{KEY}.swept=[{swept}]",
            ]

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the overrides of a sweep's job to its folder."""
        if config.hydra.mode == RunMode.MULTIRUN:
            folder = Path(config.hydra.runtime.output_dir)
            text = yaml.safe_dump(_typed(config, "task"), width=100_000, allow_unicode=True)
            write_text(folder / OVERRIDES_NAME, text)
            if self._announce:
                print(f"{describe_job()}: {describe_job_settings()}  {folder}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather the results of all jobs, those of earlier runs included."""
        directory = Path(config.hydra.sweep.dir)
        if not any(directory.glob(f"*/{RESULT_NAME}")):
            return
        path, parquet_path = write_table(directory)
        print(f"wrote {path} and {parquet_path.name}")
        rows = read_results(directory).rows
        best = rows[0]
        if "wandb" in (config.get("logger") or {}):
            dashboard = open_dashboard(
                config.logger, group=f"sweep {directory.name}", directory=directory
            )
            assert dashboard is not None
            table = dashboard.open_table(f"sweep {directory.name}", config={})
            table.close("jobs", rows, {"jobs": len(rows), "best": best["competition_map"]})
        if best["competition_map"] is None:
            return
        folder = directory / best["folder"]
        say(f"best of {len(rows)} jobs: {describe_score(best)}, {folder}", file=sys.stdout)
        say(f"  {self._command(config.hydra.job.name, folder)}", file=sys.stdout)

    def _command(self, program: str, folder: Path) -> str:
        keys = {one: one.partition("=")[0].lstrip("+") for one in _read_overrides(folder)}
        if self._use is not None:
            data = [override for override, key in keys.items() if key in _OF_DATA]
            command = self._use.format(folder=quote_for_shell(quote_for_hydra(folder)))
        else:
            data = [one for one, key in keys.items() if key.partition(".")[0] not in _OF_SWEEPS]
            command = f"python -m src.{program}"
        return " ".join([command, *map(quote_for_shell, data)])


def check_jobs(
    sweeper: Sweeper,
    batch: Sequence[Sequence[str]],
    _check: Callable[[Sweeper, Sequence[Sequence[str]]], None] = Sweeper.validate_batch_is_legal,
) -> None:
    """Compose the first job that has a value, for each value; in place of Hydra's method.

    That composes every job before the first one starts, and each is composed again when it does:
    half of the time of a sweep of a thousand short jobs. A job that cannot be composed only because
    of several values together is named when its turn comes.
    """
    known: set[str] = set()
    chosen = []
    for overrides in batch:
        if not known.issuperset(overrides):
            known.update(overrides)
            chosen.append(overrides)
    _check(sweeper, chosen)


Sweeper.validate_batch_is_legal = check_jobs  # type: ignore[assignment,method-assign]


def _read_overrides(folder: Path) -> list[str]:
    """Return the overrides of a job as they were typed; empty where their file is missing.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / OVERRIDES_NAME
    if not path.exists():
        return []
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML; the file is damaged") from error
    if not isinstance(overrides, list) or not all(isinstance(one, str) for one in overrides):
        raise InputError(f"{path}: must hold a list of overrides; the file is damaged")
    return overrides


def _typed(config: Any, kind: str) -> list[str]:
    """Return the overrides of this kind, ``task`` or ``hydra``, with interpolations unresolved."""
    overrides: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    texts: list[str] = overrides[kind]
    return texts


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _once(override: Override) -> tuple[str, int | None]:
    """Return an override with each value once, and the number of values, None if only Hydra knows.

    Of equal values in a list of choices (0.3, 0.30) the first stays.
    """
    line = override.input_line
    assert line is not None  # it was parsed from one
    choices = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP)
    if override.value_type in choices and not getattr(override.value(), "shuffle", False):
        texts: dict[str, str] = {}
        given = list(override.sweep_string_iterator())
        for value, text in zip(override.sweep_iterator(), given, strict=True):
            texts.setdefault(repr(value), text)
        if len(texts) < len(given):
            line = f"{override.get_key_element()}={','.join(texts.values())}"
        return line, len(texts)
    if not override.is_sweep_override():
        return line, 1
    return line, len(list(override.sweep_iterator())) if override.is_range_sweep() else None
