"""Checks of a run's values and files that need no torch, so that a mistake is said at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from src.cli.entry_point import to_plain
from src.errors import InputError
from src.mmdet_bridge.checkpoints.files import check_checkpoint_file, find_checkpoint
from src.mmdet_bridge.options import VIEW_CHANGES, ViewChange
from src.postprocess.late_fusion import LateFusion
from src.validation import Flag, check_values, shown

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
        if not on_gpu:
            return 1
        import torch  # takes seconds, that every other number of devices is checked without

        return max(1, torch.cuda.device_count())
    if "," in str(devices):
        return sum(bool(number.strip()) for number in str(devices).split(","))
    return int(devices)


def check_devices(trainer: DictConfig) -> None:
    """Refuse devices that are not there, and several on the CPU if nobody asked for the CPU."""
    if trainer.accelerator not in ("auto", "gpu", "cuda"):
        return
    if trainer.accelerator == "auto" and str(trainer.devices) in ("1", "auto", "-1"):
        return  # legal on every machine
    import torch  # see local_devices

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
    """Refuse a launcher that does not start as many processes as the trainer has devices.

    Raises:
        InputError: ``-m`` with several local devices, each of whose processes would start all jobs
            again; a launcher whose tasks are not the devices, or that is not asked to launch.
    """
    hydra = HydraConfig.get()
    is_submitit = "submitit" in str(hydra.launcher._target_)
    if hydra.mode != RunMode.MULTIRUN:
        if is_submitit:
            raise InputError(
                "hydra/launcher starts the jobs of -m, got no -m, so that this run would start here"
            )
        return
    wanted = local_devices(trainer)
    if is_submitit:
        for key, own, count in (
            ("tasks_per_node", "devices", wanted),
            ("nodes", "num_nodes", int(trainer.get("num_nodes") or 1)),
        ):
            if (tasks := int(hydra.launcher.get(key) or 1)) != count:
                raise InputError(
                    f"hydra.launcher.{key} must be {count}, as trainer.{own}, got {tasks}: the "
                    "launcher starts the processes"
                )
        return
    if wanted > 1:
        raise InputError(
            f"-m with trainer.devices={trainer.devices}: each of the {wanted} processes of a job "
            "would start all jobs again; start one run at a time (without -m), take "
            "trainer.devices=1, or let SLURM start the processes: hydra/launcher=submitit_slurm "
            f"hydra.launcher.tasks_per_node={wanted}"
        )


def check_resume(resume: str) -> None:
    """Refuse a checkpoint to resume from that is not there.

    Args:
        resume: ``auto``, ``never`` or a path.
    """
    if resume not in ("auto", "never") and not Path(resume).exists():
        raise InputError(
            f"resume must be auto, never or a checkpoint file, got {resume}: no such file"
        )


def find_initial_weights(initial_weights: str) -> Path:
    """Return the file of the first weights.

    Raises:
        InputError: There is no such file.
    """
    try:
        path = find_checkpoint(initial_weights)
    except InputError as error:
        raise InputError(
            f"initial_weights must be a file of weights, got {initial_weights}: no such file; "
            "python -m src.import_weights makes it of a COCO checkpoint (docs/weights.md), null "
            "starts from random weights"
        ) from error
    check_checkpoint_file(path)
    return path


def view_changes_of(config: DictConfig) -> list[ViewChange]:
    """Return the changes of the views that ``tta`` asks for.

    Raises:
        InputError: A value that is not legal; names its key.
    """
    flags: dict[str, Any] = {change: config.tta.get(change, False) for change in VIEW_CHANGES}
    check_values(dict.fromkeys(VIEW_CHANGES, Flag), flags, prefix="tta.")
    return [change for change in VIEW_CHANGES if flags[change]]


def late_fusion_of(config: DictConfig) -> LateFusion | None:
    """Return the settings of ``fusion=late``; None for ``fusion=cascade``."""
    values = to_plain(config.fusion)
    kind = values.pop("kind")
    if kind not in ("cascade", "late"):
        raise InputError(f"fusion.kind must be cascade or late, got {shown(kind)}")
    try:
        return LateFusion(**values) if kind == "late" else None
    except InputError as error:
        raise InputError(f"fusion.{error}") from error
