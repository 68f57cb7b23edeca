"""A search on several processes and machines, over one database that Optuna keeps its trials in.

Optuna's number of a trial is unique: the database gives it while it locks the study. A new trial's
number in the search follows from it: Optuna's number, less the trials before that repeat another
one. A trial whose process ended without a result (no sign of life for ``GRACE_S``) is failed, and
repeated under its number in the search. Whatever happens at the same time elsewhere, of the trials
with one number the first that has not failed is the one that counts: whoever finds another before
its own gives its own up.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from src.errors import InputError
from src.tuning.trial_storage import check_identity, optunas_address
from src.validation import shown

log = logging.getLogger(__name__)

HEARTBEAT_S = 10
GRACE_S = 60
CONNECTION_TRIES = 5
REPEATS_KEY = "repeats"  # attribute of a trial: the number in the search that it is done for again
_LEGAL = "an address such as postgresql://USER@HOST/DATABASE"
# https://github.com/optuna/optuna/blob/v5.0.0/optuna/storages/_heartbeat.py, and study/study.py
# there, whose optimize gives the signs of life that _beat gives here
_EXPECTED_WARNINGS = (
    "Argument ``heartbeat_interval`` is an experimental feature",
    "optuna.storages._heartbeat.fail_stale_trials is experimental",
    "Heartbeat of storage is supposed to be used with Study.optimize.",
)


class SharedTrials:
    """The trials of a search that any number of processes work on.

    Args:
        address: SQLAlchemy's address of the database.
        name: Of the study in it, which is the search's.
        identity: Everything that the scores depend on, as plain JSON values.
        suggest: Asks a trial for the parameters that it was given.

    Raises:
        InputError: The address is wrong, its driver is missing, the database cannot be reached, or
            it has a search of this name with another identity.
    """

    cure = "give the search another name"

    def __init__(
        self,
        address: str,
        *,
        name: str,
        identity: Mapping[str, Any],
        suggest: Callable[[optuna.Trial], Any],
    ) -> None:
        url = read_address(address)
        self.place = f"{describe_address(url)} (study {name})"
        self._suggest = suggest
        self._asked: optuna.Trial | None = None
        self._is_done = threading.Event()
        self._running_since: dict[int, float] = {}
        with naming_database_errors(self.place):
            self._storage = _connect(url)
            self._study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                sampler=_Given({}),
                direction="maximize",
                load_if_exists=True,
            )
            check_identity(self._study, identity, place=self.place)

    def finished(self) -> dict[int, FrozenTrial]:
        """Return the finished trials by their number in the search."""
        with naming_database_errors(self.place):
            by_number = self._by_number()
        complete = {
            number: [trial for trial in trials if trial.state == TrialState.COMPLETE]
            for number, trials in by_number.items()
        }
        return {number: trials[0] for number, trials in complete.items() if trials}

    def claim(self, num_trials: int) -> int | None:
        """Return the number of a trial that no other process is at work on, below ``num_trials``.

        None: the finished trials and those of other processes are all of them.
        """
        with naming_database_errors(self.place):
            while self._offer(num_trials):
                self._asked = asked = self._study.ask()
                self._storage.record_heartbeat(asked._trial_id)
                number = self._number_of(asked.number)
                if number is not None and number < num_trials:
                    self._is_done = threading.Event()
                    arguments = (self._storage, asked._trial_id, self._is_done)
                    threading.Thread(target=_beat, args=arguments, daemon=True).start()
                    return number
                self._study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
        return None

    def finish(self, number: int, trial: FrozenTrial) -> None:
        """Keep the trial that was claimed, complete."""
        assert self._asked is not None
        self._is_done.set()
        with naming_database_errors(self.place):
            try:
                self._study.sampler = _Given(trial.params)
                self._suggest(self._asked)
                for key, value in trial.user_attrs.items():
                    self._asked.set_user_attr(key, value)
                self._study.tell(self._asked, trial.value)
            except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
                if self._state_of(self._asked.number) != TrialState.FAIL:
                    raise
                log.warning("trial %d took so long that another process does it again", number)

    def abandon(self) -> None:
        """Give back the trial that was claimed, so that another process does it."""
        self._is_done.set()
        if self._asked is not None:
            with contextlib.suppress(Exception):  # there is one on its way already
                self._study.tell(self._asked, state=TrialState.FAIL, skip_if_finished=True)

    def _offer(self, num_trials: int) -> bool:
        """Return whether there is something to claim; trials that failed are put up again."""
        self._fail_those_of_ended_processes()
        by_number = self._by_number()
        failed = [
            number
            for number, trials in by_number.items()
            if number < num_trials and all(trial.state == TrialState.FAIL for trial in trials)
        ]
        for number in failed:
            again = optuna.trial.create_trial(
                state=TrialState.WAITING, user_attrs={REPEATS_KEY: number}
            )
            self._study.add_trial(again)
        is_waiting = any(
            trial.state == TrialState.WAITING
            for number, trials in by_number.items()
            for trial in trials
            if number < num_trials
        )
        return bool(failed) or is_waiting or len(by_number) < num_trials

    def _number_of(self, optunas: int) -> int | None:
        """Return the number in the search of one of Optuna's; None where an earlier one counts."""
        for number, trials in self._by_number().items():
            if optunas in [trial.number for trial in trials]:
                counting = [one.number for one in trials if one.state != TrialState.FAIL]
                return number if counting and counting[0] == optunas else None
        return None

    def _by_number(self) -> dict[int, list[FrozenTrial]]:
        """Return all trials by their number in the search, each in the order of Optuna's."""
        found: dict[int, list[FrozenTrial]] = {}
        repeats = 0
        for trial in sorted(self._study.get_trials(deepcopy=False), key=lambda one: one.number):
            repeated = trial.user_attrs.get(REPEATS_KEY)
            number = trial.number - repeats if repeated is None else repeated
            repeats += repeated is not None
            found.setdefault(number, []).append(trial)
        return found

    def _state_of(self, optunas: int) -> TrialState:
        trials = self._study.get_trials(deepcopy=False)
        return next(trial.state for trial in trials if trial.number == optunas)

    def _fail_those_of_ended_processes(self) -> None:
        now = time.monotonic()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Killed before its first sign of life, a process leaves a trial that Optuna takes for
            # one without any: it gets one, once.
            if now - self._running_since.setdefault(trial.number, now) > GRACE_S:
                self._running_since[trial.number] = float("inf")
                self._storage.record_heartbeat(trial._trial_id)
        optuna.storages.fail_stale_trials(self._study)


