"""The LightningModule that predicts: any number of models on any number of views of each photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule
from torch import nn

from src.errors import InputError
from src.mmdet_bridge.cascade import (
    FEATURE_MEMORY_CPU_GB,
    FEATURE_MEMORY_GB,
    SeedProposals,
    predict_candidates,
)
from src.mmdet_bridge.cascade_passes import MaskStages
from src.mmdet_bridge.config import Detector
from src.mmdet_bridge.samples import mirrored
from src.modules.cascade import check_values
from src.postprocess.candidates import Candidates
from src.postprocess.late_fusion import LateFusion, check_weights, fuse


class CascadeEnsemble(LightningModule):
    """Predicts inside the cascade, see ``predict_candidates``; all models are on the device.

    ``failures`` says which photos could not be predicted so far, and why, by image id.

    Args:
        members: M detectors that fit together, see ``check_members``.
        category_ids: the data's id of each class in the models' order.
        score_floor: (box, class) pairs with a score above it are candidates, in [0, 1).
        max_candidates: a photo keeps its best so many.
        mask_stages: see ``predict_candidates``.
        model_weights: M weights above 0 of the averages; None: equal.
        flip: each view is seen mirrored, too.
        seed_proposals: see ``predict_candidates``.
        feature_memory_gb: see ``KeptFeatures``.
        feature_memory_cpu_gb: see ``KeptFeatures``.
        max_unlikely: see ``predict_candidates``.
        late_fusion: each model predicts each view alone, and what they detect is fused by these
            settings; None: they meet inside the cascade.

    Raises:
        InputError: a value that is not legal; names its key.
    """

    def __init__(
        self,
        members: Sequence[Detector],
        *,
        category_ids: Sequence[int],
        score_floor: float = 0.001,
        max_candidates: int = 1000,
        mask_stages: MaskStages = "all",
        model_weights: Sequence[float] | None = None,
        flip: bool = False,
        seed_proposals: SeedProposals = "all",
        feature_memory_gb: float = FEATURE_MEMORY_GB,
        feature_memory_cpu_gb: float = FEATURE_MEMORY_CPU_GB,
        max_unlikely: int | None = None,
        late_fusion: LateFusion | None = None,
    ) -> None:
        super().__init__()
        self.category_ids = list(category_ids)
        num_classes = members[0].roi_head.bbox_head[-1].num_classes
        check_values(self.category_ids, num_classes, score_floor, max_candidates, mask_stages)
        if model_weights is not None:
            check_weights("ensemble.model_weights", model_weights, len(members))
        if seed_proposals not in ("all", "first_view"):
            raise InputError(
                f"seed_proposals={seed_proposals}: legal are all, and first_view, which keeps the "
                "winning code's mistake"
            )
        for key, value in (
            ("feature_memory_gb", feature_memory_gb),
            ("feature_memory_cpu_gb", feature_memory_cpu_gb),
        ):
            if not (isinstance(value, int | float) and value >= 0):
                raise InputError(f"{key}={value}: 0 or more GB are legal")
        if not isinstance(flip, bool):
            raise InputError(f"tta.flip={flip}: true and false are legal")
        self.failures: dict[str, str] = {}
        self.members = nn.ModuleList(members)
        self.score_floor = score_floor
        self.max_candidates = max_candidates
        self.mask_stages = mask_stages
        self.model_weights = model_weights
        self.flip = flip
        self.seed_proposals = seed_proposals
        self.feature_memory_gb = feature_memory_gb
        self.feature_memory_cpu_gb = feature_memory_cpu_gb
        self.max_unlikely = max_unlikely
        self.late_fusion = late_fusion

    def predict_step(self, batch: Mapping[str, Any], batch_index: int) -> list[Candidates]:
        """Candidates of the batch's photos, in their order, but for those that failed.

        Args:
            batch: see ``ViewsBatch``: ``views``, of each scale a batch of the same photos, and
                ``failures``.
            batch_index: unused.
        """
        self.failures |= batch["failures"]
        views = list(batch["views"])
        if not views:
            return []
        if self.flip:
            views += [mirrored(view) for view in views]
        try:
            if self.late_fusion is not None:
                return self._fused_late(views, self.late_fusion)
            return self._predict(list(self.members), views, self.model_weights)
        except InputError as error:  # a photo too large for the device must not end the run
            self.failures |= {sample.img_id: str(error) for sample in views[0]["data_samples"]}
            return []

    def _fused_late(
        self, views: Sequence[Mapping[str, Any]], settings: LateFusion
    ) -> list[Candidates]:
        """Fuse what each model detects on each view alone."""
        found, weights = [], []
        for number, member in enumerate(self.members):
            for view in views:
                found.append(self._predict([member], [view], None))
                weights.append(self.model_weights[number] if self.model_weights else 1.0)
        return [
            fuse(of_photo, settings, weights=weights, label_category_ids=self.category_ids)
            for of_photo in zip(*found, strict=True)
        ]

    def _predict(
        self,
        members: Sequence[Detector],
        views: Sequence[Mapping[str, Any]],
        model_weights: Sequence[float] | None,
    ) -> list[Candidates]:
        return predict_candidates(
            members,
            views,
            category_ids=self.category_ids,
            score_floor=self.score_floor,
            max_candidates=self.max_candidates,
            mask_stages=self.mask_stages,
            model_weights=model_weights,
            seed_proposals=self.seed_proposals,
            feature_memory_gb=self.feature_memory_gb,
            feature_memory_cpu_gb=self.feature_memory_cpu_gb,
            max_unlikely=self.max_unlikely,
        )
