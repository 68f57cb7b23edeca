"""The search: who proposes what from which scores, and resuming after a stop."""

from __future__ import annotations

import re

import numpy as np
import optuna
import pytest

from src.annotations.categories import stratified_folds
from src.errors import InputError
from src.tuning.settings_search import ALL, RANDOM
from tests.helpers.searches import FOLD_OF, make_search, score


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    search = make_search(tmp_path_factory.mktemp("search") / "s.db")
    search.run(30, score)
    return search


def test_the_proposers_take_turns(search):
    proposers = [trial.proposed_by for trial in search.trials]
    assert proposers[:6] == [RANDOM] * 6
    assert proposers[6:16] == [ALL, "0", ALL, "1", ALL, "2", ALL, "3", ALL, "0"]
    assert [trial.number for trial in search.trials] == list(range(30))
    best = max(search.trials, key=lambda trial: trial.per_image.mean())
    assert best.settings.score_threshold == pytest.approx(0.3, abs=0.03)


def test_optuna_can_open_the_file(search, tmp_path):
    other = make_search(tmp_path / "s.db")
    other.run(8, score)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 's.db'}")
    assert len(study.trials) == 8
    assert [trial.value for trial in study.trials] == [
        trial.per_image.mean() for trial in search.trials[:8]
    ]


def test_a_stopped_search_goes_on_as_one_that_ran_through(search, tmp_path):
    path = tmp_path / "s.db"
    make_search(path).run(9, score)
    calls = []

    def stop(settings):
        calls.append(settings)
        if len(calls) == 5:
            raise KeyboardInterrupt("fifth trial")  # as a kill: in the middle of a trial
        return score(settings)

    second = make_search(path)
    assert len(second.trials) == 9
    with pytest.raises(KeyboardInterrupt, match="fifth trial"):
        second.run(30, stop)
    third = make_search(path)
    assert len(third.trials) == 13
    third.run(30, score)
    assert [trial.settings for trial in third.trials] == [trial.settings for trial in search.trials]
    third.run(30, lambda settings: 1 / 0)  # nothing is left to do


def test_a_folds_images_have_no_say_in_its_trials(search, tmp_path):
    """What fold 1 may choose from stays the same whatever its own images score."""

    def other(settings):
        scores = score(settings)
        scores[FOLD_OF == 1] = 100 * score(settings, wanted=0.9)[FOLD_OF == 1]
        return scores

    changed = make_search(tmp_path / "s.db")
    changed.run(30, other)

    def settings_of(found, fold):
        return [trial.settings for trial in found.choices_of(fold)]

    assert settings_of(changed, 1) == settings_of(search, 1)
    assert len(settings_of(search, 1)) == 6 + 3
    assert settings_of(changed, 0) != settings_of(search, 0)  # they see fold 1's images
    assert all(trial.proposed_by in (RANDOM, "1") for trial in search.choices_of(1))


def test_another_seed_other_trials(search, tmp_path):
    other = make_search(tmp_path / "s.db", seed=4)
    other.run(6, score)
    assert [t.settings for t in other.trials] != [t.settings for t in search.trials[:6]]


def test_other_files_or_values_are_refused(tmp_path):
    make_search(tmp_path / "s.db").run(1, score)
    message = (
        f"{tmp_path}/s.db: holds a search with other values or files, and resumes with the same "
        "ones only; give another name= or output_dir=, or delete it. Different: files.a: 1 there, "
        "2 here"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        make_search(tmp_path / "s.db", identity={"files": {"a": 2}})


def test_folds_share_each_class():
    random = np.random.default_rng(0)
    sets = [
        set(np.flatnonzero(random.random(4) < (0.6, 0.4, 0.2, 0.1)).tolist()) for _ in range(80)
    ]
    folds = stratified_folds(sets, folds=4, seed=1)
    assert np.bincount(folds).tolist() == pytest.approx([20] * 4, abs=2)
    for category in range(4):
        carries = np.array([category in present for present in sets])
        counts = np.bincount(folds[carries], minlength=4)
        assert counts.max() - counts.min() <= 2
    assert np.array_equal(folds, stratified_folds(sets, folds=4, seed=1))
    assert not np.array_equal(folds, stratified_folds(sets, folds=4, seed=2))
    assert set(stratified_folds([set(), {1}, set(), {1}], folds=2, seed=0)) == {0, 1}
