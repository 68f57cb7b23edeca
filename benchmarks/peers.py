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
AP by pycocotools; the competition's score with the program's own score threshold (0.05), and with
the one that cross-validation over the validation images chooses, and its paired interval to ours,
also with the settings of ``src.search`` (cross-validated), which the peers have nothing like;
images a second of training (data loading included, after the first steps) and of prediction
(without the start), in wall and in CPU time; the greatest memory of all processes.
mmdetection has no operators for the CPU in its wheel, so it uses this project's (torchvision's).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.cascade_batches import compose_training
from benchmarks.peer_runs import run_mmdetection, run_torchvision
from src.io import read_json_object, write_json

ROOT = Path(__file__).parents[1]
WAYS = ("ours", "mmdetection", "torchvision")
SCORE_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 19))
NUM_FOLDS = 5
NUM_TRIALS = 200


def split_annotations(annotations: Path, split: Path, folder: Path) -> dict[str, Path]:
    """Write the training and the validation part of a COCO file, and return their paths."""
    whole = json.loads(annotations.read_text(encoding="utf-8"))
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


# ours -------------------------------------------------------------------------------------------


def run_ours(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train and predict with the commands of this project."""
    folder = Path(job["folder"]) / "ours"
    shared = [*job["overrides"], f"paths.output_dir={folder}", f"hydra.run.dir={folder}"]
    clock, prediction_clock = folder / "clock.json", folder / "prediction_clock.json"
    run_command(
        "src.train",
        *shared,
        "+callbacks.clock._target_=benchmarks.peer_runs.Clock",
        f"+callbacks.clock.path={clock}",
    )
    training = read_json_object(clock)
    # Without validation: the peers do none, and its checkpoints are not used here.
    training["cpu_minutes"] = training["steps"] * training["cpu_s_per_step"] / 60
    figures: dict[str, Any] = {"training": training}
    store = folder / "predictions_validation"
    run_command(
        "src.predict",
        f"checkpoint={folder}/checkpoints/last.ckpt",
        *shared,
        "predict_split=validation",
        f"predictions={store}",
        "callbacks.progress_log._target_=benchmarks.peer_runs.PredictionClock",
        f"+callbacks.progress_log.path={prediction_clock}",
    )
    figures["prediction"] = dict(read_json_object(prediction_clock))
    exported = folder / "results.json"
    run_command(
        "src.export_coco",
        f"predictions={store}",
        f"output={exported}",
        f"annotations={job['validation']}",
    )
    write_json(job["results"], {"results": json.loads(exported.read_text())})
    run_command(
        "src.search",
        f"predictions={store}",
        f"annotations={job['validation']}",
        f"images={job['images']}",
        f"competition={job['competition']}",
        "name=searched",
        f"output_dir={folder}/search",
        f"config_dir={folder}/found",
        f"num_trials={NUM_TRIALS}",
        "space.max_per_image=null",
        "postprocess.max_per_image=null",
    )
    figures["searched"] = {"per_image": searched_scores(folder / "search")}
    return figures


def searched_scores(directory: Path) -> dict[str, float]:
    """Return the cross-validated score of each image under the settings that a search found."""
    return dict(read_json_object(directory / "cross_validated.json")["per_image"])


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

    truth = json.loads(validation.read_text(encoding="utf-8"))
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


def differences(baseline: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> list[float]:
    """Return the mean gain over a baseline of the same images, and its 95% interval."""
    from src.metrics.intervals import paired_bootstrap_interval

    found = paired_bootstrap_interval(baseline, scores).difference
    return [found.estimate, found.low, found.high]


def compare_ways(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the three ways, and judge them alike."""
    from src.metrics.intervals import bootstrap_interval

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
        "competition": config.competition.name,
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
        by_default = values[0]
        scores[way], chosen = cross_validated(values)
        interval = bootstrap_interval(scores[way])
        found[way] |= {
            "coco_mask_ap": coco_average_precision(results, parts["validation"]),
            "score": interval.estimate,
            "score_interval": [interval.low, interval.high],
            "score_thresholds": chosen,
            "score_by_default": float(by_default.mean()),
        }
        if way == "ours":
            per_image = found[way].pop("searched")["per_image"]
            names = [
                image["file_name"] for image in read_json_object(parts["validation"])["images"]
            ]
            searched = np.array([per_image[name] for name in names])
            interval = bootstrap_interval(searched)
            found[way]["score_searched"] = interval.estimate
            found[way]["score_searched_interval"] = [interval.low, interval.high]
        else:
            found[way]["ours_is_better_by"] = differences(scores[way], scores["ours"])
            found[way]["ours_searched_is_better_by"] = differences(scores[way], searched)
            found[way]["ours_searched_is_better_than_its_default_by"] = differences(
                by_default, searched
            )
            for part, verb, key in (
                ("training", "trains", "cpu_s_per_step"),
                ("prediction", "predicts", "cpu_s_per_image"),
            ):
                own, its = found["ours"][part], found[way][part]
                found[way][f"ours_{verb}_times_as_fast"] = {
                    "wall": own["images_per_s"] / its["images_per_s"],
                    "cpu": its[key] / own[key],
                }
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
