"""Two ways to bring models and views together: inside the cascade, and after NMS.

    python -m benchmarks.fusion

Both take the same models and views and the same backbone passes. Inside the cascade the box stages
of each run on the proposals of all, and the mask stages on the pairs of all; late, each runs on its
own. Then the fusion of detections alone is measured beside weighted boxes fusion in plain loops, on
the same detections, and the results are compared. Times are CPU time; weights are random, which
costs the same; what each way scores is in docs/prediction_store.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.timing import timed
from benchmarks.tta import make_detector, view_of
from src.modules.ensemble import CascadeEnsemble
from src.postprocess.late_fusion import LateFusion, fuse
from tests.helpers.plain_fusion import make_members, own_detections, weighted_boxes_fusion

SETTINGS = LateFusion(
    score_threshold=0.05, nms_iou_threshold=0.5, max_per_image=100, iou_threshold=0.55
)
TOLERANCE = 1e-6


def run(
    *,
    module: str = "htc_tiny",
    overrides: Sequence[str] = (),
    size_hw: tuple[int, int] = (320, 240),
    models: int = 2,
    images: int = 4,
) -> dict[str, Any]:
    """Measure both.

    Args:
        module: file below conf/module.
        overrides: of its configuration.
        size_hw: of the image and its two views, one of them flipped.
        models: of the same configuration.
        images: whose detections are fused, of 3 models.

    Returns:
        CPU seconds an image of prediction both ways, milliseconds an image of fusion both ways, and
        how many detections were compared.

    Raises:
        RuntimeError: the plain way fuses otherwise.
    """
    torch.set_num_threads(1)
    detectors = [make_detector(module, overrides, seed=seed) for seed in range(models)]
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    view = view_of(image)
    batch = {"views": [view], "failures": {}}
    seconds, passes = {}, {}
    for name, late in (("cascade", None), ("late", SETTINGS)):
        ensemble = CascadeEnsemble(
            detectors,
            category_ids=range(detectors[0].roi_head.bbox_head[-1].num_classes),
            min_score=SETTINGS.score_threshold,
            max_candidates=300,
            view_changes=["flip"],
            late_fusion=late,
        ).eval()
        counted: list[int] = []
        hooks = [
            detector.backbone.register_forward_pre_hook(
                lambda _, inputs: counted.append(len(inputs[0]))  # noqa: B023
            )
            for detector in detectors
        ]
        _, seconds[name] = timed(partial(ensemble.predict_step, batch, 0))
        for hook in hooks:
            hook.remove()
        passes[name] = sum(counted)
    return {
        "module": module,
        "models_x_views": f"{models}x2",
        "image_px": f"{size_hw[0]}x{size_hw[1]}",
        "cascade_cpu_s": round(seconds["cascade"], 2),
        "late_cpu_s": round(seconds["late"], 2),
        "cascade_backbone_passes": passes["cascade"],
        "late_backbone_passes": passes["late"],
        **_fusion_alone(images),
    }


def _fusion_alone(images: int) -> dict[str, Any]:
    made = [make_members(seed) for seed in range(images)]
    weights = [1.0] * len(made[0])
    ours, seconds = timed(lambda: [fuse(candidates, SETTINGS) for candidates in made])
    plain, plain_seconds = timed(
        lambda: [
            weighted_boxes_fusion(
                [own_detections(one, SETTINGS) for one in candidates],
                weights,
                SETTINGS.iou_threshold,
            )
            for candidates in made
        ]
    )
    for found, expected in zip(ours, plain, strict=True):
        apart = max(
            float(np.abs(found.scores - [one["score"] for one in expected]).max()),
            float(np.abs(found.mask_probabilities - [one["mask"] for one in expected]).max()),
        )
        if apart > TOLERANCE:
            raise RuntimeError(f"the two ways fuse otherwise: {apart:g} apart")
    return {
        "detections_compared": sum(len(found) for found in ours),
        "fusion_ms_an_image": round(1e3 * seconds / images, 2),
        "fusion_plain_ms_an_image": round(1e3 * plain_seconds / images, 2),
        "fusion_times_faster": round(plain_seconds / seconds, 1),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
