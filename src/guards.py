"""What a training cannot be started with, said in one line before anything is built."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig

from src.errors import InputError

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
    """The number of this machine's devices that ``trainer.devices`` asks for."""
    devices, on_gpu = trainer.devices, trainer.accelerator in ("auto", "gpu", "cuda")
    if isinstance(devices, ListConfig):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return max(1, torch.cuda.device_count()) if on_gpu else 1
    if "," in str(devices):
        return len([number for number in str(devices).split(",") if number.strip()])
    return int(devices)


def check_devices(trainer: DictConfig) -> None:
    """Refuse devices that are not there, and several on the CPU where nobody asked for the CPU.

    Raises:
        InputError: names what this machine has.
    """
    if trainer.accelerator not in ("auto", "gpu", "cuda"):
        return
    wanted, gpus = local_devices(trainer), torch.cuda.device_count()
    if gpus == 0 and not torch.accelerator.is_available():
        if trainer.accelerator != "auto":
            raise InputError(
                f"trainer.accelerator={trainer.accelerator}: this machine has no GPU; legal here "
                "is trainer.accelerator=cpu"
            )
        if wanted > 1:
            raise InputError(
                f"trainer.devices={trainer.devices}: this machine has no GPU; legal is 1, or "
                f"trainer.accelerator=cpu for {wanted} processes on the CPU"
            )
    if 0 < gpus < wanted:
        raise InputError(
            f"trainer.devices={trainer.devices}: this machine has {gpus} GPU(s); legal is 1 to "
            f"{gpus}, or auto for all"
        )


def check_precision(trainer: DictConfig) -> None:
    """Refuse a precision in which mmdet's layers do not run.

    The preprocessor, the anchors and the RoI operators compute in float32, so that a model whose
    weights are all of another type ends in a mismatch of types.

    Raises:
        InputError: names the legal ones.
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

    Callbacks and metrics that are not this project's or Lightning's may log anything, so with one
    of them any name is legal.

    Raises:
        InputError: Names the callback, and the scores that there are.
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
            off = "callbacks.evaluator"
            if "evaluator" in nodes and absent:
                off += f".metrics.{absent[0]}"
            why = f" ({off} is null)" if absent else ""
            raise InputError(
                f"callbacks.{name}.monitor must be a score that is logged ({legal}), got "
                f"{monitor}{why}; callbacks.{name}=null does without"
            )
        stops = str(node.get("_target_")).endswith("EarlyStopping")
        if stops and monitor in scores and trainer.get("limit_val_batches") == 0:
            raise InputError(
                f"callbacks.{name}.monitor={monitor} needs a validation, got "
                "trainer.limit_val_batches=0"
            )


def check_multirun(trainer: DictConfig) -> None:
    """Refuse ``-m`` with several local devices.

    Lightning starts the other devices' processes by this program's command line, and with ``-m`` in
    it each of them would start every job.

    Raises:
        InputError: see the message.
    """
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
        InputError: devices that are not there, or another value that Lightning refuses.
    """
    try:
        trainer: Trainer = instantiate(config, callbacks=callbacks, logger=loggers)
    except InstantiationException as error:
        if isinstance(error.__cause__, MisconfigurationException | ValueError):
            raise InputError(f"trainer: {_in_one_line(error.__cause__)}") from error
        raise
    return trainer


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
