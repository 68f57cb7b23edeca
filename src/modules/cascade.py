"""Lightning module of a cascade: losses, optimizer and candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.cascade import detectors
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.mmdet_bridge.cascade.passes import MaskStages
from src.mmdet_bridge.checkpoints import untrusted_config
from src.mmdet_bridge.checkpoints.reading import load_checkpoint
from src.modules.schedules import SchedulerFactory, scale_learning_rate
from src.predictions.candidates import Candidates
from src.validation import check_value, check_values, nullable, number, one_of, whole

Batch = Mapping[str, Any]
"""``inputs``: N uint8 tensors (3, H_i, W_i), RGB; ``data_samples``: N DetDataSample."""

NO_ANCHOR = "There is no valid anchor inside the image boundary"  # mmdet's AnchorHead


class CascadeModule(LightningModule):
    """Hybrid Task Cascade (Chen et al., CVPR 2019) as mmdet builds it, run by Lightning.

    Args:
        detector: mmdet's model configuration (see ``build_detector``).
        optimizer: Makes the optimizer from the parameters that train.
        scheduler: Makes the learning rate's schedule, stepped with the optimizer; None: constant.
        base_batch_size: Images an optimizer step for which the learning rate is meant; it is scaled
            to the run's batch. None: it is not scaled.
        channels_last: Whether weights and images are stored channels last.
        num_classes: Classes of the detector's heads.
        category_ids: Category id of each class in the model's order; None: 0, 1, 2, ...
        min_score: (box, class) pairs with a higher score are candidates, in [0, 1).
        max_candidates: Maximum number of an image's candidates, the best.
        mask_stages: See ``predict_candidates``.
        init_weights: See ``build_detector``.
        class_names: See ``name_classes``.
        backbone_weights: File that a training takes the backbone's first weights from, where it is
            given none for the whole detector. Nothing here reads it.

    Attributes:
        loss_terms: Terms of the last training loss by name, scalars without gradient.

    Raises:
        InputError: A configuration that mmdet refuses, or values that contradict each other.
    """

    def __init__(
        self,
        detector: Mapping[str, Any],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        scheduler: SchedulerFactory | None = None,
        base_batch_size: int | None = None,
        channels_last: bool = False,
        num_classes: int = 46,
        category_ids: Sequence[int] | None = None,
        min_score: float = 0.001,
        max_candidates: int = 1000,
        mask_stages: MaskStages = "all",
        init_weights: bool = True,
        class_names: Sequence[str] | None = None,
        backbone_weights: str | None = None,
    ) -> None:
        super().__init__()
        # Plain values only: the checkpoint stays readable with `weights_only=True`. The loggers get
        # the whole configuration from src/callbacks/run_record.py.
        self.save_hyperparameters(
            ignore=["optimizer", "scheduler", "init_weights", "backbone_weights"], logger=False
        )
        self.backbone_weights = backbone_weights
        self.category_ids = list(range(num_classes) if category_ids is None else category_ids)
        check_candidates(self.category_ids, num_classes, min_score, max_candidates, mask_stages)
        unscaled = nullable(whole(1), null="for no scaling")
        check_value("module.base_batch_size", base_batch_size, unscaled)
        self.base_batch_size = base_batch_size
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self._predict = partial(
            predict_candidates,
            category_ids=self.category_ids,
            min_score=min_score,
            max_candidates=max_candidates,
            mask_stages=mask_stages,
        )
        self.loss_terms: dict[str, Tensor] = {}
        self._batches_accumulated = 0
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.detector = detectors.build_detector(detector, init_weights=init_weights)
        self.detector.to(memory_format=self.memory_format)
        detectors.check_detector(self.detector)
        for stage, head in enumerate(self.detector.roi_head.bbox_head):
            if head.num_classes != num_classes:
                raise InputError(
                    f"detector.roi_head.bbox_head.{stage}.num_classes must be {num_classes}, as "
                    f"module.num_classes, got {head.num_classes}"
                )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # less is legal than in Lightning
        cls, checkpoint_path: str | Path, **changes: Any
    ) -> Self:
        """Build a module from a checkpoint as Lightning does, after checking the file.

        Args:
            checkpoint_path: A regular file; its configuration may name mmdet's own classes only.

        Raises:
            InputError: The file is damaged, or holds anything but weights and plain values.
        """
        source = f"checkpoint {checkpoint_path}"
        values = load_checkpoint(checkpoint_path).hyper_parameters
        untrusted_config.check_plain(values, source=source, key="hyper_parameters")
        if "detector" in values:
            key = "hyper_parameters.detector"
            untrusted_config.check_untrusted_detector(values["detector"], source=source, key=key)
        untrusted_config.check_class_list(values, source=source)
        changes["weights_only"] = True
        module: Self = super().load_from_checkpoint(checkpoint_path, **changes)
        return module

    def name_classes(self, names: Sequence[str]) -> None:
        """Record the names of the classes, in the model's order, among the hyper-parameters."""
        self.hparams["class_names"] = list(names)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load all of the detector's weights, see ``detectors.load_weights``."""
        detectors.load_weights(self.detector, weights)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the sum of mmdet's losses; log each (``s0.`` to ``s2.``: the stages)."""
        data = detectors.preprocess(self.detector, batch, training=True)
        inputs = data["inputs"].contiguous(memory_format=self.memory_format)
        try:
            losses = self.detector.loss(inputs, data["data_samples"])
        except ValueError as error:
            if NO_ANCHOR not in str(error):
                raise
            raise InputError(
                f"no anchor lies inside an image of this batch: {_describe_sizes(batch)}; raise "
                "datamodule.train_short_edge_px or lower module.detector.sizes.anchor_scale"
            ) from error
        loss: Tensor
        loss, parts = self.detector.parse_losses(losses)
        images = len(batch["inputs"])
        self.loss_terms = {name: value.detach() for name, value in parts.items() if name != "loss"}
        terms = {f"train/{name}": value for name, value in self.loss_terms.items()}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=images)
        self.log_dict(terms, batch_size=images)
        self._batches_accumulated += 1
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Average the gradient over the batches actually accumulated.

        Lightning divides each loss by ``accumulate_grad_batches``, also in an epoch's last,
        incomplete accumulation, whose update would be too small.
        """
        expected, actual = self.trainer.accumulate_grad_batches, self._batches_accumulated
        self._batches_accumulated = 0
        if 0 < actual < expected:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, expected / actual)

    def predict_step(self, batch: Batch, batch_index: int) -> list[Candidates]:
        """Predict the candidates of the batch's images, in their order."""
        return self._predict([self.detector], [batch])

    def validation_step(  # type: ignore[override]  # Lightning hands it to callbacks as it is
        self, batch: Batch, batch_index: int
    ) -> list[Candidates]:
        """Predict like ``predict_step``; a callback gathers and scores the candidates."""
        return self.predict_step(batch, batch_index)

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the parameters that train, and its schedule by steps."""
        if self.make_optimizer is None:
            raise InputError("optimizer must be given to train (optimizer=sgd or adamw), got null")
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer, size = self.make_optimizer(trained), self.base_batch_size
        fuse_on_cpu(optimizer)
        if size is not None:
            scale_learning_rate(optimizer, trainer=self.trainer, base_batch_size=size)
        if self.make_scheduler is None:
            return optimizer
        # Lightning counts the batches on demand; with `max_steps` given nothing has asked yet.
        self.trainer.fit_loop.setup_data()
        batches = self.trainer.num_training_batches
        scheduler = self.make_scheduler(
            optimizer,
            total_steps=int(self.trainer.estimated_stepping_batches),
            steps_per_epoch=math.ceil(batches / self.trainer.accumulate_grad_batches),
        )
        by_step = {"scheduler": scheduler, "interval": "step", "name": "learning_rate"}
        return {"optimizer": optimizer, "lr_scheduler": by_step}


def fuse_on_cpu(optimizer: Optimizer) -> None:
    """Have Adam and AdamW update parameters on the CPU by one kernel: a third of the time.

    Results are equal up to rounding. Nothing changes on a GPU, and where the configuration says
    ``fused`` or ``foreach``.
    """
    if not isinstance(optimizer, Adam):  # AdamW is one
        return
    for group in optimizer.param_groups:
        keys = ("fused", "foreach", "differentiable", "capturable")
        is_chosen = any(group[key] not in (None, False) for key in keys) or group["fused"] is False
        if not is_chosen and all(p.device.type == "cpu" for p in group["params"]):
            group["fused"] = True


def _describe_sizes(batch: Batch) -> str:
    """Return ``a.jpg (96x80 px), b.jpg (64x96 px)``: each image's id and size in the batch."""
    return ", ".join(
        f"{printable(sample.img_id)} ({pixels.shape[-2]}x{pixels.shape[-1]} px)"
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    )


def check_candidates(
    category_ids: list[int],
    num_classes: int,
    min_score: float,
    max_candidates: int,
    mask_stages: str,
) -> None:
    """Check the values that select a module's candidates.

    Raises:
        InputError: A value that is not legal; names its key.
    """
    different = len(set(category_ids))
    if len(category_ids) != num_classes or different != num_classes:
        raise InputError(
            f"module.category_ids must be {num_classes} different ids, as module.num_classes, got "
            f"{len(category_ids)}, {different} of them different"
        )
    kinds = {
        "min_score": number(least=0, below=1, legal="a number from 0, below 1"),
        "max_candidates": whole(1),
        "mask_stages": one_of("all", "last"),
    }
    check_values(kinds, locals(), prefix="module.")
