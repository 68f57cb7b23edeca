"""Sweeps and searches in W&B: a run a row, or one run with a table of all rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import InputError

MARK_NAME = "wandb_row.txt"
_WANDB_SETTINGS: dict[str, Any] = {"console": "off"} | dict.fromkeys(
    ("silent", "x_disable_stats", "x_disable_meta", "disable_code", "disable_git"), True
)


def of_one_type(values: list[Any]) -> list[Any]:
    """Return values of one type: all boolean, all numbers, or otherwise text; None stays."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]


class TableRun:
    """One W&B run: a curve of the rows so far, and in the end a table of all."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def show(self, values: Mapping[str, float | int | str], *, step: int) -> None:
        """Add a point to the curves."""
        self._run.log(dict(values), step=step)

    def close(
        self, key: str, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
    ) -> None:
        """Write the table and the summary, and end the run.

        Args:
            key: Name of the table.
            rows: Plain values by column; a column that a row lacks is empty there.
            summary: Plain values.
        """
        import wandb

        columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
        values = {name: of_one_type([row.get(str(name)) for row in rows]) for name in columns}
        data = [list(cells) for cells in zip(*values.values(), strict=True)]
        self._run.log({key: wandb.Table(columns=columns, data=data)})
        self._run.summary.update(json.loads(json.dumps(summary)))
        self._run.finish()

    def abandon(self) -> None:
        """End the run as one that failed."""
        self._run.finish(exit_code=1)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A group of W&B runs, one run a row: its config holds parameters, its summary results.

    W&B's parallel-coordinates and importance panels show the runs of one group.
    """

    project: str
    group: str
    directory: Path  # W&B's files are written below it, in ``wandb``
    offline: bool  # whether rows are only written there; ``wandb sync`` uploads them later
    shown: Path  # the directory in messages; SWEEP/* for the directories of many jobs

    @property
    def location(self) -> str:
        """Line that says where the rows go."""
        if self.offline:
            runs = self.shown / "wandb" / "offline-run-*"
            return f"W&B is offline (no WANDB_API_KEY); later: wandb sync {runs}"
        return f"W&B: project {self.project}, group {self.group}"

    def add(self, name: str, *, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write one row. The same name in the same directory is the same run."""
        run = self._open(name, config)
        run.summary.update(json.loads(json.dumps(summary)))
        run.finish()

    def open_table(self, name: str, *, config: Mapping[str, Any]) -> TableRun:
        """Open one run for many rows. The same name in the same directory is the same run."""
        return TableRun(self._open(name, config))

    def _open(self, name: str, config: Mapping[str, Any]) -> Any:
        import wandb  # takes a second, and most runs do without

        self.directory.mkdir(parents=True, exist_ok=True)
        place = f"{self.directory.resolve()}/{name}"
        return wandb.init(
            project=self.project,
            group=self.group,
            name=name,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            dir=str(self.directory),
            mode="offline" if self.offline else None,
            resume=None if self.offline else "allow",
            config=json.loads(json.dumps(config)),  # keys become text
            reinit="create_new",
            settings=wandb.Settings(**_WANDB_SETTINGS),
        )

    def add_once(self, name: str, *, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write the only row of this directory, unless it exists; arguments as for ``add``."""
        mark = self.directory / MARK_NAME
        if not mark.exists():
            self.add(name, config=config, summary=summary)
            mark.write_text(f"{self.project}: {self.group}: {name}\n", encoding="utf-8")


def open_dashboard(
    logger: Mapping[str, Any] | None, *, group: str, directory: Path, shown: Path | None = None
) -> Dashboard | None:
    """Open the dashboard of the configuration group ``logger``; None without a logger.

    The group's entry ``wandb`` names the project, and whether it is offline.

    Raises:
        InputError: There are loggers, but not W&B.
    """
    if not logger:
        return None
    if "wandb" not in logger:
        given = ", ".join(map(str, logger))
        raise InputError(f"logger must include wandb to show rows, got {given}")
    project, offline = logger["wandb"]["project"], bool(logger["wandb"]["offline"])
    return Dashboard(project, group, directory, offline, shown or directory)
