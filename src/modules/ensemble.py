"""Ensembles: choose and read the checkpoints, and predict with all of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from src.errors import InputError
from src.io import describe_difference
from src.mmdet_bridge.cascade import detectors
from src.mmdet_bridge.cascade.detectors import VIEW_CHANGES, Detector, ViewChange
from src.mmdet_bridge.cascade.inference import (
    FEATURE_MEMORY_CPU_GB,
    FEATURE_MEMORY_GB,
    SeedProposals,
    predict_candidates,
)
from src.mmdet_bridge.cascade.passes import MaskStages
from src.mmdet_bridge.checkpoints import reading
from src.mmdet_bridge.checkpoints.reading import Checkpoint, load_checkpoint, read_run_id
from src.mmdet_bridge.checkpoints.untrusted_config import check_class_list, check_untrusted_detector
from src.modules.cascade import check_candidates
from src.postprocess.late_fusion import LateFusion, fuse
from src.predictions.candidates import Candidates
from src.validation import check_values, check_weights, number, one_of

log = logging.getLogger(__name__)

SCORE_IN_NAME = re.compile(r"_score_(\d+(?:\.\d+)?)(?:-v\d+)?\.ckpt$")
LAST_CHECKPOINT = "last.ckpt"  # has the states of the callbacks that kept the best
INFERENCE_KEYS = ("test_cfg", "sizes")  # taken from the configuration, not from a checkpoint
DIFFERENCES_SHOWN = 3


def checkpoint_paths(checkpoint: Any, *, best: int | None, directory: Path) -> list[Path]:
    """Return the paths of an ensemble's checkpoints.

    Args:
        checkpoint: The value of ``checkpoint=``: a path, a list of paths, or None.
        best: Number of the folder's best checkpoints to take; None: those of ``checkpoint``.
        directory: A run's folder of checkpoints.

    Raises:
        InputError: Checkpoints are given in neither way or in both, or a file does not exist.
    """
    if best is not None:
        if checkpoint is not None:
            key = f"ensemble.num_best={best}"
            raise InputError(f"checkpoint must be null with {key}, got {checkpoint}")
        return best_checkpoints(directory, best)
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or [])
    if not names:
        raise InputError(
            "checkpoint must be the trained weights, a path or a list of paths, got null; or give "
            "ensemble=top3, which takes a run's best"
        )
    paths = [reading.find_checkpoint(str(name)) for name in names]
    for path in paths:
        reading.check_checkpoint_file(path)
    return paths


def best_checkpoints(directory: Path, count: int) -> list[Path]:
    """Return a run's checkpoints with the highest scores, best first, equal ones by name.

    Scores are in the names (``best_epoch_07_score_0.3312.ckpt``); if no name has one, they are read
    from the state of the ``ModelCheckpoint`` callbacks in ``last.ckpt``.

    Raises:
        InputError: There are fewer; the message says how many.
    """
    named = [(SCORE_IN_NAME.search(path.name), path) for path in directory.glob("*.ckpt")]
    of_runs = {path: read_run_id(path) for found, path in named if found}
    run_id = _newest_run_id(directory)
    scores = {path: float(found[1]) for found, path in named if found and of_runs[path] == run_id}
    if others := [path.name for path in of_runs if path not in scores]:
        log.warning("left out, because another run wrote them: %s", ", ".join(sorted(others)))
    if not scores and (directory / LAST_CHECKPOINT).is_file():
        scores = _scores_of_callbacks(directory)
    if not 1 <= count <= len(scores):
        raise InputError(
            "ensemble.num_best must be at least 1 and at most the checkpoints with a score in "
            f"{directory}, {len(scores)} (best_epoch_07_score_0.3312.ckpt has the score 0.3312), "
            f"got {count}"
        )
    return sorted(scores, key=lambda path: (-scores[path], path.name))[:count]


def _newest_run_id(directory: Path) -> str:
    """Return the run id of a folder's last, or newest, checkpoint."""
    files = [path for path in directory.glob("*.ckpt") if path.is_file()]
    files.sort(key=lambda path: (path.name == LAST_CHECKPOINT, path.stat().st_mtime), reverse=True)
    return next(filter(None, map(read_run_id, files)), "")


