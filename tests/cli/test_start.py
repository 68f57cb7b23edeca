"""Start of the commands: --help, typos and missing files import nothing that takes seconds."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.startup import COMMANDS, HEAVY, MISTAKES, THERE, TYPO, cpu_seconds, start
from src.cli.entry_point import find_mode
from src.cli.help import Comments, annotate, describe_groups

ROOT = Path(__file__).parents[2]
# Generous, for a machine that does other work too; benchmarks/startup.py has the figures.
MOST_CPU_S = 2.5
# Prints, at the end of a process, which of the packages were imported.
WATCH = f"""
import atexit, sys
heavy = {HEAVY!r}
found = lambda: [name for name in heavy if name in sys.modules]
atexit.register(lambda: print("imported:", *found(), file=sys.stderr))
"""


@cache
def outcome(*arguments: str) -> tuple[int, str, str, str, float]:
    """Run a command: exit code, stdout, stderr, the heavy packages imported, CPU seconds."""
    program = (
        f"{WATCH}\nimport runpy\nsys.argv = {['src', *arguments[1:]]!r}\n"
        f"runpy.run_module({arguments[0]!r}, run_name='__main__', alter_sys=True)"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / THERE).touch()
        done, seconds = cpu_seconds(lambda: start(["-c", program], Path(folder)))
    stderr, _, imported = done.stderr.rpartition("imported:")
    return done.returncode, done.stdout, stderr, imported.strip(), seconds


def some(command: str, *rest: Any) -> Any:
    """Return a parameter; other commands than these, at a second each, are slow tests."""
    marks = () if command in ("train", "predict", "search") else pytest.mark.slow
    return pytest.param(command, *rest, marks=marks)


@pytest.mark.parametrize("command", [some(command) for command in COMMANDS])
def test_help(command: str) -> None:
    code, stdout, stderr, imported, seconds = outcome(f"src.{command}", "--help")
    assert (code, imported, stderr) == (0, "", "")
    assert f"python -m src.{command}" in stdout
    assert seconds < MOST_CPU_S


@pytest.mark.parametrize("command", [some(command) for command in COMMANDS])
def test_typo(command: str) -> None:
    code, _, stderr, imported, seconds = outcome(f"src.{command}", TYPO)
    assert (code, imported) == (2, "")
    assert stderr.startswith("error: unknown key")
    assert seconds < MOST_CPU_S


@pytest.mark.parametrize(
    ("command", "arguments", "message"), [some(*mistake) for mistake in MISTAKES]
)
def test_mistakes(command: str, arguments: tuple[str, ...], message: str) -> None:
    code, _, stderr, imported, seconds = outcome(f"src.{command}", *arguments)
    assert (code, imported) == (2, ""), stderr
    assert message in stderr
    assert seconds < MOST_CPU_S


def test_a_finished_run_is_found_without_lightning_and_mmdet() -> None:
    modules = ("src.train", "src.cli.resume", "src.predict", "src.cli.carried_config")
    program = f"{WATCH}\nimport {', '.join(modules)}"
    done = start(["-c", program], Path(tempfile.gettempdir()))
    assert done.stderr == "imported: torch\n"


def test_all_commands_are_measured() -> None:
    assert sorted(COMMANDS) == sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


def test_help_of_training_shows_the_comments() -> None:
    stdout = outcome("src.train", "--help")[1]
    # of train.yaml itself, of the datamodule's file, of a value deep in the model's, beside a value
    assert "# Randomness of weights, samples and augmentation.\nseed: 777\n" in stdout
    assert "  # Seed of the order of images, their scale, flip and augmentation.\n  seed:" in stdout
    assert "# The competition's layout below paths.data_dir, and the winner's values" in stdout
    assert "module: htc_convnext_tiny, htc_heads, htc_mobilenet, htc_r50" in stdout
    assert "    num_holes_range: [8, 8]\n" in stdout


def test_comments_go_to_their_keys() -> None:
    comments = Comments()
    base = """\
# All of the file.
a: 1  # beside a
# above b,
# in two lines
b:
  # of c
  c: 'x # y'
  d: [1, 2]  # of d
# of nothing

e: 5
"""
    comments.read(base, ("group",))
    experiment = "# @package _global_\n# of it\ndefaults: []\n\n# new\ngroup: {a: 2}\n"
    comments.read(experiment, ())
    text = "group:\n  a: 2\n  b:\n    c: 'x # y'\n    d: [1, 2]\n  e: 5\n"
    assert (
        annotate(text, comments)
        == """\
# new
group:
  a: 2  # beside a
  # above b,
  # in two lines
  b:
    # of c
    c: 'x # y'
    d: [1, 2]  # of d
  e: 5
"""
    )


@pytest.mark.parametrize(
    ("name", "overrides", "is_composed"),
    [
        ("train", [], False),
        ("train", ["seed=1,2", "trainer.max_steps=3"], False),
        ("train", ["+experiment=demo", "module=htc_tiny"], False),
        ("train", ["+sweep=thresholds"], True),
        ("train", ["hydra.run.dir=outputs/one", "hydra.job.name=one", "seed=1"], False),
        ("train", ["hydra.searchpath=[file:///own]", "+own=one"], True),
        ("train", ["hydra/launcher=joblib"], True),
        ("train", ["hydra.mode=MULTIRUN"], True),
        ("train", ["+experiment=[demo]", "seed=1"], True),
        ("of_a_folder_that_config_dir_adds", [], True),
    ],
)
def test_a_mode_is_composed_where_one_can_be_set(
    name: str, overrides: list[str], is_composed: bool
) -> None:
    asked: list[list[str]] = []

    def compose(_hydra: Any, _name: Any, overrides: list[str]) -> str:
        asked.append(overrides)
        return "composed"

    found = find_mode(None, name, overrides, compose)  # type: ignore[arg-type]
    assert (found, asked) == (("composed", [overrides]) if is_composed else (None, []))


def test_no_default_sets_a_mode() -> None:
    files = [path for path in (ROOT / "conf").rglob("*.yaml") if path.parent.name != "sweep"]
    assert not [path for path in files if "MULTIRUN" in path.read_text()]


def test_groups(tmp_path: Path) -> None:
    for name in ("b/x.yaml", "b/deep/y.yaml", "hydra/z.yaml", "top.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert describe_groups([tmp_path]) == "b: x\nb/deep: y\n"
