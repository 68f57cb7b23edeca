"""``python -m src.predict``: views, models, stores, and one line for what goes wrong."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from tests.helpers.cascades import make_view
from tests.helpers.predictions import (
    CLASSES,
    SIZES_HW,
    checkpoint,
    command,
    overrides,
    run,
    write_folder,
)

SCALES = [[64, 96], [80, 120]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("predict"))


def expected(folder: Path, seeds: tuple[int, ...], scales: list[list[int]]) -> Candidates:
    """Candidates of ``a.jpg``, an image of 120x90 px, under flip TTA."""
    models = []
    for seed in seeds:
        content = torch.load(checkpoint(folder, seed), weights_only=True)
        detector = build_detector(content["hyper_parameters"]["detector"])
        names = {k.removeprefix("detector."): v for k, v in content["state_dict"].items()}
        detector.load_state_dict(names)
        models.append(detector.eval())
    image = np.asarray(Image.open(folder / "test" / "a.jpg"))
    sizes_hw = [(round(120 * short / 90), short) for short, _ in scales]
    views = [make_view(image, size, flip=flip) for flip in (False, True) for size in sizes_hw]
    (candidates,) = predict_candidates(
        models, views, category_ids=range(CLASSES), min_score=0.25, max_candidates=1000
    )
    return candidates


def test_models_and_views_of_the_command_line_are_those_of_the_cascade(
    folder: Path, tmp_path: Path
) -> None:
    both = f"checkpoint=[{checkpoint(folder, 0)},{checkpoint(folder, 1)}]"
    store = run(
        folder, tmp_path, both, "tta=three_scales_flip", f"tta.scales={SCALES}".replace(" ", "")
    )
    assert store.image_ids == tuple(SIZES_HW)
    assert [store.size_hw(index) for index in range(3)] == list(SIZES_HW.values())
    found, wanted = store.candidates(0), expected(folder, (0, 1), SCALES)
    assert len(found) == len(wanted) > 20
    assert np.allclose(found.scores, wanted.scores, rtol=1e-5)
    assert np.allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=1e-3)
    assert found.category_ids.tolist() == wanted.category_ids.tolist()
    assert store.settings["tta"] == {"scales": SCALES, "flip": True}
    assert [one["name"] for one in store.settings["checkpoints"]] == [
        "best_epoch_00_score_0.3.ckpt",
        "best_epoch_01_score_0.4.ckpt",
    ]


def test_best_checkpoints_of_a_run_are_an_ensemble(folder: Path, tmp_path: Path) -> None:
    store = run(folder, tmp_path, "ensemble=top3", "ensemble.num_best=1")
    assert [one["name"] for one in store.settings["checkpoints"]] == [
        "best_epoch_01_score_0.4.ckpt"
    ]
    with pytest.raises(InputError, match=r"ensemble.num_best must be .*, 2 .* got 3"):
        run(folder, tmp_path, "ensemble=top3")


def test_another_setting_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    given = f"checkpoint={checkpoint(folder, 0)}"
    run(folder, tmp_path, given)
    with pytest.raises(InputError, match=r"Different: settings.tta.flip: False there, True here"):
        run(folder, tmp_path, given, "tta=flip")


@pytest.mark.parametrize("key", ["flip", "vertical_flip", "quarter_turn"])
def test_a_change_of_views_is_true_or_false(folder: Path, tmp_path: Path, key: str) -> None:
    given = f"checkpoint={checkpoint(folder, 0)}"
    with pytest.raises(InputError, match=rf"^tta\.{key} must be true or false, got 'maybe'$"):
        run(folder, tmp_path, given, f"tta.{key}=maybe")


def test_eight_views_are_recorded(folder: Path, tmp_path: Path) -> None:
    store = run(folder, tmp_path, f"checkpoint={checkpoint(folder, 0)}", "tta=eight_views")
    assert store.settings["tta"] == {
        "scales": None,
        "flip": True,
        "quarter_turn": True,
        "vertical_flip": True,
    }


@pytest.mark.parametrize(
    ("fusion", "key"),
    [
        ([], "module.min_score"),
        (["fusion=late", "fusion.score_threshold=0.1"], "module.min_score"),
        (["fusion=late", "fusion.score_threshold=0.9999"], "fusion.score_threshold"),
    ],
)
def test_no_candidates_at_all_is_said(
    folder: Path, tmp_path: Path, fusion: list[str], key: str
) -> None:
    floor = 0.9999 if key == "module.min_score" else 0.001
    given = [f"checkpoint={checkpoint(folder, 0)}", f"module.min_score={floor}", *fusion]
    message = (
        rf"no image has a candidate: no class of any box scored above {key}=0\.9999; is the "
        "checkpoint a trained one"
    )
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path, *given)
    assert len(PredictionStore(tmp_path / "predictions_test")) == 3


@pytest.mark.slow
def test_sweep_over_views_writes_a_store_for_each(folder: Path, tmp_path: Path) -> None:
    sweep: list[Any] = [
        "-m",
        *overrides(folder, f"checkpoint={checkpoint(folder, 0)}"),
        "tta=none,flip,three_scales_flip",
        "tta.scales=[[64,96],[80,120]]",
        f"hydra.sweep.dir={tmp_path}",
        "hydra.sweep.subdir=${hydra:runtime.choices.tta}",
    ]
    result = command(*sweep, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    stores = {
        name: PredictionStore(tmp_path / name / "predictions_test")
        for name in ("none", "flip", "three_scales_flip")
    }
    assert all(store.image_ids == tuple(SIZES_HW) for store in stores.values())
    flips = {name: store.settings["tta"]["flip"] for name, store in stores.items()}
    assert flips == {"none": False, "flip": True, "three_scales_flip": True}
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert {name: row["tta"] for name, row in rows.items()} == {name: name for name in stores}
    for name, row in rows.items():
        assert row["predictions"] == str(stores[name].directory)
        assert row["num_images"] == str(len(SIZES_HW))
    assert "job 3 of 3: tta=three_scales_flip" in result.stdout
