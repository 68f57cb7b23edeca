"""Checkpoint files: written whole or not at all, read without running code from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from src.io import atomic_path, fsync
from src.mmdet_bridge.checkpoints.reading import check_archive, check_finite


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, pushes the file to the disk, then gives it its name.

    Lightning's own makes the whole file in memory first, and moves it from the folder of temporary
    files, which on another disk is a copy that a kill cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; one of that name stays until the new one is whole.

        Raises:
            InputError: a weight is not finite; nothing is written.
        """
        check_finite(checkpoint.get("state_dict", {}), path)
        with (
            atomic_path(path, sync=True, num_bytes=_num_bytes(checkpoint)) as partial,
            partial.open("wb") as file,  # of a path torch hides why it could not be written
        ):
            torch.save(checkpoint, file)

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
    with atomic_path(path.with_name(name)) as partial:
        os.link(path, partial)
    fsync(path.parent)


def _num_bytes(content: Any) -> int:
    """Bytes of the tensors in a checkpoint, nearly all of its file."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(_num_bytes, content.values()))
    return sum(map(_num_bytes, content)) if isinstance(content, list | tuple) else 0
