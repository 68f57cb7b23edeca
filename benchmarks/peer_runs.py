"""The peers that ``benchmarks.peers`` runs: torchvision's tutorial and mmdetection's Runner."""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.cascade_batches import compose_training
from src.io import write_json

WARM_UP_STEPS = 5  # before images a second are counted
CALIBRATION_STEPS = 60  # of which the CPU seconds a step are taken
INVERTED_RESIDUAL = ("expand_conv", "depthwise_conv", "linear_conv")


def image_path(images: Path, record: Mapping[str, Any]) -> str:
    """Return the path of a COCO image."""
    return str(images / str(record["file_name"]))


def tree_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its living children."""
    total = sum(psutil.Process().cpu_times()[:2])
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:2])
    return float(total)


class StepClock:
    """Times of the training steps: images a second, and CPU seconds a step."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self._paused_s = self._paused_cpu_s = 0.0

    def skip(self, wall_s: float, cpu_s: float) -> None:
        """Leave out a pause, of a validation, from the next steps on."""
        self._paused_s += wall_s
        self._paused_cpu_s += cpu_s

    def tick(self) -> None:
        """Note the end of a step."""
        self.wall_s.append(time.perf_counter() - self._paused_s)
        self.cpu_s.append(tree_cpu_seconds() - self._paused_cpu_s)

    def figures(self) -> dict[str, float]:
        """Return the figures of the steps after the first ones."""
        steps = len(self.wall_s) - 1 - WARM_UP_STEPS
        return {
            "steps": len(self.wall_s),
            "images_per_s": self.batch_size
            * steps
            / (self.wall_s[-1] - self.wall_s[WARM_UP_STEPS]),
            "cpu_s_per_step": (self.cpu_s[-1] - self.cpu_s[WARM_UP_STEPS]) / steps,
        }


def to_results(
    image_id: int,
    category_ids: Sequence[int],
    scores: Sequence[float],
    masks: np.ndarray[Any, np.dtype[np.uint8]],
) -> list[dict[str, Any]]:
    """Return COCO results of an image's masks, shape (N, H, W), 0 or 1."""
    from pycocotools import mask as coco_mask

    results = []
    for category, score, mask in zip(category_ids, scores, masks, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask))
        rle["counts"] = rle["counts"].decode()
        results.append(
            {
                "image_id": int(image_id),
                "category_id": int(category),
                "score": float(score),
                "segmentation": rle,
            }
        )
    return results


class Clock(Callback):
    """Write images a second and CPU seconds a step of a training run.

    Args:
        path: The JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.clock: StepClock | None = None
        self._pause = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any, **__: Any) -> None:
        """Note the end of a step."""
        if self.clock is None:
            self.clock = StepClock(trainer.datamodule.batch_size)  # type: ignore[attr-defined]
        self.clock.tick()

    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        """Begin a pause: validation is no training."""
        self._pause = (time.perf_counter(), tree_cpu_seconds())

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        """End the pause."""
        if self.clock is not None:
            wall_s, cpu_s = self._pause
            self.clock.skip(time.perf_counter() - wall_s, tree_cpu_seconds() - cpu_s)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        """Write the file."""
        assert self.clock is not None
        write_json(self.path, self.clock.figures())


class PredictionClock(Callback):
    """Write images a second and CPU seconds an image of a prediction, without its start.

    Args:
        path: The JSON file.
        every_seconds: Of the callback in whose place it stands; not used.
    """

    def __init__(self, path: str, every_seconds: float = 0.0) -> None:
        self.path = path
        self.clock: PassClock | None = None
        self.num_images = 0

    def on_predict_start(self, trainer: Trainer, module: Any) -> None:
        """Start."""
        self.clock = PassClock()

    def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
        """Count an image."""
        self.num_images += 1

    def on_predict_end(self, trainer: Trainer, module: Any) -> None:
        """Write the file."""
        assert self.clock is not None
        write_json(self.path, self.clock.figures(self.num_images))


class PassClock:
    """Wall and CPU time from its making on."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), tree_cpu_seconds()

    def figures(self, num_images: int) -> dict[str, float]:
        """Return the figures of a pass over so many images."""
        return {
            "images_per_s": num_images / (time.perf_counter() - self.wall_s),
            "cpu_s_per_image": (tree_cpu_seconds() - self.cpu_s) / num_images,
        }


# torchvision ------------------------------------------------------------------------------------


