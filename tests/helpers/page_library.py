"""The data that the pages name: made when a page first asks for it, then shared by all pages."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.helpers.page_overrides import small
from tests.helpers.pages import ROOT
from tests.helpers.warm_python import WarmPython

DATA = ("data/train.csv", "data/train", "data/test", "data/sample_submission.csv")
OWN_RUN = ("outputs/own/checkpoints", "outputs/own/split.json")


class Library:
    """The data of the pages, made when it is first asked for, in a folder that all pages share."""

    def __init__(self, folder: Path, python: WarmPython) -> None:
        self.folder, self.python = folder, python
        self.made: set[str] = set()
        self.cpu_seconds = 0.0

    def find(self, name: str) -> Path:
        """Return a file or folder that is in ``GROUPS``."""
        self.make(next(group for group, names in GROUPS.items() if name in names))
        return self.folder / name

    def make(self, group: str) -> None:
        if group in self.made:
            return
        self.made.add(group)
        MAKERS[group](self)

    def run(self, *words: str) -> None:
        """Run a command of the repository in the library's folder."""
        output = self.folder / "output.txt"
        pid = self.python.start(
            small(["python", "-m", *words])[1:],
            cwd=self.folder,
            code=ROOT,
            env=environment(self.folder),
            output=output,
        )
        ended = self.python.wait(pid, output=output)
        self.cpu_seconds += ended.cpu_seconds
        assert ended.code == 0, f"{words}\n{ended.output}"


def _data(library: Library) -> None:
    library.run("tests.helpers.page_data", "data")
    csv = "annotations=data/train.csv"
    library.run("src.split", csv, "images=data/train", "output=data/split.json")
    shutil.copy(library.folder / "data/split.json", library.folder / "outputs/demo/data")
    library.run("src.convert", csv, "output=A.json")
    shutil.copy(library.folder / "A.json", library.folder / "validation.json")
    shutil.copy(library.folder / "A.json", library.folder / "train.json")
    library.run("src.export_coco", "predictions=STORE", "output=results.json", "annotations=A.json")
    library.run("tests.helpers.page_data", "results")


def _sweep(library: Library) -> None:
    library.make("data")
    words = ("predictions=STORE", "annotations=data/train.csv", "hydra.sweep.dir=SWEEP")
    library.run("src.postprocess", "-m", *words, "postprocess.score_threshold=0.3,0.5")
    jobs = sorted(path.parent for path in (library.folder / "SWEEP").glob("*/result.json"))
    for job, name in zip(jobs, ("JOB", "OTHER_JOB"), strict=True):
        job.rename(job.with_name(name))


def _weights(library: Library) -> None:
    library.run("tests.helpers.page_data", "weights")


def _coco_weights(library: Library) -> None:
    library.make("weights")
    library.run(
        "src.import_weights",
        "source=zoo.pth",
        "output=data/htc_x101_dcn_coco.safetensors",
        "module=htc_x101_dcn",
    )
    shutil.copy(
        library.folder / "data/htc_x101_dcn_coco.safetensors", library.folder / "coco.safetensors"
    )


def _checkpoints(library: Library) -> None:
    library.make("data")
    library.make("coco weights")
    library.run("src.train", "+experiment=htc_x101")
    best = sorted((library.folder / "outputs/htc_x101/checkpoints").glob("best_epoch*.ckpt"))
    names = (
        ("a.ckpt", "best.ckpt", "epoch14.ckpt"),
        ("b.ckpt", "epoch15.ckpt"),
        ("c.ckpt", "epoch17.ckpt"),
    )
    for path, copies in zip(best, names, strict=True):
        for name in copies:
            shutil.copy(path, library.folder / name)


def _own(library: Library) -> None:
    library.make("data")
    library.run("src.train", "+experiment=own", "annotations=A.json", "images=DIR")


MAKERS: dict[str, Callable[[Library], None]] = {
    "data": _data,
    "sweep": _sweep,
    "weights": _weights,
    "coco weights": _coco_weights,
    "checkpoints": _checkpoints,
    "own": _own,
}
GROUPS = {
    "sweep": ("SWEEP/JOB", "SWEEP/OTHER_JOB"),
    "weights": ("zoo.pth", "epoch_12.pth", "resnet50.pth"),
    "coco weights": ("data/htc_x101_dcn_coco.safetensors", "coco.safetensors"),
    "checkpoints": (
        "outputs/htc_x101/checkpoints",
        *("a.ckpt", "b.ckpt", "c.ckpt", "best.ckpt"),
        *("epoch14.ckpt", "epoch15.ckpt", "epoch17.ckpt"),
    ),
    "own": OWN_RUN,
    "data": (
        *(*DATA, "data/split.json", "A.json", "validation.json", "train.json", "sample.csv"),
        "via_export.csv",
        *("DIR", "DIR_OF_NEW_IMAGES", "STORE", "STORE_A", "STORE_B"),
        *(
            "submission.csv",
            "validation.csv",
            "one.csv",
            "other.csv",
            "results.json",
            "coco_instances_results.json",
        ),
        *("out/coco_instances_results.json", "out/val.segm.json"),
        "runs/segment/val/predictions.json",
        *("stage1_train", "gtFine/train", "leftImg8bit/train", "labels", "images"),
        *("outputs/demo/data", "outputs/demo/predictions_validation"),
        *("outputs/demo/predictions_test", "outputs/demo/validation.csv"),
        *("outputs/htc_x101/predictions_validation", "outputs/htc_x101/predictions_test"),
        *("outputs/predict/predictions_validation", "outputs/predict/predictions_test"),
    ),
}
KNOWN = [name for names in GROUPS.values() for name in names]


def environment(folder: Path) -> dict[str, str]:
    """Return what differs from the test's environment: caches in the folder, and no key of W&B."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"XDG_CACHE_HOME": str(folder / ".cache"), "WANDB_API_KEY": "", "PATH": path}
