"""Data that is not the competition's, with images on which nothing is: no filler, no crash."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.annotations.categories import stratified_folds
from src.annotations.store_builder import build_store
from src.cli.postprocess import main as postprocess
from src.compare import main as compare
from src.export_coco import main as export_coco
from src.metrics.competition import AVERAGINGS, ImageInstances, match_instances
from src.metrics.errors import KINDS, ErrorAccumulator
from src.metrics.scoring import open_ground_truth
from src.predictions.store import PredictionStore
from src.report import main as report
from src.rle import Bitmasks
from src.score import main as score
from src.search import main as search
from src.tuning.cross_validation import count_classes
from src.tuning.settings_evaluator import SettingsEvaluator
from tests.helpers.candidates import make_settings
from tests.helpers.competitions import OTHER_DATA
from tests.helpers.lab_data import write_own_data

IMAGES, EMPTY = 12, 4
BOTH = ("per_class", pytest.param("pooled", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_own_data(tmp_path_factory.mktemp("own"), IMAGES, EMPTY)


@pytest.fixture
def inputs(data: tuple[Path, Path]) -> tuple[str, str, str]:
    store, ground_truth = data
    return f"predictions={store}", f"annotations={ground_truth}", "cache_dir=null"


def last_line(shown: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return result


@pytest.mark.parametrize("averaging", BOTH)
def test_no_filler_is_written_or_scored(
    run: Any, inputs: tuple[str, ...], tmp_path: Path, averaging: str
) -> None:
    high = ("postprocess=winner_all_classes", "postprocess.score_threshold=0.9")
    options = (*inputs[1:], f"averaging={averaging}", "num_resamples=100")
    shown = run(postprocess, inputs[0], *options, *high)
    assert "so this is no submission to it" in shown
    assert "valid submission" not in shown
    rows = list(csv.DictReader(Path("submission.csv").read_text().splitlines()))
    assert {row["ImageId"] for row in rows} == {f"{n:03d}.jpg" for n in range(IMAGES + EMPTY)}
    nothing = [row for row in rows if not row["EncodedPixels"]]
    assert len(nothing) > EMPTY
    assert {row["ClassId"] for row in nothing} == {""}
    summary = last_line(shown)
    assert set(summary["per_class"]) == {"1", "5", "9"}
    per_image = json.loads((tmp_path / "score.json").read_text())["per_image"]
    assert [per_image[f"{n:03d}.jpg"] for n in range(IMAGES, IMAGES + EMPTY)] == [1.0] * EMPTY

    assert last_line(run(score, "submission=submission.csv", *options)) == summary
    (store,) = (text.partition("=")[2] for text in inputs[:1])
    sides = ("a=submission.csv", f"b={store}", "b_postprocess.score_threshold=0.9")
    assert last_line(run(compare, *sides, *options))["difference"]["estimate"] == 0.0
    for source in (inputs[:1] + high, ("submission=submission.csv",)):
        shown = run(report, *source, *options, "output=page.html", "num_worst=1", "num_best=0")
        assert f"score {summary['competition_map']:.4f} ({averaging}, 16 images)" in shown


def test_filler_rows_of_a_file_are_no_predictions(run: Any, data: tuple[Path, Path]) -> None:
    _, ground_truth = data
    lines = "".join(f"{n:03d}.jpg,1 1,23\n" for n in range(IMAGES + EMPTY))
    Path("fillers.csv").write_text("ImageId,EncodedPixels,ClassId\n" + lines)
    arguments = ("submission=fillers.csv", f"annotations={ground_truth}", "cache_dir=null")
    shown = run(score, *arguments)
    assert "which are predictions only in the competition, left out: 16" in " ".join(shown.split())
    assert last_line(shown)["competition_map"] == EMPTY / (IMAGES + EMPTY)
    few = ("num_resamples=100", "num_worst=1", "num_best=0")
    assert run(report, *arguments, *few).startswith("wrote report.html")
    Path("fillers.csv").write_text("ImageId,EncodedPixels,ClassId\n000.jpg,1 2,23\n")
    error = run(score, *arguments)
    assert error.endswith("fillers.csv, row 2, image '000.jpg': category must be 1, 5, 9, got 23")
    Path("fillers.csv").write_text("ImageId,EncodedPixels,ClassId\n000.jpg,1 1,7\n")
    assert run(score, *arguments).endswith("category must be 1, 5, 9, got 7")


def test_a_store_with_other_categories_is_no_submission(
    run: Any, data: tuple[Path, Path], tmp_path: Path
) -> None:
    _, ground_truth = data
    content = json.loads(ground_truth.read_text())
    content["categories"].append({"id": 7, "name": "other"})
    content["annotations"][0]["category_id"] = 7
    (tmp_path / "other.json").write_text(json.dumps(content))
    build_store(tmp_path / "other.json", tmp_path / "other.store")
    error = run(score, "submission=other.store", f"annotations={ground_truth}", "cache_dir=null")
    assert re.search(r"category must be 1, 5, 9, got 7 \(.*other\.store, image \S+\)$", error)


@pytest.mark.parametrize("averaging", BOTH)
def test_search_with_empty_images(
    run: Any, inputs: tuple[str, ...], tmp_path: Path, averaging: str
) -> None:
    shown = run(
        search,
        *inputs,
        f"config_dir={tmp_path}/own",
        f"output_dir={tmp_path}/out",
        "num_trials=6",
        "num_random_trials=4",
        "num_folds=2",
        "num_resamples=200",
        f"averaging={averaging}",
        "space.mask_threshold_per_class=null",
        "space.score_threshold_per_class=0.3 to 0.9 by 0.3",
        *(
            f"{group}.remove_categories=[wild dog]"
            for group in ("postprocess", "default", "winner")
        ),
    )
    result = last_line(shown)
    assert result["images"] == IMAGES + EMPTY
    assert result["settings"]["remove_categories"] == [9]


@pytest.mark.parametrize("averaging", AVERAGINGS)
@pytest.mark.parametrize("key", ["score_threshold_per_class", "mask_threshold_per_class"])
def test_class_thresholds_with_empty_images(
    data: tuple[Path, Path], averaging: Any, key: str
) -> None:
    store, ground_truth = data
    settings = make_settings(score_threshold=0.5, nms_iou_threshold=0.5, suppress_overlaps=True)
    with open_ground_truth(ground_truth) as objects:
        opened = PredictionStore(store)
        lab = SettingsEvaluator(opened, objects, opened.image_ids, competition=OTHER_DATA)
        table = count_classes(lab, settings, key, (0.2, 0.8, 0.97))
        for chosen in np.random.default_rng(0).integers(0, 4, (5, 3)):
            own = {c: float(table.values[v]) for c, v in zip((1, 5, 9), chosen, strict=True)}
            wanted = lab.score(settings.replace(**{key: own}), averaging).per_image
            assert table.scores(chosen, averaging) == pytest.approx(wanted, abs=1e-12)
            assert wanted[IMAGES:].tolist() == [1.0] * EMPTY
        only_empty = np.arange(IMAGES + EMPTY) >= IMAGES
        assert table.tune(only_empty, averaging) == {}


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_errors_of_an_image_with_nothing(averaging: Any) -> None:
    nothing = ImageInstances("a", (), Bitmasks.of([], (512, 512)))
    errors = ErrorAccumulator(averaging=averaging)
    errors.add(nothing, nothing, match_instances(nothing, nothing))
    found = errors.result()
    assert found.score == 1.0
    assert {kind: found.gain(kind) for kind in KINDS} == dict.fromkeys(KINDS, 0.0)


def test_folds_deal_empty_images_out() -> None:
    fold_of = stratified_folds([{1}, {1}, {1, 5}, {5}] * 3 + [set()] * 6, folds=3, seed=0)
    assert np.bincount(fold_of).tolist() == [6, 6, 6]
    assert sorted(np.bincount(fold_of[12:], minlength=3)) == [2, 2, 2]
    assert set(stratified_folds([set()] * 6, folds=3, seed=0)) == {0, 1, 2}


def test_a_step_that_takes_everything_is_named(run: Any, inputs: tuple[str, ...]) -> None:
    shown = run(postprocess, *inputs, "postprocess=winner")
    assert "0 detections in 0 of 16 images\n" in shown
    assert "144 candidates: score took 76, nms 31, remove 37; 0 detections are left" in shown
    assert (
        "warning: remove took all 37 detections that reached it: postprocess.remove_categories "
        "removes 1 cat, 5 dog, 9 wild dog; of the predictions' categories none is kept"
    ) in shown
    shown = run(postprocess, *inputs, "postprocess.score_threshold=1")
    assert "warning: score took all 144 detections that reached it: postprocess.score" in shown
    shown = run(postprocess, *inputs, "postprocess=winner_all_classes")
    assert "warning" not in shown


def test_other_commands_name_such_a_step_too(run: Any, inputs: tuple[str, ...]) -> None:
    took = "remove took all 37 detections that reached it: postprocess.remove_categories removes 1"
    store = inputs[0].partition("=")[2]
    few = ("num_resamples=100", *inputs[1:])
    run(report, inputs[0], *few, "postprocess=winner", "num_worst=1", "num_best=0")
    assert took in Path("report.html").read_text()
    shown = run(postprocess, "-m", *inputs, "postprocess=winner,winner_all_classes")
    assert re.search(r"0 detections, [0-9a-f]{8}, remove took most detections\njob 2 of 2", shown)
    errors: list[str] = []
    run(compare, f"a={store}", f"b={store}", "b_postprocess=winner", *few, errors=errors)
    assert f"warning: b: {took}" in errors[0]
    shown = run(export_coco, inputs[0], "output=o.json", "postprocess=winner", errors=errors)
    assert "o.json: 0 detections in 16 images\n144 candidates: score took 76" in shown
    assert f"warning: {took}, 5, 9; " in errors[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            "postprocess.remove_categories=[attribute_classes]",
            "postprocess.remove_categories must be ids or names of categories of "
            "{ground_truth}, got attribute_classes: that stands for categories of "
            "iMaterialist (Fashion); its own are 1 cat, 5 dog, 9 wild dog",
        ),
        (
            "postprocess.remove_categories=[dgo]",
            "postprocess.remove_categories must be ids or names of categories of "
            "{ground_truth}, got 'dgo'; near ones: 5 dog",
        ),
        (
            "postprocess.score_threshold_per_class={zebra:0.5}",
            "postprocess.score_threshold_per_class must be ids or names of categories of "
            "{ground_truth}, got 'zebra'; near ones: 1 cat, 5 dog, 9 wild dog",
        ),
        (
            "postprocess.mask_threshold_per_class={Cat:0.5,1:0.4}",
            "postprocess.mask_threshold_per_class must have a category once, got 'Cat' and 1",
        ),
        (
            "postprocess.mask_threshold_per_class={cat:0}",
            "postprocess.mask_threshold_per_class.cat must be a number above 0 and at most 1, "
            "got 0",
        ),
    ],
)
def test_mistakes_about_categories_are_one_line(
    run: Any, data: tuple[Path, Path], inputs: tuple[str, ...], changes: str, message: str
) -> None:
    assert run(postprocess, *inputs, changes) == f"error: {message.format(ground_truth=data[1])}"


def test_categories_are_named_in_every_command(run: Any, data: tuple[Path, Path]) -> None:
    store, ground_truth = data
    inputs = (f"annotations={ground_truth}", "cache_dir=null")
    named = ("remove_categories=[Dog]", "score_threshold_per_class={wild dog:0.9}")
    numbered = ("remove_categories=[5]", "score_threshold_per_class={9:0.9}")
    found = [
        last_line(
            run(postprocess, f"predictions={store}", *inputs, *(f"postprocess.{x}" for x in own))
        )
        for own in (named, numbered)
    ]
    assert found[0] == found[1]
    sides = [
        f"{side}_postprocess.{x}"
        for side, own in zip("ab", (named, numbered), strict=True)
        for x in own
    ]
    paired = last_line(run(compare, f"a={store}", f"b={store}", *inputs, *sides))
    assert paired["difference"]["estimate"] == 0.0
    assert paired["a"]["estimate"] < 1
    arguments = (f"predictions={store}", *inputs, "num_resamples=100", "num_worst=1", "num_best=0")
    shown = run(report, *arguments, *(f"postprocess.{x}" for x in named))
    assert f"score {found[0]['competition_map']:.4f} " in shown
    # without the ground truth, and without names in the store
    error = run(export_coco, f"predictions={store}", "output=o.json", f"postprocess.{named[0]}")
    assert error == (
        "error: postprocess.remove_categories must be category ids here, got 'Dog': "
        f"{store} has no names; annotations=... provides them"
    )
