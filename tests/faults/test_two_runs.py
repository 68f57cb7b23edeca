"""Two runs in one folder: the second says who is at work, and ends; nothing of the first moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.cli import locks
from src.cli.locks import LOCK_NAME, working_in, writing
from src.errors import InputError
from src.processes import process_identity

HOLD = (
    "import sys, time; from src.cli.locks import working_in\n"
    "with working_in(sys.argv[1], key='output'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def hold(folder: Path, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_names_the_first(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        message = (
            rf"output={tmp_path}: another run is at work in it \(.*, process {first.pid} on "
            rf"{process_identity()['host']}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\); "
            "wait for it to end, or give another output$"
        )
        with pytest.raises(InputError, match=message), working_in(tmp_path, key="output"):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with working_in(tmp_path, key="output"):  # the lock of a killed run is free at once
            assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_ranks_of_one_run_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(tmp_path, RANK="0", LOCAL_RANK="0") as first:
        for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
            monkeypatch.setenv(name, "1")
            with working_in(tmp_path, key="output"):
                pass
            monkeypatch.delenv(name)
        message = rf"another run is at work in it \(.*, process {first.pid} on "
        with pytest.raises(InputError, match=message), working_in(tmp_path, key="output"):
            pass
        first.kill()


def test_a_folder_made_for_nothing_goes(tmp_path: Path) -> None:
    with working_in(tmp_path / "a" / "b", key="output"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == []
    with working_in(tmp_path / "a" / "b", key="output"):
        (tmp_path / "a" / "written").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["written"]


def test_a_job_may_ask_twice(tmp_path: Path) -> None:
    with working_in(tmp_path, key="a"), working_in(tmp_path, key="b"), writing(tmp_path, key="c"):
        assert (tmp_path / LOCK_NAME).exists()
    assert not (tmp_path / LOCK_NAME).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"pid": "x", "host": 7}'])
def test_a_damaged_lock_holds_nobody_up(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    os.utime(tmp_path / LOCK_NAME, (0, 0))
    with working_in(tmp_path, key="output"):
        pass


def test_another_machine_is_believed_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    """As where a cluster's file system does not pass locks on from machine to machine."""
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"host": "node7", "pid": 1, "start": 1, "boot": "b", "since": "x"}))
    with (
        pytest.raises(InputError, match=r"process 1 on node7, since x.*lock expires 60 s after"),
        working_in(tmp_path, key="output"),
    ):
        pass
    now = time.time()
    os.utime(path, (now, now - locks.EXPIRES_S - 5))
    with working_in(tmp_path, key="output"):
        pass


def test_a_restarted_machine_frees_its_locks(tmp_path: Path) -> None:
    owner = {**process_identity(), "boot": "the start before", "since": "x"}
    (tmp_path / LOCK_NAME).write_text(json.dumps(owner))
    with working_in(tmp_path, key="output"):
        pass


def test_a_file_of_a_long_name_is_locked(tmp_path: Path) -> None:
    path = tmp_path / ("ж" * 125 + ".json")
    with writing(path, key="output"):
        assert len([path.name for path in tmp_path.iterdir()]) == 1
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_command_ends_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with hold(tmp_path / "o") as first:
        result = subprocess.run(
            [sys.executable, "-m", "src.synthesize", f"output={tmp_path}/o", "num_train_images=1"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        first.kill()
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: output={tmp_path}/o: another run is at work in it (")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "o").iterdir()] == [LOCK_NAME]
