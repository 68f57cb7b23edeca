"""Images a second of training the winning model, beside mmdetection's loop with its AMP wrapper.

    python -m benchmarks gpu_training

On a GPU: ``htc_x101_dcn`` on images of 1200x1900, by Lightning as ``python -m src.train`` runs it,
and by mmengine's ``train_step`` with its ``OptimWrapper`` and ``AmpOptimWrapper``, mmdet's own RoI
extractor and mmcv's operators. Same weights at the start, same images, same random numbers. Without
a GPU: ``htc_tiny`` on small images, which shows that it works and nothing else.
"""

from __future__ import annotations

import copy
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from benchmarks.cascade_batches import compose_training, draw_batch
from src.mmdet_bridge.cascade.detectors import Batch, build_detector

CLIP_NORM = 35.0
LEARNING_RATE = 0.001  # untrained weights, and no warm-up
MOST_RELATIVE_DIFFERENCE = 0.02  # of the first step's loss, from that of float32
RESIDUAL_SHARE = 0.2  # of what a residual branch adds in an untrained backbone
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Way:
    """How to train: whose loop, and in what numbers."""

    loop: str  # "lightning" or "mmdetection"
    precision: str = "32-true"  # Lightning's name
    channels_last: bool = False
    compiled_backbone: bool = False


WAYS = {
    "mmdetection_fp32": Way("mmdetection"),
    "mmdetection_amp_bf16": Way("mmdetection", "bf16-mixed"),
    "ours_fp32": Way("lightning"),
    "ours_bf16": Way("lightning", "bf16-mixed"),
    "ours_bf16_channels_last": Way("lightning", "bf16-mixed", channels_last=True),
}
COMPILED = {
    "ours_bf16_channels_last_compiled_backbone": Way(
        "lightning", "bf16-mixed", channels_last=True, compiled_backbone=True
    )
}


class TimedBatches(Dataset[Batch]):
    """One step's batch after the other; notes the time whenever one is asked for."""

    def __init__(self, batches: list[Batch], device: torch.device) -> None:
        # mmdet's preprocessor puts padded masks into the samples: each way has its own.
        self.batches = [
            {**batch, "data_samples": copy.deepcopy(batch["data_samples"])} for batch in batches
        ]
        self.device = device
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        self.note_time()
        torch.manual_seed(index)  # RoIs are sampled at random
        return self.batches[index]

    def note_time(self) -> None:
        """Wait for the device, then look at the clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.asked.append(time.perf_counter())


class KeepLosses(Callback):
    """The loss of every step, left on the device."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())


