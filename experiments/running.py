"""Running commands one after another; one that is done already is passed over."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.rungs import DIRECTORY, arguments
from src.commit import describe_commit

ROOT = Path(__file__).resolve().parents[1]
MEASURED_CODE = ("src", "conf", "experiments/*.py")


@dataclass(frozen=True, slots=True)
class Done:
    """A command that came to its end."""

    command: str
    commit: str
    seconds: float
    cpu_seconds: float | None = None  # of its processes; None: not measured


class CommandError(Exception):
    """A command ended with an error, which it has told itself."""


def current_commit() -> str:
    """The commit of the measured code; ``unknown`` outside git."""
    return describe_commit(ROOT, *MEASURED_CODE) or "unknown"


def run_steps(commands: Sequence[str], directory: Path, *, marks: str = DIRECTORY) -> list[Done]:
    """Run commands in their order, each building on those before it.

    A command leaves a mark when it is done. It is passed over where its mark was left by the same
    commands; each command itself resumes where it was interrupted.

    Args:
        commands: as a reader would type them.
        directory: where they are run, made where it is missing; results lie in outputs/ladder
            below it.
        marks: the folder below it that holds the marks.

    Raises:
        CommandError: one ended with an error; says which.
    """
    directory.mkdir(parents=True, exist_ok=True)
    finished = []
    for number, command in enumerate(commands, start=1):
        mark = directory / marks / "done" / f"{_name(commands[:number])}.json"
        if mark.is_file():
            done = Done(**json.loads(mark.read_text()))
        else:
            done = _run(command, directory)
            mark.parent.mkdir(parents=True, exist_ok=True)
            temporary = mark.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(done), indent=2) + "\n")
            temporary.replace(mark)
        finished.append(done)
    return finished


def _name(commands: Sequence[str]) -> str:
    tool = arguments(commands[-1])[1].removeprefix("src.")
    return f"{tool}_{hashlib.sha256(repr(tuple(commands)).encode()).hexdigest()[:12]}"


def _run(command: str, directory: Path) -> Done:
    print(f"$ {command}", flush=True)
    commit, start, cpu_start = current_commit(), time.monotonic(), _children_cpu_seconds()
    search_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.run(
        [sys.executable, *arguments(command)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": search_path},
        check=False,
    )
    if process.returncode:
        raise CommandError(f"exit code {process.returncode}: {command}")
    cpu_seconds = round(_children_cpu_seconds() - cpu_start, 1)
    return Done(command, commit, round(time.monotonic() - start, 1), cpu_seconds)


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
