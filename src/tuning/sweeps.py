"""Sweeps: one row of results a job, as files and as a table.

The results of a sweep's jobs: one file in each job's folder, one table in the sweep's.
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
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
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
from src.renamed_keys import RENAMED_KEYS, upgrade_keys

log = logging.getLogger(__name__)

RESULT_NAME = "result.json"
OVERRIDES_NAME = "overrides.yaml"  # of a job, written when it starts
SCORE_COLUMNS = ("competition_map", "low", "high")
TABLE_NAMES = ("results.csv", "results.parquet")


def finished_result(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of this folder's finished job; None where there is none, or it is damaged.

    Args:
        folder: The job's folder.
        identity: What a result is made of: settings and files.

    Raises:
        InputError: The result that lies there was made of something else.
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
        upgrade_keys(content.get("identity")), json.loads(json.dumps(identity, sort_keys=True))
    )
    if difference:
        raise InputError(
            f"{path}: the result of other settings or files lies there, and it is not overwritten; "
            "give another hydra.sweep.dir, or delete it. Different: " + "; ".join(difference[:5])
        )
    return {**content, "result": _upgrade_result(content["result"])}


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
    """Parse a command line's overrides to keys and values, typed as Hydra reads them.

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
    """Return key and value of each override of the running job that its result depends on."""
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
    """Results of the finished jobs of a sweep."""

    overrides: tuple[str, ...]  # keys that some job sets, the first columns of a row
    rows: tuple[Mapping[str, Any], ...]  # one a job, the best first; those without a score last

    @property
    def swept(self) -> tuple[str, ...]:
        """Keys that have more than one value."""
        return tuple(
            key for key in self.overrides if len({json.dumps(row[key]) for row in self.rows}) > 1
        )


def _upgrade_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's result with the column of the number of detections as it is called now."""
    return {"num_detections" if key == "objects" else key: value for key, value in result.items()}


def read_results(sweep_directory: str | Path) -> SweepResults:
    """Read the finished jobs of a sweep: each one's overrides, then its result, then its folder.

    Jobs that were made of the same files and settings, written in two ways, are one row. An
    override that some jobs lack has there the value that their settings had.

    Raises:
        InputError: There is none, or one is damaged.
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
        content["identity"] = upgrade_keys(content.get("identity"))
        content["result"] = _upgrade_result(content["result"])
        content["overrides"] = {
            RENAMED_KEYS.get(key, key): value for key, value in content["overrides"].items()
        }
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
        InputError: As for ``read_results``.
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
    """Return values of one type: numbers, or else texts; None stays."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return values
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        is_whole = all(isinstance(value, int) for value in known)
        return [value if value is None or is_whole else float(value) for value in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]


KEY = "hydra.callbacks.sweep_table"  # where a sweep's configuration has the callback
SHOWN_OVERRIDES = 120
_OF_DATA = ("images", "paths.data_dir")  # what the next command reads, too
_OF_SWEEPS = ("output", "sweep", "logger")  # overrides that one job alone does not take on


class SweepTable(Callback):
    """Says what a sweep does and gathers what it found.

    Before the first job it leaves out values that are given twice, counts the jobs, and hands the
    count on to each. It keeps each job's overrides in the job's folder, and when the last one is
    done it writes ``results.csv`` and ``results.parquet`` into the sweep's and names the best job.
    It runs in the process that launched the jobs, whatever launcher ran them; only a job's start is
    noted in the process of the job.

    Args:
        use: The command that uses a job's result, with ``{folder}``; None: this program with the
            job's own overrides.
        announce: Whether a job is named when it starts, for those that take long.
        jobs: How many jobs the sweep has; set by the callback for its jobs.
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
        self._jobs = jobs
        self._swept = tuple(swept)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave out values that stand there twice, and tell the jobs how many they are."""
        with flag_override(config.hydra, ["struct", "readonly"], [False, False]):
            params = _plain(config.hydra.sweeper).get("params") or {}
            of_file = [
                _once(override)
                for override in _parsed([f"{key}={value}" for key, value in params.items()])
            ]
            task = [_once(override) for override in _parsed(typed(config, "task"))]
            if params:
                config.hydra.sweeper.params = dict(text.split("=", 1) for text in of_file)
            config.hydra.overrides.task = task
            counts = {
                override.get_key_element(): _values_of(override)
                for override in _parsed([*of_file, *task])
            }
            swept = [key for key, values in counts.items() if values != 1]
            own = {"jobs": "null" if None in counts.values() else math.prod(counts.values())}  # type: ignore[arg-type]
            own["swept"] = "[" + ",".join(f"'{key}'" for key in swept) + "]"
            config.hydra.overrides.hydra = [
                *typed(config, "hydra"),
                *(f"++{KEY}.{key}={value}" for key, value in own.items()),
            ]

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep the overrides of a job of a sweep in its folder."""
        if config.hydra.mode == RunMode.MULTIRUN:
            folder = Path(config.hydra.runtime.output_dir)
            text = yaml.safe_dump(typed(config, "task"), width=100_000, allow_unicode=True)
            write_text(folder / OVERRIDES_NAME, text)
            if self._announce:
                print(f"{job_in_words()}: {job_settings_in_words()}  {folder}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather what the jobs, of this run and of those before it, have found."""
        directory = Path(config.hydra.sweep.dir)
        if not any(directory.glob(f"*/{RESULT_NAME}")):
            return
        path, _ = write_table(directory)
        print(f"wrote {path} and {path.with_suffix('.parquet').name}")
        results = read_results(directory)
        best = results.rows[0]
        if best.get("competition_map") is None:
            return
        folder = directory / best["folder"]
        say(f"best of {len(results.rows)} jobs: {score_in_words(best)}, {folder}", file=sys.stdout)
        say(f"  {self._command(config.hydra.job.name, folder)}", file=sys.stdout)

    def _command(self, program: str, folder: Path) -> str:
        overrides = {
            override: override.partition("=")[0].lstrip("+")
            for override in read_job_overrides(folder)
        }
        if self._use is not None:
            use = self._use.format(folder=shlex.quote(str(folder)))
            data = [override for override, key in overrides.items() if key in _OF_DATA]
            return " ".join([use, *map(shlex.quote, data)])
        own = [
            override
            for override, key in overrides.items()
            if key.partition(".")[0] not in _OF_SWEEPS
        ]
        return " ".join(["python -m", f"src.{program}", *map(shlex.quote, own)])


