"""``submit.py`` and the notebook: damage is found, an environment is made without a network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.bundling.submit import Bundle, BundleError, main, quote
from tests.helpers.bundles import code_cells, write_bundle
from tests.helpers.no_network import run_without_network


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("#")


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"some", b"same"))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("weights/0.safetensors", append, "must have 12 bytes and the SHA-256 .*, got 13; upload"),
        ("weights/0.safetensors", change, "must have 12 bytes and the SHA-256 .*, got others;"),
        ("code/src/__init__.py", Path.unlink, "missing; upload the bundle again"),
        ("code/src/added.py", Path.touch, "must be a file of manifest.json, got another"),
        ("wheels/added.whl", Path.touch, "must be a file of manifest.json, got another"),
        ("manifest.json", append, r"no bundle, or damaged \(Extra data"),
    ],
)
def test_damage_is_found(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    bundle = write_bundle(tmp_path)
    Bundle(tmp_path / "images", directory=bundle).verify()
    damage(bundle / name)
    with pytest.raises(BundleError, match=message):
        Bundle(tmp_path / "images", directory=bundle).verify()


def test_another_interpreter_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, python="3.9")
    own = f"{sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}"
    message = rf"must be Python 3.9 on x86_64, which the wheels are for, got {own}; python -m src"
    with pytest.raises(BundleError, match=message):
        Bundle(tmp_path / "images", work_dir=tmp_path / "work", directory=bundle).install()


INSTALL = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, "bundle")
import submit
bundle = submit.Bundle("images", work_dir="made")
bundle.verify()
bundle.install()
bundle.install()
bundle._run("it", bundle.python, "-c", "import only_here; print(only_here.ANSWER)")
"""


@pytest.mark.slow
def test_the_environment_is_made_without_a_network(tmp_path: Path) -> None:
    write_bundle(tmp_path, machine=platform.machine())
    env = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONSTRAINT": "/no/file"}
    ended = run_without_network([sys.executable, "-c", INSTALL], cwd=tmp_path, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[1:] == [
        "installed 1 packages without a network",
        f"installed already: {tmp_path}/made/environment",
        "42",
    ]
    assert list((tmp_path / "bundle").rglob("__pycache__")) == []


@pytest.mark.parametrize("text", ["a b", "it's", 'say "x"', "a,b=[c]{d}", "\\", "${x}", "\\'", "1"])
def test_a_path_is_the_same_for_hydra(text: str) -> None:
    value = OverridesParser.create().parse_override(f"key={quote(text)}").value()
    found = getattr(value, "text", value)
    assert found.replace("\\${", "${") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images"], r"^arguments must be KEY=VALUE, got images \(--help has the keys\)$"),
        (["output=a.csv"], r"^images must be given: images=DIR"),
        (["images=no"], r"no bundle, or damaged"),
        (["images=.", "partial=yes"], r"^partial must be true or false, got yes$"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        main(arguments)


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    command = [sys.executable, "-B", str(bundle / "submit.py"), "images=no"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ended.returncode, ended.stderr) == (2, "error: images must be a folder, got no\n")
    command[-1] = "--help"
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "python BUNDLE/submit.py images=DIR" in ended.stdout


def test_only_the_first_and_the_last_of_many_lines_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle(tmp_path / "images", directory=write_bundle(tmp_path), work_dir=tmp_path)
    program = "import sys\nfor n in range(9): print(n)\nsys.exit(3)"
    with pytest.raises(BundleError, match=r"^it ended with exit code 3; the lines above say why$"):
        bundle._run("it", sys.executable, "-c", program, max_lines=2)
    assert capsys.readouterr().out == "0\n1\n...\n8\n"


def test_the_notebook_takes_its_own_bundle_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    cells = code_cells(bundle)
    steps = ["install", "predict", "postprocess", "validate"]
    assert cells[2:] == [f"bundle.{step}()" for step in steps]
    program = tmp_path / "cells.py"
    program.write_text("\n".join(cells[:2]))
    command = [sys.executable, str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "verified 5 files, 0.0 MiB\n"
    append(bundle / "submit.py")
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.stderr == "bundle/submit.py is not the file that was made with this notebook\n"
