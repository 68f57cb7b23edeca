"""A search for settings, steered so that no held-out image has a say in what its fold may choose.

Trials are of three kinds:

- the first ones are drawn at random, before anything is scored;
- then every other one is proposed by Optuna's TPE (Bergstra et al. 2011) from the scores of all
  images;
- and those in between by a TPE of one fold after the other, which knows the scores of the images
  outside that fold only, and only of trials that were proposed at random or by itself.

So a fold chooses among trials none of which its own images have shaped, and the score of its images
under what it chooses is what unseen images would give. The final settings are chosen by all images
among all trials. Each trial is scored once, on all images; a mean over a part is a mean of a part
of these numbers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import sqlalchemy

from src.errors import InputError, find_disk_error, naming_disk_errors
from src.io import check_input_file, describe_difference, make_directory
from src.postprocess.settings import PostprocessSettings
from src.renamed_keys import upgrade_keys
from src.tuning.search_space import SearchSpace

log = logging.getLogger(__name__)

STUDY_NAME = "search"
RANDOM, ALL = "random", "all"
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Settings that were tried."""

    number: int
    proposed_by: str  # RANDOM, ALL, or the fold whose own images were kept out of it
    params: Mapping[str, Any]  # of the keys that were searched
    settings: PostprocessSettings
    per_image: Scores  # (M,)


class SettingsSearch:
    """A search that lives in an SQLite file, and resumes where it stopped.

    What is proposed depends on the seed, the trial's number and the scores so far, so that a search
    that was stopped and started again gives the trials of one that ran through.

    Args:
        storage: The file; Optuna's own tools can open it (study ``search``).
        identity: What the scores depend on; plain JSON values.
        space: What may be tried.
        folds: (M,) the fold of each image, from 0.
        seed: Of all proposals.
        random_trials: How many are drawn at random.

    Raises:
        InputError: The file holds a search with another identity.
    """

    def __init__(
        self,
        storage: Path,
        *,
        identity: Mapping[str, Any],
        space: SearchSpace,
        folds: npt.NDArray[np.int64],
        seed: int,
        random_trials: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._folds = folds
        self._seed = seed
        self._random_trials = random_trials
        views = [str(fold) for fold in range(int(folds.max()) + 1)]
        self._seen_by = {view: folds != int(view) for view in views} | {
            ALL: np.ones(len(folds), dtype=bool)
        }
        self._views = {view: optuna.create_study(direction="maximize") for view in self._seen_by}
        self._storage = storage
        self._study = _open_study(storage, identity)
        self.trials: list[Trial] = []
        try:
            for frozen in self._study.get_trials(deepcopy=False):
                self._take(frozen)
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{storage}: trial {len(self.trials)} is damaged ({type(error).__name__}: "
                f"{error}); delete the file, the same command searches again"
            ) from error

    def run(
        self,
        trials: int,
        score: Callable[[PostprocessSettings], Scores],
        on_trial: Callable[[Trial], None] = lambda _trial: None,
    ) -> None:
        """Run the search until there are so many trials.

        Args:
            trials: In all, with those of earlier runs.
            score: Gives (M,) the score of each image.
            on_trial: Called after each new one.
        """
        while len(self.trials) < trials:
            number = len(self.trials)
            proposed_by = self._proposer(number)
            view = ALL if proposed_by == RANDOM else proposed_by
            study = self._views[view]
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            study.sampler = (
                optuna.samplers.RandomSampler(seed=seed)
                if proposed_by == RANDOM
                else optuna.samplers.TPESampler(seed=seed, n_startup_trials=1)
            )
            asked = study.ask()
            per_image = score(self._space.suggest(asked))
            study.tell(asked, state=optuna.trial.TrialState.FAIL)  # it is added below, to all views
            trial = optuna.trial.create_trial(
                params=asked.params,
                distributions=asked.distributions,
                value=float(per_image.mean()),
                user_attrs={"proposed_by": proposed_by, "per_image": per_image.tolist()},
            )
            with naming_disk_errors(self._storage):
                self._study.add_trial(trial)
            self._take(self._study.get_trials(deepcopy=False)[number])
            on_trial(self.trials[-1])

    def choices_of(self, fold: int) -> list[Trial]:
        """Return the trials that this fold's images had no say in."""
        return [trial for trial in self.trials if trial.proposed_by in (RANDOM, str(fold))]

    def _proposer(self, number: int) -> str:
        if number < self._random_trials:
            return RANDOM
        turn = number - self._random_trials
        return ALL if turn % 2 == 0 else str(turn // 2 % (len(self._views) - 1))

    def _take(self, frozen: optuna.trial.FrozenTrial) -> None:
        """Show a finished trial to those that may know it, each with the mean that it may know."""
        trial = Trial(
            number=frozen.number,
            proposed_by=frozen.user_attrs["proposed_by"],
            params=frozen.params,
            settings=self._space.settings(frozen.params),
            per_image=np.array(frozen.user_attrs["per_image"]),
        )
        self.trials.append(trial)
        for view, seen in self._seen_by.items():
            if view == ALL or trial.proposed_by in (RANDOM, view):
                self._views[view].add_trial(
                    optuna.trial.create_trial(
                        params=frozen.params,
                        distributions=frozen.distributions,
                        value=float(trial.per_image[seen].mean()),
                    )
                )


def _address(storage: Path) -> str:
    """Return Optuna's address of a file; braces mean something to it, other signs to SQLAlchemy."""
    url = sqlalchemy.URL.create("sqlite", database=str(storage.absolute()))
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _set_damaged_aside(storage: Path) -> None:
    """Rename a file that is no whole database, so that the search starts again without it.

    Raises:
        InputError: It is no regular file.
    """
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
    if found == ["ok"]:
        return
    aside = storage.with_name(f"{storage.name}.damaged")
    storage.replace(aside)
    log.warning(
        "%s: damaged (%s); moved to %s, the search starts again", storage, found[0], aside.name
    )


def _open_study(storage: Path, identity: Mapping[str, Any]) -> optuna.Study:
    """Open the study in this file; a new one where there is none."""
    make_directory(storage.parent)
    _set_damaged_aside(storage)
    with naming_disk_errors(storage):
        study = optuna.create_study(
            study_name=STUDY_NAME,
            storage=_address(storage),
            direction="maximize",
            load_if_exists=True,
        )
    wanted = json.loads(json.dumps(identity, sort_keys=True))
    there = upgrade_keys(study.user_attrs.get("identity"))
    if there is None:
        study.set_user_attr("identity", wanted)
    elif difference := describe_difference(there, wanted):
        raise InputError(
            f"{storage}: holds a search with other values or files, and resumes with the same ones "
            "only; give another name= or output_dir=, or delete it. Different: "
            + "; ".join(difference[:5])
        )
    return study
