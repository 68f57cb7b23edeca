"""A training on two processes that is killed or requeued ends with the weights of one that is not.

The processes are Lightning's own, tasks of submitit's local launcher, or tasks of SLURM's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.runs import overrides, state_differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TWO = ("trainer.devices=2", "trainer.strategy=ddp", "datamodule.batch_size=1")
STEPS = 12  # six an epoch
HELPERS = "tests.helpers.interruptions"


def command(images: Path, output: Path, *options: str) -> list[str]:
    """A run with two processes in its own folder."""
    own = [*overrides(images, output), f"hydra.run.dir={output}", *TWO]
    return [sys.executable, "-m", "src.train", *own, *options]


def start(words: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_that_name(text: Path) -> list[str]:
    """Command lines of this machine's processes that hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(text) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def check_nobody_is_left(text: Path) -> None:
    deadline = time.monotonic() + 15
    while (left := processes_that_name(text)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nobody killed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(images, output), cwd=ROOT, check=True, capture_output=True)
    return output


@pytest.mark.parametrize(
    ("killed", "code", "error"),
    [
        ("KillOneOfMany +callbacks.kill.rank=1", 2, r"error: rank 1 .* was ended by SIGKILL: .*"),
        ("KillOneOfMany +callbacks.kill.rank=0", -signal.SIGKILL, None),
        ("KillAll", -signal.SIGKILL, None),
    ],
    ids=["rank 1", "rank 0", "all"],
)
def test_killed_ranks(
    killed: str, code: int, error: str | None, whole: Path, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = command(
        images,
        output,
        *f"+callbacks.kill._target_={HELPERS}.{killed}".split(),
        f"+callbacks.kill.step={STEPS // 2 + 3}",
        f"+callbacks.kill.marker={tmp_path / 'killed'}",
    )
    first = start(words)
    _, stderr = first.communicate(timeout=200)
    ended = time.time()
    assert first.returncode == code, stderr
    assert ended - (tmp_path / "killed").stat().st_mtime < 30
    check_nobody_is_left(output)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (error is not None)
    assert error is None or re.fullmatch(error, errors[0])
    assert "Traceback" not in stderr
    second = start(words)
    stdout, stderr = second.communicate(timeout=200)
    assert second.returncode == 0, stderr
    assert "step_00000008.ckpt, step 8" in stdout
    assert state_differences(output, whole) == []


def test_of_three_ranks_the_first_alone_says_which_one_was_killed(
    images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = command(
        images,
        output,
        f"+callbacks.kill._target_={HELPERS}.KillOneOfMany",
        *("+callbacks.kill.rank=2", "+callbacks.kill.step=2"),
        f"+callbacks.kill.marker={tmp_path / 'killed'}",
    )
    run = start([word for word in words if word not in TWO[:1]] + ["trainer.devices=3"])
    _, stderr = run.communicate(timeout=200)
    assert run.returncode == 2, stderr
    assert re.findall(r"^error: rank \d", stderr, re.MULTILINE) == ["error: rank 2"]
    check_nobody_is_left(output)


def test_a_rank_does_not_outlive_a_start_that_was_killed(images: Path, tmp_path: Path) -> None:
    """While it still imports what it needs, nothing of the run can tell it."""
    output = tmp_path / "run"
    first = start(command(images, output))
    deadline = time.monotonic() + 100
    while len(processes_that_name(output)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.communicate(timeout=100)
    check_nobody_is_left(output)


def test_tasks_of_submitit_are_the_ranks(whole: Path, images: Path, tmp_path: Path) -> None:
    """Training, a sweep of predictions by several processes each, and a sweep of thresholds."""
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    two = [*launcher, "hydra.launcher.tasks_per_node=2"]

    def multirun(program: str, folder: str, *options: str) -> str:
        words = [
            sys.executable,
            "-m",
            f"src.{program}",
            "-m",
            f"hydra.sweep.dir={tmp_path}/{folder}",
        ]
        done = subprocess.run(
            [*words, *options], cwd=ROOT, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = [one for one in overrides(images, tmp_path) if not one.startswith("paths.output_dir")]
    shown = multirun("train", "trained", *small, *TWO, *two)
    assert f"wrote {tmp_path}/trained/results.csv" in shown
    (run,) = {path.parent for path in (tmp_path / "trained").glob("*/result.json")}
    assert state_differences(run, whole) == []

    predict = [f"checkpoint={run}", f"paths.data_dir={images}", *TWO[:2], *two]
    predict += ["trainer.accelerator=cpu", "datamodule.num_workers=0", "num_torch_threads=1"]
    predict += ["datamodule.num_validation_images=null", "predict_split=validation"]
    shown = multirun("predict", "predicted", *predict, "tta=none,flip")
    stores = sorted(path.parent for path in (tmp_path / "predicted").rglob("rank00001_done.json"))
    assert len(stores) == 2
    assert shown.count("wrote") == 1

    thresholds = [f"predictions={stores[0]}", f"annotations={images}/train.csv"]
    multirun("postprocess", "tuned", *thresholds, *launcher, "postprocess.score_threshold=0.1,0.2")
    assert len((tmp_path / "tuned" / "results.csv").read_text().splitlines()) == 3


def test_two_tasks_of_slurm_are_requeued(whole: Path, images: Path, tmp_path: Path) -> None:
    """A stand-in for ``scontrol`` ends the job as SLURM does: it sends SIGTERM to each task."""
    output, requests = tmp_path / "run", tmp_path / "requests"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> "{requests}"\nxargs kill -TERM < "{tmp_path}/tasks"\n'
    )
    program.chmod(0o755)
    job = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"},
        **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"},
    }
    words = command(
        images,
        output,
        f"+callbacks.signal._target_={HELPERS}.SignalAt",
        "+callbacks.signal.moment='batch 2'",
        "callbacks.run_checkpoint.every_n_train_steps=500",
    )

    def run() -> list[tuple[int, str, str]]:
        tasks = [
            start(words, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in (0, 1)
        ]
        (tmp_path / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
        ended = [task.communicate(timeout=200) for task in tasks]
        return [(task.returncode, *said) for task, said in zip(tasks, ended, strict=True)]

    first = run()
    assert "Traceback" not in "".join(stderr for *_, stderr in first)
    assert [code for code, *_ in first] == [143, 143], first
    assert requests.read_text() == "requeue 4711\n"
    assert (output / "hpc_ckpt_1.ckpt").exists()
    second = run()
    assert [code for code, *_ in second] == [0, 0], second
    assert "hpc_ckpt_1.ckpt, step 3" in second[0][1]
    assert requests.read_text() == "requeue 4711\n"
    assert state_differences(output, whole) == []
    assert not list(output.glob("hpc_ckpt_*"))
