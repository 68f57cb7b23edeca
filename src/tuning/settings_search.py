"""A search for settings in which no held-out image influences what its fold may choose.

There are three kinds of trials:

- the first ones are drawn at random, before anything is scored;
- every other one after them is proposed by Optuna's TPE (Bergstra et al. 2011) from the scores of
  all images;
- the rest are proposed by a TPE of each fold in turn, which sees only the scores of images outside
  that fold, and only trials that were drawn at random or proposed by itself.

So a fold chooses among trials that its own images have not shaped, and the score of its images
under its choice is an honest estimate for unseen images. The final settings are chosen by all
images among all trials. Each trial is scored once, on all images; the mean over some images is a
mean of some of these scores.
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
from src.tuning.settings_evaluator import Scores

log = logging.getLogger(__name__)

STUDY_NAME = "search"
RANDOM, ALL = "random", "all"


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Settings that were tried."""

    number: int
    proposed_by: str  # RANDOM, ALL, or the fold whose own images had no influence on it
    settings: PostprocessSettings
    per_image: Scores  # (M,)


class SettingsSearch:
    """A search that is kept in an SQLite file and resumes where it stopped.

    Proposals depend on the seed, the trial's number and the scores so far, so a search that was
    stopped and resumed has the same trials as one that ran through.

    Args:
        storage: The file; Optuna's own tools can open it (study ``search``).
        identity: Everything that the scores depend on, as plain JSON values.
        space: Values that may be tried.
        folds: (M,) the fold of each image, from 0.
        seed: Of all proposals.
        num_random_trials: How many trials are drawn at random.

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
        num_random_trials: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._seed = seed
        self._num_random_trials = num_random_trials
        views = [str(fold) for fold in range(int(folds.max()) + 1)]
        self._seen_by = {view: folds != int(view) for view in views}
        self._seen_by[ALL] = np.ones(len(folds), dtype=bool)
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
        num_trials: int,
        score: Callable[[PostprocessSettings], Scores],
        on_trial: Callable[[Trial], None] = lambda _trial: None,
    ) -> None:
        """Run the search up to a number of trials, those of earlier runs included.

        ``score`` returns the score of each image, shape (M,); ``on_trial`` is called with each new
        trial.
        """
        while len(self.trials) < num_trials:
            number = len(self.trials)
            proposed_by = self._proposer(number)
            study = self._views[ALL if proposed_by == RANDOM else proposed_by]
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            if proposed_by == RANDOM:
                study.sampler = optuna.samplers.RandomSampler(seed=seed)
            else:
                study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1)
            asked = study.ask()
            per_image = score(self._space.suggest(asked))
            # not finished here: _take adds the finished trial to every view
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
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
        """Return the trials that this fold's images had no influence on."""
        return [trial for trial in self.trials if trial.proposed_by in (RANDOM, str(fold))]

    def _proposer(self, number: int) -> str:
        turn = number - self._num_random_trials
        if turn < 0:
            return RANDOM
        return ALL if turn % 2 == 0 else str(turn // 2 % (len(self._views) - 1))

    def _take(self, frozen: optuna.trial.FrozenTrial) -> None:
        """Add a finished trial to each view that may see it, with the mean over its images."""
        trial = Trial(
            number=frozen.number,
            proposed_by=frozen.user_attrs["proposed_by"],
            settings=self._space.settings(frozen.params),
            per_image=np.array(frozen.user_attrs["per_image"]),
        )
        self.trials.append(trial)
        for view, seen in self._seen_by.items():
            if view == ALL or trial.proposed_by in (RANDOM, view):
                parts: Any = {"params": frozen.params, "distributions": frozen.distributions}
                mean = float(trial.per_image[seen].mean())
                self._views[view].add_trial(optuna.trial.create_trial(**parts, value=mean))


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


def _open_study(storage: Path, identity: Mapping[str, Any]) -> optuna.Study:
    """Open the study in this file, or create one."""
    make_directory(storage.parent)
    _set_damaged_aside(storage)
    url = sqlalchemy.URL.create("sqlite", database=str(storage.absolute()))
    # SQLAlchemy escapes the special characters of a path, but for braces, which Optuna expands
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with naming_disk_errors(storage):
        study = optuna.create_study(
            study_name=STUDY_NAME, storage=address, direction="maximize", load_if_exists=True
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
