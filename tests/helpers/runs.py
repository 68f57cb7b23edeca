"""Small training runs on generated images, by the composed configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from src.synthetic.dataset import synthesize
from src.train import train
from tests.helpers.cascades import SMALL
from tests.helpers.configs import compose_config

STEPS_PER_EPOCH = 6  # 13 training images in batches of two; one image is left out


def generate_data(directory: Path, *, num_images: int = 16) -> None:
    """Generate a data set of images of 96 x 96 px, and one test image."""
    synthesize(
        directory,
        num_train_images=num_images,
        num_test_images=1,
        seed=3,
        image_size=(96, 96),
        difficulty=0.0,
        clutter=0.0,
        attributes_share=0.0,
        grayscale_share=0.0,
        rotated_share=0.0,
        num_transposed_images=0,
        workers=1,
    )


def overrides(data: Path, output: Path) -> list[str]:
    """What a command line says for a run that takes seconds."""
    return [
        "module=htc_tiny",
        *(override for override in SMALL if not override.startswith("module.num_classes")),
        "datamodule=tiny",
        "optimizer=adamw",
        "scheduler=warmup_cosine",
        "trainer=cpu",
        f"paths.data_dir={data}",
        f"paths.output_dir={output}",
        "datamodule.num_validation_images=3",
        "datamodule.num_workers=0",
        "datamodule.train_short_edge_px=[48,64]",
        "datamodule.train_long_edge_px=96",
        "datamodule.predict_short_edge_px=48",
        "datamodule.predict_long_edge_px=96",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
        "callbacks.run_checkpoint.every_n_train_steps=2",
        "num_torch_threads=1",
    ]


def compose_run(data: Path, output: Path, *more: str) -> DictConfig:
    """The composed configuration of a small run."""
    return compose_config("train", [*overrides(data, output), *more])


def run(data: Path, output: Path, *more: str) -> float | None:
    """Train in this process."""
    return train(compose_run(data, output, *more))


def load(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint."""
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """Where two nests of dicts, lists, values and tensors are not equal, to the bit."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            difference
            for key in expected.keys() | found.keys()
            for difference in differences(found.get(key), expected.get(key), f"{name}.{key}")
        ]
    if isinstance(expected, list | tuple) and len(found) == len(expected):
        return [
            difference
            for number, (one, other) in enumerate(zip(found, expected, strict=True))
            for difference in differences(one, other, f"{name}.{number}")
        ]
    if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        return [] if torch.equal(found, expected) else [name]
    return [] if type(found) is type(expected) and found == expected else [name]


def state_differences(run: Path, other: Path) -> list[str]:
    """What differs in the last checkpoints of two runs: weights, optimizer, schedule, progress."""
    found, expected = load(run / "checkpoints/last.ckpt"), load(other / "checkpoints/last.ckpt")
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "position", "global_step")
    return [
        difference for key in keys for difference in differences(found[key], expected[key], key)
    ]
