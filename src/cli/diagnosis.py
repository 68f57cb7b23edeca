"""Checks of the machine and its packages: plain values in, findings with a remedy out.

At import this needs the standard library alone, so that it works where any package is broken.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from src.cli.probe import KERNELS, MARK, STEPS

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements" / "requirements.txt"
SETUP = "make setup"
PYTHONS = ((3, 11), (3, 13))  # the first and the last
# Said one by one, with what depends on them; the others in one line.
SHOWN = (
    *("torch", "torchvision", "lightning", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine"),
    *("hydra-core", "numpy", "opencv-python-headless"),
)
# Other distributions with the import names of ours: whichever was installed last is imported.
CLASHES = {
    **dict.fromkeys(("mmcv", "mmcv-full", "mmcv-lite"), "onedl-mmcv"),
    "mmdet": "onedl-mmdetection",
    "mmengine": "onedl-mmengine",
    **dict.fromkeys(
        ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
        "opencv-python-headless",
    ),
    "albumentationsx": "albumentations",
}
PROBE_TIMEOUT_S = 300
TENSORS_A_SAMPLE = 4  # each passed in shared memory takes an open file
FILES_BESIDES = 256  # of the interpreter, logs, sockets, libraries
MIB, GIB = 2**20, 2**30

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, and what to do about it."""

    status: Status
    what: str
    value: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return the line; control characters in texts of files and libraries are escaped."""
        line = f"{self.status:<7}  {self.what:<22}  {self.value}"
        line += f" -> {self.remedy}" if self.remedy else ""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def to_json(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return the findings as plain values."""
    return [asdict(finding) for finding in findings]


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if one of the findings is an error, else 0."""
    return int(any(finding.status == "error" for finding in findings))


def guarded(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return a check's findings; one more, an error, if it raises."""
    try:
        return list(check())
    except Exception as error:  # a broken package may raise anything
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        return [Finding("error", what, f"could not be looked at ({text})", SETUP)]


def check_python(version: tuple[int, int, int], *, is_own: bool) -> Finding:
    """Check the interpreter's version, and whether it is that of ``.venv``."""
    first, last = PYTHONS
    shown = ".".join(map(str, version))
    if not first <= version[:2] <= last:
        return Finding(
            "error",
            "Python",
            f"{shown}, not one of 3.{first[1]} to 3.{last[1]}",
            f"rm -r .venv && {SETUP} PYTHON=python3.{last[1] - 1}",
        )
    if not is_own:
        return Finding(
            "warning",
            "Python",
            f"{shown} of {sys.prefix}, not of .venv here",
            f"{SETUP} && source .venv/bin/activate, if that environment is not your own choice",
        )
    return Finding("ok", "Python", shown)


def installed_versions() -> dict[str, str]:
    """Return the version of each installed distribution by its normalised name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:  # a folder that a broken installation left has neither
            found.setdefault(normalise(name), version)  # the first is the one that is imported
    return found


def normalise(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path = PINS) -> dict[str, set[str]]:
    """Return the versions of each pin; a pin may differ from Python to Python."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE
    ):
        pins.setdefault(normalise(name), set()).add(version)
    return pins


def read_needed(path: Path = ROOT / "pyproject.toml") -> list[str]:
    """Return the distributions that ``src`` needs, as ``pyproject.toml`` declares them."""
    declared = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [normalise(re.split(r"[^\w.-]", line)[0]) for line in declared]


