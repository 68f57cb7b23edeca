"""Where the trials of a search are kept: the file of one process, or a database of several."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
import sqlalchemy

from src.errors import InputError, find_disk_error, naming_disk_errors
from src.io import check_input_file, describe_difference, make_directory
from src.renamed_keys import upgrade_keys

log = logging.getLogger(__name__)

STUDY_NAME = "search"  # in a file, which holds one


class TrialStorage(Protocol):
    """The trials of a search, numbered from 0 without gaps; one process has one trial at a time."""

    place: str  # in messages
    cure: str  # how to be rid of what is there

    def finished(self) -> dict[int, optuna.trial.FrozenTrial]:
        """Return the finished trials by their number in the search."""

    def claim(self, num_trials: int) -> int | None:
        """Return the number of a trial that this process is to do, below ``num_trials``.

        None: the finished trials and those of other processes are all of them.
        """

    def finish(self, number: int, trial: optuna.trial.FrozenTrial) -> None:
        """Keep the trial that was claimed, complete."""

    def abandon(self) -> None:
        """Give back the trial that was claimed, so that it is done later, or by another process."""


class TrialFile:
    """The trials of one process, in an SQLite file that holds finished ones alone.

    Args:
        path: The file; Optuna's own tools can open it.
        identity: Everything that the scores depend on, as plain JSON values.

    Raises:
        InputError: The file holds a search with another identity.
    """

    cure = "delete the file, the same command searches again"

    def __init__(self, path: Path, *, identity: Mapping[str, Any]) -> None:
        self._path, self.place = path, str(path)
        make_directory(path.parent)
        _set_damaged_aside(path)
        url = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
        with naming_disk_errors(path):
            self._study = optuna.create_study(
                study_name=STUDY_NAME,
                storage=optunas_address(url),
                direction="maximize",
                load_if_exists=True,
            )
            check_identity(self._study, identity, place=self.place)

    def finished(self) -> dict[int, optuna.trial.FrozenTrial]:
        """Return the finished trials by their number."""
        return {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}

    def claim(self, num_trials: int) -> int | None:
        """Return the number after the last, if it is below ``num_trials``."""
        number = len(self._study.get_trials(deepcopy=False))
        return number if number < num_trials else None

    def finish(self, number: int, trial: optuna.trial.FrozenTrial) -> None:
        """Add a finished trial; its number is the next."""
        with naming_disk_errors(self._path):
            self._study.add_trial(trial)

    def abandon(self) -> None:
        """Nothing of the trial is in the file yet."""


def optunas_address(url: sqlalchemy.URL) -> str:
    """Return an address with its password, for Optuna, which expands braces."""
    address = url.render_as_string(hide_password=False)
    return address.replace("{", "{{").replace("}", "}}")


def check_identity(study: optuna.Study, identity: Mapping[str, Any], *, place: str) -> None:
    """Compare the identity of a search with the one in its study, or keep it in a new one.

    Raises:
        InputError: They differ.
    """
    wanted = json.loads(json.dumps(identity, sort_keys=True))
    there = upgrade_keys(study.user_attrs.get("identity"))
    if there is None:
        study.set_user_attr("identity", wanted)
    elif difference := describe_difference(there, wanted):
        raise InputError(
            f"{place}: holds a search with other values or files, and resumes with the same ones "
            "only; give another name= or output_dir=, or delete it. Different: "
            + "; ".join(difference[:5])
        )


def _set_damaged_aside(storage: Path) -> None:
    """Rename a damaged database, so that the search starts again without it."""
    if not storage.exists():
        return
    check_input_file(storage)
    try:
        with contextlib.closing(sqlite3.connect(storage)) as database:
            found = [row[0] for row in database.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        if find_disk_error(error) is not None or isinstance(error, sqlite3.OperationalError):
            raise
        found = [str(error)]
    if found != ["ok"]:
        aside = storage.replace(storage.with_name(f"{storage.name}.damaged")).name
        message = "%s: damaged (%s); moved to %s, the search starts again"
        log.warning(message, storage, found[0], aside)
