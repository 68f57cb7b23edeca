"""The work of ``python -m src.train``, whose imports take seconds."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from src import processes
from src.annotations.categories import CLASS_NAMES_KEY, ClassList
from src.callbacks.loggers import begin_at_step
from src.callbacks.run_record import DataFingerprint, RunFolder, RunRecord, finishing, new_run_id
from src.callbacks.training_steps import MemoryAdvice
from src.cli.derived_config import loggers_with_id
from src.cli.entry_point import instantiate_all
from src.cli.preflight import build_trainer, explain_failure, start_process
from src.cli.resume import (
    SUPERSEDED,
    FoundCheckpoint,
    archive_later_checkpoints,
    describe_next_start,
    score_changes,
)
from src.cli.run_checks import find_initial_weights
from src.errors import InputError
from src.mmdet_bridge.checkpoints.backbone_import import is_backbone_only, load_backbone
from src.mmdet_bridge.checkpoints.reading import Checkpoint, check_finite, load_checkpoint
from src.mmdet_bridge.checkpoints.weight_import import order_classes
from src.modules.cascade import CascadeModule

log = logging.getLogger(__name__)

BACKBONE_CURE = (
    "`make weights` gets those of MobileNetV2, `python -m src.import_weights scope=backbone` makes "
    "others; module.backbone_weights=null for none"
)


def fit(
    config: DictConfig,
    *,
    plain_config: dict[str, Any],
    classes: ClassList,
    found: FoundCheckpoint | None,
) -> float | None:
    """Train to the end.

    Args:
        config: The composed configuration with the data's classes.
        plain_config: The same without interpolations, for the record.
        classes: The model's classes.
        found: The checkpoint to resume from; None: start from the beginning.

    Returns:
        The best competition score on the validation images, in [0, 1]; None without any.
    """
    start_process(config)
    checkpoints = Path(config.paths.output_dir) / "checkpoints"
    datamodule = instantiate(config.datamodule)
    datamodule.fallback_directory = Path(config.paths.output_dir)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    module = instantiate(config.module)
    module.name_classes(classes.names or ())
    if found is None:
        start_from(module, config.initial_weights)
    run_id = new_run_id() if found is None else found.run_id
    loggers = instantiate_all(loggers_with_id(config.get("logger"), run_id))
    begin_at_step(loggers, 0 if found is None else found.step)
    callbacks = instantiate_all(config.callbacks)
    if not loggers:  # Lightning refuses this callback without a logger
        callbacks = [one for one in callbacks if not isinstance(one, LearningRateMonitor)]
    advice = MemoryAdvice()
    record = RunRecord(config=plain_config, directory=config.paths.output_dir)
    changes = [] if found is None else score_changes(found, plain_config)
    if changes:
        log.warning(
            "%s changed, so scores of then and now are two metrics: the best checkpoints are "
            "ranked from now on, those so far are moved to %s/",
            ", ".join(changes),
            SUPERSEDED,
        )
    step = -1 if found is None else found.step
    clear = partial(archive_later_checkpoints, checkpoints, after_step=step, run_id=run_id)
    folder = RunFolder(run_id=run_id, clear=clear, ranks_anew=bool(changes))
    callbacks += [record, advice, DataFingerprint(), folder]
    trainer = build_trainer(config.trainer, callbacks=callbacks, loggers=loggers)
    if found is None:  # Lightning would load a checkpoint of a requeued SLURM job by itself
        trainer._checkpoint_connector._user_managed = True
    next_start = partial(describe_next_start, resume=config.resume, directory=checkpoints)
    try:
        with finishing(loggers):
            resumed = None if found is None else found.path
            trainer.fit(module, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise InputError(advice.message()) from error
    except InputError:
        raise
    except Exception as error:  # any line can raise the end of a worker
        if (failure := explain_failure(error, trainer)) is None:
            raise
        raise InputError(f"{failure}; {next_start()}") from error
    except SystemExit as error:  # Lightning's end at Ctrl-C and at SIGTERM
        if processes.received_signal() is None and not isinstance(error, SIGTERMException):
            raise
        processes.leave(f"stopped at step {trainer.global_step}; {next_start()}")
    return best_score(trainer)


def start_from(module: CascadeModule, initial_weights: str | None) -> None:
    """Give a module its first weights."""
    if initial_weights is None:
        _start_from_backbone(module)
        return
    path = find_initial_weights(initial_weights)
    checkpoint = load_checkpoint(path)
    check_finite(checkpoint.weights, path)
    if is_backbone_only(checkpoint.weights):
        _load_backbone(module, checkpoint, key="initial_weights")
        return
    weights, given = checkpoint.weights, checkpoint.classes
    if given is not None:
        names = module.hparams.get(CLASS_NAMES_KEY)
        wanted = ClassList.from_plain(module.category_ids, names)
        try:
            weights = order_classes(weights, module.detector, given=given, wanted=wanted)
        except InputError as error:
            raise InputError(f"initial_weights={initial_weights}: {error}") from error
        if given.category_ids != wanted.category_ids:
            log.info("initial_weights=%s: classes are put into the model's order", initial_weights)
    module.load_weights(weights)
    log.info(
        "initial_weights=%s: all %d tensors of the model came from the file",
        path,
        len(module.detector.state_dict()),
    )


def _start_from_backbone(module: CascadeModule) -> None:
    """Give a module's backbone the weights of its configuration, or say what is random."""
    backbone = module.backbone_weights
    if backbone is not None and Path(backbone).exists():
        _load_backbone(module, load_checkpoint(backbone), key="module.backbone_weights")
        return
    fixed = sum(not parameter.requires_grad for parameter in module.parameters())
    if backbone is not None:
        log.warning(
            "module.backbone_weights=%s: no such file, so the backbone starts from random "
            "weights, and the %d frozen ones of it stay so; %s",
            backbone,
            fixed,
            BACKBONE_CURE,
        )
    elif fixed:
        log.warning("initial_weights=null: %d parameters of the frozen stages stay random", fixed)


def _load_backbone(module: CascadeModule, checkpoint: Checkpoint, *, key: str) -> None:
    """Give a module's backbone its first weights, and say how many tensors they are."""
    check_finite(checkpoint.weights, checkpoint.path)
    if not is_backbone_only(checkpoint.weights):
        raise InputError(
            f"{key} must be a file of python -m src.import_weights scope=backbone, whose names "
            f"start with backbone., got {checkpoint.path}"
        )
    loaded, others = load_backbone(module.detector, checkpoint)
    log.info(
        "%s=%s: %d tensors of the model came from the file, %d are random, drawn from the seed",
        key,
        checkpoint.path,
        loaded,
        others,
    )


def best_score(trainer: lightning.Trainer) -> float | None:
    """Return the best score that checkpoints were kept by, or the last one if none are kept."""
    scores = [getattr(kept, "best_model_score", None) for kept in trainer.checkpoint_callbacks]
    scores.append(trainer.callback_metrics.get("validation/competition_map"))
    return next((float(score) for score in scores if score is not None), None)
