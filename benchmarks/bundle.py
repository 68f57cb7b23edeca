"""A bundle with every package: its size, and a submission in a namespace without a network.

    python -m benchmarks bundle

The wheels are downloaded before anything is measured. The models are tiny and untrained, so that
the CPU time is that of verifying, installing and importing. The submission has to be that of the
repository itself, byte by byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.startup import cpu_seconds
from tests.helpers.bundles import write_competition
from tests.helpers.no_network import UNSHARE

ROOT = Path(__file__).parents[1]
SETTINGS = ("postprocess=winner", "postprocess.remove_categories=[]")


def run_in(folder: Path, command: Sequence[str | Path], *, code: Path | None = ROOT) -> float:
    """Run a command and return its CPU seconds."""
    env = {**os.environ, "PYTHONPATH": "" if code is None else str(code)}
    words = list(map(str, command))
    _, seconds = cpu_seconds(lambda: subprocess.run(words, cwd=folder, env=env, check=True))
    return seconds


def size_of(folder: Path) -> float:
    """Return the GiB of a folder's files."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files) / 2**30, 2)


def run() -> dict[str, Any]:
    """Make a bundle, use it, and compare."""
    with tempfile.TemporaryDirectory() as name:
        return _run(Path(name))


def _run(folder: Path) -> dict[str, Any]:
    given = write_competition(folder)
    make = [sys.executable, "-m", "src.bundle", "output=bundle", *given, *SETTINGS]
    run_in(folder, make)  # downloads what is not there yet
    make_cpu_s = run_in(folder, make)
    places = ("images=test", "sample_submission=sample.csv", "output=out.csv", "work_dir=work")
    submit = [*UNSHARE, sys.executable, "-B", "bundle/submit.py", *places]
    submit_cpu_s = run_in(folder, submit, code=None)
    (folder / "out.csv").unlink()
    shutil.rmtree(folder / "work" / "predictions")
    again_cpu_s = run_in(folder, submit, code=None)  # the environment is there
    run_in(
        folder,
        [
            *(sys.executable, "-m", "src.predict", *given, "images=test", "predictions=store"),
            *("datamodule.sample_submission=sample.csv", "paths.output_dir=run"),
            "hydra.run.dir=run",
        ],
    )
    run_in(
        folder,
        [
            *(sys.executable, "-m", "src.postprocess", "predictions=store", *SETTINGS),
            *("sample_submission=sample.csv", "output=expected.csv"),
        ],
    )
    if (folder / "out.csv").read_bytes() != (folder / "expected.csv").read_bytes():
        raise SystemExit("error: the bundle's submission is not that of the repository")
    return {
        "num_wheels": len(list((folder / "bundle/wheels").iterdir())),
        "bundle_gib": size_of(folder / "bundle"),
        "work_dir_gib": size_of(folder / "work"),
        "make_from_downloaded_wheels_cpu_s": round(make_cpu_s, 1),
        "submit_cpu_s": round(submit_cpu_s, 1),
        "submit_installed_cpu_s": round(again_cpu_s, 1),
        "num_images": 3,
    }
