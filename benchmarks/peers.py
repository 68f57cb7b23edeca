"""This project beside torchvision's Mask R-CNN and plain mmdetection, on photographs of yours.

    python -m benchmarks.peers --experiment street --annotations A.json --images DIR

Same images, same split, same ImageNet weights of the backbone, same CPU time of training:

- ours: ``python -m src.train +experiment=...``, prediction, and post-processing with mmdetection's
  defaults;
- mmdetection: the same cascade in its ``Runner``, with its data pipeline (sizes as ours), its RoI
  extractor, optimizer and schedule as ours, its post-processing;
- torchvision: Mask R-CNN with MobileNetV2 and a feature pyramid, in the loop of its own tutorial
  (references/detection: SGD, warm-up, flips) and its post-processing.

The three are judged alike by what they write: COCO results with a score a detection. Figures: mask
AP by pycocotools; the competition's score with the score threshold that cross-validation over the
validation images chooses, and its paired interval to ours; images a second of training (data
loading included, after the first steps) and of prediction; the greatest memory of all processes.
mmdetection has no operators for the CPU in its wheel, so it uses this project's (torchvision's).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.cascade_batches import compose_training
from src.io import read_json_object, write_json

ROOT = Path(__file__).parents[1]
WAYS = ("ours", "mmdetection", "torchvision")
WARM_UP_STEPS = 5  # before images a second are counted
CALIBRATION_STEPS = 25  # of which the CPU seconds a step are taken
SCORE_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 19))
NUM_FOLDS = 5
INVERTED_RESIDUAL = ("expand_conv", "depthwise_conv", "linear_conv")


def image_path(images: Path, record: Mapping[str, Any]) -> str:
    """Return the path of a COCO image."""
    return str(images / str(record["file_name"]))


def split_annotations(annotations: Path, split: Path, folder: Path) -> dict[str, Path]:
    """Write the training and the validation part of a COCO file, and return their paths."""
    whole = json.loads(annotations.read_text())
    validation = set(read_json_object(split)["validation"])
    parts = {}
    for name, wanted in (("train", False), ("validation", True)):
        images = [i for i in whole["images"] if (i["file_name"] in validation) == wanted]
        ids = {image["id"] for image in images}
        kept = [a for a in whole["annotations"] if a["image_id"] in ids]
        parts[name] = folder / f"{name}.json"
        write_json(
            parts[name],
            {"images": images, "annotations": kept, "categories": whole["categories"]},
        )
    return parts


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


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
    results, begin = [], time.perf_counter()
    with torch.inference_mode():
        for index in range(len(validation)):
            image, target = validation[index]
            found = model([image])[0]
            masks = (found["masks"][:, 0] >= 0.5).to(torch.uint8).numpy()
            ids = [categories[label] for label in found["labels"].tolist()]
            results += to_results(target["image_id"], ids, found["scores"].tolist(), masks)
    figures["prediction"] = {"images_per_s": len(validation) / (time.perf_counter() - begin)}
    write_json(job["results"], {"results": results})
    return figures


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    while True:
        yield from loader


# mmdetection ------------------------------------------------------------------------------------


def mmdet_model(job: Mapping[str, Any]) -> Any:
    """Return the cascade's configuration with mmdetection's own RoI extractor."""
    from omegaconf import OmegaConf

    config = compose_training(*job["overrides"])
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

    names = [c["name"] for c in json.loads(Path(job["train"]).read_text())["categories"]]
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
            model=mmdet_model(job),
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
    results, images, begin = [], 0, time.perf_counter()
    with torch.inference_mode():
        for batch in validation:
            for sample in model.test_step(batch):
                found = sample.pred_instances
                masks = found.masks.numpy().astype(np.uint8)
                ids = [categories[label] for label in found.labels.tolist()]
                results += to_results(sample.img_id, ids, found.scores.tolist(), masks)
                images += 1
    figures["prediction"] = {"images_per_s": images / (time.perf_counter() - begin)}
    write_json(job["results"], {"results": results})
    return figures


# ours -------------------------------------------------------------------------------------------


def run_ours(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train and predict with the commands of this project."""
    folder = Path(job["folder"]) / "ours"
    shared = [*job["overrides"], f"paths.output_dir={folder}", f"hydra.run.dir={folder}"]
    clock = Path(job["folder"]) / "clock.json"
    start = cpu_seconds()
    run_command(
        "src.train",
        *shared,
        "+callbacks.clock._target_=benchmarks.peers_clock.Clock",
        f"+callbacks.clock.path={clock}",
    )
    figures: dict[str, Any] = {
        "training": {**read_json_object(clock), "cpu_minutes": (cpu_seconds() - start) / 60}
    }
    store = folder / "predictions_validation"
    begin = time.perf_counter()
    run_command(
        "src.predict",
        f"checkpoint={folder}/checkpoints/last.ckpt",
        *shared,
        "predict_split=validation",
        f"predictions={store}",
    )
    num = len(json.loads(Path(job["validation"]).read_text())["images"])
    figures["prediction"] = {"images_per_s": num / (time.perf_counter() - begin)}
    exported = folder / "results.json"
    run_command(
        "src.export_coco",
        f"predictions={store}",
        f"output={exported}",
        f"annotations={job['validation']}",
    )
    write_json(job["results"], {"results": json.loads(exported.read_text())})
    return figures


