"""Ensembles: choose and read the checkpoints, and predict with all of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from src.errors import InputError
from src.io import describe_difference
from src.mmdet_bridge.cascade.detectors import (
    Detector,
    build_detector,
    check_detector,
    check_ensemble,
    load_weights,
)
from src.mmdet_bridge.cascade.inference import (
    FEATURE_MEMORY_CPU_GB,
    FEATURE_MEMORY_GB,
    SeedProposals,
    predict_candidates,
)
from src.mmdet_bridge.cascade.passes import MaskStages
from src.mmdet_bridge.cascade.samples import flip_batch
from src.mmdet_bridge.checkpoints.reading import (
    Checkpoint,
    check_checkpoint_file,
    check_finite,
    check_given_once,
    find_checkpoint,
    load_checkpoint,
    read_run_id,
)
from src.mmdet_bridge.checkpoints.untrusted_config import check_class_list, check_untrusted_detector
from src.modules.cascade import check_candidates
from src.postprocess.late_fusion import LateFusion, fuse
from src.predictions.candidates import Candidates
from src.validation import Flag, check_value, check_values, check_weights, number, one_of

log = logging.getLogger(__name__)

SCORE_IN_NAME = re.compile(r"_score_(\d+(?:\.\d+)?)(?:-v\d+)?\.ckpt$")
SCORE_TYPES = (int, float, torch.Tensor)
LAST_CHECKPOINT = "last.ckpt"  # carries the states of the callbacks that kept the best
INFERENCE_KEYS = (
    "test_cfg",
    "sizes",
)  # the configuration's, whatever a checkpoint was trained with
DIFFERENCES_SHOWN = 3


def checkpoint_paths(checkpoint: Any, *, best: int | None, directory: Path) -> list[Path]:
    """The checkpoints of an ensemble.

    Args:
        checkpoint: ``checkpoint=``: a path, a list of paths, or None.
        best: None: those of ``checkpoint``. A number: so many of the folder, by score.
        directory: a run's folder of checkpoints.

    Raises:
        InputError: none given, given in both ways, or no such file.
    """
    if best is not None:
        if checkpoint is not None:
            raise InputError(
                f"checkpoint={checkpoint} and ensemble.num_best={best} are given: one of both is "
                "legal"
            )
        return best_checkpoints(directory, best)
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or [])
    if not names:
        raise InputError(
            "checkpoint=null: give the trained weights, a path or a list of paths, or "
            "ensemble=top3, which takes a run's best"
        )
    paths = [find_checkpoint(str(name)) for name in names]
    for path in paths:
        check_checkpoint_file(path)
    return paths


def best_checkpoints(directory: Path, count: int) -> list[Path]:
    """The checkpoints of a run with the highest scores, the best first; of equal ones by name.

    Scores are in the names (``best_epoch_07_score_0.3312.ckpt``); where no name has one, the state
    of the ``ModelCheckpoint`` callbacks in ``last.ckpt`` says which files were the best.

    Raises:
        InputError: there are fewer; says how many, and where they were looked for.
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
            f"ensemble.num_best={count}: {len(scores)} checkpoints with a score are in {directory} "
            "(best_epoch_07_score_0.3312.ckpt is the score 0.3312 after epoch 7)"
        )
    return sorted(scores, key=lambda path: (-scores[path], path.name))[:count]


def _newest_run_id(directory: Path) -> str:
    """Return the id of the run that a folder is of: that of its last, or newest, checkpoint."""
    files = [path for path in directory.glob("*.ckpt") if path.is_file()]
    files.sort(key=lambda path: (path.name == LAST_CHECKPOINT, path.stat().st_mtime), reverse=True)
    return next(filter(None, map(read_run_id, files)), "")


