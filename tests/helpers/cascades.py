"""Configurations, batches, detectors and views that the tests of the cascade share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers
from src.mmdet_bridge.cascade.detectors import (
    Batch,
    build_detector,
    collate,
    make_instances,
    make_sample,
)
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.predictions.candidates import Candidates
from tests.helpers.sizes import SMALL

SMALL_BATCH_NORM = (  # the same sizes of htc_r50: BatchNorm with kept statistics, a frozen stage
    *(override for override in SMALL if "norm_cfg" not in override),
    "module.detector.backbone.depth=50",
    "module.detector.neck.in_channels=[64,128,256,512]",
)
SMALL_DEFORMABLE = (  # ... and the winner's deformable convolutions
    *SMALL_BATCH_NORM,
    "+module.detector.backbone.dcn={type:DCN,deform_groups:1,fallback_on_stride:false}",
    "+module.detector.backbone.stage_with_dcn=[false,true,true,true]",
)


def compose_module(
    name: str = "htc_tiny",
    *overrides: str,
    optimizer: str = "adamw",
    scheduler: str = "none",
) -> DictConfig:
    """The groups that a module needs, composed: keys ``module``, ``optimizer``, ``scheduler``."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose(
            overrides=[
                f"+optimizer={optimizer}",
                f"+scheduler={scheduler}",
                f"+module={name}",
                "module.base_batch_size=null",  # no data module says the batch here
                *overrides,
            ]
        )


def detector_config(name: str = "htc_tiny", *overrides: str) -> dict[str, Any]:
    """The detector's configuration as plain containers."""
    config = OmegaConf.to_container(compose_module(name, *overrides).module.detector, resolve=True)
    assert isinstance(config, dict)
    return config


def make_batch(
    *,
    seed: int = 0,
    sizes_hw: tuple[tuple[int, int], ...] = ((96, 80), (64, 96)),
    scale_wh: tuple[float, float] = (1.0, 1.0),
    num_classes: int = 5,
    with_objects: bool = True,
    objects_each: int = 3,
) -> Batch:
    """Noise with bright rectangles on it, the rectangles being the objects; deterministic.

    The sizes are those of the view; the image is ``1 / scale_wh`` times as wide and high.
    """
    random = np.random.default_rng(seed)
    samples = []
    for number, (height, width) in enumerate(sizes_hw):
        image = random.integers(0, 128, (height, width, 3), dtype=np.uint8)
        boxes, masks = [], []
        for _ in range(objects_each):
            x_min, y_min = random.integers(0, width - 24), random.integers(0, height - 24)
            x_max, y_max = x_min + random.integers(12, 24), y_min + random.integers(12, 24)
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[y_min:y_max, x_min:x_max] = 1
            image[mask.astype(bool)] += np.uint8(100)
            boxes.append((x_min, y_min, x_max, y_max))
            masks.append(mask)
        instances = make_instances(
            labels=random.integers(0, num_classes, objects_each),
            boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            masks=np.array(masks, dtype=np.uint8).reshape(-1, height, width),
        )
        samples.append(
            make_sample(
                image=image,
                image_id=f"image{number}",
                image_path=f"image{number}.jpg",
                original_hw=(round(height / scale_wh[1]), round(width / scale_wh[0])),
                instances=instances if with_objects else None,
            )
        )
    return collate(samples)


def spread_scores(detector: Any, *, seed: int = 0) -> None:
    """Give an untrained detector scores that differ by class and proposal, and boxes that move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in detector.roi_head.bbox_head:
            for layer, factor in ((head.fc_cls, 0.8), (head.fc_reg, 0.3)):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * factor)
        for layer in (detector.rpn_head.rpn_cls, detector.rpn_head.rpn_reg):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.1)
        for head in detector.roi_head.mask_head:
            layer = head.conv_logits
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))


def one_by_one(batch: Batch) -> list[Batch]:
    """Each image of a batch as a batch of its own, which is how a prediction pads it."""
    pairs = zip(batch["inputs"], batch["data_samples"], strict=True)
    return [{"inputs": [pixels], "data_samples": [sample]} for pixels, sample in pairs]


IMAGE_HW = (120, 90)
CLASSES = 5
SIZES_HW = ((67, 50), (93, 70), (120, 90))


def make_detector(seed: int, *overrides: str) -> Any:
    torch.manual_seed(seed)
    detector = build_detector(detector_config("htc_tiny", *SMALL, *overrides))
    spread_scores(detector, seed=seed)
    return detector.eval()


def draw_image(seed: int = 0) -> np.ndarray:
    """Noise in blocks of 2 x 2 pixels, so that its half size is a crisp view too."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((2, 2, 1), dtype=np.uint8))


def view_of(image: np.ndarray, size_hw: tuple[int, int], *, flip: bool) -> np.ndarray:
    """The image resized, then mirrored where asked."""
    view = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(view[:, ::-1] if flip else view)


def make_view(image: np.ndarray, size_hw: tuple[int, int], *, flip: bool = False) -> Batch:
    sample = make_sample(
        image=view_of(image, size_hw, flip=flip),
        image_id="image",
        image_path="image.jpg",
        original_hw=(image.shape[0], image.shape[1]),
        flip=flip,
    )
    return collate([sample])


def six_views(image: np.ndarray) -> list[Batch]:
    return [make_view(image, size, flip=flip) for flip in (False, True) for size in SIZES_HW]


def predict(members: Sequence[Any], views: Sequence[Batch], **changes: Any) -> Candidates:
    settings: dict[str, Any] = {"min_score": 0.0, "max_candidates": 10_000, **changes}
    (candidates,) = predict_candidates(members, views, category_ids=range(CLASSES), **settings)
    return candidates
