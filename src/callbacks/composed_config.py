"""The composed configuration in every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.mmdet_bridge.checkpoints.reading import CONFIG_KEY


class ComposedConfig(Callback):
    """Keep the configuration in the checkpoints, so that a run that resumes can be compared.

    Args:
        config: plain dicts, lists and values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration."""
        checkpoint[CONFIG_KEY] = self.config
