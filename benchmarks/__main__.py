"""Every figure of the README, this project and its peer side by side: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from src.commit import describe_commit

BENCHMARKS = (
    "run_lengths",
    "convert",
    "kernels",
    "loading",
    "postprocess",
    "coco_masks",
    "score",
    "threshold_grid",
    "search",
    "training",
    "tta",
    "prediction_store",
    "fusion",
    "lab",
    "startup",
)
ON_A_GPU = ("gpu_training", "gpu_tta")  # without one they run when named, on a small model
WHEN_NAMED = ("load",)  # takes an hour
WITH_NETWORK = ("bundle",)  # downloads gigabytes, when named
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every figure of a nested result with its dotted name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield ".".join(path), node


def main(arguments: list[str]) -> None:
    """Run the named benchmarks (none: all), print their figures, write them to ``results/``.

    The file is written after each: a run that is cut off leaves what it had measured.
    """
    given = _parse(arguments)
    names = given.names
    console = Console()
    on_a_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_a_gpu else "cpu"
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": describe_commit(ROOT, ":!benchmarks/results"),
    }
    path = RESULTS / f"{device.lower().replace(' ', '_')}_{'_'.join(names) or 'all'}.json"
    path.parent.mkdir(exist_ok=True)

    def write() -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, indent=2) + "\n")
        temporary.replace(path)

    for name in names or ((*BENCHMARKS, *ON_A_GPU) if on_a_gpu else BENCHMARKS):
        console.rule(name)
        options: dict[str, Any] = {}
        if name in WHEN_NAMED:  # its other stages stay, each with its date
            results[name] = json.loads(path.read_text()).get(name, {}) if path.exists() else {}
            options = {"stages": given.stage, "output_dir": given.output_dir}
            options |= {"figures": results[name], "on_stage": write}
        results[name] = importlib.import_module(f"benchmarks.{name}").run(**options)
        table = Table(box=None, show_header=False)
        for key, value in leaves(results[name]):
            table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
        console.print(table)
        write()
    console.print(f"wrote {path}")


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the names of the benchmarks, and the options of ``load``."""
    legal = (*BENCHMARKS, *ON_A_GPU, *WHEN_NAMED, *WITH_NETWORK)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(legal))
    parser.add_argument("--stage", action="append", help="of load alone; may be repeated")
    parser.add_argument("--output-dir", type=Path, help="where load has its data meanwhile")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(legal)):
        sys.exit(f"error: no benchmark {unknown[0]}; legal: {', '.join(legal)}")
    if (given.stage or given.output_dir) and given.names != ["load"]:
        sys.exit("error: --stage and --output-dir must be given with load alone")
    return given


if __name__ == "__main__":
    main(sys.argv[1:])
