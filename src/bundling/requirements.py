"""The pinned requirements: the distributions that a target needs, and the wheels that fit it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

from src.errors import InputError

PYTHONS = ("3.11", "3.12", "3.13")
BUILD_TOOLS = ("setuptools", "packaging")  # build what has no wheel, as it is pinned
# The oldest that the pinned wheels need. A wheel for it runs on every later glibc.
GLIBC = "2_28"
OLDEST_GLIBC = 5
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_PLATFORM = re.compile(r"manylinux_2_(\d{1,2})_(x86_64|aarch64)")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;\\]+)(?: ; ([^\\]*?))?(?: \\)?$")
_HASH = re.compile(r" +--hash=sha256:([0-9a-f]{64})")
_NEEDED_BY = re.compile(r" +# +(?:via +)?(\S.*)")
_ROOT = re.compile(r"instance-cascade \(pyproject\.toml(:(?!dev\)|fuzz\))\w+)?\)")


@dataclass(frozen=True)
class Target:
    """The interpreter that the bundle is installed for.

    Attributes:
        python: Such as ``3.11``.
        platform: Such as ``manylinux_2_28_x86_64``: glibc 2.28 or later.

    Raises:
        InputError: Another version, or another platform.
    """

    python: str
    platform: str

    def __post_init__(self) -> None:
        if self.python not in PYTHONS:
            legal = f"{', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}"
            raise InputError(f"python_version must be {legal}, got {self.python:.60}")
        if not _PLATFORM.fullmatch(self.platform):
            raise InputError(
                "platform must be manylinux_2_N_x86_64 or manylinux_2_N_aarch64, for glibc 2.N and "
                f"later, got {self.platform:.60}"
            )

    @property
    def machine(self) -> str:
        """The processor's architecture."""
        return "aarch64" if self.platform.endswith("aarch64") else "x86_64"

    @cached_property
    def platforms(self) -> tuple[str, ...]:
        """The platforms of wheels that fit, the best first."""
        found = _PLATFORM.fullmatch(self.platform)
        assert found is not None
        names = []
        for minor in range(int(found[1]), OLDEST_GLIBC - 1, -1):
            names.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in OLD_NAMES:
                names.append(f"{OLD_NAMES[minor]}_{self.machine}")
        return tuple(names)

    @cached_property
    def tags(self) -> Mapping[Tag, int]:
        """The tags of wheels that fit, with their rank; 0 is the best."""
        version = tuple(map(int, self.python.split(".")))
        found = [
            *cpython_tags(version, platforms=self.platforms),
            *compatible_tags(version, f"cp{self.python.replace('.', '')}", self.platforms),
        ]
        return {tag: rank for rank, tag in reversed(list(enumerate(found)))}

    @property
    def marker_values(self) -> dict[str, str]:
        """The values of environment markers."""
        return {
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.machine,
            "python_version": self.python,
            "python_full_version": f"{self.python}.{99}",  # of whichever patch release
        }


@dataclass
class Pin:
    """A distribution of the requirements.

    Attributes:
        name: As indexes compare it.
        version: The only one.
        sha256: Of its wheels and its source code.
        needed_by: Names of distributions, or of a group of ``pyproject.toml``.
    """

    name: str
    version: str
    sha256: set[str] = field(default_factory=set)
    needed_by: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the requirement without hashes."""
        return f"{self.name}=={self.version}"


def read_pins(path: Path, target: Target) -> dict[str, Pin]:
    """Read a file of ``uv pip compile`` for a target; the pins by name."""
    pins: dict[str, Pin] = {}
    pin: Pin | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if begin := _PIN.fullmatch(line):
            name, version, marker = begin.groups()
            pin = Pin(canonicalize_name(name), version)
            if marker is None or Marker(marker).evaluate(target.marker_values):
                pins[pin.name] = pin
        elif pin is not None and (found := _HASH.match(line)):
            pin.sha256.add(found[1])
        elif pin is not None and (found := _NEEDED_BY.fullmatch(line)):
            pin.needed_by.append(found[1])
    return pins


def needed_pins(pins: Mapping[str, Pin], *, leave_out: Collection[str] = ()) -> list[Pin]:
    """Return the pins that ``src`` needs, without development tools.

    Args:
        pins: By name.
        leave_out: Names of distributions, left out with what only they need.

    Raises:
        InputError: One of ``leave_out`` is not pinned.
    """
    left_out = {canonicalize_name(name) for name in leave_out}
    if unknown := sorted(left_out - pins.keys()):
        raise InputError(
            "leave_out must be names of packages in requirements/requirements.txt, or all, got "
            f"{unknown[0]:.60}"
        )
    needs: dict[str, list[Pin]] = {}
    for pin in pins.values():
        for user in pin.needed_by:
            needs.setdefault("" if _ROOT.fullmatch(user) else user, []).append(pin)
    found: dict[str, Pin] = {}
    todo = [""]
    while todo:
        for pin in needs.get(todo.pop(), ()):
            if pin.name not in found and pin.name not in left_out:
                found[pin.name] = pin
                todo.append(pin.name)
    return [found[name] for name in sorted(found)]


def read_all_pins(files: Sequence[Path], target: Target) -> dict[str, Pin]:
    """Read several files of requirements that agree; see ``read_pins``."""
    pins: dict[str, Pin] = {}
    for path in files:
        for name, pin in read_pins(path, target).items():
            known = pins.setdefault(name, pin)
            known.needed_by += [user for user in pin.needed_by if user not in known.needed_by]
    return pins
