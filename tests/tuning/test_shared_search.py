"""A search over one database: each trial is done once, by whoever is there, and none stays open."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from src.cli.arguments import SECRET_VARIABLE, hide_secrets
from src.errors import InputError
from src.tuning import shared_trials
from src.tuning.settings_search import SettingsSearch
from src.tuning.shared_trials import REPEATS_KEY, check_database, read_address
from tests.helpers.postgresql import PASSWORD, postgresql, why_not
from tests.helpers.searches import make_search, score


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/trials.db"


def study_of(address: str, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=address)


def states(address: str, name: str) -> Counter[str]:
    return Counter(trial.state.name for trial in study_of(address, name).trials)


def age_signs_of_life(address: str) -> None:
    """Let the last sign of life of every trial be long past."""
    with sqlite3.connect(address.removeprefix("sqlite:///")) as connection:
        connection.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")


def killed_in_a_trial(search: SettingsSearch, num_trials: int) -> int:
    """Claim a trial as a process does that is killed then."""
    number = search._storage.claim(num_trials)
    assert number is not None
    search._storage._is_done.set()  # type: ignore[attr-defined]
    return number


def work_together(address: str, name: str, *, processes: int, num_trials: int) -> list[str]:
    """Search in several threads, each with its own connections; return who did which trial."""
    done: list[str] = []
    searches = []

    def work(who: str) -> None:
        def slowly(settings):
            done.append(who)
            time.sleep(0.01)
            return score(settings)

        search = make_search(address, name=name)
        search.run(num_trials, slowly)
        searches.append(search)

    threads = [threading.Thread(target=work, args=(str(who),)) for who in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(searches) == processes
    first = [trial.settings for trial in searches[0].trials]
    for search in searches:
        assert [trial.number for trial in search.trials] == list(range(num_trials))
        assert [trial.settings for trial in search.trials] == first
    return done


def test_one_process_finds_what_it_finds_with_a_file(database: str, tmp_path: Path) -> None:
    file, shared = make_search(tmp_path / "s.db"), make_search(database, name="alone")
    file.run(12, score)
    shared.run(5, score)
    resumed = make_search(database, name="alone")
    assert len(resumed.trials) == 5
    shown = []
    resumed.run(12, score, shown.append)
    assert [trial.number for trial in shown] == list(range(5, 12))
    assert [trial.settings for trial in resumed.trials] == [one.settings for one in file.trials]
    study = study_of(database, "alone")
    assert [trial.value for trial in study.trials] == [one.per_image.mean() for one in file.trials]
    assert (
        study.trials[3].params == study_of(f"sqlite:///{tmp_path}/s.db", "search").trials[3].params
    )


def test_processes_share_the_trials(database: str) -> None:
    done = work_together(database, "together", processes=3, num_trials=15)
    assert len(done) == 15
    assert len(set(done)) == 3
    assert states(database, "together")["COMPLETE"] == 15
    # two that claim the last one at once: the other's is one too many, and given up
    assert states(database, "together").keys() <= {"COMPLETE", "FAIL"}


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_processes_share_the_trials_in_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgresql() as address:
        with pytest.raises(InputError, match=r"storage=postgresql://tuner@127\.0\.0\.1.*password"):
            check_database(address)
        wrong = address.replace("@", ":wrong-one@")
        with pytest.raises(InputError, match=r"tuner:\*\*\*@.*authentication failed") as error:
            check_database(wrong)
        assert "wrong-one" not in str(error.value)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        # the tables are made by the first of them, all of which start at once
        done = work_together(address, "together", processes=4, num_trials=24)
        assert len(done) == 24
        assert states(address, "together")["COMPLETE"] == 24
        # a process that was killed: its trial is done again, by one that waits for it
        killed_in_a_trial(make_search(address, name="killed"), 8)
        monkeypatch.setattr(shared_trials, "GRACE_S", 1)
        work_together(address, "killed", processes=2, num_trials=8)
        found = study_of(address, "killed").trials
        complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
        assert found[0].state == TrialState.FAIL
        assert [trial.user_attrs.get(REPEATS_KEY) for trial in complete].count(0) == 1
        assert len(complete) == 8
        assert states(address, "killed").keys() == {"COMPLETE", "FAIL"}
    message = (
        r"^storage=postgresql://tuner@.*: connection failed: .* refused.*same command resumes$"
    )
    with pytest.raises(InputError, match=message):
        check_database(address)


@pytest.fixture
def half_done(database: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    name = request.node.name
    search = make_search(database, name=name)
    search.run(3, score)
    assert killed_in_a_trial(search, 6) == 3
    yield database, name
    assert [trial.number for trial in make_search(database, name=name).trials] == list(range(6))
    assert states(database, name)["RUNNING"] == 0


def test_the_trial_of_a_killed_process_is_done_again(half_done: tuple[str, str]) -> None:
    address, name = half_done
    search = make_search(address, name=name)
    assert search._storage.claim(4) is None, "it may be at work still"
    age_signs_of_life(address)
    search.run(6, score)
    trials = study_of(address, name).trials
    assert trials[3].state == TrialState.FAIL
    assert [trial.user_attrs.get(REPEATS_KEY) for trial in trials] == [None] * 4 + [3] + [None] * 2
    assert states(address, name) == {"COMPLETE": 6, "FAIL": 1}


def test_a_process_killed_before_its_first_sign_of_life(
    half_done: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, name = half_done
    with sqlite3.connect(address.removeprefix("sqlite:///")) as connection:
        connection.execute("delete from trial_heartbeats")
    search = make_search(address, name=name)
    assert search._storage.claim(4) is None
    monkeypatch.setattr(shared_trials, "GRACE_S", -1)
    assert search._storage.claim(4) is None  # it has one sign now
    age_signs_of_life(address)
    assert search._storage.claim(4) == 3
    search._storage.abandon()
    search.run(6, score)


def test_a_trial_that_another_process_took_over(
    half_done: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """As that of a machine that slept."""
    address, name = half_done
    sleeper, other = (make_search(address, name=name) for _ in range(2))
    age_signs_of_life(address)
    assert sleeper._storage.claim(6) == 3
    age_signs_of_life(address)
    other.run(4, score)
    sleeper._storage.finish(3, sleeper._try(3, lambda settings: 0 * score(settings)))
    assert "trial 3 took so long that another process does it again" in caplog.text
    sleeper.run(6, score)
    assert sleeper.trials[3].per_image.mean() > 0


def test_an_interrupted_trial_is_free_at_once(database: str) -> None:
    def stop(settings):
        raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        make_search(database, name="interrupted").run(2, stop)
    search = make_search(database, name="interrupted")
    search.run(2, score)
    assert states(database, "interrupted") == {"COMPLETE": 2, "FAIL": 1}


def test_of_two_repeats_one_counts(database: str) -> None:
    search = make_search(database, name="twice")
    search.run(2, score)
    study = study_of(database, "twice")
    study.tell(study.ask(), state=TrialState.FAIL)
    for _ in range(2):  # by two processes that see the failed one at the same time
        again = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={REPEATS_KEY: 2})
        study.add_trial(again)
    search.run(4, score)
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3]
    assert states(database, "twice") == {"COMPLETE": 4, "FAIL": 2}


def test_a_trial_beyond_the_limit_is_left_to_a_longer_search(database: str) -> None:
    search = make_search(database, name="limit")
    search.run(2, score)
    offers, storage = iter([True, False]), search._storage
    original, storage._offer = storage._offer, lambda _: next(offers)  # type: ignore[attr-defined]
    assert storage.claim(2) is None  # it was too late by a moment
    assert states(database, "limit") == {"COMPLETE": 2, "FAIL": 1}
    storage._offer = original  # type: ignore[attr-defined]
    search.run(4, score)
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3]


def test_another_search_of_that_name_is_refused(database: str) -> None:
    make_search(database, name="same").run(1, score)
    message = (
        r"^sqlite:.*\(study same\): holds a search with other .*Different: files.a: 1 there, 2"
    )
    with pytest.raises(InputError, match=message):
        make_search(database, name="same", identity={"files": {"a": 2}})
    make_search(database, name="other", identity={"files": {"a": 2}})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (7, "storage must be an address such as postgresql://USER@HOST/DATABASE, got 7"),
        ("trials.db", "storage must be an address .*, got 'trials.db'"),
        ("nosuch://host/d", "storage must be .*, got nosuch://host/d: no such kind of database"),
        ("postgresql+pg8000://me:s3cret@h/d", r"=.*me:\*\*\*@h/d needs the package pg8000, which"),
        ("postgresql://me:s3cret@s3cret@h/d", "an @ in its password is written %40;"),
        ("postgresql://me:s3cret@h:port/d", "storage must be an address .*, got ...@'h:port/d'"),
    ],
)
def test_an_address_that_is_none(address: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_database(address)
    assert "s3c" not in str(error.value)
    assert "\n" not in str(error.value)


def test_options_of_an_address_are_not_shown() -> None:
    url = read_address("postgresql://me@h/d?password=s3cret&sslmode=require")
    assert shared_trials.describe_address(url) == "postgresql://me@h/d"


def test_an_address_on_the_command_line_goes_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "")
    address = "postgresql://me:s3cret,@h/d?sslmode=require&x={1}"
    for typed in (address, f"'{address}'"):
        arguments = hide_secrets(["-m", f"storage={typed}", "name=a"])
        assert arguments == ["-m", f"storage=${{oc.env:{SECRET_VARIABLE}}}", "name=a"]
        assert os.environ[SECRET_VARIABLE] == address
    untouched = ["storage=null", "storage=${oc.env:MINE}", "source=https://a@b/c"]
    assert hide_secrets(untouched) == untouched
