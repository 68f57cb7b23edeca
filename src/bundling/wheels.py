"""Wheels of the pinned requirements: downloaded once, checked by their hashes, built if need be."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from src.bundling.requirements import Pin, Target
from src.errors import FULL_DISK, InputError
from src.io import file_sha256, make_directory, printable, working_directory
from src.package_index import failure_reason, find_pip

BATCH = 4  # distributions of one download: the most that a killed process loses
BUILD_TIME = "315532800"  # 1980, the first that a zip knows: the same wheel each time
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir")

Track = Callable[[int, str], None]
"""Called with the number of distributions that are there, and what is done now."""


def find_files(directory: Path, pins: Iterable[Pin], target: Target) -> dict[str, Path]:
    """Find the file of each pin: the wheel that fits best, else the source code.

    A file counts if its SHA-256 is one of the pin's, so others and damaged ones are passed over.

    Returns:
        Path by the pin's name; a pin without a file is not there.
    """
    files: dict[tuple[str, Version], list[tuple[int, Path]]] = {}
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        if (parsed := _parse(path, target)) is not None:
            name, version, rank = parsed
            files.setdefault((name, version), []).append((rank, path))
    found = {}
    for pin in pins:
        for _, path in sorted(files.get((pin.name, Version(pin.version)), [])):
            if file_sha256(path) in pin.sha256:
                found[pin.name] = path
                break
    return found


def _parse(path: Path, target: Target) -> tuple[str, Version, int] | None:
    """Return name, version and rank of a file; None for one that is nothing of the target's."""
    with suppress(InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        if path.suffix == ".whl":
            name, version, _, tags = parse_wheel_filename(path.name)
            ranks = [target.tags[tag] for tag in tags if tag in target.tags]
            return (name, version, min(ranks)) if ranks else None
        if path.name.endswith((".tar.gz", ".zip")):
            name, version = parse_sdist_filename(path.name)
            return canonicalize_name(name), version, len(target.tags)
    return None


class Builder:
    """Downloads and builds distributions, with the pinned setuptools and nothing else installed.

    The build of a wheel then finds no torch, as that of ``make setup``: mmcv's would compile its
    operators for this machine alone.

    Args:
        target: The interpreter that wheels are for.
        work: A folder for the environment.
    """

    def __init__(self, target: Target, work: Path) -> None:
        self.target, self.work = target, work
        self.pip = find_pip()
        environment = work / "environment"
        venv.EnvBuilder(symlinks=True, with_pip=False).create(environment)
        self.python = str(environment / "bin" / "python")

    def install(self, wheels: Iterable[Path]) -> None:
        """Install the tools of builds."""
        names = [str(wheel.resolve()) for wheel in wheels]
        if names:
            self._run("install", "--no-index", "--no-deps", *names, what="setuptools")

    def download(self, pins: Sequence[Pin], directory: Path) -> None:
        """Download the files of some pins into a directory, each under its name when it is whole.

        Raises:
            InputError: The index cannot be reached, or has no file with one of the pinned hashes.
        """
        requirements = self.work / "requirements.txt"
        requirements.write_text(
            "".join(
                " ".join([str(pin), *(f"--hash=sha256:{one}" for one in sorted(pin.sha256))]) + "\n"
                for pin in pins
            )
        )
        with working_directory(next_to=directory / "download") as new:
            self._run(
                *("download", "--no-deps", "--no-build-isolation", "--require-hashes"),
                *("--python-version", self.target.python, "--implementation", "cp"),
                *itertools.chain(*(("--platform", one) for one in self.target.platforms)),
                *("--dest", str(new), "--requirement", str(requirements)),
                what=", ".join(map(str, pins)),
            )
            for path in sorted(new.iterdir()):
                path.replace(directory / path.name)

    def build(self, source: Path, directory: Path) -> Path:
        """Build the wheel of a distribution without one; nothing is downloaded for it.

        Raises:
            InputError: It cannot be built, or only for this machine.
        """
        with working_directory(next_to=directory / "build") as new:
            self._run(
                *("wheel", "--no-deps", "--no-build-isolation", "--no-index"),
                *("--wheel-dir", str(new), str(source.resolve())),
                what=source.name,
            )
            (wheel,) = new.glob("*.whl")
            if _parse(wheel, self.target) is None:
                raise InputError(
                    f"wheels must hold a wheel of {source.name} for Python {self.target.python} on "
                    f"{self.target.platform}, got source code that is compiled ({source}); build "
                    "it on such a machine, or give another python_version or platform"
                )
            path = directory / wheel.name
            wheel.replace(path)
        return path

    def _run(self, command: str, *arguments: str, what: str) -> None:
        done = subprocess.run(
            [*self.pip, "--python", self.python, command, *PIP_OPTIONS, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(self.work), "SOURCE_DATE_EPOCH": BUILD_TIME},
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0:
            return
        if FULL_DISK.search(done.stderr):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.work))
        begin = "cannot be got from the package index"
        if command != "download":
            begin = f"pip {command} failed"
        raise InputError(
            f"{what}: {begin}: {printable(failure_reason(done.stderr))}; what was downloaded is "
            "kept, and the same command resumes"
        )


def put(source: Path, target: Path) -> None:
    """Put a file into a folder without copying it, where the disk is the same."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def collect_wheels(
    pins: Sequence[Pin],
    target: Target,
    *,
    tools: Sequence[Pin],
    cache: Path,
    directory: Path,
    track: Track,
) -> dict[str, Path]:
    """Put the wheel of each pin into a directory.

    Args:
        pins: The distributions.
        target: The interpreter that they are for.
        tools: What builds wheels of distributions without one.
        cache: The folder of downloaded files; those that it lacks are downloaded into it.
        directory: The folder to write.
        track: Called with the number of pins that are in the cache, and what is done now.

    Returns:
        Wheel by pin.

    Raises:
        InputError: A file cannot be downloaded or built.
    """
    make_directory(cache)
    make_directory(directory)
    others = [pin for pin in pins if pin not in tools]
    found = find_files(cache, [*tools, *others], target)
    missing = [pin for pin in others if pin.name not in found]
    with working_directory(next_to=cache / "work") as work:
        builder = Builder(target, work)
        if any(pin.name not in found for pin in tools):
            found |= _download(builder, tools, cache)
        builder.install(found[pin.name] for pin in tools)
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            names = ", ".join(pin.name for pin in batch)
            track(len(others) - len(missing) + start, f"downloading {names}")
            found |= _download(builder, batch, cache)
        wheels = {}
        for pin in pins:
            path = found[pin.name]
            if path.suffix == ".whl":
                put(path, directory / path.name)
                wheels[str(pin)] = directory / path.name
            else:
                track(len(others), f"building {pin.name}")
                wheels[str(pin)] = builder.build(path, directory)
    return wheels


def _download(builder: Builder, pins: Sequence[Pin], cache: Path) -> dict[str, Path]:
    builder.download(pins, cache)
    found = find_files(cache, pins, builder.target)
    if lost := [str(pin) for pin in pins if pin.name not in found]:
        raise InputError(
            f"wheels must be files for Python {builder.target.python} on {builder.target.platform},"
            f" got others of {', '.join(lost)} ({cache})"
        )
    return found


def requirement_lines(wheels: Mapping[str, Path]) -> str:
    """Return the requirements of the bundle: each wheel by its version and its own SHA-256."""
    return "".join(
        f"{pin} --hash=sha256:{file_sha256(path)}\n" for pin, path in sorted(wheels.items())
    )