def run(
    *,
    batch_sizes: tuple[int, ...] | None = None,
    size_hw: tuple[int, int] | None = None,
    warmup_steps: int = 3,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train each way on each batch size.

    Args:
        batch_sizes: images a step; None: 2, 4 and 8, without a GPU 2.
        size_hw: of the images; None: (1200, 1900), without a GPU (96, 128).
        warmup_steps: not timed.
        steps: timed; None: 10, without a GPU 2.

    Returns:
        For each batch size and way: images a second, gigabytes of GPU memory at the peak, first and
        last loss, and how many times the images a second of mmdetection's loop with AMP; or that
        the memory was too small, or that torch.compile failed.

    Raises:
        RuntimeError: the first step's loss is further from that of float32 than the constant above.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    name = "htc_x101_dcn" if on_gpu else "htc_tiny"
    batch_sizes = batch_sizes or ((2, 4, 8) if on_gpu else (2,))
    size_hw = size_hw or ((1200, 1900) if on_gpu else (96, 128))
    steps = steps or (10 if on_gpu else 2)
    torch.manual_seed(0)
    weights = _calm(instantiate(compose_training(f"module={name}").module).detector.state_dict())
    figures: dict[str, Any] = {"model": name, "size_hw": list(size_hw), "steps": steps}
    for batch_size in batch_sizes:
        batches = [
            draw_batch(size_hw, images=batch_size, seed=step)
            for step in range(warmup_steps + steps)
        ]
        found = {
            label: _told(
                f"{batch_size} a step, {label}",
                _measured(name, way, weights, TimedBatches(batches, device), warmup_steps),
            )
            for label, way in (WAYS | COMPILED if on_gpu else WAYS).items()
        }
        _compare(found)
        figures[f"batch_{batch_size}"] = found
    return figures


def _calm(weights: Weights) -> Weights:
    """Return the weights with quiet residual branches.

    Frozen BatchNorm statistics normalise nothing before training: each of the winner's 33 blocks
    would double the features' variance, and the first loss would be 20,000 in place of 9.
    """
    return {
        key: value * RESIDUAL_SHARE if key.endswith(".bn3.weight") else value
        for key, value in weights.items()
    }


def _told(what: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Print the figures at once, so that a run that is cut off leaves them; return them."""
    print(f"{what}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def _measured(
    name: str, way: Way, weights: Weights, data: TimedBatches, warmup_steps: int
) -> dict[str, Any]:
    on_gpu = data.device.type == "cuda"
    train: Callable[..., list[torch.Tensor]] = (
        _train_by_lightning if way.loop == "lightning" else _train_by_mmdetection
    )
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(data.device)
    try:
        losses = [float(loss) for loss in train(name, way, weights, data)]
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    except Exception as error:
        if not way.compiled_backbone:
            raise
        # An extra that depends on the machine's compilers; the other figures stand without it.
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    seconds = data.asked[-1] - data.asked[warmup_steps]
    images = len(data.batches[0]["inputs"]) * (len(data) - warmup_steps)
    peak = torch.cuda.max_memory_allocated(data.device) / 2**30 if on_gpu else None
    return {
        "images_a_second": round(images / seconds, 3),
        "peak_gpu_memory_gib": None if peak is None else round(peak, 2),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
    }


def _train_by_lightning(
    name: str, way: Way, weights: Weights, data: TimedBatches
) -> list[torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        config = compose_training(
            f"module={name}",
            "scheduler=none",
            f"optimizer.lr={LEARNING_RATE}",
            f"module.channels_last={way.channels_last}",
            f"trainer.precision={way.precision}",
            f"trainer.accelerator={'gpu' if data.device.type == 'cuda' else 'cpu'}",
            "trainer.max_epochs=1",
            f"paths.output_dir={folder}",
        )
        module = instantiate(config.module, init_weights=False)
        module.load_weights(weights)
        if way.compiled_backbone:
            module.detector.backbone.compile()
        kept = KeepLosses()
        trainer = instantiate(
            config.trainer,
            callbacks=[kept],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, DataLoader(data, batch_size=None))
    data.note_time()
    return kept.losses


def _train_by_mmdetection(
    name: str, way: Way, weights: Weights, data: TimedBatches
) -> list[torch.Tensor]:
    config = compose_training(f"module={name}")
    detector_config: Any = OmegaConf.to_container(config.module.detector, resolve=True)
    for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
        detector_config["roi_head"][extractor]["type"] = "SingleRoIExtractor"
    detector = build_detector(detector_config, init_weights=False)
    detector.load_state_dict(weights)
    detector.to(data.device)
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, weight_decay=0.0001)
    options: dict[str, Any] = {"optimizer": optimizer, "clip_grad": {"max_norm": CLIP_NORM}}
    mixed = way.precision == "bf16-mixed"
    on_gpu = data.device.type == "cuda"
    wrapper = (
        AmpOptimWrapper(dtype="bfloat16", loss_scale=1.0, **options)
        if mixed and on_gpu
        else OptimWrapper(**options)
    )
    losses = []
    for index in range(len(data)):
        batch = data[index]
        # The AMP wrapper refuses to work without a GPU; there this is what it would do.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed and not on_gpu):
            losses.append(detector.train_step(batch, wrapper)["loss"].detach())
    data.note_time()
    return losses


def _compare(found: dict[str, dict[str, Any]]) -> None:
    """Check the first losses, and set each way beside mmdetection's with AMP."""
    trained = {label: figures for label, figures in found.items() if "first_loss" in figures}
    exact = trained.get("ours_fp32", {}).get("first_loss")
    peer = trained.get("mmdetection_amp_bf16", {}).get("images_a_second")
    for label, figures in trained.items():
        if exact and abs(figures["first_loss"] / exact - 1) > MOST_RELATIVE_DIFFERENCE:
            raise RuntimeError(f"{label}: first loss {figures['first_loss']}, {exact} in float32")
        if peer:
            figures["times_mmdetection_with_amp"] = round(figures["images_a_second"] / peer, 3)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
