"""Fixtures of all folders. What a folder imports for itself (torch, mmdet) is imported on use."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.register_assert_rewrite("tests.helpers")

MOMENTS = ("batch 1", "saving 4", "validation 0", "batch 6", "batch 9")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread, so that bits repeat; a module without torch does not import it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def quiet_root_logger() -> None:
    """Set the level that a fresh process has; a program that an earlier test ran sets another."""
    logging.getLogger().setLevel(logging.WARNING)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line why the tests of the lab's page did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {one.longrepr[2] for one in skipped if one.nodeid.startswith("tests/browser/")}
    for reason in sorted(reasons):
        terminalreporter.write_line(f"tests/browser: {reason}")


class Ended(NamedTuple):
    """A program's end."""

    code: Any  # None where it returned
    out: str
    err: str


@pytest.fixture
def call_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Call a program's ``main`` in an empty folder, with arguments as on the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def call(program: Callable[[], Any], *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        capsys.readouterr()
        code = None
        try:
            program()
        except SystemExit as stop:
            code = stop.code
        if "logger=wandb" in arguments:
            import wandb

            wandb.teardown()  # waits for the process that writes the files
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def run(call_program: Callable[..., Ended]) -> Callable[..., str]:
    """Run a program in an empty folder; gives its stdout, and for a user's mistake its line."""

    def call(
        program: Callable[[], Any], *arguments: object, errors: list[str] | None = None
    ) -> str:
        ended = call_program(program, *arguments)
        assert ended.code in (None, 2), ended.err
        if errors is not None:
            errors.append(ended.err)
        return ended.out if ended.code is None else ended.err.strip()

    return call


@pytest.fixture
def refused(call_program: Callable[..., Ended]) -> Callable[..., str]:
    """Run a program that a user's mistake ends; gives its line on stderr."""

    def call(program: Callable[[], Any], *arguments: object) -> str:
        ended = call_program(program, *arguments)
        assert ended.code == 2, ended.out
        return ended.err.strip()

    return call


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of sixteen generated images, three of which validate."""
    from tests.helpers.runs import generate_data

    directory = tmp_path_factory.mktemp("images")
    generate_data(directory)
    return directory


@pytest.fixture(scope="session")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed; ``../moments`` has its folder as it was at certain moments."""
    from tests.helpers.runs import run

    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(
        images,
        output,
        "+callbacks.snapshots._target_=tests.helpers.interruptions.Snapshots",
        f"+callbacks.snapshots.directory={output}",
        f"+callbacks.snapshots.output={output.parent / 'moments'}",
        f"+callbacks.snapshots.moments=[{','.join(MOMENTS)}]",
    )
    return output
