"""``best.ckpt``: one name for the best checkpoint, whose own name carries epoch and score."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from src.io import atomic_path


class BestLinkCallback(Callback):
    """Keep a link ``best.ckpt`` beside the checkpoints that are kept by a score.

    Args:
        monitor: the score by which a ``ModelCheckpoint`` keeps the best; None: there is no link.
    """

    def __init__(self, *, monitor: str | None) -> None:
        self.monitor = monitor

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Point to the best; it was saved at the end of validation, before this."""
        if not trainer.is_global_zero or self.monitor is None:
            return
        for callback in trainer.checkpoint_callbacks:
            if not isinstance(callback, ModelCheckpoint) or callback.monitor != self.monitor:
                continue
            best = Path(callback.best_model_path)
            if not callback.best_model_path or not best.exists():
                continue
            with atomic_path(best.with_name("best.ckpt")) as partial:
                partial.symlink_to(best.name)
