"""One's own data, from the annotation file to stored predictions, by what README's commands say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from src.predict import predict
from src.predictions.store import PredictionStore
from src.train import train
from tests.helpers.annotation_files import write_data
from tests.helpers.cascades import SMALL
from tests.helpers.configs import compose_config

QUICK = (  # none of it is needed, it only makes the run short
    *(one for one in SMALL if not one.startswith("module.num_classes")),
    "datamodule.train_short_edge_px=[48,64]",
    "datamodule.predict_short_edge_px=48",
    "datamodule.predict_long_edge_px=96",
    "datamodule.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "num_torch_threads=1",
)


@pytest.mark.slow
def test_own_data_is_trained_on_and_predicted(tmp_path: Path) -> None:
    annotations = write_data(tmp_path, {1: "coat", 5: "hat", 9: "shoe"}, [1, 5, 9])
    images, run = tmp_path / "images", tmp_path / "run"
    threads = torch.get_num_threads()
    data = [f"annotations={annotations}", f"images={images}"]
    train(compose_config("train", ["+experiment=own", *data, f"paths.output_dir={run}", *QUICK]))
    assert (run / "checkpoints" / "best.ckpt").exists()
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["category_ids"] == [1, 5, 9]
    assert content["hyper_parameters"]["class_names"] == ["coat", "hat", "shoe"]

    (tmp_path / "new").mkdir()
    shutil.copy(images / "0.png", tmp_path / "new" / "a.png")
    here = ["datamodule.num_workers=0", "trainer.accelerator=cpu", "callbacks.progress=null"]
    found = PredictionStore(
        predict(
            compose_config(
                "predict",
                [
                    f"checkpoint={run}/best.ckpt",
                    f"images={tmp_path}/new",
                    f"paths.output_dir={tmp_path}/predicted",
                    *here,
                ],
            )
        )
    )
    assert found.image_ids == ("a.png",)
    assert str(found.classes) == "1 coat, 5 hat, 9 shoe"
    assert found.settings["datamodule"]["predict_short_edge_px"] == 48
    assert set(found.candidates(0).category_ids.tolist()) <= {1, 5, 9}
    validated = PredictionStore(
        predict(
            compose_config(
                "predict",
                [
                    f"checkpoint={run}",
                    *data,
                    "predict_split=validation",
                    f"paths.output_dir={tmp_path}/predicted",
                    *here,
                ],
            )
        )
    )
    assert len(validated) == 1  # a fifth of six
    torch.set_num_threads(threads)