def run_command(module: str, *words: str) -> None:
    """Run a command of this project; its output goes to the terminal."""
    subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=True)


RUN: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "ours": run_ours,
    "mmdetection": run_mmdetection,
    "torchvision": run_torchvision,
}


# Judging ----------------------------------------------------------------------------------------


def coco_average_precision(results: list[dict[str, Any]], validation: Path) -> float:
    """Return pycocotools' mask AP."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(validation))
        if not results:
            return 0.0
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def competition_scores(
    results: list[dict[str, Any]], validation: Path, *, raster_hw: tuple[int, int] | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the score of each image at each score threshold, shape (thresholds, images)."""
    from src.metrics.competition import ImageInstances, image_score, match_instances
    from src.rle import Bitmasks, from_coco

    truth = json.loads(validation.read_text())
    by_image: dict[int, dict[str, list[dict[str, Any]]]] = {
        image["id"]: {"truth": [], "found": []} for image in truth["images"]
    }
    for annotation in truth["annotations"]:
        by_image[annotation["image_id"]]["truth"].append(annotation)
    for result in results:
        by_image[result["image_id"]]["found"].append(result)

    def instances(name: str, records: list[dict[str, Any]], size_hw: Any) -> ImageInstances:
        texts = [record["segmentation"]["counts"] for record in records]
        masks = Bitmasks.of(from_coco(texts, size_hw).masks, raster_hw or size_hw)
        return ImageInstances(name, tuple(r["category_id"] for r in records), masks)

    values = np.zeros((len(SCORE_THRESHOLDS), len(truth["images"])))
    for column, image in enumerate(truth["images"]):
        size_hw = (image["height"], image["width"])
        both = by_image[image["id"]]
        expected = instances(image["file_name"], both["truth"], size_hw)
        for row, threshold in enumerate(SCORE_THRESHOLDS):
            found = [r for r in both["found"] if r["score"] > threshold]
            matches = match_instances(expected, instances(image["file_name"], found, size_hw))
            values[row, column] = image_score(matches.counts(), "per_class")
    return values


