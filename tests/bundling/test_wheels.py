"""Wheels of a bundle: found by name and hash, downloaded once, built where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.bundling.requirements import Pin, Target
from src.bundling.wheels import collect_wheels, find_files, requirement_lines
from src.errors import InputError
from src.io import file_sha256
from tests.helpers.wheels import pin_of, write_source, write_wheel

TARGET = Target("3.12", "manylinux_2_28_x86_64")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    for name, value in (("CONFIG_FILE", "/dev/null"), ("NO_INDEX", "1"), ("FIND_LINKS", folder)):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    return folder


def collect(folder: Path, *pins: Pin) -> dict[str, Path]:
    said: list[tuple[int, str]] = []
    wheels = collect_wheels(
        pins,
        TARGET,
        tools=(),
        cache=folder / "cache",
        directory=folder / "wheels",
        track=lambda done, what: said.append((done, what)),
    )
    (folder / "said").write_text(repr(said))
    return wheels


def test_the_best_wheel_with_a_pinned_hash_is_found(tmp_path: Path) -> None:
    plain = write_wheel(tmp_path, "some_name")
    compiled = write_wheel(tmp_path, "some_name", tag="cp312-cp312-manylinux2014_x86_64")
    other = write_wheel(tmp_path, "some_name", tag="cp312-cp312-manylinux_2_31_x86_64", code="x=1")
    source = write_source(tmp_path, "some_name", tag="py3-none-any")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bad.whl").touch()
    pin = pin_of(plain, compiled, other, source)
    assert find_files(tmp_path, [pin], TARGET) == {"some-name": compiled}
    compiled.write_bytes(compiled.read_bytes() + b"0")
    assert find_files(tmp_path, [pin], TARGET) == {"some-name": plain}
    plain.unlink()
    assert find_files(tmp_path, [pin], TARGET) == {"some-name": source}
    assert find_files(tmp_path / "no", [pin], TARGET) == {}


def test_files_are_downloaded_once_and_built(tmp_path: Path, index: Path) -> None:
    pins = [
        pin_of(write_wheel(index, "plain")),
        pin_of(write_source(index, "src", tag="py3-none-any")),
    ]
    wheels = collect(tmp_path, *pins)
    assert (tmp_path / "said").read_text() == (
        "[(0, 'downloading plain, src'), (2, 'building src')]"
    )
    names = ["plain-1.0-py3-none-any.whl", "src-1.0-py3-none-any.whl"]
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == names
    kept = ["plain-1.0-py3-none-any.whl", "src-1.0.tar.gz"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == kept
    assert requirement_lines(wheels) == "".join(
        f"{name}==1.0 --hash=sha256:{file_sha256(wheels[f'{name}==1.0'])}\n"
        for name in ("plain", "src")
    )
    for path in index.iterdir():
        path.unlink()
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "cache").rename(again / "cache")
    collect(again, *pins)  # the index is empty now
    for name in names:
        found, wanted = (folder / "wheels" / name for folder in (again, tmp_path))
        assert found.read_bytes() == wanted.read_bytes()


def test_one_with_another_hash_is_not_taken(tmp_path: Path, index: Path) -> None:
    pin = pin_of(write_wheel(index, "plain"))
    write_wheel(index, "plain", code="harm = True")
    with pytest.raises(InputError, match=r"^plain==1.0: cannot be got from the package index: "):
        collect(tmp_path, pin)
    assert list((tmp_path / "cache").iterdir()) == []


def test_code_that_is_compiled_for_this_machine_is_refused(tmp_path: Path, index: Path) -> None:
    pin = pin_of(write_source(index, "src", tag="cp312-cp312-linux_x86_64"))
    message = (
        r"^wheels must hold a wheel of src-1.0.tar.gz for Python 3.12 on manylinux_2_28_x86_64, "
        r"got source code that is compiled \(.*\); build it on such a machine, or give another "
    )
    with pytest.raises(InputError, match=message):
        collect(tmp_path, pin)
