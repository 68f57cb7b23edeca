"""Look at the environment, and say what to do about each problem: ``python -m src.doctor``."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from src.cli import diagnosis
from src.cli.diagnosis import Finding, guarded

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look_at_packages() -> Iterator[Finding]:
    """Look at the interpreter and the installed versions."""
    is_own = Path(sys.prefix).resolve() == (diagnosis.ROOT / ".venv").resolve()
    yield diagnosis.check_python(sys.version_info[:3], is_own=is_own)
    yield from guarded(
        "packages",
        lambda: diagnosis.check_packages(
            diagnosis.read_needed(), diagnosis.read_pins(), diagnosis.installed_versions()
        ),
    )


def look_at_imports() -> Iterator[Finding]:
    """Import torch and mmdet in another process."""
    return diagnosis.check_imports(diagnosis.run_probe(), driver=diagnosis.read_driver())


def look_at_limits(config: DictConfig) -> Iterator[Finding]:
    """Look at CPUs, shared memory, open files and disks."""
    from src.io import writing_problem

    loader = {key: config[key] for key in ("num_workers", "prefetch_factor")}
    yield diagnosis.check_cpus(
        diagnosis.count_cpus(), num_workers=config.num_workers, devices=config.devices
    )
    pixels = max(config.train_short_edge_px) * config.train_long_edge_px
    yield diagnosis.check_shared_memory(
        diagnosis.free_shared_memory(),
        **loader,
        batch_bytes=config.batch_size * 3 * pixels,
        devices=config.devices,
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield diagnosis.check_open_files(soft, hard, **loader, batch_size=config.batch_size)
    folders = {"output disk": Path(config.output_dir), "data disk": Path(config.paths.data_dir)}
    for what, path in folders.items():
        least = config.min_free_gib if what == "output disk" else 1
        problem = writing_problem(path) if what == "output disk" else None
        yield diagnosis.check_disk(what, path, min_free_gib=least, problem=problem)


def look_at_data(config: DictConfig) -> Iterator[Finding]:
    """Look at annotations, images and weights."""
    from src.cli import data_diagnosis

    data = Path(config.paths.data_dir)
    for key, check, usual in (
        ("annotations", data_diagnosis.check_annotations, data / "train.csv"),
        ("images", data_diagnosis.check_images, data / "train"),
    ):
        path = usual if config[key] is None else Path(config[key])
        is_given = config[key] is not None
        yield from guarded(key, lambda: [check(path, is_given=is_given)])  # noqa: B023  # runs now
    known = {
        Path("data/imagenet_mobilenet_v2.safetensors"): "make weights, for module=htc_mobilenet",
        data / "htc_x101_dcn_coco.safetensors": (
            "python -m src.import_weights as in the README, for +experiment=htc_x101"
        ),
    }
    yield from guarded("weights", lambda: data_diagnosis.check_weights(config.weights, known))


def look_at_wandb() -> Iterator[Finding]:
    """Look at where ``logger=wandb`` would log to."""
    version = diagnosis.installed_versions().get("wandb")
    yield diagnosis.check_wandb(version, os.environ, has_login=diagnosis.has_wandb_login())


def report(parts: dict[str, Callable[[], Iterator[Finding]]]) -> list[Finding]:
    """Print each part's findings as soon as they are known, then how many problems there are."""
    findings: list[Finding] = []
    for what, part in parts.items():
        found = guarded(what, part)
        findings += found
        for finding in found:
            print(finding, flush=True)
    counts = {
        status: sum(one.status == status for one in findings) for status in ("error", "warning")
    }
    print(", ".join(f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items()))
    return findings


def check_config(config: DictConfig) -> None:
    """Check the values before anything is looked at."""
    from src.cli.entry_point import to_plain
    from src.io import check_writable
    from src.validation import Count, Flag, Legal, Positive, check_values, list_of, nullable, whole

    least = whole(1)
    kinds = {
        "weights": nullable(Annotated[list[str], Legal("a list of files")], null="for the usual"),
        "num_workers": Count,
        **dict.fromkeys(("prefetch_factor", "batch_size", "train_long_edge_px", "devices"), least),
        "train_short_edge_px": list_of(least),
        "min_free_gib": Positive,
        "imports": Flag,
    }
    check_values(kinds, to_plain(config))
    if config.output is not None:
        check_writable(config.output)


def diagnose(config: DictConfig) -> None:
    """Look at everything, and end with exit code 1 if there is an error."""
    from src.io import write_json

    check_config(config)
    parts: dict[str, Callable[[], Iterator[Finding]]] = {"packages": look_at_packages}
    if config.imports:
        parts["imports"] = look_at_imports
    parts |= {
        "limits": lambda: look_at_limits(config),
        "data": lambda: look_at_data(config),
        "W&B": look_at_wandb,
    }
    findings = report(parts)
    if config.output is not None:
        write_json(config.output, diagnosis.to_json(findings))
    sys.exit(diagnosis.exit_code(findings))


def diagnose_without_config(error: Exception) -> None:
    """Look at packages alone: one that every command needs cannot be imported."""
    first = str(error).partition("\n")[0]
    broken = Finding(
        "error", "commands", f"cannot start ({type(error).__name__}: {first})", diagnosis.SETUP
    )
    print(broken)
    findings = report({"packages": look_at_packages, "imports": look_at_imports})
    sys.exit(diagnosis.exit_code([broken, *findings]))


def main() -> Any:
    """Run the command; without Hydra, where a package that it needs is missing or broken."""
    try:
        from src.cli.entry_point import entry_point
    except Exception as error:
        return diagnose_without_config(error)
    return entry_point("doctor")(diagnose)()


if __name__ == "__main__":
    main()
