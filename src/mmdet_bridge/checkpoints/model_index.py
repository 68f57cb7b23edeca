"""mmdet's own index of checkpoints, read as data: it lies in the wheel under ``mmdet/.mim``."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError
from src.io import printable

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NEAR = 3  # names in a message


def find_address(name: str) -> str:
    """Return the address of a checkpoint by its name in mmdet's index.

    Raises:
        InputError: No such name, or one without a checkpoint; lists near ones.
    """
    index = read_model_index()
    if name not in index:
        near = sorted(one for one in index if name.lower() in one.lower())
        close = difflib.get_close_matches(name, index, n=10, cutoff=0.4)
        # The method stands first in a name, and is seldom what is mistyped.
        method = name.partition("_")[0]
        near += sorted(close, key=lambda one: one.partition("_")[0] != method)
        hint = f"; near it: {', '.join([*dict.fromkeys(near)][:NEAR])}" if near else ""
        raise InputError(
            "source must be a file, an address, or the name of a checkpoint in mmdetection's model "
            f"index ({len(index)} of them), got {printable(name)}{hint}"
        )
    return index[name]


def read_model_index() -> dict[str, str]:
    """Return the address of each checkpoint by its name.

    Raises:
        InputError: mmdet's wheel came without its index.
    """
    spec = importlib.util.find_spec("mmdet")  # looks for the package, and does not import it
    folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else Path()
    folder /= ".mim"
    try:
        files = _read(folder / "model-index.yml")["Import"]
        contents = [_read(folder / file) for file in files]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{folder / 'model-index.yml'} must be mmdetection's model index, got: "
            f"{printable(error)}; give source=FILE, or an address"
        ) from error
    index: dict[str, str] = {}
    for content in contents:
        models = content.get("Models") if isinstance(content, dict) else content
        for model in models or ():
            weights = model.get("Weights")
            if isinstance(weights, list):
                weights = next(iter(weights), None)
            if isinstance(weights, str):
                index.setdefault(str(model.get("Name")), weights)
    return index


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
