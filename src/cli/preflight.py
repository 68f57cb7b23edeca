"""Checks of a trainer's setup, filters of its messages, and its failures in one line."""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, ListConfig

from src.datamodules.loading import explain_loader_failure, messages_behind
from src.errors import InputError
from src.processes import die_with_parent

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


# The last three are Lightning's older names of the first three.
LEGAL_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")

_COCO = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
# The scores of a validation, by the metric of callbacks.evaluator that logs them.
SCORES = {
    "competition_score": ("validation/competition_map",),
    "coco_average_precision": tuple(
        f"validation/coco_{kind}{name}" for kind in ("", "box_") for name in _COCO
    ),
}


def local_devices(trainer: DictConfig) -> int:
    """Return the number of this machine's devices that ``trainer.devices`` asks for."""
    devices, on_gpu = trainer.devices, trainer.accelerator in ("auto", "gpu", "cuda")
    if isinstance(devices, ListConfig):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return max(1, torch.cuda.device_count()) if on_gpu else 1
    if "," in str(devices):
        return sum(bool(number.strip()) for number in str(devices).split(","))
    return int(devices)


def start_process(config: DictConfig) -> None:
    """Set up this process of a run by its configuration; check devices and precision."""
    silence_lightning()
    if os.environ.get("LOCAL_RANK", "0") != "0":
        die_with_parent()  # so that a device is free again when the first process is killed
    if config.num_torch_threads is not None:
        torch.set_num_threads(config.num_torch_threads)
    check_devices(config.trainer)
    check_precision(config.trainer)


def check_devices(trainer: DictConfig) -> None:
    """Refuse devices that are not there, and several on the CPU if nobody asked for the CPU."""
    if trainer.accelerator not in ("auto", "gpu", "cuda"):
        return
    wanted, gpus = local_devices(trainer), torch.cuda.device_count()
    if gpus == 0 and not torch.accelerator.is_available():
        if trainer.accelerator != "auto":
            raise InputError(
                "trainer.accelerator must be cpu on this machine, which has no GPU, got "
                f"{trainer.accelerator}"
            )
        if wanted > 1:
            raise InputError(
                "trainer.devices must be 1 on this machine, which has no GPU, got "
                f"{trainer.devices}; trainer.accelerator=cpu is for several processes on the CPU"
            )
    if 0 < gpus < wanted:
        raise InputError(
            f"trainer.devices must be 1 to {gpus}, the GPUs of this machine, or auto for all, got "
            f"{trainer.devices}"
        )


def check_precision(trainer: DictConfig) -> None:
    """Refuse a precision in which mmdet's layers do not run.

    The preprocessor, the anchors and the RoI operators compute in float32, so that a model whose
    weights are all of another type ends in a mismatch of types.
    """
    precision = "32-true" if trainer.precision is None else str(trainer.precision)
    if precision not in LEGAL_PRECISIONS:
        raise InputError(
            f"trainer.precision must be one of {', '.join(LEGAL_PRECISIONS[:3])}, got {precision}; "
            "the mixed ones keep the weights in float32 and compute in half precision where that "
            "is safe"
        )


def check_monitors(callbacks: Mapping[str, Any] | None, trainer: Mapping[str, Any]) -> None:
    """Refuse a score to monitor that nothing logs, which would end the run after its first epoch.

    With a callback or metric that is not this project's or Lightning's, any name is legal.

    Raises:
        InputError: Names the callback, and the scores that are logged.
    """
    nodes = {str(name): node for name, node in (callbacks or {}).items() if node is not None}
    metrics = {
        str(name): node
        for name, node in (nodes.get("evaluator", {}).get("metrics") or {}).items()
        if node is not None
    }
    targets = [str(node.get("_target_")) for node in [*nodes.values(), *metrics.values()]]
    scores = [name for key, names in SCORES.items() if key in metrics for name in names]
    is_known = all(target.startswith(("src.", "lightning.")) for target in targets)
    for name, node in nodes.items():
        monitor = node.get("monitor")
        if monitor is None or monitor.startswith(("train/", "speed/")):
            continue
        if is_known and monitor not in scores:
            near = difflib.get_close_matches(str(monitor), scores, n=4, cutoff=0.3) or scores
            legal = ", ".join([*near, "train/loss"])
            absent = [key for key, names in SCORES.items() if monitor in names]
            off = f".metrics.{absent[0]}" if "evaluator" in nodes and absent else ""
            why = f" (callbacks.evaluator{off} is null)" if absent else ""
            raise InputError(
                f"callbacks.{name}.monitor must be a score that is logged ({legal}), got "
                f"{monitor}{why}; callbacks.{name}=null does without"
            )
        stops = str(node.get("_target_")).endswith("EarlyStopping")
        if stops and monitor in scores and trainer.get("limit_val_batches") == 0:
            raise InputError(
                "trainer.limit_val_batches must leave a validation, which "
                f"callbacks.{name}.monitor={monitor} needs, got 0"
            )


def check_multirun(trainer: DictConfig) -> None:
    """Refuse ``-m`` with several local devices: each of their processes would start all jobs."""
    hydra = HydraConfig.get()
    launcher = str(hydra.launcher._target_)
    wanted = local_devices(trainer)
    if hydra.mode == RunMode.MULTIRUN and wanted > 1 and "submitit" not in launcher:
        raise InputError(
            f"-m with trainer.devices={trainer.devices}: each of the {wanted} processes of a job "
            "would start all jobs again; start one run at a time (without -m), take "
            "trainer.devices=1, or let SLURM start the processes: hydra/launcher=submitit_slurm "
            f"hydra.launcher.tasks_per_node={wanted}"
        )


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
