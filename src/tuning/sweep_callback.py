"""Hydra's callback of a sweep: how many jobs there are, what each is, and what came out of all."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from src.io import printable, write_text
from src.terminal import say
from src.tuning.sweep_results import (
    OVERRIDES_NAME,
    RESULT_NAME,
    job_overrides,
    read_job_overrides,
    read_results,
    typed,
    write_result,
    write_table,
)

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
    """``0.5123 (0.4912 to 0.5334)``; the interval where it is known."""
    if row.get("competition_map") is None:
        return "no score"
    shown = f"{row['competition_map']:.4f}"
    if row.get("low") is not None and row.get("high") is not None:
        shown += f" ({row['low']:.4f} to {row['high']:.4f})"
    return shown


def is_sweep() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_in_words() -> str:
    """``job 5 of 100``, of the running job of a sweep."""
    jobs = _handed_on("jobs")
    return f"job {HydraConfig.get().job.num + 1}{'' if jobs is None else f' of {jobs}'}"


def job_settings_in_words() -> str:
    """The values of the running job that the sweep varies, ``score_threshold=0.3 folds=5``."""
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
    """What the callback has told the jobs."""
    callbacks: Any = HydraConfig.get().callbacks
    return (callbacks.get("sweep_table") or {}).get(key)


def _plain(config: Any) -> Any:
    """Plain values, with interpolations as they stand there."""
    return OmegaConf.to_container(config, resolve=False)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _once(override: Override) -> str:
    """An override with each of its values once; what is no list of values stays as it is."""
    line = override.input_line
    assert line is not None  # it was parsed from one
    if not _is_choice(override):
        return line
    texts = _texts(override)
    if len(texts) == len(list(override.sweep_string_iterator())):
        return line
    return f"{override.get_key_element()}={','.join(texts)}"


def _values_of(override: Override) -> int | None:
    """How many values an override gives to the sweep; None: that is known to Hydra alone."""
    if not override.is_sweep_override():
        return 1
    if _is_choice(override):
        return len(_texts(override))
    return len(list(override.sweep_iterator())) if override.is_range_sweep() else None


def _is_choice(override: Override) -> bool:
    kinds = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP)
    return override.value_type in kinds and not getattr(override.value(), "shuffle", False)


def _texts(override: Override) -> list[str]:
    """Its values as a command line has them, those that mean the same once: 0.3 and 0.30."""
    texts: dict[str, str] = {}
    values = zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True)
    for value, text in values:
        texts.setdefault(repr(value), text)
    return list(texts.values())
