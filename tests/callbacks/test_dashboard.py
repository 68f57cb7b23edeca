"""A real training, watched: what W&B (offline), TensorBoard and the files hold afterwards."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.train import train
from tests.helpers.images import Data
from tests.helpers.trainers import compose_training
from tests.helpers.wandb_file import config, history, read_records

CHECKOUT = Path(__file__).resolve().parents[2]
EPOCHS = 2
STAGE_LOSSES = [
    f"train/s{stage}.loss_{part}" for stage in range(3) for part in ("cls", "bbox", "mask")
]
SPEED = ["speed/images_per_second", "speed/step_seconds", "speed/data_loading_share"]
SCORES = [
    "validation/competition_map",
    *(
        f"validation/coco_{kind}{name}"
        for kind in ("", "box_")
        for name in ("map", "map_50", "map_75", "map_small")
    ),
]
COLUMNS = [
    "category",
    "name",
    "true_objects",
    "predicted_objects",
    "competition_score",
    "mask_ap",
    "mask_ap_50",
    "mask_ap_75",
    "box_ap",
    "box_ap_50",
]


@dataclass
class Run:
    """A finished training: its folder, W&B's record of it, its log."""

    folder: Path
    best_score: float | None
    log: str

    @property
    def wandb_folder(self) -> Path:
        (folder,) = (self.folder / "wandb").glob("offline-run-*")
        return folder

    @property
    def records(self) -> list[Any]:
        (path,) = self.wandb_folder.glob("*.wandb")
        return list(read_records(path))


