"""The packages that a bundle needs, of the pinned requirements."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.tags import Tag

from src.bundling.requirements import Target, needed_pins, read_all_pins, read_pins
from src.errors import InputError

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements" / "requirements.txt"
TARGET = Target("3.12", "manylinux_2_28_x86_64")
TEXT = """\
app==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via instance-cascade (pyproject.toml)
below==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:{a}
    # via app
below==2.1 ; python_full_version >= '3.12' \\
    --hash=sha256:{b}
    # via
    #   -c requirements/requirements.txt
    #   app
extra==1.0 \\
    --hash=sha256:{a}
    # via instance-cascade (pyproject.toml:mmpretrain)
loop==1.0 \\
    --hash=sha256:{a}
    # via
    #   below
    #   loop
on-windows==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:{a}
    # via app
tool==1.0 \\
    --hash=sha256:{a}
    # via instance-cascade (pyproject.toml:dev)
""".format(a="a" * 64, b="b" * 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(TEXT)
    return path


def needed(file: Path, *leave_out: str, python: str = "3.12") -> list[str]:
    pins = read_pins(file, Target(python, "manylinux_2_28_x86_64"))
    return [str(pin) for pin in needed_pins(pins, leave_out=leave_out)]


def test_what_is_needed_without_tools_for_the_targets_python(file: Path) -> None:
    assert needed(file) == ["app==1.0", "below==2.1", "extra==1.0", "loop==1.0"]
    assert needed(file, python="3.11")[1] == "below==2.0"
    assert read_pins(file, TARGET)["app"].sha256 == {"a" * 64, "b" * 64}


def test_what_is_left_out_takes_what_only_it_needs_with_it(file: Path) -> None:
    assert needed(file, "Below") == ["app==1.0", "extra==1.0"]
    with pytest.raises(InputError, match=r"^leave_out must be names of packages .*, got other$"):
        needed(file, "other")


def test_the_own_requirements() -> None:
    pins = read_all_pins([PINS, PINS.with_name("mmpretrain.txt")], TARGET)
    found = {pin.name for pin in needed_pins(pins)}
    assert {"torch", "nvidia-cublas", "onedl-mmcv", "onedl-mmpretrain", "packaging"} <= found
    assert not {"pytest", "ruff", "mkdocs", "timm", "regex"} & found
    without = {pin.name for pin in needed_pins(pins, leave_out=["torch", "torchvision"])}
    assert not {name for name in without if name.startswith("nvidia") or name == "triton"}
    assert "numpy" in without


def test_wheels_that_fit_a_target() -> None:
    assert TARGET.platforms[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(TARGET.platforms)
    for tag in (
        *(("cp312", "cp312", "manylinux2014_x86_64"), ("cp39", "abi3", "manylinux_2_17_x86_64")),
        *(("py3", "none", "any"), ("py3", "none", "manylinux_2_27_x86_64")),
    ):
        assert Tag(*tag) in TARGET.tags
    for tag in (
        *(("cp313", "cp313", "manylinux2014_x86_64"), ("cp312", "cp312", "linux_x86_64")),
        *(("cp312", "cp312", "manylinux_2_31_x86_64"), ("cp312", "cp312", "manylinux1_aarch64")),
    ):
        assert Tag(*tag) not in TARGET.tags


@pytest.mark.parametrize(
    ("python", "platform", "message"),
    [
        ("3.9", "manylinux_2_28_x86_64", r"^python_version must be 3.11, 3.12 or 3.13, got 3.9$"),
        ("3.11", "win_amd64", r"^platform must be manylinux_2_N_x86_64 or .*, got win_amd64$"),
    ],
)
def test_another_target_is_refused(python: str, platform: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Target(python, platform)
