"""``src.predict`` on three generated images and a run with two checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers
from src.mmdet_bridge.cascade.detectors import build_detector
from src.predict import predict
from src.predictions.store import PredictionStore
from tests.helpers.cascades import SMALL, detector_config, spread_scores

SIZES_HW = {"a.jpg": (120, 90), "b.jpg": (80, 110), "c.jpg": (100, 100)}
CLASSES = 5


def checkpoint(folder: Path, seed: int) -> Path:
    return next((folder / "checkpoints").glob(f"best_epoch_0{seed}_*"))


def overrides(folder: Path, *more: str) -> list[str]:
    return [
        "module=htc_tiny",
        *SMALL,
        "module.min_score=0.25",
        "datamodule=tiny",
        "datamodule.annotations=null",
        f"datamodule.test_images={folder}/test",
        "datamodule.sample_submission=null",
        "datamodule.predict_short_edge_px=64",
        "datamodule.predict_long_edge_px=96",
        "datamodule.num_workers=0",
        "trainer=cpu",
        "callbacks.progress=null",
        f"ensemble.checkpoint_dir={folder}/checkpoints",
        *more,
    ]


def run(folder: Path, output: Path, *more: str) -> PredictionStore:
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose("predict", overrides(folder, f"paths.output_dir={output}", *more))
    return PredictionStore(predict(config))


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )


def write_folder(directory: Path) -> Path:
    """Three images, and a run with two checkpoints."""
    random = np.random.default_rng(0)
    (directory / "test").mkdir()
    for name, (height, width) in SIZES_HW.items():
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / "test" / name, quality=95)
    (directory / "checkpoints").mkdir()
    for seed, score in ((0, "0.3"), (1, "0.4")):
        config = detector_config("htc_tiny", *SMALL)
        torch.manual_seed(seed)
        detector = build_detector(config)
        spread_scores(detector, seed=seed)
        content = {
            "state_dict": {f"detector.{k}": v for k, v in detector.state_dict().items()},
            "hyper_parameters": {"detector": config, "num_classes": CLASSES},
        }
        torch.save(content, directory / "checkpoints" / f"best_epoch_0{seed}_score_{score}.ckpt")
    return directory
