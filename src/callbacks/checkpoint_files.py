"""Checkpoint files: written whole or not at all, read without running code from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from src.mmdet_bridge.checkpoints import check_archive

UNFINISHED = ".writing"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, pushes the file to the disk, then gives it its name.

    Lightning's own makes the whole file in memory first, and moves it from the folder of temporary
    files, which on another disk is a copy that a kill cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; one of that name stays until the new one is whole."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + UNFINISHED)
        torch.save(checkpoint, temporary)
        _push_to_disk(temporary)
        os.replace(temporary, path)
        _push_to_disk(path.parent)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint as data.

        Raises:
            InputError: the file is damaged.
        """
        check_archive(Path(path))
        return super().load_checkpoint(path, map_location=map_location, weights_only=True)


def link(path: Path, name: str) -> None:
    """Give a file a second name in its folder, in place of what had that name before."""
    temporary = path.with_name(name + UNFINISHED)
    temporary.unlink(missing_ok=True)
    os.link(path, temporary)
    os.replace(temporary, path.with_name(name))
    _push_to_disk(path.parent)


def _push_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
