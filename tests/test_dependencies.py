"""The declared dependencies are what the code imports, in both directions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Distributions whose import name differs.
IMPORT_NAMES = {
    "faster-coco-eval": "faster_coco_eval",
    "hydra-core": "hydra",
    "iterative-stratification": "iterstrat",
    "onedl-mmcv": "mmcv",
    "onedl-mmdetection": "mmdet",
    "onedl-mmengine": "mmengine",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
# Needed at run time without an import.
NOT_IMPORTED = {
    "hydra-joblib-launcher": "hydra/launcher=joblib, found by Hydra",
    "hydra-submitit-launcher": "hydra/launcher=submitit_slurm, found by Hydra",
    "tensorboard": "writes the logs of Lightning's TensorBoardLogger",
}
# Development tools that are commands or plug-ins.
TOOLS = {"import-linter", "mkdocs-material", "mkdocstrings", "mypy", "pytest-timeout"}
TOOLS |= {"pytest-xdist", "ruff"}


def declared(*, dev: bool) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = project["dependency-groups"]["dev"] if dev else project["project"]["dependencies"]
    return names_of(lines)


def names_of(lines: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines}


def import_names(distributions: set[str]) -> set[str]:
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in distributions}


def imported(*folders: str) -> dict[str, str]:
    """Top-level packages that the folders import from elsewhere, each with a file that does."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    modules = [node.module]
                else:
                    continue
                for module in modules:
                    found.setdefault(module.partition(".")[0], str(path.relative_to(ROOT)))
    own = {"src", "tests", "benchmarks", "experiments"} | {
        path.stem for path in (ROOT / "tests").rglob("*.py")
    }
    return {name: path for name, path in found.items() if name not in own | sys.stdlib_module_names}


def test_src_imports_declared_dependencies_alone() -> None:
    names = import_names(declared(dev=False))
    assert {name: path for name, path in imported("src").items() if name not in names} == {}


def test_each_dependency_is_imported_by_src_or_has_a_reason() -> None:
    names = import_names(declared(dev=False) - NOT_IMPORTED.keys())
    assert names - imported("src").keys() == set()


def test_reasons_are_of_declared_dependencies() -> None:
    assert NOT_IMPORTED.keys() - declared(dev=False) == set()
    assert IMPORT_NAMES.keys() - declared(dev=False) == set()


def test_tests_and_benchmarks_import_declared_dependencies_alone() -> None:
    names = import_names(declared(dev=False) | declared(dev=True))
    found = imported("tests", "benchmarks", "experiments")
    assert {name: path for name, path in found.items() if name not in names} == {}
    assert import_names(declared(dev=True) - TOOLS) - found.keys() == set()


def test_no_dependency_is_both_of_run_time_and_of_development() -> None:
    assert declared(dev=False) & declared(dev=True) == set()


def pins(file: str) -> dict[str, str]:
    """The lines of each pin by its name, its first line first."""
    text = (ROOT / "requirements" / file).read_text()
    assert re.findall(r"https?://|--index|--extra-index|--find-links", text) == []
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []
    return {entry.split(" \\\n")[0].lower(): entry for entry in entries}


def test_every_pin_has_a_hash_and_no_address() -> None:
    found = {pin.split("==")[0] for pin in pins("requirements.txt")}
    assert (declared(dev=False) | declared(dev=True)) - found == set()


@pytest.mark.parametrize("group", ["mmpretrain", "postgresql"])
def test_pins_of_an_optional_group_are_those_of_the_environment(group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ours, optional = pins("requirements.txt"), pins(f"{group}.txt")
    versions = {pin.split(" ;")[0] for pin in ours}  # where it is needed may differ
    there = {pin.split("==")[0] for pin in ours}
    shared = {pin.split(" ;")[0] for pin in optional if pin.split("==")[0] in there}
    assert shared <= versions
    assert names_of(project["dependency-groups"][group]) <= {pin.split("==")[0] for pin in optional}
