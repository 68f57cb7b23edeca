"""A trainer's process: its setup and devices, filters of messages, its failures in one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
import warnings
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from src.datamodules.loading import explain_loader_failure, messages_behind
from src.errors import InputError
from src.processes import adopt_ranks, die_with_parent, is_adopted_rank

PATIENCE_S = 30.0
# gloo and NCCL, when the process at the other end is gone:
# https://github.com/pytorch/gloo/blob/main/gloo/transport/tcp/pair.cc
_LOST_PROCESS = re.compile(
    r"gloo.*(Connection (closed|reset) by peer|Broken pipe|Timed out)|Connection closed by peer|"
    r"ncclRemoteError|NCCL (error|timeout)|DistBackendError",
    flags=re.S,
)
_LIGHTNINGS_LINE = re.compile(r"Child process with PID (\d+) terminated with code (-?\d+)\.")


def explain_failure(error: BaseException, trainer: Trainer) -> InputError | None:
    """Return one line for a killed loader worker, a killed rank or a loader that gives nothing.

    Other errors give None, and keep their traceback.
    """
    if (found := explain_loader_failure(error)) is not None:
        return found
    if trainer.world_size > 1 and _LOST_PROCESS.search(messages_behind(error)):
        if is_adopted_rank():
            time.sleep(PATIENCE_S)  # the first process says which one ended, and ends this one
        launcher = trainer.strategy.launcher
        for rank, process in enumerate(getattr(launcher, "procs", []), start=1):
            if code := process.poll():
                return InputError(describe_ended_rank(rank, process.pid, code))
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return InputError(
            f"rank {trainer.global_rank} lost a process of this run ({first_line}): its "
            "own message, or the system's log, says why it ended"
        )
    return None


def describe_ended_rank(rank: int, pid: int, code: int) -> str:
    """Return a line on a rank that ended: a signal with its likely cause, or its exit code.

    ``code`` is that of ``subprocess``: an exit code, or minus the number of a signal.
    """
    if code >= 0:
        return f"rank {rank} (process {pid}) ended with exit code {code}; its message stands above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    cause = ": most often the system ran out of memory" if -code == signal.SIGKILL else ""
    return f"rank {rank} (process {pid}) was ended by {name}{cause}"


def rewrite_lightnings_line(record: logging.LogRecord) -> bool:
    """Rewrite Lightning's line about an ended rank, its last before it kills all; a log filter."""
    if found := _LIGHTNINGS_LINE.search(record.getMessage()):
        rank = re.search(r"\[rank: (\d+)\]", record.getMessage())
        what = describe_ended_rank(int(rank[1]) if rank else -1, int(found[1]), int(found[2]))
        record.msg, record.args = f"error: {what}; this run ends, the same command resumes it", ()
        record.levelno, record.levelname = logging.ERROR, "ERROR"
    return True


_LINES = (
    # advertisements: https://github.com/Lightning-AI/pytorch-lightning/pull/21430
    "💡 Tip: For seamless cloud logging and experiment tracking, try installing [litlogger]",
    "💡 Tip: For seamless cloud uploads and versioning, try installing [litmodels]",
    # logged because the value is written out:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/setup.py
    "`Trainer(limit_train_batches=1.0)` was configured so 100% of the batches per epoch will be",
    "`Trainer(limit_val_batches=1.0)` was configured so 100% of the batches will be used",
    "`Trainer(limit_predict_batches=1.0)` was configured so 100% of the batches will be used",
    "TPU available: False, using: 0 TPU cores",
    # src.cli.run_checks refuses devices that are not there
    "GPU available: False, used: False",
    # src.processes says it, once
    "\nDetected KeyboardInterrupt, attempting graceful shutdown",
    # src.cli.resume says which file, and from which step
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
    # src.cli.resume and src.callbacks.run_record say what changed, and what comes of it:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/call.py
    re.escape(
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be "
        "provided during `Trainer` instantiation."
    ),
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/weight_averaging.py
    "The checkpoint was not created with WeightAveraging.",
    # Frozen stages are meant to be:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/fit_loop.py
    r"Found \d+ module\(s\) in eval mode at the start of training\.",
    # The configuration says trainer.accelerator=cpu:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/setup.py
    r"GPU available but not used\. You can set it by doing `Trainer\(accelerator='gpu'\)`\.",
    # The configuration says how many (datamodule.num_workers), and callbacks.training_speed how
    # long a training waits for them:
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/connectors/data_connector.py
    r"The '\w+_dataloader' does not have many workers which may be a bottleneck\.",
    # https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/data/dataloader.py
    r"This DataLoader will create \d+ worker processes in total\.",
    # Lightning's use of torch: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    re.escape(
        "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)"
    ),
)


def silence_lightning() -> None:
    """Silence messages of Lightning that do not concern the user; calling it twice does nothing."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_relevant)
    launcher = "lightning.fabric.strategies.launchers.subprocess_script"
    logging.getLogger(launcher).addFilter(rewrite_lightnings_line)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # Imported before Hydra sets up logging, Lightning gives its loggers a handler of their own,
        # which would write into the progress bar.
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for text in _WARNINGS:
        warnings.filterwarnings("ignore", message=text)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


def start_process(config: DictConfig) -> None:
    """Set up this process of a run by its configuration."""
    silence_lightning()
    if os.environ.get("LOCAL_RANK", "0") != "0":
        die_with_parent()  # so that a device is free again when the first process is killed
    else:
        adopt_ranks()
    if config.num_torch_threads is not None:
        torch.set_num_threads(config.num_torch_threads)


def build_trainer(config: DictConfig, *, callbacks: list[Callback], loggers: list[Any]) -> Trainer:
    """Build Lightning's trainer.

    Raises:
        InputError: Devices that are not there, or another value that Lightning refuses.
    """
    try:
        trainer: Trainer = instantiate(config, callbacks=callbacks, logger=loggers)
    except InstantiationException as error:
        if isinstance(error.__cause__, MisconfigurationException | ValueError):
            raise InputError(f"trainer: {' '.join(str(error.__cause__).split())}") from error
        raise
    return trainer
