"""A step of training by Lightning beside one of a plain loop around the same mmdet model.

    python -m benchmarks.training

Both do forward, backward, clipping, optimizer and schedule on the same batches with the same random
numbers, step by step in turn; Lightning with the default callbacks and loggers, checkpoints apart.
The weights at the end must be equal to the bit. CPU time of one thread: other work on the machine
does not count.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import DataLoader, Dataset

from benchmarks.cascade_batches import compose_training, draw_batch
from src.callbacks.training_steps import seed_step
from src.cli.entry_point import instantiate_all
from src.mmdet_bridge.cascade.detectors import Batch, Detector
from src.modules.cascade import fuse_on_cpu

CLIP_NORM = 35.0


class PlainLoop:
    """The loop that one would write by hand."""

    def __init__(self, detector: Detector, optimizer: Any, scheduler: Any, *, steps: int) -> None:
        self.detector = detector
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        fuse_on_cpu(self.optimizer)
        self.schedule = scheduler(self.optimizer, total_steps=steps, steps_per_epoch=steps)

    def step(self, batch: Batch) -> None:
        """Train on one batch."""
        data = self.detector.data_preprocessor(batch, True)
        loss, _ = self.detector.parse_losses(self.detector(**data, mode="loss"))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        self.schedule.step()


class InTurn(Dataset[Batch]):
    """Lightning's data: before it hands a batch out, the plain loop trains on it.

    Lightning's time for a batch is what passes until it asks for the next one.
    """

    def __init__(self, batches: list[Batch], plain: PlainLoop, *, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.plain = plain
        self.plain_seconds: list[float] = []
        self.lightning_seconds: list[float] = []
        self.handed_out: float | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        start = time.process_time()
        if self.handed_out is not None:
            self.lightning_seconds.append(start - self.handed_out)
        batch = copy.deepcopy(self.batches[index])  # mmdet's preprocessor changes its samples
        # RoIs are sampled at random; Lightning's callback seeds its step so.
        seed_step(self.seed, rank=0, epoch=0, batch_index=index)
        start = time.process_time()
        self.plain.step(batch)
        self.plain_seconds.append(time.process_time() - start)
        batch = copy.deepcopy(self.batches[index])
        self.handed_out = time.process_time()
        return batch


class LastStep(Callback):
    """No batch is asked for after the last step; its time ends here."""

    def __init__(self, data: InTurn) -> None:
        self.data = data

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        assert self.data.handed_out is not None
        self.data.lightning_seconds.append(time.process_time() - self.data.handed_out)


def run(
    *, steps: int = 30, size_hw: tuple[int, int] = (256, 192), images: int = 2
) -> dict[str, Any]:
    """Train ``htc_tiny`` both ways and compare times and weights.

    Args:
        steps: of each way; each has its own batch.
        size_hw: of the images.
        images: of a batch.

    Returns:
        The median milliseconds of CPU a step takes both ways, and the share that Lightning adds:
        the median over steps of the difference, by the plain loop's median.

    Raises:
        RuntimeError: the weights at the end differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data, equal = _train_both(folder, steps=steps, size_hw=size_hw, images=images)
    finally:
        torch.set_num_threads(threads)
    if not equal:
        raise RuntimeError("the weights after Lightning's training differ from the plain loop's")
    plain, lightning = data.plain_seconds, data.lightning_seconds
    added = statistics.median(b - a for a, b in zip(plain, lightning, strict=True))
    return {
        "steps": steps,
        "plain_loop_ms_a_step": round(1e3 * statistics.median(plain), 2),
        "lightning_ms_a_step": round(1e3 * statistics.median(lightning), 2),
        "added_ms_a_step": round(1e3 * added, 2),
        "added_share": round(added / statistics.median(plain), 4),
        "weights_are_equal": True,  # or this had raised
    }


def _train_both(
    folder: str, *, steps: int, size_hw: tuple[int, int], images: int
) -> tuple[InTurn, bool]:
    config = compose_training(
        "+experiment=demo", f"paths.output_dir={folder}", f"trainer.max_steps={steps}"
    )
    torch.manual_seed(0)
    module = instantiate(config.module)
    plain = PlainLoop(
        copy.deepcopy(module.detector),
        instantiate(config.optimizer),
        instantiate(config.scheduler),
        steps=steps,
    )
    batches = [draw_batch(size_hw, images=images, seed=step) for step in range(steps)]
    data = InTurn(batches, plain, seed=config.seed)
    callbacks = [c for c in instantiate_all(config.callbacks) if not isinstance(c, Checkpoint)]
    trainer = instantiate(
        config.trainer,
        callbacks=[*callbacks, LastStep(data)],
        logger=instantiate_all(config.logger),
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=None))
    found, expected = module.detector.state_dict(), plain.detector.state_dict()
    return data, all(torch.equal(found[name], value) for name, value in expected.items())


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