class CocoImages(Dataset[Any]):
    """A COCO file for torchvision's detectors, as its tutorial makes targets of masks."""

    def __init__(self, annotations: Path, images: Path, *, training: bool) -> None:
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(annotations))
        self.images, self.training = images, training
        self.labels = {c: label for label, c in enumerate(sorted(self.coco.cats), start=1)}
        self.ids = [
            i for i in sorted(self.coco.imgs) if not training or self.coco.getAnnIds(imgIds=[i])
        ]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        record = self.coco.imgs[self.ids[index]]
        pixels = cv2.cvtColor(cv2.imread(image_path(self.images, record)), cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        target: dict[str, Any] = {"image_id": self.ids[index]}
        if not self.training:
            return image, target
        found = self.coco.loadAnns(self.coco.getAnnIds(imgIds=[self.ids[index]]))
        masks = torch.from_numpy(np.stack([self.coco.annToMask(one) for one in found]))
        labels = torch.tensor([self.labels[one["category_id"]] for one in found])
        if random.random() < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
        from torchvision.ops import masks_to_boxes

        boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        return image, {**target, "boxes": boxes, "labels": labels, "masks": masks}


def mobilenet_v2_features(weights: Path | None) -> nn.Sequential:
    """Return torchvision's MobileNetV2 without its classifier, with frozen batch statistics.

    Args:
        weights: The same file as ours; its 312 tensors are in torchvision's order. None: random.
    """
    from torchvision.models import mobilenet_v2
    from torchvision.ops.misc import FrozenBatchNorm2d

    model = mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d).features
    if weights is not None:
        from safetensors.torch import load_file

        own = {k: v for k, v in load_file(weights).items() if not k.endswith("batches_tracked")}
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(own[f"backbone.{to_mmdet_name(name)}"])
    return model


