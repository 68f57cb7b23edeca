"""Settings that were found, written as an option of the configuration group ``postprocess``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from src.errors import InputError
from src.io import printable, refuse_special_file, write_text
from src.postprocess.settings import SEARCHED_KEY, PostprocessSettings
from src.tuning.in_sample import Searched

ORIGIN_CHARACTERS = 10_000  # of a comment; a line end in a path would start a key
HEADER = "# Found by python -m src.search"


def option_path(config_directory: Path, name: str) -> Path:
    """Where the option of this name lies: ``postprocess/NAME.yaml``.

    Raises:
        InputError: the name is none for an option, or a file that no search wrote is there.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
        raise InputError(f"name={name}: letters, digits, _ and - make a name")
    path = config_directory / "postprocess" / f"{name}.yaml"
    if path.exists() and not is_found(path):
        raise InputError(
            f"name={name}: {path} was written by no search and is not overwritten; give another"
        )
    return path


def is_found(path: Path) -> bool:
    """Whether a search wrote this file."""
    refuse_special_file(path)
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def write_option(
    path: Path,
    settings: PostprocessSettings,
    origin: Sequence[str],
    searched: Searched | None = None,
) -> None:
    """Write the file whole or not at all.

    Args:
        path: From ``option_path``.
        settings: What it says.
        origin: Where the settings come from and how good they are, a comment line each.
        searched: The same for programs: which images chose them.
    """
    values = {key: _plain(value) for key, value in asdict(settings).items()}
    if searched is not None:
        values[SEARCHED_KEY] = searched.to_plain()
    lines = [f"{HEADER}.", *(f"# {printable(line, limit=ORIGIN_CHARACTERS)}" for line in origin)]
    text = "\n".join(lines) + "\n" + yaml.safe_dump(values, sort_keys=False, width=120)
    write_text(path, text)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return None if value == {} else value  # null: no class has a threshold of its own
