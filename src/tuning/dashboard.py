"""Rows for W&B: a finished run each, its parameters as the config, its results as the summary.

Runs of one group are what W&B's parallel-coordinates and importance panels draw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import InputError

MARK_NAME = "wandb_row.txt"


class Dashboard:
    """A group of W&B runs.

    Args:
        project: W&B's project.
        group: What its runs are grouped by.
        directory: W&B's files are written below it, in ``wandb``.
        offline: Only there; ``wandb sync`` sends them later.
        shown: What a message calls the directory; ``SWEEP/*`` for those of many jobs.
    """

    def __init__(
        self, *, project: str, group: str, directory: Path, offline: bool, shown: Path | None = None
    ) -> None:
        self._shown = shown or directory
        self._project = project
        self._group = group
        self._directory = directory
        self._offline = offline

    @property
    def location(self) -> str:
        """Return a line that says where the rows go."""
        if self._offline:
            runs = self._shown / "wandb" / "offline-run-*"
            return f"W&B is offline (no WANDB_API_KEY); later: wandb sync {runs}"
        return f"W&B: project {self._project}, group {self._group}"

    def add(self, name: str, *, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write one row. The same name in the same directory is the same run.

        Args:
            name: Of the run.
            config: Parameters; mappings are unfolded by W&B into dotted names.
            summary: Results.
        """
        import wandb  # takes a second, and most runs do without

        self._directory.mkdir(parents=True, exist_ok=True)
        place = f"{self._directory.resolve()}/{name}"
        run = wandb.init(
            project=self._project,
            group=self._group,
            name=name,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            dir=str(self._directory),
            mode="offline" if self._offline else None,
            resume=None if self._offline else "allow",
            config=json.loads(json.dumps(config)),  # keys become texts
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                disable_code=True,
                disable_git=True,
            ),
        )
        run.summary.update(json.loads(json.dumps(summary)))
        run.finish()

    def add_once(self, name: str, *, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write the one row of this directory, unless it is there. Arguments as for ``add``."""
        mark = self._directory / MARK_NAME
        if not mark.exists():
            self.add(name, config=config, summary=summary)
            mark.write_text(f"{self._project}: {self._group}: {name}\n", encoding="utf-8")


def open_dashboard(
    logger: Mapping[str, Any] | None, *, group: str, directory: Path, shown: Path | None = None
) -> Dashboard | None:
    """Open the dashboard of the configuration group ``logger``; None where it asks for none.

    Args:
        logger: The group; its entry ``wandb`` names the project, and whether it is offline.
        group: What the runs are grouped by.
        directory: Where W&B's files go.
        shown: See ``Dashboard``.

    Raises:
        InputError: It asks for loggers, but not for W&B.
    """
    if not logger:
        return None
    if "wandb" not in logger:
        raise InputError(f"logger: {', '.join(map(str, logger))} cannot show rows; give wandb")
    asked = logger["wandb"]
    return Dashboard(
        project=asked["project"],
        group=group,
        directory=directory,
        offline=bool(asked["offline"]),
        shown=shown,
    )
