"""The whole ensemble of S10 and S11 beside the sum of its single-view predictions, on a GPU.

    python -m benchmarks.gpu_tta

Three models on six views of an image (three sizes, each as it is and flipped), merging included,
against 18 predictions of one model on one view each. Without a GPU a small model on small views
shows that it runs; its figures mean nothing. Times are wall time around a synchronised device, the
least of several rounds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.tta import make_detector, view_of
from src.datamodules.sizes import resized_hw
from src.mmdet_bridge.cascade.detectors import change_batch
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.predictions.candidates import Candidates
from tests.helpers.cascades import SMALL

S10_SCALES = ((1000, 1600), (1200, 1900), (1400, 2200))
SMALL_SCALES = ((48, 80), (64, 96), (80, 128))
MODELS = 3


def run(
    *,
    module: str | None = None,
    overrides: Sequence[str] = (),
    scales: Sequence[tuple[int, int]] | None = None,
    image_hw: tuple[int, int] = (3000, 2000),
    max_candidates: int = 300,
    rounds: int = 3,
) -> dict[str, Any]:
    """Measure both on one image; what is not given depends on whether there is a GPU.

    Args:
        module: file below conf/module.
        overrides: of its configuration.
        scales: limits of the shorter and of the longer edge.
        image_hw: size of the image.
        max_candidates: (box, class) pairs that go through the mask stages.
        rounds: of each; the fastest counts.

    Returns:
        Seconds of the ensemble and of the 18 predictions, their ratio, peak memory.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    module = module or ("htc_x101_dcn" if gpu else "htc_tiny")
    if not gpu and not overrides:
        overrides = SMALL
    scales = scales or (S10_SCALES if gpu else SMALL_SCALES)
    detectors = [make_detector(module, overrides, seed=seed).to(device) for seed in range(MODELS)]
    classes = detectors[0].roi_head.bbox_head[-1].num_classes
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    plain = []
    for short, long in scales:
        height, width = resized_hw(image_hw, short_edge_px=short, long_edge_px=long)
        plain.append(view_of(cv2.resize(image, (width, height)), image_hw=image_hw))
    views = [*plain, *(change_batch(view, "flip") for view in plain)]

    def predict(models: Sequence[Any], some_views: Sequence[Any]) -> list[Candidates]:
        return predict_candidates(
            models,
            some_views,
            category_ids=range(classes),
            min_score=0.0,
            max_candidates=max_candidates,
        )

    def one_by_one() -> None:
        for detector in detectors:
            for view in views:
                predict([detector], [view])

    one_by_one()  # what a device does once: cuDNN's choice of kernels, memory pools
    singles = _fastest(one_by_one, rounds=rounds)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    ensemble = _fastest(lambda: predict(detectors, views), rounds=rounds)
    return {
        "module": module,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "models_x_views": f"{len(detectors)}x{len(views)}",
        "views_px": ", ".join(str(tuple(view["inputs"][0].shape[1:])) for view in plain),
        "candidates": max_candidates,
        "ensemble_s": round(ensemble, 3),
        "sum_of_single_predictions_s": round(singles, 3),
        "ensemble_share_of_sum": round(ensemble / singles, 3),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None,
    }


def _fastest(task: Callable[[], Any], *, rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        _synchronise()
        begin = time.perf_counter()
        task()
        _synchronise()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