def score_in_words(row: Mapping[str, Any]) -> str:
    """Format a score, ``0.5123 (0.4912 to 0.5334)``; the interval where it is known."""
    if row.get("competition_map") is None:
        return "no score"
    shown = f"{row['competition_map']:.4f}"
    if row.get("low") is not None and row.get("high") is not None:
        shown += f" ({row['low']:.4f} to {row['high']:.4f})"
    return shown


def is_sweep() -> bool:
    """Return whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_in_words() -> str:
    """Return ``job 5 of 100`` for the running job of a sweep."""
    jobs = _handed_on("jobs")
    return f"job {HydraConfig.get().job.num + 1}{'' if jobs is None else f' of {jobs}'}"


def job_settings_in_words() -> str:
    """Return the running job's values that the sweep varies, ``score_threshold=0.3 folds=5``."""
    keys = {key.lstrip("+").partition("@")[0] for key in _handed_on("swept") or ()}
    text = " ".join(
        f"{key.removeprefix('postprocess.')}={value}"
        for key, value in job_overrides().items()
        if key in keys
    )
    return printable(text, limit=SHOWN_OVERRIDES)


def finish_job(folder: Path, *, identity: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Mark the running job of a sweep as finished, and show what it found.

    Args:
        folder: The job's folder.
        identity: What the result was made of.
        result: A row of the sweep's table; ``competition_map`` is what jobs are ordered by.
    """
    write_result(folder, identity=identity, overrides=job_overrides(), result=result)
    counts = [f"{value} {key[4:]}" for key, value in result.items() if key.startswith("num_")]
    found = ", ".join(counts) or score_in_words(result)
    print(f"{job_in_words()}  {found}  {job_settings_in_words()}  {folder.name}")


def _handed_on(key: str) -> Any:
    """Return what the callback has passed on to the jobs."""
    callbacks: Any = HydraConfig.get().callbacks
    return (callbacks.get("sweep_table") or {}).get(key)


def _plain(config: Any) -> Any:
    """Convert a node to plain values, with interpolations left as they are."""
    return OmegaConf.to_container(config, resolve=False)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _once(override: Override) -> str:
    """Return an override with each of its values once; unchanged where it is no list of values."""
    line = override.input_line
    assert line is not None  # it was parsed from one
    if not _is_choice(override):
        return line
    texts = _texts(override)
    if len(texts) == len(list(override.sweep_string_iterator())):
        return line
    return f"{override.get_key_element()}={','.join(texts)}"


def _values_of(override: Override) -> int | None:
    """Return how many values an override gives to the sweep; None where only Hydra knows."""
    if not override.is_sweep_override():
        return 1
    if _is_choice(override):
        return len(_texts(override))
    return len(list(override.sweep_iterator())) if override.is_range_sweep() else None


def _is_choice(override: Override) -> bool:
    kinds = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP)
    return override.value_type in kinds and not getattr(override.value(), "shuffle", False)


def _texts(override: Override) -> list[str]:
    """Return its values as a command line has them, equal ones once: 0.3 and 0.30."""
    texts: dict[str, str] = {}
    values = zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True)
    for value, text in values:
        texts.setdefault(repr(value), text)
    return list(texts.values())
