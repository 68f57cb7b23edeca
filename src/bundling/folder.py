"""The bundle's folder: code, configuration, notebook, and the manifest of all files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.bundling import submit
from src.errors import InputError
from src.io import file_sha256, read_json_object, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "conf")
BESIDES = ("LICENSE",)
FORMAT = "instance-cascade bundle 1"
NOTEBOOK = "submit.ipynb"
PROGRAM = "submit.py"


def check_output(output: Path) -> None:
    """Refuse a folder that holds something else than a bundle.

    Raises:
        InputError: It is a file, or a folder without a bundle's manifest.
    """
    if not output.exists():
        return
    is_own = False
    if output.is_dir():
        manifest = output / submit.MANIFEST
        is_own = not any(output.iterdir())
        if manifest.is_file():
            is_own = read_json_object(manifest).get("format") == FORMAT
    if not is_own:
        raise InputError(f"output must be a new folder or a bundle to replace, got {output}")


def write_code(directory: Path) -> None:
    """Copy the code and the configuration, as they are now.

    An upload may drop empty files, without which a folder is no package, so they get a line end.
    """
    for path in _code_files():
        target = directory / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if not target.stat().st_size:
            target.write_text("\n")


def _code_files() -> Iterator[Path]:
    for name in BESIDES:
        if (ROOT / name).is_file():
            yield ROOT / name
    for name in CODE:
        for path in sorted((ROOT / name).rglob("*")):
            inner = path.relative_to(ROOT).parts
            if path.is_file() and not any(p.startswith(".") or p == "__pycache__" for p in inner):
                yield path


def write_group(directory: Path, group: str, values: Mapping[str, Any]) -> None:
    """Write the option ``bundle`` of a configuration group."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    write_text(directory / "conf" / group / "bundle.yaml", text)


def write_manifest(directory: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of all files that are there: size and SHA-256 of each.

    Args:
        directory: The bundle.
        values: What ``submit.py`` needs to know.
    """
    shutil.copyfile(submit.__file__, directory / PROGRAM)
    files = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    content = {"format": FORMAT, **values, "files": files}
    write_json(directory / submit.MANIFEST, content)
    return content


def write_notebook(
    directory: Path, values: Mapping[str, Any], *, manifest: Mapping[str, Any]
) -> None:
    """Write the notebook, which knows the SHA-256 of the manifest and of the program.

    Args:
        directory: The bundle, with both.
        values: Of the configuration group ``notebook``.
        manifest: Its content.
    """
    digests = {name: file_sha256(directory / name) for name in (submit.MANIFEST, PROGRAM)}
    cells = [
        _cell("markdown", _INTRODUCTION.format(**manifest)),
        _cell("code", _places(values)),
        _cell("code", _START.format(digests=json.dumps(digests, indent=4))),
        *(
            _cell("code", f"bundle.{step}()")
            for step in ("install", "predict", "postprocess", "validate")
        ),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    write_json(directory / NOTEBOOK, content, indent=1)


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "metadata": {},
        "source": text.strip().splitlines(keepends=True),
    }
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


_INTRODUCTION = """
# Submission without internet

Attach the bundle to this notebook as a data set, switch the internet off, and run all cells. The
first two say where everything lies, and compare the bundle with what was made; the others make an
environment of its {packages} wheels, predict with its {num_weights} checkpoint(s), and write and
check the submission. Made by instance-cascade {version} for Python {python}.
"""


def _places(values: Mapping[str, Any]) -> str:
    lines = [
        f"BUNDLE = {values['bundle_dir']!r}  # where the bundle is mounted, read-only",
        f"IMAGES = {values['images']!r}",
        f"SAMPLE_SUBMISSION = {values['sample_submission']!r}  # None: all of IMAGES",
        f"OUTPUT = {values['output']!r}",
        f"WORK_DIR = {values['work_dir']!r}  # the environment and the predictions",
        f"PARTIAL = {values['partial']!r}  # True: an image that cannot be read has no detection",
        "OVERRIDES = []  # keys of src.predict, as 'trainer.precision=16-mixed'",
    ]
    return "\n".join(lines)


_START = """
import hashlib
import sys
from pathlib import Path

MADE = {digests}
for name, sha256 in MADE.items():
    if hashlib.sha256((Path(BUNDLE) / name).read_bytes()).hexdigest() != sha256:
        raise SystemExit(f"{{BUNDLE}}/{{name}} is not the file that was made with this notebook")
sys.dont_write_bytecode = True
sys.path.insert(0, BUNDLE)
import submit

bundle = submit.Bundle(
    IMAGES, SAMPLE_SUBMISSION, OUTPUT, WORK_DIR, partial=PARTIAL, overrides=OVERRIDES
)
bundle.verify()
"""


def shown_sizes(manifest: Mapping[str, Any]) -> str:
    """Return how large the parts of a bundle are, in words."""
    sizes: dict[str, int] = {}
    for name, known in manifest["files"].items():
        part = name.partition("/")[0]
        sizes[part] = sizes.get(part, 0) + known["bytes"]
    parts: Sequence[str] = [part for part in submit.WHOLE_FOLDERS if part in sizes]
    shown = ", ".join(f"{part} {sizes[part] / 2**20:.1f} MiB" for part in parts)
    return f"{sum(sizes.values()) / 2**20:.1f} MiB ({shown})"