def _scores_of_callbacks(directory: Path) -> dict[Path, float]:
    """A run may have been moved, so files are looked for by name in its folder."""
    scores: dict[Path, float] = {}
    run_id = read_run_id(directory / LAST_CHECKPOINT)
    for state in load_checkpoint(directory / LAST_CHECKPOINT).callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") == "validation/competition_map":
            best = state.get("best_k_models")
            for name, score in best.items() if isinstance(best, Mapping) else ():
                path = directory / Path(str(name)).name
                if not path.is_file() or read_run_id(path) != run_id:
                    continue
                if isinstance(score, SCORE_TYPES):
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

    A checkpoint of Lightning's carries its detector's configuration: models of different backbones
    need no configuration each. From ``detector`` they take what belongs to inference alone, unless
    ``own_inference``.

    Args:
        paths: the checkpoints.
        detector: mmdet's configuration for weights that carry none.
        num_classes: that every checkpoint has to have.
        category_ids: ids of its classes; None: 0, 1, 2, ...
        own_inference: whether a checkpoint's own configuration holds for inference, too.

    Raises:
        InputError: names the checkpoint, and what does not fit, or one that is given twice.
    """
    models: list[Detector] = []
    known: dict[str, Path] = {}
    classes = list(range(num_classes) if category_ids is None else category_ids)
    for path in paths:
        checkpoint = load_checkpoint(path)
        check_finite(checkpoint.weights, path)
        _check_classes(path, checkpoint, classes)
        check_given_once(known, path, checkpoint.weights)
        own = _configuration(path, checkpoint, detector, own_inference=own_inference)
        try:
            model = build_detector(own, init_weights=False)
            check_detector(model)
            load_weights(model, checkpoint.weights)
        except InputError as error:
            raise InputError(f"checkpoint {path}: {error}") from error
        models.append(model.eval())
    check_ensemble(models, [f"checkpoint {path}" for path in paths])
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
    differences = describe_difference(used, dict(detector))
    if differences:
        shown = "; ".join(differences[:DIFFERENCES_SHOWN])
        log.info(
            "%s is built as it was trained, which differs from module.detector: %s%s",
            path,
            shown,
            " ..." if len(differences) > DIFFERENCES_SHOWN else "",
        )
    return used


def _check_classes(path: Path, checkpoint: Checkpoint, wanted: list[int]) -> None:
    """Compare with the classes that Lightning recorded, else with the number that weights show."""
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
    if own == wanted:
        return
    if len(own) != len(wanted):
        difference = f"it has {len(own)} classes, module.num_classes is {len(wanted)}"
    else:
        place = next(n for n in range(len(own)) if own[n] != wanted[n])
        difference = (
            f"its class {place} is category {own[place]}, module.category_ids has {wanted[place]}"
        )
    raise InputError(f"checkpoint {path}: another class list: {difference}")


_GIGABYTES = number(least=0, legal="a number of GB, 0 or more")


class CascadeEnsemble(LightningModule):
    """Predicts inside the cascade, see ``predict_candidates``; all models are on the device.

    ``failures`` says which images could not be predicted so far, and why, by image id.

    Args:
        models: M detectors that fit together, see ``check_ensemble``.
        category_ids: the data's id of each class in the models' order.
        min_score: (box, class) pairs with a score above it are candidates, in [0, 1).
        max_candidates: an image keeps its best so many.
        mask_stages: see ``predict_candidates``.
        model_weights: M weights above 0 of the averages; None: equal.
        flip: each view is seen mirrored, too.
        seed_proposals: see ``predict_candidates``.
        feature_memory_gb: see ``KeptFeatures``.
        feature_memory_cpu_gb: see ``KeptFeatures``.
        max_low_score_candidates: see ``predict_candidates``.
        late_fusion: each model predicts each view alone, and what they detect is fused by these
            settings; None: they meet inside the cascade.

    Raises:
        InputError: a value that is not legal; names its key.
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
        flip: bool = False,
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
        check_value("tta.flip", flip, Flag)
        self.failures: dict[str, str] = {}
        self.models = nn.ModuleList(models)
        self.min_score = min_score
        self.max_candidates = max_candidates
        self.mask_stages = mask_stages
        self.model_weights = model_weights
        self.flip = flip
        self.seed_proposals = seed_proposals
        self.feature_memory_gb = feature_memory_gb
        self.feature_memory_cpu_gb = feature_memory_cpu_gb
        self.max_low_score_candidates = max_low_score_candidates
        self.late_fusion = late_fusion

    def predict_step(self, batch: Mapping[str, Any], batch_index: int) -> list[Candidates]:
        """Candidates of the batch's images, in their order, but for those that failed.

        Args:
            batch: see ``ViewsBatch``: ``views``, of each scale a batch of the same images, and
                ``failures``.
            batch_index: unused.
        """
        self.failures |= batch["failures"]
        views = list(batch["views"])
        if not views:
            return []
        if self.flip:
            views += [flip_batch(view) for view in views]
        try:
            if self.late_fusion is not None:
                return self._fused_late(views, self.late_fusion)
            return self._predict(list(self.models), views, self.model_weights)
        except InputError as error:  # an image too large for the device must not end the run
            self.failures |= {sample.img_id: str(error) for sample in views[0]["data_samples"]}
            return []

    def _fused_late(
        self, views: Sequence[Mapping[str, Any]], settings: LateFusion
    ) -> list[Candidates]:
        """Fuse what each model detects on each view alone."""
        found, weights = [], []
        for place, model in enumerate(self.models):
            for view in views:
                found.append(self._predict([model], [view], None))
                weights.append(self.model_weights[place] if self.model_weights else 1.0)
        return [
            fuse(of_image, settings, weights=weights, label_category_ids=self.category_ids)
            for of_image in zip(*found, strict=True)
        ]

    def _predict(
        self,
        models: Sequence[Detector],
        views: Sequence[Mapping[str, Any]],
        model_weights: Sequence[float] | None,
    ) -> list[Candidates]:
        return predict_candidates(
            models,
            views,
            category_ids=self.category_ids,
            min_score=self.min_score,
            max_candidates=self.max_candidates,
            mask_stages=self.mask_stages,
            model_weights=model_weights,
            seed_proposals=self.seed_proposals,
            feature_memory_gb=self.feature_memory_gb,
            feature_memory_cpu_gb=self.feature_memory_cpu_gb,
            max_low_score_candidates=self.max_low_score_candidates,
        )