def to_mmdet_name(name: str) -> str:
    """Return mmdet's name of a tensor of torchvision's ``mobilenet_v2().features``."""
    block, _, rest = name.partition(".")
    number = int(block)
    part, _, leaf = rest.rpartition(".")
    if number in (0, 18):
        layer = {"0": "conv", "1": "bn"}[part]
        return f"{'conv1' if number == 0 else 'conv2'}.{layer}.{leaf}"
    # blocks of the seven layers: 1, 2, 3, 4, 3, 3, 1
    layer_of = [(layer, at) for layer, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for at in range(n)]
    layer, at = layer_of[number - 1]
    step = ".".join(part.split(".")[1:])
    own = ("depthwise_conv", "linear_conv") if number == 1 else INVERTED_RESIDUAL
    places = [f"{one}.{kind}" for one in range(len(own) - 1) for kind in (0, 1)]
    places += [str(len(own) - 1), str(len(own))]
    name = own[places.index(step) // 2]
    return f"layer{layer}.{at}.{name}.{('conv', 'bn')[places.index(step) % 2]}.{leaf}"


def run_torchvision(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train and predict as torchvision's tutorial does."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    weights = None if job["weights"] is None else Path(job["weights"])
    training = CocoImages(Path(job["train"]), Path(job["images"]), training=True)
    validation = CocoImages(Path(job["validation"]), Path(job["images"]), training=False)
    # The levels of ours: strides 4, 8, 16 and 32.
    backbone = BackboneWithFPN(
        mobilenet_v2_features(weights),
        return_layers={"3": "0", "6": "1", "13": "2", "17": "3"},
        in_channels_list=[24, 32, 96, 320],
        out_channels=256,
    )
    model = MaskRCNN(
        backbone,
        num_classes=1 + len(training.labels),
        min_size=tuple(job["train_short_edge_px"]),
        max_size=job["train_long_edge_px"],
    )
    parameters = [p for p in model.parameters() if p.requires_grad]

    def make_optimizer(steps: int) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=0.0005)
        # The tutorial: a warm-up of an epoch, a tenth every third epoch of ten.
        warm_up = max(1, min(1000, len(training) // job["batch_size"] - 1))
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, 0.001 + step / warm_up) * 0.1 ** int(step / (0.3 * steps)),
        )

    loader: DataLoader[Any] = DataLoader(
        training,
        batch_size=job["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=job["num_workers"],
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        persistent_workers=job["num_workers"] > 0,
    )
    clock = StepClock(job["batch_size"])
    batches = endless(loader)
    model.train()
    start = tree_cpu_seconds()
    optimizer, schedule = make_optimizer(10**9)
    steps, step = CALIBRATION_STEPS, 0
    while step < steps:
        images, targets = next(batches)
        losses = model(list(images), [dict(target) for target in targets])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        clock.tick()
        step += 1
        if step == CALIBRATION_STEPS:
            left = job["cpu_minutes"] * 60 - (tree_cpu_seconds() - start)
            steps += max(0, int(left / clock.figures()["cpu_s_per_step"]))
            optimizer, schedule = make_optimizer(steps)
    figures = {"training": {**clock.figures(), "cpu_minutes": (tree_cpu_seconds() - start) / 60}}
    model.eval()
    model.transform.min_size = (job["predict_short_edge_px"],)
    model.transform.max_size = job["predict_long_edge_px"]
    categories = {label: category for category, label in training.labels.items()}
    results, prediction = [], PassClock()
    with torch.inference_mode():
        for index in range(len(validation)):
            image, target = validation[index]
            found = model([image])[0]
            masks = (found["masks"][:, 0] >= 0.5).to(torch.uint8).numpy()
            ids = [categories[label] for label in found["labels"].tolist()]
            results += to_results(target["image_id"], ids, found["scores"].tolist(), masks)
    figures["prediction"] = prediction.figures(len(validation))
    write_json(job["results"], {"results": results})
    return figures


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    while True:
        yield from loader


# mmdetection ------------------------------------------------------------------------------------


def mmdet_model(job: Mapping[str, Any], num_classes: int) -> Any:
    """Return the cascade's configuration with mmdetection's own RoI extractor.

    ``python -m src.train`` takes the number of classes from the data; a composed configuration
    holds the default, so it is set here.
    """
    from omegaconf import OmegaConf

    config = compose_training(*job["overrides"], f"module.num_classes={num_classes}")
    detector = OmegaConf.to_container(config.module.detector, resolve=True)
    detector.pop("sizes")
    for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
        detector["roi_head"][extractor]["type"] = "SingleRoIExtractor"
    from mmengine import ConfigDict

    return ConfigDict(detector)


def run_mmdetection(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train with mmengine's Runner and mmdetection's data pipeline, and predict."""
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner
    from safetensors.torch import load_file

    names = [
        c["name"] for c in json.loads(Path(job["train"]).read_text(encoding="utf-8"))["categories"]
    ]
    low, high = job["train_short_edge_px"]
    long = job["train_long_edge_px"]
    train_pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": True},
        {"type": "RandomResize", "scale": [(long, low), (long, high)], "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]
    test_scale = (job["predict_long_edge_px"], job["predict_short_edge_px"])
    test_pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": test_scale, "keep_ratio": True},
        {
            "type": "PackDetInputs",
            "meta_keys": ("img_id", "ori_shape", "img_shape", "scale_factor"),
        },
    ]

    def loader(part: str, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
        training = part == "train"
        dataset = {
            "type": "CocoDataset",
            "ann_file": job[part],
            "data_prefix": {"img": f"{job['images']}/"},
            "metainfo": {"classes": tuple(names)},
            "filter_cfg": {"filter_empty_gt": True, "min_size": 1} if training else None,
            "test_mode": not training,
            "pipeline": pipeline,
        }
        made = {
            "batch_size": job["batch_size"] if training else 1,
            "num_workers": job["num_workers"],
            "persistent_workers": job["num_workers"] > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": training},
            "dataset": dataset,
        }
        if training:
            made["sampler"] = {"type": "InfiniteSampler", "shuffle": True}
            made["batch_sampler"] = {"type": "AspectRatioBatchSampler"}
        return made

    class Clock(Hook):  # type: ignore[misc]
        def __init__(self, clock: StepClock) -> None:
            self.clock = clock

        def after_train_iter(self, *_: Any, **__: Any) -> None:
            self.clock.tick()

    def train(steps: int, weights: Mapping[str, torch.Tensor] | None) -> tuple[Any, StepClock]:
        clock = StepClock(job["batch_size"])
        warm_up = min(50, max(1, steps // 2))
        runner = Runner(
            model=mmdet_model(job, len(names)),
            work_dir=str(Path(job["folder"]) / "mmdetection"),
            train_dataloader=loader("train", train_pipeline),
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": 10**9},
            optim_wrapper={
                "type": "OptimWrapper",
                "optimizer": {"type": "AdamW", **job["adamw"]},
                "clip_grad": {"max_norm": 35, "norm_type": 2},
            },
            param_scheduler=[
                {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": warm_up},
                {
                    "type": "CosineAnnealingLR",
                    "by_epoch": False,
                    "begin": warm_up,
                    "end": steps,
                    "eta_min_ratio": 0.02,
                },
            ],
            default_hooks={"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 50}},
            custom_hooks=[Clock(clock)],
            log_level="WARNING",
            default_scope="mmdet",
            randomness={"seed": job["seed"]},
            experiment_name=f"peers_{time.time_ns()}",
            cfg=Config({}),
        )
        runner.model.init_weights()
        runner._has_loaded = True
        if weights is not None:
            missing, unexpected = runner.model.load_state_dict(weights, strict=False)
            if unexpected or any(name.startswith("backbone.") for name in missing):
                raise RuntimeError(f"the backbone's weights do not fit: {missing[:3]} {unexpected}")
        runner.train()
        return runner, clock

    weights = None
    if job["weights"] is not None:
        weights = {k: v for k, v in load_file(job["weights"]).items() if k.startswith("backbone.")}
    start = tree_cpu_seconds()
    _, calibration = train(CALIBRATION_STEPS, weights)
    left = job["cpu_minutes"] * 60
    steps = max(CALIBRATION_STEPS, int(left / calibration.figures()["cpu_s_per_step"]))
    start = tree_cpu_seconds()
    runner, clock = train(steps, weights)
    figures = {"training": {**clock.figures(), "cpu_minutes": (tree_cpu_seconds() - start) / 60}}
    categories = runner.train_dataloader.dataset.cat_ids
    validation = Runner.build_dataloader(loader("validation", test_pipeline))
    model = runner.model.eval()
    results, images, prediction = [], 0, PassClock()
    with torch.inference_mode():
        for batch in validation:
            for sample in model.test_step(batch):
                found = sample.pred_instances
                masks = found.masks.numpy().astype(np.uint8)
                ids = [categories[label] for label in found.labels.tolist()]
                results += to_results(sample.img_id, ids, found.scores.tolist(), masks)
                images += 1
    figures["prediction"] = prediction.figures(images)
    write_json(job["results"], {"results": results})
    return figures