def _scores_of_callbacks(directory: Path) -> dict[Path, float]:
    """Read the scores that callbacks kept, of files by name, as a run may have been moved."""
    scores: dict[Path, float] = {}
    run_id = read_run_id(directory / LAST_CHECKPOINT)
    for state in load_checkpoint(directory / LAST_CHECKPOINT).callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") == "validation/competition_map":
            best = state.get("best_k_models")
            for name, score in best.items() if isinstance(best, Mapping) else ():
                path = directory / Path(str(name)).name
                is_own = path.is_file() and read_run_id(path) == run_id
                if is_own and isinstance(score, int | float | torch.Tensor):
                    scores[path] = float(score)
    return scores


def load_models(
    paths: Sequence[Path],
    *,
    detector: Mapping[str, Any],
    num_classes: int,
    category_ids: Sequence[int] | None,
    own_inference: bool = False,
) -> list[Detector]:
    """Build the detector of each checkpoint and load its weights.

    A Lightning checkpoint has its detector's configuration, so models may differ in backbone; only
    ``INFERENCE_KEYS`` are taken from ``detector``, unless ``own_inference``.

    Args:
        detector: mmdet's configuration for weights without one.
        category_ids: Required ids of the classes; None: 0, 1, 2, ...
        own_inference: Whether a checkpoint's own configuration holds for inference, too.

    Raises:
        InputError: A checkpoint does not fit or is given twice; the message names it.
    """
    models: list[Detector] = []
    known: dict[str, Path] = {}
    classes = list(range(num_classes) if category_ids is None else category_ids)
    for path in paths:
        checkpoint = load_checkpoint(path)
        reading.check_finite(checkpoint.weights, path)
        _check_classes(path, checkpoint, classes)
        reading.check_given_once(known, path, checkpoint.weights)
        own = _configuration(path, checkpoint, detector, own_inference=own_inference)
        try:
            model = detectors.build_detector(own, init_weights=False)
            detectors.check_detector(model)
            detectors.load_weights(model, checkpoint.weights)
        except InputError as error:
            raise InputError(f"checkpoint {path}: {error}") from error
        models.append(model.eval())
    detectors.check_ensemble(models, [f"checkpoint {path}" for path in paths])
    return models


def _configuration(
    path: Path, checkpoint: Checkpoint, detector: Mapping[str, Any], *, own_inference: bool
) -> dict[str, Any]:
    own = checkpoint.hyper_parameters.get("detector")
    if own is None:
        return dict(detector)
    check_untrusted_detector(own, source=f"checkpoint {path}", key="hyper_parameters.detector")
    if own_inference:
        return dict(own)
    used = {**own, **{key: detector[key] for key in INFERENCE_KEYS if key in detector}}
    if differences := describe_difference(used, dict(detector)):
        more = " ..." if len(differences) > DIFFERENCES_SHOWN else ""
        log.info(
            "%s is built as it was trained, which differs from module.detector: %s%s",
            *(path, "; ".join(differences[:DIFFERENCES_SHOWN]), more),
        )
    return used


def _check_classes(path: Path, checkpoint: Checkpoint, wanted: list[int]) -> None:
    """Check the classes that Lightning recorded, else the number of them in the weights."""
    classes = check_class_list(checkpoint.hyper_parameters, source=f"checkpoint {path}")
    heads = [v for k, v in checkpoint.weights.items() if k.endswith("bbox_head.0.fc_cls.weight")]
    if classes is not None:
        own = list(range(classes[0])) if classes[1] is None else classes[1]
    elif heads:
        own = list(range(len(heads[0]) - 1))  # the last is the background
        if len(own) == len(wanted):
            return
    else:
        return
    if len(own) != len(wanted):
        raise InputError(
            f"checkpoint {path}: another class list: it must have {len(wanted)} classes "
            f"(module.num_classes), got {len(own)}"
        )
    for place, (found, category) in enumerate(zip(own, wanted, strict=True)):
        if found != category:
            raise InputError(
                f"checkpoint {path}: another class list: class {place} must be category "
                f"{category} (module.category_ids), got {found}"
            )