def check_packages(
    needed: Sequence[str], pins: Mapping[str, set[str]], installed: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare the installed versions with the pinned ones."""
    as_pinned = 0
    for name in sorted(needed, key=lambda one: (one not in SHOWN, one)):
        version, wanted = installed.get(name), pins.get(name, set())
        pinned = " or ".join(sorted(wanted))
        if version is None:
            yield Finding("error", name, f"not installed ({pinned} is pinned)", SETUP)
        elif wanted and version.partition("+")[0] not in wanted:  # +cpu: another build of it
            yield Finding("warning", name, f"{version}, where {pinned} is pinned and tested", SETUP)
        elif name in SHOWN:
            yield Finding("ok", name, version)
        else:
            as_pinned += 1
    yield Finding("ok", "other packages", f"{as_pinned} as pinned")
    for name, ours in CLASHES.items():
        if name in installed and ours in needed:
            yield Finding(
                "error",
                name,
                f"{installed[name]} is installed over {ours}, under the same import name",
                f"python -m pip uninstall -y {name} {ours} && rm -f .venv/.installed* && {SETUP}",
            )


def run_probe(
    steps: Sequence[str] = tuple(STEPS), *, timeout_s: float = PROBE_TIMEOUT_S
) -> dict[str, dict[str, Any]]:
    """Import packages in another process.

    Returns:
        What ``src.cli.probe`` said last of each step; ``error`` for one that ended the process.
    """
    command = [sys.executable, "-m", "src.cli.probe", *steps]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        output, end = ended.stdout, _describe_end(ended.returncode, ended.stderr)
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"did not return within {timeout_s:.0f} s"
    found: dict[str, dict[str, Any]] = {}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(MARK):
            said = json.loads(line.removeprefix(MARK))
            found[said["step"]] = said
    for name in steps:
        if name not in found:
            found[name] = {"error": end} if not found else {"skipped": next(reversed(found))}
        elif "begun" in found[name]:
            found[name] = {"error": end}
    return found


def _describe_end(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"ended the interpreter by {signal.Signals(-code).name}"
    last = (stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    return f"ended the interpreter with exit code {code} {last}".strip()


def check_imports(
    found: Mapping[str, Mapping[str, Any]], *, driver: str | None
) -> Iterator[Finding]:
    """Describe what the probe found.

    Args:
        found: From ``run_probe``.
        driver: Version of NVIDIA's driver; None: there is none.
    """
    again = f"rm -f .venv/.installed* && {SETUP}"
    for name, said in found.items():
        what = f"import {name}" if name in ("torch", "torchvision", "lightning", "mmdet") else name
        if "error" in said:
            yield Finding("error", what, said["error"], _remedy(said["error"]) or again)
        elif "skipped" in said:
            yield Finding("error", what, f"not tried without {said['skipped']}", "see there")
        elif name == "torch":
            yield from check_devices(said["found"], driver=driver)
        elif name == "operators":
            yield from _describe_operators(said["found"])
        elif name == "operators run":
            devices = " and ".join(said["found"]["devices"])
            yield Finding("ok", what, f"NMS and RoIAlign are right on {devices}")
        else:
            yield Finding("ok", what, "works")


def _remedy(error: str) -> str | None:
    if "do not load with torch" in error:  # mmcv's compiled operators
        return f"{SETUP} removes that mmcv, or compile it for this torch"
    if "no kernel image" in error:
        return "this GPU is too old or too new for this torch: trainer=cpu, or another torch"
    if found := re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file", error):
        return f"install the system's package of {found[1]}"
    if "SIGILL" in error:
        return "this CPU lacks instructions that the package was compiled for"
    return None


def _describe_operators(found: Mapping[str, Any]) -> Iterator[Finding]:
    what = "mmcv's operators"
    if found["compiled"]:
        yield Finding("ok", what, f"compiled mmcv: {found['compiled']}")
        return
    for source, names in KERNELS.items():
        of_source = [name for name in names if name in found["supplied"]]
        yield Finding("ok", what, f"by {source}: {', '.join(of_source)}")
    yield Finding("ok", what, "training on a CPU: RoIAlign by src/mmdet_bridge/kernels")


def read_driver() -> str | None:
    """Return the version of NVIDIA's kernel driver; None if it is not loaded."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found[1] if found else "of unknown version"


def check_devices(found: Mapping[str, Any], *, driver: str | None) -> Iterator[Finding]:
    """Describe torch's devices: the GPUs, or why there are none, and threads of the CPU."""
    build = f"CUDA {found['cuda']}" if found["cuda"] else "no CUDA"
    yield Finding("ok", "import torch", f"works: {found['version']}, built for {build}")
    if driver is None:
        yield Finding("ok", "NVIDIA driver", "none: a CPU trains (trainer=cpu)")
    elif not found["cuda"]:
        yield Finding(
            "warning",
            "NVIDIA driver",
            f"{driver}, but this torch was built without CUDA",
            f"rm -r .venv && {SETUP} (without TORCH=cpu)",
        )
    elif found["problem"] or not found["devices"]:
        reason = (found["problem"] or "torch finds no device").partition("\n")[0]
        yield Finding(
            "error",
            "NVIDIA driver",
            f"{driver}, but torch {found['version']} cannot use it: {reason}",
            f"a driver for CUDA {found['cuda']} or newer; in a container docker run --gpus all; "
            "look at CUDA_VISIBLE_DEVICES; trainer=cpu goes without",
        )
    else:
        yield Finding("ok", "NVIDIA driver", driver)
    for index, device in enumerate(found["devices"]):
        value = f"{device['name']}, {device['memory_gib']:.0f} GiB, sm {device['capability']}"
        if device["is_supported"]:
            yield Finding("ok", f"GPU {index}", value)
        else:
            remedy = "CUDA_VISIBLE_DEVICES without it, or trainer=cpu"
            yield Finding("error", f"GPU {index}", f"{value}: this torch has no code", remedy)
    yield Finding("ok", "torch threads", str(found["threads"]))


def check_cpus(num_cpus: int, *, num_workers: int, devices: int) -> Finding:
    """Compare the CPUs with the processes of a training."""
    processes = devices * (num_workers + 1)
    value = f"{num_cpus} for {processes} processes (devices={devices} num_workers={num_workers})"
    if processes > 2 * num_cpus:
        most = max(0, num_cpus // devices - 1)
        return Finding("warning", "CPUs", value, f"datamodule.num_workers={most}")
    return Finding("ok", "CPUs", value)


def count_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the CPUs that this process may use, by affinity and by the container's quota."""
    count = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text(encoding="utf-8").split()
        return min(count, max(1, int(limit) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return count


def check_shared_memory(
    free_bytes: int | None,
    *,
    num_workers: int,
    prefetch_factor: int,
    batch_bytes: int,
    devices: int,
) -> Finding:
    """Compare the free part of /dev/shm with the batches that loader processes make ahead.

    Args:
        free_bytes: None: there is no such file system.
        num_workers: Loader processes of one training process.
        prefetch_factor: Batches that each makes ahead.
        batch_bytes: Size of the largest batch.
        devices: Training processes.
    """
    what = "shared memory"
    if free_bytes is None:
        return Finding("ok", what, "no /dev/shm here: torch shares memory in another way")
    batches = devices * (num_workers * prefetch_factor + 1) if num_workers else 0
    needed = batches * batch_bytes
    value = (
        f"{free_bytes / MIB:.0f} MiB free in /dev/shm, {needed / MIB:.0f} MiB for {batches} batches"
    )
    if needed > free_bytes:
        remedy = (
            f"docker run --shm-size={2 * needed // GIB + 1}g (or --ipc=host), "
            "or datamodule.num_workers=0"
        )
        return Finding("error", what, value, remedy)
    return Finding("ok", what, value)


def free_shared_memory(path: str = "/dev/shm") -> int | None:
    """Return the free bytes of shared memory."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def check_open_files(
    soft: int, hard: int, *, num_workers: int, prefetch_factor: int, batch_size: int
) -> Finding:
    """Compare the limit of open files with the tensors that loader processes hand over.

    Args:
        soft: The limit in force; ``resource.RLIM_INFINITY``: none.
        hard: What it may be raised to.
        num_workers: Loader processes.
        prefetch_factor: Batches that each makes ahead.
        batch_size: Samples of a batch.
    """
    ahead = (num_workers * prefetch_factor + 1) * batch_size if num_workers else 0
    needed = FILES_BESIDES + ahead * TENSORS_A_SAMPLE
    what = "open files"
    if soft == resource.RLIM_INFINITY:
        return Finding("ok", what, "no limit")
    value = f"{soft} at most (ulimit -n), about {needed} needed"
    if soft >= needed:
        return Finding("ok", what, value)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return Finding("error", what, value, f"ulimit -n {needed}, in this shell")
    remedy = (
        f"a hard limit above {hard} (docker run --ulimit nofile=65536, or "
        "/etc/security/limits.conf), or datamodule.num_workers=0"
    )
    return Finding("error", what, value, remedy)


def check_disk(what: str, path: Path, *, min_free_gib: float, problem: str | None) -> Finding:
    """Compare the free space of a folder, there or to be made, with what a training takes.

    Args:
        what: The folder's purpose.
        path: The folder.
        min_free_gib: Least free space.
        problem: Why nothing can be written there; None: it can.
    """
    place = path.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    if problem is not None:
        return Finding("error", what, f"{path}: {problem}", "another folder, or its permissions")
    free = shutil.disk_usage(place).free / GIB
    value = f"{free:.1f} GiB free in {path}"
    if free < min_free_gib:
        remedy = f"free some space: under min_free_gib={min_free_gib:g}"
        return Finding("error" if free < 1 else "warning", what, value, remedy)
    return Finding("ok", what, value)


def check_wandb(
    version: str | None, environment: Mapping[str, str], *, has_login: bool = False
) -> Finding:
    """Describe where ``logger=wandb`` would log to; no key is shown.

    Args:
        version: The installed version; None: none is.
        environment: Environment variables.
        has_login: Whether ``wandb login`` left a key in the home folder.
    """
    if version is None:
        return Finding("warning", "W&B", "not installed", f"{SETUP}; without it: logger=default")
    mode = environment.get("WANDB_MODE", "")
    if mode in ("disabled", "dryrun", "offline"):
        return Finding("ok", "W&B", f"{version}, {mode} by WANDB_MODE")
    if environment.get("WANDB_API_KEY"):
        return Finding("ok", "W&B", f"{version}, logger=wandb is online: WANDB_API_KEY is set")
    value = f"{version}, logger=wandb is offline: WANDB_API_KEY is not set"
    if has_login:
        remedy = "export WANDB_API_KEY=...: the login in ~/.netrc alone does not put a run online"
        return Finding("warning", "W&B", value, remedy)
    return Finding("ok", "W&B", value)


def has_wandb_login(path: Path | None = None) -> bool:
    """Return whether a netrc file, by default the user's, has a machine of W&B."""
    try:
        path = path or Path.home() / ".netrc"
        return "api.wandb.ai" in path.read_text(errors="replace")
    except (OSError, RuntimeError):  # none, not readable, or no home
        return False
