"""A small bundle whose wheel is made by hand, a notebook's code, and a competition."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from src.bundling.folder import write_manifest, write_notebook
from src.bundling.wheels import requirement_lines
from tests.helpers.wheels import write_wheel

NOTEBOOK = {
    "bundle_dir": "bundle",
    "images": "images",
    "sample_submission": None,
    "output": "submission.csv",
    "work_dir": "work",
    "partial": False,
}


def write_bundle(folder: Path, **values: Any) -> Path:
    """Write a bundle with a wheel, weights and code that only say what they are, and an image."""
    bundle = folder / "bundle"
    (folder / "images").mkdir(parents=True)
    wheel = write_wheel(bundle / "wheels", "only_here", code="ANSWER = 42\n")
    (bundle / "requirements.txt").write_text(requirement_lines({"only-here==1.0": wheel}))
    for name in ("weights/0.safetensors", "code/src/__init__.py"):
        (bundle / name).parent.mkdir(parents=True)
        (bundle / name).write_text("# something\n")
    manifest = write_manifest(
        bundle,
        {
            "version": "0",
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "machine": "x86_64",
            "leave_out": [],
            "packages": 1,
            "weights": ["weights/0.safetensors"],
            "num_weights": 1,
            "submission": "csv",
            "predict": [],
            **values,
        },
    )
    write_notebook(bundle, NOTEBOOK, manifest=manifest)
    return bundle


def code_cells(bundle: Path) -> list[str]:
    """Return the code of the notebook, cell by cell."""
    content = json.loads((bundle / "submit.ipynb").read_text())
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]


def write_competition(folder: Path) -> list[str]:
    """Write images, ``sample.csv`` and a run; return the arguments that predict with its models."""
    # torch and mmdet, which the other functions do without
    from tests.helpers.predictions import SIZES_HW, checkpoint, overrides, write_folder

    write_folder(folder)
    rows = [f"{name},1 1,23" for name in SIZES_HW]
    (folder / "sample.csv").write_text("\n".join(["ImageId,EncodedPixels,ClassId", *rows]) + "\n")
    models = f"checkpoint=[{checkpoint(folder, 0)},{checkpoint(folder, 1)}]"
    of_here = ("datamodule.test_images", "datamodule.sample_submission", "ensemble.")
    return [models, *(one for one in overrides(folder) if not one.startswith(of_here))]
