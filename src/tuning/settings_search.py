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

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from src.errors import InputError
from src.postprocess.settings import PostprocessSettings
from src.tuning.search_space import SearchSpace
from src.tuning.settings_evaluator import Scores
from src.tuning.shared_trials import SharedTrials
from src.tuning.trial_storage import TrialFile, TrialStorage

RANDOM, ALL = "random", "all"
POLL_S = 0.5  # between two looks at the trials of other processes


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Settings that were tried."""

    number: int
    proposed_by: str  # RANDOM, ALL, or the fold whose own images had no influence on it
    settings: PostprocessSettings
    per_image: Scores  # (M,)


class SettingsSearch:
    """A search that is kept in a file or a database, and resumes where it stopped.

    Proposals depend on the seed, the trial's number and the scores so far, so a search of one
    process that was stopped and resumed has the same trials as one that ran through. Of several
    processes, each proposes from the scores that it knows at that moment.

    Args:
        storage: The file of one process, or the address of a database for several; Optuna's own
            tools can open both.
        name: Of the study in a database.
        identity: Everything that the scores depend on, as plain JSON values.
        space: Values that may be tried.
        folds: (M,) the fold of each image, from 0.
        seed: Of all proposals.
        num_random_trials: How many trials are drawn at random.

    Raises:
        InputError: The file or the study holds a search with another identity, or is damaged.
    """

    def __init__(
        self,
        storage: Path | str,
        *,
        name: str = "",
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
        self._storage: TrialStorage
        if isinstance(storage, Path):
            self._storage = TrialFile(storage, identity=identity)
        else:
            self._storage = SharedTrials(
                storage, name=name, identity=identity, suggest=space.suggest
            )
        self.trials: list[Trial] = []
        self._take_finished()

    @property
    def place(self) -> str:
        """Where the trials are kept, without a password."""
        return self._storage.place

    def run(
        self,
        num_trials: int,
        score: Callable[[PostprocessSettings], Scores],
        on_trial: Callable[[Trial], None] = lambda _trial: None,
    ) -> None:
        """Run the search up to a number of trials, those of earlier runs and others included.

        ``score`` returns the score of each image, shape (M,); ``on_trial`` is called with each new
        trial.
        """
        while sum(trial.number < num_trials for trial in self.trials) < num_trials:
            number = self._storage.claim(num_trials)
            if number is None:
                time.sleep(POLL_S)  # others are at work on the last ones
            else:
                self._take_finished(on_trial)  # what others have found by now
                try:
                    trial = self._try(number, score)
                except BaseException:
                    self._storage.abandon()
                    raise
                self._storage.finish(number, trial)
            self._take_finished(on_trial)
        self.trials.sort(key=lambda trial: trial.number)

    def _try(
        self, number: int, score: Callable[[PostprocessSettings], Scores]
    ) -> optuna.trial.FrozenTrial:
        """Propose settings, and return their scores."""
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
        return optuna.trial.create_trial(
            params=asked.params,
            distributions=asked.distributions,
            value=float(per_image.mean()),
            user_attrs={"proposed_by": proposed_by, "per_image": per_image.tolist()},
        )

    def choices_of(self, fold: int) -> list[Trial]:
        """Return the trials that this fold's images had no influence on."""
        return [trial for trial in self.trials if trial.proposed_by in (RANDOM, str(fold))]

    def _proposer(self, number: int) -> str:
        turn = number - self._num_random_trials
        if turn < 0:
            return RANDOM
        return ALL if turn % 2 == 0 else str(turn // 2 % (len(self._views) - 1))

    def _take_finished(self, on_trial: Callable[[Trial], None] = lambda _trial: None) -> None:
        """Take the trials that finished since the last time."""
        known = {trial.number for trial in self.trials}
        for number, frozen in sorted(self._storage.finished().items()):
            if number in known:
                continue
            try:
                self._take(number, frozen)
            except (LookupError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.place}: trial {number} is damaged ({type(error).__name__}: {error}); "
                    f"{self._storage.cure}"
                ) from error
            on_trial(self.trials[-1])

    def _take(self, number: int, frozen: optuna.trial.FrozenTrial) -> None:
        """Add a finished trial to each view that may see it, with the mean over its images."""
        trial = Trial(
            number=number,
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
