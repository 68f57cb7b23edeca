"""Messages of Lightning's that say nothing about a run here; each is left out by its text."""

from __future__ import annotations

import logging
import re
import warnings

from src.failures import rewrite_lightnings_line

_LINES = (
    # advertisements: https://github.com/Lightning-AI/pytorch-lightning/pull/21430
    "💡 Tip: For seamless cloud logging and experiment tracking, try installing [litlogger]",
    "💡 Tip: For seamless cloud uploads and versioning, try installing [litmodels]",
    # said because the value is written out:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/setup.py
    "`Trainer(limit_train_batches=1.0)` was configured so 100% of the batches per epoch will be",
    "`Trainer(limit_val_batches=1.0)` was configured so 100% of the batches will be used",
    "`Trainer(limit_predict_batches=1.0)` was configured so 100% of the batches will be used",
    "TPU available: False, using: 0 TPU cores",
    # src.cli.signals says it, once
    "\nDetected KeyboardInterrupt, attempting graceful shutdown",
    # src.resume says which file, and from which step
    "Restoring states from the checkpoint path at ",
    "Restored all states from the checkpoint at ",
)
_WARNINGS = (
    # The folder of a run that resumes:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/model_checkpoint.py
    r"Checkpoint directory .* exists and is not empty\.$",
    # The data module resumes with the right batch by itself:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    re.escape(
        "You're resuming from a checkpoint that ended before the epoch ended and your dataloader "
        "is not resumable."
    ),
    # The scores are those of all ranks already; averaging equal values could round:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/connectors/logger_connector/result.py
    r"It is recommended to use `self\.log\('validation/.*', \.\.\., sync_dist=True\)` when logging",
    # src.resume and src.callbacks.run_folder say what changed, and what comes of it:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/call.py
    re.escape(
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be "
        "provided during `Trainer` instantiation."
    ),
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/weight_averaging.py
    "The checkpoint was not created with WeightAveraging.",
    # Lightning's use of torch: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    re.escape(
        "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)"
    ),
)


def leave_out_irrelevant_messages() -> None:
    """Do so in this process; called twice it does nothing more."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_relevant)
    launcher = "lightning.fabric.strategies.launchers.subprocess_script"
    logging.getLogger(launcher).addFilter(rewrite_lightnings_line)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # Lightning gives its loggers a handler of their own where it is imported before Hydra sets
        # up logging; its lines would go into the progress bar.
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for text in _WARNINGS:
        warnings.filterwarnings("ignore", message=text)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)
