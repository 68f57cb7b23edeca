"""Distributions made by hand: wheels, and source code whose build needs nothing else."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from src.bundling.requirements import Pin
from src.io import file_sha256

# Writes the wheel whose tag is in the file TAG.
BACKEND = """
import pathlib, zipfile

NAME, VERSION = {name!r}, {version!r}
INFO = f"{{NAME}}-{{VERSION}}.dist-info"
METADATA = pathlib.Path("PKG-INFO").read_text()

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder) / INFO
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    return INFO

def build_wheel(folder, settings=None, metadata=None):
    tag = pathlib.Path("TAG").read_text()
    name = f"{{NAME}}-{{VERSION}}-{{tag}}.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for file, text in (
            (f"{{NAME}}.py", "BUILT = True\\n"),
            (f"{{INFO}}/METADATA", METADATA),
            (f"{{INFO}}/WHEEL", f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {{tag}}\\n"),
            (f"{{INFO}}/RECORD", ""),
        ):
            wheel.writestr(zipfile.ZipInfo(file), text)
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def write_wheel(
    folder: Path, name: str, version: str = "1.0", *, tag: str = "py3-none-any", code: str = ""
) -> Path:
    """Write a wheel of one module."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_source(folder: Path, name: str, version: str = "1.0", *, tag: str) -> Path:
    """Write source code that builds a wheel with a tag."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    files = {
        "pyproject.toml": PROJECT,
        "backend.py": BACKEND.format(name=name, version=version),
        "TAG": tag,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{file}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def pin_of(*files: Path) -> Pin:
    """The pin of a distribution's files."""
    name, version = files[0].name.removesuffix(".tar.gz").split("-")[:2]
    return Pin(name.replace("_", "-"), version, {file_sha256(file) for file in files})
