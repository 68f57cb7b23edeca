"""Start of every command: CPU seconds of --help, a typo and mistakes in values and files.

python -m benchmarks.startup
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("train", "predict", "postprocess", "score", "report", "search", "compare", "convert"),
    *("split", "synthesize", "import_weights", "average", "validate_submission", "fuse"),
    *("export_coco", "import_predictions", "lab", "doctor", "bundle"),
)
# Packages that only a command's work needs.
HEAVY = (
    *("torch", "torchvision", "torchmetrics", "lightning", "mmdet", "mmcv", "mmengine"),
    *("albumentations", "optuna", "sqlalchemy", "pandas", "matplotlib", "sklearn", "scipy"),
    *("wandb", "timm", "faster_coco_eval", "werkzeug"),
)
TYPO = "outputt=x"
THERE = "there.ckpt"
# Values that are refused and files that are missing, with a part of the message; THERE is there.
MISTAKES = (
    ("train", ("trainer.precision=bf61",), "trainer.precision must be one of"),
    ("train", ("initial_weights=no.pth",), "got no.pth: no such file"),
    ("train", ("datamodule.batch_size=0",), "datamodule.batch_size must be"),
    ("train", ("annotations=no.json", "images=."), "no.json"),
    ("predict", ("checkpoint=no.ckpt",), "got no.ckpt: no such file"),
    ("predict", (f"checkpoint={THERE}", "images=no"), "no: no such folder"),
    ("predict", ("tta.flip=2",), "tta.flip must be true or false"),
    ("import_weights", ("source=no.pth", "output=x.safetensors"), "no.pth does not exist"),
    ("import_weights", ("source=no.pth", "output=x.pth"), "output must end in .safetensors"),
    ("average", ("checkpoint=[a.ckpt,b.ckpt]", "output=x.safetensors"), "a.ckpt: no such file"),
    ("split", ("annotations=no.csv",), "no.csv"),
    ("search", ("predictions=no", "annotations=no.csv"), "predictions=no: cannot be read"),
    ("lab", ("predictions=no", "annotations=no.csv"), "no/meta.json: missing"),
    ("lab", ("predictions=no", "port=-1"), "port must be"),
    ("import_predictions", ("input=no.json", "annotations=a", "output=b"), "no.json: no such file"),
    ("bundle", ("output=x", "checkpoint=no.ckpt"), "got no.ckpt: no such file"),
    ("bundle", ("output=x", f"checkpoint={THERE}", "platform=win"), "platform must be"),
    ("score", ("submission=no.csv", "annotations=no.csv"), "no.csv"),
    ("score", ("submission=a", "annotations=b", "averaging=c"), "averaging must be one of"),
)


def cpu_seconds(task: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a task that starts a process, and that process's CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = task()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def run(*, rounds: int = 2) -> dict[str, Any]:
    """Measure every command; the fastest of some rounds counts."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / THERE).touch()
        return _run(Path(folder), rounds)


def _run(folder: Path, rounds: int) -> dict[str, Any]:
    def fastest(command: str, *arguments: str) -> float:
        line = ["-m", f"src.{command}", *arguments]
        return min(cpu_seconds(lambda: start(line, folder))[1] for _ in range(rounds))

    figures: dict[str, Any] = {}
    for command in COMMANDS:
        cases = {"help": ("--help",), "typo": (TYPO,)}
        own = [arguments for name, arguments, _ in MISTAKES if name == command]
        figures[command] = {
            name: round(fastest(command, *arguments), 2) for name, arguments in cases.items()
        }
        if own:
            slowest = max(fastest(command, *arguments) for arguments in own)
            figures[command]["mistake"] = round(slowest, 2)
    slowest = max(value for own in figures.values() for value in own.values())
    return {"cpu_seconds": figures, "slowest_cpu_seconds": slowest}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