_GIGABYTES = number(least=0, legal="a number of GB, 0 or more")


class CascadeEnsemble(LightningModule):
    """Ensemble that predicts inside the cascade; all models are on the device.

    Arguments that are not listed here are those of ``predict_candidates``.

    Args:
        models: M detectors that fit together, see ``check_ensemble``.
        category_ids: Category id of each class in the models' order.
        model_weights: M weights above 0 of the averages; None: equal.
        view_changes: Each view is also predicted with each of these, and with those together; see
            ``VIEW_CHANGES``.
        late_fusion: Settings that fuse the detections of each model on each view; None: models and
            views meet inside the cascade.

    Attributes:
        failures: Why an image could not be predicted, by image id.

    Raises:
        InputError: A value that is not legal; names its key.
    """

    def __init__(
        self,
        models: Sequence[Detector],
        *,
        category_ids: Sequence[int],
        min_score: float = 0.001,
        max_candidates: int = 1000,
        mask_stages: MaskStages = "all",
        model_weights: Sequence[float] | None = None,
        view_changes: Collection[ViewChange] = (),
        seed_proposals: SeedProposals = "all",
        feature_memory_gb: float = FEATURE_MEMORY_GB,
        feature_memory_cpu_gb: float = FEATURE_MEMORY_CPU_GB,
        max_low_score_candidates: int | None = None,
        late_fusion: LateFusion | None = None,
    ) -> None:
        super().__init__()
        self.category_ids = list(category_ids)
        num_classes = models[0].roi_head.bbox_head[-1].num_classes
        check_candidates(self.category_ids, num_classes, min_score, max_candidates, mask_stages)
        if model_weights is not None:
            check_weights("ensemble.model_weights", model_weights, len(models))
        kinds = {
            "seed_proposals": one_of("all", "first_view"),  # first_view: the winning code's mistake
            "feature_memory_gb": _GIGABYTES,
            "feature_memory_cpu_gb": _GIGABYTES,
        }
        check_values(kinds, locals())
        self.failures: dict[str, str] = {}
        self.models = nn.ModuleList(models)
        self.min_score = min_score
        self.view_changes = [change for change in VIEW_CHANGES if change in view_changes]
        self.model_weights, self.late_fusion = model_weights, late_fusion
        self._predict = partial(
            predict_candidates,
            category_ids=self.category_ids,
            min_score=min_score,
            max_candidates=max_candidates,
            mask_stages=mask_stages,
            seed_proposals=seed_proposals,
            feature_memory_gb=feature_memory_gb,
            feature_memory_cpu_gb=feature_memory_cpu_gb,
            max_low_score_candidates=max_low_score_candidates,
        )

    def predict_step(self, batch: Mapping[str, Any], batch_index: int) -> list[Candidates]:
        """Predict the candidates of the batch's images, in their order, without failed ones.

        Args:
            batch: A ``ViewsBatch``: for each scale a batch of the same images, and failures.
        """
        self.failures |= batch["failures"]
        views = list(batch["views"])
        if not views:
            return []
        for change in self.view_changes:
            views += [detectors.change_batch(view, change) for view in views]
        try:
            if self.late_fusion is not None:
                return self._fused_late(views, self.late_fusion)
            return self._predict(list(self.models), views, model_weights=self.model_weights)
        except InputError as error:  # an image too large for the device must not end the run
            self.failures |= {sample.img_id: str(error) for sample in views[0]["data_samples"]}
            return []

    def _fused_late(self, views: list[Mapping[str, Any]], settings: LateFusion) -> list[Candidates]:
        """Fuse the detections of each model on each view."""
        found, weights = [], []
        for place, model in enumerate(self.models):
            for view in views:
                found.append(self._predict([model], [view]))
                weights.append(self.model_weights[place] if self.model_weights else 1.0)
        return [
            fuse(of_image, settings, weights=weights, category_ids=self.category_ids)
            for of_image in zip(*found, strict=True)
        ]