class _Given(optuna.samplers.BaseSampler):
    """Proposes the parameters that it is given."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def infer_relative_search_space(self, *_: Any) -> dict[str, Any]:
        """Return nothing: each parameter is asked for by itself."""
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, _: Any) -> Any:
        """Return the value of a parameter."""
        return self._params[param_name]


def read_address(address: object) -> sqlalchemy.URL:
    """Return the parts of a database's address.

    Raises:
        InputError: It is none. The message leaves out what may be a password.
    """
    if not isinstance(address, str):
        raise InputError(f"storage must be {_LEGAL}, got {shown(address)}")
    try:
        url = sqlalchemy.make_url(address)
    except (ArgumentError, ValueError):
        before, _, after = address.rpartition("@")
        hidden = "...@" if before else ""
        raise InputError(f"storage must be {_LEGAL}, got {hidden}{after[:80]!r}") from None
    if "@" in (url.host or ""):
        raise InputError(
            f"storage must be {_LEGAL}: an @ in its password is written %40; better, leave the "
            "password out (docs/search.md)"
        )
    return url


def check_database(address: object) -> None:
    """Connect to a database once, so that a mistake is said before anything else is read.

    Raises:
        InputError: As for ``SharedTrials``.
    """
    url = read_address(address)
    with naming_database_errors(describe_address(url)):
        _connect(url).engine.dispose()


def describe_address(url: sqlalchemy.URL) -> str:
    """Return an address for people: without password, and without options, which may hold one."""
    kept = url.set(query={})
    return (kept if url.password is None else kept.set(password="***")).render_as_string()


@contextlib.contextmanager
def naming_database_errors(place: str) -> Iterator[None]:
    """Raise what a database or its driver reports as one line.

    Raises:
        InputError: Names the database, without its password.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason: BaseException = error
        while (cause := reason.__cause__) is not None and not isinstance(reason, DBAPIError):
            reason = cause
        text = reason.orig if isinstance(reason, DBAPIError) else reason
        said = " ".join(str(text).split()) or type(text).__name__
        raise InputError(
            f"storage={place}: {said}; once that is mended, the same command resumes"
        ) from error


def _connect(url: sqlalchemy.URL) -> optuna.storages.RDBStorage:
    """Open Optuna's tables; several processes may be making them at the same time."""
    for text in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=re.escape(text))
    for tried in range(1, CONNECTION_TRIES + 1):
        try:
            return optuna.storages.RDBStorage(
                optunas_address(url),
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
            )
        except ImportError as error:
            name = getattr(error.__cause__, "name", None) or url.drivername
            cure = "make postgresql" if name == "psycopg" else f"pip install {name}"
            raise InputError(
                f"storage={describe_address(url)} needs the package {name}, which is not "
                f"installed: {cure}"
            ) from error
        except NoSuchModuleError as error:
            raise InputError(
                f"storage must be {_LEGAL}, got {describe_address(url)}: no such kind of database"
            ) from error
        except SQLAlchemyError as error:
            is_refused = isinstance(error, OperationalError) and url.get_backend_name() != "sqlite"
            if is_refused or tried == CONNECTION_TRIES:
                raise
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("not reached")


def _beat(storage: Any, trial_id: int, is_done: threading.Event) -> None:
    while not is_done.wait(HEARTBEAT_S):
        with contextlib.suppress(Exception):  # finish says what is wrong
            storage.record_heartbeat(trial_id)
