"""Ensembles: choose and read the checkpoints, and predict with all of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningModule
from torch import nn

from src.errors import InputError
from src.io import describe_difference
from src.mmdet_bridge.cascade import detectors
from src.mmdet_bridge.cascade.detectors import Detector
from src.mmdet_bridge.cascade.inference import (
    FEATURE_MEMORY_CPU_GB,
    FEATURE_MEMORY_GB,
    SeedProposals,
    predict_candidates,
)
from src.mmdet_bridge.cascade.passes import MaskStages
from src.mmdet_bridge.checkpoints import reading
from src.mmdet_bridge.checkpoints.reading import INFERENCE_KEYS, Checkpoint, load_checkpoint
from src.mmdet_bridge.checkpoints.untrusted_config import check_class_list, check_untrusted_detector
from src.mmdet_bridge.options import VIEW_CHANGES, ViewChange
from src.modules.cascade import check_candidates
from src.postprocess.late_fusion import LateFusion, fuse
from src.predictions.candidates import Candidates
from src.validation import check_values, check_weights, number, one_of

log = logging.getLogger(__name__)

DIFFERENCES_SHOWN = 3


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