@pytest.fixture(scope="module")
def run(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    composed = compose_training(data, folder, "logger=wandb", f"trainer.max_epochs={EPOCHS}")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_SILENT", "true")
        composed.logger.wandb.offline = True  # the resolver saw the environment before
        handler = Lines()
        logging.getLogger("src").addHandler(handler)
        logging.getLogger("src").setLevel(logging.INFO)
        try:
            best = train(composed)
        finally:
            wandb.teardown()  # waits for the process that writes the file
            logging.getLogger("src").removeHandler(handler)
            logging.getLogger("src").setLevel(logging.NOTSET)
    return Run(folder, best, "\n".join(handler.lines))


class Lines(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def logged(run: Run, key: str) -> list[Any]:
    """The values that W&B has of a key, in order."""
    return [line[key] for line in history(run.records) if key in line]


def test_wandb_has_every_series(run: Run) -> None:
    lines = history(run.records)
    found = {key for line in lines for key in line}
    wanted = {"train/loss", "learning_rate", "train/loss_rpn_cls", *STAGE_LOSSES, *SPEED, *SCORES}
    assert wanted <= found
    assert len(logged(run, "validation/competition_map")) == EPOCHS
    for name in (*SPEED, *STAGE_LOSSES):
        assert all(np.isfinite(line[name]) for line in lines if name in line)
    assert all(0 < share < 1 for share in logged(run, SPEED[2]))
    assert max(line["trainer/global_step"] for line in lines) == 4 * EPOCHS


def test_wandb_has_the_table_of_classes(run: Run) -> None:
    tables = logged(run, "validation/classes")
    assert len(tables) == EPOCHS
    for table in tables:
        assert table["_type"] == "table-file"
        content = json.loads((run.wandb_folder / "files" / table["path"]).read_text())
        assert content["columns"] == COLUMNS
        assert [row[0] for row in content["data"]] == list(range(46))


def test_wandb_has_the_images_with_the_truth_burnt_in(run: Run, data: Data) -> None:
    entries = logged(run, "validation/images")
    assert len(entries) == EPOCHS
    split = json.loads((run.folder / "split.json").read_text())
    validation = sorted(split["validation"])
    for entry in entries:
        assert entry["captions"] == validation  # fewer than eight, so all of them
        assert entry["count"] == 5
    for image_id, name in zip(validation, entries[-1]["filenames"], strict=True):
        shown = np.asarray(Image.open(run.wandb_folder / "files" / name)).astype(int)
        height, width = data.images[image_id].image.shape[:2]
        scale = 480 / max(height, width)
        width = round(width * scale)
        image, ground_truth = shown[:, :width], shown[:, width + 10 : 2 * width + 10]
        ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
        inside = np.zeros(image.shape[:2], dtype=bool)
        for _, mask in data.images[image_id].objects:
            rows = (ys / scale).astype(int).clip(0, mask.shape[0] - 1)
            columns = (xs / scale).astype(int).clip(0, mask.shape[1] - 1)
            inside |= mask[rows, columns]
        changed = np.abs(image - ground_truth).sum(axis=2)
        assert changed[inside].mean() > 3 * changed[~inside & (ys < round(height * scale))].mean()


def test_wandb_has_configuration_and_commit(run: Run) -> None:
    found = config(run.records)
    assert found["trainer"]["max_epochs"] == EPOCHS
    assert found["module"]["detector"]["backbone"]["base_channels"] == 16
    assert found["postprocess"]["score_threshold"] == 0.5
    assert found["seed"] == 777
    commit = subprocess.run(
        ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert found["commit"] == (commit or None)
    assert isinstance(found["commit_is_dirty"], bool) or not commit


def test_wandb_run_is_finished_and_offline_is_said_once(run: Run) -> None:
    assert wandb.run is None  # the next job of a sweep starts its own
    last = run.records[-1]
    assert last.WhichOneof("record_type") == "exit"
    assert last.exit.exit_code == 0
    assert run.log.count("W&B is offline") == 1
    assert f"later: wandb sync {run.wandb_folder}" in run.log


def test_tensorboard_has_series_images_table_and_configuration(run: Run) -> None:
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "learning_rate", *STAGE_LOSSES, *SPEED, *SCORES} <= set(tags["scalars"])
    images = [tag for tag in tags["images"] if tag.startswith("validation/images/")]
    assert len(images) == 5
    assert [len(events.Images(tag)) for tag in images] == [EPOCHS] * 5
    table = events.Tensors("validation/classes/text_summary")
    assert len(table) == EPOCHS
    lines = table[0].tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].split("|") == COLUMNS
    assert len(lines) == 2 + 46
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(text.strip("`\n"))["trainer"]["max_epochs"] == EPOCHS


def test_files_have_series_classes_and_commit(run: Run, data: Data) -> None:
    with (run.folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/loss", *STAGE_LOSSES, *SPEED, *SCORES} <= set(rows[0])
    hparams = yaml.safe_load((run.folder / "csv" / "version_0" / "hparams.yaml").read_text())
    assert hparams["name"] == "small"
    assert "commit" in hparams
    with (run.folder / "validation" / "epoch_01_classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert list(classes[0]) == COLUMNS
    split = json.loads((run.folder / "split.json").read_text())
    ground_truth = [c for image_id in split["validation"] for c, _ in data.images[image_id].objects]
    for row in classes:
        expected = ground_truth.count(int(row["category"]))
        assert int(row["true_objects"] or 0) == expected
        assert (row["mask_ap"] != "") == (expected > 0)
    (start,) = json.loads((run.folder / "run.json").read_text())
    assert set(start) == {"time", "command", "commit", "commit_is_dirty"}


def test_log_has_the_scores_of_every_epoch(run: Run) -> None:
    for epoch in range(EPOCHS):
        assert f"epoch {epoch}: validation/competition_map 0." in run.log
    assert "validation/coco_map 0." in run.log


def test_best_checkpoints_are_named_by_epoch_and_score(run: Run) -> None:
    names = sorted(path.name for path in (run.folder / "checkpoints").glob("best_*"))
    assert [name[:20] for name in names] == ["best_epoch_00_score_", "best_epoch_01_score_"]
    assert (run.folder / "checkpoints" / "best.ckpt").resolve().name in names
    assert run.best_score is not None
    assert f"{run.best_score:.4f}.ckpt" in [name[20:] for name in names]


def test_going_on_keeps_what_was_logged(run: Run, data: Data) -> None:
    before = (run.folder / "csv" / "version_0" / "metrics.csv").read_text()
    train(compose_training(data, run.folder, f"trainer.max_epochs={EPOCHS + 1}"))
    assert (run.folder / "csv" / "version_0" / "metrics.csv").read_text() == before
    with (run.folder / "csv" / "version_1" / "metrics.csv").open() as file:
        epochs = {row["epoch"] for row in csv.DictReader(file)}
    assert epochs == {"", str(EPOCHS)}
    assert len(json.loads((run.folder / "run.json").read_text())) == 2
    assert len(list((run.folder / "validation").glob("epoch_*_classes.csv"))) == EPOCHS + 1
