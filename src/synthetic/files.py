"""Output folders that belong to one request, and files that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import atomic_path, read_json_object
from src.renamed_keys import upgrade_keys

REQUEST_FILE = "synthesis.json"


def write_whole(path: Path, pieces: Iterable[bytes], *, clean: bool = True) -> None:
    """Write a file piece by piece, atomically; ``clean`` as for ``atomic_path``."""
    with atomic_path(path, clean=clean) as partial, partial.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def claim_output(output: str | Path, request: dict[str, Any]) -> Path:
    """Make a folder for a request, or resume in one that is of the same request.

    Raises:
        InputError: The path is a file, or the folder holds something that was not asked for here.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output={folder}: it is a file; a folder is needed")
    note = folder / REQUEST_FILE
    if note.exists():
        _compare(note, request)
        return folder
    # what begins with a dot is no data: a lock, what a killed run left
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(
            f"output={folder}: the folder is not empty and was not made by this program; "
            "give a new one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(note, [json.dumps(request, indent=2).encode() + b"\n"])
    return folder


def _compare(note: Path, request: dict[str, Any]) -> None:
    try:
        before = upgrade_keys(read_json_object(note))
    except InputError as error:
        raise InputError(f"{error}; give a new folder") from error
    differing = [
        f"{key} was {before.get(key)}, now {request.get(key)}"
        for key in sorted({*before, *request})
        if before.get(key) != request.get(key)
    ]
    if differing:
        raise InputError(
            f"output={note.parent}: it holds images of another request ({'; '.join(differing)}); "
            "give a new folder or the same values"
        )