def cross_validated(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Return each image's score at the threshold that the other folds choose, and the choices."""
    folds = np.random.default_rng(0).permutation(values.shape[1]) % NUM_FOLDS
    scores, chosen = np.zeros(values.shape[1]), []
    for fold in range(NUM_FOLDS):
        best = int(values[:, folds != fold].mean(axis=1).argmax())
        chosen.append(SCORE_THRESHOLDS[best])
        scores[folds == fold] = values[best, folds == fold]
    return scores, chosen


class PeakMemory:
    """The greatest memory of a process and its children, looked at twice a second."""

    def __init__(self, process_id: int) -> None:
        self.process = psutil.Process(process_id)
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            with contextlib.suppress(psutil.Error):
                whole = [self.process, *self.process.children(recursive=True)]
                total = 0
                for one in whole:
                    with contextlib.suppress(psutil.Error):
                        total += one.memory_full_info().pss
                self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> float:
        """Return the peak in GiB."""
        self._stop.set()
        self._thread.join()
        return self.peak_bytes / 2**30


def measure(way: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one way in a process of its own; done before, it is read."""
    folder = Path(job["folder"])
    figures_file = folder / f"{way}_figures.json"
    if not figures_file.exists():
        job_file = folder / f"{way}_job.json"
        write_json(job_file, job)
        environment = {**os.environ, "OMP_NUM_THREADS": str(job["num_threads"])}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", "--way", way, "--job", str(job_file)],
            cwd=ROOT,
            env=environment,
        )
        memory = PeakMemory(process.pid)
        if process.wait():
            sys.exit(f"error: {way} ended with code {process.returncode}")
        found = read_json_object(Path(job["figures"]))
        write_json(figures_file, {**found, "peak_memory_gib": memory.stop()})
    return dict(read_json_object(figures_file))


def compare_ways(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the three ways, and judge them alike."""
    from src.metrics.intervals import bootstrap_interval, paired_bootstrap_interval

    folder = arguments.output_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    overrides = [
        f"+experiment={arguments.experiment}",
        f"annotations={arguments.annotations.resolve()}",
        f"images={arguments.images.resolve()}",
        *arguments.overrides,
    ]
    if not (folder / "split.json").exists():
        run_command(
            "src.split",
            f"annotations={arguments.annotations.resolve()}",
            f"images={arguments.images.resolve()}",
            f"num_validation_images={arguments.num_validation_images}",
            f"output={folder}/split.json",
        )
    overrides.append(f"datamodule.split_file={folder}/split.json")
    overrides.append("datamodule.num_validation_images=null")
    config = compose_training(*overrides)
    parts = split_annotations(arguments.annotations, folder / "split.json", folder)
    weights = config.module.get("backbone_weights")
    job: dict[str, Any] = {
        "overrides": overrides,
        "folder": str(folder),
        "images": str(arguments.images.resolve()),
        "weights": None if weights is None else str((ROOT / weights).resolve()),
        **{name: str(path) for name, path in parts.items()},
        **{
            key: list(value) if key == "train_short_edge_px" else value
            for key, value in config.datamodule.items()
            if key.endswith("_edge_px") or key in ("batch_size", "num_workers")
        },
        "adamw": {"lr": config.optimizer.lr, "weight_decay": config.optimizer.weight_decay},
        "seed": config.seed,
        "num_threads": arguments.num_threads,
    }
    raster_hw = None if arguments.raster == "native" else (512, 512)
    found: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for way in WAYS:
        own = {
            **job,
            "results": str(folder / f"{way}_results.json"),
            "figures": str(folder / f"{way}_raw_figures.json"),
        }
        if way != "ours":
            own["cpu_minutes"] = found["ours"]["training"]["cpu_minutes"]
        found[way] = measure(way, own)
        results = read_json_object(Path(own["results"]))["results"]
        values = competition_scores(results, parts["validation"], raster_hw=raster_hw)
        scores[way], chosen = cross_validated(values)
        interval = bootstrap_interval(scores[way])
        found[way] |= {
            "coco_mask_ap": coco_average_precision(results, parts["validation"]),
            "score": interval.estimate,
            "score_interval": [interval.low, interval.high],
            "score_thresholds": chosen,
            "score_by_default": float(values[0].mean()),
        }
        if way != "ours":
            paired = paired_bootstrap_interval(scores[way], scores["ours"])
            difference = paired.difference
            found[way]["ours_is_better_by"] = [
                difference.estimate,
                difference.low,
                difference.high,
            ]
            rates = (found[name]["training"]["images_per_s"] for name in ("ours", way))
            found[way]["ours_trains_times_as_fast"] = next(rates) / next(rates)
    return {
        "experiment": arguments.experiment,
        "num_validation_images": len(scores["ours"]),
        "raster": arguments.raster,
        "num_threads": arguments.num_threads,
        **found,
    }


def main(words: Sequence[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--experiment", default="street")
    parser.add_argument("--num-validation-images", type=float, default=0.2)
    parser.add_argument("--raster", choices=("512x512", "native"), default="512x512")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, default=ROOT / "outputs" / "peers")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("overrides", nargs="*", help="of python -m src.train, for all three")
    arguments = parser.parse_args(words)
    if arguments.way:
        job = read_json_object(arguments.job)
        random.seed(job["seed"])
        torch.manual_seed(job["seed"])
        torch.set_num_threads(job["num_threads"])
        write_json(job["figures"], RUN[arguments.way](job))
        return
    for key in ("annotations", "images"):
        if getattr(arguments, key) is None:
            sys.exit(f"error: --{key} must be given")
    figures = compare_ways(arguments)
    if arguments.output:
        write_json(arguments.output, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
